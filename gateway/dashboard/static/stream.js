// The live feed: server-sent events read by fetch, because EventSource cannot send a key. Knows no view.

import { open } from "./api.js";

const PATH = "/ops/v1/events";
const SILENCE_SECONDS = 45; // the gateway says something every 15
const FIRST_SECONDS = 1;
const MOST_SECONDS = 30;
const HIDDEN_SECONDS = 300; // a page that nobody has looked at for so long lets go

/**
 * @typedef {{name: "connecting" | "live" | "waiting" | "paused" | "refused", seconds?: number}} Connection
 */
export class Stream {
  /**
   * @param {{
   *   onEvent: (name: string, value: any) => void,
   *   onState: (connection: Connection) => void,
   *   onLive: () => void,
   *   onRefused: (refusal: import("./api.js").Refusal) => void,
   * }} listener
   */
  constructor(listener) {
    this.listener = listener;
    this.tries = 0;
    this.lastId = "";
    this.isPaused = false;
    this.abort = null;
    this.timer = 0;
    document.addEventListener("visibilitychange", () => this.#onVisibility());
    window.addEventListener("online", () => this.#retryNow());
  }

  /** Connects, unless it is paused. */
  start() {
    this.#end();
    if (this.isPaused) return this.#tell({ name: "paused" });
    return this.#read();
  }

  stop() {
    this.#end();
    this.#tell({ name: "refused" });
  }

  toggle() {
    this.isPaused = !this.isPaused;
    this.tries = 0;
    this.start();
  }

  #end() {
    this.abort?.abort();
    this.abort = null;
    clearTimeout(this.timer);
  }

  #tell(connection) {
    this.connection = connection;
    this.listener.onState(connection);
  }

  async #read() {
    const abort = new AbortController();
    this.abort = abort;
    this.#tell({ name: "connecting" });
    try {
      const headers = { accept: "text/event-stream" };
      if (this.lastId !== "") headers["last-event-id"] = this.lastId;
      const answer = await open(PATH, { headers, signal: abort.signal });
      this.#tell({ name: "live" });
      this.listener.onLive();
      await this.#consume(answer.body, abort);
    } catch (error) {
      if (error.isAboutKey && this.abort === abort) {
        this.stop();
        return this.listener.onRefused(error);
      }
    }
    const isOurs = this.abort === abort; // otherwise somebody ended it on purpose
    abort.abort(); // the gateway hears that nobody reads any more
    if (isOurs) this.#wait();
    return undefined;
  }

  async #consume(body, abort) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new Parser((event) => this.#take(event));
    let alarm = 0;
    const watch = () => {
      clearTimeout(alarm);
      alarm = setTimeout(() => reader.cancel().catch(() => {}), SILENCE_SECONDS * 1000);
    };
    abort.signal.addEventListener("abort", () => clearTimeout(alarm));
    try {
      for (;;) {
        watch();
        const { done, value } = await reader.read();
        if (done) return;
        parser.feed(value);
      }
    } finally {
      clearTimeout(alarm);
    }
  }

  #take(event) {
    this.tries = 0; // only a stream that carries something counts as recovered
    if (event.id !== "") this.lastId = event.id;
    this.listener.onEvent(event.name, JSON.parse(event.data));
  }

  #wait() {
    this.abort = null;
    const most = Math.min(MOST_SECONDS, FIRST_SECONDS * 2 ** this.tries);
    this.tries += 1;
    // Half of it by chance: pages that lost the same gateway do not come back in step.
    this.#countDown(most * (0.5 + Math.random() / 2));
  }

  #countDown(seconds) {
    if (seconds <= 0.05) return void this.#read();
    this.#tell({ name: "waiting", seconds: Math.ceil(seconds) });
    const step = Math.min(1, seconds);
    this.timer = setTimeout(() => this.#countDown(seconds - step), step * 1000);
    return undefined;
  }

  #retryNow() {
    if (this.connection?.name === "waiting") this.start();
  }

  #onVisibility() {
    if (this.isPaused || !this.connection || this.connection.name === "refused") return;
    if (document.hidden) {
      clearTimeout(this.hidden);
      this.hidden = setTimeout(() => {
        this.#end();
        this.#tell({ name: "paused" });
      }, HIDDEN_SECONDS * 1000);
      return;
    }
    clearTimeout(this.hidden);
    if (this.connection.name === "paused") this.start();
    else this.#retryNow();
  }
}

/** The wire format, line by line; whatever does not make a whole event yet is kept. */
class Parser {
  /** @param {(event: {name: string, data: string, id: string}) => void} take */
  constructor(take) {
    this.take = take;
    this.rest = "";
    this.clear();
  }

  clear() {
    this.event = { name: "message", data: "", id: "" };
    this.lines = [];
  }

  /** @param {string} text */
  feed(text) {
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? "";
    lines.forEach((line) => this.#line(line));
  }

  #line(line) {
    if (line === "") {
      const { event, lines } = this;
      this.clear();
      if (lines.length > 0) this.take({ ...event, data: lines.join("\n") });
      return;
    }
    const [, field, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (field === "event") this.event.name = value ?? "";
    else if (field === "data") this.lines.push(value ?? "");
    else if (field === "id") this.event.id = value ?? "";
  }
}
