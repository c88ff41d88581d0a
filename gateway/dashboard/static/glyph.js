// What a state looks like: a word, a shape and a tone, never a colour alone.

import { h, s } from "./dom.js";

/** Shapes on a field of 16; "fill" is painted in the tone, "cut" in the colour of the ground. */
const SHAPES = {
  check: [["circle", "fill", { cx: 8, cy: 8, r: 7 }], ["path", "cut", { d: "M4.7 8.3l2.3 2.3 4.4-4.8" }]],
  bar: [["rect", "fill", { x: 1, y: 1, width: 14, height: 14, rx: 2.5 }], ["path", "cut", { d: "M4.2 8h7.6" }]],
  cross: [["rect", "fill", { x: 1, y: 1, width: 14, height: 14, rx: 2.5 }], ["path", "cut", { d: "M5 5l6 6M11 5l-6 6" }]],
  warning: [["path", "fill", { d: "M8 1.2 15.4 14.4H.6z" }], ["path", "cut", { d: "M8 6v3.6M8 11.9v.3" }]],
  diamond: [["path", "line", { d: "M8 1.6 14.4 8 8 14.4 1.6 8z" }], ["circle", "dot", { cx: 8, cy: 8, r: 1.9 }]],
  half: [["circle", "line", { cx: 8, cy: 8, r: 6.2 }], ["path", "dot", { d: "M1.8 8a6.2 6.2 0 0 0 12.4 0z" }]],
  ring: [["circle", "dashes", { cx: 8, cy: 8, r: 6.2 }]],
  play: [["circle", "line", { cx: 8, cy: 8, r: 6.2 }], ["path", "dot", { d: "M6.4 5 11 8l-4.6 3z" }]],
  slash: [["circle", "line", { cx: 8, cy: 8, r: 6.2 }], ["path", "line", { d: "M4 12 12 4" }]],
  clock: [["circle", "line", { cx: 8, cy: 8, r: 6.2 }], ["path", "line", { d: "M8 4.4V8l2.4 1.6" }]],
  hand: [["rect", "fill", { x: 2.5, y: 7, width: 11, height: 7.5, rx: 1.6 }], ["path", "line", { d: "M5 7V5a3 3 0 0 1 6 0v2" }]],
  turn: [["path", "line", { d: "M1.5 12.5h13M4 12.5c5 0 4.5-7 10.5-7M11.8 2.8l2.7 2.7-2.7 2.7" }]],
  gear: [["path", "line", { d: "M13.5 8A5.5 5.5 0 1 1 11.6 3.8M13.6 1.6v3h-3" }]],
  dot: [["circle", "dot", { cx: 8, cy: 8, r: 3 }]],
  house: [["path", "line", { d: "M2.2 7.6 8 2.6l5.8 5M3.8 6.6v6.8h8.4V6.6" }]],
};

/** state → [word, shape, tone]; the gateway's words are kept where people know them. */
const PREDICTIONS = {
  starting: ["starting", "ring", "info"],
  processing: ["running", "play", "info"],
  succeeded: ["succeeded", "check", "ok"],
  failed: ["failed", "cross", "bad"],
  aborted: ["aborted", "clock", "bad"],
  canceled: ["canceled", "slash", "idle"],
};
const PROVIDERS = {
  ok: ["ok", "check", "ok"],
  degraded: ["partly out", "warning", "warn"],
  out: ["out", "bar", "bad"],
  limited: ["limited", "half", "warn"],
  full: ["full", "half", "warn"],
  down: ["down", "cross", "bad"],
  forced: ["by hand", "hand", "warn"],
};
const OFFERS = {
  closed: ["ok", "check", "ok"],
  open: ["out", "bar", "bad"],
  probing: ["probing", "diamond", "warn"],
  limited: ["limited", "half", "warn"],
};
const ATTEMPTS = {
  intent: ["sending", "ring", "info"],
  unknown: ["unknown", "warning", "warn"],
  accepted: ["queued", "ring", "info"],
  running: ["running", "play", "info"],
  collecting: ["collecting", "play", "info"],
  succeeded: ["served", "check", "ok"],
  rejected: ["refused", "bar", "bad"],
  failed: ["failed", "cross", "bad"],
  canceled: ["canceled", "slash", "idle"],
  abandoned: ["given up", "clock", "warn"],
};
const HAPPENINGS = {
  ejected: ["out", "bar", "bad"],
  recovered: ["back", "check", "ok"],
  forced: ["by hand", "hand", "warn"],
  failover: ["moved on", "turn", "warn"],
  rescued: ["rescued", "turn", "ok"],
  reloaded: ["reloaded", "gear", "info"],
  refused: ["refused", "warning", "bad"],
  canceled: ["canceled", "slash", "idle"],
  redelivered: ["redelivered", "turn", "info"],
  local: ["local", "house", "info"],
  started: ["started", "play", "info"],
};
const LEVELS = {
  ok: ["well", "check", "ok"],
  warn: ["attention", "warning", "warn"],
  bad: ["failing", "cross", "bad"],
  idle: ["idle", "ring", "idle"],
};
const TABLES = { prediction: PREDICTIONS, provider: PROVIDERS, offer: OFFERS, attempt: ATTEMPTS, happening: HAPPENINGS, level: LEVELS };

/**
 * @param {keyof typeof TABLES} kind
 * @param {string} state one that is not known is shown as it is called
 * @returns {{word: string, shape: string, tone: string}}
 */
export function look(kind, state) {
  const table = TABLES[kind];
  const [word, shape, tone] = Object.hasOwn(table, state) ? table[state] : [state, "dot", "idle"];
  return { word, shape, tone };
}

/** The shape alone, for where the word stands beside it. @param {string} shape @param {string} tone */
export function glyph(shape, tone) {
  const drawn = SHAPES[shape].map(([tag, paint, attributes]) => s(tag, { class: `glyph__${paint}`, ...attributes }));
  return s("svg", { class: `glyph glyph--${tone}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, drawn);
}

/** Shape and word. @param {keyof typeof TABLES} kind @param {string} state @param {string} [word] instead of its own */
export function badge(kind, state, word) {
  const seen = look(kind, state);
  return h("span", { class: `badge badge--${seen.tone}` }, glyph(seen.shape, seen.tone), h("span", null, word ?? seen.word));
}
