// A file of notes up, its codes down.

import * as api from "./api.js";
import { visible } from "./characters.js";
import {
  ProgressBar,
  announce,
  byId,
  clearMessage,
  download,
  element,
  plural,
  showMessage,
  takeDrops,
  timeLeft,
  waitingText,
} from "./dom.js";
import { megabytes } from "./note.js";

const REJECTED_SHOWN = 50;

export class BatchPane {
  constructor() {
    this.file = null;
    this.limits = { max_batch_bytes: Infinity }; // until the server has said its own
    this.running = null;
    this.results = byId("batch-results");
    this.progress = new ProgressBar("batch-progress", () => this.#cancel());
    byId("batch-file").addEventListener("change", (event) => this.#choose(event.target.files[0]));
    byId("batch-form").addEventListener("submit", (event) => (event.preventDefault(), this.#run()));
    takeDrops(
      byId("batch"),
      () => !this.running,
      (file) => this.#choose(file),
    );
  }

  setUp({ models, limits }) {
    this.limits = limits;
    byId("batch-hint").textContent =
      "One row for each note, in the columns note_id and text. The file is held in memory while it is coded, and " +
      "then forgotten. " +
      `At most ${limits.max_batch_rows.toLocaleString("en")} rows and ${megabytes(limits.max_batch_bytes)}.`;
    byId("batch-model").replaceChildren(...models.map(({ id, name }) => element("option", { value: id }, name)));
    byId("batch-model-choice").hidden = models.length < 2;
  }

  #choose(file) {
    if (!file) return;
    if (file.size > this.limits.max_batch_bytes) {
      return showMessage(`${file.name} is larger than ${megabytes(this.limits.max_batch_bytes)}: divide it.`);
    }
    clearMessage();
    this.file = file;
    byId("batch-file").value = "";
    byId("batch-name").textContent = `${visible(file.name)}, ${megabytes(file.size)}`;
    byId("batch-chosen").hidden = false;
    this.results.hidden = true;
    byId("batch-run").focus();
    announce(`${visible(file.name)} is chosen.`);
  }

  async #run() {
    if (this.running) return;
    const running = (this.running = { token: api.newToken(), aborter: new AbortController() });
    clearMessage();
    byId("batch-form").hidden = true;
    this.results.hidden = true;
    this.progress.start("Sending the file …");
    byId("batch-progress").querySelector("button").focus();
    try {
      const { batch, rows } = await api.sendBatch(this.file);
      this.progress.show(`${plural(rows, "note")} to code`, null);
      if (running.aborter.signal.aborted) throw new api.Cancelled();
      const data = [batch, byId("batch-model").value, running.token];
      const last = await api.run("code_batch", data, (state) => this.#tell(state), running.aborter.signal);
      this.#show(last, rows);
    } catch (error) {
      this.#explain(error);
    } finally {
      this.running = null;
      this.progress.stop();
      byId("batch-form").hidden = !this.results.hidden;
    }
    if (!this.results.hidden) this.results.focus();
    else byId("batch-run").focus();
  }

  #tell({ status, done, total, seconds_left: left }) {
    if (status === "waiting") return this.progress.show(waitingText(total - done, left), null);
    const parts = [`${done.toLocaleString("en")} of ${plural(total, "note")} coded`, timeLeft(left)];
    this.progress.show(parts.filter(Boolean).join(", "), total ? done / total : null);
  }

  #cancel() {
    api.cancelRun(this.running.token);
    this.running.aborter.abort();
  }

  /** Stop what runs, as when the page is closed. */
  leave() {
    if (this.running) api.cancelRun(this.running.token);
  }

  #explain(error) {
    if (error instanceof api.Cancelled) announce("Coding the file was cancelled. The file is still chosen.");
    else showMessage(error.message, error.canRetry ? { label: "Try again", run: () => this.#run() } : null);
  }

  #show({ csv, rejected }, rows) {
    const coded = rows - rejected.length;
    const name = `${this.file.name.replace(/\.[^.]*$/, "")}-codes.csv`;
    const save = () => download(new Blob([csv], { type: "text/csv;charset=utf-8" }), name);
    const again = () => {
      this.results.hidden = true;
      byId("batch-form").hidden = false;
      byId("batch-file").focus();
    };
    this.results.replaceChildren(
      element(
        "h3",
        {},
        rejected.length
          ? `${plural(coded, "note")} coded, ${plural(rejected.length, "row")} not`
          : `${plural(coded, "note")} coded`,
      ),
      element(
        "div",
        { class: "actions" },
        element("button", { type: "button", class: "primary", onclick: save }, "Download the codes"),
        element("button", { type: "button", onclick: again }, "Code another file"),
      ),
      ...rejectedTable(rejected),
    );
    this.results.hidden = false;
    announce(`${plural(coded, "note")} coded. The codes can be downloaded.`);
  }
}

function rejectedTable(rejected) {
  if (!rejected.length) return [];
  const lines = rejected
    .slice(0, REJECTED_SHOWN)
    .map(({ row, reason }) =>
      element("tr", {}, element("th", { scope: "row" }, String(row)), element("td", {}, reason)),
    );
  const more = rejected.length - lines.length;
  return [
    element(
      "table",
      { class: "rejected" },
      element("caption", {}, "Rows that could not be coded"),
      element(
        "thead",
        {},
        element("tr", {}, element("th", { scope: "col" }, "Row"), element("th", { scope: "col" }, "Why")),
      ),
      element("tbody", {}, ...lines),
    ),
    more > 0 ? element("p", { class: "muted" }, `And ${plural(more, "row")} more.`) : null,
  ].filter(Boolean);
}
