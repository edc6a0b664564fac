// `foredraft/ai-sdk` under the SDK itself, in both browsers.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { mounts, serve } from "../../web/scripts/serve.mjs";
import { browserNames, launch } from "./browsers.mjs";
import { scriptedModel } from "./scripted.mjs";

const MINUTE = 60_000;
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const { build } = createRequire(path.join(root, "web/package.json"))("esbuild");

const CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>';
const TEMPLATE =
  "{% for m in messages %}<|start|>{{ m.role }}:{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}{% endif %}<|end|>" +
  "{% endfor %}{% if tools and messages[-1].role != 'tool' %}{{ tools | tojson }}<|ask|>{% else %}<|say|>{% endif %}";
const SCRIPTS = { "<|say|>": ["It", " rains", " in Paris."], "<|ask|>": [CALL] };

/** What the page runs: the SDK as an application would bundle it, the package as it is served. */
const PAGE = `
import { Output, generateText, isStepCount, jsonSchema, streamText, tool } from "ai";
const load = async () => {
  const { Engine } = await import("foredraft");
  const { foredraft } = await import("foredraft/ai-sdk");
  const engine = await Engine.load({ model: "/scripted.gguf", device: "cpu" });
  return { engine, model: foredraft(engine, { speculation: "off" }) };
};
globalThis.cases = {
  async text() {
    const { engine, model } = await load();
    const { text, finishReason, usage, warnings, providerMetadata } = await generateText({ model, system: "be brief", prompt: "weather?", topK: 3, reasoning: "high" });
    const stopped = await generateText({ model, prompt: "weather?", stopSequences: [" in"] });
    const short = await generateText({ model, prompt: "weather?", maxOutputTokens: 1 });
    engine.unload();
    return { text, finishReason, usage, warnings, speculation: providerMetadata.foredraft.speculation, stopped: stopped.text, short: [short.text, short.finishReason] };
  },
  async stream() {
    const { engine, model } = await load();
    const result = streamText({ model, messages: [{ role: "user", content: "weather?" }] });
    const pieces = [];
    for await (const piece of result.textStream) pieces.push(piece);
    const abort = new AbortController();
    const parts = [];
    const cut = streamText({ model, prompt: "weather?", abortSignal: abort.signal, onError: () => {} });
    for await (const part of cut.stream) {
      parts.push(part.type);
      abort.abort();
    }
    const next = await generateText({ model, prompt: "weather?" });
    engine.unload();
    return { pieces, text: await result.text, finishReason: await result.finishReason, usage: await result.usage, parts, next: next.text };
  },
  async tools() {
    const { engine, model } = await load();
    const asked = [];
    const inputSchema = jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"] });
    const weather = tool({ description: "the weather", inputSchema, execute: async (input) => (asked.push(input), { sky: "rain" }) });
    const options = { model, prompt: "weather?", tools: { weather }, stopWhen: isStepCount(3) };
    const whole = await generateText(options);
    const streamed = streamText(options);
    const text = await streamed.text;
    engine.unload();
    return { asked, whole: whole.text, steps: whole.steps.map(({ finishReason }) => finishReason), text, calls: (await streamed.steps)[0].toolCalls.length };
  },
  async json() {
    const { engine, model } = await load();
    const schema = jsonSchema({ type: "object", properties: { sky: { enum: ["rain", "sun"] } }, required: ["sky"], additionalProperties: false });
    const { output } = await generateText({ model, prompt: "x", output: Output.object({ schema }) });
    const streamed = streamText({ model, prompt: "x", output: Output.object({ schema }) });
    const weather = tool({ inputSchema: schema });
    const choices = [{ type: "tool", toolName: "weather" }, "required"];
    const calls = [];
    for (const toolChoice of choices) calls.push(...(await generateText({ model, prompt: "x", tools: { weather }, toolChoice })).toolCalls);
    const outputs = [output, await streamed.output];
    // Tools go before JSON, until a step may call none.
    const rain = tool({ inputSchema: jsonSchema({ type: "object" }), execute: async () => "rain" });
    const prepareStep = ({ stepNumber }) => (stepNumber > 0 ? { toolChoice: "none" } : {});
    const both = await generateText({ model, prompt: "x", tools: { weather: rain }, output: Output.object({ schema }), stopWhen: isStepCount(3), prepareStep });
    outputs.push(both.output);
    const steps = both.steps.map(({ toolCalls, warnings }) => [toolCalls.length, warnings?.map(({ feature }) => feature) ?? []]);
    engine.unload();
    return { steps, outputs, calls: calls.map(({ toolName, input }) => ({ toolName, input })) };
  },
  async refused() {
    const { engine, model } = await load();
    const schema = jsonSchema({ type: "object", properties: { a: { not: { type: "string" } } } });
    const code = (work) => work.then(() => "answered", ({ code, message, name }) => (code ?? name) + ": " + message);
    const found = [
      await code(generateText({ model, prompt: "x", output: Output.object({ schema }), maxRetries: 0 })),
      await code(generateText({ model, messages: [{ role: "user", content: [{ type: "image", image: new Uint8Array(3) }] }], maxRetries: 0 })),
      await code(generateText({ model, prompt: "x", providerOptions: { foredraft: { best_of: 2 } }, maxRetries: 0 })),
      await code(generateText({ model, prompt: "x", providerOptions: { foredraft: { min_p: 0.1 } } })),
      await code(generateText({ model, prompt: "x", providerOptions: { foredraft: { response_format: { type: "json_object" } } }, maxRetries: 0 })),
    ];
    engine.unload();
    return found;
  },
};
`;

for (const name of browserNames) {
  describe(`${name}: AI SDK`, { concurrency: false }, () => {
    let browser;
    let server;

    before(
      async () => {
        const bundle = await build({
          stdin: { contents: PAGE, resolveDir: path.join(root, "web"), loader: "js" },
          bundle: true,
          write: false,
          format: "esm",
          target: "es2022",
          external: ["foredraft", "foredraft/ai-sdk"],
          define: { "process.env.NODE_ENV": '"production"' },
          logLevel: "error",
        });
        const imports = { foredraft: "/pkg/index.js", "foredraft/ai-sdk": "/pkg/ai-sdk.js" };
        const files = {
          "/": [
            "text/html",
            `<!doctype html><script type="importmap">${JSON.stringify({ imports })}</script><script type="module" src="/app.js"></script>`,
          ],
          "/app.js": ["text/javascript", bundle.outputFiles[0].text],
          "/scripted.gguf": ["application/octet-stream", scriptedModel({ scripts: SCRIPTS, template: TEMPLATE, context: 512 })],
        };
        const special = (_, response, pathname) => {
          if (!files[pathname]) return false;
          const [type, body] = files[pathname];
          response.writeHead(200, { "Content-Type": type }).end(body);
          return true;
        };
        server = await serve({ folders: mounts(), special });
        browser = await launch(name);
      },
      { timeout: 2 * MINUTE },
    );
    after(async () => {
      await browser?.close();
      await server?.close();
    });

    async function run(which) {
      const page = await browser.newPage();
      try {
        await page.goto(`${server.origin}/`);
        await page.waitForFunction("globalThis.cases");
        return await page.evaluate((which) => globalThis.cases[which](), which);
      } finally {
        await page.close();
      }
    }

    test("generateText: text, usage, warnings and what speculation did", { timeout: MINUTE }, async () => {
      const { text, finishReason, usage, warnings, speculation, stopped, short } = await run("text");
      assert.equal(text, "It rains in Paris.");
      assert.equal(finishReason, "stop");
      assert.equal(usage.outputTokens, 3);
      assert.ok(usage.inputTokens > 0);
      assert.deepEqual(
        warnings.map(({ feature }) => feature),
        ["reasoning"],
      );
      assert.equal(speculation.active, false);
      assert.equal(stopped, "It rains");
      assert.deepEqual(short, ["It", "length"]);
    });

    test("streamText: pieces as they come, and an abort", { timeout: MINUTE }, async () => {
      const { pieces, text, finishReason, usage, parts, next } = await run("stream");
      assert.deepEqual(pieces, ["It", " rains", " in Paris."]);
      assert.equal(text, pieces.join(""));
      assert.equal(finishReason, "stop");
      assert.equal(usage.outputTokens, 3);
      assert.ok(parts.includes("abort"), parts.join());
      assert.equal(next, text, "the engine goes on");
    });

    test("tools are called, and their results go back to the model", { timeout: MINUTE }, async () => {
      const { asked, whole, steps, text, calls } = await run("tools");
      assert.deepEqual(asked, [{ city: "Paris" }, { city: "Paris" }]);
      assert.deepEqual(steps, ["tool-calls", "stop"]);
      assert.equal(whole, "It rains in Paris.");
      assert.equal(text, whole);
      assert.equal(calls, 1);
    });

    test("objects by a schema, and calls that are forced", { timeout: MINUTE }, async () => {
      const { steps, outputs, calls } = await run("json");
      assert.deepEqual(steps, [
        [1, ["responseFormat beside tools"]],
        [0, []],
      ]);
      for (const { sky, ...more } of [...outputs, ...calls.map(({ input }) => input)]) {
        assert.ok(["rain", "sun"].includes(sky), sky);
        assert.deepEqual(more, {});
      }
      assert.deepEqual(
        calls.map(({ toolName }) => toolName),
        ["weather", "weather"],
      );
    });

    test("what the engine cannot do is an error", { timeout: MINUTE }, async () => {
      const found = await run("refused");
      assert.match(found[0], /^schema: .*not/);
      assert.match(found[1], /^bad_option: prompt is "file"/);
      assert.match(found[2], /^bad_option: providerOptions.foredraft.best_of/);
      assert.equal(found[3], "answered");
      assert.match(found[4], /^bad_option: providerOptions.foredraft.response_format/);
    });
  });
}
