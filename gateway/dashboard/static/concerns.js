// The panels of the overview that are lists: failing, providers, money, stuck, receivers, timeline.

import { meter, spending } from "./chart.js";
import { cut, h } from "./dom.js";
import { count, duration, money, percent, some } from "./format.js";
import { badge, glyph, look } from "./glyph.js";
import { ago, nothing, panel } from "./part.js";

const MESSAGE_CHARACTERS = 300;
const NAME_CHARACTERS = 60;
const PACE_MINUTES = 10;
const LOW_HEADROOM = 0.25;

/** @param {any[]} troubles */
export function failing(troubles) {
  const ordered = [...troubles.filter((one) => one.provider === null), ...troubles.filter((one) => one.provider !== null)];
  return panel(
    "failing",
    "Failing now",
    h("span", null, "last 15 minutes"),
    ordered.length === 0
      ? nothing("Nothing failed in the last 15 minutes.")
      : h("ul", { class: "list", tabindex: 0, "aria-label": "Failures, most frequent first" }, ordered.map(failure)),
  );
}

function failure(trouble) {
  const owners = Object.entries(trouble.owners).sort((one, other) => other[1] - one[1]);
  const isRescued = trouble.provider !== null;
  return h(
    "li",
    { class: "item", key: `${trouble.model}|${trouble.provider}|${trouble.code}` },
    h("div", { class: "item__count" }, glyph(...(isRescued ? ["turn", "warn"] : ["cross", "bad"])), h("b", null, count(trouble.count))),
    h(
      "div",
      { class: "item__words" },
      h(
        "p",
        { class: "item__line" },
        h("a", { href: `#/predictions/${encodeURIComponent(trouble.prediction)}`, class: "name", title: trouble.model }, trouble.model),
        isRescued ? [" at ", h("span", { class: "name" }, trouble.provider)] : null,
        " ",
        h("code", { class: "code" }, trouble.code),
      ),
      h("p", { class: "item__text", dir: "auto", title: trouble.example }, cut(trouble.example, MESSAGE_CHARACTERS)),
      h(
        "p",
        { class: "item__fine" },
        isRescued ? "attempts, for " : "predictions, for ",
        owners.slice(0, 3).map(([name, number], at) => [at > 0 ? ", " : "", h("span", { class: "owner" }, name), ` ${count(number)}`]),
        owners.length > 3 ? ` and ${owners.length - 3} more` : "",
        " · last ",
        ago(trouble.last_at),
      ),
    ),
  );
}

const SEVERITY = ["out", "down", "degraded", "forced", "limited", "full", "ok"];

/** @param {any[]} states */
export function providers(states) {
  const ordered = [...states].sort((one, other) => SEVERITY.indexOf(one.state) - SEVERITY.indexOf(other.state));
  const well = states.filter((one) => one.state === "ok").length;
  return panel(
    "providers",
    "Providers",
    states.length > 0 ? h("span", null, well === states.length ? "all well" : `${well} of ${states.length} well`) : null,
    states.length === 0
      ? h("p", { class: "nothing" }, "No provider is configured.")
      : h("ul", { class: "list", tabindex: 0, "aria-label": "Providers, worst first" }, ordered.map(provider)),
  );
}

function provider(one) {
  const load = one.limit ? one.in_flight / one.limit : null;
  return h(
    "li",
    { class: "item item--provider", key: one.provider },
    badge("provider", one.state),
    h(
      "div",
      { class: "item__words" },
      h(
        "p",
        { class: "item__line" },
        h("a", { href: `#/predictions?provider=${encodeURIComponent(one.provider)}`, class: "name", title: one.provider }, one.provider),
        one.until ? h("span", { class: "until" }, ago(one.until, "again ")) : null,
      ),
      one.why ? h("p", { class: "item__text", title: one.why }, cut(one.why, MESSAGE_CHARACTERS)) : null,
    ),
    h(
      "div",
      { class: "item__load" },
      h(
        "span",
        null,
        one.limit ? `${count(one.in_flight)} of ${count(one.limit)}` : count(one.in_flight),
        " in flight",
      ),
      load === null ? null : meter(load, load >= 1 ? "warn" : "info", `${percent(load)} of its limit in flight`),
      one.headroom !== null && one.headroom < LOW_HEADROOM ? h("span", { class: "tone--warn" }, `${percent(one.headroom)} of its rate left`) : null,
    ),
  );
}

/** @param {any} burn @param {any[]} series */
export function moneyOf(burn, series) {
  const { settled_nanos: settled, budget_nanos: budget, unknown_share: unknown } = burn;
  const pace = series.slice(-PACE_MINUTES).reduce((sum, point) => sum + point.nanos, 0) * (60 / PACE_MINUTES);
  const used = budget ? settled / budget : null;
  const tone = used !== null && used > 1 ? "bad" : used !== null && used > 0.8 ? "warn" : "ok";
  return panel(
    "money",
    "Burn",
    h("span", null, "last hour"),
    h("p", { class: "burn" }, h("b", null, money(settled)), h("span", null, budget ? ` of ${money(budget)} an hour` : " an hour, no budget set")),
    used === null ? null : meter(used, tone, `${percent(used)} of the budget`),
    h("div", { class: "burn__chart" }, spending(series)),
    h(
      "dl",
      { class: "facts" },
      fact("at this pace", `${money(pace)}/h`, budget && pace > budget ? "warn" : ""),
      fact("price unknown", percent(unknown), (unknown ?? 0) > 0.02 ? "warn" : ""),
      fact("wasted", money(burn.wasted_nanos), settled > 0 && burn.wasted_nanos / settled > 0.1 ? "warn" : "", "spent on attempts that did not serve"),
      fact("reserved", money(burn.reserved_nanos), "", "expected of what is under way"),
      fact("maybe billed", burn.maybe === 0 ? "none" : `${count(burn.maybe)}, ${burn.maybe_nanos > 0 ? money(burn.maybe_nanos) : "price unknown"}`, burn.maybe > 0 ? "warn" : ""),
    ),
  );
}

function fact(word, value, tone, title) {
  const warns = tone === "warn";
  return h("div", { title }, h("dt", null, word), h("dd", { class: warns ? "tone--warn" : "" }, warns ? glyph("warning", "warn") : null, value));
}

/** @param {any[]} stuck @param {any[]} receivers */
export function stuckOnes(stuck, receivers) {
  const worries = stuck.length + receivers.length;
  return panel(
    "stuck",
    "Stuck jobs and dead receivers",
    worries > 0 ? h("span", { class: "tone--warn" }, some(worries, "worry", "worries")) : null,
    worries === 0
      ? nothing("No job is stuck, every receiver answers.")
      : h("ul", { class: "list", tabindex: 0, "aria-label": "Stuck jobs and dead receivers" }, stuck.map(stuckJob), receivers.map(receiver)),
  );
}

function stuckJob(one) {
  return h(
    "li",
    { class: "item", key: one.id },
    h("div", { class: "item__count" }, glyph("clock", "warn"), h("b", null, duration(one.age_seconds))),
    h(
      "div",
      { class: "item__words" },
      h(
        "p",
        { class: "item__line" },
        h("a", { href: `#/predictions/${encodeURIComponent(one.id)}`, class: "name", title: one.model }, one.model),
        one.provider ? [" at ", h("span", { class: "name" }, one.provider)] : null,
      ),
      h("p", { class: "item__text", title: one.why }, cut(one.why, MESSAGE_CHARACTERS)),
    ),
  );
}

function receiver(one) {
  return h(
    "li",
    { class: "item", key: `receiver ${one.host}` },
    h("div", { class: "item__count" }, glyph("bar", "bad"), h("b", null, count(one.waiting))),
    h(
      "div",
      { class: "item__words" },
      h("p", { class: "item__line" }, h("span", { class: "name", title: one.host }, one.host)),
      h("p", { class: "item__text", title: one.last_error }, `${one.waiting === 1 ? "delivery waits" : "deliveries wait"}, the oldest ${duration(one.oldest_seconds)}: `, h("bdi", null, cut(one.last_error, MESSAGE_CHARACTERS))),
    ),
  );
}

/** @param {any[]} happenings newest first */
export function timeline(happenings) {
  return panel(
    "timeline",
    "What happened",
    null,
    happenings.length === 0
      ? h("p", { class: "nothing" }, "Nothing out of the ordinary yet.")
      : h("ol", { class: "timeline", tabindex: 0, "aria-label": "Events, newest first" }, happenings.map(happening)),
  );
}

function happening(one) {
  const { shape, tone, word } = look("happening", one.kind);
  const title = cut(one.title, MESSAGE_CHARACTERS);
  const model = one.model && !one.title.includes(one.model) ? cut(one.model, NAME_CHARACTERS) : "";
  return h(
    "li",
    { class: "event", key: one.id },
    h("span", { class: "event__mark", title: word }, glyph(shape, tone), h("span", { class: "sr" }, `${word}: `)),
    h(
      "div",
      { class: "event__words" },
      h("p", { class: "event__title" }, one.prediction ? h("a", { href: `#/predictions/${encodeURIComponent(one.prediction)}` }, title) : title),
      model || one.text
        ? h("p", { class: "event__text", dir: "auto", title: one.text }, model ? h("bdi", null, model) : null, model && one.text ? ": " : "", cut(one.text, MESSAGE_CHARACTERS))
        : null,
    ),
    h("span", { class: "event__at" }, ago(one.at), one.who ? h("span", { class: "owner" }, `by ${cut(one.who, 60)}`) : null),
  );
}
