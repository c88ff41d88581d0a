// Attempts on a time axis: sending, queued, running, each with its length in words beside it.

import { h } from "./dom.js";
import { duration } from "./format.js";
import { badge, glyph } from "./glyph.js";
import { now } from "./time.js";

const TICKS = 5;
const NICE = [1, 2, 5];

/**
 * @param {any} detail
 * @returns {HTMLElement}
 */
export function gantt(detail) {
  const start = Date.parse(detail.row.created_at);
  const ends = detail.attempts.map((attempt) => Date.parse(attempt.ended_at ?? "") || now());
  const end = Math.max(start + 1, detail.row.completed_at ? Date.parse(detail.row.completed_at) : now(), ...ends);
  const scale = { start, span: (end - start) * 1.04 };
  const deadline = Date.parse(detail.deadline_at);
  return h(
    "div",
    { class: "gantt", role: "group", "aria-label": "Attempts on a time axis" },
    axis(scale),
    detail.attempts.map((attempt) => line(attempt, scale)),
    deadline < start + scale.span ? h("div", { class: "gantt__deadline", style: { "--at": share(deadline, scale) } }, h("span", null, "deadline")) : null,
    h(
      "p",
      { class: "legend" },
      ["send", "queue", "run"].map((part) => h("span", { class: "legend__item" }, h("span", { class: `swatch swatch--${part}` }), NAMES[part])),
    ),
  );
}

const NAMES = { send: "sending", queue: "queued there", run: "running and collecting" };

function share(at, scale) {
  return Math.max(0, Math.min(1, (at - scale.start) / scale.span)).toFixed(4);
}

function axis(scale) {
  const seconds = scale.span / 1000;
  const step = niceStep(seconds / TICKS);
  const ticks = Array.from({ length: Math.floor(seconds / step) + 1 }, (_, at) => at * step);
  return h(
    "div",
    { class: "gantt__axis", "aria-hidden": "true" },
    ticks.map((tick) => h("span", { style: { "--at": share(scale.start + tick * 1000, scale) } }, tick === 0 ? "0" : duration(tick))),
  );
}

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * (NICE.find((nice) => nice * power >= least) ?? 10);
}

/** The parts of an attempt that are known. @param {any} attempt */
function partsOf(attempt) {
  const marks = [["send", attempt.begun_at], ["queue", attempt.accepted_at], ["run", attempt.running_at]];
  const begun = Date.parse(attempt.begun_at);
  const parts = [];
  let to = Math.max(begun, Date.parse(attempt.ended_at ?? "") || now());
  // Backwards: what a provider says it ran may reach into the time in which we still waited for its first answer.
  for (const [part, at] of marks.filter(([, at]) => at !== null).reverse()) {
    const from = Math.min(to, Math.max(begun, Date.parse(at)));
    if (to > from || (parts.length === 0 && part === "send")) parts.unshift({ part, from, to, seconds: (to - from) / 1000 });
    to = from;
  }
  return parts;
}

function line(attempt, scale) {
  const parts = partsOf(attempt);
  const said = parts.map(({ part, seconds }) => `${NAMES[part]} ${duration(seconds)}`).join(", ");
  const isOpen = attempt.ended_at === null;
  return h(
    "div",
    { class: "gantt__line", key: attempt.number },
    h("div", { class: "gantt__name" }, h("b", null, `${attempt.number}`), h("span", { class: "name", title: attempt.offer }, attempt.provider), badge("attempt", attempt.status)),
    h(
      "div",
      { class: "gantt__track", role: "img", "aria-label": `Attempt ${attempt.number}: ${said}` },
      parts.map(({ part, from, to }) =>
        h("span", {
          class: `gantt__bar gantt__bar--${part} gantt__bar--${attempt.status} ${isOpen && to === parts.at(-1).to ? "gantt__bar--open" : ""}`,
          style: { "--at": share(from, scale), "--to": share(to, scale) },
        }),
      ),
    ),
    h("p", { class: "gantt__said" }, attempt.is_fallback ? h("span", { class: "tag" }, "fallback") : null, attempt.failure ? [glyph("turn", "warn"), attempt.failure.code, ": "] : null, said),
  );
}
