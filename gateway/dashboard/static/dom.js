// Elements made of data, and live updates that leave focus and scrolling alone. Every text of a stranger passes here.

const SVG = "http://www.w3.org/2000/svg";
const SPOKEN = new Set(["title", "aria-label"]);
const SPOKEN_CHARACTERS = 400;

// Control characters are shown, not obeyed: a NUL, an escape, or an override that turns the reading direction round.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff]/g;

/** A text that is safe to look at. @param {unknown} text */
export function clean(text) {
  return String(text)
    .replace(/\r\n?/g, "\n")
    .replace(UNSEEN, (character) => {
      const code = character.charCodeAt(0);
      if (code < 0x20) return String.fromCharCode(0x2400 + code);
      return code === 0x7f ? "\u2421" : `\u27e8U+${code.toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
    });
}

/** The first `most` characters, with an ellipsis if there were more. @param {string} text @param {number} most */
export function cut(text, most) {
  if (text.length <= most) return text;
  return `${text.slice(0, most).replace(/[\ud800-\udbff]$/, "")}…`;
}

/** The last `most` characters. @param {string} text @param {number} most */
export function end(text, most) {
  return text.length <= most ? text : `…${text.slice(-most).replace(/^[\udc00-\udfff]/, "")}`;
}

/** An address that may be followed or shown: http(s), or a path of ours. Null for all else. @param {unknown} url */
export function safeUrl(url) {
  if (typeof url !== "string" || url === "") return null;
  try {
    const parsed = new URL(url, location.href);
    return parsed.protocol === "http:" || parsed.protocol === "https:" ? parsed.href : null;
  } catch {
    return null;
  }
}

/**
 * An element. `key` names it among its siblings for `morph`; `act` and `data` become data-attributes; `style` is set
 * by way of the CSSOM, which the policy of this page allows; addresses that may not be followed are left out.
 * @param {string} tag
 * @param {Record<string, any> | null} [attributes]
 * @param {...any} children
 * @returns {HTMLElement}
 */
export function h(tag, attributes, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** The same for SVG. @param {string} tag @param {Record<string, any> | null} [attributes] @param {...any} children */
export function s(tag, attributes, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "key" || name === "act") element.dataset[name] = String(value);
    else if (name === "data") for (const [key, one] of Object.entries(value)) element.dataset[key] = String(one);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, String(one));
    else if (name === "href" || name === "src") setAddress(element, name, value);
    else if (value === true) element.setAttribute(name, "");
    else element.setAttribute(name, SPOKEN.has(name) ? cut(clean(value), SPOKEN_CHARACTERS) : clean(value));
  }
  append(element, children);
  return element;
}

function setAddress(element, name, value) {
  if (safeUrl(value) !== null) element.setAttribute(name, value);
}

function append(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(element, child);
    else element.append(child instanceof Node ? child : clean(child));
  }
}

/**
 * Makes the children of `parent` look like `wanted` while keeping the nodes that are already right, and with them focus,
 * scrolling, selection and players. @param {Element} parent @param {...any} wanted
 */
export function morph(parent, ...wanted) {
  const fragment = document.createDocumentFragment();
  append(fragment, wanted);
  patchChildren(parent, [...fragment.childNodes]);
}

function patchChildren(parent, wanted) {
  const keys = new Set(wanted.map(keyOf).filter((key) => key !== undefined));
  const keyed = new Map();
  for (const child of [...parent.childNodes]) {
    const key = keyOf(child);
    if (key === undefined) continue;
    if (keys.has(key)) keyed.set(key, child);
    else child.remove();
  }
  let at = parent.firstChild;
  for (const want of wanted) {
    const key = keyOf(want);
    const have = key === undefined ? at : keyed.get(key);
    if (!have || keyOf(have) !== key || !isAlike(have, want)) {
      parent.insertBefore(want, at);
      continue;
    }
    if (have === at) at = at.nextSibling;
    else parent.insertBefore(have, at);
    patch(have, want);
  }
  while (at) {
    const surplus = at;
    at = at.nextSibling;
    surplus.remove();
  }
}

function keyOf(node) {
  return node.dataset?.key;
}

function isAlike(have, want) {
  return have.nodeType === want.nodeType && have.nodeName === want.nodeName;
}

function patch(have, want) {
  if (have.nodeType === Node.TEXT_NODE) {
    if (have.data !== want.data) have.data = want.data;
    return;
  }
  for (const { name } of [...have.attributes]) {
    // Whether a detail is open is the reader's choice.
    if (!want.hasAttribute(name) && name !== "open" && name !== "style") have.removeAttribute(name);
  }
  for (const { name, value } of want.attributes) {
    if (name !== "style" && name !== "open" && have.getAttribute(name) !== value) have.setAttribute(name, value);
  }
  if (have.style.cssText !== want.style.cssText) have.style.cssText = want.style.cssText;
  patchChildren(have, [...want.childNodes]);
}
