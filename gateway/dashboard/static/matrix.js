// The route matrix: model by provider, what each offer does now, and the dialog behind a cell.

import { meter } from "./chart.js";
import { h } from "./dom.js";
import { count, duration, durations, money, percent } from "./format.js";
import { badge, look } from "./glyph.js";
import { ago, panel } from "./part.js";

/** @param {any} matrix */
export function matrixOf(matrix) {
  return panel(
    "matrix",
    "Routes",
    h("span", null, "model × provider, last hour; choose a cell to act"),
    matrix.models.length === 0 ? h("p", { class: "nothing" }, "No model is configured.") : h("div", { class: "frame", tabindex: 0, role: "region", "aria-label": "Route matrix" }, table(matrix)),
    matrix.models.length === 0 ? null : legend(),
  );
}

function table(matrix) {
  const places = new Map();
  for (const cell of matrix.cells) {
    const place = placeOf(cell.model, cell.provider);
    places.set(place, [...(places.get(place) ?? []), cell]);
  }
  return h(
    "table",
    { class: "matrix" },
    h("thead", null, h("tr", null, h("th", { scope: "col", class: "matrix__corner" }, "Model"), matrix.providers.map((provider) => head("col", provider)))),
    h(
      "tbody",
      null,
      matrix.models.map((model) =>
        h("tr", { key: model }, head("row", model), matrix.providers.map((provider) => square(places.get(placeOf(model, provider))))),
      ),
    ),
  );
}

function placeOf(model, provider) {
  return JSON.stringify([model, provider]);
}

function head(scope, name) {
  const filter = scope === "col" ? "provider" : "model";
  const link = h("a", { href: `#/predictions?${filter}=${encodeURIComponent(name)}`, class: "name", title: name }, name);
  return h("th", { scope, key: name }, link);
}

function square(cells) {
  if (!cells) return h("td", { class: "matrix__none" }, h("span", { "aria-label": "no offer" }, "·"));
  return h("td", null, cells.map(offer));
}

/** The state as people see it: what was forced by hand comes before what was measured. */
function stateOf(cell) {
  return cell.forced === null ? cell.state : cell.forced;
}

function wordOf(cell) {
  const { word } = look("offer", stateOf(cell));
  return cell.forced === null ? word : `${word}, by hand`;
}

function offer(cell) {
  const state = stateOf(cell);
  const classes = ["cell", `cell--${state}`, cell.forced === null ? "" : "cell--forced", cell.attempts === 0 ? "cell--idle" : ""];
  const said = `${cell.model} at ${cell.provider}: ${wordOf(cell)}, ${percent(cell.success)} success, p95 ${duration(cell.p95)}, ${money(cell.mean_nanos)} each`;
  return h(
    "button",
    { type: "button", class: classes.filter(Boolean).join(" "), act: "cell", key: cell.offer, data: { offer: cell.offer }, "aria-label": said, "aria-haspopup": "dialog" },
    h(
      "span",
      { class: "cell__top" },
      badge("offer", state, wordOf(cell)),
      h("span", { class: "cell__share" }, cell.is_fallback ? h("span", { class: "tag" }, "fallback") : null, cell.share === null ? "" : percent(cell.share)),
    ),
    cell.until && state !== "closed"
      ? h("span", { class: "cell__row cell__row--until" }, ago(cell.until, "tried "))
      : h("span", { class: "cell__row" }, h("span", { title: "p50 / p95" }, durations(cell.p50, cell.p95))),
    h("span", { class: "cell__row" }, h("span", { title: "success" }, percent(cell.success)), h("span", { title: "dollars per prediction" }, cell.mean_nanos === null ? "$ –" : money(cell.mean_nanos))),
    meter(cell.share ?? 0, "share", ""),
  );
}

function legend() {
  return h(
    "p",
    { class: "legend" },
    ["closed", "probing", "limited", "open"].map((state) => badge("offer", state)),
    h("span", null, "In a cell: share, p50 / p95, success, $ per prediction"),
  );
}

/** What the dialog of a cell shows. @param {any} cell */
export function cellFacts(cell) {
  return [
    h("p", { class: "dialog__lead" }, badge("offer", stateOf(cell), wordOf(cell)), cell.why ? h("span", null, cell.why) : null, cell.until ? ago(cell.until, "tried again ") : null),
    h(
      "dl",
      { class: "facts facts--wide" },
      fact("offer", h("code", { class: "code" }, cell.offer)),
      fact("share of attempts", percent(cell.share)),
      fact("attempts", count(cell.attempts)),
      fact("in flight", count(cell.in_flight)),
      fact("p50", duration(cell.p50)),
      fact("p95", duration(cell.p95)),
      fact("success", percent(cell.success)),
      fact("per prediction", money(cell.mean_nanos)),
      fact("role", cell.is_fallback ? "fallback" : "in the ranking"),
    ),
  ];
}

function fact(word, value) {
  return h("div", null, h("dt", null, word), h("dd", null, value));
}
