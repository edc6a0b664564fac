/** What `probe()` tells: what a model would run on, and how, before its weights are downloaded. */
import type { ModelUrl } from "./models.js";
import type { DeviceInfo } from "./openai.js";

/** Options of `probe`: those of a load. */
export interface ProbeOptions {
  /** Of a model its header is read, a few megabytes; without one there is no plan of memory and no class of speed. */
  model?: string | URL | ModelUrl | Blob;
  /** A smaller model with the same vocabulary that drafts for it. */
  draftModel?: string | URL | ModelUrl | Blob;
  /** `"auto"` takes a hardware GPU, else the CPU; a software GPU only on `"gpu"`. */
  device?: "auto" | "gpu" | "cpu";
  /** How quantised matrices are multiplied. */
  arithmetic?: "f32" | "q8";
  /** Tokens of context to make room for. */
  context?: number;
  /** Gives up. */
  signal?: AbortSignal;
}

/** An adapter that the browser offers. */
export interface AdapterInfo {
  /** Browsers may withhold it. */
  name: string;
  backend: string;
  /** `"DiscreteGpu"`, `"IntegratedGpu"`, `"Cpu"`, … */
  kind: string;
  /** A GPU that is emulated on the CPU. */
  software: boolean;
  driver: string;
  /** Features it has; none of them is needed. */
  features: string[];
  max_storage_buffer_binding_bytes: number;
  max_buffer_bytes: number;
  max_storage_buffers_per_stage: number;
  max_workgroup_bytes: number;
  max_workgroup_threads: number;
}

/** Memory that a model takes on the device, in bytes. */
export interface MemoryPlan {
  weights_bytes: number;
  /** Keys and values of the whole context. */
  kv_bytes: number;
  activations_bytes: number;
  total_bytes: number;
  /** The largest single buffer apart from matrices, which are split where they must be. */
  largest_buffer_bytes: number;
  context_tokens: number;
}

/** A model by its header. */
export interface ModelPlan {
  name: string | null;
  architecture: string;
  layers: number;
  /** Length of the file; null where it is not known. */
  size_bytes: number | null;
  memory: MemoryPlan;
}

/** A model's file, as far as it is here already. */
export interface DownloadPlan {
  url: string;
  size_bytes: number | null;
  /** Bytes that are kept on this device; all of them where the model loads without a network. */
  stored_bytes: number;
  /** Whether the browser says that it has room for the rest; null where it does not say. */
  fits_storage: boolean | null;
}

/** How fast a model would be. */
export interface SpeedEstimate {
  /** Weights that a mat-vec reads in a second, measured now. */
  weight_bytes_per_second: number;
  /** An empty submit and the wait for it. */
  round_trip_ms: number;
  /**
   * What reading every weight once for each token allows. Attention comes on top, and speculation makes up for some of it.
   * Null without a model, as is the class.
   */
  tokens_per_second: number | null;
  /** `"fast"` is 20 tokens a second and more, `"readable"` 7: as fast as one reads; `"slow"` 2. */
  class: "fast" | "readable" | "slow" | "very_slow" | null;
}

/** What a load with the same options would find. */
export interface Probe {
  /** Every adapter there is. */
  adapters: AdapterInfo[];
  /** What would be used; a GPU has passed its self-test. */
  device: DeviceInfo;
  /** Why it is that one: where it is the CPU, what is wrong with the GPU. */
  reason: string;
  /** How quantised matrices would be multiplied. */
  arithmetic: "f32" | "q8";
  /** `memory_bytes` is null for a GPU, which does not say. */
  limits: { max_buffer_bytes: number; memory_bytes: number | null };
  /** What the self-test of a GPU found; null for the CPU. */
  self_test: { same_bits: string[]; widest_only: string[]; largest_difference: number; duration_ms: number } | null;
  /** What was decided for the kernels of a GPU. */
  kernels: { kernel: string; choice: string; reason: string }[];
  /** The part of `system_fingerprint` that the device decides. */
  fingerprint: string;
  model: ModelPlan | null;
  draft_model: ModelPlan | null;
  /** Why the models do not fit into the device's memory; null where they do. */
  problem: string | null;
  speed: SpeedEstimate;
  /** What has to be downloaded of the models that were named by URL. */
  downloads: DownloadPlan[];
}
