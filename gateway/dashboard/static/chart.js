// Small charts in SVG: shapes only, words stand beside them in HTML. Every chart says in words what it shows.

import { h, s } from "./dom.js";
import { count, money } from "./format.js";

const STEP = 6;
const BAR = 4.4;
const UP = 44;
const DOWN = 18;

/** Predictions by the minute: what succeeded grows upward, what failed downward. @param {any[]} series */
export function hour(series) {
  const most = Math.max(1, ...series.map((point) => point.succeeded + point.canceled));
  const worst = Math.max(1, most * (DOWN / UP), ...series.map((point) => point.failed));
  const bars = series.flatMap((point, at) => {
    const well = size(point.succeeded, most, UP);
    const canceled = size(point.canceled, most, UP);
    return [
      rect(at, UP - well, well, "ok"),
      rect(at, UP - well - canceled, canceled, "idle"),
      rect(at, UP + 1, size(point.failed, worst, DOWN), "bad"),
    ];
  });
  const total = (name) => count(series.reduce((sum, point) => sum + point[name], 0));
  const said = `The last hour by the minute: ${total("succeeded")} succeeded, ${total("failed")} failed, ${total("canceled")} canceled`;
  return frame(series.length * STEP, UP + DOWN + 2, "hour", said, [
    s("line", { class: "chart__base", x1: 0, x2: series.length * STEP, y1: UP + 0.5, y2: UP + 0.5 }),
    bars,
  ]);
}

function size(value, most, height) {
  return value === 0 ? 0 : Math.max(1.5, (value / most) * height);
}

function rect(at, y, height, tone) {
  if (height <= 0) return null;
  return s("rect", { class: `chart__bar chart__bar--${tone}`, x: at * STEP, y, width: BAR, height });
}

/** Money by the minute. @param {any[]} series */
export function spending(series) {
  const height = 34;
  const most = Math.max(1, ...series.map((point) => point.nanos));
  const spots = series.map((point, at) => `${at * STEP} ${(height - 2 - (point.nanos / most) * (height - 4)).toFixed(1)}`);
  const width = Math.max(1, series.length - 1) * STEP;
  const total = series.reduce((sum, point) => sum + point.nanos, 0);
  return frame(width, height, "spending", `Spending of the last hour by the minute, ${money(total)} in all`, [
    s("path", { class: "chart__area", d: `M0 ${height} L${spots.join(" L")} L${width} ${height} Z` }),
    s("path", { class: "chart__line", d: `M${spots.join(" L")}` }),
  ]);
}

function frame(width, height, name, said, shapes) {
  const attributes = { class: `chart chart--${name}`, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img" };
  return s("svg", { ...attributes, "aria-label": said }, shapes);
}

/** A level between 0 and 1; what is beyond is full. @param {number} share @param {string} tone @param {string} said */
export function meter(share, tone, said) {
  const width = `${(Math.min(1, Math.max(0, share)) * 100).toFixed(1)}%`;
  return h("span", { class: `meter meter--${tone}`, role: "img", "aria-label": said }, h("span", { class: "meter__level", style: { width } }));
}
