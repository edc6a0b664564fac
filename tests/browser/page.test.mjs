// The demo page, driven as a user would, in both browsers; screenshots go to tests/out.
import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { DRAFT, MODEL, browserNames, launch, modelsFolder, outDir, startServer } from "./browsers.mjs";

const MINUTE = 60_000;
const PROMPT = "Say: one two three one two three one two three";

for (const name of browserNames) {
  describe(`the page in ${name}`, { concurrency: false }, () => {
    let browser;
    let server;
    let models;

    before(async () => {
      models = modelsFolder();
      server = await startServer(models);
      browser = await launch(name);
    }, { timeout: 2 * MINUTE });
    after(async () => {
      await browser?.close();
      await server?.close();
    });

    const text = (page, selector) => page.$eval(selector, (element) => element.textContent.trim());
    const shot = (page, what) => page.screenshot({ path: path.join(outDir, `${name}-${what}.png`) });
    const answered = (page) => page.waitForSelector("#stop[hidden]", { timeout: 2 * MINUTE });

    test("load a file, ask, stop, ask again", { timeout: 5 * MINUTE }, async (t) => {
      const page = await browser.newPage();
      const problems = [];
      page.on("pageerror", (error) => problems.push(error.message));
      await page.setViewport({ width: 1280, height: 860 });
      await page.goto(`${server.origin}/?device=cpu&context=512&max_tokens=16&speculation=ngram`);
      await page.screenshot({ path: path.join(outDir, `${name}-start.png`) });
      assert.equal(await page.$eval("#send", (button) => button.disabled), true);

      const file = await page.$("#model-file");
      await file.uploadFile(path.join(models, MODEL));
      await page.waitForFunction(() => document.querySelector("#model-file-name").textContent.includes("98.4 MB"));
      await page.click("#load");
      await page.waitForSelector("#prompt:not([disabled])", { timeout: MINUTE });
      assert.match(await text(page, "#badge"), /CPU/);

      await page.type("#prompt", PROMPT);
      await page.keyboard.press("Enter");
      await page.waitForSelector(".turn.assistant mark.drafted", { timeout: MINUTE });
      await answered(page);
      assert.match((await text(page, ".turn.assistant .text")).toLowerCase(), /one two three one two three/);
      // Accepted tokens are marked by more than their colour.
      const line = await page.$eval("mark.drafted", (mark) => getComputedStyle(mark).textDecorationLine);
      assert.equal(line, "underline");
      assert.match(await text(page, "#figure-speed"), /^\d+\.\d$/);
      assert.match(await text(page, "#figure-acceptance"), /^\d+ % \(\d+ of \d+\)$/);
      assert.match(await text(page, "#figure-length"), /^\d\.\d\d$/);
      assert.match(await text(page, "#figure-device"), /CPU/);
      assert.match(await text(page, "#reason"), /^Speculation on: .*ngram/);
      await shot(page, "answer");
      t.diagnostic(`${await text(page, "#figure-speed")} tokens/s, acceptance ${await text(page, "#figure-acceptance")}`);

      // Off: nothing is marked, and the panel says why.
      await page.click('input[name="speculation"][value="off"]');
      await page.$eval("#max-tokens", (input) => (input.value = "200"));
      await page.type("#prompt", "Count from one to one hundred.");
      await page.click("#send");
      await page.waitForSelector("#stop:not([hidden])");
      await page.waitForFunction(() => [...document.querySelectorAll(".turn.assistant .text")].at(-1).textContent.length > 5, { timeout: MINUTE });
      await page.keyboard.press("Escape");
      await page.waitForSelector("#stop[hidden]", { timeout: 10_000 });
      assert.match(await text(page, ".turn.assistant:last-child .note"), /stopped/);
      assert.equal(await page.$(".turn.assistant:last-child mark"), null);
      assert.match(await text(page, "#reason"), /^Speculation off: /);

      await page.emulateMediaFeatures?.([{ name: "prefers-color-scheme", value: "dark" }]).catch(() => {});
      await shot(page, "dark");
      await page.setViewport({ width: 390, height: 844 });
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `the page is ${overflow} pixels wider than a phone`);
      await page.screenshot({ path: path.join(outDir, `${name}-phone.png`), fullPage: true });

      await page.click("#unload");
      assert.equal(await page.$eval("#prompt", (input) => input.disabled), true);
      assert.deepEqual(problems, []);
      await page.close();
    });

    test("a wrong address is told in words, and a right one loads after it", { timeout: 2 * MINUTE }, async () => {
      const page = await browser.newPage();
      await page.goto(`${server.origin}/?model=/models/none.gguf&device=cpu&context=128`);
      await page.click("#load");
      await page.waitForSelector("#alert:not([hidden])", { timeout: 30_000 });
      assert.match(await text(page, "#alert"), /none\.gguf.*404/);
      await page.$eval("#model-url", (input) => (input.value = ""));
      await page.type("#model-url", `/models/${MODEL}`);
      await page.focus("#load");
      await page.keyboard.press("Enter");
      await page.waitForSelector("#prompt:not([disabled])", { timeout: MINUTE });
      assert.equal(await page.$eval("#alert", (alert) => alert.hidden), true);
      await page.close();
    });

    test("an address asks for speculation by a draft model", { timeout: MINUTE }, async () => {
      const page = await browser.newPage();
      const chosen = () => page.$eval('input[name="speculation"]:checked', ({ value }) => value.split(",")[0]);
      await page.goto(`${server.origin}/?speculation=model&draft=/models/${DRAFT}`);
      assert.equal(await chosen(), "drafter=model");
      await page.goto(`${server.origin}/?speculation=model`);
      assert.equal(await chosen(), "auto", "there is no model to draft by");
      await page.close();
    });

    test("a file dropped beside the zone is the model", { timeout: MINUTE }, async () => {
      const page = await browser.newPage();
      await page.goto(server.origin);
      const kept = await page.evaluate(() => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File(["GGUF"], "dropped.gguf"));
        const drag = (type) => new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true });
        return ["dragover", "drop"].every((type) => !document.querySelector("header").dispatchEvent(drag(type)));
      });
      assert.ok(kept, "the browser would have left the page for the file");
      assert.match(await text(page, "#model-file-name"), /^dropped\.gguf/);
      await page.close();
    });

    test("the bench measures and gives its figures as JSON", { timeout: 5 * MINUTE }, async (t) => {
      const page = await browser.newPage();
      await page.setViewport({ width: 1000, height: 900 });
      // Three categories of the suite, few tokens: what is measured here is that it measures.
      await page.evaluateOnNewDocument(() => {
        const real = globalThis.fetch;
        globalThis.fetch = async (address, options) => {
          const answer = await real(address, options);
          if (!String(address).endsWith("prompts.json")) return answer;
          const suite = await answer.json();
          suite.prompts = suite.prompts.filter(({ category }) => ["story", "qa", "copy"].includes(category));
          return new Response(JSON.stringify(suite));
        };
      });
      await page.goto(`${server.origin}/bench.html?model=/models/${MODEL}&device=cpu&max_tokens=12`);
      await page.click("#run");
      await page.waitForSelector("#found:not([hidden])", { timeout: 4 * MINUTE });
      const rows = await page.$$eval("#rows tr", (lines) => lines.map((line) => [...line.children].map((cell) => cell.textContent)));
      assert.deepEqual(rows.map(([category]) => category), ["story", "qa", "copy"]);
      for (const row of rows) for (const cell of row.slice(1)) assert.match(cell, /^\d+\.\d+$/);
      const report = await page.$eval("#download", async (link) => (await fetch(link.href)).json());
      assert.equal(report.device.kind, "cpu");
      assert.equal(report.controls.length, 1, "plain decoding against itself");
      assert.equal(report.verify_cost["1"], 1);
      assert.equal(report.categories.filter(({ config }) => config === "auto").flatMap(({ prompts }) => prompts).length, 3);
      t.diagnostic(await text(page, "#notes"));
      await shot(page, "bench");
      await page.close();
    });

    test("every control has a name", { timeout: MINUTE }, async () => {
      const page = await browser.newPage();
      for (const address of [server.origin, `${server.origin}/bench.html`]) {
        await page.goto(address);
        const nameless = await page.evaluate(() =>
          [...document.querySelectorAll("input, select, textarea, button")]
            .filter((control) => !(control.labels?.length || control.textContent.trim() || control.ariaLabel))
            .map((control) => control.outerHTML),
        );
        assert.deepEqual(nameless, [], address);
      }
      await page.close();
    });
  });
}
