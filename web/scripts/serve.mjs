// A small static server with HTTP ranges, for the demo page and the browser tests.
//
//   node scripts/serve.mjs [--port 8080] [--models FOLDER]
//
// serves dist/ at /, ../pkg/dist at /pkg/ and the folder of models at /models/.
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const web = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".wasm": "application/wasm",
  ".json": "application/json",
  ".svg": "image/svg+xml",
};

/** The folders that are served, by the beginning of the address; the longest match wins. */
export function mounts(models) {
  return { "/": path.join(web, "dist"), "/pkg/": path.join(web, "../pkg/dist"), ...(models && { "/models/": models }) };
}

/** The path that an address asks for, or undefined where it is none that a file could have. */
function pathOf(address) {
  try {
    const pathname = decodeURIComponent(new URL(address, "http://localhost").pathname);
    return pathname.includes("\0") ? undefined : pathname;
  } catch {
    return undefined; // `//` is no URL, `%` no encoding
  }
}

/** The file behind a path, or undefined where there is none. */
function resolve(folders, pathname) {
  const prefix = Object.keys(folders)
    .filter((start) => pathname.startsWith(start))
    .sort((a, b) => b.length - a.length)[0];
  if (prefix === undefined) return undefined;
  const file = path.join(folders[prefix], pathname.slice(prefix.length) || "index.html");
  const inside = path.relative(folders[prefix], file);
  if (inside.startsWith("..") || path.isAbsolute(inside)) return undefined;
  const stats = statSync(file, { throwIfNoEntry: false });
  return stats?.isFile() ? { file, size: stats.size } : undefined;
}

/** Answers one request for a file; `ranges: false` answers as servers do that know none. */
export function sendFile(request, response, { file, size }, { ranges = true } = {}) {
  const headers = { "Content-Type": TYPES[path.extname(file)] ?? "application/octet-stream", "Cache-Control": "no-cache" };
  if (ranges) headers["Accept-Ranges"] = "bytes";
  const asked = ranges ? /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") : null;
  let start = 0;
  let end = size - 1;
  let status = 200;
  if (asked) {
    start = Number(asked[1]);
    end = asked[2] ? Math.min(Number(asked[2]), end) : end;
    if (start >= size || start > end) {
      response.writeHead(416, { "Content-Range": `bytes */${size}` }).end();
      return;
    }
    status = 206;
    headers["Content-Range"] = `bytes ${start}-${end}/${size}`;
  }
  response.writeHead(status, { ...headers, "Content-Length": end - start + 1 });
  if (request.method === "HEAD" || size === 0) return void response.end();
  const stream = createReadStream(file, { start, end });
  stream.on("error", () => response.destroy());
  response.on("close", () => stream.destroy());
  stream.pipe(response);
}

/** Starts a server; `special` may answer a request itself and then returns true. Port 0 takes a free one. */
export async function serve({ folders, port = 0, special = () => false }) {
  const server = createServer((request, response) => {
    const pathname = pathOf(request.url ?? "/");
    if (pathname === undefined) return void response.writeHead(400, { "Content-Type": "text/plain" }).end("bad address");
    if (special(request, response, pathname)) return;
    const found = resolve(folders, pathname);
    if (found) sendFile(request, response, found);
    else response.writeHead(404, { "Content-Type": "text/plain" }).end("not found");
  });
  await new Promise((listening, failed) => server.once("error", failed).listen(port, "127.0.0.1", listening));
  const origin = `http://127.0.0.1:${server.address().port}`;
  const close = () => {
    server.closeAllConnections();
    return new Promise((closed) => server.close(closed));
  };
  return { origin, close };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { port: { type: "string", default: "8080" }, models: { type: "string" } } });
  const { origin } = await serve({ folders: mounts(values.models && path.resolve(values.models)), port: Number(values.port) });
  console.log(`${origin}/${values.models ? "?model=/models/<file>.gguf" : ""}`);
}
