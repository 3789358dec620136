// The codes of one note, diagnoses and procedures apart, with the threshold that a person may move.

import { announce, element, plural } from "./dom.js";
import { CodeRow, RowKeys, rowSection } from "./rows.js";
import { isPredicted } from "./store.js";

const KINDS = [
  ["diagnosis", "Diagnoses"],
  ["procedure", "Procedures"],
  ["other", "Other codes"],
];

/** The list of one result; made anew for every result, and then only brought up to date. */
export class CodeList {
  constructor(area, result, model, does) {
    this.does = does;
    this.showsAll = false;
    this.rows = result.codes.map((code) => new CodeRow(code, does));
    this.sections = KINDS.map(([kind, title]) => this.#section(kind, title)).filter(Boolean);
    this.nothing = element(
      "p",
      { class: "empty" },
      "No code reaches the threshold. Lower it to see the next best ones.",
    );
    this.more = element("button", { type: "button", class: "more", onclick: () => this.#toggleAll() });
    area.replaceChildren(
      this.#threshold(model),
      this.nothing,
      ...this.sections.map(({ section }) => section),
      this.more,
      keysHint(),
    );
    this.keys = new RowKeys(area);
    this.keys.take(this.sections.flatMap(({ rows }) => rows));
  }

  #section(kind, title) {
    const rows = this.rows.filter(({ code }) => (code.kind ?? "other") === kind);
    return rows.length ? { rows, section: rowSection(title, rows, null, kind) } : null;
  }

  #threshold(model) {
    this.home = Math.round(100 * (model.per_code_thresholds ? 0.5 : (model.threshold ?? 0.5)));
    this.slider = element("input", { type: "range", id: "threshold", min: 0, max: 99, step: 1, value: this.home });
    this.slider.addEventListener("input", () => this.does.setThreshold(Number(this.slider.value) / 100));
    this.shown = element("output", { htmlFor: "threshold" });
    const own = model.per_code_thresholds
      ? "The model has a threshold of its own for each code."
      : model.threshold === null
        ? "The model decides without a threshold."
        : `The model's own is ${model.threshold.toFixed(2)}.`;
    this.reset = element(
      "button",
      { type: "button", class: "quiet", onclick: () => this.does.setThreshold(null) },
      "As the model decides",
    );
    return element(
      "div",
      { class: "threshold" },
      element("label", { htmlFor: "threshold" }, "Threshold"),
      this.slider,
      element("span", { class: "threshold-value" }, this.shown, this.reset),
      own ? element("p", { class: "muted hint" }, own) : null,
    );
  }

  #toggleAll() {
    this.showsAll = !this.showsAll;
    this.update(this.state);
  }

  update(state) {
    this.state = state;
    const { threshold } = state;
    this.#showThreshold(threshold);
    let [shown, below] = [0, 0];
    for (const { section, rows } of this.sections) {
      let predicted = 0;
      for (const row of rows) {
        row.update(state);
        const isShown = isPredicted(row.code, threshold);
        predicted += isShown;
        row.element.hidden = !isShown && !this.showsAll && row.status === "" && state.selected !== row.code.code;
      }
      section.hidden = rows.every(({ element }) => element.hidden);
      section.showCount(String(predicted));
      shown += predicted;
      below += rows.length - predicted;
    }
    this.nothing.hidden = shown > 0;
    this.more.hidden = below === 0;
    this.more.setAttribute("aria-expanded", this.showsAll);
    this.more.textContent = this.showsAll
      ? "Hide codes below the threshold"
      : `Show ${plural(below, "code")} below the threshold`;
    this.keys.refresh();
    return shown;
  }

  #showThreshold(threshold) {
    const text = threshold === null ? "as the model decides" : threshold.toFixed(2);
    this.shown.textContent = text;
    this.slider.value = threshold === null ? this.home : Math.round(threshold * 100);
    this.slider.setAttribute("aria-valuetext", text);
    this.reset.hidden = threshold === null;
  }

  enter() {
    this.keys.enter();
  }
}

const NEXT_BEST = "Next best";

function keysHint() {
  const keys = (...names) => names.flatMap((name) => [element("kbd", {}, name), " "]);
  return element(
    "p",
    { class: "muted hint keys" },
    ...keys("↑", "↓"),
    "go through the codes, ",
    ...keys("A"),
    "accepts, ",
    ...keys("R"),
    "rejects.",
  );
}

/** Likely missed and likely unsupported codes of a note that somebody has coded already. */
export class AuditList {
  constructor(area, result, assigned, does) {
    const known = new Map(result.codes.map((code) => [bare(code.code), code]));
    const { missed, unsupported } = result.audit;
    const row = (code, note) => new CodeRow(code, does, { note });
    const lookUp = (codes) => codes.map((code) => known.get(bare(code))).filter(Boolean);
    const found = lookUp(missed);
    const likely = found.filter((code) => code.predicted);
    const possible = found.filter((code) => !code.predicted);
    const doubted = lookUp(unsupported);
    const agreed = [...new Set(lookUp(assigned))].filter((code) => !doubted.includes(code));
    this.groups = [
      ["Likely missed", likely, "", "Not assigned, but the model finds them in the note."],
      [
        "Likely unsupported",
        doubted,
        "assigned",
        "Assigned, but the model finds little for them. The nearest words are shown.",
      ],
      ["In agreement", agreed, "assigned", "Assigned, and the model finds them, too."],
      [NEXT_BEST, possible, "", "Not assigned, and below the model's threshold."],
    ].map(([title, codes, note, hint]) => ({ title, rows: codes.map((code) => row(code, note)), hint }));
    this.rows = this.groups.flatMap(({ rows }) => rows);
    area.replaceChildren(
      ...this.groups.map((group) => this.#section(group)),
      ...unknownCodes(result.unknown),
      keysHint(),
    );
    this.keys = new RowKeys(area);
    this.keys.take(this.rows);
    announce(
      `${plural(likely.length, "code")} likely missed, ${doubted.length} likely unsupported, ` +
        `${agreed.length} in agreement.`,
    );
  }

  #section({ title, rows, hint }) {
    const section = rowSection(title, rows, rows.length ? hint : null);
    section.showCount(String(rows.length));
    if (!rows.length) section.append(element("p", { class: "muted hint" }, "None."));
    if (title !== NEXT_BEST) return section;
    const details = element(
      "details",
      { class: "next", ontoggle: () => this.keys.refresh() },
      element("summary", {}, "Show the next best codes"),
      section,
    );
    details.hidden = !rows.length;
    return details;
  }

  update(state) {
    for (const row of this.rows) row.update({ ...state, threshold: null });
    this.keys.refresh();
    return this.rows.length;
  }

  enter() {
    this.keys.enter();
  }
}

// People write codes with and without their dot, in capitals and in small letters.
const bare = (code) => code.replaceAll(".", "").toUpperCase();

function unknownCodes(unknown) {
  if (!unknown.length) return [];
  const items = unknown.map(({ code, title }) =>
    element("li", {}, element("span", { class: "code" }, code), " ", title ?? "no such title is known"),
  );
  return [
    element(
      "section",
      { class: "group" },
      element("h3", {}, "Not known to this model ", element("span", { class: "count" }, String(unknown.length))),
      element("p", { class: "muted hint" }, "The model cannot say anything about these assigned codes."),
      element("ul", { class: "plain" }, ...items),
    ),
  ];
}

const CODE = /^(?=.*\d)[A-Z0-9][A-Z0-9.]{1,8}$/i;

/** Codes in what was pasted, whatever stands between them, and the words that are none. */
export function readCodes(pasted) {
  const parts = pasted
    .split(/[^\p{L}\p{N}.]+/u)
    .map((part) => part.replace(/^\.+|\.+$/g, ""))
    .filter(Boolean);
  const codes = [...new Set(parts.filter((part) => CODE.test(part)).map((part) => part.toUpperCase()))];
  return { codes, others: parts.filter((part) => !CODE.test(part)) };
}
