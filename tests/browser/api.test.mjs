// The package's API, as a developer's page meets it, in both browsers. Most of it runs a model whose answers are known.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { mounts, serve } from "../../web/scripts/serve.mjs";
import { MODEL, browserNames, launch, modelsFolder } from "./browsers.mjs";
import { scriptedModel } from "./scripted.mjs";

const MINUTE = 60_000;
const CALL = '{"name": "weather", "arguments": {"city": "Paris"}}';
const TEMPLATE =
  "{% for m in messages %}<|start|>{{ m.role }}:{{ m.content or m.tool_calls | tojson }}<|end|>{% endfor %}" +
  "{% if tools %}{{ tools | tojson }}{{ messages[-1].content }}{% else %}<|say|>{% endif %}";
const SCRIPTS = {
  "<|say|>": ["Hello", " there,", " world", " of", " drafts."],
  "<|tagged|>": ["Let me ask.\n<tool", "_call>\n", CALL, "\n</tool_call>"],
  "<|bare|>": ["[\n", '{"name": "weather", "parameters": "{\\"city\\": \\"Paris\\"}"}', "\n]"],
  "<|foreign|>": ['{"name": "rm", "arguments": {}}'],
};
const STRICT = ["default-src 'none'", "script-src 'self' 'wasm-unsafe-eval'", "connect-src 'self'"].join("; ");

/** A worker of the page's own, with the engine inside; its GPU device can be destroyed as a driver crash would. */
const OWN_WORKER = `
import { Engine } from "/pkg/in-thread.js";
let device;
const request = globalThis.GPUAdapter?.prototype.requestDevice;
if (request) GPUAdapter.prototype.requestDevice = async function (...args) { return (device = await request.apply(this, args)); };
const tasks = {
  async answer({ load, request }) {
    const engine = await Engine.load(load);
    const answer = await engine.chat.completions.create(request);
    const memory = await engine.memory();
    engine.unload();
    const after = await engine.completions.create({ prompt: "x" }).catch((error) => error.code);
    return { text: answer.choices[0].message.content, memory, after };
  },
  async repeat({ load, request, times }) {
    const memory = [];
    for (let i = 0; i < times; i++) {
      const engine = await Engine.load(load);
      await engine.chat.completions.create(request);
      memory.push(await engine.memory());
      engine.unload();
    }
    return memory;
  },
  async giveUp({ load, request }) {
    const abort = new AbortController();
    const onProgress = ({ stage }) => stage === "header" && abort.abort();
    const code = await Engine.load({ ...load, signal: abort.signal, onProgress }).then(() => "loaded", (error) => error.code);
    const engine = await Engine.load(load);
    const generating = new AbortController();
    const stream = await engine.chat.completions.create({ ...request, stream: true }, { signal: generating.signal });
    generating.abort();
    for await (const _ of stream);
    const answer = await engine.chat.completions.create(request);
    const running = engine.chat.completions.create(request).then(() => "finished", (error) => error.code);
    engine.unload();
    return { code, text: answer.choices[0].message.content, running: await running };
  },
  async bench({ load, suite }) {
    const engine = await Engine.load(load);
    const abort = new AbortController();
    const code = (error) => error.code;
    const stopped = await engine.bench(suite, { signal: abort.signal, onProgress: () => abort.abort() }).catch(code);
    const answer = await engine.chat.completions.create({ messages: suite.prompts[0].messages });
    const unloaded = await engine.bench(suite, { onProgress: () => engine.unload() }).catch(code);
    await new Promise((resolve) => setTimeout(resolve, 200));
    // By one of these the CPU gives way every 16 ms while it works.
    let working = 0;
    const Real = MessageChannel;
    globalThis.MessageChannel = function () { working++; return new Real(); };
    await new Promise((resolve) => setTimeout(resolve, 300));
    return { stopped, text: answer.choices[0].message.content, unloaded, working };
  },
  async refuse({ load, options }) {
    const refuse = (more) => Engine.load({ ...load, ...more }).then(() => "loaded", ({ code, details }) => [code, details.option]);
    return Promise.all(options.map(refuse));
  },
  async lose({ load, request }) {
    const engine = await Engine.load(load);
    const before = await engine.chat.completions.create(request);
    device.destroy();
    await device.lost;
    const lost = await engine.chat.completions.create(request).then(() => "answered", ({ code, message }) => ({ code, message }));
    await engine.recover();
    const again = await engine.chat.completions.create(request);
    engine.unload();
    const unloaded = await engine.recover().then(() => "recovered", (error) => error.code);
    return { before, lost, again, unloaded, device: engine.device };
  },
};
onmessage = async ({ data: { task, ...options } }) => {
  try {
    postMessage({ result: await tasks[task](options) });
  } catch (error) {
    postMessage({ error: (error.code ?? error.name) + ": " + error.message });
  }
};
`;

const content = (text) => [{ role: "user", content: text }];

for (const name of browserNames) {
  describe(`${name}: API`, { concurrency: false }, () => {
    let browser;
    let server;
    let elsewhere;

    before(
      async () => {
        const files = {
          "/scripted.gguf": scriptedModel({ scripts: SCRIPTS, template: TEMPLATE }),
          "/toolless.gguf": scriptedModel({ scripts: SCRIPTS, template: "{{ messages[-1].content }}<|say|>" }),
          "/own-worker.js": OWN_WORKER,
          "/blank": "<!doctype html><title>blank</title>",
          "/strict": "<!doctype html><title>strict</title>",
        };
        const folders = mounts(modelsFolder());
        const special = (_, response, pathname) => {
          const type = pathname.endsWith(".js")
            ? "text/javascript"
            : pathname.endsWith(".gguf")
              ? "application/octet-stream"
              : "text/html";
          // A worker has the policy of its own script.
          if (pathname === "/strict") strict = true;
          if (pathname === "/blank") strict = false;
          if (strict) response.setHeader("Content-Security-Policy", STRICT);
          if (!files[pathname]) return false;
          response.writeHead(200, { "Content-Type": type }).end(files[pathname]);
          return true;
        };
        let strict = false;
        server = await serve({ folders, special });
        const cors = (_, response) => {
          response.setHeader("Access-Control-Allow-Origin", "*");
          return false;
        };
        elsewhere = await serve({ folders, special: cors });
        browser = await launch(name);
      },
      { timeout: 2 * MINUTE },
    );
    after(async () => {
      await browser?.close();
      await server?.close();
      await elsewhere?.close();
    });

    /** Runs `work` in a fresh page. */
    async function inPage(work, ...args) {
      return onPage("/blank", work, ...args);
    }

    async function onPage(address, work, ...args) {
      const page = await browser.newPage();
      try {
        await page.goto(server.origin + address);
        return await page.evaluate(work, ...args);
      } finally {
        await page.close();
      }
    }

    /** Has the page's own worker do something. */
    async function inOwnWorker(task, options) {
      const { result, error } = await inPage(
        (message) =>
          new Promise((resolve) => {
            const worker = new Worker("/own-worker.js", { type: "module" });
            worker.onerror = (event) => resolve({ error: event.message || "the worker's script failed" });
            worker.onmessage = ({ data }) => resolve(data);
            worker.postMessage(message);
          }),
        { task, ...options },
      );
      assert.equal(error, undefined);
      return result;
    }

    const load = { model: "/scripted.gguf", device: "cpu" };
    const hello = { messages: content("hi"), temperature: 0 };

    test("answers, chunks and usage have OpenAI's shapes", { timeout: MINUTE }, async () => {
      const result = await inPage(
        async (load, request) => {
          const { Engine } = await import("/pkg/index.js");
          const engine = await Engine.load(load);
          const { create } = engine.chat.completions;
          const whole = await create({ ...request, model: "scripted", n: 1, response_format: { type: "text" } });
          const chunks = [];
          for await (const chunk of await create({ ...request, stream: true, stream_options: { include_usage: true } }))
            chunks.push(chunk);
          const silent = [];
          for await (const chunk of await create({ ...request, stream: true })) silent.push(chunk);
          const stopped = await create({ ...request, stop: [" wor"] });
          const biased = await create({ ...request, logit_bias: { [whole.foredraft.tokens[0].id]: -100 }, max_tokens: 1 });
          const text = await engine.completions.create({ prompt: "<|say|>", logprobs: 2, max_tokens: 3 });
          const long = await create({ ...request, max_tokens: 2 });
          engine.unload();
          return { whole, chunks, silent, stopped, biased, text, long };
        },
        load,
        hello,
      );
      const { whole, chunks, text } = result;
      assert.equal(whole.object, "chat.completion");
      assert.deepEqual(whole.choices[0], {
        index: 0,
        message: { role: "assistant", content: "Hello there, world of drafts." },
        finish_reason: "stop",
      });
      assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + 5);
      // Firefox counts whole milliseconds, and five tokens of this model may take none.
      assert.ok(whole.timings.decode_ms >= 0 && whole.system_fingerprint.length > 0);
      assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), "Hello there, world of drafts.");
      assert.equal(chunks[0].choices[0].delta.role, "assistant");
      assert.equal(chunks.at(-2).choices[0].finish_reason, "stop");
      assert.equal(chunks.at(-1).usage.completion_tokens, 5);
      assert.ok(chunks.at(-1).usage.prompt_tokens_details.cached_tokens > 0, "the prompt was in the cache");
      assert.ok(result.silent.every((chunk) => chunk.usage === undefined && chunk.choices.length === 1));
      assert.equal(result.stopped.choices[0].message.content, "Hello there,");
      assert.equal(result.stopped.choices[0].finish_reason, "stop");
      assert.notEqual(result.biased.choices[0].message.content, "Hello");
      assert.equal(result.long.choices[0].finish_reason, "length");
      assert.equal(text.object, "text_completion");
      const { logprobs } = text.choices[0];
      assert.deepEqual(logprobs.tokens, ["Hello", " there,", " world"]);
      assert.deepEqual(logprobs.text_offset, [0, 5, 12]);
      assert.ok(logprobs.token_logprobs.every((logprob) => logprob <= 0 && logprob > -0.01));
      assert.ok(logprobs.top_logprobs.every((top) => Object.keys(top).length === 2));
    });

    test("no field of a request is passed over", { timeout: MINUTE }, async () => {
      const cases = [
        [{ n: 2 }, "n"],
        [{ model: "another" }, "model"],
        [{ response_format: { type: "grammar" } }, "response_format.type"],
        [{ response_format: { type: "json_schema", json_schema: {} } }, "response_format.json_schema.schema"],
        [{ response_format: { type: "json_schema", json_schema: { schema: {}, form: 1 } } }, "response_format.json_schema.form"],
        [{ response_format: { type: "json_object" }, speculation: "drafter=suffix,accept=typical" }, "response_format"],
        [{ tool_choice: "required" }, "tool_choice"],
        [{ tool_choice: { type: "function", function: { name: "weather" } } }, "tool_choice"],
        [{ tool_choice: "always" }, "tool_choice", /"auto", "none", "required" or \{/],
        [{ tool_choice: { type: "function", name: "weather" } }, "tool_choice", /"auto", "none", "required" or \{/],
        [{ tool_choice: { type: "function", function: { name: "weather", strict: true } } }, "tool_choice.function.strict"],
        [{ best_of: 3 }, "best_of"],
        [{ stream_options: { include_obfuscation: true } }, "stream_options.include_obfuscation"],
        [{ top_logprobs: 3 }, "top_logprobs"],
        [{ logprobs: true, top_logprobs: 9 }, "top_logprobs"],
        [{ logprobs: 1 }, "logprobs"],
        [{ temperature: "hot" }, "temperature"],
        [{ stop: [1] }, "stop"],
        [{ seed: -1 }, "seed"],
        [{ max_tokens: 1.5 }, "max_tokens"],
        [{ tools: [{ type: "function" }] }, "tools[0]"],
        [{ context_overflow: "shrug" }, "context_overflow"],
        [{ logprobs: true, speculation: "drafter=suffix,accept=typical" }, "logprobs"],
      ];
      const found = await inPage(
        async (load, request, cases) => {
          const { Engine, ForedraftError } = await import("/pkg/index.js");
          const engine = await Engine.load(load);
          const describe = (error) => ({
            typed: error instanceof ForedraftError,
            code: error.code,
            option: error.details.option ?? error.details.name,
            message: error.message,
          });
          const found = [];
          for (const [more] of cases)
            found.push(await engine.chat.completions.create({ ...request, ...more }).then(() => "answered", describe));
          found.push(await Engine.load({ ...load, remember: { bytes: 7 } }).then(() => "loaded", describe));
          engine.unload();
          return found;
        },
        load,
        hello,
        cases.map(([more]) => [more]),
      );
      [...cases, [{ remember: 7 }, "remember.bytes"]].forEach(([more, option, expected = /expected/], at) => {
        const { typed, code, option: named, message } = found[at];
        assert.deepEqual(
          { typed, code, option: named },
          { typed: true, code: "bad_option", option },
          JSON.stringify([more, found[at]]),
        );
        assert.match(message, expected);
      });
      assert.match(found[2].message, /json_schema/);
    });

    test("no option of a load is passed over, wherever the engine runs", { timeout: MINUTE }, async () => {
      const options = [
        { contxt: 64 },
        { speculatoin: "off" },
        { model: { url: "/scripted.gguf", sha: "00" } },
        { draftModel: { url: "/scripted.gguf", etag: "1" } },
        { remember: { byte: 2048 } },
        { assets: { wasn: "/x.wasm" } },
      ];
      const names = ["contxt", "speculatoin", "model.sha", "draftModel.etag", "remember.byte", "assets.wasn"];
      const expected = names.map((name) => ["bad_option", name]);
      const { found, taken } = await inPage(
        async (load, options) => {
          const { Engine, ForedraftError, checkShaders, probe } = await import("/pkg/index.js");
          const describe = (error) => [error instanceof ForedraftError && error.code, error.details.option];
          const refuse = (more) => Engine.load({ ...load, ...more }).then(() => "loaded", describe);
          const found = await Promise.all(options.map(refuse));
          for (const ask of [probe({ modle: load.model }), probe({}, { wasn: "/x" }), checkShaders({}, { wasn: "/x" })])
            found.push(await ask.catch(describe));
          let taken = false;
          const model = new ReadableStream({ cancel: () => void (taken = true) });
          found.push(await refuse({ model, contxt: 64 }), await refuse({ model, context: NaN }));
          return { found, taken };
        },
        load,
        options,
      );
      const more = ["modle", "assets.wasn", "assets.wasn", "contxt", "context"].map((name) => ["bad_option", name]);
      assert.deepEqual(found, [...expected, ...more]);
      assert.equal(taken, false, "a stream can be given again");
      assert.deepEqual(await inOwnWorker("refuse", { load, options }), expected);
    });

    test("tool calls come out of the text, whole and streamed", { timeout: MINUTE }, async () => {
      const result = await inPage(
        async (load, contents) => {
          const { Engine } = await import("/pkg/index.js");
          const engine = await Engine.load(load);
          const tools = [
            {
              type: "function",
              function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
            },
          ];
          const answers = {};
          for (const [name, messages] of Object.entries(contents)) {
            const whole = await engine.chat.completions.create({ messages, tools });
            const deltas = [];
            let finish;
            for await (const {
              choices: [choice],
            } of await engine.chat.completions.create({ messages, tools, stream: true })) {
              deltas.push(choice.delta);
              finish = choice.finish_reason ?? finish;
            }
            answers[name] = { ...whole.choices[0], deltas, finish };
          }
          const none = await engine.chat.completions.create({ messages: contents.bare, tools, tool_choice: "none" });
          // What was called and what came of it go back to the model.
          const call = answers.tagged.message.tool_calls[0];
          const messages = [
            ...contents.bare,
            { role: "assistant", content: null, tool_calls: [call] },
            { role: "tool", tool_call_id: call.id, content: "rain" },
          ];
          const next = await engine.chat.completions.create({ messages });
          engine.unload();
          const toolless = await Engine.load({ ...load, model: "/toolless.gguf" });
          const refused = await toolless.chat.completions
            .create({ messages: contents.bare, tools })
            .catch((error) => `${error.code}: ${error.message}`);
          toolless.unload();
          return { answers, none, next, refused };
        },
        load,
        { tagged: content("<|tagged|>"), bare: content("<|bare|>"), foreign: content("<|foreign|>") },
      );
      for (const [name, { message, finish_reason, deltas, finish }] of Object.entries(result.answers)) {
        const text = deltas.map((delta) => delta.content ?? "").join("");
        const calls = deltas.flatMap((delta) => delta.tool_calls ?? []);
        if (name === "foreign") {
          assert.equal(message.content, '{"name": "rm", "arguments": {}}', "a tool that was not offered is text");
          assert.deepEqual([message.tool_calls, finish_reason, calls.length, text], [undefined, "stop", 0, message.content]);
          continue;
        }
        assert.equal(finish_reason, "tool_calls");
        assert.equal(finish, "tool_calls");
        assert.equal(message.tool_calls.length, 1);
        assert.deepEqual(message.tool_calls[0].function, { name: "weather", arguments: '{"city":"Paris"}' });
        assert.deepEqual(
          calls.map(({ index, type, function: called }) => ({ index, type, called })),
          [{ index: 0, type: "function", called: message.tool_calls[0].function }],
        );
        assert.equal(text, name === "tagged" ? "Let me ask.\n" : "");
        assert.equal(message.content, name === "tagged" ? "Let me ask.\n" : null);
      }
      assert.equal(result.none.choices[0].message.content, "Hello there, world of drafts.");
      assert.equal(result.next.choices[0].finish_reason, "stop");
      assert.match(result.refused, /^bad_option: tools .*template/);
    });

    test("a conversation keeps its cache, and slides where it is told to", { timeout: MINUTE }, async () => {
      const result = await inPage(async (load) => {
        const { Engine } = await import("/pkg/index.js");
        const engine = await Engine.load(load);
        const messages = [{ role: "system", content: "be brief" }];
        const turns = [];
        for (let turn = 0; turn < 20; turn++) {
          messages.push({ role: "user", content: `question ${turn}` });
          const request = { messages, max_tokens: 8, context_overflow: "slide" };
          const { choices, usage, foredraft } = await engine.chat.completions.create(request);
          turns.push({ usage, dropped: foredraft.dropped_messages, text: choices[0].message.content });
          messages.push(choices[0].message);
        }
        const error = await engine.chat.completions
          .create({ messages })
          .catch(({ code, message, details }) => ({ code, message, details }));
        const huge = [{ role: "user", content: "x".repeat(400) }];
        const last = await engine.chat.completions
          .create({ messages: huge, context_overflow: "slide" })
          .catch((error) => error.code);
        engine.unload();
        return { turns, error, last };
      }, load);
      const [first, second] = result.turns;
      assert.equal(first.usage.prompt_tokens_details.cached_tokens, 0);
      // All but the last token of the first prompt, and the answer.
      const kept = second.usage.prompt_tokens_details.cached_tokens;
      assert.ok(
        kept >= first.usage.prompt_tokens - 2 && kept < second.usage.prompt_tokens,
        `${kept} of ${second.usage.prompt_tokens} were cached`,
      );
      assert.ok(result.turns.every(({ text }) => text === "Hello there, world of drafts."));
      assert.equal(first.dropped, 0);
      const dropped = result.turns.map((turn) => turn.dropped);
      assert.ok(dropped.at(-1) > 0 && dropped.at(-1) % 2 === 0, `turns go whole: ${dropped}`);
      // What a slide has left stays where it is in the cache until the room that it made is full.
      const slid = dropped.flatMap((count, turn) => (turn > 0 && count !== dropped[turn - 1] ? [turn] : []));
      // Two of these turns are a quarter of the context.
      assert.ok(slid.length > 1 && slid.length <= (20 - slid[0]) * 0.6, `turns went at ${slid}`);
      for (const [turn, { usage }] of result.turns.entries()) {
        if (turn === 0 || slid.includes(turn)) continue;
        const [before, cached] = [result.turns[turn - 1].usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens];
        assert.ok(cached >= before - 2, `turn ${turn}: ${cached} of ${before} were cached`);
      }
      assert.ok(result.turns.every(({ usage }) => usage.prompt_tokens + 8 <= 257));
      assert.equal(result.error.code, "prompt_too_long");
      assert.equal(result.error.details.context_tokens, 256);
      assert.ok(
        result.error.details.prompt_tokens > 256 && result.error.message.includes(String(result.error.details.prompt_tokens)),
      );
      assert.equal(result.last, "prompt_too_long", "the last turn never goes");
    });

    test("logprobs are the target's own, with speculation or without", { timeout: 2 * MINUTE }, async () => {
      const [off, on, hot, sampled] = await inPage(async (model) => {
        const { Engine } = await import("/pkg/index.js");
        const engine = await Engine.load({ model, device: "cpu", context: 256 });
        const request = {
          messages: [{ role: "user", content: "Say: one two three one two three one two three" }],
          max_tokens: 12,
          logprobs: true,
          top_logprobs: 3,
        };
        const drafts = "drafter=ngram,length=fixed,num_speculative_tokens=4";
        const answers = [];
        for (const more of [
          { speculation: "off" },
          { speculation: drafts },
          { speculation: "off", temperature: 1.5, seed: 3 },
          { speculation: drafts, temperature: 1.5, seed: 3 },
        ]) {
          answers.push(await engine.chat.completions.create({ ...request, ...more }));
        }
        engine.unload();
        return answers;
      }, `/models/${MODEL}`);
      const read = (answer) => answer.choices[0].logprobs.content;
      for (const [plain, drafted] of [
        [off, on],
        [hot, sampled],
      ]) {
        assert.deepEqual(read(drafted), read(plain), "speculation changed a logprob");
        assert.equal(plain.foredraft.speculation.active, false);
        assert.equal(read(plain).length, plain.usage.completion_tokens);
        assert.equal(
          read(plain)
            .map(({ token }) => token)
            .join(""),
          plain.choices[0].message.content,
        );
      }
      assert.ok(on.usage.completion_tokens_details.accepted_prediction_tokens > 0);
      for (const { token, logprob, bytes, top_logprobs: top } of read(off)) {
        assert.equal(top.length, 3);
        assert.deepEqual([top[0].token, top[0].logprob], [token, logprob], "greedy takes the likeliest");
        assert.equal(new TextDecoder().decode(Uint8Array.from(bytes)), token);
        const sum = top.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0);
        assert.ok(sum <= 1.0001 && top.every(({ logprob }, at) => at === 0 || logprob <= top[at - 1].logprob));
      }
      assert.ok(
        read(hot).some(({ token, top_logprobs: [best] }) => token !== best.token),
        "a hot sample is not always the likeliest",
      );
    });

    test(
      "foredraft/worker is the same engine in a worker of one's own, and leaves nothing behind",
      { timeout: MINUTE },
      async () => {
        const { text, memory, after } = await inOwnWorker("answer", { load, request: hello });
        assert.equal(text, "Hello there, world of drafts.");
        assert.equal(after, "unloaded");
        const { weights_bytes, kv_bytes, scratch_bytes, allocated_bytes, wasm_bytes } = memory;
        assert.ok(weights_bytes > 1e6 && kv_bytes > 0 && scratch_bytes > 0 && wasm_bytes > allocated_bytes);
        assert.equal(weights_bytes + kv_bytes + scratch_bytes, allocated_bytes);
        const ledger = await inOwnWorker("repeat", { load, request: hello, times: 10 });
        assert.equal(ledger.length, 10);
        const [{ wasm_bytes: early, ...first }, { wasm_bytes: late, ...last }] = [ledger[1], ledger.at(-1)];
        assert.deepEqual(last, first);
        // Once or twice the heap may be in pieces; an engine that was not freed would be there eight times.
        assert.ok(late - early < 2 * last.allocated_bytes, `the wasm grew: ${ledger.map((memory) => memory.wasm_bytes)}`);
      },
    );

    test("foredraft/worker lets go of a load and of an answer too", { timeout: MINUTE }, async () => {
      const { code, text, running } = await inOwnWorker("giveUp", { load, request: hello });
      assert.deepEqual([code, text, running], ["aborted", "Hello there, world of drafts.", "unloaded"]);
    });

    test("a bench ends soon after its signal or an unload, and the engine goes on", { timeout: MINUTE }, async () => {
      const prompts = Array.from({ length: 500 }, (_, id) => ({ id: String(id), category: "say", messages: content("hi") }));
      const result = await inOwnWorker("bench", { load, suite: { prompts } });
      assert.deepEqual(result, { stopped: "aborted", text: "Hello there, world of drafts.", unloaded: "unloaded", working: 0 });
    });

    test("a lost device is a typed error, and the conversation goes on after recover()", { timeout: 3 * MINUTE }, async (t) => {
      const { before, lost, again, unloaded, device } = await inOwnWorker("lose", {
        load: { ...load, device: "gpu" },
        request: hello,
      });
      assert.equal(before.choices[0].message.content, "Hello there, world of drafts.");
      assert.equal(lost.code, "device_lost", JSON.stringify(lost));
      assert.equal(again.choices[0].message.content, before.choices[0].message.content);
      assert.equal(again.usage.prompt_tokens_details.cached_tokens, 0, "the cache went with the device");
      assert.equal(unloaded, "unloaded");
      assert.equal(device.kind, "gpu");
      t.diagnostic(lost.message);
    });

    test("recover() loads again into a new worker; a stream is gone", { timeout: MINUTE }, async () => {
      const result = await inPage(
        async (load, request) => {
          const { Engine } = await import("/pkg/index.js");
          const engine = await Engine.load(load);
          const running = engine.chat.completions.create(request).then(
            () => "answered",
            (error) => error.code,
          );
          const stages = [];
          await Promise.all([engine.recover({ onProgress: ({ stage }) => stages.push(stage) }), engine.recover()]);
          const again = await engine.chat.completions.create(request);
          await engine.recover({ signal: AbortSignal.abort() }).catch(() => {});
          const failed = await engine.chat.completions.create(request).catch((error) => `${error.code}: ${error.message}`);
          const ending = engine.recover({ onProgress: () => engine.unload() }).catch((error) => error.code);
          const ended = await Promise.all([ending, engine.memory().catch((error) => error.code)]);
          const streamed = await Engine.load({ ...load, model: (await fetch(load.model)).body });
          const gone = await streamed.recover().catch((error) => `${error.code}: ${error.message}`);
          const still = await streamed.chat.completions.create(request);
          streamed.unload();
          return {
            running: await running,
            stages,
            failed,
            ended,
            text: again.choices[0].message.content,
            gone,
            still: still.choices[0].message.content,
          };
        },
        load,
        hello,
      );
      assert.equal(result.running, "unloaded");
      assert.equal(result.stages.filter((stage) => stage === "ready").length, 1);
      assert.deepEqual(result.stages.slice(-2), ["costs", "ready"], "passes are timed last, and that is told");
      assert.match(result.failed, /^unloaded: .*could not be loaded again: aborted/);
      assert.deepEqual(result.ended, ["unloaded", "unloaded"]);
      assert.match(result.gone, /^bad_option: .*stream/);
      assert.equal(result.text, result.still);
    });

    test(
      "what answers teach is kept where the page asks for it, within its cap, and forgotten on request",
      { timeout: MINUTE },
      async () => {
        const result = await inPage(
          async (load, request) => {
            const { Engine, forget } = await import("/pkg/index.js");
            await forget();
            const speculation = "drafter=suffix,length=fixed,num_speculative_tokens=4";
            const visit = async (remember, work = () => {}) => {
              const engine = await Engine.load({ ...load, speculation, ...(remember !== undefined && { remember }) });
              const answer = await engine.chat.completions.create(request);
              await work(engine);
              engine.unload();
              return { ...engine.remembered, accepted: answer.usage.completion_tokens_details.accepted_prediction_tokens };
            };
            const fill = async (engine) => {
              for (let at = 0; at < 40; at++) await engine.completions.create({ prompt: `question ${at} <|say|>` });
            };
            return {
              before: await visit(),
              first: await visit(true),
              second: await visit(true),
              other: await visit(false),
              filled: await visit({ bytes: 2048 }, fill),
              capped: await visit({ bytes: 2048 }, (engine) => engine.forget()),
              after: await visit(true),
              all: await forget().then(() => visit(true)),
              loaded: await visit(true, async (engine) => {
                await forget();
                // It hears of it soon; from then on what it keeps begins anew.
                for (let bytes = Infinity; bytes >= engine.remembered.bytes; ) {
                  await engine.completions.create({ prompt: "question <|say|>", max_tokens: 1 });
                  const next = await Engine.load({ ...load, remember: true });
                  bytes = next.remembered.bytes;
                  next.unload();
                }
              }),
            };
          },
          load,
          hello,
        );
        const told = Object.fromEntries(
          Object.entries(result).map(([visit, { active, accepted }]) => [visit, [active, accepted > 0]]),
        );
        assert.deepEqual(told, {
          before: [false, false],
          first: [true, false],
          second: [true, true],
          other: [false, false],
          filled: [true, true],
          capped: [true, true],
          after: [true, false],
          all: [true, false],
          loaded: [true, true],
        });
        assert.ok(result.second.bytes > 0);
        assert.ok(result.capped.bytes > 1000 && result.capped.bytes <= 2048, `${result.capped.bytes} bytes were kept`);
        assert.match(result.before.reason, /not asked/);
      },
    );

    test("what two tabs learn at once is kept of both, and each learns from the other", { timeout: MINUTE }, async () => {
      const tabs = [];
      for (let tab = 0; tab < 2; tab++) {
        const page = await browser.newPage();
        await page.goto(`${server.origin}/blank`);
        tabs.push(page);
      }
      try {
        const open = async (load) => {
          const { Engine, forget } = await import("/pkg/index.js");
          await forget();
          globalThis.engine = await Engine.load({ ...load, remember: true });
        };
        const answer = async (prompt) => {
          const speculation = "drafter=suffix,length=fixed,num_speculative_tokens=4";
          const { usage } = await globalThis.engine.completions.create({ prompt, speculation });
          return usage.completion_tokens_details.accepted_prediction_tokens > 0;
        };
        for (const tab of tabs) await tab.evaluate(open, load);
        const [one, two] = tabs;
        assert.equal(await one.evaluate(answer, "<|say|>"), false);
        assert.equal(await two.evaluate(answer, "<|tagged|>"), false);
        assert.equal(await two.evaluate(answer, "<|say|>"), true, "the first tab's answer came with the second's own");
        const later = await inPage(
          async (load, answer) => {
            const { Engine } = await import("/pkg/index.js");
            globalThis.engine = await Engine.load({ ...load, remember: true });
            const ask = new Function(`return (${answer})`)();
            const known = [await ask("<|tagged|>"), await ask("<|say|>"), await ask("<|bare|>")];
            globalThis.engine.unload();
            return known;
          },
          load,
          answer.toString(),
        );
        assert.deepEqual(later, [true, true, false]);
      } finally {
        for (const tab of tabs) await tab.close();
      }
    });

    test("a strict content security policy is enough, and blob: is not needed", { timeout: MINUTE }, async () => {
      const result = await onPage(
        "/strict",
        async (load, request) => {
          const broken = [];
          document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
            broken.push(`${violatedDirective} ${blockedURI}`),
          );
          const { Engine } = await import("/pkg/index.js");
          const engine = await Engine.load(load);
          const answer = await engine.chat.completions.create(request);
          engine.unload();
          const blob = await new Promise((resolve) => {
            try {
              const worker = new Worker(URL.createObjectURL(new Blob(["postMessage(1)"], { type: "text/javascript" })));
              worker.onmessage = () => resolve("started");
              worker.onerror = () => resolve("refused");
            } catch {
              resolve("refused");
            }
          });
          return { text: answer.choices[0].message.content, broken, blob };
        },
        load,
        hello,
      );
      assert.equal(result.text, "Hello there, world of drafts.");
      assert.equal(result.blob, "refused", "the policy is in force");
      assert.ok(
        result.broken.every((violation) => violation.includes("blob")),
        result.broken.join(),
      );
    });

    test("the package works from another origin than the page's", { timeout: MINUTE }, async () => {
      const result = await inPage(
        async (origin, load, request) => {
          const { Engine } = await import(`${origin}/pkg/index.js`);
          const answers = [];
          for (const assets of [undefined, { worker: `${origin}/pkg/worker.js`, wasm: "/pkg/foredraft_bg.wasm" }]) {
            const engine = await Engine.load({ ...load, ...(assets && { assets }) });
            const answer = await engine.chat.completions.create(request);
            answers.push(answer.choices[0].message.content);
            engine.unload();
          }
          const missing = await Engine.load({ ...load, assets: { worker: `${origin}/none.js` } }).catch(
            (error) => `${error.code}: ${error.message}`,
          );
          return { answers, missing };
        },
        elsewhere.origin,
        load,
        hello,
      );
      assert.deepEqual(result.answers, ["Hello there, world of drafts.", "Hello there, world of drafts."]);
      assert.match(result.missing, /^worker_failed: .*none\.js/);
    });
  });
}
