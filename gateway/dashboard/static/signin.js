// The form that asks for the key. Keeps nothing: `api` does.

import { key } from "./api.js";
import { h } from "./dom.js";
import { glyph } from "./glyph.js";

/** @param {HTMLElement} root @param {import("./api.js").Refusal | null} refusal why it is asked for again @param {() => void} given */
export function askForKey(root, refusal, given) {
  const input = h("input", { type: "password", id: "key", name: "key", autocomplete: "off", spellcheck: "false", required: true, maxlength: 512, "aria-describedby": "key-note" });
  const form = h(
    "form",
    { class: "signin" },
    h("h1", null, "The key, please"),
    refusal === null ? null : h("div", { class: "note note--bad", role: "alert" }, glyph("cross", "bad"), h("div", null, h("strong", null, refusal.message), h("p", null, refusal.advice))),
    h("label", { for: "key" }, "A key with the scope ", h("code", { class: "code" }, "admin")),
    input,
    h("button", { type: "submit", class: "button button--first" }, "Open the dashboard"),
    h(
      "p",
      { class: "quiet", id: "key-note" },
      "It stays in this tab and is gone when the tab is closed. Without configured keys it is the one that ",
      h("code", { class: "code" }, "turnout serve"),
      " printed at its start.",
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (text === "") return;
    key.set(text);
    given();
  });
  root.replaceChildren(form);
  input.focus();
}
