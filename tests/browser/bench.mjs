// The bench in a browser: what verifying k columns costs there after 128 and 600 tokens, and the speed-up by category with plain
// decoding against itself beside it. The figures of the README come from it. A tool, not a test: it needs a quiet machine.
//
//   FOREDRAFT_TEST_MODELS=… node tests/browser/bench.mjs [--browser chromium|firefox] [--device gpu|cpu] [--categories copy,rag]
//     [--per-category 1] [--max-tokens 32] [--repeats 1] [--speculation auto] [--json FILE]
import { readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { MODEL, launch, modelsFolder, startServer } from "./browsers.mjs";

const { values } = parseArgs({
  options: {
    browser: { type: "string", default: "chromium" },
    device: { type: "string", default: "gpu" },
    categories: { type: "string" },
    "per-category": { type: "string", default: "1" },
    "max-tokens": { type: "string", default: "32" },
    repeats: { type: "string", default: "1" },
    speculation: { type: "string", default: "auto" },
    json: { type: "string" },
  },
});

/** In the page: begins a bench; what it finds, and how far it is, is there to be looked at. No single call waits for all of it. */
function begin({ model, device, suite, options }) {
  const state = (globalThis.state = { progress: "loading" });
  const run = async () => {
    const { Engine } = await import("/pkg/index.js");
    const engine = await Engine.load({ model, device, storage: "off" });
    const onProgress = ({ id, config, done, total }) => (state.progress = `${id}, ${config}: ${done} of ${total}`);
    state.progress = "timing passes";
    state.report = await engine.bench(suite, { ...options, onProgress });
    engine.unload();
  };
  run().catch((error) => (state.error = String(error)));
}

const all = JSON.parse(readFileSync(new URL("../prompts/dev.json", import.meta.url), "utf8"));
const wanted = values.categories?.split(",");
const suite = { ...all, prompts: all.prompts.filter(({ category }) => wanted?.includes(category) ?? true) };
const number = (name) => Number(values[name]);
const options = {
  speculation: [values.speculation],
  per_category: number("per-category"),
  max_tokens: number("max-tokens"),
  repeats: number("repeats"),
};
const server = await startServer(modelsFolder());
const browser = await launch(values.browser);
try {
  const page = await browser.newPage();
  await page.goto(`${server.origin}/blank`);
  await page.evaluate(begin, { model: `/models/${MODEL}`, device: values.device, suite, options });
  let state = {};
  while (!state.report) {
    await sleep(1000);
    const { progress } = state;
    state = await page.evaluate(() => globalThis.state);
    if (state.error) throw new Error(state.error);
    if (state.progress !== progress) console.error(state.progress);
  }
  const { report } = state;
  if (values.json) writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
  const fixed = (value, digits = 2) => value?.toFixed(digits) ?? "-";
  const range = (row) => `${fixed(row.speedup)} (${row.speedup_range?.map((value) => fixed(value)).join(" to ") ?? "-"})`;
  console.log(`${await browser.version()}; ${report.device.kind}: ${report.device.name}; ${report.model}`);
  for (const [context, costs] of Object.entries(report.verify_cost_at)) {
    console.log(`after ${context} tokens: ${Object.entries(costs).map(([k, c]) => `c(${k}) = ${fixed(c)}`).join(", ")}`);
  }
  const line = (...cells) => console.log(cells.map((cell, at) => String(cell).padEnd(at === 0 ? 14 : 20)).join(" ").trimEnd());
  line("category", "speed-up (range)", "of oracle", "control (range)", "tokens/s, off and on", "tokens a pass");
  const of = (category, config) => report.categories.find((row) => row.category === category && row.config === config);
  for (const row of report.categories.filter(({ config }) => config !== "off")) {
    const oracle = `${fixed(row.share_of_oracle)} of ${fixed(row.oracle_speedup)}`;
    const rates = `${fixed(row.plain_tokens_per_second, 1)}, ${fixed(row.tokens_per_second, 1)}`;
    line(row.category, range(row), oracle, range(of(row.category, "off")), rates, fixed(row.mean_acceptance_length));
  }
  line("geometric mean", fixed(report.geomean_speedup), "", fixed(report.controls[0].geomean_speedup));
} finally {
  await browser.close();
  await server.close();
}
