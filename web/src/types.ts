/** Every public type, for the entries of the package to export alike. */
export type * from "./bench.js";
export type { Assets, Create, LoadOptions } from "./engine.js";
export type { ErrorCode, ErrorDetails } from "./errors.js";
export type * from "./methods.js";
export type { ModelSource } from "./models.js";
export type * from "./openai.js";
export type { LoadProgress, MemoryUse, Remembered } from "./protocol.js";
export type * from "./speculation.js";
