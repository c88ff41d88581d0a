// What people can do here, and the dialogs that ask why. Every deed goes out with a reason, and lands in the audit trail.

import { post } from "./api.js";
import { h } from "./dom.js";
import { cellFacts } from "./matrix.js";

const REASON_CHARACTERS = 500;
const dialog = /** @type {HTMLDialogElement} */ (document.getElementById("dialog"));
const toasts = document.getElementById("toasts");
const TOAST_MILLISECONDS = 6000;

dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // the ground beside it
});

/** @param {string} title @param {...any} content */
export function show(title, ...content) {
  const close = h("button", { type: "button", class: "button button--quiet dialog__close", act: "close", "aria-label": "Close" }, "×");
  dialog.replaceChildren(h("header", { class: "dialog__head" }, h("h2", { id: "dialog-title" }, title), close), h("div", { class: "dialog__body" }, content));
  if (!dialog.open) dialog.showModal();
}

export function close() {
  dialog.close();
}

/** A word about what was done. @param {string} text */
function toast(text) {
  const element = h("p", { class: "toast" }, text);
  toasts.append(element);
  setTimeout(() => element.remove(), TOAST_MILLISECONDS);
}

/**
 * Asks for the reason, then does it.
 * @param {{title: string, text: string, button: string, tone?: string, run: (reason: string) => Promise<unknown>, done: string}} deed
 */
function confirm({ title, text, button, tone = "", run, done }) {
  const error = h("p", { class: "dialog__error", role: "alert" });
  const reason = h("textarea", { name: "reason", id: "reason", rows: 3, required: true, maxlength: REASON_CHARACTERS, "aria-describedby": "reason-note" });
  const submit = h("button", { type: "submit", class: `button button--first ${tone}` }, button);
  const form = h(
    "form",
    { class: "dialog__form", novalidate: true },
    h("p", null, text),
    h("label", { for: "reason" }, "Reason"),
    reason,
    h("p", { class: "quiet", id: "reason-note" }, "It is kept in the audit trail, with your key's name."),
    error,
    h("div", { class: "dialog__acts" }, h("button", { type: "button", class: "button", act: "close" }, "Leave it"), submit),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = reason.value.trim();
    if (given === "") {
      error.textContent = "Say why, in a word at least.";
      reason.focus();
      return;
    }
    submit.disabled = true;
    try {
      await run(given);
      dialog.close();
      toast(done);
    } catch (refusal) {
      error.textContent = [refusal.message, refusal.advice].filter(Boolean).join(". ");
    }
    submit.disabled = false;
  });
  show(title, form);
  reason.focus();
}

const BREAKER = {
  open: { button: "Take it out", tone: "button--bad", text: "Nothing new goes there until it is released, whatever is measured.", done: "Taken out." },
  close: { button: "Keep it in", tone: "", text: "Predictions go there even if it fails, until it is released.", done: "Kept in." },
  release: { button: "Release it", tone: "", text: "What is measured decides again.", done: "Released." },
};

/** The dialog of a cell of the matrix. @param {any} cell @param {() => void} after */
export function cellDialog(cell, after) {
  const query = new URLSearchParams({ model: cell.model, provider: cell.provider });
  show(
    `${cell.model} at ${cell.provider}`,
    cellFacts(cell),
    h("p", null, h("a", { href: `#/predictions?${query}`, }, "Its predictions")),
    h(
      "div",
      { class: "dialog__acts" },
      cell.forced === null ? null : choice("release", "Release…"),
      cell.forced === "closed" ? null : choice("close", "Force closed…"),
      cell.forced === "open" ? null : choice("open", "Force open…", "button--bad"),
    ),
  );
  for (const button of dialog.querySelectorAll("[data-action]")) {
    button.addEventListener("click", () => breakerDialog(cell, button.dataset.action, after));
  }
}

function choice(action, word, tone = "") {
  return h("button", { type: "button", class: `button ${tone}`, data: { action } }, word);
}

function breakerDialog(cell, action, after) {
  const { button, tone, text, done } = BREAKER[action];
  confirm({
    title: `${button}: ${cell.offer}`,
    text,
    button,
    tone,
    done,
    run: async (reason) => {
      await post("/ops/v1/breakers", { offer: cell.offer, action, reason });
      after();
    },
  });
}

/** @param {string} id @param {() => void} after */
export function cancelDialog(id, after) {
  confirm({
    title: "Cancel this prediction",
    text: "The job is stopped at its provider, if that can be done; what it has cost stays. Its caller gets “canceled”.",
    button: "Cancel it",
    tone: "button--bad",
    done: "Canceled.",
    run: (reason) => post(`/ops/v1/predictions/${encodeURIComponent(id)}/cancel`, { reason }).then(after),
  });
}

/** @param {string} id @param {() => void} after */
export function redeliverDialog(id, after) {
  confirm({
    title: "Send the webhook again",
    text: "The caller's receiver gets the final webhook once more, with the same body and id.",
    button: "Redeliver it",
    done: "On its way again.",
    run: (reason) => post(`/ops/v1/predictions/${encodeURIComponent(id)}/redeliver`, { reason }).then(after),
  });
}

const KEYS = [
  ["/", "search predictions"],
  ["j k ↓ ↑", "next and previous in the list"],
  ["Enter", "open it"],
  ["Esc", "back"],
  ["g o, g p, g a", "overview, predictions, audit"],
  ["?", "this"],
];

export function keysDialog() {
  show("Keys", h("dl", { class: "keys" }, KEYS.map(([name, text]) => h("div", null, h("dt", null, name.split(" ").map((one) => [h("kbd", null, one.replace(",", "")), " "])), h("dd", null, text)))));
}
