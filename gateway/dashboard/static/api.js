// The requests of this page: one key, one place for what went wrong, in words. Shows nothing.

const KEPT = "turnout.key";
const SECONDS = 20;

/** What went wrong, told so that one knows what to do. `status` is 0 where no answer came. */
export class Refusal extends Error {
  /** @param {number} status @param {string} title @param {string} advice */
  constructor(status, title, advice) {
    super(title);
    this.status = status;
    this.advice = advice;
  }

  /** The key is missing, wrong or too weak: asking again is of no use without another. */
  get isAboutKey() {
    return this.status === 401 || this.status === 403;
  }
}

let spare = "";

/** The key lives as long as the tab. */
export const key = {
  get() {
    try {
      return sessionStorage.getItem(KEPT) ?? spare;
    } catch {
      return spare; // storage is forbidden: it lives as long as the page
    }
  },
  /** @param {string} text */
  set(text) {
    spare = text;
    try {
      sessionStorage.setItem(KEPT, text);
    } catch {
      // Kept in `spare`.
    }
  },
  forget() {
    spare = "";
    try {
      sessionStorage.removeItem(KEPT);
    } catch {
      // There was nothing.
    }
  },
};

/**
 * The answer as it comes; raises Refusal for every status but 2xx, and where none comes.
 * @param {string} path @param {RequestInit} [options]
 */
export async function open(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
      ...options,
      headers: { ...options.headers, authorization: `Bearer ${key.get()}` },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The gateway does not answer", "It may be restarting, or the network is down. This page keeps trying.");
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

/** JSON of a GET. @param {string} path @param {AbortSignal} [signal] */
export async function get(path, signal) {
  return (await open(path, { signal: within(signal) })).json();
}

/** @param {string} path @param {object} body */
export async function post(path, body) {
  const answer = await open(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
    signal: within(),
  });
  const text = await answer.text();
  return text === "" ? null : JSON.parse(text);
}

function within(signal) {
  const timeout = AbortSignal.timeout(SECONDS * 1000);
  return signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
}

async function refusal(answer) {
  const said = await problem(answer);
  const [title, advice] = words(answer.status);
  return new Refusal(answer.status, title, said === "" ? advice : `${said.replace(/\.?$/, ".")} ${advice}`.trim());
}

async function problem(answer) {
  try {
    const body = await answer.json();
    return typeof body.detail === "string" ? body.detail : "";
  } catch {
    return "";
  }
}

function words(status) {
  if (status === 401) {
    return [
      "This key is not known here",
      "Check that it was copied whole. A key that the gateway printed at its start ends with the next start.",
    ];
  }
  if (status === 403) {
    return ["This key may not look at operations", 'It needs the scope "admin": add it to the key in the configuration, then restart.'];
  }
  if (status === 404) return ["There is no such thing here", "It may have been removed, or the address was mistyped."];
  if (status === 409) return ["Nothing was done", ""];
  if (status === 429) return ["Too many requests", "Wait a little, then try again."];
  if (status >= 500) return ["The gateway could not answer", "Its log says why; look there for the moment of this request."];
  return ["The gateway refused this", ""];
}
