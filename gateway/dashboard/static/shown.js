// Outputs and inputs as pictures, players or text. Fetches nothing itself: the browser does, from our own links.

import { cut, h, safeUrl } from "./dom.js";
import { bytes } from "./format.js";
import { glyph } from "./glyph.js";

const THUMB_CHARACTERS = 160;
const FULL_CHARACTERS = 10_000; // of one text: beyond it the browser stutters, and nobody reads on
const NAMES = { image: "picture", video: "video", audio: "sound", file: "file", json: "JSON", text: "text" };

/**
 * @typedef {{kind: string, url?: string | null, content_type?: string | null, size_bytes?: number | null,
 *   text?: string | null, is_cut?: boolean}} Shown
 */

/**
 * Where the browser may load it from: our own artifacts, at the origin of this page, whatever name the gateway goes by
 * outside. Another origin would learn that we looked. @param {Shown} shown
 */
function source({ url }) {
  const safe = safeUrl(url);
  const path = safe === null ? "" : new URL(safe).pathname;
  const at = path.lastIndexOf("/artifacts/");
  return at === -1 ? null : path.slice(at);
}

/** A small picture, or a box that names what it is. @param {Shown} shown */
export function thumb(shown) {
  const src = source(shown);
  if (shown.kind === "image" && src !== null) {
    return h("img", { class: "thumb", src, alt: "", loading: "lazy", decoding: "async", width: 44, height: 44 });
  }
  return h("span", { class: "thumb thumb--word" }, NAMES[shown.kind] ?? "file");
}

/** The words of a text output, one line of them. @param {Shown[]} output */
export function glimpse(output) {
  const written = output.find((one) => typeof one.text === "string" && one.text !== "");
  return written ? cut(written.text, THUMB_CHARACTERS) : "";
}

/** In full. @param {Shown} shown @param {number} at */
export function full(shown, at) {
  const key = `${at}-${shown.kind}-${shown.url ?? ""}`;
  if (shown.kind === "text" || shown.kind === "json") {
    const text = shown.text ?? "";
    return h(
      "figure",
      { class: "output", key },
      h("pre", { class: "pre pre--output", tabindex: 0, dir: "auto" }, cut(text, FULL_CHARACTERS)),
      shown.is_cut || text.length > FULL_CHARACTERS ? h("figcaption", null, "cut: the whole is in the API's answer") : null,
    );
  }
  return h("figure", { class: "output", key }, player(shown), h("figcaption", null, caption(shown)));
}

function player(shown) {
  const src = source(shown);
  if (src !== null && shown.kind === "image") {
    const picture = h("img", { src, alt: "As a picture", decoding: "async" });
    return h("a", { href: src, target: "_blank", rel: "noopener noreferrer" }, picture);
  }
  const player = { src, controls: true, preload: "metadata" };
  if (src !== null && shown.kind === "video") return h("video", { ...player, playsinline: true });
  if (src !== null && shown.kind === "audio") return h("audio", player);
  return h("span", { class: "output__file" }, glyph("dot", "idle"), NAMES[shown.kind] ?? "file");
}

function caption(shown) {
  const said = [shown.content_type ?? NAMES[shown.kind] ?? "file", bytes(shown.size_bytes)].filter(Boolean).join(" · ");
  const url = source(shown) ?? safeUrl(shown.url);
  return [said, url ? [" · ", h("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, "open")] : null];
}
