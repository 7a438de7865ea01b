/** The page of `python -m t2i_kd.serve`: pictures come from the endpoint that the page came from, by its REST API. */

import { start } from "./gallery.js";

const PATIENCE_MS = 60_000;

async function open() {
  const { model, resolution, noise_dim, max_captions_per_request } = await ask("page.json");
  return {
    name: model,
    about: `Pictures of ${resolution} × ${resolution} pixels, drawn by this endpoint.`,
    takesNoise: noise_dim > 0,
    async draw(captions, seeds) {
      const pngs = [];
      for (let at = 0; at < captions.length; at += max_captions_per_request) {
        const end = at + max_captions_per_request;
        pngs.push(...(await predict(model, captions.slice(at, end), seeds.slice(at, end))));
      }
      return pngs;
    },
  };
}

async function predict(model, captions, seeds) {
  // Not JSON.stringify for the seeds: it takes no BigInt, and a Number would round them beyond 2^53.
  const inputs = `{"text": ${JSON.stringify(captions)}, "seed": [${seeds.join(", ")}]}`;
  const body = `{"signature_name": "seeded", "inputs": ${inputs}}`;
  const { outputs } = await ask(`v1/models/${model}:predict`, { method: "POST", body });
  return outputs.map(({ b64 }) => b64);
}

/** The JSON of an answer. Throws an Error in words for people. */
async function ask(path, options = {}) {
  let answer, content;
  try {
    answer = await fetch(path, { ...options, signal: AbortSignal.timeout(PATIENCE_MS) });
    content = await answer.text();
  } catch (error) {
    if (error.name === "TimeoutError") throw new Error("The endpoint did not answer within a minute.");
    throw new Error("The endpoint cannot be reached. Does it still run?");
  }
  let found;
  try {
    found = JSON.parse(content);
  } catch {
    found = { error: content.slice(0, 200) };
  }
  if (!answer.ok || found.error) throw new Error(inWords(answer.status, found.error));
  return found;
}

function inWords(status, message) {
  // Which input and row is of no interest here; what is wrong with it is.
  const reason = String(message ?? "no reason given").replace(/^input '\w+', row \d+: /, "");
  if (status === 404) return `The model is gone: ${reason}`;
  if (status === 503) return `The endpoint is busy, try again in a moment: ${reason}`;
  if (status === 504) return `The endpoint took too long: ${reason}`;
  if (status < 500) return `Not drawn: ${reason}`;
  return `The endpoint failed (${status}): ${reason}`;
}

start(open);
