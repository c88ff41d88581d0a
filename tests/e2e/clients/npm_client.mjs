// npm's client, set up as a user would, and the way from a command line to a scenario and to JSON.

import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
export const Replicate = require(process.env.REPLICATE_PACKAGE);
export const version = require(process.env.REPLICATE_PACKAGE.replace("index.js", "package.json")).version;
export const baseUrl = process.env.TURNOUT_URL;
export const replicate = new Replicate({ baseUrl }); // its token is in the environment

// What a call throws: the class by which a user would catch it, and what it says.
export async function errorOf(call) {
  try {
    return { name: "none", value: await call() };
  } catch (error) {
    return { name: error.constructor.name, status: error.response?.status ?? null, message: error.message };
  }
}

// `node FILE.mjs SCENARIO '{"argument": …}'`
export async function main(scenarios) {
  const [name, given] = process.argv.slice(2);
  const result = await scenarios[name](JSON.parse(given));
  process.stdout.write(JSON.stringify(result ?? null));
}
