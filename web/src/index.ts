/**
 * foredraft: large language models on the user's own GPU, made fast by exact speculative decoding.
 *
 * Importing this module does nothing: workers, wasm and downloads begin with `Engine.load`.
 */
export { ForedraftError } from "./errors.js";
export { Engine, checkShaders, probe } from "./in-worker.js";
export { forget } from "./learned.js";
export * as storage from "./storage/index.js";
export { CompletionStream } from "./stream.js";
export type * from "./types.js";
