// Everything that goes to the server. Text travels in the body of a request, never in its address.

const ROOT = new URL("../", import.meta.url);
const SILENCE = 120_000; // milliseconds without a sign of life after which a run counts as lost

/** Something that a person should read. `canRetry`: the same may work in a moment. */
export class ServerError extends Error {
  constructor(message, canRetry = false) {
    super(message);
    this.canRetry = canRetry;
  }
}

export class Cancelled extends Error {}

const GONE = "The server does not answer. What you typed and decided is still here.";
const BROKEN_OFF = "The connection broke off before the end. What you typed and decided is still here.";

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(new URL(path, ROOT), { cache: "no-store", referrerPolicy: "no-referrer", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw new Cancelled();
    throw new ServerError(GONE, true);
  }
  if (response.ok) return response;
  throw await fault(response);
}

async function fault(response) {
  if (response.status === 401)
    return new ServerError("You are not signed in any more. Sign in in another tab, then try again.", true);
  let said = null;
  try {
    const body = await response.json();
    said = [body.message, body.detail].find((text) => typeof text === "string");
  } catch {
    // A fault without a sentence of its own gets one below.
  }
  const isBusy = response.status === 503 || response.status === 429;
  const own = isBusy
    ? "The server is busy with other notes."
    : `The server could not do this (${response.status}). What you typed and decided is still here.`;
  return new ServerError(said ?? own, isBusy || response.status >= 500);
}

const asJson = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});
const asFile = (file) => ({ method: "POST", headers: { "X-File-Name": encodeURIComponent(file.name) }, body: file });

async function json(path, options) {
  const response = await request(path, options);
  try {
    return await response.json();
  } catch {
    throw new ServerError(BROKEN_OFF, true);
  }
}

export const about = () => json("api/about");
export const readDocument = (file) => json("api/document", asFile(file));
export const sendBatch = (file) => json("api/batch", asFile(file));
export const findTitles = (query, system, limit, signal) =>
  json("api/titles", { ...asJson({ query, system, limit }), signal });

/** The final list as a file: `{blob, name}`. */
export async function exportCodes(format, codes, confirmed) {
  const response = await request("api/export", asJson({ format, codes, confirmed }));
  const named = /filename="?([^";]+)"?/.exec(response.headers.get("Content-Disposition") ?? "");
  return {
    blob: await response.blob(),
    name: named ? named[1] : { csv: "codes.csv", fhir: "codes.fhir.json" }[format],
  };
}

/** A name for one run that nobody else can guess; `randomUUID` exists on https and localhost alone. */
export function newToken() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Ask the server to stop a run. It also works while the page is being closed. */
export function cancelRun(token) {
  const body = JSON.stringify({ token });
  fetch(new URL("api/cancel", ROOT), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body,
    keepalive: true,
  }).catch(() => {});
}

/**
 * Run `code_note` or `code_batch` in the server's queue, and return what it says at its end.
 *
 * @param {string} name of the run's kind
 * @param {Array} data its arguments; the last one is the token that `cancelRun` takes
 * @param {(state: object) => void} onProgress called with every state before the last one
 * @param {AbortSignal} signal ends the run on this side, whether or not the server hears of it
 */
export async function run(name, data, onProgress, signal) {
  const { event_id: id } = await json(`gradio_api/call/${name}`, { ...asJson({ data }), signal });
  const response = await request(`gradio_api/call/${name}/${encodeURIComponent(id)}`, { signal });
  let last = null;
  for await (const { event, value } of serverEvents(response, signal)) {
    if (event === "error") throw new ServerError(errorText(value), true);
    if (event !== "generating" && event !== "complete") continue;
    if (value?.[0]) {
      last = value[0];
      if (!ENDS.has(last.status)) onProgress(last);
    }
    if (event === "complete" || ENDS.has(last?.status)) break;
  }
  if (last?.status === "done") return last;
  if (last?.status === "cancelled") throw new Cancelled();
  if (last?.status === "error") throw new ServerError(last.message);
  if (last?.status === "busy") throw new ServerError(last.message, true);
  throw new ServerError(BROKEN_OFF, true);
}

const ENDS = new Set(["done", "cancelled", "error", "busy"]);

function errorText(value) {
  const said = typeof value === "string" ? value : (value?.error ?? value?.message);
  return typeof said === "string" && said
    ? said
    : "The server could not finish this. What you typed and decided is still here.";
}

async function* serverEvents(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await withinSilence(reader.read(), signal);
      if (done) return;
      rest += value;
      const blocks = rest.split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) yield parseEvent(block);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function withinSilence(reading, signal) {
  let timer;
  const silent = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new ServerError(GONE, true)), SILENCE);
  });
  try {
    return await Promise.race([reading, silent]);
  } catch (error) {
    if (error instanceof ServerError) throw error;
    if (signal?.aborted) throw new Cancelled();
    throw new ServerError(BROKEN_OFF, true);
  } finally {
    clearTimeout(timer);
  }
}

function parseEvent(block) {
  let event = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  try {
    return { event, value: JSON.parse(data.join("\n") || "null") };
  } catch {
    return { event, value: null };
  }
}
