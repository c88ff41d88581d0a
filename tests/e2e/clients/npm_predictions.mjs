// Scenarios of npm's client around predictions: run, create, wait, stream, cancel.

import { Replicate, baseUrl, main, replicate, version } from "./npm_client.mjs";

async function collect(events) {
  const collected = [];
  for await (const { event, data, id } of events) collected.push({ event, data, id });
  return collected;
}

await main({
  async whoami() {
    return { version, username: (await replicate.accounts.current()).username };
  },

  async run({ ref, input, wait }) {
    const seen = [];
    const output = await replicate.run(ref, wait ? { input, wait } : { input }, ({ status }) => seen.push(status));
    return { output, seen };
  },

  async createAndWait({ options }) {
    const created = await replicate.predictions.create(options);
    const ended = await replicate.wait(created, { interval: 50 });
    const again = await replicate.predictions.get(created.id);
    return { created, ended, again };
  },

  async create({ options, url }) {
    const client = url ? new Replicate({ baseUrl: url }) : replicate;
    return await client.predictions.create(options);
  },

  async stream({ ref, input }) {
    return await collect(replicate.stream(ref, { input }));
  },

  async cancel({ id }) {
    const answered = await replicate.predictions.cancel(id);
    return (await replicate.wait(answered, { interval: 50 })).status;
  },

  // A signal that is given while it polls cancels the prediction, and its output is the result.
  async abort({ ref, input }) {
    const controller = new AbortController();
    let id = null;
    const progress = (prediction) => {
      id = prediction.id;
      if (prediction.status === "processing") controller.abort();
    };
    const options = { input, wait: { mode: "poll", interval: 50 }, signal: controller.signal };
    let error = null;
    const output = await replicate.run(ref, options, progress).catch((caught) => {
      error = caught.name;
    });
    return { id, output: output ?? null, error };
  },

  // This strategy posts the whole client, token and all, in place of the input.
  async leak({ model, input }) {
    const leaking = new Replicate({ baseUrl, fileEncodingStrategy: "data-uri" });
    return await leaking.predictions.create({ model, input });
  },
});
