// How to make the first request, for whom nothing has happened yet.

import { h } from "./dom.js";
import { panel } from "./part.js";

// A picture of one pixel: whoever has configured nothing yet shall see a result, and not what is missing.
const EXAMPLES = {
  "turnout/upscaler": {
    image: "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  },
};

/** @param {string[]} models */
export function firstRequest(models) {
  if (models.length === 0) {
    return panel(
      "failing",
      "No model is configured",
      null,
      h("p", { class: "first" }, "Add a ", code("[[models]]"), " with its offers to the configuration, then see what would be served:"),
      h("pre", { class: "pre", tabindex: 0 }, "turnout check"),
    );
  }
  const command = [
    `curl -s ${location.origin}/v1/models/${models[0]}/predictions \\`,
    '  -H "Authorization: Bearer $REPLICATE_API_TOKEN" \\',
    "  -H 'Content-Type: application/json' -H 'Prefer: wait' \\",
    `  -d '${JSON.stringify({ input: EXAMPLES[models[0]] ?? {} })}'`,
  ].join("\n");
  return panel(
    "failing",
    "Make the first request",
    null,
    h("p", { class: "first" }, "Any key with the scope ", code("predictions"), " serves. What the model takes as input stands at ", code(`/v1/models/${models[0]}`), "; it appears here as soon as it is asked."),
    h("pre", { class: "pre", tabindex: 0, id: "first-command" }, command),
  );
}

function code(text) {
  return h("code", { class: "code" }, text);
}
