/** Every public type, for the entries of the package to export alike. */
export type * from "./bench.js";
export type { Assets, Create, LoadOptions } from "./engine.js";
export type { ErrorCode, ErrorDetails } from "./errors.js";
export type * from "./methods.js";
export type { ModelSource, ModelUrl } from "./models.js";
export type * from "./openai.js";
export type * from "./probe.js";
export type { LoadProgress, MemoryUse, Remembered } from "./protocol.js";
export type * from "./speculation.js";
export type { StorageUsage, StoredModel } from "./storage/index.js";
export type { StorageMode, StorageOutcome } from "./storage/model.js";
