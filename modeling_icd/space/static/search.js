// A box to find a code by its title: an editable combobox with a list, after the ARIA authoring practices.

import * as api from "./api.js";
import { announce, byId, element, plural } from "./dom.js";
import { categoryTag } from "./rows.js";

const LIMIT = 8;
const PAUSE = 150; // milliseconds after the last key before the server is asked
const SYSTEMS = { icd10cm: "ICD-10-CM", icd10pcs: "ICD-10-PCS", icd9cm: "ICD-9-CM" };

export class TitleSearch {
  constructor(take) {
    this.take = take;
    this.input = byId("search");
    this.list = byId("search-list");
    this.system = byId("system");
    this.titles = [];
    this.lacking = [];
    this.active = -1;
    this.input.addEventListener("input", () => this.#later());
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.input.addEventListener("blur", () => this.#close());
    this.system.addEventListener("change", () => this.#ask());
    this.list.addEventListener("mousedown", (event) => event.preventDefault()); // the focus stays in the box
    this.list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.#choose([...this.list.children].indexOf(option));
    });
  }

  /** Offer the classifications that the models code in, then the others, and all together; say whose titles are lacking. */
  setSystems(names, searchable, lacking) {
    this.lacking = lacking;
    const known = Object.entries(SYSTEMS)
      .filter(([, name]) => names.includes(name))
      .map(([key]) => key);
    const options = [...known, ...Object.keys(SYSTEMS).filter((key) => !known.includes(key))].filter((key) =>
      searchable.includes(key),
    );
    const all = element("option", { value: "" }, "All");
    const rest = options.map((key) => element("option", { value: key }, SYSTEMS[key]));
    this.system.replaceChildren(...(known.length === 1 && options.includes(known[0]) ? [...rest, all] : [all, ...rest]));
  }

  #later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#ask(), PAUSE);
  }

  async #ask() {
    this.asking?.abort();
    const query = this.input.value.trim();
    if (query.length < 2) return this.#close();
    const asking = (this.asking = new AbortController());
    try {
      const { titles } = await api.findTitles(query, this.system.value || undefined, LIMIT, asking.signal);
      if (asking === this.asking && document.activeElement === this.input) this.#open(titles);
    } catch (error) {
      if (!(error instanceof api.Cancelled) && asking === this.asking) this.#say(error.message);
    }
  }

  #open(titles) {
    this.titles = titles;
    if (!titles.length) {
      const missing = this.lacking.length ? ` Titles of ${this.lacking.join(" and ")} are not installed here.` : "";
      return this.#say(`No title is like this.${missing}`);
    }
    this.list.replaceChildren(...titles.map((title, i) => this.#option(title, i)));
    this.#setOpen(true);
    this.#activate(-1);
    announce(`${plural(titles.length, "title")} found.`);
  }

  #option({ code, title, kind, heading, because }, i) {
    return element(
      "li",
      { role: "option", id: `title-${i}`, "aria-selected": "false" },
      element("span", { class: "code" }, code),
      " ",
      element("span", { class: "title" }, title),
      kind === "procedure" ? element("span", { class: "tag" }, "procedure") : null,
      heading ? categoryTag() : null,
      because ? element("span", { class: "muted" }, ` (${because})`) : null,
    );
  }

  #say(text) {
    this.titles = [];
    this.list.replaceChildren(
      element("li", { role: "option", "aria-disabled": "true", "aria-selected": "false" }, text),
    );
    this.#setOpen(true);
    announce(text);
  }

  #setOpen(isOpen) {
    this.list.hidden = !isOpen;
    this.input.setAttribute("aria-expanded", isOpen);
    if (!isOpen) this.#activate(-1);
  }

  #close() {
    clearTimeout(this.timer);
    this.asking?.abort();
    this.titles = [];
    this.#setOpen(false);
  }

  #activate(index) {
    this.active = index;
    [...this.list.children].forEach((option, i) => option.setAttribute("aria-selected", i === index));
    if (index < 0) this.input.removeAttribute("aria-activedescendant");
    else {
      this.input.setAttribute("aria-activedescendant", `title-${index}`);
      this.list.children[index].scrollIntoView({ block: "nearest" });
    }
  }

  #key(event) {
    const count = this.titles.length;
    if (event.key === "Escape") {
      if (this.list.hidden) this.input.value = "";
      this.#close();
    } else if (event.key === "ArrowDown" && !count && this.input.value) {
      this.#ask();
    } else if (event.key === "ArrowDown" && count) {
      this.#activate((this.active + 1) % count);
    } else if (event.key === "ArrowUp" && count) {
      this.#activate((this.active <= 0 ? count : this.active) - 1);
    } else if (event.key === "Enter") {
      if (this.active >= 0) this.#choose(this.active);
      else if (count === 1) this.#choose(0);
    } else {
      return;
    }
    event.preventDefault();
  }

  #choose(index) {
    const title = this.titles[index];
    if (!title) return;
    this.input.value = "";
    this.#close();
    this.input.focus();
    this.take(title);
  }
}
