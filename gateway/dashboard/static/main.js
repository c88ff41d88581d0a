// Puts the page together: addresses to views, the stream to what is shown, clicks and keys to deeds.

import { cancelDialog, cellDialog, close, keysDialog, redeliverDialog } from "./act.js";
import { get, key, Refusal } from "./api.js";
import { auditView } from "./audit.js";
import { clean, h, morph } from "./dom.js";
import { glyph } from "./glyph.js";
import { overviewView } from "./overview.js";
import { tick } from "./part.js";
import { predictionsView } from "./predictions.js";
import { askForKey } from "./signin.js";
import { addHappening, state } from "./state.js";
import { Stream } from "./stream.js";
import { heard } from "./time.js";
import { judge } from "./verdict.js";
import { whyView } from "./why.js";

const main = document.getElementById("main");
const spoken = document.getElementById("spoken");
const tools = document.getElementById("tools");
const TICK_MILLISECONDS = 1000;

let view = null;
let isDrawDue = false;

const stream = new Stream({
  onEvent(name, value) {
    if (name === "overview") takeOverview(value);
    else if (name === "prediction") view?.onPrediction?.(value);
    else if (name === "happened") {
      addHappening(value);
      view?.onHappened?.(value);
      drawSoon();
    }
  },
  onState(connection) {
    state.connection = connection;
    drawTools();
  },
  onLive() {
    void loadOverview();
    view?.onLive?.();
  },
  onRefused: askAgain,
});

// -- what is heard ---------------------------------------------------------------------------------------------------

function takeOverview(overview) {
  heard(overview.now);
  state.overview = overview;
  state.trouble = null;
  const { level, headline: said } = judge(overview);
  const headline = clean(said);
  const mark = { ok: "✓", warn: "▲", bad: "✕", idle: "○" }[level];
  document.title = `${mark} ${headline} · Turnout`;
  if (spoken.textContent !== headline) spoken.textContent = headline;
  drawSoon();
}

async function loadOverview() {
  try {
    takeOverview(await get("/ops/v1/overview"));
  } catch (error) {
    if (error.isAboutKey) askAgain(error);
    else if (error instanceof Refusal) {
      state.trouble = error;
      drawSoon();
    }
  }
}

function drawSoon() {
  if (isDrawDue) return;
  isDrawDue = true;
  requestAnimationFrame(() => {
    isDrawDue = false;
    if (key.get() !== "") view?.onOverview?.(main);
  });
}

// -- where we are ----------------------------------------------------------------------------------------------------

function routeOf(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?", 2);
  const [place = "", id] = path.split("/").filter(Boolean);
  if (place === "predictions") return id === undefined ? { view: predictionsView, query: new URLSearchParams(query) } : { view: whyView, id: decoded(id) };
  return { view: place === "audit" ? auditView : overviewView };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a stray % in an address that was typed
  }
}

function go({ isFirst = false } = {}) {
  close();
  if (key.get() === "") return askForKey(main, null, begin);
  view?.leave?.();
  const route = routeOf(location.hash);
  view = route.view;
  main.replaceChildren();
  main.dataset.view = view.name;
  if (view.enter) view.enter(main, route);
  else view.render(main);
  const nav = view === whyView ? "predictions" : view.name;
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.dataset.view === nav) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (isFirst) return undefined;
  scrollTo(0, 0);
  if (view.focus) view.focus();
  else main.focus({ preventScroll: true });
  return undefined;
}

function begin() {
  go({ isFirst: true });
  stream.start();
}

/** @param {Refusal | null} refusal */
function askAgain(refusal) {
  stream.stop();
  key.forget();
  view?.leave?.();
  view = null;
  state.overview = null;
  delete main.dataset.view;
  document.title = "Turnout";
  drawTools();
  askForKey(main, refusal, begin);
}

// -- the tools at the top --------------------------------------------------------------------------------------------

const CONNECTION = {
  connecting: ["connecting", "ring", "info"],
  live: ["live", "dot", "ok"],
  waiting: ["reconnecting", "warning", "warn"],
  paused: ["paused", "slash", "idle"],
};

function drawTools() {
  const { name, seconds } = state.connection;
  const [word, shape, tone] = CONNECTION[name] ?? [];
  const said = name === "waiting" ? `reconnecting in ${seconds} s` : word;
  const theme = window.turnoutTheme.chosen();
  morph(
    tools,
    word && key.get() !== ""
      ? h("button", { type: "button", class: `tool tool--live tool--${name}`, key: "live", act: "live", id: "connection", title: name === "paused" ? "Resume" : "Pause" }, glyph(shape, tone), h("span", null, said))
      : null,
    h("button", { type: "button", class: "tool", key: "theme", act: "theme", "aria-label": `Colours: ${theme}`, title: `Colours: ${theme}` }, glyph("half", "idle"), h("span", null, theme)),
    key.get() === "" ? null : h("button", { type: "button", class: "tool", key: "forget", act: "forget", title: "Forget the key in this tab" }, "forget key"),
  );
}

// -- what people do --------------------------------------------------------------------------------------------------

const ACTS = {
  live: () => stream.toggle(),
  theme: () => {
    window.turnoutTheme.next();
    drawTools();
  },
  forget: () => askAgain(null),
  skip: (_, event) => {
    event.preventDefault(); // its address would be taken for a view
    main.focus();
  },
  close: () => close(),
  retry: () => {
    void loadOverview();
    view?.retry?.();
  },
  back: (_, event) => {
    event.preventDefault();
    goBack();
  },
  clear: () => predictionsView.clear(),
  further: () => predictionsView.further(),
  fresh: () => predictionsView.showFresh(),
  open: (element, event) => {
    if (event.target.closest("a") === null) predictionsView.open(element.dataset.id);
  },
  cell: (element) => {
    const cell = state.overview?.matrix.cells.find((one) => one.offer === element.dataset.offer);
    if (cell) cellDialog(cell, loadOverview);
  },
  cancel: (element) => cancelDialog(element.dataset.id, () => whyView.load()),
  redeliver: (element) => redeliverDialog(element.dataset.id, () => whyView.load()),
};

document.addEventListener("click", (event) => {
  const element = event.target.closest?.("[data-act]");
  if (element && Object.hasOwn(ACTS, element.dataset.act)) ACTS[element.dataset.act](element, event);
});

let depth = 0; // steps within this page: Esc goes back through them, but never out of it

function goBack() {
  if (depth > 0) history.back();
  else location.hash = view === whyView ? "#/predictions" : "#/";
}

window.addEventListener("hashchange", () => {
  depth = history.state?.depth ?? depth + 1;
  history.replaceState({ depth }, "");
  go();
});

let isAfterG = false;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") || key.get() === "") return;
  const isTyping = event.target.matches?.("input, select, textarea");
  if (event.key === "Escape") {
    if (isTyping && view === predictionsView) predictionsView.focus();
    else if (view !== overviewView) goBack();
    return;
  }
  if (isTyping) return;
  const wasAfterG = isAfterG;
  isAfterG = event.key === "g";
  if (wasAfterG && Object.hasOwn(PLACES, event.key)) location.hash = PLACES[event.key];
  else if (event.key === "?") keysDialog();
  else if (event.key === "/") search();
  else if (view === predictionsView && (event.key === "j" || event.key === "k")) void predictionsView.move(event.key === "j" ? 1 : -1);
  else if (view === predictionsView && event.key === "Enter" && event.target === document.body && predictionsView.selected) predictionsView.open(predictionsView.selected);
  else return;
  event.preventDefault();
});

const PLACES = { o: "#/", p: "#/predictions", a: "#/audit" };

function search() {
  if (view !== predictionsView) {
    location.hash = "#/predictions";
    window.addEventListener("hashchange", () => document.getElementById("search")?.focus(), { once: true });
    return;
  }
  document.getElementById("search").focus();
}

setInterval(() => tick(main), TICK_MILLISECONDS);
drawTools();
if (key.get() === "") go({ isFirst: true });
else begin();
