// Words of the note are marked without changing it: by ranges over its one piece of text, painted by CSS.
// A browser without the CSS Custom Highlight API gets the same marks as elements around the words.

import { visible } from "./characters.js";

export const CLASSES = 5; // weights 0..1 are shown in five steps; the heaviest is 5
const LAYERS = ["evidence", "other"]; // "other": of the second model, where two are compared
const HAS_RANGES = typeof CSS !== "undefined" && "highlights" in CSS && typeof Highlight !== "undefined";

export const weightClass = (weight) => Math.min(CLASSES, Math.max(1, Math.ceil(weight * CLASSES)));

export class Marks {
  constructor(note) {
    this.note = note;
    this.text = this.shown = "";
  }

  /** Show a text, with no word marked; what could not be seen in it is shown as marks, each as long as what it stands for. */
  show(text) {
    this.text = text;
    this.shown = visible(text);
    this.note.textContent = this.shown;
    this.clear();
  }

  clear() {
    this.mark([[], []]);
  }

  /** Mark words: for each layer a list of `[start, end, weight]` in UTF-16 code units of the text. */
  mark(layers) {
    if (HAS_RANGES) this.#paint(layers);
    else this.#wrap(layers);
  }

  #paint(layers) {
    const node = this.note.firstChild;
    LAYERS.forEach((layer, of) => {
      const ranges = Array.from({ length: CLASSES + 1 }, () => []);
      for (const [start, end, weight] of layers[of] ?? []) {
        if (node) ranges[weightClass(weight)].push(textRange(node, start, end));
      }
      for (let weight = 1; weight <= CLASSES; weight++) {
        const highlight = new Highlight(...ranges[weight]);
        highlight.priority = of * CLASSES + weight;
        CSS.highlights.set(`${layer}-${weight}`, highlight);
      }
    });
  }

  #wrap(layers) {
    const pieces = document.createDocumentFragment();
    const marks = layers.flatMap((entries, of) =>
      entries.map(([start, end, weight]) => ({ start, end, name: `${LAYERS[of]}-${weightClass(weight)}` })),
    );
    const cuts = [...new Set([0, this.text.length, ...marks.flatMap(({ start, end }) => [start, end])])].sort(
      (a, b) => a - b,
    );
    for (let i = 0; i + 1 < cuts.length; i++) {
      const part = this.shown.slice(cuts[i], cuts[i + 1]);
      const names = marks.filter(({ start, end }) => start <= cuts[i] && cuts[i + 1] <= end).map(({ name }) => name);
      if (!names.length) pieces.append(part);
      else
        pieces.append(
          Object.assign(document.createElement("mark"), { className: names.join(" "), textContent: part }),
        );
    }
    this.note.replaceChildren(pieces);
  }

  /** A range over a stretch of the text, wherever marks have cut it. */
  rangeOf(start, end) {
    const [from, to] = [this.#locate(start, false), this.#locate(end, true)];
    const range = document.createRange();
    range.setStart(...from);
    range.setEnd(...to);
    return range;
  }

  #locate(offset, isEnd) {
    let left = offset;
    let last = [this.note, 0];
    const walker = document.createTreeWalker(this.note, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      last = [node, Math.min(left, node.length)];
      if (left < node.length || (isEnd && left === node.length)) return last;
      left -= node.length;
    }
    return last;
  }

  /** `[start, end]` of what is selected within the note, in code units of its text; `null` where nothing is. */
  selected() {
    const selection = document.getSelection();
    if (!selection.rangeCount || selection.isCollapsed) return null;
    const range = selection.getRangeAt(0);
    if (!this.note.contains(range.startContainer) || !this.note.contains(range.endContainer)) return null;
    const before = document.createRange();
    before.setStart(this.note, 0);
    before.setEnd(range.startContainer, range.startOffset);
    const start = before.toString().length;
    return [start, start + range.toString().length];
  }

  /** Scroll the note, not the page, so that a stretch of it stands in its middle. */
  reveal(start, end) {
    const box = this.note.getBoundingClientRect();
    const word = this.rangeOf(start, end).getBoundingClientRect();
    const margin = Math.min(48, box.height / 4);
    if (word.top >= box.top + margin && word.bottom <= box.bottom - margin) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.note.scrollBy({ top: word.top - box.top - box.height / 3, behavior: calm ? "auto" : "smooth" });
  }
}

function textRange(node, start, end) {
  const range = document.createRange();
  range.setStart(node, Math.min(start, node.length));
  range.setEnd(node, Math.min(end, node.length));
  return range;
}

/** The word that a reader is brought to: the first one in the text that weighs at least half of the heaviest. */
export function firstStrong(evidence) {
  const heaviest = Math.max(...evidence.map(([, , weight]) => weight));
  return evidence.find(([, , weight]) => weight >= heaviest / 2) ?? null;
}

const EDGES = /^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu; // "mellitus." and "Mellitus" are one word to a reader

/** The strongest different words of a code, as they stand in the note: `[{text, start, end, weight, source}]`. */
export function strongestWords({ evidence, sources }, text, count) {
  const found = new Map();
  const entries = evidence.map((entry, i) => [...entry, sources?.[i]]);
  for (const [start, end, weight, source] of entries.sort((one, other) => other[2] - one[2])) {
    const word = text.slice(start, end).replace(EDGES, "") || text.slice(start, end);
    if (!found.has(word.toLowerCase())) found.set(word.toLowerCase(), { text: word, start, end, weight, source });
    if (found.size === count) break;
  }
  return [...found.values()];
}

/**
 * The codes that a stretch of the note speaks for, the most first: `[{code, share}]`.
 *
 * `share` is the part of the code's evidence (0..1) that lies in the words touched by the stretch.
 */
export function spokenFor(codes, start, end) {
  const found = [];
  for (const code of codes) {
    let [inside, all] = [0, 0];
    for (const [from, to, weight] of code.evidence) {
      all += weight;
      if (from < end && to > start) inside += weight;
    }
    if (inside > 0) found.push({ code, share: inside / all });
  }
  return found.sort((one, other) => other.share - one.share || other.code.score - one.code.score);
}
