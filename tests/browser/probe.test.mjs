// `probe()` in both browsers: what it says is what a load does, and it costs a header.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { browserNames, launch } from "./browsers.mjs";
import { startFileServer } from "./file_server.mjs";
import { tinyGguf } from "./tiny_gguf.mjs";

const MINUTE = 60_000;
const MIB = 1 << 20;
const FILE = tinyGguf();
const PATH = "/tiny.gguf";

/** Runs in the page: a probe, or its error. */
const probe = async (options) => {
  const { probe } = await import("/pkg/index.js");
  return probe(options).catch(({ name, code, message }) => ({ error: { name, code, message } }));
};
/** Runs in the page: what a load says of the same. */
const load = async (options) => {
  const { Engine } = await import("/pkg/index.js");
  const engine = await Engine.load(options);
  engine.unload();
  return { device: engine.device, reason: engine.deviceReason };
};

for (const name of browserNames) {
  describe(name, { concurrency: false }, () => {
    let browser;
    let server;
    let page;

    before(async () => {
      server = await startFileServer({ file: FILE, paths: [PATH] });
      browser = await launch(name);
      page = await browser.newPage();
      await page.goto(`${server.origin}/blank`);
    }, { timeout: 2 * MINUTE });
    after(async () => {
      await browser?.close();
      await server?.close();
    });

    test("of a model the header is read and nothing is kept", { timeout: MINUTE }, async (t) => {
      server.reset();
      const result = await page.evaluate(probe, { model: PATH, context: 64 });
      assert.equal(result.error, undefined, JSON.stringify(result.error));
      assert.equal(server.state.requests.length, 1);
      assert.ok(server.state.sent <= 4 * MIB, `${server.state.sent} bytes were sent`);
      const { model, speed, downloads, adapters, limits, problem } = result;
      assert.deepEqual([model.name, model.architecture, model.layers, model.size_bytes], ["tiny 1", "llama", 6, FILE.length]);
      const { weights_bytes, kv_bytes, activations_bytes, total_bytes, context_tokens } = model.memory;
      assert.equal(weights_bytes + kv_bytes + activations_bytes, total_bytes);
      assert.equal(context_tokens, 64);
      assert.ok(Math.abs(weights_bytes / FILE.length - 1) < 0.1, "weights of floats are as large on the device as in the file");
      assert.equal(problem, null);
      assert.ok(limits.max_buffer_bytes > 0);
      assert.ok(speed.tokens_per_second > 0 && ["fast", "readable", "slow", "very_slow"].includes(speed.class));
      assert.deepEqual(downloads, [{ url: `${server.origin}${PATH}`, size_bytes: FILE.length, stored_bytes: 0, fits_storage: true }]);
      assert.ok(adapters.length > 0 && adapters.every(({ software }) => software), "these browsers have a software adapter");
      t.diagnostic(JSON.stringify({ device: result.device.name, speed }));

      // The same as what a load finds.
      const loaded = await page.evaluate(load, { model: PATH, context: 64 });
      assert.deepEqual({ device: result.device, reason: result.reason }, loaded);
      assert.equal(result.device.kind, "cpu");
      assert.match(result.reason, /software/);

      // Now the file is here, and nobody has to be asked.
      server.state.down = true;
      const again = await page.evaluate(probe, { model: PATH });
      assert.equal(again.downloads?.[0].stored_bytes, FILE.length, JSON.stringify(again.error));
      server.state.down = false;
      const other = await page.evaluate(probe, { model: { url: `${server.origin}${PATH}`, sha256: "0".repeat(64) } });
      assert.equal(other.downloads?.[0].stored_bytes, 0, "another version of it is not what was asked for");
      const list = await page.evaluate(() => import("/pkg/index.js").then(({ storage }) => storage.list()));
      assert.equal(list.length, 1);
    });

    test("a software adapter is taken where that is asked for, and tested", { timeout: 2 * MINUTE }, async (t) => {
      server.reset();
      const result = await page.evaluate(probe, { model: PATH, device: "gpu" });
      assert.equal(result.error, undefined, JSON.stringify(result.error));
      assert.deepEqual([result.device.kind, result.device.software, result.reason], ["gpu", true, "asked for"]);
      assert.equal(result.self_test.same_bits.length + result.self_test.widest_only.length, 2, "the layout of the model and attention are tested");
      assert.ok(result.kernels.length > 0);
      t.diagnostic(JSON.stringify({ device: result.device.name, speed: result.speed, self_test: result.self_test }));
    });

    test("without a model it tells of the device alone", { timeout: MINUTE }, async () => {
      const result = await page.evaluate(probe, { device: "cpu" });
      assert.equal(result.error, undefined, JSON.stringify(result.error));
      assert.deepEqual([result.model, result.draft_model, result.speed.class, result.downloads], [null, null, null, []]);
      assert.ok(result.speed.weight_bytes_per_second > 0);
    });

    test("what a load would refuse is refused with the same error", { timeout: MINUTE }, async () => {
      server.reset();
      const code = async (options) => (await page.evaluate(probe, options)).error?.code;
      assert.equal(await code({ model: "/none.gguf" }), "download_failed");
      assert.equal(await code({ model: "/blank" }), "not_gguf");
      assert.equal(await code({ model: PATH, context: 1000 }), "bad_option");
      assert.equal(await code({ model: 7 }), "bad_option");
    });

    test("a browser without WebGPU has no adapter, and auto takes the CPU", { timeout: MINUTE }, async (t) => {
      const bare = await launch(name, { gpu: false });
      t.after(() => bare.close());
      const page = await bare.newPage();
      await page.goto(`${server.origin}/blank`);
      const result = await page.evaluate(probe, {});
      assert.equal(result.device?.kind, "cpu", JSON.stringify(result.error));
      assert.match(result.reason, /adapter/);
      assert.equal((await page.evaluate(probe, { device: "gpu" })).error?.code, "no_adapter");
    });
  });
}
