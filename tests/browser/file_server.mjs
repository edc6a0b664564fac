// A server of one model that can misbehave in every way that a download has to live with.
import { mounts, serve } from "../../web/scripts/serve.mjs";

/**
 * Serves the built package and, at each of `paths`, one file; logs what is asked of the file and counts what it sends. How it
 * answers hangs on `state`: `budget` is how many bytes it sends before connections break (or `stall`, or a file that is `gone`),
 * `down` breaks all of them; `delay_ms` keeps whole answers back. `workers` are scripts by path: each runs its patch before the package's worker.
 */
export async function startFileServer({ file, paths, workers = {} }) {
  const state = { requests: [], sent: 0 };
  const reset = () => {
    Object.assign(state, { file, etag: '"v1"', ranges: true, down: false, budget: Infinity, stall: false, gone: false, delay_ms: 0 });
    Object.assign(state, { requests: [], sent: 0 });
  };
  reset();
  const sendModel = (request, response) => {
    const { file, etag } = state;
    const range = state.ranges ? /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") : null;
    const start = range ? Number(range[1]) : 0;
    const end = range ? Math.min(Number(range[2]) + 1, file.length) : file.length;
    state.requests.push({ method: request.method, start, end });
    if (state.down) return void response.destroy();
    if (state.gone && state.budget === 0) return void response.writeHead(404).end();
    if (start >= file.length) return void response.writeHead(416).end();
    const headers = { "Content-Length": end - start, ...(etag && { ETag: etag }), "Cache-Control": "max-age=3600" };
    if (range) headers["Content-Range"] = `bytes ${start}-${end - 1}/${file.length}`;
    response.writeHead(range ? 206 : 200, headers);
    if (request.method === "HEAD") return void response.end();
    const body = file.subarray(start, end);
    const allowed = Math.min(body.length, state.budget);
    state.budget -= allowed;
    state.sent += allowed;
    if (allowed === body.length) return void setTimeout(() => response.end(body), state.delay_ms);
    // The connection breaks, or says nothing more.
    response.write(body.subarray(0, allowed), () => state.stall || setTimeout(() => response.destroy(), 20));
  };
  const special = (request, response, pathname) => {
    if (pathname === "/blank") return response.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>blank</title>");
    if (paths.includes(pathname)) return sendModel(request, response) ?? true;
    const patch = workers[pathname];
    if (!patch && pathname !== "/patch.js") return false;
    response.writeHead(200, { "Content-Type": "text/javascript" });
    if (patch) return response.end(`import "/patch.js?${encodeURIComponent(patch)}"; import "/pkg/worker.js";`);
    return response.end(decodeURIComponent(request.url.split("?")[1]));
  };
  const server = await serve({ folders: mounts(), special: (...args) => Boolean(special(...args)) });
  return { ...server, state, reset };
}
