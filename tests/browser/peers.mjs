// Beside a peer, in one browser, in turn: tokens a second of foredraft and of @wllama/wllama (one thread, no GPU layers) on the
// same GGUF and the same prompts, greedy. Plain decoding of both on a short prompt, the reading of a long one, and foredraft's
// default speculation beside the peer's plain decoding on a category of tests/prompts/dev.json. A tool, not a test: it needs
// the peer and a quiet machine.
//
//   npm install --prefix FOLDER @wllama/wllama@3.8.1
//   FOREDRAFT_TEST_MODELS=… node tests/browser/peers.mjs --wllama FOLDER/node_modules/@wllama/wllama
//     [--browser chromium|firefox] [--devices cpu,gpu] [--repeats 3] [--tokens 32] [--category code-edit] [--per-category 2]
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { mounts, serve } from "../../web/scripts/serve.mjs";
import { MODEL, launch, modelsFolder } from "./browsers.mjs";

const { values } = parseArgs({
  options: {
    wllama: { type: "string" },
    browser: { type: "string", default: "chromium" },
    devices: { type: "string", default: "cpu,gpu" },
    repeats: { type: "string", default: "3" },
    tokens: { type: "string", default: "32" },
    category: { type: "string", default: "code-edit" },
    "per-category": { type: "string", default: "2" },
  },
});
if (!values.wllama) throw new Error("--wllama is missing: the folder of the installed package @wllama/wllama");

const SHORT = "Write a short story about a lighthouse keeper who finds a message in a bottle.";
const LONG = `Repeat this text: ${"The quick brown fox jumps over the lazy dog and runs far away. ".repeat(26)}`;

/** In the page: loads each, then asks each in turn, and gives tokens a second of prompt, answer and answers of the suite. */
async function race({ model, devices, repeats, tokens, short, long, suite }) {
  const runners = {};
  const { Wllama } = await import("/wllama/esm/index.js");
  const wllama = new Wllama({ default: "/wllama/esm/wasm/wllama.wasm" }, { suppressNativeLog: true });
  await wllama.loadModelFromUrl(model, { n_ctx: 2048, n_threads: 1, n_gpu_layers: 0, useCache: false });
  const ask = (prompt) => ({ messages: [{ role: "user", content: prompt }], max_tokens: tokens });
  const rate = (count, ms) => (count / ms) * 1000;
  runners["wllama"] = async (request) => {
    const { timings } = await wllama.createChatCompletion({ ...request, temperature: 0, cache_prompt: false });
    const { predicted_n: written, predicted_ms: decode_ms } = timings;
    const { prompt_per_second: prefill, predicted_per_second: decode, prompt_n: prompt } = timings;
    return { prefill, decode, prompt, written, decode_ms };
  };
  const { Engine } = await import("/pkg/index.js");
  const engines = [];
  for (const device of devices) {
    const engine = await Engine.load({ model, device, context: 2048 });
    engines.push(engine);
    runners[`foredraft ${device}`] = async (request, speculation) => {
      // Nothing learned from the answer before, and a prompt of its own, which leaves nothing of the next one in the cache.
      await engine.forget();
      await engine.completions.create({ prompt: "x", max_tokens: 1, speculation: "off" });
      const { usage, timings } = await engine.chat.completions.create({ ...request, temperature: 0, speculation });
      const read = usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens;
      const { prefill_ms, decode_ms, tokens_per_second: decode } = timings;
      return { prefill: rate(read, prefill_ms), decode, prompt: usage.prompt_tokens, written: usage.completion_tokens, decode_ms };
    };
  }
  const found = {};
  for (let turn = 0; turn <= repeats; turn++) {
    for (const [name, run] of Object.entries(runners)) {
      const [answer, read] = [await run(ask(short), "off"), name.endsWith("gpu") ? undefined : await run(ask(long), "off")];
      if (turn === 0) continue; // the first warms up
      const row = (found[name] ??= { decode: [], prefill: [], suite: [], prompt: read?.prompt });
      row.decode.push(answer.decode);
      if (read) row.prefill.push(read.prefill);
      const answers = [];
      for (const { messages, max_tokens } of suite) answers.push(await run({ messages, max_tokens }, "auto"));
      const total = (key) => answers.reduce((sum, answer) => sum + answer[key], 0);
      row.suite.push(rate(total("written"), total("decode_ms")));
    }
  }
  await wllama.exit();
  for (const engine of engines) engine.unload();
  return { found, devices: engines.map((engine) => engine.device) };
}

const median = (all) => [...all].sort((a, b) => a - b)[Math.floor(all.length / 2)];
// A page without the demo's strict policy: the peer starts its worker from a blob.
const special = (request, response, pathname) => {
  if (pathname !== "/blank") return false;
  response.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>blank</title>");
  return true;
};
const server = await serve({ folders: { ...mounts(modelsFolder()), "/wllama/": values.wllama }, special });
const browser = await launch(values.browser);
try {
  const page = await browser.newPage();
  page.on("console", (message) => message.type() === "error" && console.error(message.text()));
  await page.goto(`${server.origin}/blank`);
  const settings = { devices: values.devices.split(","), repeats: Number(values.repeats), tokens: Number(values.tokens) };
  const prompts = JSON.parse(readFileSync(new URL("../prompts/dev.json", import.meta.url), "utf8")).prompts;
  const suite = prompts.filter(({ category }) => category === values.category).slice(0, Number(values["per-category"]));
  const asked = { ...settings, model: `/models/${MODEL}`, short: SHORT, long: LONG, suite };
  const { found, devices } = await page.evaluate(race, asked);
  console.log(`${await browser.version()}; ${devices.map(({ kind, name }) => `${kind}: ${name}`).join("; ")}`);
  const { wllama } = found;
  const peer = { decode: median(wllama.decode), prefill: median(wllama.prefill), suite: median(wllama.suite) };
  for (const [name, { decode, prefill, suite, prompt }] of Object.entries(found)) {
    const ratio = (all, by) => `${median(all).toFixed(1)} (${Math.min(...all).toFixed(1)} to ${Math.max(...all).toFixed(1)}), ${(median(all) / by).toFixed(2)} of wllama`;
    console.log(`${name}: decode ${ratio(decode, peer.decode)}`);
    if (prefill.length > 0) console.log(`${name}: prefill of ${prompt} tokens ${ratio(prefill, peer.prefill)}`);
    const how = name === "wllama" ? "plain" : "with speculation";
    console.log(`${name}: ${values.category}, ${how}, ${ratio(suite, peer.suite)}`);
  }
} finally {
  await browser.close();
  await server.close();
}
