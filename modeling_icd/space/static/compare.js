// What two models say of one note, side by side: codes that one of them finds alone, and codes that both find.

import { announce, element, plural } from "./dom.js";
import { categoryTag, scoreParts } from "./rows.js";

/** A table of two results. The words of the first model are painted, those of the second underlined. */
export class CompareTable {
  constructor(area, results, models, does) {
    this.does = does;
    this.lines = [];
    const pairs = pairUp(results);
    const groups = [
      ...models.map((model, i) => [
        `Only ${model.name}`,
        pairs.filter(({ both }) => both[i]?.predicted && !both[1 - i]?.predicted),
      ]),
      ["Both models", pairs.filter(({ both }) => both.every((code) => code?.predicted))],
    ];
    const key = element(
      "p",
      { class: "key muted" },
      "Words of ",
      element("span", { class: "key-a" }, models[0].name),
      " are painted, those of ",
      element("span", { class: "key-b" }, models[1].name),
      " are underlined.",
    );
    area.replaceChildren(key, this.#table(groups, models));
    area.addEventListener("keydown", (event) => this.#key(event));
    announce(groups.map(([title, found]) => `${title}: ${plural(found.length, "code")}`).join(". "));
  }

  #table(groups, models) {
    const names = models.map((model) => element("th", { scope: "col", class: "of-model" }, model.name));
    const table = element(
      "table",
      { class: "compare" },
      element("caption", { class: "visually-hidden" }, "Codes of two models"),
    );
    table.append(element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Code"), ...names)));
    for (const [title, pairs] of groups) {
      const heading = element(
        "th",
        { colSpan: 3, scope: "rowgroup" },
        title,
        " ",
        element("span", { class: "count" }, String(pairs.length)),
      );
      table.append(
        element(
          "tbody",
          {},
          element("tr", { class: "group-line" }, heading),
          ...pairs.map((pair) => this.#line(pair)),
        ),
      );
    }
    return table;
  }

  #line({ code, both }) {
    const pick = element(
      "button",
      { type: "button", class: "pick", tabIndex: -1, "aria-pressed": "false", onclick: () => this.does.pick(code) },
      element("span", { class: "code" }, code.code),
      element("span", { class: "title" }, code.title || "No title is known"),
      code.heading ? categoryTag() : null,
    );
    const scores = both.map((side) =>
      element("td", { class: side?.predicted ? "found" : "not-found", "data-state": side?.predicted ? side.decision : null }, ...sideParts(side)),
    );
    const line = element(
      "tr",
      { class: "line", "data-code": code.code },
      element("th", { scope: "row" }, pick),
      ...scores,
    );
    this.lines.push({ code, pick, line });
    return line;
  }

  update({ selected }) {
    for (const { code, pick, line } of this.lines) {
      pick.setAttribute("aria-pressed", code.code === selected);
      line.classList.toggle("selected", code.code === selected);
    }
    const reached = this.lines.find(({ code }) => code.code === selected) ?? this.lines[0];
    for (const line of this.lines) line.pick.tabIndex = line === reached ? 0 : -1;
    return this.lines.length;
  }

  #key(event) {
    const at = this.lines.findIndex(({ pick }) => pick === event.target);
    const goal = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: this.lines.length - 1 }[event.key];
    if (at < 0 || goal === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const line = this.lines[Math.max(0, Math.min(goal, this.lines.length - 1))];
    line.pick.focus();
    this.does.select(line.code);
  }

  /** Go to the first line, and select its code. */
  enter() {
    this.lines[0]?.pick.focus();
    if (this.lines.length) this.does.select(this.lines[0].code);
  }
}

const NOT_LISTED = "This model does not have this code among its best 100";

function sideParts(code) {
  if (!code) return [element("span", { class: "muted", title: NOT_LISTED }, "not listed")];
  const word = code.predicted ? (code.decision ?? "predicted") : "below threshold";
  return [element("span", { class: "score" }, ...scoreParts(code.score), element("span", { class: "muted" }, word))];
}

/** Every code that at least one of two results lists: `[{code, both: [of the first, of the second]}]`, best first. */
export function pairUp([first, second]) {
  const pairs = new Map();
  [first, second].forEach((result, i) => {
    for (const code of result.codes) {
      if (!pairs.has(code.code)) pairs.set(code.code, { code, both: [null, null] });
      pairs.get(code.code).both[i] = code;
    }
  });
  const best = ({ both }) => Math.max(...both.map((code) => code?.score ?? 0));
  return [...pairs.values()].sort((one, other) => best(other) - best(one));
}
