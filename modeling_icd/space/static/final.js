// The list that a person makes: accepted and added codes, with undo and redo, search in all titles, and downloads.

import * as api from "./api.js";
import { announce, byId, clearMessage, download, element, plural, showMessage } from "./dom.js";
import { categoryTag } from "./rows.js";
import { TitleSearch } from "./search.js";
import { STATUS, finalList, withDecision } from "./store.js";

const FORMATS = { csv: "CSV", fhir: "FHIR" };

export class FinalPane {
  /**
   * @param {Store} store
   * @param {() => boolean} codesCategories whether the model was trained on categories, so that they are what it is asked for
   */
  constructor(store, codesCategories) {
    this.store = store;
    this.codesCategories = codesCategories;
    byId("undo").addEventListener("click", () => this.move("undo"));
    byId("redo").addEventListener("click", () => this.move("redo"));
    for (const format of Object.keys(FORMATS)) byId(format).addEventListener("click", () => this.#download(format));
    this.search = new TitleSearch((title) => this.#add(title));
    document.addEventListener("keydown", (event) => this.#key(event));
    addEventListener("beforeunload", (event) => {
      if (this.exported !== store.state.decisions && store.state.decisions.size) event.preventDefault();
    });
    this.#keepInSight();
    store.watch(["decisions"], (state) => this.#show(state));
    store.watch(["decisions"], () => (byId("confirmed").checked = false)); // it was said of another list
    store.watch(["history"], ({ history }) => this.#showHistory(history));
  }

  /** Offer the classifications of the models first, and all of them. */
  setSystems(models, searchable, lacking) {
    this.search.setSystems([...new Set(models.flatMap((model) => model.systems))], searchable, lacking);
  }

  /** Where the list is out of sight, a button at the edge of the window says how many codes it has, and leads to it. */
  #keepInSight() {
    const button = byId("to-final");
    button.addEventListener("click", () => {
      byId("final-heading").scrollIntoView({ block: "start" });
      byId("final-heading").focus({ preventScroll: true });
    });
    const pane = document.querySelector(".final-pane");
    new IntersectionObserver(([{ isIntersecting }]) => {
      this.isInSight = isIntersecting;
      this.#showButton();
    }).observe(pane);
  }

  #showButton() {
    const count = finalList(this.store.state).length;
    const hadFocus = document.activeElement === byId("to-final");
    byId("to-final").hidden = !count || this.isInSight !== false;
    byId("to-final").textContent = `Final list: ${plural(count, "code")}`;
    if (hadFocus && byId("to-final").hidden) byId("final-heading").focus();
  }

  /**
   * Take a code, refuse it, or take that back; `status` as in `STATUS`, or `null`. A category is taken only after a question,
   * unless categories are what the model was trained on.
   */
  decide(code, status) {
    const isTaken = status === STATUS.accepted || status === STATUS.added;
    if (isTaken && code.heading && !this.codesCategories()) {
      const accept = { label: "Take it all the same", run: () => this.#decide(code, status) };
      return showMessage(`${code.code} is a category and cannot be billed: a code below it is more exact.`, accept);
    }
    this.#decide(code, status);
  }

  #decide(code, status) {
    clearMessage();
    const before = this.store.state.decisions.get(code.code)?.status ?? null;
    const verb =
      { accepted: "accept", rejected: "reject", added: "add" }[status] ??
      `no longer ${before === "rejected" ? "reject" : "accept"}`;
    const count = finalList(withDecision(this.store.state, code, status)).length;
    this.store.act(`${verb} ${code.code}`, withDecision(this.store.state, code, status));
    announce(`${code.code} ${status ?? "undecided"}. The final list has ${plural(count, "code")}.`);
  }

  move(direction) {
    if (this.store.state.isBusy) return announce("The note is being coded: wait, or cancel it first.");
    const label = this.store[direction]();
    if (label === null) return announce(`There is nothing to ${direction}.`);
    clearMessage();
    const count = plural(finalList(this.store.state).length, "code");
    announce(`${direction === "undo" ? "Undone" : "Done again"}: ${label}. The final list has ${count}.`);
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
    this.#showButton();
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
      element(
        "span",
        { class: "chips" },
        element("span", { class: "tag" }, code.kind === "procedure" ? `${status}, procedure` : status),
        code.heading ? categoryTag() : null,
      ),
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
      clearMessage();
      announce(`${FORMATS[format]} with ${plural(codes.length, "code")} downloaded.`);
    } catch (error) {
      showMessage(error.message, error.canRetry ? { label: "Try again", run: () => this.#download(format) } : null);
    }
  }
}
