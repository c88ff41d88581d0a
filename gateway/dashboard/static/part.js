// The parts that every view is put together from: panel, time, empty line, skeleton, problem. Knows no data of its own.

import { h } from "./dom.js";
import { duration, moment, relative } from "./format.js";
import { glyph } from "./glyph.js";
import { now } from "./time.js";

/**
 * @param {string} name also its class and key
 * @param {string} title
 * @param {any} aside what stands beside the title
 * @param {...any} content
 */
export function panel(name, title, aside, ...content) {
  return h(
    "section",
    { class: `panel panel--${name}`, key: name, "aria-labelledby": `panel-${name}` },
    h("header", { class: "panel__head" }, h("h2", { id: `panel-${name}` }, title), aside ? h("div", { class: "panel__aside" }, aside) : null),
    h("div", { class: "panel__body" }, content),
  );
}

/** A time that keeps saying how long ago it was; exact where it is pointed at. @param {string | null} at @param {string} [prefix] */
export function ago(at, prefix = "") {
  if (!at) return null;
  const milliseconds = Date.parse(at);
  return h(
    "time",
    { datetime: at, title: moment(at, now()), data: { ago: milliseconds, prefix } },
    prefix + relative(milliseconds, now()),
  );
}

/** A duration that grows from `at`. @param {string} at */
export function growing(at) {
  const milliseconds = Date.parse(at);
  return h("span", { data: { since: milliseconds } }, duration((now() - milliseconds) / 1000));
}

/** Lets every `ago` and `growing` under `root` go on. @param {ParentNode} root */
export function tick(root) {
  for (const element of root.querySelectorAll("[data-ago]")) {
    say(element, element.dataset.prefix + relative(Number(element.dataset.ago), now()));
  }
  for (const element of root.querySelectorAll("[data-since]")) {
    say(element, duration((now() - Number(element.dataset.since)) / 1000));
  }
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Nothing to tell, in words. @param {string} text */
export function nothing(text) {
  return h("p", { class: "nothing" }, glyph("check", "quiet"), text);
}

/** @param {import("./api.js").Refusal | Error} error @param {string} [act] what "Try again" does */
export function trouble(error, act = "retry") {
  return h(
    "div",
    { class: "note note--bad", role: "alert", key: "trouble" },
    glyph("cross", "bad"),
    h("div", null, h("strong", null, error.message), h("p", null, error.advice ?? "Load the page again.")),
    h("button", { type: "button", class: "button", act }, "Try again"),
  );
}

/** Where something will stand. @param {number} lines */
export function skeleton(lines) {
  return h("div", { class: "skeleton", "aria-hidden": "true" }, Array.from({ length: lines }, () => h("span", null)));
}
