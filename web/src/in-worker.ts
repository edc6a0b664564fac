/** The package's main entry behind `index.ts`: engines in a dedicated worker that the package starts itself. */
import { Client, type Connect } from "./client.js";
import { ModelEngine, checkShadersOf, filesOf, probeWith, type Assets, type Files, type LoadOptions } from "./engine.js";
import { ForedraftError, reasonOf } from "./errors.js";
import { absolute } from "./models.js";
import type { Probe, ProbeOptions } from "./probe.js";
import type { Answer } from "./protocol.js";

/** A loaded model, in a worker of its own. */
export class Engine extends ModelEngine {
  /** Starts a worker and loads a model into it. */
  static async load(options: LoadOptions): Promise<Engine> {
    const engine = new Engine(startWorker, options);
    await engine.open(options);
    return engine;
  }
}

/**
 * What would run here, and how: the adapter or the CPU and why, its limits, and for a model its plan of memory, what has to
 * be downloaded and about how fast it would be. Goes the way of a load up to the weights: of a model only the header is
 * read, nothing is kept, and what a load would refuse is refused here with the same error.
 */
export async function probe(options: ProbeOptions = {}, assets?: Assets): Promise<Probe> {
  return probeWith(startWorker, options, assets);
}

/**
 * Has this browser check every shader, also those that its adapter would not use; with `pipelines` the driver translates
 * them too, which takes minutes in software. Downloads no model.
 */
export function checkShaders(options: { pipelines?: boolean } = {}, assets?: Assets): Promise<unknown> {
  return checkShadersOf(startWorker, options, assets);
}

/** Starts the worker. Gives also where it finds what is not beside it. */
export function startWorker(assets?: Assets): { client: Client; files: Files } {
  const files = filesOf(assets);
  const script = assets?.worker === undefined ? undefined : absolute(assets.worker, "assets.worker");
  // Some bundlers put a path in the place of such a URL.
  const own = absolute(new URL("./worker.js", import.meta.url), "the worker's address");
  if (isForeign(script ?? own)) {
    // A bundler that moves the script as it is leaves the wasm out of it.
    const beside = {
      wasm: absolute(new URL("./foredraft_bg.wasm", import.meta.url), "the wasm's address"),
      grammar: absolute(new URL("./foredraft_grammar_bg.wasm", import.meta.url), "the address of the schemas' wasm"),
    };
    return { client: new Client(foreign(script ?? own)), files: script === undefined ? { ...beside, ...files } : files };
  }
  // The expression as bundlers know it: they find the worker by `new Worker(new URL(…, import.meta.url))`.
  const worker = () =>
    script === undefined
      ? new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "foredraft" })
      : new Worker(script, { type: "module", name: "foredraft" });
  return { client: new Client(through(worker)), files };
}

/** A worker can only be started from the page's own origin. */
function isForeign(script: string): boolean {
  const { protocol, origin } = new URL(script);
  return protocol.startsWith("http") && origin !== globalThis.location?.origin;
}

/** A worker of our own, as small as can be, that imports a script of another origin (which must allow that by CORS). */
function foreign(script: string): Connect {
  const shim = URL.createObjectURL(new Blob([`import ${JSON.stringify(script)};`], { type: "text/javascript" }));
  const hint = `its script ${script} could not be loaded: it must allow cross-origin use (CORS), and a content security policy must allow worker-src blob: and the script's origin`;
  return through(
    () => new Worker(shim, { type: "module", name: "foredraft" }),
    hint,
    () => URL.revokeObjectURL(shim),
  );
}

/** A link through a worker; `settled` is called once its script has run or failed. */
function through(start: () => Worker, hint?: string, settled: () => void = () => {}): Connect {
  return (receive, fail) => {
    let worker: Worker;
    try {
      worker = start();
    } catch (cause) {
      settled();
      const reason = reasonOf(cause);
      throw new ForedraftError("worker_failed", `the worker could not be started: ${reason}`, {}, { cause });
    }
    worker.onmessage = (message: MessageEvent<Answer>) => {
      settled();
      receive(message.data);
    };
    worker.onmessageerror = () => fail(new ForedraftError("worker_failed", "a message from the worker could not be read"));
    worker.onerror = (event) => {
      settled();
      const why =
        event.message || (hint ?? "its script could not be loaded (check the worker's address and content security policy)");
      fail(new ForedraftError("worker_failed", `the worker failed: ${why}`));
    };
    return { post: (ask, transfer) => worker.postMessage(ask, transfer), end: () => worker.terminate() };
  };
}
