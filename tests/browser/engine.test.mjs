// The built package, driven in both browsers as a developer's page would: real weights, GPU (in software here) and CPU.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { DRAFT, GEMMA, MODEL, browserNames, launch, modelsFolder, startServer } from "./browsers.mjs";

const MINUTE = 60_000;
/** Copies from its own prompt, so that prompt lookup has something to find, and rambles, so that it also fails. */
const PROMPT = "Say: one two three one two three one two three";
const NGRAM = "drafter=ngram,length=fixed,num_speculative_tokens=4";

/**
 * Runs in the page: loads a model and asks it for each of `requests`, some of which are aborted after so many milliseconds or
 * chunks; gives answers, chunks and facts, or the error.
 */
async function ask({ load, source, requests }) {
  const { Engine } = await import("/pkg/index.js");
  const sources = {
    url: (path) => path,
    file: async (path) => new File([await (await fetch(path)).blob()], path.split("/").pop()),
    stream: async (path) => (await fetch(path)).body,
  };
  const began = performance.now();
  const progress = [];
  let engine;
  try {
    const model = await sources[source ?? "url"](load.model);
    engine = await Engine.load({ storage: "off", ...load, model, onProgress: (event) => progress.push(event) });
    const load_ms = performance.now() - began;
    const answers = [];
    for (const { abort_ms, abort_chunks, ...request } of requests) {
      const abort = new AbortController();
      if (abort_ms !== undefined) setTimeout(() => abort.abort(), abort_ms);
      const options = { stream: true, stream_options: { include_usage: true }, signal: abort.signal };
      const chunks = [];
      for await (const chunk of await engine.chat.completions.create({ ...request, ...options })) {
        if (chunks.push(chunk) === abort_chunks) abort.abort();
      }
      answers.push(chunks);
    }
    return { model: engine.model, device: engine.device, reason: engine.deviceReason, load_ms, progress, answers };
  } catch (error) {
    return { error: { name: error.name, code: error.code, message: error.message, details: error.details }, ms: performance.now() - began };
  } finally {
    engine?.unload();
  }
}

/** Text, tokens and last figures of a list of chunks; checks their shape on the way. */
function read(chunks) {
  for (const chunk of chunks) {
    assert.equal(chunk.object, "chat.completion.chunk");
    assert.equal(chunk.id, chunks[0].id);
  }
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  const usage = chunks.at(-1).usage;
  assert.deepEqual(chunks.at(-1).choices, []);
  const last = chunks.at(-2);
  assert.ok(last.choices[0].finish_reason, "the chunk before the usage says why the answer ended");
  const pieces = chunks.flatMap((chunk) => chunk.foredraft.tokens);
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  const { timings, speculation, device } = last.foredraft;
  return { text, pieces, tokens: pieces.map(({ id }) => id), usage, finish: last.choices[0].finish_reason, timings, speculation, device };
}

function unwrap(result) {
  assert.equal(result.error, undefined, `loading failed: ${JSON.stringify(result.error)}`);
  return result;
}

const greedy = (speculation, max_tokens = 12) => ({
  messages: [{ role: "user", content: PROMPT }],
  max_tokens,
  speculation,
});

for (const name of browserNames) {
  describe(name, { concurrency: false }, () => {
    let browser;
    let server;
    const texts = {};

    before(async () => {
      server = await startServer(modelsFolder());
      browser = await launch(name);
    }, { timeout: 2 * MINUTE });
    after(async () => {
      await browser?.close();
      await server?.close();
    });

    /** A fresh page at an empty document of the server. */
    async function inPage(work, ...args) {
      const page = await browser.newPage();
      try {
        await page.goto(`${server.origin}/blank`);
        return await page.evaluate(work, ...args);
      } finally {
        await page.close();
      }
    }

    for (const device of ["gpu", "cpu"]) {
      test(`${device}: the same tokens with and without speculation`, { timeout: 8 * MINUTE }, async (t) => {
        server.requests.length = 0;
        const load = { model: `/models/${MODEL}`, device, context: 256 };
        const long = { ...greedy("off"), messages: [{ role: "user", content: "seven eight nine ".repeat(65) }] };
        const aborts = [{ ...long, abort_ms: 300 }, { ...greedy(NGRAM, 60), abort_chunks: 2 }];
        const requests = [greedy("off"), greedy(NGRAM), ...aborts, greedy(NGRAM)];
        const result = unwrap(await inPage(ask, { load, requests }));
        const [plain, drafted, unread, unwritten, after] = result.answers.map(read);
        assert.equal(result.device.kind, device);

        assert.match(plain.text.toLowerCase(), /one two three one two three/);
        assert.ok(plain.tokens.length >= 8, `only ${plain.tokens.length} tokens`);
        assert.deepEqual(drafted.tokens, plain.tokens, "speculation changed the tokens");
        assert.equal(drafted.text, plain.text);
        texts[device] = plain.text;

        assert.equal(plain.speculation.active, false);
        assert.ok(plain.pieces.every((piece) => piece.source === "target" && !piece.accepted));
        const { accepted, drafted: proposed } = drafted.speculation;
        assert.ok(accepted > 0 && accepted < proposed, `accepted ${accepted} of ${proposed}, expected some and not all`);
        const marked = drafted.pieces.filter((piece) => piece.accepted);
        assert.ok(marked.length > 0 && marked.every((piece) => piece.source === "ngram"));
        const details = drafted.usage.completion_tokens_details;
        assert.equal(details.accepted_prediction_tokens, marked.length);
        assert.equal(details.rejected_prediction_tokens, proposed - accepted);
        assert.equal(drafted.usage.completion_tokens, drafted.tokens.length);
        assert.ok(drafted.usage.prompt_tokens_details.cached_tokens > 0, "the second request finds the prompt in the KV cache");

        // Aborted while it read a prompt, and while it wrote, it goes on as if nothing had been.
        assert.deepEqual([unread.finish, unread.usage.completion_tokens], ["abort", 0]);
        assert.ok(unread.usage.prompt_tokens > 190, `${unread.usage.prompt_tokens} tokens are no long prompt`);
        assert.equal(unwritten.finish, "abort");
        assert.ok(unwritten.tokens.length > 0 && unwritten.tokens.length < 60, `${unwritten.tokens.length} tokens came`);
        assert.deepEqual(after.tokens, plain.tokens, "an aborted request left something behind");
        if (device === "gpu") {
          // Where plain steps are submitted ahead, one was in flight when the answer ended.
          for (const [{ speculation }, most] of [[plain, 1], [drafted, 0]]) {
            const surplus = speculation.submits - speculation.rounds;
            assert.ok(surplus >= 0 && surplus <= most, `one submit a round: ${speculation.submits} of ${speculation.rounds}`);
            assert.equal(speculation.maps, speculation.submits, "one map a round");
          }
        }

        const ranges = server.requests.filter((line) => line.startsWith(`GET /models/${MODEL} bytes=`));
        assert.ok(ranges.length > 10, `the model was read in ${ranges.length} ranges`);
        assert.ok(result.progress.some(({ progress }) => progress > 0.3 && progress < 0.95), "progress is reported on the way");
        t.diagnostic(`${result.device.name}: loaded in ${(result.load_ms / 1000).toFixed(1)} s; text: ${JSON.stringify(plain.text)}`);
        for (const [mode, { timings, speculation }] of [["off", plain], ["ngram", drafted]]) {
          const acceptance = mode === "off" ? "" : `, accepted ${speculation.accepted} of ${speculation.drafted}`;
          t.diagnostic(`${mode}: ${timings.tokens_per_second.toFixed(2)} tokens/s, prefill ${(timings.prefill_ms / 1000).toFixed(1)} s${acceptance}`);
        }
      });
    }

    test("the wasm heap stays small while weights stream to the GPU", { timeout: 3 * MINUTE }, async (t) => {
      const { sizes, allocated_bytes } = await inPage(async (model) => {
        // The engine in this very thread, so that its memory can be seen. It never shrinks: its size is its peak.
        let memory;
        const sizes = {};
        for (const name of ["instantiate", "instantiateStreaming"]) {
          const original = WebAssembly[name].bind(WebAssembly);
          WebAssembly[name] = async (...args) => {
            const result = await original(...args);
            memory = (result.instance ?? result).exports.memory;
            sizes.idle = memory.buffer.byteLength;
            return result;
          };
        }
        const { Engine } = await import("/pkg/in-thread.js");
        const onProgress = ({ stage }) => (sizes[stage] ??= memory?.buffer.byteLength);
        const engine = await Engine.load({ model, device: "gpu", context: 256, storage: "off", onProgress });
        sizes.loaded = memory.buffer.byteLength;
        const { allocated_bytes } = await engine.memory();
        engine.unload();
        return { sizes, allocated_bytes };
      }, `/models/${MODEL}`);
      const mib = (bytes) => bytes / 2 ** 20;
      t.diagnostic(Object.entries(sizes).map(([stage, size]) => `${stage} ${mib(size).toFixed(1)} MiB`).join(", "));
      assert.ok(allocated_bytes > 90e6, "the model is on the GPU");
      // The tokenizer's tables are in it too.
      const grown = mib(sizes.loaded - sizes.idle);
      assert.ok(grown > 1 && grown <= 64, `the heap grew by ${grown} MiB`);
    });

    // Both browsers have a software adapter only, which auto must not take.
    test("auto takes the CPU where the GPU is software, and says why", { timeout: MINUTE }, async (t) => {
      const result = unwrap(await inPage(ask, { load: { model: `/models/${MODEL}`, device: "auto", context: 64 }, requests: [] }));
      assert.equal(result.device.kind, "cpu");
      assert.match(result.reason, /software/);
      t.diagnostic(result.reason);
    });

    test("a browser without WebGPU has no adapter, and auto takes the CPU", { timeout: 2 * MINUTE }, async (t) => {
      const bare = await launch(name, { gpu: false });
      t.after(() => bare.close());
      const page = await bare.newPage();
      await page.goto(`${server.origin}/blank`);
      const model = `/models/${MODEL}`;
      const { error } = await page.evaluate(ask, { load: { model, device: "gpu", context: 64 }, requests: [] });
      assert.equal(error?.code, "no_adapter", JSON.stringify(error));
      t.diagnostic(error.message);
      const result = unwrap(await page.evaluate(ask, { load: { model, device: "auto", context: 64 }, requests: [] }));
      assert.equal(result.device.kind, "cpu");
      assert.match(result.reason, /adapter/);
    });

    test("a draft model drafts, and the tokens stay the same", { timeout: 3 * MINUTE }, async (t) => {
      const load = { model: `/models/${MODEL}`, draftModel: `/models/${DRAFT}`, device: "cpu", context: 128 };
      const result = unwrap(await inPage(ask, { load, requests: [greedy("drafter=model,length=fixed,num_speculative_tokens=3"), greedy("off")] }));
      const [drafted, plain] = result.answers.map(read);
      assert.equal(plain.text, texts.cpu);
      assert.deepEqual(drafted.tokens, plain.tokens);
      const { accepted, drafted: proposed } = drafted.speculation;
      assert.ok(accepted > 0 && accepted < proposed, `accepted ${accepted} of ${proposed}, expected some and not all`);
      assert.ok(drafted.pieces.some((piece) => piece.accepted && piece.source === "model"));
      t.diagnostic(`accepted ${accepted} of ${proposed}`);
    });

    test("a draft model of another family is refused", { timeout: MINUTE }, async () => {
      const load = { model: `/models/${MODEL}`, draftModel: `/models/${GEMMA}`, device: "cpu", context: 128 };
      const { error } = await inPage(ask, { load, requests: [] });
      assert.equal(error?.code, "vocabulary_mismatch", JSON.stringify(error));
    });

    test("a File and a ReadableStream give what a URL gives", { timeout: 4 * MINUTE }, async () => {
      for (const [source, path] of [["file", `/models/${MODEL}`], ["stream", `/plain/${MODEL}`]]) {
        const load = { model: path, device: "cpu", context: 128 };
        const result = unwrap(await inPage(ask, { load, source, requests: [greedy("auto")] }));
        assert.equal(read(result.answers[0]).text, texts.cpu, source);
      }
    });

    test("a server without ranges is read as one stream", { timeout: 2 * MINUTE }, async () => {
      const load = { model: `/plain/${MODEL}`, device: "cpu", context: 128 };
      const result = unwrap(await inPage(ask, { load, requests: [greedy("auto", 4)] }));
      assert.ok(texts.cpu.startsWith(read(result.answers[0]).text));
    });

    test("connections that drop are taken up where they broke", { timeout: 2 * MINUTE }, async () => {
      server.requests.length = 0;
      const load = { model: `/drop/${3 << 20}/${MODEL}`, device: "cpu", context: 128 };
      const result = unwrap(await inPage(ask, { load, requests: [greedy("auto", 4)] }));
      assert.ok(texts.cpu.startsWith(read(result.answers[0]).text));
      const starts = server.requests.map((line) => Number(/bytes=(\d+)-/.exec(line)?.[1]));
      const resumed = starts.filter((start) => start % (4 << 20) > 0);
      assert.ok(resumed.length > 3, "the server dropped connections, so ranges must have been resumed in the middle");
    });

    test("a signal, a break and an unload end the work soon, and the engine goes on", { timeout: 4 * MINUTE }, async () => {
      const result = await inPage(async (model) => {
        const { Engine } = await import("/pkg/index.js");
        const engine = await Engine.load({ model, device: "cpu", context: 512 });
        const messages = [{ role: "user", content: "Tell me a long story about a fox." }];
        const request = { messages, max_tokens: 300, speculation: "off", stream: true };

        const abort = new AbortController();
        let abortedAt = 0;
        let finish;
        let chunks = 0;
        for await (const chunk of await engine.chat.completions.create(request, { signal: abort.signal })) {
          finish = chunk.choices[0].finish_reason;
          if (++chunks === 3) {
            abort.abort();
            abortedAt = performance.now();
          }
        }
        const abort_ms = performance.now() - abortedAt;

        for await (const _ of await engine.chat.completions.create(request)) break;
        const brokeAt = performance.now();
        const again = await engine.chat.completions.create({ messages, max_tokens: 2, speculation: "off" });
        const break_ms = performance.now() - brokeAt;

        let early;
        try {
          await engine.chat.completions.create(request, { signal: AbortSignal.abort() });
        } catch (error) {
          early = error.code;
        }
        const running = engine.chat.completions.create({ ...request, stream: false });
        setTimeout(() => engine.unload(), 50);
        const unloaded = await running.then(() => "finished", (error) => error.code);
        const after = await engine.completions.create({ prompt: "x" }).then(() => "finished", (error) => error.code);
        return { finish, chunks, abort_ms, break_ms, again, early, unloaded, after };
      }, `/models/${MODEL}`);
      assert.equal(result.finish, "abort");
      assert.ok(result.chunks < 20, `${result.chunks} chunks came after the abort`);
      assert.ok(result.abort_ms < 2000, `the abort took ${result.abort_ms} ms`);
      assert.equal(result.again.object, "chat.completion");
      assert.equal(result.again.usage.completion_tokens, 2);
      assert.ok(result.break_ms < 20_000, `the next request took ${result.break_ms} ms: the one that was left still ran`);
      assert.equal(result.early, "aborted");
      assert.equal(result.unloaded, "unloaded");
      assert.equal(result.after, "unloaded");
    });

    test("a stream is let go of when its load fails or is given up", { timeout: MINUTE }, async () => {
      const result = await inPage(async () => {
        const { Engine } = await import("/pkg/index.js");
        const outcomes = {};
        const cases = { failed: {}, draft: { draftModel: 7 }, aborted: { signal: true, silent: true } };
        for (const [name, { signal, silent, ...options }] of Object.entries(cases)) {
          const abort = new AbortController();
          let cancelled;
          const gone = new Promise((resolve) => (cancelled = resolve));
          const pull = (controller) => {
            if (signal) abort.abort();
            if (!silent) controller.enqueue(new Uint8Array(1000)); // no GGUF
          };
          const model = new ReadableStream({ pull, cancel: () => cancelled() }, { highWaterMark: 0 });
          const load = Engine.load({ model, device: "cpu", signal: abort.signal, ...options });
          const code = await load.then(() => "loaded", (error) => error.code);
          await gone;
          outcomes[name] = [code, model.locked];
        }
        return outcomes;
      });
      assert.deepEqual(result, { failed: ["not_gguf", false], draft: ["bad_option", false], aborted: ["aborted", false] });
    });

    test("nulls count as not given, and what no message can carry is refused", { timeout: MINUTE }, async () => {
      const result = await inPage(async (model) => {
        const { Engine } = await import("/pkg/index.js");
        const engine = await Engine.load({ model, device: "cpu", context: 64 });
        const code = (request) => engine.completions.create({ prompt: "one", ...request }).then(() => "answered", (error) => `${error.code}: ${error.message}`);
        const names = ["stop", "signal", "temperature", "top_p", "seed", "max_completion_tokens", "logit_bias", "stream", "stream_options", "speculation"];
        const nulls = Object.fromEntries(names.map((name) => [name, null]));
        const answers = [
          await code({ ...nulls, max_tokens: 2 }),
          await code({ max_tokens: NaN }),
          await code({ max_tokens: 2, temperature: Infinity }),
          await code({ max_tokens: 2, prompt: () => {} }),
          await code({ max_tokens: 2, speculation: { suffix_depth: 1n } }),
          await code({ max_tokens: 2 }),
        ];
        engine.unload();
        return answers;
      }, `/models/${MODEL}`);
      const expected = [/^answered$/, /^bad_option: max_tokens is NaN/, /^bad_option: temperature is Infinity/, /^bad_option: .*sent/, /^bad_option: .*BigInt/, /^answered$/];
      expected.forEach((pattern, i) => assert.match(result[i], pattern));
    });

    test("a load can be given up", { timeout: MINUTE }, async () => {
      const code = await inPage(async (model) => {
        const { Engine } = await import("/pkg/index.js");
        const abort = new AbortController();
        const onProgress = ({ stage }) => stage === "weights" && abort.abort();
        return Engine.load({ model, device: "cpu", signal: abort.signal, onProgress }).then(() => "loaded", (error) => error.code);
      }, `/models/${MODEL}`);
      assert.equal(code, "aborted");
    });

    test("what is wrong with a model or a request is a typed error, at once", { timeout: 2 * MINUTE }, async () => {
      const cpu = { device: "cpu", context: 128 };
      const model = `/models/${MODEL}`;
      const cases = [
        [{ ...cpu, model: "/models/none.gguf" }, [], "download_failed", /404/],
        [{ ...cpu, model: "/index.html" }, [], "not_gguf", /GGUF/],
        [{ ...cpu, model: `/cut/1000000/${MODEL}` }, [], "truncated", /1000000/],
        [{ ...cpu, model: `/cut/50000000/${MODEL}` }, [], "truncated", /50000000/],
        [{ ...cpu, model: "http://127.0.0.1:1/x.gguf" }, [], "download_failed", /127\.0\.0\.1:1/],
        [{ ...cpu, model, context: 10_000_000 }, [], "bad_option", /context/],
        [{ ...cpu, model, speculation: "drafter=magic" }, [], "bad_option", /magic/],
        [{ ...cpu, model }, [{ ...greedy("off"), temperature: -1 }], "bad_option", /temperature/],
        [{ ...cpu, model, context: 32 }, [greedy("off")], "prompt_too_long", /32/],
      ];
      for (const [load, requests, code, message] of cases) {
        const { error, ms } = await inPage(ask, { load, requests });
        assert.ok(error, `${load.model}: expected ${code}, it loaded`);
        assert.equal(error.name, "ForedraftError");
        assert.equal(error.code, code, `${load.model}: ${error.message}`);
        assert.match(error.message, message);
        assert.ok(ms < 30_000, `${code} took ${ms} ms`);
      }
    });

    // The driver's part of it takes minutes in software for kernels that only hardware would use: it is in the long run,
    // and each load above has had it for its own.
    test("every shader compiles", { timeout: 30 * MINUTE }, async (t) => {
      const report = await inPage(async (pipelines) => {
        const { checkShaders } = await import("/pkg/index.js");
        return checkShaders({ pipelines }).catch((error) => ({ error: `${error.code}: ${error.message}` }));
      }, process.env.FOREDRAFT_TEST_FULL === "1");
      assert.equal(report.error, undefined);
      assert.ok(report.compiled.length > 90, `${report.compiled.length} shaders`);
      t.diagnostic(`${report.compiled.length} shaders in ${(report.duration_ms / 1000).toFixed(1)} s`);
    });
  });
}
