// The trail of what people did: who, what, to what, for which reason, and what came of it.

import { get } from "./api.js";
import { cut, h, morph } from "./dom.js";
import { glyph } from "./glyph.js";
import { ago, panel, skeleton, trouble } from "./part.js";

const WORDS = {
  "breaker.open": "forced out",
  "breaker.close": "forced in",
  "breaker.release": "released",
  "prediction.cancel": "canceled",
  "prediction.redeliver": "redelivered",
};
const ACTS = new Set(["forced", "canceled", "redelivered"]);

class Audit {
  name = "audit";
  lines = null;
  error = null;

  title() {
    return "Audit";
  }

  /** @param {HTMLElement} root */
  enter(root) {
    this.root = root;
    this.render();
    void this.load();
  }

  leave() {
    this.root = null;
  }

  async load() {
    try {
      this.lines = (await get("/ops/v1/audit")).lines;
      this.error = null;
    } catch (error) {
      this.error = error;
    }
    this.render();
  }

  retry() {
    void this.load();
  }

  onLive() {
    void this.load();
  }

  onHappened(happening) {
    if (ACTS.has(happening.kind)) void this.load();
  }

  render() {
    if (!this.root) return;
    const content = this.lines === null ? (this.error ? null : skeleton(6)) : table(this.lines);
    morph(this.root, h("div", { class: "audit", key: "audit" }, h("h1", { class: "sr" }, "Audit"), this.error ? trouble(this.error) : null, content ? panel("audit", "What people did", h("span", null, "newest first"), content) : null));
  }
}

function table(lines) {
  if (lines.length === 0) return h("p", { class: "nothing" }, "Nobody has forced, canceled or redelivered anything yet.");
  const heads = ["When", "Who", "Did", "To", "Reason", "Outcome"];
  return h(
    "div",
    { class: "frame", tabindex: 0, role: "region", "aria-label": "Audit trail" },
    h("table", { class: "table table--audit" }, h("thead", null, h("tr", null, heads.map((name) => h("th", { scope: "col" }, name)))), h("tbody", null, lines.map(line))),
  );
}

function line(one) {
  const isDone = one.outcome === "done";
  const isPrediction = one.action.startsWith("prediction.");
  const target = cut(one.target, 120);
  return h(
    "tr",
    { key: one.id },
    h("td", null, ago(one.at)),
    h("td", null, h("span", { class: "owner" }, cut(one.who, 60))),
    h("td", { title: one.action }, Object.hasOwn(WORDS, one.action) ? WORDS[one.action] : one.action),
    h("td", null, isPrediction ? h("a", { href: `#/predictions/${encodeURIComponent(one.target)}`, class: "code" }, target) : h("code", { class: "code" }, target)),
    h("td", { class: "table__why", dir: "auto", title: one.reason }, cut(one.reason, 400)),
    h("td", { class: isDone ? "" : "tone--bad" }, glyph(isDone ? "check" : "cross", isDone ? "ok" : "bad"), " ", cut(one.outcome, 200)),
  );
}

export const auditView = new Audit();
