// One prediction, whole: why it went there, what was tried, what it cost, who was told.

import { get } from "./api.js";
import { cut, end, h, morph } from "./dom.js";
import { duration, listed, moment, money } from "./format.js";
import { gantt } from "./gantt.js";
import { badge, glyph } from "./glyph.js";
import { ago, growing, panel, skeleton, trouble } from "./part.js";
import { full } from "./shown.js";
import { now } from "./time.js";

const REASON_CHARACTERS = 400;
const SENTENCE_CHARACTERS = 1_200;
const PRE_CHARACTERS = 30_000;
const AGAIN_MILLISECONDS = 300; // changes come in swarms

class Why {
  name = "why";
  detail = null;
  error = null;

  title() {
    return this.detail ? `${this.detail.row.model} ${this.id.slice(0, 6)}` : "Prediction";
  }

  /** @param {HTMLElement} root @param {{id: string}} route */
  enter(root, { id }) {
    Object.assign(this, { root, id, detail: null, error: null });
    this.render();
    void this.load();
  }

  leave() {
    this.abort?.abort();
    clearTimeout(this.again);
    this.again = undefined;
    this.root = null;
  }

  async load() {
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    try {
      this.detail = await get(`/ops/v1/predictions/${encodeURIComponent(this.id)}`, abort.signal);
      this.error = null;
    } catch (error) {
      if (abort.signal.aborted) return;
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

  onPrediction(row) {
    if (row.id !== this.id || this.again !== undefined) return;
    this.again = setTimeout(() => {
      this.again = undefined;
      void this.load();
    }, AGAIN_MILLISECONDS);
  }

  render() {
    if (!this.root) return;
    const back = h("a", { class: "back", href: "#/predictions", act: "back" }, "← Predictions");
    if (this.error) morph(this.root, h("div", { class: "why", key: "why" }, back, trouble(this.error)));
    else if (!this.detail) morph(this.root, h("div", { class: "why", key: "why", "aria-busy": "true" }, back, h("h1", { class: "why__title" }, this.id), panel("story", "Why it went there", null, skeleton(5))));
    else morph(this.root, h("div", { class: "why", key: "why" }, back, page(this.detail)));
  }
}

function page(detail) {
  return [
    heading(detail),
    h(
      "div",
      { class: "why__grid", key: "grid" },
      panel("story", "Why it went there", null, h("ol", { class: "story" }, detail.story.map((sentence) => h("li", { dir: "auto" }, cut(sentence, SENTENCE_CHARACTERS))))),
      panel("output", "Output", null, output(detail)),
      panel("attempts", "Attempts", null, detail.attempts.length === 0 ? h("p", { class: "nothing" }, "Nothing was tried.") : gantt(detail)),
      panel("plan", "Plan", h("span", null, `policy ${cut(detail.policy, 60)}`), plan(detail.plan)),
      h("div", { class: "why__column", key: "column" }, panel("ledger", "Money", null, ledger(detail)), panel("deliveries", "Deliveries", null, deliveries(detail.deliveries))),
      panel("input", "Input", null, input(detail)),
      panel("logs", "Logs", null, logs(detail)),
    ),
  ];
}

function heading({ row, version, deadline_at: deadline, can_cancel: canCancel, can_redeliver: canRedeliver }) {
  const marks = [row.is_rescued ? h("span", { class: "tag tag--ok" }, "rescued") : null, row.is_fallback ? h("span", { class: "tag" }, "fallback") : null];
  return h(
    "header",
    { class: "why__head", key: "head" },
    h("div", { class: "why__words" }, h("h1", { class: "why__title" }, badge("prediction", row.status), h("span", { class: "name", title: row.model }, row.model), marks), h("p", { class: "why__id" }, h("code", { class: "code" }, row.id))),
    h(
      "div",
      { class: "why__acts" },
      canCancel ? h("button", { type: "button", class: "button button--bad", act: "cancel", data: { id: row.id } }, "Cancel…") : null,
      canRedeliver ? h("button", { type: "button", class: "button", act: "redeliver", data: { id: row.id } }, "Redeliver…") : null,
    ),
    h(
      "dl",
      { class: "facts facts--head" },
      fact("for", row.owner),
      fact("by way of", row.source),
      fact("made", ago(row.created_at)),
      fact("took", row.completed_at ? duration(row.seconds) : growing(row.created_at)),
      fact("served by", row.provider ?? "–"),
      fact("cost", row.is_cost_known || row.nanos ? `${row.is_cost_known ? "" : "≥ "}${money(row.nanos)} (${row.basis})` : "unknown"),
      fact("deadline", moment(deadline, now())),
      fact("version", h("code", { class: "code", title: version }, version.slice(0, 12))),
    ),
    row.error ? h("p", { class: "note note--bad" }, glyph("cross", "bad"), h("span", { dir: "auto" }, row.error_code ? h("code", { class: "code" }, row.error_code) : null, " ", row.error)) : null,
  );
}

function fact(word, value) {
  return h("div", null, h("dt", null, word), h("dd", null, typeof value === "string" ? cut(value, 60) : value));
}

function output({ row, output: shown }) {
  if (shown.length > 0) return h("div", { class: "outputs" }, shown.map(full));
  if (row.completed_at === null) return h("p", { class: "nothing" }, "It is not there yet.");
  return h("p", { class: "nothing" }, row.status === "succeeded" ? "It has no output." : "There is none.");
}

function frame(label, ...content) {
  return h("div", { class: "frame", tabindex: 0, role: "region", "aria-label": label }, content);
}

function heads(...names) {
  return h("thead", null, h("tr", null, names.map((name) => h("th", { scope: "col" }, name))));
}

function plan(choices) {
  if (choices.length === 0) return h("p", { class: "nothing" }, "No plan was made.");
  return frame(
    "Plan by offer",
    h("table", { class: "table table--plan" }, heads("", "Offer", "Score", "Expected", "Why"), h("tbody", null, choices.map((choice, at) => choiceRow(choice, at)))),
  );
}

function choiceRow(choice, at) {
  const expected = [choice.expected_seconds === null ? null : duration(choice.expected_seconds), choice.expected_nanos === null ? null : money(choice.expected_nanos)].filter(Boolean);
  return h(
    "tr",
    { class: choice.kept ? "" : "table__dropped", key: choice.offer },
    h("td", null, choice.kept ? h("span", { class: "rank" }, String(at + 1)) : badge("prediction", "canceled", "dropped")),
    h("th", { scope: "row" }, h("span", { class: "name", title: choice.offer }, choice.offer), choice.is_fallback ? h("span", { class: "tag" }, "fallback") : null),
    h("td", { class: "number" }, choice.score === null ? "–" : choice.score.toPrecision(3)),
    h("td", { class: "number" }, expected.length > 0 ? expected.join(", ") : "–"),
    h("td", { class: "table__why" }, choice.reasons.map((reason) => h("p", { title: reason.code }, cut(reason.text, REASON_CHARACTERS)))),
  );
}

function ledger({ attempts, row }) {
  if (attempts.length === 0) return h("p", { class: "nothing" }, "Nothing was tried, nothing was spent.");
  const lines = attempts.map((attempt) =>
    h(
      "tr",
      { key: attempt.number },
      h("th", { scope: "row" }, `${attempt.number} `, h("span", { class: "name" }, attempt.provider)),
      h("td", { class: "number" }, attempt.expected_nanos === null ? "–" : money(attempt.expected_nanos)),
      h("td", { class: "number" }, attempt.nanos === null ? "unknown" : money(attempt.nanos)),
      h("td", null, attempt.basis),
      h("td", { class: attempt.ledger === "maybe" ? "tone--warn" : "" }, attempt.ledger ?? "–"),
      h("td", null, attempt.job ? h("code", { class: "code", title: attempt.job }, cut(attempt.job, 40)) : "–"),
    ),
  );
  const total = h("tr", { key: "total" }, h("th", { scope: "row" }, "in all"), h("td"), h("td", { class: "number" }, row.is_cost_known ? money(row.nanos) : row.nanos ? `≥ ${money(row.nanos)}` : "unknown"), h("td", { colspan: 3 }));
  return frame("Money by attempt", h("table", { class: "table" }, heads("Attempt", "Expected", "Cost", "Told by", "Ledger", "Job there"), h("tbody", null, lines), h("tfoot", null, total)));
}

function deliveries(all) {
  if (all.length === 0) return h("p", { class: "nothing" }, "No webhook was asked for.");
  return frame(
    "Deliveries by event",
    h("table", { class: "table" }, heads("", "Event", "To", "Tries", "Last answer", "When"), h("tbody", null, all.map(deliveryRow))),
  );
}

function deliveryRow(one) {
  const isDone = one.ended === "delivered";
  const state = one.ended === null ? badge("prediction", "starting", one.tries > 0 ? "again later" : "waiting") : badge("prediction", isDone ? "succeeded" : "failed", one.ended);
  const answer = [one.last_status, one.last_error].filter((part) => part !== null && part !== "").join(" ");
  return h(
    "tr",
    { key: one.id },
    h("td", null, state),
    h("td", null, one.event, one.is_final ? h("span", { class: "tag" }, "final") : null),
    h("td", null, h("span", { class: "name", title: one.host }, one.host)),
    h("td", { class: "number" }, String(one.tries)),
    h("td", { class: "table__why", title: answer }, answer === "" ? "–" : cut(answer, REASON_CHARACTERS)),
    h("td", null, one.ended === null ? ago(one.due_at, "due ") : ago(one.created_at)),
  );
}

function input({ input: text, files }) {
  return [h("pre", { class: "pre", tabindex: 0, dir: "auto", "aria-label": "Input as JSON" }, cut(text, PRE_CHARACTERS)), files.length > 0 ? h("div", { class: "outputs" }, files.map(full)) : null];
}

function logs({ logs: own, attempts }) {
  const told = attempts.filter((attempt) => attempt.logs !== "" && attempt.logs !== own);
  if (own === "" && told.length === 0) return h("p", { class: "nothing" }, "Nobody wrote any.");
  const silent = attempts.filter((attempt) => attempt.logs === "").map((attempt) => attempt.provider);
  return [
    own === "" ? null : h("pre", { class: "pre", tabindex: 0, dir: "auto", key: "own", "aria-label": "Logs" }, end(own, PRE_CHARACTERS)),
    told.map((attempt) =>
      h("details", { class: "more", key: `logs ${attempt.number}` }, h("summary", null, `Attempt ${attempt.number} at ${cut(attempt.provider, 60)}`), h("pre", { class: "pre", tabindex: 0, dir: "auto" }, end(attempt.logs, PRE_CHARACTERS))),
    ),
    silent.length > 0 && told.length > 0 ? h("p", { class: "quiet" }, `${listed(silent, 3)} wrote none.`) : null,
  ];
}

export const whyView = new Why();
