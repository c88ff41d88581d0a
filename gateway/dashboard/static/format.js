// Numbers, times and money as people read them. Knows no data and no elements.

const NBSP = "\u00a0";
const NANOS = 1e9;
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const cents = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

const NONE = "–";

/** @param {number} number */
export function count(number) {
  return whole.format(number);
}

/** "1 provider", "2 providers". @param {number} number @param {string} noun @param {string} [plural] */
export function some(number, noun, plural = `${noun}s`) {
  return `${count(number)}${NBSP}${number === 1 ? noun : plural}`;
}

/** "$0.0031"; two digits that say something where it is less than a dollar. @param {number | null | undefined} nanos */
export function money(nanos) {
  if (nanos === null || nanos === undefined) return "unknown";
  const dollars = Math.abs(nanos) / NANOS;
  const sign = nanos < 0 ? "−" : "";
  if (dollars === 0) return "$0";
  if (dollars >= 0.995) return `${sign}$${cents.format(dollars)}`;
  const digits = Math.min(9, Math.max(2, 1 - Math.floor(Math.log10(dollars))));
  return `${sign}$${dollars.toFixed(digits)}`;
}

/** "350 ms", "1.2 s", "3 min 20 s", "2 h 5 min". @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const value = Math.max(0, seconds);
  if (value === 0) return `0${NBSP}s`;
  if (value < 0.001) return `<1${NBSP}ms`;
  if (value < 0.9995) return `${Math.round(value * 1000)}${NBSP}ms`;
  if (value < 9.95) return `${value.toFixed(1)}${NBSP}s`;
  if (value < 59.5) return `${Math.round(value)}${NBSP}s`;
  const all = Math.round(value);
  const [minutes, hours, days] = [Math.floor(all / 60), Math.floor(all / 3600), Math.floor(all / 86_400)];
  if (minutes < 10) return pair(minutes, "min", all % 60, "s");
  if (hours < 1) return `${minutes}${NBSP}min`;
  if (hours < 48) return pair(hours, "h", minutes % 60, "min");
  return `${days}${NBSP}d`;
}

function pair(large, unit, small, part) {
  return small === 0 ? `${large}${NBSP}${unit}` : `${large}${NBSP}${unit}${NBSP}${small}${NBSP}${part}`;
}

/** Two durations in one unit, the larger one's: "1.2 / 2.5 min". @param {number | null} small @param {number | null} large */
export function durations(small, large) {
  if (small === null || large === null) return `${duration(small)} / ${duration(large)}`;
  const [unit, scale] = large < 0.9995 ? ["ms", 0.001] : large < 99.5 ? ["s", 1] : large < 5_940 ? ["min", 60] : ["h", 3600];
  const digits = (value) => (unit === "ms" || value >= 9.95 ? value.toFixed(0) : value.toFixed(1));
  return `${digits(small / scale)} / ${digits(large / scale)}${NBSP}${unit}`;
}

/** One unit only: "12 s", "3 min", "2 h". @param {number} seconds */
export function roughly(seconds) {
  const value = Math.max(0, seconds);
  if (value < 60) return `${Math.floor(value)}${NBSP}s`;
  if (value < 3600) return `${Math.floor(value / 60)}${NBSP}min`;
  if (value < 48 * 3600) return `${Math.floor(value / 3600)}${NBSP}h`;
  return `${Math.floor(value / 86_400)}${NBSP}d`;
}

/** "now", "12 s ago", "in 24 s". @param {number} at @param {number} now both in milliseconds */
export function relative(at, now) {
  const seconds = (now - at) / 1000;
  if (seconds < -1) return `in${NBSP}${roughly(Math.ceil(-seconds))}`;
  return seconds < 2 ? "now" : `${roughly(seconds)}${NBSP}ago`;
}

/** "98.6 %"; never rounded up to 100. @param {number | null | undefined} share of 1 */
export function percent(share) {
  if (share === null || share === undefined) return NONE;
  const value = share * 100;
  if (value === 0 || value >= 100) return `${Math.min(100, value)}${NBSP}%`;
  if (value < 0.1) return `<0.1${NBSP}%`;
  return `${(Math.floor(value * 10 + 1e-9) / 10).toFixed(1).replace(/\.0$/, "")}${NBSP}%`;
}

/** @param {number | null | undefined} bytes */
export function bytes(bytes) {
  if (bytes === null || bytes === undefined) return "";
  const units = ["B", "kB", "MB", "GB"];
  const step = bytes < 1000 ? 0 : Math.min(3, Math.floor(Math.log10(bytes) / 3));
  const value = bytes / 1000 ** step;
  return `${step > 0 && value < 10 ? value.toFixed(1) : Math.round(value)}${NBSP}${units[step]}`;
}

/** "14:03:09", with the day if it is not today. @param {string} at @param {number} now */
export function moment(at, now) {
  const date = new Date(at);
  const time = clock.format(date);
  return date.toDateString() === new Date(now).toDateString() ? time : `${day.format(date)}, ${time}`;
}

/** "a, b and 3 more". @param {string[]} names @param {number} most */
export function listed(names, most) {
  if (names.length <= most) return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
  return `${names.slice(0, most).join(", ")} and ${names.length - most} more`;
}
