/**
 * What the page and the worker say to each other, from one definition: each call has arguments, events on the way and one
 * result. A call that is cancelled still ends with its result or an error.
 */
import type { BenchProgress, BenchReport, BenchSettings, BenchSuite } from "./bench.js";
import type { WireError } from "./errors.js";
import type {
  DeviceInfo,
  FinishReason,
  RejectedPiece,
  SpeculationStats,
  Timings,
  TokenLogprob,
  TokenPiece,
  Usage,
} from "./openai.js";
import type { Probe } from "./probe.js";
import type { Speculation } from "./speculation.js";
import type { StorageMode, StorageOutcome } from "./storage/model.js";

/** A model as a message can carry it. */
export type ModelRef =
  | { kind: "url"; url: string; sha256?: string }
  | { kind: "blob"; blob: Blob; name: string }
  /** A stream that stays on its thread: each message to the port asks for a piece, each answer is a {@link Piece}. */
  | { kind: "port"; port: MessagePort; name: string };

/** Answer to a pull: bytes, the end, or what went wrong. */
export type Piece = { bytes: Uint8Array } | { end: true } | { error: WireError };

/** How far a load has come. */
export interface LoadProgress {
  /**
   * `"waiting"` while another tab downloads the file; `"storage"` is said once, where a file will not be kept; `"costs"` while
   * passes are timed.
   */
  stage: "waiting" | "storage" | "header" | "device" | "weights" | "costs" | "ready" | (string & {});
  /** The file being read. */
  file: string;
  /** Bytes of it that have been read, and its length; 0 where unknown. */
  loaded: number;
  total: number;
  /** loaded / total, 0 to 1. */
  progress: number;
  /** Milliseconds since the load began. */
  elapsed_ms: number;
  /** The same in words. */
  text: string;
  /** With `"storage"`: why. */
  warning?: WireError;
}

/** Arguments of `load`. */
export interface LoadArgs {
  model: ModelRef;
  draftModel?: ModelRef;
  device: "auto" | "gpu" | "cpu";
  arithmetic?: "f32" | "q8";
  context?: number;
  speculation?: Speculation;
  /** Bytes of what answers teach the drafters to keep for later visits; without it nothing is kept. */
  remember?: number;
  storage: StorageMode;
  /** Where the wasm is, if not beside the worker. */
  wasm?: string;
  /** The same of the wasm of JSON schemas, which is fetched when a request first has one. */
  grammar?: string;
}

/** Arguments of `probe`. */
export type ProbeArgs = Pick<LoadArgs, "draftModel" | "device" | "arithmetic" | "context" | "wasm"> & { model?: ModelRef };

/** Whether what answers teach the drafters is kept for later visits. */
export interface Remembered {
  active: boolean;
  /** Bytes that earlier visits had left. */
  bytes: number;
  /** Why it is kept, or why not. */
  reason: string;
}

/** Bytes in use. */
export interface MemoryUse {
  /** Matrices and vectors of all models, on the device. */
  weights_bytes: number;
  /** Keys and values of the whole context, on the device. */
  kv_bytes: number;
  /** Everything else on the device: activations, logits, tables. */
  scratch_bytes: number;
  /** The sum of them, by the engine's own count of what it allocated and has not freed. */
  allocated_bytes: number;
  /** Memory of the wasm, and of that of JSON schemas once it is there; it never shrinks. On the CPU the device's bytes are among them. */
  wasm_bytes: number;
}

/** What a loaded engine is. */
export interface EngineInfo {
  model: string;
  device: DeviceInfo;
  device_reason: string;
  remember: Remembered;
  /** What became of the files that came by URL. */
  storage: StorageOutcome[];
}

/** A request as the engine reads it. */
export interface GenerateArgs {
  messages?: unknown;
  prompt?: string;
  max_tokens?: number;
  sampling: Record<string, unknown>;
  stop: string[];
  speculation?: Speculation;
  tools?: unknown;
  /** A JSON schema that the answer has to keep to, as JSON: however deep, a message carries it. */
  schema?: string;
  context_overflow?: "error" | "slide";
  logprobs?: number;
}

/** A token as the engine tells it. */
export interface WirePiece extends TokenPiece {
  /** Where the request asked for it. */
  logprob?: { chosen: WireLogprob; top: WireLogprob[] };
}

/** How likely a token was. */
export interface WireLogprob extends TokenLogprob {
  id: number;
}

/** Text that has become certain, and the tokens it is made of. */
export interface GenerateChunk {
  text: string;
  tokens: WirePiece[];
  rejected: RejectedPiece[];
}

/** The figures of one answer. */
export interface Summary {
  model: string;
  device: DeviceInfo;
  text: string;
  tokens: number[];
  finish_reason: FinishReason;
  /** The end token that ended it, if one did; it is not among `tokens`. */
  end_token: number | null;
  usage: Usage;
  timings: Timings;
  speculation: SpeculationStats;
  dropped_messages: number;
  redrawn_tokens: number;
  system_fingerprint: string;
}

/** Everything that the worker can be asked for. */
export interface Calls {
  load: { args: LoadArgs; event: LoadProgress; result: EngineInfo };
  generate: { args: GenerateArgs; event: GenerateChunk; result: Summary };
  memory: { args: Record<string, never>; event: never; result: MemoryUse };
  /** Forgets what answers have taught the drafters, in the engine and where it is kept. */
  forget: { args: Record<string, never>; event: never; result: null };
  /** Speculation against plain decoding, prompt by prompt. */
  bench: { args: { suite: BenchSuite; options: BenchSettings }; event: BenchProgress; result: BenchReport };
  /** What a load would find; of models only the headers are read. */
  probe: { args: ProbeArgs; event: never; result: Probe };
  /** Compiles every shader; needs no model. */
  checkShaders: { args: { wasm?: string; pipelines?: boolean }; event: never; result: unknown };
}

/** Name of a call. */
export type Kind = keyof Calls;

/** A message to the worker. */
export type Ask = { [K in Kind]: { id: number; kind: K; args: Calls[K]["args"] } }[Kind] | { id: number; kind: "cancel" };

/** A message from the worker. */
export type Answer =
  | { [K in Kind]: { id: number; kind: "event"; of: K; event: Calls[K]["event"] } }[Kind]
  | { [K in Kind]: { id: number; kind: "result"; of: K; result: Calls[K]["result"] } }[Kind]
  | { id: number; kind: "error"; error: WireError }
  /** The worker cannot go on: everything that waits for it fails. */
  | { id: 0; kind: "fatal"; error: WireError };
