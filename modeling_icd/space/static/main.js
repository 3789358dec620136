// The page as a whole: what is on show, and coding one note.

import * as api from "./api.js";
import { BatchPane } from "./batch.js";
import { AuditList, CodeList, readCodes } from "./codes.js";
import { CompareTable, pairUp } from "./compare.js";
import {
  ProgressBar,
  announce,
  byId,
  clearMessage,
  element,
  plural,
  showMessage,
  timeLeft,
  waitingText,
} from "./dom.js";
import { FinalPane } from "./final.js";
import { firstStrong } from "./highlight.js";
import { NotePane } from "./note.js";
import { Store, currentResult } from "./store.js";

const NARROW = "(max-width: 34rem)"; // as in page.css: a phone
const RUN_WORDS = { code: "Code this note", audit: "Audit this note", compare: "Compare the models" };
const EMPTY_WORDS = {
  code: "The codes of the note appear here, each with its score and the words that it was read from.",
  audit:
    "Enter the assigned codes beside the note. Those that were likely missed, and those that the note hardly " +
    "supports, appear here.",
  compare: "What both models say of the note appears here, side by side.",
};

class Page {
  constructor() {
    this.store = new Store({
      view: "code",
      text: "",
      source: "", // where the text came from, in words
      codedText: null, // the note that the final list is made for
      isEditing: true,
      isBusy: false,
      modelId: null,
      results: new Map(), // model id -> {text, assigned, result}
      assigned: "",
      decisions: new Map(), // code -> {status, code}
      threshold: null,
      selected: null,
      history: { undo: null, redo: null },
    });
    this.final = new FinalPane(this.store, () => currentResult(this.store.state)?.codes_categories ?? false);
    this.does = {
      pick: (code) => this.#select(this.store.state.selected === code.code ? null : code.code),
      select: (code) => this.#select(code.code),
      decide: (code, status) => this.final.decide(code, status),
      reveal: (start, end) => this.note.marks.reveal(start, end),
      setThreshold: (threshold) => this.store.set({ threshold }),
      text: () => this.store.state.text,
    };
    this.note = new NotePane(this.store, {
      run: () => this.run(),
      results: () => this.#resultsOnShow(),
      pick: (code) => this.#pickFromNote(code),
      models: () => this.#modelsOfView(),
    });
    this.batch = new BatchPane();
    this.progress = new ProgressBar("progress", () => this.#cancel());
    this.#listen();
    if (matchMedia(NARROW).matches) byId("banner-fold").open = false; // a person opens it, or not, for as long as the page is open
  }

  #listen() {
    for (const button of document.querySelectorAll("nav [data-view]")) {
      button.addEventListener("click", () => this.store.set({ view: button.dataset.view, selected: null }));
    }
    byId("assigned").addEventListener("input", (event) => this.store.set({ assigned: event.target.value }));
    byId("model").addEventListener("change", (event) => this.#changeModel(event.target.value));
    addEventListener("pagehide", () => {
      if (this.running) api.cancelRun(this.running.token);
      this.batch.leave();
    });
  }

  /** Ask the server what it has, and bring the page to life; until then nothing can be started. */
  async start() {
    try {
      this.about = await api.about();
    } catch (error) {
      return showMessage(error.message, { label: "Try again", run: () => this.start() });
    }
    const { banner, models, limits, examples, version } = this.about;
    byId("banner").textContent = banner;
    byId("logout").hidden = !this.about.login;
    byId("version").textContent =
      `modeling-icd ${version}. ` + models.map(({ name, num_codes: n }) => `${name}: ${plural(n, "code")}.`).join(" ");
    byId("model").replaceChildren(...models.map(({ id, name }) => element("option", { value: id }, name)));
    byId("model-choice").hidden = models.length < 2;
    document.querySelector('nav [data-view="compare"]').hidden = models.length < 2;
    this.note.setLimits(limits);
    this.note.setExamples(examples);
    this.final.setSystems(models, this.about.title_systems, this.about.titles_lacking);
    this.batch.setUp(this.about);
    this.store.set({ modelId: models[0].id });
    this.store.watch(["view"], (state) => this.#showView(state));
    this.store.watch(["view", "modelId"], () => this.#showNotices());
    this.store.watch(["view"], () => clearMessage());
    this.store.watch(
      ["assigned"],
      ({ assigned }) => byId("assigned").value !== assigned && (byId("assigned").value = assigned),
    );
    this.store.watch(["view", "text", "isEditing", "isBusy", "modelId", "results"], () => this.#showResults());
    this.store.watch(["decisions", "threshold", "selected"], (state, changed) => this.#update(state, changed));
  }

  #model(id = this.store.state.modelId) {
    return this.about?.models.find((model) => model.id === id);
  }

  /** The models that code in the view that is on show. */
  #modelsOfView() {
    const { view, modelId } = this.store.state;
    return (view === "code" || view === "audit" ? [this.#model(modelId)] : (this.about?.models ?? [])).filter(Boolean);
  }

  #showView({ view }) {
    byId("main").dataset.view = view;
    for (const part of document.querySelectorAll("[data-in]")) {
      part.hidden =
        !part.dataset.in.split(" ").includes(view) || (part.id === "model-choice" && this.about.models.length < 2);
    }
    for (const button of document.querySelectorAll("nav [data-view]")) {
      if (button.dataset.view === view) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
    }
    if (view !== "batch") byId("run").textContent = RUN_WORDS[view];
  }

  #showNotices() {
    const notices = this.#modelsOfView()
      .filter(({ notice }) => notice)
      .map(({ name, notice }) => element("p", {}, element("b", {}, name), `: ${notice.replaceAll("`", "")}`));
    byId("notices").replaceChildren(...notices);
  }

  // Coding

  /** Code the note for the view that is on show: by the chosen model, with assigned codes, or by both models. */
  async run() {
    const { view, modelId, isBusy } = this.store.state;
    if (isBusy || !this.about) return;
    clearMessage();
    const fault = this.note.fault() ?? (view === "audit" ? this.#assignedFault() : null);
    if (fault) return showMessage(fault);
    const ids = view === "compare" ? this.about.models.map(({ id }) => id) : [modelId];
    await this.#codeBy(ids, view === "audit" ? readCodes(this.store.state.assigned).codes : []);
  }

  #assignedFault() {
    const { codes } = readCodes(this.store.state.assigned);
    return codes.length ? null : "There are no assigned codes to audit: enter at least one, such as I10.";
  }

  async #codeBy(ids, assigned) {
    const { text, results: before } = this.store.state;
    const running = (this.running = { token: null, aborter: new AbortController() });
    this.store.set({ isEditing: false, isBusy: true, selected: null });
    this.progress.start("Starting …");
    byId("cancel").focus();
    let ended = null;
    try {
      for (const [i, id] of ids.entries()) {
        if (this.#holds(id, text, assigned)) continue;
        running.token = api.newToken();
        const tell = (state) =>
          this.#tell(state, ids.length > 1 ? `${this.#model(id).name}, ${i + 1} of ${ids.length}: ` : "");
        const { result } = await api.run(
          "code_note",
          [text, id, assigned, running.token],
          tell,
          running.aborter.signal,
        );
        this.store.set({ results: new Map(this.store.state.results).set(id, { text, assigned, result }) });
      }
    } catch (error) {
      ended = error;
    }
    this.progress.stop();
    this.running = null;
    this.store.set({ isBusy: false, isEditing: ended !== null });
    if (ended) return this.#explain(ended);
    this.#startList(text, before);
    this.#finished();
  }

  /** The final list belongs to one note: that of an earlier one is put away once another is coded. */
  #startList(text, results) {
    const { codedText, decisions } = this.store.state;
    if (decisions.size && codedText !== null && codedText !== text) {
      this.store.act("code another note", { codedText: text, decisions: new Map() }, { text: codedText, results });
      const undo = { label: "Undo", run: () => this.final.move("undo") };
      showMessage("The list of the earlier note was cleared.", undo);
    } else this.store.set({ codedText: text });
  }

  #holds(id, text, assigned) {
    const held = this.store.state.results.get(id);
    return held && held.text === text && (assigned.length === 0 || String(held.assigned) === String(assigned));
  }

  #tell({ status, done, total, seconds_left: left }, whose) {
    if (status === "waiting") return this.progress.show(whose + waitingText(total - done, left), null);
    const percent = total ? `${Math.round((100 * done) / total)} % read` : "reading";
    this.progress.show(whose + [percent, timeLeft(left)].filter(Boolean).join(", "), total ? done / total : null);
  }

  #cancel() {
    if (!this.running) return;
    if (this.running.token) api.cancelRun(this.running.token);
    this.running.aborter.abort();
  }

  #explain(error) {
    byId("text").focus();
    if (error instanceof api.Cancelled) announce("Coding was cancelled. The note is as it was.");
    else showMessage(error.message, error.canRetry ? { label: "Try again", run: () => this.run() } : null);
  }

  #finished() {
    const [result] = this.#resultsOnShow();
    if (!result) return;
    this.list?.enter();
    if (this.store.state.view === "code") {
      announce(
        `${plural(result.codes.filter(({ predicted }) => predicted).length, "code")} predicted ` +
          `in ${result.seconds.toFixed(1)} seconds.`,
      );
    }
  }

  #changeModel(modelId) {
    const hadResult = this.#resultsOnShow().length > 0;
    this.store.set({ modelId, selected: null });
    if (hadResult && !this.#resultsOnShow().length) this.run();
  }

  // What is on show

  /** Results that belong to the view, to the note as it stands, and to the assigned codes as they stand. */
  #resultsOnShow() {
    const { state } = this.store;
    if (state.isEditing || state.isBusy || state.view === "batch") return [];
    if (state.view === "compare") {
      const both = this.about.models.map(({ id }) => currentResult(state, id));
      return both.every(Boolean) ? both : [];
    }
    const result = currentResult(state);
    return result && (state.view !== "audit" || result.audit) ? [result] : [];
  }

  #showResults() {
    const { state } = this.store;
    const results = this.#resultsOnShow();
    byId("results").hidden = !results.length;
    byId("empty").hidden = results.length > 0 || state.isBusy;
    byId("codes-size").textContent = "";
    if (results.length) this.#build(results);
    else {
      this.list = null;
      this.built = null;
      this.#showEmpty(state);
    }
    this.#update(state, new Set(["selected"]));
  }

  #showEmpty(state) {
    if (state.view === "batch") return;
    const again =
      !state.isEditing && !state.isBusy
        ? element(
            "button",
            {
              type: "button",
              class: "primary",
              onclick: () => (state.view === "audit" ? this.note.edit("assigned") : this.run()),
            },
            state.view === "audit" ? "Enter assigned codes" : RUN_WORDS[state.view],
          )
        : null;
    byId("empty").replaceChildren(element("p", {}, EMPTY_WORDS[state.view]), ...(again ? [again] : []));
  }

  #build(results) {
    const { view, modelId, results: held } = this.store.state;
    const built = [view, modelId, ...results];
    if (this.built && built.length === this.built.length && built.every((part, i) => part === this.built[i])) return;
    this.built = built;
    const area = element("div", {});
    byId("results").replaceChildren(area);
    if (results[0].blank) {
      this.list = null;
      area.append(element("p", { class: "empty" }, "The note holds no words that a model could read."));
    } else if (view === "compare") {
      this.list = new CompareTable(area, results, this.about.models, this.does);
      this.selectable = new Map(pairUp(results).map(({ code, both }) => [code.code, both]));
    } else {
      const [result] = results;
      this.list =
        view === "code"
          ? new CodeList(area, result, this.#model(), this.does)
          : new AuditList(area, result, held.get(modelId).assigned, this.does);
      this.selectable = new Map(result.codes.map((code) => [code.code, [code, null]]));
    }
  }

  #update(state, changed) {
    if (this.list) {
      const count = this.list.update(state);
      if (state.view === "code") byId("codes-size").textContent = String(count);
    }
    if (changed.has("selected")) this.#showEvidence(state);
  }

  #showEvidence({ selected }) {
    const sides = (this.list && selected && this.selectable.get(selected)) || [null, null];
    const layers = sides.map((code) => code?.evidence ?? []);
    this.note.marks.mark(layers);
    const first = layers.find((evidence) => evidence.length);
    if (first) this.note.marks.reveal(...firstStrong(first));
  }

  #select(code) {
    this.store.set({ selected: code });
  }

  #pickFromNote(code) {
    this.#select(code.code);
    document.querySelector(`#results [data-code="${CSS.escape(code.code)}"]`)?.scrollIntoView({ block: "nearest" });
  }
}

new Page().start();
