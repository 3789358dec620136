// The note: written, pasted or opened as a file, and, once coded, shown for reading with its marks.

import * as api from "./api.js";
import { announce, byId, clearMessage, element, plural, showMessage, takeDrops } from "./dom.js";
import { Marks, spokenFor } from "./highlight.js";
import { isPredicted } from "./store.js";

const CODES_SHOWN = 6;
const LEAST_SHARE = 0.05; // of a code's evidence, for words to count as speaking for it
const PAUSE = 150; // milliseconds after the last movement of a selection

export class NotePane {
  /**
   * @param {Store} store
   * @param {object} does `{run(), results(), pick(code)}`: start coding; the results on show; select one of their codes
   */
  constructor(store, does) {
    this.store = store;
    this.does = does;
    this.box = byId("text");
    this.note = byId("note");
    this.marks = new Marks(this.note);
    this.limits = { max_characters: Infinity, max_document_bytes: Infinity }; // until the server has said its own
    this.box.addEventListener("input", () => store.set({ text: clean(this.box.value) }));
    byId("note-edit").addEventListener("submit", (event) => (event.preventDefault(), does.run()));
    byId("edit").addEventListener("click", () => this.edit());
    byId("new").addEventListener("click", () => this.#startAnew());
    byId("file").addEventListener("change", (event) => this.#open(event.target.files[0], event.target));
    takeDrops(
      document.querySelector(".note-pane"),
      () => store.state.isEditing && !store.state.isBusy,
      (file) => this.#open(file),
    );
    this.#keepReadOnly();
    byId("speaks").addEventListener("mousedown", (event) => event.preventDefault()); // the words stay selected
    document.addEventListener("selectionchange", () => this.#selectionMoved());
    store.watch(["text"], ({ text }) => this.#showText(text));
    store.watch(["isEditing", "isBusy", "text"], (state) => this.#showMode(state));
  }

  setExamples(examples) {
    const buttons = examples.map(({ title, text }) =>
      element(
        "button",
        { type: "button", class: "quiet", onclick: () => this.#replace("open the example", text) },
        `Example: ${title}`,
      ),
    );
    byId("examples").replaceChildren(...buttons);
  }

  setLimits(limits) {
    this.limits = limits;
  }

  /** Go back to writing; the codes are shown again for as long as the text stays the same. */
  edit(goal = "text") {
    this.store.set({ isEditing: true, selected: null });
    byId(goal).focus();
    this.box.setSelectionRange(0, 0);
    this.box.scrollTop = this.note.scrollTop;
  }

  /** One sentence that says why the text cannot be coded, or `null`. */
  fault() {
    const { text } = this.store.state;
    if (!text.trim()) return "There is no text to code: paste a note or open a file first.";
    const most = this.limits.max_characters;
    const length = text.length > most ? [...text].length : 0;
    return length > most
      ? `The note has ${length.toLocaleString("en")} characters; at most ${most.toLocaleString("en")} can be ` +
          "coded at once. Shorten it."
      : null;
  }

  #showText(text) {
    if (clean(this.box.value) !== text) this.box.value = text;
    this.box.dir = direction(text);
    byId("speaks").replaceChildren();
    byId("note-size").textContent = text.trim() ? plural(countWords(text), "word") : "";
  }

  #showMode({ isEditing, isBusy, text }) {
    byId("note-edit").hidden = !isEditing;
    byId("note-read").hidden = isEditing;
    if (!isEditing && this.marks.text !== text) this.marks.show(text);
    byId("edit").hidden = isEditing || isBusy;
    byId("new").hidden = isBusy || (isEditing && !text);
  }

  #replace(label, text) {
    this.store.act(label, { text: clean(text), isEditing: true, selected: null });
    clearMessage();
    this.box.focus();
    this.box.setSelectionRange(0, 0);
    this.box.scrollTop = 0;
  }

  #startAnew() {
    const parts = {
      text: "",
      codedText: null,
      assigned: "",
      decisions: new Map(),
      results: new Map(),
      isEditing: true,
      selected: null,
    };
    this.store.act("start a new note", parts);
    this.box.focus();
    announce("The note and its codes are put away. Undo brings them back.");
  }

  async #open(file, input = null) {
    if (!file) return;
    const most = this.limits.max_document_bytes;
    if (file.size > most) {
      showMessage(`${file.name} is larger than ${megabytes(most)}: open a smaller file, or paste its text.`);
    } else {
      await this.#read(file);
    }
    if (input) input.value = ""; // so that the same file can be chosen again
  }

  async #read(file) {
    const hint = byId("text-hint");
    const usual = hint.textContent;
    hint.textContent = `Opening ${file.name} …`;
    try {
      const { text, warnings } = await api.readDocument(file);
      this.#replace(`open ${file.name}`, text);
      announce(`${file.name} is open, ${plural(countWords(text), "word")}.`);
      if (warnings.length) showMessage(warnings.join(" "));
    } catch (error) {
      showMessage(error.message, error.canRetry ? { label: "Try again", run: () => this.#read(file) } : null);
    } finally {
      hint.textContent = usual;
    }
  }

  /** The note takes a caret, so that words can be selected by keys, but no change. */
  #keepReadOnly() {
    for (const name of ["beforeinput", "cut", "paste", "drop"]) {
      this.note.addEventListener(name, (event) => event.preventDefault());
    }
    // What an input method wrote all the same is taken away again.
    this.note.addEventListener("input", () => this.marks.show(this.store.state.text));
  }

  #selectionMoved() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#showSpokenFor(), PAUSE);
  }

  #showSpokenFor() {
    if (this.store.state.isEditing || byId("speaks").contains(document.activeElement)) return;
    const anchor = document.getSelection().anchorNode;
    if (anchor && !this.note.contains(anchor)) return; // what is selected elsewhere asks nothing of the note
    const selected = this.marks.selected();
    const codes = this.does.results().flatMap((result) => result.codes);
    if (!selected || !codes.length) return byId("speaks").replaceChildren();
    const { threshold, text } = this.store.state;
    const found = spokenFor(codes, ...selected)
      .filter(({ share }) => share >= LEAST_SHARE)
      .filter(firstOfItsCode());
    found.sort((one, other) => isPredicted(other.code, threshold) - isPredicted(one.code, threshold));
    const quoted = shorten(text.slice(...selected));
    byId("speaks").replaceChildren(...this.#spoken(quoted, found, threshold));
    announce(
      found.length
        ? `The selected words speak for ${found
            .slice(0, 3)
            .map(({ code }) => code.code)
            .join(", ")}.`
        : "The selected words speak for no code.",
    );
  }

  #spoken(quoted, found, threshold) {
    if (!found.length) return [element("p", { class: "hint" }, element("q", {}, quoted), " speaks for no code.")];
    const items = found.slice(0, CODES_SHOWN).map(({ code, share }) => {
      const isIn = isPredicted(code, threshold);
      const percent = `${Math.round(share * 100)} %`;
      const pick = element(
        "button",
        {
          type: "button",
          onclick: () => this.does.pick(code),
          "aria-label": `${code.code} ${code.title}: ${percent} of its evidence${isIn ? "" : ", below threshold"}`,
        },
        element("span", { class: "code" }, code.code),
        element("span", { class: "title" }, code.title),
        element("span", { class: "number" }, percent),
        isIn ? null : element("span", { class: "muted hint" }, "below threshold"),
      );
      return element("li", {}, pick);
    });
    return [
      element(
        "p",
        { class: "hint" },
        element("q", {}, quoted),
        " speaks for these codes, with its share of the evidence of each:",
      ),
      element("ul", { class: "plain" }, ...items),
    ];
  }
}

/** Line ends as the browser counts them, and no half characters: what is shown is exactly what is sent. */
function clean(text) {
  const lines = text.replace(/\r\n?/g, "\n");
  return lines.toWellFormed ? lines.toWellFormed() : lines;
}

/** Of the first letter that has a direction; `dir="auto"` does the same, and takes seconds for a megabyte. */
function direction(text) {
  const letter = /\p{L}/u.exec(text.slice(0, 10_000))?.[0] ?? "";
  return /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u.test(letter)
    ? "rtl"
    : "ltr";
}

function firstOfItsCode() {
  const seen = new Set();
  return ({ code }) => !seen.has(code.code) && seen.add(code.code);
}

const countWords = (text) => text.match(/\S+/g)?.length ?? 0;
const shorten = (text) => (text.trim().length > 60 ? `${clean(text.trim().slice(0, 57))} …` : text.trim());

export const megabytes = (bytes) =>
  bytes < 1 << 20 ? `${Math.ceil(bytes / 1024)} kB` : `${Math.round(bytes / (1 << 20))} MB`;
