// The note: written, pasted or opened as a file, and, once coded, shown for reading with its marks.

import * as api from "./api.js";
import { MARK, countUnseen, visible } from "./characters.js";
import { announce, byId, clearMessage, element, plural, showMessage, takeDrops } from "./dom.js";
import { Marks, spokenFor } from "./highlight.js";
import { languageHint } from "./language.js";
import { scoreParts } from "./rows.js";
import { isPredicted } from "./store.js";

const CODES_SHOWN = 6;
const LEAST_SHARE = 0.05; // of a code's evidence, for words to count as speaking for it
const PAUSE = 150; // milliseconds after the last movement of a selection

export class NotePane {
  /**
   * @param {Store} store
   * @param {object} does `{run(), results(), pick(code), models()}`: start coding; the results on show; select one of their
   *     codes; the models that would code the note
   */
  constructor(store, does) {
    this.store = store;
    this.does = does;
    this.box = byId("text");
    this.note = byId("note");
    this.marks = new Marks(this.note);
    this.limits = { max_characters: Infinity, max_document_bytes: Infinity }; // until the server has said its own
    this.box.addEventListener("input", () => store.set({ text: clean(this.box.value), source: "" }));
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
    store.watch(["source"], ({ source }) => (byId("note-source").textContent = source));
    store.watch(["text", "modelId", "view"], (state) => this.#hintLater(state));
  }

  setExamples(examples) {
    const buttons = examples.map(({ title, text }) =>
      element(
        "button",
        { type: "button", class: "quiet", onclick: () => this.#replace("open the example", text, "example") },
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

  /** What a reader should know of the text, a moment after it was last changed. */
  #hintLater({ text }) {
    clearTimeout(this.hinting);
    this.hinting = setTimeout(() => {
      const unseen = countUnseen(text);
      const hints = this.does.models().map((model) => languageHint(text, model));
      if (unseen) {
        const [what, are] = unseen === 1 ? ["1 character", "It is"] : [`${unseen.toLocaleString("en")} characters`, "They are"];
        hints.push(`The text holds ${what} that cannot be seen or that may turn its direction. ${are} shown as ${MARK} in the coded note.`);
      }
      const said = [...new Set(hints.filter(Boolean))].join(" ");
      const hint = byId("note-hint");
      if (said && said !== hint.textContent) announce(said);
      hint.textContent = said;
      hint.hidden = !said;
    }, PAUSE);
  }

  #showMode({ isEditing, isBusy, text }) {
    byId("note-edit").hidden = !isEditing;
    byId("note-read").hidden = isEditing;
    if (!isEditing && this.marks.text !== text) this.marks.show(text);
    byId("edit").hidden = isEditing || isBusy;
    byId("new").hidden = isBusy || (isEditing && !text);
  }

  #replace(label, text, source) {
    this.store.act(label, { text: clean(text), source, isEditing: true, selected: null });
    clearMessage();
    this.box.focus();
    this.box.setSelectionRange(0, 0);
    this.box.scrollTop = 0;
  }

  #startAnew() {
    const parts = {
      text: "",
      source: "",
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
    clearMessage();
    if (file.size > most) {
      this.#notOpened(file, `${file.name} is larger than ${megabytes(most)}: open a smaller file, or paste its text.`);
    } else {
      await this.#read(file);
    }
    if (input) input.value = ""; // so that the same file can be chosen again
  }

  async #read(file) {
    const hint = byId("text-hint");
    const usual = hint.textContent;
    hint.textContent = `Opening ${visible(file.name)} …`;
    try {
      const { text, warnings } = await api.readDocument(file);
      this.#replace(`open ${visible(file.name)}`, text, `from ${visible(file.name)}`);
      announce(`${visible(file.name)} is open, ${plural(countWords(text), "word")}.`);
      if (warnings.length) showMessage(warnings.join(" "));
    } catch (error) {
      this.#notOpened(file, error.message, error.canRetry ? { label: "Try again", run: () => this.#read(file) } : null);
    } finally {
      hint.textContent = usual;
    }
  }

  /** Say why a file was not opened; the text that was there stays, and says for as long as it does that it is not the file's. */
  #notOpened(file, message, action = null) {
    const isThere = this.store.state.text.trim() !== "";
    if (isThere) this.store.set({ source: `the earlier text, not ${visible(file.name)}` });
    showMessage(isThere ? `${message} The text in the box is still the earlier one.` : message, action);
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
    const [quoted, isIn] = [visible(shorten(text.slice(...selected))), ({ code }) => isPredicted(code, threshold)];
    const [above, below] = [found.filter(isIn), found.filter((entry) => !isIn(entry))];
    byId("speaks").replaceChildren(...spoken(quoted, above, below, (entry) => this.#spokenItem(entry, isIn(entry))));
    const names = above.slice(0, 3).map(({ code }) => code.code);
    announce(`The selected words speak for ${names.join(", ") || NOTHING[below.length > 0]}.`);
  }

  #spokenItem({ code, share }, isIn) {
    const [percent, score] = [`${Math.round(share * 100)} %`, code.score.toFixed(2)];
    const pick = element(
      "button",
      {
        type: "button",
        onclick: () => this.does.pick(code),
        "aria-label":
          `${code.code} ${code.title}: score ${score}${isIn ? "" : ", below threshold"}; ${percent} of its evidence`,
      },
      element("span", { class: "code" }, code.code),
      element("span", { class: "score" }, ...scoreParts(code.score)),
      element("span", { class: "title" }, code.title),
      element("span", { class: "share muted hint" }, `${percent} of its evidence`),
    );
    return element("li", { "data-state": isIn ? null : "below" }, pick);
  }
}

const NOTHING = { false: "no code", true: "no code above the threshold" };

/** The codes that words speak for; those below the threshold are folded away. */
function spoken(quoted, above, below, item) {
  const list = (entries) => element("ul", { class: "plain" }, ...entries.slice(0, CODES_SHOWN).map(item));
  const what = above.length ? "these codes" : NOTHING[below.length > 0];
  const weak = element(
    "details",
    { class: "weak" },
    element("summary", {}, `${plural(below.length, "code")} below the threshold`),
    list(below),
  );
  return [
    element("p", { class: "hint" }, element("q", {}, quoted), ` speaks for ${what}${above.length ? ":" : "."}`),
    ...(above.length ? [list(above)] : []),
    ...(below.length ? [weak] : []),
  ];
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
