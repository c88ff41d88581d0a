// How work flows: the pipeline with the age of what waits in it, and where each model's time goes.

import { h } from "./dom.js";
import { count, duration, roughly, some } from "./format.js";
import { glyph } from "./glyph.js";
import { panel } from "./part.js";

const AGES = ["under 10 s", "under 1 min", "under 10 min", "older"];
const OLD_SECONDS = 600;

/** @param {any[]} stages */
export function pipeline(stages) {
  return panel("pipeline", "Pipeline", h("span", null, "now; age of the oldest"), h("ol", { class: "stages" }, stages.map(stageOf)));
}

function stageOf(stage) {
  const isOld = (stage.oldest_seconds ?? 0) > OLD_SECONDS;
  const parts = stage.ages.map((number, at) => ({ number, at })).filter(({ number }) => number > 0);
  const words = parts.map(({ number, at }) => `${count(number)} ${AGES[at]}`).join(", ") || "empty";
  return h(
    "li",
    { class: "stage", key: stage.stage },
    h("p", { class: "stage__name" }, stage.stage),
    h("p", { class: "stage__count" }, count(stage.count)),
    h(
      "span",
      { class: "heat", role: "img", title: words, "aria-label": words },
      parts.map(({ number, at }) => h("span", { class: `heat__${at}`, style: { "flex-grow": number } })),
    ),
    h(
      "p",
      { class: `stage__age ${isOld ? "tone--warn" : ""}` },
      isOld ? glyph("clock", "warn") : null,
      stage.oldest_seconds === null ? "empty" : roughly(stage.oldest_seconds),
    ),
  );
}

const PHASES = ["accept", "lost", "queue", "cold_start", "run", "collect", "delivery", "overhead"];
const NAMES = { lost: "lost", cold_start: "cold", overhead: "ours" };
const ABOUT = {
  accept: "until it was durable; part of ours",
  lost: "tries that gave nothing",
  queue: "waiting at the provider that served",
  cold_start: "its cold start, where it tells",
  run: "running there",
  collect: "copying the files into our keeping",
  delivery: "from the end until the webhook had arrived",
  overhead: "our own time: nobody was at work on it",
};

/** @param {any[]} models */
export function latency(models) {
  const late = models.reduce((sum, one) => sum + one.deadline_misses, 0);
  return panel(
    "latency",
    "Latency",
    h("span", { class: late > 0 ? "tone--warn" : "" }, late > 0 ? some(late, "deadline missed", "deadlines missed") : "p95 by phase, last hour"),
    models.length === 0
      ? h("p", { class: "nothing" }, "Nothing ended in the last hour.")
      : h("div", { class: "frame", tabindex: 0, role: "region", "aria-label": "Latency by model and phase" }, table(models)),
  );
}

function table(models) {
  const worst = [...models].sort((one, other) => (other.p95 ?? -1) - (one.p95 ?? -1));
  const phases = PHASES.filter((phase) => models.some((one) => one.phases[phase])); // no room for what never happens
  return h(
    "table",
    { class: "latency" },
    h(
      "thead",
      null,
      h("tr", null, h("th", { scope: "col" }, "Model"), ["p95", "late"].map((name) => h("th", { scope: "col" }, name)), phases.map((phase) => h("th", { scope: "col", title: ABOUT[phase] }, NAMES[phase] ?? phase))),
    ),
    h("tbody", null, worst.map((one) => row(one, phases))),
  );
}

function row(one, phases) {
  const sum = phases.reduce((total, phase) => total + (phase === "accept" ? 0 : (one.phases[phase] ?? 0)), 0);
  return h(
    "tr",
    { key: one.model },
    h("th", { scope: "row" }, h("a", { href: `#/predictions?model=${encodeURIComponent(one.model)}`, class: "name", title: one.model }, one.model)),
    h("td", { class: "latency__p95", title: `half of them within ${duration(one.p50)}` }, duration(one.p95)),
    h("td", { class: one.deadline_misses > 0 ? "tone--warn" : "quiet" }, one.deadline_misses > 0 ? [glyph("clock", "warn"), count(one.deadline_misses)] : "0"),
    phases.map((phase) => phaseOf(one.phases[phase], sum)),
  );
}

function phaseOf(seconds, sum) {
  if (!seconds) return h("td", { class: "quiet" }, "–");
  const share = sum > 0 ? seconds / sum : 0;
  const width = `${Math.max(2, share * 100).toFixed(0)}%`;
  return h("td", { class: share > 0.5 ? "phase phase--most" : "phase" }, duration(seconds), h("span", { class: "phase__bar", style: { width } }));
}
