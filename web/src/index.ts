/**
 * foredraft: large language models on the user's own GPU, made fast by exact speculative decoding.
 *
 * Importing this module does nothing: workers, wasm and downloads begin with `Engine.load`.
 */
export type * from "./bench.js";
export { Engine, checkShaders, probe } from "./engine.js";
export type { Assets, Create, LoadOptions } from "./engine.js";
export { ForedraftError } from "./errors.js";
export type { ErrorCode, ErrorDetails } from "./errors.js";
export type { ModelSource, ModelUrl } from "./models.js";
export type * from "./methods.js";
export type * from "./openai.js";
export type * from "./probe.js";
export type { LoadProgress } from "./protocol.js";
export type * from "./speculation.js";
export * as storage from "./storage/index.js";
export type { StorageMode, StorageOutcome } from "./storage/model.js";
export type { StorageUsage, StoredModel } from "./storage/index.js";
export { CompletionStream } from "./stream.js";
