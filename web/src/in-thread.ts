/**
 * `foredraft/worker`: the same engine for a worker of your own. It runs in the thread that loads it and starts no other, so
 * do not load it on a page's main thread: a CPU engine would hold the page up.
 *
 * Importing this module does nothing: wasm and downloads begin with `Engine.load`.
 */
import { Client, type Connect } from "./client.js";
import { ModelEngine, checkShadersOf, filesOf, probeWith, type Assets, type Files, type LoadOptions } from "./engine.js";
import { ForedraftError } from "./errors.js";
import { EngineHost } from "./host.js";
import type { Probe, ProbeOptions } from "./probe.js";

export type * from "./types.js";
export { ForedraftError } from "./errors.js";
export { forget } from "./learned.js";
export * as storage from "./storage/index.js";
export { CompletionStream } from "./stream.js";

/** A loaded model, in this very thread. */
export class Engine extends ModelEngine {
  /** Loads a model into this thread. */
  static async load(options: LoadOptions): Promise<Engine> {
    const engine = new Engine(startHere, options);
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
  return probeWith(startHere, options, assets);
}

/** Has this browser check every shader; see the same function of `foredraft`. Downloads no model. */
export function checkShaders(options: { pipelines?: boolean } = {}, assets?: Assets): Promise<unknown> {
  return checkShadersOf(startHere, options, assets);
}

function startHere(assets?: Assets): { client: Client; files: Files } {
  return { files: filesOf(assets), client: new Client(here) };
}

const here: Connect = (receive, fail) => {
  // Always later, as from another thread: a caller has its promise before anything comes of it.
  const host = new EngineHost((answer) => queueMicrotask(() => receive(answer)));
  // A trap inside the wasm: nothing that waits for it would ever be answered.
  const trapped = ({ reason }: PromiseRejectionEvent) => {
    if (reason instanceof WebAssembly.RuntimeError) fail(ForedraftError.from(reason, "worker_failed"));
  };
  globalThis.addEventListener("unhandledrejection", trapped);
  return {
    post: (ask, transfer) => host.receive(structuredClone(ask, { transfer })),
    end: () => {
      globalThis.removeEventListener("unhandledrejection", trapped);
      host.close();
    },
  };
};
