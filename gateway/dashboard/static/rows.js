// The predictions that the list shows: pages as they are asked for, changes as they come. Knows no elements.

import { get } from "./api.js";

const PAGE = 200;
export const MOST = 10_000; // beyond it a narrower search is the better answer

/** What the gateway takes some words for. */
const GROUPS = { open: ["starting", "processing"], failed: ["failed", "aborted"] };
const BARREN = 8; // pages in a row that brought nothing: then somebody has to ask for more

export const FILTERS = ["q", "status", "model", "provider", "owner", "rescued"];

/** @typedef {Record<string, string>} Filters only those that are set */
export class Rows {
  /** @param {() => void} changed called when there is something new to show */
  constructor(changed) {
    this.changed = changed;
    this.filters = {};
    this.#clear();
  }

  #clear() {
    this.ids = [];
    this.byId = new Map();
    this.waiting = new Map(); // came while the reader was elsewhere in the list
    this.next = null;
    this.error = null;
    this.loading = null;
    this.isLoaded = false;
    this.barren = 0;
  }

  /** A rare thing is searched for: page after page may be empty, and there are always more. */
  get isTired() {
    return !this.isComplete && this.barren >= BARREN;
  }

  rest() {
    this.barren = 0;
  }

  get isLoading() {
    return this.loading !== null;
  }

  get length() {
    return this.ids.length;
  }

  get isComplete() {
    return this.isLoaded && (this.next === null || this.length >= MOST);
  }

  /** @param {number} index */
  at(index) {
    return this.byId.get(this.ids[index]);
  }

  /** Starts anew with these filters. @param {Filters} filters */
  async load(filters) {
    this.filters = filters;
    this.abort?.abort();
    this.#clear();
    this.changed();
    await this.more();
  }

  /** The next page, if there is one; the same promise for all who ask meanwhile. */
  more() {
    if (this.isComplete) return Promise.resolve();
    this.loading ??= this.#page();
    return this.loading;
  }

  async #page() {
    const abort = new AbortController();
    this.abort = abort;
    try {
      const page = await get(this.#path(this.next), abort.signal);
      if (this.abort !== abort) return;
      this.next = page.next;
      this.isLoaded = true;
      this.error = null;
      this.barren = page.predictions.length === 0 ? this.barren + 1 : 0;
      page.predictions.forEach((row) => this.#append(row));
    } catch (error) {
      if (this.abort !== abort) return;
      this.error = error;
    }
    this.loading = null;
    this.changed();
  }

  /** Page after page, to the end. */
  async all() {
    while (!this.isComplete && !this.isTired && !this.error) await this.more();
  }

  /** What was missed while the stream was broken: the newest page again. */
  async refresh() {
    if (!this.isLoaded) return this.more();
    const abort = this.abort;
    try {
      const page = await get(this.#path(null));
      if (this.abort !== abort) return undefined;
      this.error = null;
      page.predictions.forEach((row) => this.#take(row));
      this.changed();
    } catch (error) {
      this.error = error;
      this.changed();
    }
    return undefined;
  }

  /** A prediction that was made or has changed. @param {any} row */
  heard(row) {
    if (!this.isLoaded) return;
    this.#take(row);
    this.changed();
  }

  /** Puts what came meanwhile on top. */
  show() {
    if (this.waiting.size === 0) return;
    const fresh = [...this.waiting.values()].sort((one, other) => Date.parse(other.created_at) - Date.parse(one.created_at));
    this.waiting.clear();
    for (const row of fresh) this.byId.set(row.id, row);
    this.ids = [...fresh.map((row) => row.id), ...this.ids];
    this.changed();
  }

  #append(row) {
    if (this.byId.has(row.id)) return;
    this.ids.push(row.id);
    this.byId.set(row.id, row);
  }

  #take(row) {
    if (this.byId.has(row.id)) this.byId.set(row.id, row); // stays, even if it fits no more: nothing vanishes under the reader
    else if (this.waiting.has(row.id) || (this.#isNewer(row) && this.fits(row))) this.waiting.set(row.id, row);
  }

  #isNewer(row) {
    const newest = this.at(0);
    return newest === undefined || Date.parse(row.created_at) >= Date.parse(newest.created_at);
  }

  /** Whether the filters let it pass. @param {any} row */
  fits(row) {
    const { q, status, model, provider, owner, rescued } = this.filters;
    if (status && !(GROUPS[status] ?? [status]).includes(row.status)) return false;
    if (model && row.model !== model) return false;
    if (provider && row.provider !== provider) return false;
    if (owner && row.owner !== owner) return false;
    if (rescued && !row.is_rescued) return false;
    return !q || row.id.startsWith(q.toLowerCase());
  }

  #path(position) {
    const query = new URLSearchParams(this.filters);
    query.set("limit", String(PAGE));
    if (position !== null) query.set("position", position);
    return `/ops/v1/predictions?${query}`;
  }
}
