// Fresh applications that install the packed package and are built by Vite and by webpack, then run in a browser. They need
// packages of the registry that nothing else here does, so this is part of the long run only (tests/run.sh --full).
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { serve } from "../../web/scripts/serve.mjs";
import { launch, outDir } from "../browser/browsers.mjs";
import { scriptedModel } from "../browser/scripted.mjs";

const MINUTE = 60_000;
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const app = path.join(outDir, "bundlers");
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

function run(command, args) {
  const result = spawnSync(command, args, { cwd: app, encoding: "utf8", env: { ...process.env, NODE_ENV: "production" } });
  assert.equal(result.status, 0, `${command} ${args.join(" ")}: ${result.error ?? ""}${result.stdout}${result.stderr}`);
  return result.stdout;
}

before(() => {
  rmSync(app, { recursive: true, force: true });
  mkdirSync(path.join(app, "src"), { recursive: true });
  const files = {
    "package.json": JSON.stringify({ name: "app", private: true, type: "module" }),
    "index.html": '<!doctype html><title>app</title><script type="module" src="/src/main.js"></script>',
    "src/main.js": MAIN,
    "src/own.js": OWN,
    "webpack.config.js": 'export default { mode: "production", entry: "./src/main.js" };',
  };
  for (const [name, content] of Object.entries(files)) writeFileSync(path.join(app, name), content);
  run("npm", ["pack", path.join(root, "pkg"), "--ignore-scripts"]);
  const tarball = readdirSync(app).find((name) => name.endsWith(".tgz"));
  const packages = [`./${tarball}`, "vite@8", "webpack@5", "webpack-cli@6"];
  run("npm", ["install", "--no-audit", "--no-fund", "--loglevel=error", "--include=dev", "--legacy-peer-deps", ...packages]);
}, { timeout: 5 * MINUTE });

const builds = {
  vite: { build: ["vite", "build", "--outDir", "vite"], folder: "vite", page: undefined },
  webpack: { build: ["webpack", "--output-path", "webpack"], folder: "webpack", page: "main.js" },
};

for (const [name, { build, folder, page }] of Object.entries(builds)) {
  test(`${name} builds an application that works`, { timeout: 3 * MINUTE }, async (t) => {
    run("npx", ["--no-install", ...build]);
    const files = { "/scripted.gguf": ["application/octet-stream", scriptedModel({ scripts: { "<|say|>": ["Hello", " there."] }, template: TEMPLATE })] };
    if (page) files["/"] = ["text/html", `<!doctype html><script src="/${page}"></script>`];
    const special = (_, response, pathname) => {
      if (!files[pathname]) return false;
      response.writeHead(200, { "Content-Type": files[pathname][0] }).end(files[pathname][1]);
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
