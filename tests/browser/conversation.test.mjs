// A long conversation of short turns with a real model, in both browsers: each turn reads only what is new, memory stays as it
// is, and what is found in the cache gives the same text as what is read afresh.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { MODEL, browserNames, launch, modelsFolder, startServer } from "./browsers.mjs";

const MINUTE = 60_000;
const TURNS = 20;

/** Runs in the page. */
async function converse({ model, turns }) {
  const { Engine } = await import("/pkg/index.js");
  const engine = await Engine.load({ model, device: "cpu", context: 1024, storage: "off" });
  const ask = (messages) => engine.chat.completions.create({ messages, max_tokens: 6 });
  const messages = [];
  const answers = [];
  for (let turn = 0; turn < turns; turn++) {
    messages.push({ role: "user", content: `What comes after ${turn}?` });
    const { choices, usage } = await ask(messages);
    messages.push(choices[0].message);
    answers.push({ text: choices[0].message.content, usage, memory: await engine.memory() });
  }
  // Something else in the cache, so that the same messages are read from their first token on.
  const middle = turns / 2;
  await engine.completions.create({ prompt: "x", max_tokens: 1 });
  const fresh = await ask(messages.slice(0, 2 * middle + 1));
  engine.unload();
  return { answers, middle, fresh: { text: fresh.choices[0].message.content, usage: fresh.usage } };
}

for (const name of browserNames) {
  describe(`${name}: a conversation`, { concurrency: false }, () => {
    let browser;
    let server;

    before(
      async () => {
        server = await startServer(modelsFolder());
        browser = await launch(name, { gpu: false });
      },
      { timeout: 2 * MINUTE },
    );
    after(async () => {
      await browser?.close();
      await server?.close();
    });

    test(`${TURNS} short turns read only what is new, and no memory grows`, { timeout: 3 * MINUTE }, async (t) => {
      const page = await browser.newPage();
      await page.goto(`${server.origin}/blank`);
      const { answers, middle, fresh } = await page.evaluate(converse, { model: `/models/${MODEL}`, turns: TURNS });
      await page.close();

      assert.equal(answers.length, TURNS);
      const cached = ({ usage }) => usage.prompt_tokens_details.cached_tokens;
      assert.equal(cached(answers[0]), 0);
      for (const [turn, answer] of answers.entries()) {
        if (turn === 0) continue;
        const { prompt_tokens, completion_tokens } = answers[turn - 1].usage;
        // All that was read and written, but for the last token, whose row nobody has computed.
        assert.ok(
          cached(answer) >= prompt_tokens + completion_tokens - 2,
          `turn ${turn}: ${cached(answer)} cached, ${prompt_tokens} + ${completion_tokens} were there`,
        );
        assert.ok(answer.usage.prompt_tokens - cached(answer) < 40, "what is new is a few words");
      }
      const [early, late] = [answers[2].memory, answers.at(-1).memory];
      assert.deepEqual(late, early, "the byte ledger and the pages of the wasm");

      assert.equal(cached({ usage: fresh.usage }), 0);
      assert.equal(fresh.usage.prompt_tokens, answers[middle].usage.prompt_tokens);
      assert.equal(fresh.text, answers[middle].text, "what was cached gives another text than what is read afresh");
      t.diagnostic(`${answers.at(-1).usage.prompt_tokens} tokens at last, ${cached(answers.at(-1))} of them cached; ${late.wasm_bytes >> 20} MiB`);
    });
  });
}
