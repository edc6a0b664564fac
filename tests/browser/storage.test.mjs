// Models by URL, kept on the device: the built package in both browsers, against a server that counts what it sends, drops
// connections, changes files, damages bytes and goes away. The model is made of noise and loads in a moment.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { browserNames, launch } from "./browsers.mjs";
import { startFileServer } from "./file_server.mjs";
import { tinyGguf } from "./tiny_gguf.mjs";

const MINUTE = 60_000;
const MIB = 1 << 20;
const CHUNK = 4 * MIB;
/** Nothing reads the last bytes of it, and yet they are part of the file. */
const FILE = tinyGguf({ trailing: 5 * MIB });
const OTHER = tinyGguf({ seed: 2, trailing: 5 * MIB });
const digest = (bytes) => createHash("sha256").update(bytes).digest("hex");
const SHA256 = digest(FILE);
const PATH = "/tiny.gguf";

/** Workers as a developer may have them, each of which lacks something or is told lies about it. */
const WORKERS = {
  "/no-opfs.js": "delete FileSystemFileHandle.prototype.createSyncAccessHandle;",
  "/no-storage.js": `StorageManager.prototype.getDirectory = async () => { throw new Error("none here"); };
    Object.defineProperty(globalThis, "caches", { value: undefined });`,
  "/full-cache.js": `delete FileSystemFileHandle.prototype.createSyncAccessHandle;
    Cache.prototype.put = async () => { throw new DOMException("no room", "QuotaExceededError"); };`,
  "/broken-place.js": `const { getDirectoryHandle } = FileSystemDirectoryHandle.prototype;
    FileSystemDirectoryHandle.prototype.getDirectoryHandle = async function (name, options) {
      if (name.length === 32) throw new DOMException("broken", "InvalidStateError"); // a model's folder
      return getDirectoryHandle.call(this, name, options);
    };`,
  "/small-quota.js": "StorageManager.prototype.estimate = async () => ({ quota: 20e6, usage: 5e6 });",
  // Stands for a disk that fills while the file is written.
  "/full-disk.js": `const { write } = FileSystemSyncAccessHandle.prototype;
    FileSystemSyncAccessHandle.prototype.write = function (bytes, options) {
      if (options.at >= 8 << 20) throw new DOMException("no room", "QuotaExceededError");
      return write.call(this, bytes, options);
    };`,
};

/** Runs in the page: loads a model and gives its text and what became of its file, or the error. */
async function load({ model, draftModel, storage, worker }) {
  const { Engine } = await import("/pkg/index.js");
  const progress = [];
  let engine;
  try {
    engine = await Engine.load({
      model,
      draftModel,
      storage,
      device: "cpu",
      context: 64,
      onProgress: (event) => progress.push(event),
      ...(worker && { assets: { worker } }),
    });
    const answer = await engine.completions.create({ prompt: "one two", max_tokens: 12, speculation: "off" });
    return { text: answer.choices[0].text, storage: engine.storage, progress };
  } catch ({ name, code, message, details }) {
    return { error: { name, code, message, details }, progress };
  } finally {
    engine?.unload();
  }
}

/** Run in a page. */
const list = () => import("/pkg/index.js").then(({ storage }) => storage.list());
const clear = () => import("/pkg/index.js").then(({ storage }) => storage.clear());
const persist = () => import("/pkg/index.js").then(({ storage }) => storage.persist());
const remove = (url) => import("/pkg/index.js").then(({ storage }) => storage.delete(url)).catch(({ code }) => code);
const somethingIsStored = () => import("/pkg/index.js").then(async ({ storage }) => (await storage.list())[0]?.stored_bytes > 0);

for (const name of browserNames) {
  describe(name, { concurrency: false }, () => {
    let browser;
    let server;
    let state;
    /** A page that looks at what is stored. */
    let desk;
    const pages = [];

    before(async () => {
      server = await startFileServer({ file: FILE, paths: [PATH, "/twin.gguf"], workers: WORKERS });
      state = server.state;
      browser = await launch(name, { gpu: false });
    }, { timeout: 2 * MINUTE });
    after(async () => {
      await browser?.close();
      await server?.close();
    });
    beforeEach(async () => {
      server.reset();
      desk = await open();
      await desk.evaluate(clear);
    });
    afterEach(async () => {
      for (const page of pages.splice(0)) if (!page.isClosed()) await page.close();
    });

    async function open() {
      const page = await browser.newPage();
      pages.push(page);
      await page.goto(`${server.origin}/blank`);
      return page;
    }
    /** In a fresh page, so that nothing is left of the one before. */
    async function inPage(work, ...args) {
      const page = await open();
      const result = await page.evaluate(work, ...args);
      await page.close();
      return result;
    }
    const loaded = async (options) => {
      const result = await inPage(load, { model: PATH, ...options });
      assert.equal(result.error, undefined, JSON.stringify(result.error));
      return result;
    };
    const refused = async (code, options) => {
      const { error, progress } = await inPage(load, { model: PATH, ...options });
      assert.equal(error?.code, code, JSON.stringify(error));
      assert.equal(error.name, "ForedraftError");
      return { error, progress };
    };
    /** The first start of a range that was asked for. */
    const firstAsked = () => Math.min(...state.requests.map(({ start }) => start));

    test("a model is kept while it loads, and loads again without a network", { timeout: MINUTE }, async () => {
      const first = await loaded();
      assert.deepEqual(first.storage, [{ url: `${server.origin}${PATH}`, from: "network", kept: "opfs" }]);
      assert.equal(state.sent, FILE.length, "each byte came once");
      assert.ok(state.requests.length >= 5, `the model was read in ${state.requests.length} ranges`);
      const stored = { url: `${server.origin}${PATH}`, size_bytes: FILE.length, stored_bytes: FILE.length, complete: true };
      assert.deepEqual(await desk.evaluate(list), [{ ...stored, sha256: SHA256, place: "opfs" }]);

      state.down = true;
      state.requests = [];
      const second = await loaded();
      assert.deepEqual(state.requests, [], "nothing was asked of the server");
      assert.equal(second.text, first.text);
      assert.deepEqual(second.storage.map(({ from, kept }) => [from, kept]), [["storage", "opfs"]]);
      Object.assign(state, { down: false, gone: true, budget: 0 });
      await refused("download_failed", { storage: "off" });
    });

    test("a download that broke is continued, and nothing comes twice", { timeout: MINUTE }, async () => {
      state.budget = 10 * MIB;
      const { error } = await refused("download_failed");
      assert.match(error.message, /tiny\.gguf/);
      const [part] = await desk.evaluate(list);
      assert.equal(part.complete, false);
      assert.equal(part.size_bytes, FILE.length);
      assert.ok(part.stored_bytes >= CHUNK && part.stored_bytes < FILE.length, `${part.stored_bytes} bytes are stored`);

      Object.assign(state, { budget: Infinity, sent: 0, requests: [] });
      const result = await loaded({ model: { url: PATH, sha256: SHA256 } });
      assert.equal(firstAsked(), part.stored_bytes, "the download goes on where the stored part ends");
      assert.equal(state.sent, FILE.length - part.stored_bytes);
      assert.deepEqual(result.storage.map(({ from, kept }) => [from, kept]), [["network and storage", "opfs"]]);
      assert.equal((await desk.evaluate(list))[0].sha256, SHA256);
    });

    test("a download whose versions cannot be told apart is continued only by its digest", { timeout: MINUTE }, async () => {
      for (const [model, continued] of [[PATH, false], [{ url: PATH, sha256: SHA256 }, true]]) {
        await desk.evaluate(clear);
        Object.assign(state, { etag: undefined, budget: 10 * MIB, gone: true });
        await refused("download_failed");
        Object.assign(state, { budget: Infinity, sent: 0 });
        await loaded({ model });
        assert.equal(state.sent < FILE.length, continued, `${state.sent} bytes were sent`);
      }
    });

    test("a tab that is closed while it loads leaves what has come", { timeout: MINUTE }, async () => {
      Object.assign(state, { budget: 10 * MIB, stall: true });
      const page = await open();
      page.evaluate(load, { model: PATH }).catch(() => {}); // the page goes while this runs
      await desk.waitForFunction(somethingIsStored, { polling: 100 });
      const busy = await desk.evaluate(remove, PATH);
      assert.equal(busy, "storage_busy", "what is being loaded is not deleted");
      await page.close();

      Object.assign(state, { budget: Infinity, sent: 0, requests: [] });
      await loaded();
      assert.ok(firstAsked() >= CHUNK, `the second load asked from byte ${firstAsked()} on`);
      assert.ok(state.sent <= FILE.length - CHUNK);
    });

    test("a file that changed on the server starts afresh", { timeout: MINUTE }, async () => {
      const shorter = { file: OTHER.subarray(0, -MIB) };
      for (const changed of [{ file: OTHER, etag: '"v2"' }, shorter, { file: OTHER.subarray(0, CHUNK), broken: true }]) {
        server.reset();
        Object.assign(state, { budget: 10 * MIB, gone: true });
        await refused("download_failed");
        Object.assign(state, { budget: Infinity, sent: 0, ...changed });
        if (changed.broken) {
          // Shorter than what is stored, and no model: it is refused, and no mixture of both is kept.
          await refused("truncated");
          assert.deepEqual(await desk.evaluate(list), []);
          continue;
        }
        await loaded();
        const [model] = await desk.evaluate(list);
        assert.equal(model.sha256, digest(changed.file));
        await desk.evaluate(remove, PATH);
      }
    });

    test("bytes that were damaged on the way are refused, and not kept", { timeout: MINUTE }, async () => {
      const damaged = Buffer.from(FILE);
      for (const at of [FILE.length - 1, FILE.length >> 1]) {
        damaged[at] ^= 1;
        Object.assign(state, { file: damaged });
        const { error } = await refused("checksum_mismatch", { model: { url: PATH, sha256: SHA256 } });
        assert.deepEqual(error.details, { url: `${server.origin}${PATH}`, expected: SHA256, found: digest(damaged) });
        assert.deepEqual(await desk.evaluate(list), []);
      }
      await refused("checksum_mismatch", { model: { url: PATH, sha256: SHA256 }, storage: "off" });
      state.file = FILE;
      await loaded({ model: { url: PATH, sha256: SHA256.toUpperCase() } });
      await refused("bad_option", { model: { url: PATH, sha256: "abc" } });

      // Another hash than the stored file's asks for another version of it.
      Object.assign(state, { file: OTHER, etag: '"v2"' });
      const other = await loaded({ model: { url: PATH, sha256: digest(OTHER) } });
      assert.equal(other.storage[0].from, "network");
    });

    /** Runs in the page: flips a bit of the file `name` of each model that is kept. */
    const damage = async (name, at) => {
      const root = await navigator.storage.getDirectory();
      const models = await (await root.getDirectoryHandle("foredraft")).getDirectoryHandle("models");
      for await (const folder of models.values()) {
        const handle = await folder.getFileHandle(name);
        const [byte] = new Uint8Array(await (await handle.getFile()).slice(at, at + 1).arrayBuffer());
        const writer = await handle.createWritable({ keepExistingData: true });
        await writer.write({ type: "write", position: at, data: new Uint8Array([byte ^ 1]) });
        await writer.close();
      }
    };

    test("bytes that were damaged in storage are refused, and removed", { timeout: MINUTE }, async () => {
      const first = await loaded();
      await desk.evaluate(damage, "data", 13_000_000);
      state.down = true;
      const { error } = await refused("checksum_mismatch");
      assert.match(error.message, /byte 12582912/);
      assert.deepEqual(await desk.evaluate(list), []);
      state.down = false;
      assert.equal((await loaded()).text, first.text);

      // Damaged in the part that a broken download has left, and damaged in what is noted of it.
      for (const [file, at, code] of [["data", 1000, "checksum_mismatch"], ["record", 0, undefined]]) {
        await desk.evaluate(remove, PATH);
        Object.assign(state, { budget: 10 * MIB, gone: true });
        await refused("download_failed");
        state.budget = Infinity;
        await desk.evaluate(damage, file, at);
        if (code) await refused(code);
        assert.equal((await loaded({ model: { url: PATH, sha256: SHA256 } })).text, first.text);
      }
    });

    test("what is no model is not kept", { timeout: MINUTE }, async () => {
      state.file = Buffer.from("<!doctype html>not a model");
      await refused("not_gguf");
      assert.deepEqual(await desk.evaluate(list), []);

      // Nor what no later visit could find, though it runs.
      state.file = FILE;
      const blob = await inPage(
        async (load, path) => {
          const model = URL.createObjectURL(await (await fetch(path)).blob());
          return new Function(`return (${load})`)()({ model });
        },
        load.toString(),
        PATH,
      );
      assert.equal(blob.storage?.[0].kept, null, JSON.stringify(blob.error));
      assert.deepEqual(await desk.evaluate(list), []);

      // A good one is kept, though the one that was to draft for it is none.
      await refused("not_gguf", { draftModel: "/blank" });
      assert.deepEqual((await desk.evaluate(list)).map(({ url }) => url), [`${server.origin}${PATH}`]);
    });

    test("two tabs that load one model download it once", { timeout: MINUTE }, async () => {
      Object.assign(state, { budget: 10 * MIB, stall: true });
      const [first, second] = [await open(), await open()];
      first.evaluate(load, { model: PATH }).catch(() => {}); // the page goes while this runs
      await desk.waitForFunction(somethingIsStored, { polling: 100 });
      const joined = second.evaluate(load, { model: PATH });
      await new Promise((resolve) => setTimeout(resolve, 300));
      assert.ok(state.sent <= 10 * MIB);
      // The first tab goes in the middle: the second takes over where it was.
      await first.close();
      Object.assign(state, { budget: Infinity, sent: 0, requests: [] });
      const third = (await open()).evaluate(load, { model: PATH });
      const results = await Promise.all([joined, third]);
      for (const { error } of results) assert.equal(error, undefined, JSON.stringify(error));
      assert.equal(results[0].text, results[1].text);
      assert.ok(state.sent <= FILE.length - CHUNK, `${state.sent} bytes were sent to both`);
      assert.deepEqual(results.map(({ storage }) => storage[0].from).sort(), ["network and storage", "storage"]);
      const waited = results.flatMap(({ progress }) => progress.filter(({ stage }) => stage === "waiting"));
      assert.ok(waited.length > 0, "who waits is told so");
      assert.match(waited.at(-1).text, /another tab downloads .*tiny\.gguf/);
    });

    test("who waits for another tab sees how much that has of the file, and then reads it", { timeout: MINUTE }, async () => {
      state.delay_ms = 1000;
      const [first, second] = [await open(), await open()];
      const downloading = first.evaluate(load, { model: PATH });
      await desk.waitForFunction(somethingIsStored, { polling: 50 });
      const before = (await desk.evaluate(list))[0].stored_bytes;
      const results = await Promise.all([downloading, second.evaluate(load, { model: PATH })]);
      for (const { error } of results) assert.equal(error, undefined, JSON.stringify(error));
      assert.equal(state.sent, FILE.length, "each byte came once, to one tab");
      assert.deepEqual(results.map(({ storage }) => storage[0].from), ["network", "storage"]);
      const waited = results[1].progress.filter(({ stage }) => stage === "waiting");
      const loaded = waited.map(({ loaded }) => loaded);
      assert.ok(waited.every(({ total }) => total === FILE.length), "its length is known from the first word on");
      assert.ok(loaded[0] >= before && loaded[0] < FILE.length, `${loaded[0]} bytes, of which ${before} were there before`);
      assert.ok(loaded.every((bytes) => bytes % CHUNK === 0 || bytes === FILE.length), `whole chunks arrive: ${loaded}`);
      assert.deepEqual(loaded, loaded.toSorted((a, b) => a - b));
      assert.ok(new Set(loaded).size > 1, `it moves: ${loaded}`);
    });

    test("two files in either order, and one file twice, do not wait for each other", { timeout: MINUTE }, async () => {
      const [a, b] = [await open(), await open()];
      const results = await Promise.all([
        a.evaluate(load, { model: PATH, draftModel: "/twin.gguf" }),
        b.evaluate(load, { model: "/twin.gguf", draftModel: PATH }),
      ]);
      for (const { error } of results) assert.equal(error, undefined, JSON.stringify(error));
      assert.equal(state.sent, 2 * FILE.length);
      const same = await loaded({ draftModel: PATH });
      assert.equal(same.storage.length, 2);
    });

    test("where there is no room a model runs all the same, or is refused if that was asked for", { timeout: MINUTE }, async () => {
      const { storage, progress } = await loaded({ worker: "/small-quota.js" });
      assert.equal(storage[0].kept, null);
      assert.match(storage[0].reason, /24\.4 MB|29\.6 MB/);
      const warnings = progress.filter(({ stage }) => stage === "storage").map(({ warning }) => warning);
      assert.deepEqual(warnings.map(({ code }) => code), ["quota_exceeded"]);
      assert.deepEqual(await desk.evaluate(list), []);

      Object.assign(state, { sent: 0, requests: [] });
      const { error } = await refused("quota_exceeded", { worker: "/small-quota.js", storage: "require" });
      const numbers = { needed_bytes: FILE.length, free_bytes: 15e6, quota_bytes: 20e6, usage_bytes: 5e6 };
      assert.deepEqual(error.details, { url: `${server.origin}${PATH}`, ...numbers });
      assert.equal(state.requests.length, 1, "it is said before the download begins");

      const full = await loaded({ worker: "/full-disk.js" });
      assert.equal(full.storage[0].kept, null);
      assert.match(full.storage[0].reason, /8\.4 MB of 24\.4 MB/);
      assert.equal((await desk.evaluate(list))[0].stored_bytes, 2 * CHUNK);

      // Chromium's own quota, of which its estimates say nothing.
      if (name !== "chromium") return;
      const page = await open();
      const session = await page.createCDPSession();
      await page.evaluate(clear);
      await session.send("Storage.overrideQuotaForOrigin", { origin: server.origin, quotaSize: 12 * MIB });
      const strict = await page.evaluate(load, { model: PATH, storage: "require" });
      await session.send("Storage.overrideQuotaForOrigin", { origin: server.origin });
      assert.equal(strict.error?.code, "quota_exceeded", JSON.stringify(strict.error));
      assert.ok(strict.error.details.stored_bytes <= 12 * MIB);
    });

    test("without files to write in place the Cache API keeps a model; without both it just runs", { timeout: MINUTE }, async () => {
      const worker = "/no-opfs.js";
      Object.assign(state, { budget: 10 * MIB, gone: true });
      await refused("download_failed", { worker });
      const [part] = await desk.evaluate(list);
      assert.equal(part.place, "cache");
      Object.assign(state, { budget: Infinity, sent: 0 });
      const first = await loaded({ worker });
      assert.equal(state.sent, FILE.length - part.stored_bytes);
      assert.equal(first.storage[0].kept, "cache");
      state.down = true;
      assert.equal((await loaded({ worker })).text, first.text);
      assert.equal((await desk.evaluate(list))[0].sha256, SHA256);
      state.down = false;
      const none = await loaded({ worker: "/no-storage.js" });
      assert.match(none.storage[0].reason, /none here/);
      assert.equal(none.text, first.text);
      await refused("storage_unavailable", { worker: "/no-storage.js", storage: "require" });
      for (const [worker, reason] of [["/full-cache.js", /no room/], ["/broken-place.js", /broken/]]) {
        const { storage, text } = await loaded({ worker, model: "/twin.gguf" });
        assert.equal(storage[0].kept, null);
        assert.match(storage[0].reason, reason);
        assert.equal(text, first.text);
        await refused("storage_unavailable", { worker, model: "/twin.gguf", storage: "require" });
      }
    });

    test("a server without ranges: its files are kept too, and begin anew where they broke", { timeout: MINUTE }, async () => {
      Object.assign(state, { ranges: false, budget: 10 * MIB });
      await refused("download_failed");
      assert.equal((await desk.evaluate(list))[0].stored_bytes, 2 * CHUNK);
      Object.assign(state, { budget: Infinity, sent: 0 });
      const first = await loaded({ model: { url: PATH, sha256: SHA256 } });
      assert.equal(state.sent, FILE.length);
      state.down = true;
      assert.equal((await loaded()).text, first.text);
    });

    test("stored models can be listed, measured and deleted", { timeout: MINUTE }, async () => {
      await loaded({ draftModel: "/twin.gguf" });
      const result = await desk.evaluate(async (urls) => {
        const { storage } = await import("/pkg/index.js");
        const urlsOf = async () => (await storage.list()).map(({ url }) => new URL(url).pathname);
        const [before, usage] = [await urlsOf(), await storage.usage()];
        const deleted = [await storage.delete(urls[0]), await storage.delete(urls[0])];
        const between = await urlsOf();
        await storage.clear();
        return { before, usage, deleted, between, after: await urlsOf(), empty: await storage.usage() };
      }, [PATH]);
      assert.deepEqual(result.before, [PATH, "/twin.gguf"]);
      assert.equal(result.usage.models_bytes, 2 * FILE.length);
      assert.ok(result.usage.site_bytes >= 2 * FILE.length && result.usage.quota_bytes > result.usage.site_bytes);
      assert.equal(typeof result.usage.persisted, "boolean");
      // Firefox would ask the user, and there is none.
      if (name === "chromium") assert.equal(typeof (await desk.evaluate(persist)), "boolean");
      assert.deepEqual(result.deleted, [true, false]);
      assert.deepEqual(result.between, ["/twin.gguf"]);
      assert.deepEqual(result.after, []);
      assert.ok(result.empty.site_bytes < FILE.length, `${result.empty.site_bytes} bytes are left`);
    });
  });
}

test("in Node there is nothing, and asking for it is no error", async () => {
  const { storage } = await import("../../pkg/dist/index.js");
  assert.deepEqual(await storage.list(), []);
  assert.equal((await storage.usage()).models_bytes, 0);
  assert.equal(await storage.delete("http://localhost/x.gguf").catch(({ code }) => code), false);
});
