// The package as npm packs it: what is in it, that importing it does nothing, that its types and its quick start work, its size.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { mounts, serve } from "../../web/scripts/serve.mjs";
import { browserNames, launch, outDir } from "./browsers.mjs";
import { scriptedModel } from "./scripted.mjs";

const MINUTE = 60_000;
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const pkg = path.join(root, "pkg");
const manifest = JSON.parse(readFileSync(path.join(pkg, "package.json"), "utf8"));
/** An application that has installed the package. */
const app = path.join(outDir, "application");
const installed = path.join(app, "node_modules/foredraft");

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { encoding: "utf8", ...options });
  assert.equal(result.status, 0, `${command} ${args.join(" ")}: ${result.error ?? ""}${result.stdout}${result.stderr}`);
  return result.stdout;
}

/** Paths of every entry of the `exports` map, by condition. */
function targets() {
  const of = (entry) => (typeof entry === "string" ? [entry] : Object.values(entry).flatMap(of));
  return Object.values(manifest.exports)
    .flatMap(of)
    .map((target) => target.replace("./", ""));
}

/** Files that `files` import, and those that these import. */
function reachable(files, extension) {
  const found = new Set();
  const visit = (file) => {
    if (found.has(file)) return;
    found.add(file);
    const text = readFileSync(path.join(installed, file), "utf8");
    for (const [, name] of text.matchAll(/(?:from|import|import\()\s*"(\.[^"]+)\.js"/g)) {
      visit(path.join(path.dirname(file), name + extension));
    }
  };
  files.forEach(visit);
  return found;
}

/** A wasm without what is only for people to read. */
function withoutCustomSections(wasm) {
  const kept = [wasm.subarray(0, 8)];
  for (let at = 8; at < wasm.length;) {
    let [length, shift, end] = [0, 0, at + 1];
    do {
      length += (wasm[end] & 127) * 2 ** shift;
      shift += 7;
    } while (wasm[end++] & 128);
    end += length;
    if (wasm[at] !== 0) kept.push(wasm.subarray(at, end));
    at = end;
  }
  return Buffer.concat(kept);
}

describe("the npm package", { concurrency: false }, () => {
  let packed;

  before(() => {
    packed = JSON.parse(run("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: pkg }));
    // npm gives a list, or an object by package name, by its version.
    packed = (Array.isArray(packed) ? packed : Object.values(packed))[0].files.map((file) => file.path);
    rmSync(app, { recursive: true, force: true });
    for (const file of packed) {
      mkdirSync(path.dirname(path.join(installed, file)), { recursive: true });
      cpSync(path.join(pkg, file), path.join(installed, file));
    }
  });

  test("holds what is needed and nothing else", () => {
    const code = reachable(
      targets().filter((file) => file.endsWith(".js")),
      ".js",
    );
    const types = reachable(
      targets().filter((file) => file.endsWith(".d.ts")),
      ".d.ts",
    );
    const wasms = ["dist/foredraft_bg.wasm", "dist/foredraft_grammar_bg.wasm"];
    const needed = ["README.md", "package.json", ...wasms, ...code, ...types];
    assert.deepEqual(packed.toSorted(), needed.toSorted());
    assert.ok(targets().every((file) => packed.includes(file)));
  });

  test("its exports put types first, and it has no side effects", () => {
    assert.equal(manifest.type, "module");
    assert.equal(manifest.sideEffects, false);
    assert.deepEqual(Object.keys(manifest.exports), [
      ".",
      "./worker",
      "./ai-sdk",
      "./worker.js",
      "./foredraft_bg.wasm",
      "./foredraft_grammar_bg.wasm",
      "./package.json",
    ]);
    for (const name of [".", "./worker", "./ai-sdk"])
      assert.deepEqual(Object.keys(manifest.exports[name]), ["types", "default"]);
    assert.deepEqual(Object.keys(manifest.dependencies ?? {}), []);
  });

  test("can be imported on a server, and does nothing there", () => {
    // Whatever an import touched of a browser or of the network would throw or show.
    const script = `
      const touched = [];
      for (const name of ["fetch", "Worker", "document", "window", "navigator", "indexedDB", "WebAssembly", "location"]) {
        Object.defineProperty(globalThis, name, { configurable: true, get: () => void touched.push(name) });
      }
      const before = Object.keys(globalThis).length;
      const modules = await Promise.all(["foredraft", "foredraft/worker", "foredraft/ai-sdk"].map((name) => import(name)));
      const grown = Object.keys(globalThis).length - before;
      const handles = process.getActiveResourcesInfo().filter((name) => !/Pipe|TTY|FSReq|CloseReq/.test(name));
      console.log(JSON.stringify({ touched, grown, handles, names: modules.map((module) => Object.keys(module).sort()) }));`;
    const { touched, grown, handles, names } = JSON.parse(
      run(process.execPath, ["--input-type=module", "--eval", script], { cwd: app }),
    );
    assert.deepEqual({ touched, grown, handles }, { touched: [], grown: 0, handles: [] });
    const shared = ["CompletionStream", "Engine", "ForedraftError", "checkShaders", "forget", "probe", "storage"];
    for (const name of shared) assert.ok(names[0].includes(name) && names[1].includes(name), name);
    assert.deepEqual(names[2], ["foredraft"]);
  });

  for (const resolution of ["Bundler", "NodeNext"]) {
    test(`its types hold under ${resolution} resolution`, { timeout: MINUTE }, () => {
      const modules = path.join(root, "web/node_modules");
      const link = path.join(app, "node_modules/@ai-sdk");
      if (!existsSync(link)) symlinkSync(path.join(modules, "@ai-sdk"), link);
      const compilerOptions = {
        target: "ES2022",
        module: resolution === "Bundler" ? "ESNext" : "NodeNext",
        moduleResolution: resolution,
        lib: ["ES2022", "ES2022.Error", "DOM", "DOM.Iterable", "DOM.AsyncIterable"],
        types: [],
        strict: true,
        noUncheckedIndexedAccess: true,
        exactOptionalPropertyTypes: true,
        noEmit: true,
      };
      writeFileSync(path.join(app, "package.json"), '{ "type": "module" }');
      // The SDK's types want those of a package that it does not bring along.
      const stand = "export type JSONSchema7 = object; export type JSONSchema7Definition = JSONSchema7 | boolean;";
      writeFileSync(path.join(app, "json-schema.d.ts"), `declare module "json-schema" { ${stand} }`);
      writeFileSync(
        path.join(app, "tsconfig.json"),
        JSON.stringify({ compilerOptions, files: ["json-schema.d.ts", "example.ts"] }),
      );
      cpSync(path.join(root, "tests/types/example.ts"), path.join(app, "example.ts"));
      run(path.join(modules, ".bin/tsc"), ["-p", app]);
    });
  }

  test("no public type is any", () => {
    for (const file of packed.filter((file) => file.endsWith(".d.ts"))) {
      const text = readFileSync(path.join(installed, file), "utf8").replace(/\/\*[\s\S]*?\*\//g, "");
      assert.doesNotMatch(text, /[:<|&(,] *any\b/, file);
    }
  });

  // What a page downloads: the entry and what it imports, the worker, the wasm. This build's names of functions do not count:
  // the published one (`npm run build -- --profile published`), which is smaller than this otherwise too, has none.
  test("its download is within the budget", (t) => {
    const code = reachable(["dist/index.js", "dist/worker.js"], ".js");
    const contents = [...code].map((file) => readFileSync(path.join(installed, file)));
    contents.push(withoutCustomSections(readFileSync(path.join(installed, "dist/foredraft_bg.wasm"))));
    const sizes = contents.map((bytes) => gzipSync(bytes, { level: 9 }).length);
    const total = sizes.reduce((sum, size) => sum + size, 0);
    t.diagnostic(`${(total / 1e6).toFixed(3)} MB gzipped, of which the wasm is ${(sizes.at(-1) / 1e6).toFixed(3)} MB`);
    assert.ok(total <= 1_500_000, `${total} bytes gzipped`);
    // What a request for JSON fetches on top.
    const grammar = withoutCustomSections(readFileSync(path.join(installed, "dist/foredraft_grammar_bg.wasm")));
    const size = gzipSync(grammar, { level: 9 }).length;
    t.diagnostic(`${(size / 1e6).toFixed(3)} MB gzipped for JSON schemas`);
    assert.ok(size <= 550_000, `${size} bytes gzipped`);
  });

  for (const name of browserNames) {
    test(`${name}: the quick start of its README runs as it is written`, { timeout: 2 * MINUTE }, async (t) => {
      const code = /```js\n([\s\S]*?)```/.exec(readFileSync(path.join(pkg, "README.md"), "utf8"))?.[1] ?? "";
      assert.ok(code.trim().split("\n").length <= 10, "ten lines are enough");
      const imports = JSON.stringify({ imports: { foredraft: "/package/dist/index.js" } });
      const page = `<!doctype html><script type="importmap">${imports}</script><script type="module" src="/quick-start.js"></script>`;
      const template = "{% for m in messages %}<|start|>{{ m.content }}<|end|>{% endfor %}<|say|>";
      const files = {
        "/": ["text/html", page],
        "/quick-start.js": ["text/javascript", code],
        "/models/model.gguf": [
          "application/octet-stream",
          scriptedModel({ scripts: { "<|say|>": ["Light", " scatters."] }, template }),
        ],
      };
      const special = (_, response, pathname) => {
        if (!files[pathname]) return false;
        response.writeHead(200, { "Content-Type": files[pathname][0] }).end(files[pathname][1]);
        return true;
      };
      const server = await serve({ folders: { ...mounts(), "/package/": installed }, special });
      t.after(() => server.close());
      const browser = await launch(name);
      t.after(() => browser.close());
      const tab = await browser.newPage();
      const said = [];
      const finished = new Promise((resolve, reject) => {
        tab.on("console", (message) => said.push(message.text()) && message.text().includes("scatters") && resolve());
        tab.on("pageerror", reject);
      });
      await tab.goto(`${server.origin}/`);
      await finished;
      assert.ok(said.length > 2, "progress is shown");
      assert.equal(said.at(-1), "Light scatters.");
    });
  }
});
