// The list that a person makes: accepted and added codes, with undo and redo, search in all titles, and downloads.

import * as api from "./api.js";
import { announce, byId, download, element, plural, showMessage } from "./dom.js";
import { TitleSearch } from "./search.js";
import { STATUS, finalList, withDecision } from "./store.js";

const FORMATS = { csv: "CSV", fhir: "FHIR" };

export class FinalPane {
  constructor(store) {
    this.store = store;
    byId("undo").addEventListener("click", () => this.move("undo"));
    byId("redo").addEventListener("click", () => this.move("redo"));
    for (const format of Object.keys(FORMATS)) byId(format).addEventListener("click", () => this.#download(format));
    this.search = new TitleSearch((title) => this.#add(title));
    document.addEventListener("keydown", (event) => this.#key(event));
    addEventListener("beforeunload", (event) => {
      if (this.exported !== store.state.decisions && store.state.decisions.size) event.preventDefault();
    });
    store.watch(["decisions"], (state) => this.#show(state));
    store.watch(["decisions"], () => (byId("confirmed").checked = false)); // it was said of another list
    store.watch(["history"], ({ history }) => this.#showHistory(history));
  }

  /** Offer the classifications of the models first, and all of them. */
  setSystems(models, searchable, lacking) {
    this.search.setSystems([...new Set(models.flatMap((model) => model.systems))], searchable, lacking);
  }

  /** Take a code, refuse it, or take that back; `status` as in `STATUS`, or `null`. */
  decide(code, status) {
    const before = this.store.state.decisions.get(code.code)?.status ?? null;
    const verb =
      { accepted: "accept", rejected: "reject", added: "add" }[status] ??
      `no longer ${before === "rejected" ? "reject" : "accept"}`;
    const count = finalList(withDecision(this.store.state, code, status)).length;
    this.store.act(`${verb} ${code.code}`, withDecision(this.store.state, code, status));
    announce(
      `${code.code} ${status ?? "undecided"}. The final list has ${plural(count, "code")}.`,
    );
  }

  move(direction) {
    if (this.store.state.isBusy) return announce("The note is being coded: wait, or cancel it first.");
    const label = this.store[direction]();
    announce(
      label === null
        ? `There is nothing to ${direction}.`
        : `${direction === "undo" ? "Undone" : "Done again"}: ${label}.`,
    );
  }

  #key(event) {
    const key = event.key.toLowerCase();
    const isWriting = event.target.closest?.("textarea, input[type=text]");
    if (!(event.ctrlKey || event.metaKey) || event.altKey || isWriting) return;
    const direction = key === "y" || (key === "z" && event.shiftKey) ? "redo" : key === "z" ? "undo" : null;
    if (!direction) return;
    event.preventDefault();
    this.move(direction);
  }

  #add(title) {
    const held = this.store.state.decisions.get(title.code);
    if (held && held.status !== STATUS.rejected) {
      announce(`${title.code} is in the final list already.`);
      return;
    }
    const offered = [...this.store.state.results.values()]
      .flatMap(({ result }) => result.codes)
      .find(({ code }) => code === title.code);
    if (offered) this.decide(offered, STATUS.accepted);
    else this.decide({ ...title, score: null, decision: null }, STATUS.added);
  }

  #show(state) {
    const list = finalList(state);
    const numRejected = state.decisions.size - list.length;
    byId("final-size").textContent = String(list.length);
    byId("final").replaceChildren(
      list.length
        ? element("ul", { class: "final-list" }, ...list.map((entry) => this.#item(entry)))
        : element("p", { class: "empty" }, "Codes that you accept or add are collected here."),
      ...(numRejected ? [element("p", { class: "muted hint" }, `${plural(numRejected, "code")} rejected.`)] : []),
    );
  }

  #item({ code, status }) {
    const remove = element(
      "button",
      {
        type: "button",
        class: "quiet remove",
        "aria-label": `Remove ${code.code}`,
        onclick: () => this.#remove(code),
      },
      "Remove",
    );
    return element(
      "li",
      { "data-code": code.code, "data-status": status },
      element("span", { class: "code" }, code.code),
      element("span", { class: "tag" }, code.kind === "procedure" ? `${status}, procedure` : status),
      remove,
      element("span", { class: "title" }, code.title || "No title is known"),
    );
  }

  #remove(code) {
    const items = [...byId("final").querySelectorAll("li")];
    const at = items.findIndex((item) => item.dataset.code === code.code);
    this.decide(code, null);
    const next = byId("final").querySelectorAll(".remove");
    (next[Math.min(at, next.length - 1)] ?? byId("final-heading")).focus();
  }

  #showHistory(history) {
    for (const [direction, word] of [
      ["undo", "Undo"],
      ["redo", "Redo"],
    ]) {
      const button = byId(direction);
      const hadFocus = document.activeElement === button;
      button.disabled = history[direction] === null;
      button.title = history[direction] === null ? "" : `${word}: ${history[direction]}`;
      if (hadFocus && button.disabled) byId("final-heading").focus();
    }
  }

  async #download(format) {
    const { decisions } = this.store.state;
    const list = finalList(this.store.state);
    if (!list.length) return showMessage("The final list is empty: accept or add at least one code first.");
    const codes = list.map(({ status, code: { code, title, kind, system, score, decision } }) => ({
      code,
      title,
      kind,
      system,
      score: score ?? null,
      decision: decision ?? null,
      status,
    }));
    try {
      const { blob, name } = await api.exportCodes(format, codes, byId("confirmed").checked);
      download(blob, name);
      this.exported = decisions;
      announce(`${FORMATS[format]} with ${plural(codes.length, "code")} downloaded.`);
    } catch (error) {
      showMessage(error.message, error.canRetry ? { label: "Try again", run: () => this.#download(format) } : null);
    }
  }
}
