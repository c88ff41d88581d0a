// The gateway's time: ages are told by its clock, not by this machine's. Formats nothing.

let ahead = 0;

/** Milliseconds, by the gateway's clock as far as we heard it. */
export function now() {
  return Date.now() + ahead;
}

/** @param {string} at what the gateway's clock said just now */
export function heard(at) {
  ahead = Date.parse(at) - Date.now();
}
