// Scenarios of npm's client around everything that is no prediction: lists, models, files, errors, webhooks.

import { readFile } from "node:fs/promises";
import { Replicate, baseUrl, errorOf, main, replicate } from "./npm_client.mjs";

async function fetched(url) {
  return Buffer.from(await (await fetch(url)).arrayBuffer()).toString("base64"); // without a token
}

await main({
  async pages() {
    const pages = [];
    for await (const page of replicate.paginate(replicate.predictions.list)) pages.push(page.map(({ id }) => id));
    return pages;
  },

  async models({ owner, name }) {
    const model = await replicate.models.get(owner, name);
    const versions = await replicate.models.versions.list(owner, name);
    const version = await replicate.models.versions.get(owner, name, model.latest_version.id);
    const { results: listed } = await replicate.models.list();
    const { results: found } = await replicate.models.search("writes little");
    return {
      model,
      versions: versions.results.map(({ id }) => id),
      required: version.openapi_schema.components.schemas.Input.required,
      listed: listed.map((one) => `${one.owner}/${one.name}`),
      found: found.map((one) => one.name),
    };
  },

  async others() {
    return {
      hardware: (await replicate.hardware.list()).map(({ sku }) => sku),
      collections: (await replicate.collections.list()).results,
      deployments: (await replicate.deployments.list()).results,
      trainings: (await replicate.trainings.list()).results,
    };
  },

  // A Buffer goes up and its address into the input; the output stays a string without TLS.
  async buffer({ path }) {
    const output = await replicate.run("turnout/upscaler", { input: { image: await readFile(path), scale: 2 } });
    return { kind: typeof output, bytes: await fetched(output) };
  },

  // A Blob, and a stream whose address begins with /v1/files/: its outputs are files even without TLS.
  async blob({ path }) {
    const image = new Blob([await readFile(path)], { type: "image/png" });
    const seen = [];
    for await (const { event, data } of replicate.stream("turnout/upscaler", { input: { image, scale: 4 } })) {
      if (event !== "output") seen.push({ event });
      else {
        const blob = await data.blob();
        const bytes = Buffer.from(await blob.arrayBuffer()).toString("base64");
        seen.push({ event, kind: data.constructor.name, type: blob.type, url: data.url().toString(), bytes });
      }
    }
    return seen;
  },

  async files({ path }) {
    const image = new File([await readFile(path)], "shelf.png", { type: "image/png" });
    const created = await replicate.files.create(image, { shelf: "a" });
    const got = await replicate.files.get(created.id);
    const { results } = await replicate.files.list();
    const output = await replicate.run("turnout/upscaler", { input: { image: created.urls.get } });
    const isDeleted = await replicate.files.delete(created.id);
    const after = await errorOf(() => replicate.files.get(created.id));
    const listed = results.some(({ id }) => id === created.id);
    return { created, got, listed, isDeleted, after, bytes: await fetched(output) };
  },

  async errors() {
    const stranger = new Replicate({ baseUrl, auth: "to_wrong" });
    return {
      token: await errorOf(() => stranger.accounts.current()),
      model: await errorOf(() => replicate.models.get("acme", "nothing")),
      prediction: await errorOf(() => replicate.predictions.get("x".repeat(26))),
      version: await errorOf(() => replicate.predictions.create({ version: "0".repeat(64), input: {} })),
      input: await errorOf(() => replicate.run("acme/job", { input: { do: "dance" } })),
      failed: await errorOf(() => replicate.run("acme/job", { input: { do: "fail", text: "at all" } })),
      deployment: await errorOf(() => replicate.deployments.get("acme", "none")),
    };
  },

  // By the client's own check, with the secret that it fetches.
  async validate({ headers, body }) {
    const { key } = await replicate.webhooks.default.secret.get();
    return {
      sound: await Replicate.validateWebhook({ headers, body }, key),
      changed: await Replicate.validateWebhook({ headers, body: `${body} ` }, key),
    };
  },
});
