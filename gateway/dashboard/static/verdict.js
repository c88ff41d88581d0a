// The verdict: is anything wrong now, and for whom, in one sentence. Pure, but for the elements it returns at the end.

import { hour } from "./chart.js";
import { cut, h } from "./dom.js";
import { count, listed, percent, some } from "./format.js";
import { glyph, look } from "./glyph.js";

const FAILING_SHARE = 0.05; // of what ended lately: beyond it callers feel it
const UNKNOWN_SHARE = 0.1;
const NAME_CHARACTERS = 60;
const LATELY_MINUTES = 15; // what `troubles` looks at

/**
 * @typedef {{level: "ok" | "warn" | "bad" | "idle", headline: string, text: string}} Verdict
 * @param {any} overview
 * @returns {Verdict}
 */
export function judge(overview) {
  const facts = gather(overview);
  const first = gravest(facts, overview);
  const rest = lesser(facts, overview);
  if (first.length === 0 && rest.length === 0) return calm(overview);
  const [headline, also] = first.length > 0 ? [first, rest] : [rest, []];
  if (overview.totals.rescued > 0) headline.push(`${some(overview.totals.rescued, "prediction")} rescued`);
  const text = also.length > 0 ? `Also ${also.join(", ")}.` : summary(overview);
  return { level: isBad(facts) ? "bad" : "warn", headline: headline.join(", "), text };
}

function gather(overview) {
  const failures = overview.troubles.filter((trouble) => trouble.provider === null);
  const out = overview.providers.filter((one) => one.state === "out" || one.state === "down");
  const strained = overview.providers.filter((one) => ["degraded", "limited", "full", "forced"].includes(one.state));
  const gone = overview.matrix.cells.filter((cell) => cell.state === "open" || cell.forced === "open");
  const affected = new Set([...gone, ...failures].map((one) => one.model));
  const lately = overview.series.slice(-LATELY_MINUTES);
  const failed = failures.reduce((sum, trouble) => sum + trouble.count, 0);
  const ended = lately.reduce((sum, point) => sum + point.succeeded + point.failed, 0);
  return {
    failures,
    failed,
    out,
    strained,
    affected,
    failedShare: ended === 0 ? (failed > 0 ? 1 : 0) : failed / ended,
    stranded: overview.matrix.models.filter((model) => isStranded(model, overview.matrix.cells)),
    isOverBudget: overview.burn.budget_nanos !== null && overview.burn.settled_nanos > overview.burn.budget_nanos,
  };
}

/** No offer of the model takes anything now. */
function isStranded(model, cells) {
  const own = cells.filter((cell) => cell.model === model);
  return own.length > 0 && own.every((cell) => (cell.forced ?? cell.state) === "open");
}

function isBad(facts) {
  return facts.stranded.length > 0 || facts.failedShare > FAILING_SHARE;
}

/** What the headline says. */
function gravest(facts, { is_draining: isDraining, troubles }) {
  const parts = [];
  if (isDraining) parts.push("Draining, nothing new is taken");
  if (facts.stranded.length > 0) parts.push(`No offer left for ${listed(facts.stranded.map(brief), 2)}`);
  else if (facts.failed > 0) parts.push(`${some(facts.failed, "prediction")} failed for ${whom(troubles)}`);
  if (facts.out.length > 0) parts.push(`${some(facts.out.length, "provider")} out`);
  else if (facts.strained.length > 0) parts.push(`${some(facts.strained.length, "provider")} strained`);
  if (parts.length > 0 && facts.affected.size > 0) parts.push(`${some(facts.affected.size, "model")} affected`);
  return parts;
}

/** What stands below it, or in its place if there is nothing graver. */
function lesser(facts, { troubles, stuck, receivers, burn }) {
  const parts = [];
  if (facts.stranded.length > 0 && facts.failed > 0) parts.push(`${some(facts.failed, "prediction")} failed for ${whom(troubles)}`);
  if (stuck.length > 0) parts.push(`${some(stuck.length, "job")} stuck`);
  if (receivers.length > 0) parts.push(`${some(receivers.length, "receiver")} dead`);
  if (facts.isOverBudget) parts.push("burn over budget");
  if ((burn.unknown_share ?? 0) > UNKNOWN_SHARE) parts.push(`${percent(burn.unknown_share)} of prices unknown`);
  return parts;
}

function whom(troubles) {
  const owners = new Map();
  for (const trouble of troubles.filter((one) => one.provider === null)) {
    for (const [owner, number] of Object.entries(trouble.owners)) owners.set(owner, (owners.get(owner) ?? 0) + number);
  }
  const names = [...owners].sort((one, other) => other[1] - one[1]).map(([name]) => brief(name));
  return names.length === 0 ? "callers" : listed(names, 2);
}

function brief(name) {
  return cut(name, NAME_CHARACTERS);
}

function calm(overview) {
  if (overview.totals.created === 0 && overview.totals.open === 0) {
    return { level: "idle", headline: "Ready", text: "Nothing was asked for in the last hour." };
  }
  return { level: "ok", headline: "All well", text: summary(overview) };
}

function summary({ totals }) {
  const ended = totals.succeeded + totals.failed;
  const parts = [`${some(totals.created, "prediction")} in the last hour`];
  if (ended > 0) parts.push(`${percent(totals.succeeded / ended)} succeeded`);
  if (totals.canceled > 0) parts.push(`${count(totals.canceled)} canceled`);
  parts.push(`${count(totals.open)} open now`);
  return `${parts.join(", ")}.`;
}

/** @param {any} overview */
export function verdict(overview) {
  const { level, headline, text } = judge(overview);
  const { shape, tone } = look("level", level);
  return h(
    "section",
    { class: `verdict verdict--${tone}`, "aria-label": "Verdict", key: "verdict" },
    h("div", { class: "verdict__lamp" }, glyph(shape, tone)),
    h("div", { class: "verdict__words" }, h("h1", { id: "verdict", class: "verdict__line" }, headline), h("p", { class: "verdict__text" }, text)),
    totals(overview.totals),
    h("figure", { class: "verdict__hour" }, hour(overview.series), h("figcaption", null, h("span", null, "1 h ago"), h("span", null, "failed below the line"), h("span", null, "now"))),
  );
}

function totals(totals) {
  const figure = (value, word, href, tone = "") =>
    h("a", { class: `figure ${tone}`, href }, h("b", null, count(value)), h("span", null, word));
  return h(
    "div",
    { class: "figures", role: "group", "aria-label": "Predictions of the last hour" },
    figure(totals.succeeded, "succeeded", "#/predictions?status=succeeded"),
    figure(totals.failed, "failed", "#/predictions?status=failed", totals.failed > 0 ? "figure--bad" : ""),
    figure(totals.rescued, "rescued", "#/predictions?rescued=true"),
    figure(totals.open, "open now", "#/predictions?status=open"),
  );
}
