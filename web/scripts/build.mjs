// Builds the npm package into ../pkg/dist and the demo page into dist.
//
//   node scripts/build.mjs [--profile release|published] [--skip-wasm]
//
// --profile published   slower to build, smaller and faster to run; wasm-opt runs too where `binaryen` is installed
// --skip-wasm           keep the wasm of the last build: only TypeScript and the page have changed
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { buildWasm, run } from "./wasm.mjs";

const web = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const root = path.dirname(web);
const generated = path.join(web, "generated");
const packageDir = path.join(root, "pkg/dist");
const pageDir = path.join(web, "dist");
const wasms = ["foredraft_bg.wasm", "foredraft_grammar_bg.wasm"];
const bin = (name) => path.join(web, "node_modules/.bin", name);

const { values: options } = parseArgs({
  options: { profile: { type: "string", default: "release" }, "skip-wasm": { type: "boolean", default: false } },
});

const bundle = (entries, outdir, more = {}) =>
  build({
    ...more,
    entryPoints: entries,
    outdir,
    bundle: true,
    format: "esm",
    target: ["es2022"],
    minify: options.profile === "published",
    sourcemap: options.profile === "published" ? false : "linked",
    legalComments: "none",
    logLevel: "warning",
  });

function optimise(wasm) {
  if (options.profile !== "published") return;
  if (!existsSync(bin("wasm-opt"))) {
    console.warn("wasm-opt is not installed (npm --prefix web install --no-save binaryen): the wasm is larger than it could be");
    return;
  }
  const features = ["--enable-simd", "--enable-bulk-memory", "--enable-nontrapping-float-to-int", "--enable-sign-ext"];
  const more = ["--enable-mutable-globals", "--enable-reference-types", "--enable-multivalue"];
  run(bin("wasm-opt"), ["-O3", ...features, ...more, wasm, "-o", wasm]);
}

/** The service worker knows the page's files by name and, so that a change of any is a new version, by a hash of them all. */
async function bundleServiceWorker() {
  const names = readdirSync(pageDir).filter((name) => !name.endsWith(".map")).sort();
  const hash = createHash("sha256");
  for (const name of names) hash.update(name).update(readFileSync(path.join(pageDir, name)));
  // The folder itself is the page: servers may answer `index.html` with a redirect to it.
  const files = names.map((name) => (name === "index.html" ? "./" : name));
  const define = { PAGE_FILES: JSON.stringify(files), PAGE_VERSION: JSON.stringify(hash.digest("hex").slice(0, 16)) };
  await bundle([path.join(web, "page/sw.ts")], pageDir, { define });
}

/** Takes declarations out of the package that no public one refers to. */
function dropInternal(entries) {
  const kept = new Set();
  const visit = (name) => {
    if (kept.has(name)) return;
    kept.add(name);
    const text = readFileSync(path.join(packageDir, `${name}.d.ts`), "utf8");
    for (const [, other] of text.matchAll(/(?:from|import\() ?"(\.[^"]+)\.js"/g)) visit(path.join(path.dirname(name), other));
  };
  entries.forEach(visit);
  for (const file of readdirSync(packageDir, { recursive: true }).filter((file) => file.endsWith(".d.ts"))) {
    if (!kept.has(file.slice(0, -".d.ts".length))) rmSync(path.join(packageDir, file));
  }
}

if (!options["skip-wasm"]) {
  rmSync(generated, { recursive: true, force: true });
  // The grammar is a wasm of its own, which is fetched when a request first asks for JSON: the page's download has no room.
  for (const crate of ["foredraft", "foredraft-grammar"]) buildWasm({ root, outDir: generated, profile: options.profile, crate });
  for (const name of wasms) optimise(path.join(generated, name));
}
run(bin("tsc"), ["-p", path.join(web, "tsconfig.json")]);

for (const dir of [packageDir, pageDir]) {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  // The page asks for no JSON.
  const needed = dir === packageDir ? wasms : wasms.slice(0, 1);
  for (const name of needed) copyFileSync(path.join(generated, name), path.join(dir, name));
}
run(bin("tsc"), ["-p", path.join(web, "tsconfig.types.json")]);
const source = (name) => path.join(web, "src", `${name}.ts`);
dropInternal(["index", "in-thread", "ai-sdk"]);
// What the entries share is there once: an error of one is an error of the other. The worker is one file.
await bundle(["index", "in-thread", "ai-sdk"].map(source), packageDir, { splitting: true, chunkNames: "shared-[hash]" });
await bundle([source("worker")], packageDir);
await bundle(
  [
    { in: path.join(web, "page/main.ts"), out: "main" },
    { in: path.join(web, "page/bench-address.ts"), out: "bench" },
    { in: path.join(web, "src/worker.ts"), out: "worker" },
    { in: path.join(web, "page/style.css"), out: "style" },
  ],
  pageDir,
);
for (const name of ["index.html", "bench.html", "icon.svg"]) copyFileSync(path.join(web, "page", name), path.join(pageDir, name));
// The prompts of `foredraft bench`, so that both measure the same.
copyFileSync(path.join(root, "tests/prompts/dev.json"), path.join(pageDir, "prompts.json"));
await bundleServiceWorker();

for (const name of readdirSync(packageDir).filter((name) => /\.(js|wasm)$/.test(name))) {
  const file = path.join(packageDir, name);
  const zipped = gzipSync(readFileSync(file)).length;
  console.log(`pkg/dist/${name}: ${statSync(file).size} bytes, ${zipped} gzipped`);
}
