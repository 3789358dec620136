// Small helpers for elements. Text reaches the page by textContent alone, so nothing in a note can become markup.

import { visible } from "./characters.js";

export const byId = (id) => document.getElementById(id);

/** An element with properties (`class`, `aria-...`, `on...` listeners, others as DOM properties) and children. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name.startsWith("aria-") || name.startsWith("data-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const SHAPES = {
  // A state is told by its shape as well as by its colour: full disc, half disc, ring, and a cross.
  confident: [["circle", { cx: 8, cy: 8, r: 6.5, fill: "currentColor" }]],
  predicted: [["circle", { cx: 8, cy: 8, r: 6.5, fill: "currentColor" }]],
  review: [
    ["path", { d: "M8 1.2 14.8 8 8 14.8 1.2 8Z", fill: "none", stroke: "currentColor", "stroke-width": 1.8 }],
    ["path", { d: "M8 1.2 8 14.8 1.2 8Z", fill: "currentColor" }],
  ],
  below: [["circle", { cx: 8, cy: 8, r: 5.8, fill: "none", stroke: "currentColor", "stroke-width": 1.6 }]],
};

/** A drawing for one of the states of a code; the state stands beside it as a word. */
export function shape(state) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", `shape ${state}`);
  svg.setAttribute("aria-hidden", "true");
  for (const [tag, attributes] of SHAPES[state]) {
    const part = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) part.setAttribute(name, value);
    svg.append(part);
  }
  return svg;
}

/** Say something to people who hear the page, without moving the focus. */
export function announce(text) {
  const status = byId("status");
  status.textContent = "";
  setTimeout(() => (status.textContent = text), 50);
}

/**
 * Show one message with at most one way to go on; it stays until it is closed, the next one comes, or something else that
 * a person does succeeds.
 */
export function showMessage(text, action = null) {
  const close = element("button", { type: "button", class: "quiet", onclick: clearMessage }, "Close");
  const go =
    action && element("button", { type: "button", onclick: () => (clearMessage(), action.run()) }, action.label);
  byId("message").replaceChildren(
    element("div", { class: "message" }, element("p", {}, visible(text)), element("span", { class: "actions" }, go, close)),
  );
}

export function clearMessage() {
  byId("message").replaceChildren();
}

/** Offer a file for download; the browser forgets the address a moment later. */
export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = element("a", { href: address, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** How long something will still take, in words that do not jump with every second. */
export function timeLeft(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 2) return "nearly done";
  return `${about(seconds)} left`;
}

const about = (seconds) =>
  seconds < 90 ? `about ${Math.max(5, Math.ceil(seconds / 5) * 5)} s` : `about ${Math.round(seconds / 60)} min`;

/** Where something stands in the server's line, and how long that takes where the server knows it. */
export function waitingText(ahead, seconds) {
  const who = `Waiting: ${ahead === 1 ? "1 note" : `${ahead} notes`} before yours`;
  return seconds === null || seconds === undefined ? who : `${who}, ${about(seconds)} until its turn`;
}

/** Let files be dropped on a part of the page; `isOpen` says whether it takes one now. */
export function takeDrops(area, isOpen, take) {
  const hasFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files") && isOpen();
  area.addEventListener("dragover", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    area.classList.add("dropping");
  });
  area.addEventListener("dragleave", () => area.classList.remove("dropping"));
  area.addEventListener("drop", (event) => {
    area.classList.remove("dropping");
    if (!hasFile(event)) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
}

/** Progress of a run: how far it is, in words and as a bar; spoken at its start and then every ten seconds at most. */
export class ProgressBar {
  constructor(prefix, onCancel) {
    this.box = byId(prefix);
    this.text = byId(`${prefix}-text`);
    this.bar = byId(`${prefix}-bar`);
    this.cancel = this.box.querySelector("button");
    this.cancel.addEventListener("click", () => {
      this.cancel.disabled = true;
      this.text.textContent = "Stopping …";
      onCancel();
    });
  }

  start(text) {
    this.box.hidden = false;
    this.cancel.disabled = false;
    this.spoken = 0;
    this.show(text, null);
  }

  show(text, share) {
    if (this.cancel.disabled) return;
    this.text.textContent = text;
    if (share === null) this.bar.removeAttribute("value");
    else this.bar.value = share;
    if (Date.now() - this.spoken > 10_000) {
      this.spoken = Date.now();
      announce(text);
    }
  }

  stop() {
    this.box.hidden = true;
  }
}
