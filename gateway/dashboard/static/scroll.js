// A list of any length with few elements: only what is in sight exists. Knows nothing of what a row shows.

import { h, morph } from "./dom.js";

const SPARE_ROWS = 6;

export class Scroll {
  /**
   * @param {HTMLElement} frame what scrolls; its rows are as high as its custom property --row says, in pixels
   * @param {{length: () => number, row: (index: number) => HTMLElement, edge: () => void}} source
   */
  constructor(frame, source) {
    this.frame = frame;
    this.source = source;
    this.rail = h("div", { class: "rows__rail", role: "presentation" });
    frame.append(this.rail);
    this.isDue = false;
    frame.addEventListener("scroll", () => this.draw(), { passive: true });
    this.watch = new ResizeObserver(() => this.draw());
    this.watch.observe(frame);
  }

  close() {
    this.watch.disconnect();
  }

  get height() {
    return Number.parseFloat(getComputedStyle(this.frame).getPropertyValue("--row")) || 60;
  }

  /** What of the frame stays at its top while the rows move under it. */
  get head() {
    return this.rail.offsetTop;
  }

  /** At the next frame of the screen, however often it is asked for. */
  draw() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.drawNow();
    });
  }

  drawNow() {
    const { frame, rail, source, height } = this;
    const length = source.length();
    this.#stretch();
    const first = Math.max(0, Math.floor(frame.scrollTop / height) - SPARE_ROWS);
    const last = Math.min(length, Math.ceil((frame.scrollTop + frame.clientHeight) / height) + SPARE_ROWS);
    const rows = [];
    for (let index = first; index < last; index += 1) {
      const row = source.row(index);
      row.style.transform = `translateY(${index * height}px)`;
      rows.push(row);
    }
    morph(rail, rows);
    if (last >= length - SPARE_ROWS * 2) source.edge();
  }

  #stretch() {
    const total = `${this.source.length() * this.height}px`;
    if (this.rail.style.height !== total) this.rail.style.height = total;
  }

  /** @param {number} index */
  reveal(index) {
    const { frame, height } = this;
    this.#stretch(); // there is no scrolling beyond what is drawn
    const top = index * height;
    const bottom = this.head + top + height;
    if (top < frame.scrollTop) frame.scrollTop = top;
    else if (bottom > frame.scrollTop + frame.clientHeight) frame.scrollTop = bottom - frame.clientHeight;
    this.draw();
  }

  get page() {
    return Math.max(1, Math.floor((this.frame.clientHeight - this.head) / this.height) - 1);
  }
}
