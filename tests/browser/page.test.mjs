// The demo page, driven as a user would, in both browsers; screenshots go to tests/out.
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { mounts, serve } from "../../web/scripts/serve.mjs";
import { DRAFT, MODEL, browserNames, launch, modelsFolder, outDir, startServer } from "./browsers.mjs";
import { scriptedModel } from "./scripted.mjs";

const MINUTE = 60_000;
const PROMPT = "Say: one two three one two three one two three";
const TABS = ["chat", "race", "bench", "compatibility"];
/** What a question is for, and what it is answered with, by the model that is made for it. */
const SCRIPT = { "<|say|>": ["Hello", " there,", " world", " of", " drafts."] };
/** A driver that crashes, on request: the device of the page's worker is destroyed. */
const CRASH = `{
  const request = GPUAdapter.prototype.requestDevice;
  let device;
  GPUAdapter.prototype.requestDevice = async function (...args) { return (device = await request.apply(this, args)); };
  new BroadcastChannel("crash").onmessage = () => device.destroy();
}
`;
const web = fileURLToPath(new URL("../../web/package.json", import.meta.url));
const AXE = readFileSync(createRequire(web).resolve("axe-core/axe.min.js"), "utf8");

for (const name of browserNames) {
  describe(`the page in ${name}`, { concurrency: false }, () => {
    let browser;
    let server;
    let models;

    before(
      async () => {
        models = modelsFolder();
        server = await startServer(models);
        // The page is the same on every device, and the self-test of a GPU in software takes more than a minute.
        browser = await launch(name, { gpu: false });
      },
      { timeout: 2 * MINUTE },
    );
    after(async () => {
      await browser?.close();
      await server?.close();
    });

    /** A new page at an address; what breaks in it or against its security policy is collected in `problems`. */
    async function open(address, { reducedMotion = false } = {}) {
      const page = await browser.newPage();
      page.problems = [];
      // Firefox reports a request for the icon that a reload cuts off as an error of the service worker.
      const cutOff = /A ServiceWorker intercepted the request and encountered an unexpected error/;
      page.on("pageerror", ({ message }) => cutOff.test(message) || page.problems.push(message));
      await page.setViewport({ width: 1280, height: 860 });
      await page.evaluateOnNewDocument((calm) => {
        globalThis.violations = [];
        addEventListener("securitypolicyviolation", (event) =>
          globalThis.violations.push(`${event.violatedDirective} ${event.blockedURI}`),
        );
        const real = globalThis.matchMedia.bind(globalThis);
        if (calm) globalThis.matchMedia = (query) => (query.includes("reduced-motion") ? { matches: true } : real(query));
      }, reducedMotion);
      await page.goto(address);
      return page;
    }

    /** Closes a page that must have had no problems. */
    async function close(page) {
      assert.deepEqual([...page.problems, ...(await page.evaluate(() => globalThis.violations))], []);
      await page.close();
    }

    const text = (page, selector) => page.$eval(selector, (element) => element.textContent.trim());
    const shot = (page, what) => page.screenshot({ path: path.join(outDir, `${name}-${what}.png`) });
    const answered = (page) => page.waitForSelector("#stop[hidden]", { timeout: 2 * MINUTE });
    const loaded = (page) => page.waitForSelector("#prompt:not([disabled])", { timeout: MINUTE });
    const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    const fill = (page, selector, value) =>
      page.$eval(
        selector,
        (field, value) => {
          field.value = value;
          for (const type of ["input", "change"]) field.dispatchEvent(new Event(type, { bubbles: true }));
        },
        value,
      );

    /** Waits until the service worker has the page's files. */
    const kept = (page) =>
      page.evaluate(async () => {
        const { active } = await navigator.serviceWorker.ready;
        while (active.state !== "activated") await new Promise((resolve) => setTimeout(resolve, 20));
      });

    async function loadByAddress(page, model = MODEL) {
      await fill(page, "#model-url", `/models/${model}`);
      await page.click("#load");
      await loaded(page);
    }

    test("load a file, ask, stop, ask again", { timeout: 5 * MINUTE }, async (t) => {
      const page = await open(`${server.origin}/?device=cpu&context=512&max_tokens=16&speculation=ngram`);
      assert.equal(await page.$eval("#send", (button) => button.disabled), true);

      const file = await page.$("#model-file");
      await file.uploadFile(path.join(models, MODEL));
      await page.waitForFunction(() => document.querySelector("#model-file-name").textContent.includes("98.4 MB"));
      await page.click("#load");
      await loaded(page);
      assert.match(await text(page, "#badge"), /CPU/);

      await page.type("#prompt", PROMPT);
      await page.keyboard.press("Enter");
      await page.waitForSelector(".turn.assistant mark.drafted", { timeout: MINUTE });
      await answered(page);
      const answer = await page.$eval(".turn.assistant .text", (body) => body.innerText);
      assert.match(answer.toLowerCase(), /one two three one two three/);
      assert.match(await text(page, "#announcement"), /^The model answered: /);
      // What was guessed is told by more than its colour: kept, and written over a wrong guess.
      const line = (selector) => page.$eval(selector, (mark) => getComputedStyle(mark).textDecorationStyle);
      assert.equal(await line(".turn mark.drafted"), "solid");
      assert.equal(await line(".legend .corrected"), "dotted");
      assert.match(await text(page, "#figure-speed"), /^\d+\.\d$/);
      assert.match(await text(page, "#figure-acceptance"), /^\d+ % \(\d+ of \d+\)$/);
      assert.match(await text(page, "#figure-length"), /^\d\.\d\d$/);
      assert.match(await text(page, "#figure-round"), /^\d+ ms$/);
      assert.match(await text(page, "#figure-device"), /CPU/);
      assert.match(await text(page, "#reason"), /^Speculation on: .*ngram/);
      assert.match(await text(page, "#drafter-rows"), /^ngram\d+ of \d+ kept$/);
      assert.match(
        await page.$eval("#position-chart svg", (svg) => svg.getAttribute("aria-label")),
        /guess 1: \d+ of \d+ kept/,
      );
      t.diagnostic(`${await text(page, "#figure-speed")} tokens/s, acceptance ${await text(page, "#figure-acceptance")}`);

      // Wrong guesses are in the text where a guess was rejected, and shown on request.
      const [accepted, drafted] = /\((\d+) of (\d+)\)/
        .exec(await text(page, "#figure-acceptance"))
        .slice(1)
        .map(Number);
      const wrong = await page.$$eval(".turn.assistant del.rejected", (all) => all.map((del) => getComputedStyle(del).display));
      assert.equal(wrong.length > 0, drafted > accepted, `${accepted} of ${drafted} guesses were kept`);
      assert.ok(wrong.every((display) => display === "none"));
      await page.click("#show-rejected");
      const shown = await page.$$eval(".turn.assistant del.rejected", (all) => all.map((del) => getComputedStyle(del).display));
      assert.ok(shown.every((display) => display === "inline"));

      // Off: nothing is marked, and the panel says why.
      await page.click('input[name="speculation"][value="off"]');
      await fill(page, "#max_tokens", "200");
      await page.type("#prompt", "Tell me a long story about a fox.");
      await page.click("#send");
      await page.waitForSelector("#stop:not([hidden])");
      const last = () => page.$$eval(".turn.assistant .text", (all) => all.at(-1).textContent);
      while ((await last()).length <= 5) await new Promise((resolve) => setTimeout(resolve, 50));
      await page.keyboard.press("Escape");
      await page.waitForSelector("#stop[hidden]", { timeout: 10_000 });
      assert.match(await text(page, ".turn.assistant:last-child .note"), /stopped/);
      assert.equal(await page.$(".turn.assistant:last-child mark"), null);
      assert.match(await text(page, "#reason"), /^Speculation off: /);

      await page.click("#new-chat");
      assert.equal(await page.$(".turn"), null);
      await page.click("#unload");
      assert.equal(await page.$eval("#prompt", (input) => input.disabled), true);
      await page.evaluate(() => localStorage.clear());
      await close(page);
    });

    test(
      "a wrong address is told in words with what to do, and a right one loads after it",
      { timeout: 2 * MINUTE },
      async () => {
        const page = await open(`${server.origin}/?model=/models/none.gguf&device=cpu&context=128`);
        await page.click("#load");
        await page.waitForSelector("#alert:not([hidden])", { timeout: 30_000 });
        assert.match(await text(page, "#alert-message"), /none\.gguf.*404/);
        assert.match(await text(page, "#alert-advice"), /drop it onto this page/);
        await fill(page, "#model-url", "");
        await page.type("#model-url", `/models/${MODEL}`);
        await page.focus("#load");
        await page.keyboard.press("Enter");
        await loaded(page);
        assert.equal(await page.$eval("#alert", (alert) => alert.hidden), true);
        await close(page);
      },
    );

    test("an address asks for speculation by a draft model", { timeout: MINUTE }, async () => {
      const chosen = (page) => page.$eval('input[name="speculation"]:checked', ({ value }) => value);
      const drafters = (page) => page.$$eval(".checks input:checked", (boxes) => boxes.map((box) => box.value));
      const page = await open(`${server.origin}/?speculation=model&draft=/models/${DRAFT}`);
      assert.equal(await chosen(page), "custom");
      assert.deepEqual(await drafters(page), ["model"]);
      await page.goto(`${server.origin}/?speculation=model`);
      assert.equal(await chosen(page), "auto", "there is no model to draft by");
      await close(page);
    });

    test("a file dropped beside the zone is the model, and loads", { timeout: MINUTE }, async () => {
      const page = await open(`${server.origin}/?device=cpu&context=128`);
      const kept = await page.evaluate(async (address) => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([await (await fetch(address)).blob()], "dropped.gguf"));
        const drag = (type) => new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true });
        return ["dragover", "drop"].every((type) => !document.querySelector("header").dispatchEvent(drag(type)));
      }, `/models/${DRAFT}`);
      assert.ok(kept, "the browser would have left the page for the file");
      assert.match(await text(page, "#model-file-name"), /^dropped\.gguf/);
      await page.click("#load");
      await loaded(page);
      await page.waitForFunction(() => /^\d+(\.\d)? MB$/.test(document.querySelector("#figure-memory").textContent));
      await close(page);
    });

    test("the catalog is that of the crate, and nothing is fetched before it is asked for", { timeout: MINUTE }, async () => {
      const outside = [];
      const page = await open("about:blank");
      page.on("request", (request) => {
        // Firefox has fonts of its own as data.
        if (/^https?:/.test(request.url()) && !request.url().startsWith(server.origin)) outside.push(request.url());
      });
      await page.goto(server.origin);
      const catalog = JSON.parse(readFileSync(new URL("../../web/page/catalog.json", import.meta.url), "utf8"));
      const offered = await page.$$eval('#catalog input[name="source"]', (radios) => radios.map((radio) => radio.value));
      assert.deepEqual(
        offered,
        catalog.map((entry) => entry.name),
      );
      assert.deepEqual(outside, []);
      await close(page);
    });

    test("a model that came by address is kept, and can be deleted", { timeout: MINUTE }, async () => {
      const page = await open(`${server.origin}/?model=/models/${DRAFT}&device=cpu&context=128`);
      await page.click("#load");
      await loaded(page);
      await page.click("#tab-compatibility");
      const button = `#stored button[aria-label="Delete ${DRAFT}"]`;
      await page.waitForSelector(button, { timeout: 10_000 });
      await page.click(button);
      await page.waitForFunction((selector) => !document.querySelector(selector), { timeout: 10_000 }, button);
      await close(page);
    });

    test("tabs by keyboard", { timeout: MINUTE }, async () => {
      const page = await open(server.origin);
      const state = () =>
        page.evaluate(() => ({
          focused: document.activeElement.id,
          selected: [...document.querySelectorAll('[role="tab"][aria-selected="true"]')].map((tab) => tab.id),
          shown: [...document.querySelectorAll('[role="tabpanel"]:not([hidden])')].map((panel) => panel.id),
          reachable: [...document.querySelectorAll('[role="tab"]')].filter((tab) => tab.tabIndex === 0).map((tab) => tab.id),
          hash: location.hash,
        }));
      const at = (tab) => ({
        focused: `tab-${tab}`,
        selected: [`tab-${tab}`],
        shown: [`panel-${tab}`],
        reachable: [`tab-${tab}`],
        hash: `#${tab}`,
      });
      await page.focus("#tab-chat");
      for (const tab of ["race", "bench"]) {
        await page.keyboard.press("ArrowRight");
        assert.deepEqual(await state(), at(tab));
      }
      await page.keyboard.press("Home");
      assert.deepEqual(await state(), at("chat"));
      await page.keyboard.press("ArrowLeft");
      assert.deepEqual(await state(), at("compatibility"), "it goes round");
      await page.keyboard.press("ArrowRight");
      await page.keyboard.press("ArrowRight");
      assert.deepEqual(await state(), at("race"));
      // A reload stays where it was.
      await page.reload();
      assert.deepEqual((await state()).shown, ["panel-race"]);
      await close(page);
    });

    test("settings stay, and broken ones fall back", { timeout: MINUTE }, async () => {
      const page = await open(server.origin);
      const values = () =>
        page.evaluate(() => ({
          temperature: document.querySelector("#temperature").value,
          length: document.querySelector("#length").value,
          drafters: [...document.querySelectorAll(".checks input:checked")].map((box) => box.value),
          guessing: document.querySelector('input[name="speculation"]:checked').value,
        }));
      const initial = await values();
      assert.deepEqual(initial, { temperature: "0", length: "goodput", drafters: ["suffix"], guessing: "auto" });

      await page.click("#open-settings");
      await page.click('.checks input[value="ngram"]');
      await page.select("#length", "fixed");
      await fill(page, "#temperature", "0.8");
      await page.click("#close-settings");
      await page.click('input[name="speculation"][value="custom"]');
      const changed = { temperature: "0.8", length: "fixed", drafters: ["suffix", "ngram"], guessing: "custom" };
      assert.deepEqual(await values(), changed);
      await page.reload();
      assert.deepEqual(await values(), changed);

      // What a setting cannot be is not taken, neither from the form nor from what is stored.
      await fill(page, "#temperature", "-3");
      assert.equal(
        await page.$eval("#temperature", (field) => field.ariaInvalid ?? field.getAttribute("aria-invalid")),
        "true",
      );
      await page.reload();
      assert.equal((await values()).temperature, "0.8");
      const store = (stored) => page.evaluate((stored) => localStorage.setItem("foredraft.settings", stored), stored);
      await store(
        JSON.stringify({ temperature: "hot", length: "none", drafters: ["ngram", 7], guessing: "custom", seed: 1e400 }),
      );
      await page.reload();
      assert.deepEqual(await values(), { ...initial, guessing: "custom" }, "only what is valid is kept");
      for (const broken of ["{", "null", "[]", "7"]) {
        await store(broken);
        await page.reload();
        assert.deepEqual(await values(), initial, broken);
      }
      await page.evaluate(() => localStorage.clear());
      await close(page);
    });

    test("a race gives the same text twice, and is replayed", { timeout: 3 * MINUTE }, async (t) => {
      const page = await open(`${server.origin}/?device=cpu&context=512&max_tokens=24&speculation=suffix#race`, {
        reducedMotion: true,
      });
      assert.equal(await page.$eval("#race-start", (button) => button.disabled), true);
      await loadByAddress(page);
      await fill(page, "#race-prompt", PROMPT);
      await page.click("#race-start");
      await page.waitForSelector("#race-replay:not([hidden])", { timeout: 2 * MINUTE });
      assert.match(await text(page, "#race-result"), /^\d+\.\d\d×.*Same text, token by token \(\d+ tokens\)\.$/);
      const lane = (which) => page.$eval(`#lane-${which}-text .text`, (body) => body.innerText);
      assert.ok((await lane("plain")).length > 10);
      assert.equal(await lane("plain"), await lane("guessing"));
      assert.equal(await page.$("#lane-plain mark"), null);
      assert.ok(await page.$("#lane-guessing mark"));
      // Without motion the end is there at once; with it the replay takes as long as the runs did.
      const seconds = async (which) =>
        Number(/^(\d+\.\d) s · (\d+) tokens · /.exec(await text(page, `#lane-${which}-figures`))[1]);
      const slowest = Math.max(await seconds("plain"), await seconds("guessing"));
      await page.evaluate(() => (globalThis.matchMedia = () => ({ matches: false })));
      const began = performance.now();
      await page.click("#race-replay");
      await page.waitForSelector("#race-skip[hidden]", { timeout: MINUTE });
      assert.ok(performance.now() - began >= slowest * 1000 - 100, "the replay was faster than the runs");
      assert.equal(await lane("plain"), await lane("guessing"));
      const guessed = () => page.$$eval("#lane-guessing-text mark", (marks) => marks.map((mark) => mark.textContent));
      const first = await guessed();
      await page.click("#race-start");
      await page.waitForSelector("#race-replay:not([hidden])", { timeout: 2 * MINUTE });
      assert.deepEqual(await guessed(), first, "the second time the same is guessed, and nothing from the first answer");
      t.diagnostic(await text(page, "#race-result"));
      await close(page);
    });

    test("the bench measures and gives its figures as JSON and as SVG", { timeout: 5 * MINUTE }, async (t) => {
      const page = await browser.newPage();
      await page.setViewport({ width: 1280, height: 860 });
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
      // The old address leads to the tab.
      await page.waitForSelector("#panel-bench:not([hidden])");
      assert.equal(await page.evaluate(() => location.pathname + location.hash), "/#bench");
      await page.click("#run");
      await page.waitForSelector("#found:not([hidden])", { timeout: 4 * MINUTE });
      const rows = await page.$$eval("#rows tr", (lines) =>
        lines.map((line) => [...line.children].map((cell) => cell.textContent)),
      );
      assert.deepEqual(
        rows.map(([category]) => category),
        ["story", "qa", "copy"],
      );
      for (const row of rows) for (const cell of row.slice(1)) assert.match(cell, /^\d+\.\d+$/);
      const file = (selector) => page.$eval(selector, async (link) => (await fetch(link.href)).text());
      const report = JSON.parse(await file("#download"));
      assert.equal(report.device.kind, "cpu");
      assert.match(report.user_agent, /Mozilla/);
      assert.equal(report.controls.length, 1, "plain decoding against itself");
      const { 128: short, 600: long, ...other } = report.verify_cost_at;
      assert.deepEqual([report.verify_cost, other], [short, {}]);
      for (const costs of [short, long]) {
        assert.deepEqual(Object.keys(costs), ["1", "2", "4", "8", "16"]);
        assert.equal(costs["1"], 1);
        assert.ok(costs["16"] > 1, "sixteen columns cost more than one");
      }
      assert.equal(report.categories.filter(({ config }) => config === "auto").flatMap(({ prompts }) => prompts).length, 3);
      // The picture stands alone: it is well formed and takes no colours from the page.
      const svg = await file("#download-svg");
      const bars = await page.evaluate((svg) => {
        const parsed = new DOMParser().parseFromString(svg, "image/svg+xml");
        return parsed.querySelector("parsererror") ? -1 : parsed.querySelectorAll("rect > title").length;
      }, svg);
      assert.equal(bars, 3);
      assert.doesNotMatch(svg, /var\(|class=/);
      t.diagnostic(await text(page, "#notes"));
      await shot(page, "bench-result");
      await page.close();
    });

    test("a bench can be stopped, and the model is still there", { timeout: 2 * MINUTE }, async () => {
      const page = await open(`${server.origin}/?model=/models/${DRAFT}&device=cpu&context=1024&max_tokens=8#bench`);
      await page.click("#run");
      await page.waitForFunction(() => / of \d+$/.test(document.querySelector("#bench-text").textContent), { timeout: MINUTE });
      await page.click("#bench-stop");
      await page.waitForSelector("#run:not([hidden]):not([disabled])", { timeout: MINUTE });
      assert.equal(await page.$eval("#alert", (alert) => alert.hidden), true);
      await page.click("#tab-chat");
      await page.type("#prompt", "Hello");
      await page.click("#send");
      await page.waitForSelector(".turn.assistant .note", { timeout: MINUTE });
      await close(page);
    });

    test("a newer version of the page is offered, and taken on request", { timeout: MINUTE }, async (t) => {
      const folder = mkdtempSync(path.join(tmpdir(), "foredraft-page-"));
      t.after(() => rmSync(folder, { recursive: true }));
      cpSync(mounts()["/"], folder, { recursive: true });
      const where = await serve({ folders: { "/": folder } });
      t.after(() => where.close());
      const change = (file, from, to) => {
        const before = readFileSync(path.join(folder, file), "utf8");
        const after = before.replace(from, to);
        assert.notEqual(after, before);
        writeFileSync(path.join(folder, file), after);
      };
      const page = await open(where.origin);
      await kept(page);
      change("index.html", "<h1>foredraft</h1>", "<h1>newer</h1>");
      change("sw.js", /"[0-9a-f]{16}"/, '"0123456789abcdef"');
      await page.reload();
      await page.waitForSelector("#update:not([hidden])", { timeout: 30_000 });
      assert.equal(await text(page, "h1"), "foredraft", "what is open stays as it is");
      await Promise.all([page.waitForNavigation(), page.click("#update-now")]);
      assert.equal(await text(page, "h1"), "newer");
      const caches = await page.evaluate(() => globalThis.caches.keys());
      const versions = caches.filter((name) => name.startsWith("foredraft-page"));
      assert.deepEqual(versions, ["foredraft-page / 0123456789abcdef"], "the older files are gone");
      await close(page);
    });

    test("under a sub-path, and then without a network", { timeout: 3 * MINUTE }, async () => {
      const where = await serve({ folders: { "/some/deep path/": mounts()["/"] } });
      const page = await open(`${where.origin}/some/deep%20path/?device=cpu&context=128&max_tokens=4`);
      await kept(page);
      assert.equal(
        await page.evaluate(async () => (await navigator.serviceWorker.ready).scope),
        `${where.origin}/some/deep%20path/`,
      );
      await where.close();
      await page.reload();
      assert.equal(await text(page, "h1"), "foredraft");
      // Worker and wasm come from what was kept too.
      await (await page.$("#model-file")).uploadFile(path.join(models, DRAFT));
      await page.click("#load");
      await loaded(page);
      await page.type("#prompt", "Hello");
      await page.click("#send");
      await page.waitForSelector(".turn.assistant .note", { timeout: MINUTE });
      await page.goto(`${where.origin}/some/deep%20path/bench.html`);
      await page.waitForSelector("#panel-bench:not([hidden])");
      await close(page);
    });

    test("the security policy is strict", { timeout: MINUTE }, async () => {
      const page = await open(server.origin);
      const policy = await page.$eval('meta[http-equiv="Content-Security-Policy"]', (meta) => meta.content);
      assert.match(policy, /script-src 'self' 'wasm-unsafe-eval';/);
      assert.doesNotMatch(policy, /unsafe-inline|'unsafe-eval'/);
      // It is in force: what is written into the page does not run.
      const { ran, violations } = await page.evaluate(async () => {
        const script = document.createElement("script");
        script.textContent = "globalThis.ran = true";
        document.head.append(script);
        await new Promise((resolve) => setTimeout(resolve, 100));
        return { ran: globalThis.ran ?? false, violations: globalThis.violations.length };
      });
      assert.equal(ran, false);
      assert.equal(violations, 1, "the listener that the other tests rely on works");
      assert.ok(
        page.problems.every((problem) => problem.startsWith("Content-Security-Policy")),
        page.problems.join(),
      );
      await page.close();
    });

    test("every tab can be used by everyone, on every width", { timeout: 4 * MINUTE }, async () => {
      const page = await open(`${server.origin}/?device=cpu&context=512&max_tokens=40&speculation=ngram`, {
        reducedMotion: true,
      });
      const audit = async (what) => {
        await page.evaluate(AXE);
        const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
        assert.ok(found.passes.length > 10, "axe has looked");
        const grave = found.violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
        const told = grave.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
        assert.deepEqual(told, [], what);
      };
      await shot(page, "start");
      await audit("start");
      await page.setViewport({ width: 360, height: 740 });
      assert.ok((await overflow(page)) <= 0, "start on a phone");
      await page.screenshot({ path: path.join(outDir, `${name}-start-phone.png`), fullPage: true });
      await page.setViewport({ width: 1280, height: 860 });
      await loadByAddress(page);
      await page.type("#prompt", PROMPT);
      await page.click("#send");
      await page.waitForSelector(".turn.assistant .note", { timeout: MINUTE });
      await page.click("#tab-race");
      await fill(page, "#race-prompt", PROMPT);
      await page.click("#race-start");
      await page.waitForSelector("#race-replay:not([hidden])", { timeout: 2 * MINUTE });
      await page.click("#tab-compatibility");
      await page.waitForSelector("#probe-done:not([hidden])", { timeout: MINUTE });
      assert.match(await text(page, "#verdict"), /^Models will run on CPU/);
      assert.match(await text(page, "#facts .fact:first-child"), /^WebGPUno.*models run on the CPU/);
      assert.match(await text(page, "#facts .fact:nth-child(2)"), /^Speed to expect.*smollm2-135m-instruct about \d+/);

      const looks = [
        { look: "desktop", width: 1280, height: 860, scheme: "light" },
        { look: "dark", width: 1280, height: 860, scheme: "dark" },
        { look: "phone", width: 360, height: 740, scheme: "light" },
      ];
      for (const { look, width, height, scheme } of looks) {
        await page.setViewport({ width, height });
        // Firefox takes its colours from its own settings.
        if (name === "chromium") await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
        else if (scheme === "dark") continue;
        for (const tab of TABS) {
          await page.click(`#tab-${tab}`);
          await page.evaluate(() => scrollTo(0, 0));
          await page.screenshot({ path: path.join(outDir, `${name}-${tab}-${look}.png`), fullPage: look === "phone" });
          assert.ok((await overflow(page)) <= 0, `${tab} is wider than ${width} pixels`);
          await audit(`${tab}, ${look}`);
        }
        await page.click("#open-settings");
        await shot(page, `settings-${look}`);
        await audit(`settings, ${look}`);
        await page.click("#close-settings");
      }
      await close(page);
    });

    test("every control has a name", { timeout: MINUTE }, async () => {
      const page = await open(server.origin);
      const nameless = await page.evaluate(() =>
        [...document.querySelectorAll("input, select, textarea, button")]
          .filter((control) => !(control.labels?.length || control.textContent.trim() || control.ariaLabel))
          .map((control) => control.outerHTML),
      );
      assert.deepEqual(nameless, []);
      await close(page);
    });
  });
}

// On one browser: the page is the same in both, and what differs of their GPUs is tested with the package.
if (browserNames.includes("chromium")) {
  describe("the page on a GPU in software", { concurrency: false }, () => {
    let browser;
    let server;
    /** Whether the server has lost the model, or keeps it back. */
    let gone = false;
    let hanging = false;

    before(
      async () => {
        const template = "{% for m in messages %}<|start|>{{ m.role }}:{{ m.content }}<|end|>{% endfor %}<|say|>";
        const model = scriptedModel({ scripts: SCRIPT, template });
        const worker = CRASH + readFileSync(path.join(mounts()["/"], "worker.js"), "utf8");
        const special = (_, response, pathname) => {
          if (pathname === "/worker.js") response.writeHead(200, { "Content-Type": "text/javascript" }).end(worker);
          else if (pathname === "/scripted.gguf" && gone) response.writeHead(404).end();
          else if (pathname === "/scripted.gguf" && hanging) return true;
          else if (pathname === "/scripted.gguf") response.writeHead(200).end(model);
          else return false;
          return true;
        };
        server = await serve({ folders: mounts(), special });
        browser = await launch("chromium");
      },
      { timeout: 2 * MINUTE },
    );
    after(async () => {
      await browser?.close();
      await server?.close();
    });

    const text = (page, selector) => page.$eval(selector, (element) => element.textContent.trim());
    const ready = (page) => page.waitForSelector("#send:not([disabled]):not([hidden])", { timeout: MINUTE });
    const ask = async (page, question) => {
      await page.type("#prompt", question);
      await page.click("#send");
      await page.waitForFunction(() => document.querySelector("#send").hidden === false, { timeout: MINUTE });
    };
    const turns = (page) => page.$$eval(".turn .text", (all) => all.map((body) => body.textContent));

    test("the panel tells the adapter; a lost device is told, and the conversation goes on", { timeout: 3 * MINUTE }, async () => {
      const page = await browser.newPage();
      await page.setViewport({ width: 1280, height: 860 });
      await page.goto(`${server.origin}/?model=/scripted.gguf&device=gpu&max_tokens=8`);
      const crash = () => page.evaluate(() => new BroadcastChannel("crash").postMessage(1));
      await page.click("#load");
      await ready(page);
      await ask(page, "one?");
      const answer = Object.values(SCRIPT)[0].join("");
      assert.deepEqual(await turns(page), ["one?", answer]);
      assert.match(await text(page, "#figure-device"), /^GPU in software/);
      assert.match(await text(page, "#badge"), /GPU in software/);
      assert.match(await text(page, "#memory-parts"), /weights \d+/);
      assert.match(await text(page, "#figure-speed"), /^\d+\.\d$/);
      await page.screenshot({ path: path.join(outDir, "chromium-chat-gpu.png") });

      await crash();
      await page.type("#prompt", "two?");
      await page.click("#send");
      await page.waitForSelector('#alert[data-code="device_lost"]:not([hidden])', { timeout: 10_000 });
      assert.match(await text(page, "#alert-message"), /GPU device was lost/);
      assert.match(await text(page, "#alert-advice"), /once more when the model has been loaded again/);
      await ready(page);
      assert.deepEqual(await turns(page), ["one?", answer], "what was said is still there");
      assert.equal(await page.$eval("#prompt", ({ value }) => value), "two?", "and so is what was asked");
      await page.click("#send");
      await page.waitForFunction(() => document.querySelectorAll(".turn .note").length === 2, { timeout: MINUTE });
      assert.deepEqual(await turns(page), ["one?", answer, "two?", answer]);
      assert.equal(await page.$eval("#alert", ({ hidden }) => hidden), true);

      // Where it cannot be loaded again, that is told too, and can be tried once more.
      const drop = () =>
        page.evaluate(async () => {
          const models = await (await navigator.storage.getDirectory()).getDirectoryHandle("foredraft");
          await models.removeEntry("models", { recursive: true });
        });
      await drop();
      gone = true;
      await crash();
      await ask(page, "three?");
      await page.waitForSelector("#recover:not([hidden])", { timeout: MINUTE });
      assert.match(await text(page, "#alert-message"), /scripted\.gguf.*404/);
      assert.match(await text(page, "#badge"), /no longer running/);
      assert.equal(await page.$eval("#send", ({ disabled }) => disabled), true);
      await page.screenshot({ path: path.join(outDir, "chromium-lost.png") });
      // From the keyboard: the focus follows what can be done.
      const focused = () => page.evaluate(() => document.activeElement.id);
      await page.focus("#recover");
      await page.keyboard.press("Enter");
      await page.waitForSelector("#recover:not([hidden])", { timeout: MINUTE });
      assert.equal(await focused(), "recover");
      gone = false;
      hanging = true;
      await page.keyboard.press("Enter");
      assert.equal(await focused(), "cancel-load");
      await page.keyboard.press("Enter");
      await page.waitForSelector("#recover:not([hidden])", { timeout: MINUTE });
      assert.equal(await focused(), "recover");
      hanging = false;
      await page.keyboard.press("Enter");
      await ready(page);
      assert.equal(await focused(), "prompt");
      await page.click("#send");
      await page.waitForFunction(() => document.querySelectorAll(".turn .note").length === 3, { timeout: MINUTE });
      assert.deepEqual((await turns(page)).slice(4), ["three?", answer]);

      // Both the question and the model's reload can be given up.
      for (const giveUp of [() => page.keyboard.press("Escape"), () => page.click("#unload")]) {
        await drop();
        hanging = true;
        await crash();
        await page.type("#prompt", "four?");
        await page.click("#send");
        await page.waitForSelector('#alert[data-code="device_lost"]:not([hidden])', { timeout: 10_000 });
        await page.waitForSelector("#load-state:not([hidden])", { timeout: 10_000 });
        await giveUp();
        await page.waitForSelector("#load-state[hidden]", { timeout: 10_000 });
        hanging = false;
        if (await page.$("#model-loaded[hidden]")) break;
        assert.match(await text(page, "#alert-advice"), /once more when the model has been loaded again/);
        assert.equal(await page.$eval("#prompt", ({ value }) => value), "four?");
        await page.click("#recover");
        await ready(page);
        await page.$eval("#prompt", (prompt) => (prompt.value = ""));
      }
      await page.waitForSelector("#alert[hidden]", { timeout: 10_000 });
      await page.close();
    });
  });
}
