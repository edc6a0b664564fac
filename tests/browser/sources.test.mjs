// web/src/sources.ts and http.ts by themselves, in Node: every way of reading gives the bytes of the file, whatever the server does.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const web = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../web");
const { build } = createRequire(path.join(web, "package.json"))("esbuild");
const FILE = randomBytes(9_000_017);

let sources;
let server;
let origin;
/** Set by a test: answers a request in its own way, or returns false. */
let misbehave = () => false;

before(async () => {
  const stdin = { contents: 'export * from "./sources.ts"; export * from "./http.ts";', resolveDir: path.join(web, "src") };
  const options = { stdin, bundle: true, format: "esm", write: false };
  const code = (await build(options)).outputFiles[0].text;
  sources = await import(`data:text/javascript;base64,${Buffer.from(code).toString("base64")}`);
  server = createServer((request, response) => {
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    const [start, end] = range ? [Number(range[1]), Math.min(Number(range[2]), FILE.length - 1)] : [0, FILE.length - 1];
    if (misbehave(request, response, start, end)) return;
    const body = FILE.subarray(start, end + 1);
    response.writeHead(range ? 206 : 200, {
      "Content-Length": body.length,
      ...(range && { "Content-Range": `bytes ${start}-${end}/${FILE.length}` }),
    });
    response.end(request.method === "HEAD" ? undefined : body);
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  origin = `http://127.0.0.1:${server.address().port}`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

const digest = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** Reads as the loader does: forward, in pieces of all sizes, skipping some; compares each with the file. */
async function compare(source) {
  let offset = 0;
  for (let step = 0; offset < FILE.length; step++) {
    const length = [24, 1, 70_001, 4 << 20, 300_000][step % 5];
    const bytes = await source.read(offset, length);
    const expected = FILE.subarray(offset, offset + length);
    assert.equal(bytes.length, expected.length, `read of ${length} at ${offset}`);
    assert.equal(digest(bytes), digest(expected), `read of ${length} at ${offset}`);
    offset += length + (step % 3 === 2 ? 1000 : 0);
  }
  assert.equal((await source.read(FILE.length, 10)).length, 0, "after the end there is nothing");
  source.close();
}

test("a server with ranges", async () => {
  const source = await sources.openUrl(`${origin}/f`);
  assert.equal(source.size, FILE.length);
  await compare(source);
});

test("a server that hides the size", async (t) => {
  misbehave = (request, response, start, end) => {
    if (request.method === "HEAD") return void response.writeHead(405).end() ?? true;
    if (start >= FILE.length) return void response.writeHead(416).end() ?? true;
    return void response.writeHead(206).end(FILE.subarray(start, end + 1)) ?? true;
  };
  t.after(() => (misbehave = () => false));
  const source = await sources.openUrl(`${origin}/f`);
  assert.equal(source.size, undefined);
  await compare(source);
});

test("a server without ranges", async (t) => {
  misbehave = (_, response) => void response.writeHead(200, { "Content-Length": FILE.length }).end(FILE) ?? true;
  t.after(() => (misbehave = () => false));
  const source = await sources.openUrl(`${origin}/f`);
  assert.equal(source.size, FILE.length);
  await compare(source);
});

test("a server that is busy at times", async (t) => {
  let count = 0;
  misbehave = (_, response) => count++ % 2 === 0 && (void response.writeHead(503).end() ?? true);
  t.after(() => (misbehave = () => false));
  await compare(await sources.openUrl(`${origin}/f`));
});

test("a connection that drops more often than it may fail, and brings something each time", { timeout: 60_000 }, async (t) => {
  let dropped = 0;
  misbehave = (_, response, start, end) => {
    const length = end + 1 - start;
    if (length <= 800_000) return false;
    dropped++;
    response.writeHead(206, { "Content-Length": length, "Content-Range": `bytes ${start}-${end}/${FILE.length}` });
    response.write(FILE.subarray(start, start + 800_000), () => setTimeout(() => response.destroy(), 50));
    return true;
  };
  t.after(() => (misbehave = () => false));
  await compare(await sources.openUrl(`${origin}/f`));
  assert.ok(dropped >= 10, `the server dropped ${dropped} connections, expected at least five for each full chunk`);
});

test("a server that sends on after the range", { timeout: 20_000 }, async (t) => {
  const open = [];
  misbehave = (_, response, start, end) => {
    response.writeHead(206, { "Content-Range": `bytes ${start}-${end}/${FILE.length}` });
    response.write(FILE.subarray(start, end + 1));
    response.write("more"); // and no end
    open.push(new Promise((closed) => response.on("close", closed)));
    return true;
  };
  t.after(() => (misbehave = () => false));
  await compare(await sources.openUrl(`${origin}/f`));
  await Promise.all(open);
});

test("a connection that falls silent is given up and taken up again", { timeout: 20_000 }, async (t) => {
  let silent = 0;
  misbehave = (_, response, start, end) => {
    if (start % (4 << 20) > 0 || start === 0) return false; // the first range, and what is asked for again
    silent++;
    response.writeHead(206, { "Content-Length": end + 1 - start, "Content-Range": `bytes ${start}-${end}/${FILE.length}` });
    response.write(FILE.subarray(start, start + 1000)); // and nothing more
    return true;
  };
  t.after(() => (misbehave = () => false));
  await compare(await sources.openUrl(`${origin}/f`, { stallMs: 300 }));
  assert.equal(silent, 2);
});

test("a server that never answers is asked again, and its stream that falls silent is a dropped connection", async (t) => {
  let asked = 0;
  misbehave = () => asked++ === 0; // no answer to the first request
  t.after(() => (misbehave = () => false));
  await compare(await sources.openUrl(`${origin}/f`, { stallMs: 300 }));
  misbehave = (_, response) => {
    response.writeHead(200, { "Content-Length": FILE.length });
    response.write(FILE.subarray(0, 1000)); // and nothing more
    return true;
  };
  const source = await sources.openUrl(`${origin}/f`, { stallMs: 300 });
  await assert.rejects(source.read(0, 2000), (error) => error.code === "download_failed" && /nothing came/.test(error.message));
  source.close();
});

test("a range that was not asked for is refused", async (t) => {
  const source = await sources.openUrl(`${origin}/f`);
  misbehave = (_, response) => {
    response.writeHead(206, { "Content-Range": `bytes 0-${FILE.length - 1}/${FILE.length}` }).end(FILE);
    return true;
  };
  t.after(() => (misbehave = () => false));
  await assert.rejects(compare(source), (error) => error.code === "download_failed" && /bytes from 0 on/.test(error.message));
  source.close();
});

test("a file that changes while it is read is refused", async (t) => {
  const source = await sources.openUrl(`${origin}/f`);
  misbehave = (_, response, start, end) => {
    response.writeHead(206, { "Content-Range": `bytes ${start}-${end}/123456` }).end(FILE.subarray(start, end + 1));
    return true;
  };
  t.after(() => (misbehave = () => false));
  await assert.rejects(compare(source), (error) => error.code === "download_failed" && /changed/.test(error.message));
  source.close();
});

test("a tag that changes between ranges is another file too", async (t) => {
  let tag = '"a"';
  misbehave = (_, response, start, end) => {
    const headers = { "Content-Range": `bytes ${start}-${end}/${FILE.length}`, ETag: tag };
    response.writeHead(206, headers).end(FILE.subarray(start, end + 1));
    return true;
  };
  t.after(() => (misbehave = () => false));
  const source = await sources.openUrl(`${origin}/f`);
  tag = 'W/"a"'; // weakened on the way, by compression for instance
  await source.read(0, 5 << 20);
  tag = '"b"';
  const other = await sources.openUrl(`${origin}/f`, { start: 4 << 20 });
  assert.equal(sources.difference(source.version, other.version), 'it was "a" and is now "b"');
  tag = '"c"';
  assert.equal(digest(await other.read(4 << 20, 100)), digest(FILE.subarray(4 << 20, (4 << 20) + 100)));
  await assert.rejects(other.read(8 << 20, FILE.length), (error) => error.code === "download_failed" && /"b".*"c"/.test(error.message));
  source.close();
  other.close();
});

test("a stream that ends too soon is a dropped connection, with both numbers", async (t) => {
  misbehave = (_, response) => {
    response.writeHead(200, { "Content-Length": FILE.length });
    response.write(FILE.subarray(0, 100_000), () => response.destroy());
    return true;
  };
  t.after(() => (misbehave = () => false));
  const source = await sources.openUrl(`${origin}/f`);
  await assert.rejects(source.read(0, 200_000), (error) => error.code === "download_failed");
});

test("a blob", async () => {
  await compare(sources.openBlob(new Blob([FILE]), "a.gguf"));
});

test("a stream goes forward only", async () => {
  let at = 0;
  const pull = async () => (at < FILE.length ? FILE.subarray(at, (at += 65_537)) : undefined);
  await compare(new sources.StreamSource("stream", undefined, pull, () => {}));
  const short = new sources.StreamSource("stream", undefined, async () => FILE.subarray(0, 10), () => {});
  await short.read(5, 10);
  await assert.rejects(short.read(0, 1), (error) => error.code === "io" && /back/.test(error.message));
});
