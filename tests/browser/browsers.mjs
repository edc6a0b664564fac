// Starts the two browsers with the switches that software WebGPU needs, and one server for all tests of a file.
import { existsSync, mkdirSync, statSync } from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { mounts, sendFile, serve } from "../../web/scripts/serve.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, "../..");
const puppeteer = createRequire(path.join(root, "web/package.json"))("puppeteer-core");

/** Where screenshots go; git ignores it. */
export const outDir = path.join(root, "tests/out");
mkdirSync(outDir, { recursive: true });

/** Name of the small real model, inside the folder of models. */
export const MODEL = "smollm2-135m-instruct.gguf";
/** The same with layers left out, so that it disagrees at times. */
export const DRAFT = "smollm2-draft.gguf";
/** A model with another vocabulary. */
export const GEMMA = "gemma-3-270m.gguf";

/** The folder of models; a test without them fails and says what is missing. */
export function modelsFolder() {
  const folder = process.env.FOREDRAFT_TEST_MODELS;
  const missing = [MODEL, DRAFT, GEMMA].filter((name) => !folder || !existsSync(path.join(folder, name)));
  if (missing.length > 0) {
    const needs = `a folder with ${missing.join(", ")} (tests/setup.sh provides them)`;
    throw new Error(`FOREDRAFT_TEST_MODELS must name ${needs}; it is ${folder ?? "not set"}`);
  }
  return folder;
}

/** The two browsers: where they are and how they start. */
const BROWSERS = {
  chromium: {
    env: "FOREDRAFT_CHROMIUM",
    places: ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"],
    install: "apt-get install chromium",
    launch: {
      browser: "chrome",
      args: [
        "--no-sandbox",
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
      ],
    },
    webgpu: { on: { args: ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"] }, off: { args: ["--disable-gpu"] } },
  },
  firefox: {
    env: "FOREDRAFT_FIREFOX",
    places: ["/usr/bin/firefox-esr", "/usr/bin/firefox"],
    install: "apt-get install firefox-esr mesa-vulkan-drivers",
    launch: { browser: "firefox" },
    webgpu: {
      on: {
        extraPrefsFirefox: {
          "dom.webgpu.enabled": true,
          "dom.webgpu.workers.enabled": true,
          "gfx.webgpu.ignore-blocklist": true,
          "dom.webgpu.allow-software-rendering": true,
        },
      },
      off: { extraPrefsFirefox: { "dom.webgpu.enabled": false } },
    },
  },
};

/** Names of the browsers to test: both, or those of FOREDRAFT_BROWSERS (for work on one of them). */
export const browserNames = process.env.FOREDRAFT_BROWSERS?.split(",") ?? Object.keys(BROWSERS);

/** Starts a browser, with software WebGPU or with none; where it is missing the error says what to install. */
export async function launch(name, { gpu = true } = {}) {
  const { env, places, install, launch: options, webgpu } = BROWSERS[name];
  const { args = [], ...switches } = gpu ? webgpu.on : webgpu.off;
  const candidates = process.env[env] ? [process.env[env]] : places;
  const executablePath = candidates.find((place) => existsSync(place));
  if (!executablePath) {
    throw new Error(`${name} is missing (looked for ${candidates.join(", ")}): run \`${install}\`, or name it in ${env}`);
  }
  // Waits are bounded by the tests themselves; a software adapter can be slow to answer a single call.
  const limits = { protocolTimeout: 900_000, timeout: 90_000 };
  return puppeteer.launch({ executablePath, headless: true, ...limits, ...options, ...switches, args: [...(options.args ?? []), ...args] });
}

/**
 * Serves the built page and package, the models and, for the tests, servers that misbehave:
 * `/plain/F` knows no ranges, `/cut/N/F` is a file cut after N bytes, `/drop/N/F` closes the connection after N bytes of each
 * second answer, `/blank` is an empty page. `requests` is a log of `method path range`.
 */
export async function startServer(models) {
  const requests = [];
  let drops = 0;
  const special = (request, response, pathname) => {
    requests.push(`${request.method} ${pathname} ${request.headers.range ?? ""}`.trim());
    if (pathname === "/blank") {
      response.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>blank</title>");
      return true;
    }
    const [, kind, ...rest] = pathname.split("/");
    const file = (name) => {
      const where = path.join(models, path.basename(name));
      return { file: where, size: statSync(where).size };
    };
    if (kind === "plain") {
      sendFile(request, response, file(rest[0]), { ranges: false });
      return true;
    }
    if (kind === "cut") {
      sendFile(request, response, { ...file(rest[1]), size: Number(rest[0]) });
      return true;
    }
    if (kind === "drop") {
      if (drops++ % 2 === 0) limit(response, Number(rest[0]));
      sendFile(request, response, file(rest[1]));
      return true;
    }
    return false;
  };
  const server = await serve({ folders: mounts(models), special });
  return { ...server, requests };
}

/** Breaks the connection once `bytes` of the body have been written. */
function limit(response, bytes) {
  const write = response.write.bind(response);
  let sent = 0;
  response.write = (chunk, ...rest) => {
    sent += chunk.length;
    if (sent > bytes) {
      response.socket?.destroy();
      return false;
    }
    return write(chunk, ...rest);
  };
}
