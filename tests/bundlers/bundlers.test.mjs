// Fresh applications that install the packed package and are built by Vite, webpack and Next, then run in a browser. They need
// packages of the registry that nothing else here does, so this is part of the long run only (tests/run.sh --full).
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { serve } from "../../web/scripts/serve.mjs";
import { launch, outDir } from "../browser/browsers.mjs";
import { scriptedModel } from "../browser/scripted.mjs";

const MINUTE = 60_000;
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const TEMPLATE = "{% for m in messages %}<|start|>{{ m.content }}<|end|>{% endfor %}<|say|>";

const MAIN = `
import { Engine } from "foredraft";
const run = async () => {
  const engine = await Engine.load({ model: "/scripted.gguf", device: "cpu" });
  const answer = await engine.chat.completions.create({ messages: [{ role: "user", content: "hi" }] });
  engine.unload();
  return answer.choices[0].message.content;
};
const own = () => new Promise((resolve) => {
  const worker = new Worker(new URL("./own.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = ({ message }) => resolve("failed: " + message);
});
globalThis.result = Promise.all([run().catch((error) => error.code + ": " + error.message), own()]);
`;
const OWN = `
import { Engine } from "foredraft/worker";
const run = async () => {
  const engine = await Engine.load({ model: "/scripted.gguf", device: "cpu" });
  const answer = await engine.chat.completions.create({ messages: [{ role: "user", content: "hi" }] });
  return answer.choices[0].message.content;
};
run().then(postMessage, (error) => postMessage(error.code + ": " + error.message));
`;

const PAGE = `"use client";
import { useEffect } from "react";
${MAIN.replace("globalThis.result = ", "const start = () => (globalThis.result = ").replace(/;\n$/, ");")}
export default function Page() {
  useEffect(() => void start(), []);
  return <p>app</p>;
}
`;
const LAYOUT = "export default ({ children }) => <html><body>{children}</body></html>;";
const SCRIPT = '<!doctype html><title>app</title><script src="/main.js"></script>';

/** By name: what to install, the application's files, how it is built, where that puts it. */
const APPLICATIONS = {
  vite: {
    packages: ["vite@8"],
    files: {
      "index.html": '<!doctype html><title>app</title><script type="module" src="/src/main.js"></script>',
      "src/main.js": MAIN,
      "src/own.js": OWN,
    },
    build: ["vite", "build"],
    folder: "dist",
  },
  webpack: {
    packages: ["webpack@5", "webpack-cli@6"],
    files: {
      "webpack.config.js": 'export default { mode: "production", entry: "./src/main.js" };',
      "src/main.js": MAIN,
      "src/own.js": OWN,
      "dist/index.html": SCRIPT,
    },
    build: ["webpack"],
    folder: "dist",
  },
  next: {
    packages: ["next@16", "react@19", "react-dom@19"],
    files: {
      "next.config.mjs": 'export default { output: "export" };',
      "app/layout.js": LAYOUT,
      "app/page.js": PAGE,
      "app/own.js": OWN,
    },
    build: ["next", "build"],
    folder: "out",
  },
};

for (const [name, { packages, files, build, folder }] of Object.entries(APPLICATIONS)) {
  test(`${name} builds an application that works`, { timeout: 6 * MINUTE }, async (t) => {
    const app = path.join(outDir, "bundlers", name);
    const run = (command, ...args) => {
      const env = { ...process.env, NODE_ENV: "production", NEXT_TELEMETRY_DISABLED: "1" };
      const result = spawnSync(command, args, { cwd: app, encoding: "utf8", env });
      assert.equal(result.status, 0, `${command} ${args.join(" ")}: ${result.error ?? ""}${result.stdout}${result.stderr}`);
    };
    rmSync(app, { recursive: true, force: true });
    const manifest = { "package.json": JSON.stringify({ name: "app", private: true, type: "module" }) };
    for (const [file, content] of Object.entries({ ...manifest, ...files })) {
      mkdirSync(path.dirname(path.join(app, file)), { recursive: true });
      writeFileSync(path.join(app, file), content);
    }
    run("npm", "pack", path.join(root, "pkg"), "--ignore-scripts");
    const tarball = readdirSync(app).find((file) => file.endsWith(".tgz"));
    const quiet = ["--no-audit", "--no-fund", "--loglevel=error", "--legacy-peer-deps"];
    run("npm", "install", ...quiet, `./${tarball}`, ...packages);
    run("npx", "--no-install", ...build);

    const model = scriptedModel({ scripts: { "<|say|>": ["Hello", " there."] }, template: TEMPLATE });
    const special = (_, response, pathname) => {
      if (pathname !== "/scripted.gguf") return false;
      response.writeHead(200, { "Content-Type": "application/octet-stream" }).end(model);
      return true;
    };
    const server = await serve({ folders: { "/": path.join(app, folder) }, special });
    t.after(() => server.close());
    const browser = await launch("chromium");
    t.after(() => browser.close());
    const tab = await browser.newPage();
    tab.on("pageerror", (error) => t.diagnostic(String(error)));
    await tab.goto(`${server.origin}/`);
    await tab.waitForFunction("globalThis.result");
    assert.deepEqual(await tab.evaluate("globalThis.result"), ["Hello there.", "Hello there."]);
  });
}
