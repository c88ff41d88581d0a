// The live list of predictions: filters in the address, rows by the screenful, the keyboard. Loads nothing by itself.

import { cut, h, morph } from "./dom.js";
import { count, duration, money } from "./format.js";
import { badge } from "./glyph.js";
import { ago, growing, trouble } from "./part.js";
import { FILTERS, MOST, Rows } from "./rows.js";
import { Scroll } from "./scroll.js";
import { glimpse, thumb } from "./shown.js";
import { state } from "./state.js";

const COLUMNS = ["Status", "Output", "Model", "Provider", "Owner", "Took", "Cost", "Made"];
const TYPING_MILLISECONDS = 250;
const STATUSES = { "": "any status", open: "open", succeeded: "succeeded", failed: "failed or aborted", canceled: "canceled" };

class Predictions {
  name = "predictions";
  rows = new Rows(() => this.#changed());
  selected = null;
  kept = 0; // where it was scrolled to

  title() {
    return "Predictions";
  }

  /** @param {HTMLElement} root @param {{query: URLSearchParams}} route */
  enter(root, { query }) {
    const filters = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""]).filter(([, value]) => value !== ""));
    const isSame = this.rows.isLoaded && JSON.stringify(filters) === JSON.stringify(this.rows.filters);
    root.replaceChildren(...this.#frame(filters));
    this.scroll = new Scroll(this.list, {
      length: () => this.rows.length,
      row: (index) => this.#row(index),
      edge: () => this.#further(),
    });
    this.scroll.drawNow();
    if (isSame) {
      this.list.scrollTop = this.kept;
      void this.rows.refresh();
    } else {
      this.selected = null;
      this.kept = 0;
      void this.rows.load(filters);
    }
    this.#changed();
  }

  leave() {
    this.kept = this.list.scrollTop;
    clearTimeout(this.typing);
    this.scroll.close();
    this.scroll = null;
  }

  render() {
    this.#changed();
  }

  onOverview() {
    this.#choices();
  }

  onPrediction(row) {
    this.rows.heard(row);
  }

  onLive() {
    void this.rows.refresh();
  }

  retry() {
    void (this.rows.isLoaded ? this.rows.refresh() : this.rows.more());
  }

  #frame(filters) {
    const chosen = (name) => filters[name] ?? "";
    this.form = h(
      "form",
      { class: "filters", role: "search", "aria-label": "Filter predictions" },
      h("label", { class: "filters__q" }, h("span", { class: "sr" }, "Search"), h("input", { type: "search", name: "q", id: "search", placeholder: "Id begins with…", autocomplete: "off", spellcheck: "false", maxlength: 200 }), h("kbd", { "aria-hidden": "true" }, "/")),
      pick("status", "Status", Object.entries(STATUSES)),
      pick("model", "Model", [["", "any model"]]),
      pick("provider", "Provider", [["", "any provider"]]),
      h("label", { class: "filters__owner" }, h("span", { class: "sr" }, "Owner"), h("input", { type: "text", name: "owner", placeholder: "Owner", autocomplete: "off", spellcheck: "false", maxlength: 100 })),
      h("label", { class: "check" }, h("input", { type: "checkbox", name: "rescued", value: "true" }), "rescued only"),
      h("button", { type: "button", class: "button button--quiet", act: "clear" }, "Clear"),
    );
    for (const name of FILTERS) {
      const field = this.form.elements[name];
      if (field.type === "checkbox") field.checked = chosen(name) === "true";
      else if (field.tagName === "SELECT") this.#ensure(field, chosen(name));
      else field.value = chosen(name);
    }
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#apply();
    });
    this.form.addEventListener("input", (event) => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.#apply(), event.target.matches("[type=search], [type=text]") ? TYPING_MILLISECONDS : 0);
    });
    this.#choices();
    this.note = h("p", { class: "listing__note" });
    this.fresh = h("div", { class: "listing__fresh" });
    this.list = h("div", { class: "rows", id: "rows", role: "grid", tabindex: 0, "aria-label": "Predictions, newest first", "aria-readonly": "true" });
    this.list.append(h("div", { class: "rows__head", role: "row" }, COLUMNS.map((name) => h("span", { role: "columnheader" }, name))));
    this.list.addEventListener("keydown", (event) => this.#onKey(event));
    this.empty = h("div", { class: "listing__empty" });
    return [
      h("h1", { class: "sr" }, "Predictions"),
      h("div", { class: "listing" }, this.form, this.note, h("div", { class: "listing__frame" }, this.fresh, this.list, this.empty)),
    ];
  }

  /** Offers the models and providers there are; what is chosen stays, even if it is gone. */
  #choices() {
    if (!this.form || !state.overview) return;
    const { models, providers } = state.overview.matrix;
    for (const [name, all, names] of [["model", "any model", models], ["provider", "any provider", providers]]) {
      const field = this.form.elements[name];
      const value = field.value;
      const wanted = names.includes(value) || value === "" ? names : [value, ...names];
      morph(field, ["", ...wanted].map((one) => h("option", { value: one, key: `option ${one}` }, one === "" ? all : cut(one, 60))));
      field.value = value;
    }
  }

  #ensure(field, value) {
    if (![...field.options].some((option) => option.value === value)) field.append(h("option", { value, key: `option ${value}` }, cut(value, 60)));
    field.value = value;
  }

  #apply() {
    const query = new URLSearchParams();
    for (const name of FILTERS) {
      const field = this.form.elements[name];
      const value = field.type === "checkbox" ? (field.checked ? "true" : "") : field.value.trim();
      if (value !== "") query.set(name, value);
    }
    const text = query.toString();
    // Not a step of the history for each letter, and no new frame: the field that is typed into stays.
    history.replaceState(history.state, "", text === "" ? "#/predictions" : `#/predictions?${text}`);
    this.selected = null;
    this.list.scrollTop = 0;
    void this.rows.load(Object.fromEntries(query));
  }

  clear() {
    this.form.reset();
    for (const name of FILTERS) {
      const field = this.form.elements[name];
      if (field.type === "checkbox") field.checked = false;
      else field.value = "";
    }
    this.#apply();
  }

  #changed() {
    if (!this.scroll) return;
    const isReading = this.list.scrollTop > 0 || this.selected !== null || this.list.matches(":hover");
    if (!isReading && this.rows.waiting.size > 0) return void this.rows.show(); // comes back here
    this.#say();
    this.scroll.draw();
    return undefined;
  }

  #say() {
    const { rows } = this;
    const all = rows.isComplete && rows.next === null;
    const shown = `${count(rows.length)}${all ? "" : "+"} ${rows.length === 1 ? "prediction" : "predictions"}`;
    const capped = rows.length >= MOST && rows.next !== null ? `; the newest ${count(MOST)}, a filter finds older ones` : "";
    const further = rows.isTired && !rows.isLoading ? h("button", { type: "button", class: "button button--quiet", act: "further" }, "Search further back") : null;
    morph(this.note, h("span", null, rows.isLoaded ? shown + capped : "Asking the gateway…", rows.isLoading && rows.isLoaded ? " · loading more" : ""), further);
    const waiting = rows.waiting.size;
    morph(this.fresh, waiting === 0 ? null : h("button", { type: "button", class: "button button--fresh", act: "fresh" }, `${count(waiting)} new ↑`));
    this.list.setAttribute("aria-rowcount", String(all ? rows.length : -1));
    this.list.setAttribute("aria-busy", String(rows.isLoading));
    const isEmpty = rows.isLoaded && rows.length === 0 && (rows.isComplete || rows.isTired);
    morph(this.empty, rows.error ? trouble(rows.error) : null, isEmpty ? this.#nothing() : null);
  }

  #nothing() {
    const isFiltered = Object.keys(this.rows.filters).length > 0;
    if (!isFiltered) return h("p", { class: "nothing", key: "nothing" }, "Nothing was asked for yet. ", h("a", { href: "#/" }, "The overview"), " tells how to make the first request.");
    return h("p", { class: "nothing", key: "nothing" }, "No prediction fits these filters. ", h("button", { type: "button", class: "button", act: "clear" }, "Clear them"));
  }

  #row(index) {
    const row = this.rows.at(index);
    const isSelected = row.id === this.selected;
    if (isSelected) this.list.setAttribute("aria-activedescendant", `row-${row.id}`);
    return h(
      "div",
      { class: `row ${isSelected ? "row--on" : ""}`, role: "row", key: row.id, id: `row-${row.id}`, act: "open", data: { id: row.id }, "aria-rowindex": index + 1, "aria-selected": String(isSelected) },
      h("span", { class: "row__status", role: "gridcell" }, badge("prediction", row.status)),
      h("span", { class: "row__thumb", role: "gridcell" }, row.output.length > 0 ? thumb(row.output[0]) : h("span", { class: "thumb thumb--none" }), row.output.length > 1 ? h("span", { class: "row__more" }, `+${row.output.length - 1}`) : null),
      h(
        "span",
        { class: "row__model", role: "gridcell" },
        h("a", { href: `#/predictions/${encodeURIComponent(row.id)}`, class: "name", tabindex: -1 }, cut(row.model, 120)),
        row.error ? h("span", { class: "row__text row__text--bad", dir: "auto" }, cut(`${row.error_code ?? ""} ${row.error}`.trim(), 200)) : h("span", { class: "row__text", dir: "auto" }, glimpse(row.output) || row.id),
      ),
      h("span", { class: "row__provider", role: "gridcell" }, h("span", { class: "name" }, row.provider ? cut(row.provider, 60) : "–"), marks(row)),
      h("span", { class: "row__owner", role: "gridcell" }, cut(row.owner, 60)),
      h("span", { class: "row__took", role: "gridcell" }, row.completed_at ? duration(row.seconds) : growing(row.created_at)),
      h("span", { class: "row__cost", role: "gridcell", title: row.nanos === null ? "" : row.basis }, cost(row)),
      h("span", { class: "row__made", role: "gridcell" }, ago(row.created_at)),
    );
  }

  /** Moves the selection; what lies beyond the end is loaded first. @param {number} by */
  async move(by) {
    const { rows } = this;
    if (rows.length === 0) return;
    const at = this.selected === null ? -1 : rows.ids.indexOf(this.selected);
    const to = at === -1 && by > 0 ? by - 1 : at + by;
    if (to >= rows.length - 1) await (by === Infinity ? rows.all() : rows.more());
    this.#select(Math.max(0, Math.min(rows.length - 1, to)));
  }

  #select(index) {
    this.selected = this.rows.ids[index] ?? null;
    this.scroll?.reveal(index);
  }

  #onKey(event) {
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: this.scroll.page, PageUp: -this.scroll.page, Home: -Infinity, End: Infinity };
    if (Object.hasOwn(moves, event.key)) void this.move(moves[event.key]);
    else if (event.key === "Enter" && this.selected !== null) this.open(this.selected);
    else return;
    event.preventDefault();
  }

  /** @param {string} id */
  open(id) {
    this.selected = id;
    location.hash = `#/predictions/${encodeURIComponent(id)}`;
  }

  /** What comes by scrolling; after an error or a long fruitless search somebody has to ask. */
  #further() {
    if (!this.rows.isTired && this.rows.error === null) void this.rows.more();
  }

  further() {
    this.rows.rest();
    void this.rows.more();
  }

  showFresh() {
    this.selected = null;
    this.rows.show();
    this.list.scrollTop = 0;
    this.list.focus({ preventScroll: true });
  }

  focus() {
    this.list.focus({ preventScroll: true });
  }
}

function pick(name, label, options) {
  return h("label", null, h("span", { class: "sr" }, label), h("select", { name }, options.map(([value, word]) => h("option", { value, key: `option ${value}` }, word))));
}

function marks(row) {
  const attempts = row.attempts > 1 ? `${row.attempts} attempts` : "";
  return h(
    "span",
    { class: "row__marks" },
    row.is_rescued ? h("span", { class: "tag tag--ok" }, "rescued") : null,
    row.is_fallback ? h("span", { class: "tag" }, "fallback") : null,
    attempts === "" ? null : h("span", { class: "quiet" }, attempts),
  );
}

function cost(row) {
  if (!row.is_cost_known && row.completed_at) return row.nanos ? `≥ ${money(row.nanos)}` : "unknown";
  return row.nanos === null ? "–" : money(row.nanos);
}

export const predictionsView = new Predictions();
