// web/scripts/serve.mjs by itself: no address ends the server.
import assert from "node:assert/strict";
import { connect } from "node:net";
import { test } from "node:test";
import { mounts, serve } from "../../web/scripts/serve.mjs";

/** The status that the server gives `target`, which `fetch` would mend or refuse. */
function status(port, target) {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => socket.end(`GET ${target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`));
    let answer = "";
    socket.on("data", (bytes) => (answer += bytes));
    socket.on("error", reject);
    socket.on("close", () => resolve(Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1])));
  });
}

test("an address that is none is answered with 400", { timeout: 20_000 }, async (t) => {
  const server = await serve({ folders: mounts() });
  t.after(() => server.close());
  const port = Number(new URL(server.origin).port);
  for (const target of ["/%", "//", "/%00"]) assert.equal(await status(port, target), 400, target);
  assert.equal(await status(port, "/no-such-file"), 404);
  assert.equal(await status(port, "/..%2f..%2fpackage.json"), 404);
});
