// Answers in JSON, in both browsers: twenty of twenty valid by a validator, the same text with speculation and without, the
// second wasm fetched when it is first needed and from wherever it lies.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { mounts, serve } from "../../web/scripts/serve.mjs";
import { MODEL, browserNames, launch, modelsFolder } from "./browsers.mjs";
import { scriptedModel } from "./scripted.mjs";

const MINUTE = 60_000;
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const Ajv = createRequire(path.join(root, "web/package.json"))("ajv/dist/2020.js");
const CASES = JSON.parse(readFileSync(path.join(root, "tests/prompts/schemas.json"), "utf8"));
const GRAMMAR = "/pkg/foredraft_grammar_bg.wasm";
const STRICT = ["default-src 'none'", "script-src 'self' 'wasm-unsafe-eval'", "connect-src 'self'"].join("; ");
const TEMPLATE = "{% for m in messages %}<|start|>{{ m.content }}<|end|>{% endfor %}{{ (tools or '') | tojson }}<|say|>";
const CITY = { type: "object", properties: { city: { enum: ["Paris", "Rome"] } }, required: ["city"], additionalProperties: false };

const ajv = new Ajv({ allErrors: true, strict: false });
ajv.addFormat("date", (text) => /^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(Date.parse(text)));

for (const name of browserNames) {
  describe(`${name}: JSON`, { concurrency: false }, () => {
    let browser;
    let server;
    let elsewhere;
    let requests = [];
    /** Whether the second wasm does not come, and who waits for it. */
    let hanging = false;
    let waiting = [];

    before(
      async () => {
        const files = {
          "/scripted.gguf": scriptedModel({ scripts: { "<|say|>": ["Hello", " there."] }, template: TEMPLATE, context: 1024 }),
          "/blank": "<!doctype html><title>blank</title>",
          "/strict": "<!doctype html><title>strict</title>",
        };
        let strict = false;
        const special = (_, response, pathname) => {
          requests.push(pathname);
          if (pathname === "/strict") strict = true;
          if (pathname === "/blank") strict = false;
          if (hanging && pathname === GRAMMAR) return waiting.push(response) > 0;
          // A worker has the policy of its own script.
          if (strict) response.setHeader("Content-Security-Policy", STRICT);
          if (!files[pathname]) return false;
          const type = pathname.endsWith(".gguf") ? "application/octet-stream" : "text/html";
          response.writeHead(200, { "Content-Type": type }).end(files[pathname]);
          return true;
        };
        server = await serve({ folders: { ...mounts(modelsFolder()), "/moved/": mounts()["/pkg/"] }, special });
        const cors = (_, response, pathname) => {
          requests.push(`elsewhere ${pathname}`);
          response.setHeader("Access-Control-Allow-Origin", "*");
          return false;
        };
        elsewhere = await serve({ folders: mounts(), special: cors });
        browser = await launch(name);
      },
      { timeout: 2 * MINUTE },
    );
    after(async () => {
      await browser?.close();
      await server?.close();
      await elsewhere?.close();
    });

    async function onPage(address, work, ...args) {
      requests = [];
      const page = await browser.newPage();
      try {
        await page.goto(server.origin + address);
        return await page.evaluate(work, ...args);
      } finally {
        await page.close();
      }
    }

    const count = (path) => requests.filter((request) => request === path).length;

    test("twenty of twenty are valid, with speculation and without", { timeout: 10 * MINUTE }, async (t) => {
      const { answers, first_ms } = await onPage(
        "/blank",
        async (model, cases) => {
          const { Engine } = await import("/pkg/index.js");
          const engine = await Engine.load({ model, device: "cpu", context: 512, storage: "off" });
          const timed = async () => {
            const start = performance.now();
            const response_format = { type: "json_schema", json_schema: { schema: { const: 1 } } };
            await engine.chat.completions.create({ messages: [{ role: "user", content: "Hi" }], response_format });
            return performance.now() - start;
          };
          const first_ms = (await timed()) - (await timed());
          const answers = [];
          for (const { prompt, schema } of cases) {
            const request = {
              messages: [{ role: "user", content: prompt }],
              response_format: { type: "json_schema", json_schema: { name: "answer", schema, strict: true } },
              max_tokens: 120,
            };
            const answer = [];
            for (const speculation of ["off", "drafter=grammar+suffix,length=fixed"])
              answer.push(await engine.chat.completions.create({ ...request, speculation }));
            answers.push(answer);
          }
          engine.unload();
          return { answers, first_ms };
        },
        `/models/${MODEL}`,
        CASES,
      );
      t.diagnostic(`the first request for JSON took ${first_ms.toFixed(0)} ms more than the second`);
      assert.equal(CASES.length, 20);
      let [accepted, redrawn] = [0, 0];
      answers.forEach(([plain, drafted], at) => {
        const { message, finish_reason } = plain.choices[0];
        const validate = ajv.compile(CASES[at].schema);
        assert.ok(validate(JSON.parse(message.content)), `${message.content}: ${ajv.errorsText(validate.errors)}`);
        assert.equal(finish_reason, "stop");
        assert.equal(drafted.choices[0].message.content, message.content, "speculation changed the text");
        accepted += drafted.usage.completion_tokens_details.accepted_prediction_tokens;
        redrawn += plain.foredraft.redrawn_tokens;
      });
      assert.ok(accepted > 0 && redrawn > 0, `${accepted} drafts accepted, ${redrawn} tokens redrawn`);
      t.diagnostic(`${accepted} drafts accepted, ${redrawn} tokens redrawn`);
      assert.equal(count(GRAMMAR), 1, "the second wasm is fetched once");
    });

    test("the second wasm comes when it is needed, under a strict policy too", { timeout: MINUTE }, async () => {
      const result = await onPage("/strict", async () => {
        const { Engine } = await import("/pkg/index.js");
        const engine = await Engine.load({ model: "/scripted.gguf", device: "cpu" });
        const messages = [{ role: "user", content: "hi" }];
        const text = await engine.chat.completions.create({ messages });
        const { wasm_bytes } = await engine.memory();
        const before = performance.now();
        const request = { messages, max_tokens: 3 };
        const object = await engine.chat.completions.create({ ...request, response_format: { type: "json_object" } });
        const chunks = [];
        const schema = { enum: ["Hello"] };
        const response_format = { type: "json_schema", json_schema: { schema } };
        for await (const chunk of await engine.chat.completions.create({ messages, response_format, stream: true })) chunks.push(chunk);
        const raw = await engine.completions.create({ prompt: "<|say|>", response_format, max_tokens: 20 });
        const more_bytes = (await engine.memory()).wasm_bytes - wasm_bytes;
        engine.unload();
        return { text, object, chunks, raw, more_bytes, ms: performance.now() - before };
      });
      assert.equal(result.text.choices[0].message.content, "Hello there.");
      assert.equal(result.object.choices[0].message.content[0], "{");
      assert.equal(result.object.choices[0].finish_reason, "length");
      assert.equal(result.chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), '"Hello"');
      assert.equal(result.chunks.at(-1).choices[0].finish_reason, "stop");
      assert.equal(result.raw.choices[0].text, '"Hello"');
      assert.ok(result.more_bytes > 1e6, `${result.more_bytes} bytes of wasm more`);
      assert.equal(count(GRAMMAR), 1);
      await onPage("/blank", async () => {
        const { Engine } = await import("/pkg/index.js");
        const engine = await Engine.load({ model: "/scripted.gguf", device: "cpu" });
        await engine.chat.completions.create({ messages: [{ role: "user", content: "hi" }] });
        engine.unload();
      });
      assert.equal(count(GRAMMAR), 0, "a page that asks for no JSON does not fetch it");
    });

    test("it may lie elsewhere: by option, and on the package's own origin", { timeout: MINUTE }, async () => {
      const ask = async (from, assets) => {
        const { Engine } = await import(from);
        const engine = await Engine.load({ model: location.origin + "/scripted.gguf", device: "cpu", assets });
        const response_format = { type: "json_schema", json_schema: { schema: { const: 17 } } };
        const request = { messages: [{ role: "user", content: "hi" }], response_format };
        const answer = await engine.chat.completions.create(request).then(
          ({ choices }) => choices[0].message.content,
          ({ code, message }) => `${code}: ${message}`,
        );
        engine.unload();
        return answer;
      };
      const moved = "/moved/foredraft_grammar_bg.wasm";
      assert.equal(await onPage("/blank", ask, "/pkg/index.js", { grammar: moved }), "17");
      assert.deepEqual([count(moved), count(GRAMMAR)], [1, 0]);
      assert.equal(await onPage("/blank", ask, `${elsewhere.origin}/pkg/index.js`), "17");
      assert.equal(count(`elsewhere ${GRAMMAR}`), 1);
      const gone = await onPage("/blank", ask, "/pkg/index.js", { grammar: "/nowhere.wasm" });
      assert.match(gone, /^download_failed: the wasm of JSON schemas could not be loaded/);
    });

    test("who waits for it can give up, and the engine goes on", { timeout: MINUTE }, async () => {
      requests = [];
      hanging = true;
      const page = await browser.newPage();
      await page.goto(`${server.origin}/blank`);
      const asked = page.evaluate(async () => {
        const { Engine } = await import("/pkg/index.js");
        const engine = await Engine.load({ model: "/scripted.gguf", device: "cpu" });
        globalThis.abort = new AbortController();
        globalThis.ask = (more) =>
          engine.chat.completions.create({ messages: [{ role: "user", content: "hi" }], ...more }).then(
            ({ choices }) => choices[0].message.content,
            ({ code }) => code,
          );
        globalThis.json = { response_format: { type: "json_schema", json_schema: { schema: { const: 17 } } } };
        return ask({ ...json, signal: abort.signal });
      });
      while (waiting.length === 0) await sleep(10);
      const next = await page.evaluate(() => {
        abort.abort();
        return ask({});
      });
      assert.deepEqual([await asked, next], ["aborted", "Hello there."]);
      hanging = false;
      for (const response of waiting.splice(0)) response.destroy();
      assert.equal(await page.evaluate(() => ask(json)), "17");
      await page.close();
    });

    test("a tool can be forced, with arguments by its schema", { timeout: MINUTE }, async () => {
      const result = await onPage(
        "/blank",
        async (city) => {
          const { Engine } = await import("/pkg/index.js");
          const engine = await Engine.load({ model: "/scripted.gguf", device: "cpu" });
          const { $defs, ...referring } = { $defs: { city }, $ref: "#/$defs/city" };
          const tool = (name, parameters) => ({ type: "function", function: { name, parameters } });
          const tools = [tool("weather", city), tool("map", { ...referring, $defs }), tool("plain")];
          const request = { messages: [{ role: "user", content: "hi" }], tools };
          const answers = [];
          for (const name of ["weather", "map"]) {
            const tool_choice = { type: "function", function: { name } };
            answers.push((await engine.chat.completions.create({ ...request, tool_choice })).choices[0]);
          }
          const required = { ...request, tools: tools.slice(0, 2), tool_choice: "required" };
          answers.push((await engine.chat.completions.create(required)).choices[0]);
          const deltas = [];
          for await (const { choices } of await engine.chat.completions.create({ ...required, stream: true })) deltas.push(choices[0]);
          // An answer by a schema is no call, even where it looks like one.
          const schema = { type: "object", properties: { name: { const: "weather" } }, required: ["name"], additionalProperties: false };
          const response_format = { type: "json_schema", json_schema: { schema } };
          const text = (await engine.chat.completions.create({ ...request, response_format, tool_choice: "none" })).choices[0];
          const both = await engine.chat.completions.create({ ...request, response_format }).catch(({ code, message }) => `${code}: ${message}`);
          engine.unload();
          return { answers, deltas, text, both };
        },
        CITY,
      );
      const validate = ajv.compile(CITY);
      const names = result.answers.map(({ message, finish_reason }) => {
        assert.deepEqual([message.content, finish_reason, message.tool_calls.length], [null, "tool_calls", 1]);
        assert.ok(validate(JSON.parse(message.tool_calls[0].function.arguments)));
        return message.tool_calls[0].function.name;
      });
      assert.deepEqual(names.slice(0, 2), ["weather", "map"]);
      assert.ok(["weather", "map"].includes(names[2]));
      assert.equal(result.deltas.flatMap(({ delta }) => delta.tool_calls ?? []).length, 1);
      assert.equal(result.deltas.at(-1).finish_reason, "tool_calls");
      assert.deepEqual([result.text.message.content, result.text.finish_reason], ['{"name": "weather"}', "stop"]);
      assert.match(result.both, /^bad_option: response_format.type is "json_schema", expected "text" beside tools/);
    });

    test("what a schema may not ask for is refused in time, and the engine goes on", { timeout: MINUTE }, async () => {
      const result = await onPage("/blank", async () => {
        const { Engine, ForedraftError } = await import("/pkg/index.js");
        const engine = await Engine.load({ model: "/scripted.gguf", device: "cpu" });
        let deep = { type: "string" };
        for (let depth = 0; depth < 2000; depth++) deep = { type: "array", items: deep };
        let nested = { type: "string" };
        for (let depth = 0; depth < 50; depth++) nested = { type: "object", properties: { a: nested }, required: ["a"] };
        const schemas = [
          { type: "strong" },
          { type: "object", properties: { a: { not: { type: "string" } } } },
          { $ref: "https://example.com/schema.json" },
          { type: "integer", multipleOf: 999_999_937, minimum: 5 },
          { enum: Array.from({ length: 40_000 }, (_, n) => `value ${n}`) },
          deep,
          5,
        ];
        const ask = async (schema) => {
          const response_format = { type: "json_schema", json_schema: { schema } };
          const request = { messages: [{ role: "user", content: "hi" }], response_format, max_tokens: 20 };
          const start = performance.now();
          const { code, message, typed } = await engine.chat.completions.create(request).then(
            ({ choices }) => ({ code: "answered", message: choices[0].message.content, typed: true }),
            (error) => ({ code: error.code, message: error.message, typed: error instanceof ForedraftError }),
          );
          return { code, message, typed, ms: performance.now() - start };
        };
        const refused = [];
        for (const schema of schemas) refused.push(await ask(schema));
        const cyclic = {};
        cyclic.items = cyclic;
        const no_data = [await ask(cyclic), await ask(() => true), await ask({ toJSON() {} })];
        const fine = [await ask(nested), await ask({ const: "fine" })];
        engine.unload();
        return { refused, fine, no_data };
      });
      for (const { code, message, typed, ms } of result.refused) {
        assert.deepEqual([code, typed], ["schema", true], message);
        assert.match(message, /^the JSON schema cannot be used: .*; leave out or simplify/s);
        assert.ok(message.length < 1000 && ms < 10_000, `${ms} ms: ${message}`);
      }
      for (const { code, typed } of result.no_data) assert.deepEqual([code, typed], ["bad_option", true]);
      assert.equal(result.fine[0].code, "answered", result.fine[0].message);
      assert.equal(result.fine[1].message, '"fine"');
    });
  });
}
