// A row for each code: what it is, how sure the model is, the words behind it, and what the person decided.

import { visible } from "./characters.js";
import { element, shape } from "./dom.js";
import { strongestWords } from "./highlight.js";
import { STATUS, codeState } from "./store.js";

const WORDS_SHOWN = 8;
// What stands before the words that speak for a code, by what found them: places that say a term or the title, or the model's head.
const SOURCE_WORDS = { term: "Says a term: ", title: "Says the title: ", model: "Read from " };
const STATE_WORDS = { confident: "confident", review: "review", predicted: "predicted", below: "below threshold" };

/** Says of a code that it is a category, which has codes below it. */
export const categoryTag = () => element("span", { class: "tag category" }, "category, not billable");

/** The score of a code as a bar and as a number. */
export function scoreParts(score) {
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--score", score);
  return [
    bar,
    element("span", { class: "number" }, element("span", { class: "visually-hidden" }, "score "), score.toFixed(2)),
  ];
}

/**
 * One code of a list.
 *
 * @param {object} code of the server's result
 * @param {object} does `{pick(code), decide(code, status), reveal(start, end)}`; without `decide` there is nothing
 *     to accept
 * @param {object} extra `note`: a few words beside the state, such as "assigned"
 */
export class CodeRow {
  constructor(code, does, extra = {}) {
    this.code = code;
    this.does = does;
    this.state = element("span", { class: "state" });
    const tags = [
      ...(extra.note ? [element("span", { class: "tag" }, extra.note)] : []),
      ...(code.heading ? [categoryTag()] : []),
    ];
    this.pick = element(
      "button",
      { type: "button", class: "pick", tabIndex: -1, "aria-pressed": "false", onclick: () => does.pick(code) },
      element(
        "span",
        { class: "line" },
        element("span", { class: "code" }, code.code),
        this.state,
        element("span", { class: "score" }, ...scoreParts(code.score)),
      ),
      tags.length ? element("span", { class: "chips" }, ...tags) : null,
      element("span", { class: "title" }, code.title || "No title is known"),
      code.chapter ? element("span", { class: "chapter" }, code.chapter) : null,
    );
    this.words = element("p", { class: "words", hidden: true });
    this.buttons = does.decide ? ["accepted", "rejected"].map((status) => this.#decideButton(status)) : [];
    this.element = element("li", { class: "row", "data-code": code.code }, this.pick, this.words);
    if (this.buttons.length) this.pick.after(element("span", { class: "decide" }, ...this.buttons));
  }

  #decideButton(status) {
    const [verb, sign] = status === STATUS.accepted ? ["Accept", "✓"] : ["Reject", "✕"];
    return element(
      "button",
      {
        type: "button",
        class: verb.toLowerCase(),
        tabIndex: -1,
        "data-status": status,
        "aria-pressed": "false",
        "aria-label": `${verb} ${this.code.code}`,
        title: verb,
        onclick: () => this.toggle(status),
      },
      element("span", { "aria-hidden": "true" }, sign),
      element("span", { class: "verb" }, verb),
    );
  }

  toggle(status) {
    this.does.decide(this.code, this.status === status ? null : status);
  }

  /** Bring the row to the state of the page: threshold, decisions and the selected code. */
  update({ threshold, decisions, selected }) {
    const mark = codeState(this.code, threshold);
    if (this.element.dataset.state !== mark) {
      this.element.dataset.state = mark;
      this.state.replaceChildren(shape(mark), STATE_WORDS[mark]);
    }
    this.status = decisions.get(this.code.code)?.status ?? "";
    this.element.dataset.status = this.status;
    for (const button of this.buttons) {
      const isOn =
        button.dataset.status === this.status ||
        (this.status === STATUS.added && button.dataset.status === STATUS.accepted);
      button.setAttribute("aria-pressed", isOn);
    }
    const isSelected = selected === this.code.code;
    if (isSelected !== this.element.classList.contains("selected")) {
      this.element.classList.toggle("selected", isSelected);
      this.pick.setAttribute("aria-pressed", isSelected);
      this.words.hidden = !isSelected;
      this.words.replaceChildren(...(isSelected ? this.#wordList() : []));
    }
  }

  #wordList() {
    if (!this.code.evidence.length) return ["The model names no words for this code."];
    const words = strongestWords(this.code, this.does.text(), WORDS_SHOWN);
    const buttonOf = ({ text, start, end, weight }) => {
      const label = `${visible(text)}, weight ${weight.toFixed(2)}: show it in the note`;
      const button = element("button", { type: "button", class: "word", "aria-label": label }, visible(text));
      button.style.setProperty("--weight", weight);
      button.addEventListener("click", () => this.does.reveal(start, end));
      return button;
    };
    return Object.entries(SOURCE_WORDS).flatMap(([source, name]) => {
      const own = words.filter((word) => (word.source in SOURCE_WORDS ? word.source : "model") === source);
      return own.length ? [name, ...own.flatMap((word) => [buttonOf(word), " "])] : [];
    });
  }

  setReachable(isReachable) {
    for (const button of [this.pick, ...this.buttons]) button.tabIndex = isReachable ? 0 : -1;
  }
}

/**
 * Rows of several lists that the arrow keys go through as one.
 *
 * Tab reaches one row alone, the selected one or the first; Enter or a click selects, the arrow keys do so as they
 * move, and the keys A and R accept and reject the row that has the focus.
 */
export class RowKeys {
  constructor(area) {
    this.rows = [];
    area.addEventListener("keydown", (event) => this.#key(event));
    area.addEventListener("focusin", (event) => {
      const row = this.rows.find(({ element }) => element.contains(event.target));
      if (row) this.#reach(row);
    });
  }

  /** Take the rows of a new result, in the order in which they stand on the page. */
  take(rows) {
    this.rows = rows;
    this.reached = null;
    this.refresh();
  }

  /** Keep one visible row within reach of the Tab key. */
  refresh() {
    const visible = this.#visible();
    const wanted =
      visible.find((row) => row === this.reached) ?? visible.find((row) => row.element.classList.contains("selected"));
    this.#reach(wanted ?? visible[0] ?? null);
  }

  #visible() {
    return this.rows.filter(({ element }) => !element.closest("[hidden], details:not([open])"));
  }

  #reach(row) {
    if (row === this.reached) return;
    this.reached?.setReachable(false);
    this.reached = row;
    row?.setReachable(true);
  }

  /** Go to the first row, and select its code. */
  enter() {
    const first = this.#visible()[0];
    first?.pick.focus();
    first?.does.select(first.code);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const visible = this.#visible();
    const at = visible.findIndex(({ element }) => element.contains(event.target));
    if (at < 0) return;
    const goal = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: visible.length - 1 }[event.key];
    const status = { a: STATUS.accepted, r: STATUS.rejected }[event.key.toLowerCase()];
    if (goal !== undefined) {
      event.preventDefault();
      const row = visible[Math.max(0, Math.min(goal, visible.length - 1))];
      row.pick.focus();
      row.does.select(row.code);
    } else if (status && visible[at].does.decide) {
      event.preventDefault();
      visible[at].toggle(status);
    }
  }
}

/** A heading with its rows; `hint` says what the list means. */
export function rowSection(title, rows, hint = null, kind = "") {
  const count = element("span", { class: "count" });
  const section = element(
    "section",
    { class: "group", "data-kind": kind },
    element("h3", {}, title, " ", count),
    hint ? element("p", { class: "muted hint" }, hint) : null,
    element("ul", { class: "rows" }, ...rows.map((row) => row.element)),
  );
  section.showCount = (text) => (count.textContent = text);
  return section;
}
