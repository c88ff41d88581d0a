// The first screen, in the order in which ops look. Only arranges: each part knows its own.

import { h, morph } from "./dom.js";
import { moment, some } from "./format.js";
import { latency, pipeline } from "./flow.js";
import { firstRequest } from "./first.js";
import { matrixOf } from "./matrix.js";
import { failing, moneyOf, providers, stuckOnes, timeline } from "./concerns.js";
import { panel, skeleton, trouble } from "./part.js";
import { state } from "./state.js";
import { now } from "./time.js";
import { verdict } from "./verdict.js";

export const overviewView = {
  name: "overview",
  title: () => "Overview",

  /** @param {HTMLElement} root */
  render(root) {
    const { overview, trouble: error } = state;
    if (overview) morph(root, error ? trouble(error) : null, page(overview));
    else morph(root, error ? trouble(error) : loading());
  },

  onOverview(root) {
    this.render(root);
  },
};

function page(overview) {
  const isUnused = overview.totals.created === 0 && overview.totals.open === 0;
  return h(
    "div",
    { class: `overview ${isUnused ? "overview--unused" : ""}`, key: "overview" },
    verdict(overview),
    isUnused ? firstRequest(overview.matrix.models) : failing(overview.troubles),
    providers(overview.providers),
    moneyOf(overview.burn, overview.series),
    latency(overview.latency),
    h("div", { class: "column", key: "column" }, pipeline(overview.pipeline), stuckOnes(overview.stuck, overview.receivers)),
    timeline(overview.timeline),
    matrixOf(overview.matrix),
    footer(overview),
  );
}

function footer(overview) {
  const policies = overview.policies.join(", ");
  return h(
    "footer",
    { class: "foot", key: "foot" },
    h("span", null, `Turnout ${overview.version}, up since ${moment(overview.started_at, now())}`),
    h("span", { title: policies }, `${some(overview.policies.length, "policy", "policies")}, version `, h("code", { class: "code" }, overview.policy_version.slice(0, 12))),
    h("span", null, h("kbd", null, "?"), " keys"),
  );
}

function loading() {
  const waiting = (name, title, lines = 4) => panel(name, title, null, skeleton(lines));
  return h(
    "div",
    { class: "overview", key: "loading", "aria-busy": "true" },
    h(
      "section",
      { class: "verdict verdict--idle" },
      h("div", { class: "verdict__lamp" }),
      h("div", { class: "verdict__words" }, h("h1", { class: "verdict__line" }, "Asking the gateway…"), h("p", { class: "verdict__text" }, "The first answer takes a moment.")),
    ),
    waiting("failing", "Failing now"),
    waiting("providers", "Providers"),
    waiting("money", "Burn"),
    waiting("latency", "Latency", 7),
    h("div", { class: "column" }, waiting("pipeline", "Pipeline", 2), waiting("stuck", "Stuck jobs and dead receivers", 2)),
    waiting("timeline", "What happened"),
    waiting("matrix", "Routes", 9),
  );
}
