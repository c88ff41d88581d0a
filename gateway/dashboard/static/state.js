// What the page knows of the gateway, for all views. Fetches nothing.

export const state = {
  /** @type {any} the last overview heard, or null */
  overview: null,
  /** @type {import("./api.js").Refusal | null} why there is none, or why it is old */
  trouble: null,
  /** @type {import("./stream.js").Connection} */
  connection: { name: "connecting" },
};

/** A line of the timeline that came by itself; an overview may bring it again. @param {any} happening */
export function addHappening(happening) {
  const { overview } = state;
  if (!overview || overview.timeline.some((one) => one.id === happening.id)) return;
  state.overview = { ...overview, timeline: [happening, ...overview.timeline].slice(0, 100) };
}
