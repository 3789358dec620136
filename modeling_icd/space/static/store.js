// What the page knows, in memory alone: it is gone when the page is closed or loaded anew.

const KEPT = ["text", "source", "codedText", "assigned", "results", "decisions", "isEditing"]; // what undo brings back

/**
 * `state` is never changed in place. `set` replaces parts of it; `act` does, too, and can be undone.
 * Every change is told to the listeners, with the names of the parts that are new.
 */
export class Store extends EventTarget {
  #undo = [];
  #redo = [];

  constructor(state) {
    super();
    this.state = Object.freeze({ ...state });
  }

  set(parts) {
    const changed = new Set(Object.keys(parts).filter((name) => parts[name] !== this.state[name]));
    if (!changed.size) return;
    this.state = Object.freeze({ ...this.state, ...parts });
    this.dispatchEvent(new CustomEvent("change", { detail: changed }));
  }

  /**
   * Do something that can be undone, by the name `label` ("accept I10").
   *
   * What is kept for it is the whole note with its results and its list; `before` names parts that were otherwise.
   * Another note that could be brought back by redo goes to what undo brings back, so that no text is ever lost.
   */
  act(label, parts, before = {}) {
    const kept = { ...this.#kept(), ...before };
    const others = this.#redo.filter((entry) => entry.kept.text.trim() && entry.kept.text !== kept.text);
    this.#undo.push(...others);
    this.#redo = [];
    const last = this.#undo.at(-1)?.kept;
    if (last?.text !== kept.text || last.decisions !== kept.decisions) this.#undo.push({ label, kept });
    this.set({ ...parts, history: this.#ends() });
  }

  undo() {
    return this.#move(this.#undo, this.#redo);
  }

  redo() {
    return this.#move(this.#redo, this.#undo);
  }

  #move(from, to) {
    const entry = from.pop();
    if (!entry) return null;
    to.push({ label: entry.label, kept: this.#kept() });
    const selected = entry.kept.text === this.state.text ? this.state.selected : null;
    const isEditing = entry.kept.isEditing && !currentResult({ ...this.state, ...entry.kept });
    this.set({ ...entry.kept, isEditing, selected, history: this.#ends() });
    return entry.label;
  }

  #kept() {
    return Object.fromEntries(KEPT.map((name) => [name, this.state[name]]));
  }

  #ends() {
    return { undo: this.#undo.at(-1)?.label ?? null, redo: this.#redo.at(-1)?.label ?? null };
  }

  /** Call `listener(state, changed)` now, and whenever one of the named parts changes. */
  watch(names, listener) {
    this.addEventListener("change", (event) => {
      if (names.some((name) => event.detail.has(name))) listener(this.state, event.detail);
    });
    listener(this.state, new Set(names));
  }
}

export const STATUS = { accepted: "accepted", rejected: "rejected", added: "added" };

/** The parts of a state in which a code has another status; `null` takes its status away. */
export function withDecision(state, code, status) {
  const decisions = new Map(state.decisions);
  if (status === null) decisions.delete(code.code);
  else decisions.set(code.code, { status, code });
  return { decisions };
}

/** The final list: accepted and added codes, diagnoses before procedures, otherwise in the order of decision. */
export function finalList(state) {
  const kept = [...state.decisions.values()].filter(({ status }) => status !== STATUS.rejected);
  const rank = { diagnosis: 0, procedure: 1 };
  return kept.sort((one, other) => (rank[one.code.kind] ?? 2) - (rank[other.code.kind] ?? 2));
}

/** What the model said of the note as it stands, or `null`. */
export function currentResult(state, modelId = state.modelId) {
  const held = state.results.get(modelId);
  return held && held.text === state.text ? held.result : null;
}

/** Whether a code is predicted: by the slider's threshold where it is set, else as the model decides. */
export const isPredicted = (code, threshold) => (threshold === null ? code.predicted : code.score > threshold);

/** How a code is marked: "confident" or "review" where the model tells them apart, else "predicted"; or "below". */
export function codeState(code, threshold) {
  return isPredicted(code, threshold) ? (code.decision ?? (code.predicted ? "predicted" : "review")) : "below";
}
