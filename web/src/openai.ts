/** Requests and answers in OpenAI's shapes, and what foredraft adds to them. */
import type { Exactness, Speculation } from "./speculation.js";

/** A piece of a message's content; only text is understood. */
export interface TextPart {
  type: "text";
  text: string;
}

/** One message of a conversation. */
export interface ChatMessage {
  role: "system" | "user" | "assistant" | "tool" | (string & {});
  content: string | TextPart[];
  name?: string;
}

/** Options that both kinds of completion share; `null` counts as not given. */
export interface CompletionOptions {
  /** Most tokens to write; without it, until the model stops or the context is full. */
  max_tokens?: number | null;
  /** OpenAI's newer name of `max_tokens`. */
  max_completion_tokens?: number | null;
  /** 0, the default, is greedy. */
  temperature?: number | null;
  top_k?: number | null;
  top_p?: number | null;
  min_p?: number | null;
  repeat_penalty?: number | null;
  repeat_last_n?: number | null;
  presence_penalty?: number | null;
  frequency_penalty?: number | null;
  /** Token ids to what is added to their logits. */
  logit_bias?: Readonly<Record<string, number>> | null;
  /** Same seed, same text. */
  seed?: number | null;
  /** Text that ends the answer; it is not part of it. */
  stop?: string | readonly string[] | null;
  /** For this request only; without it, as the engine was loaded. */
  speculation?: Speculation | null;
  stream_options?: { include_usage?: boolean | null } | null;
  /**
   * Ends the answer early, with `finish_reason: "abort"`. A request that was aborted before its answer began throws `aborted`
   * instead: at once where the signal had fired already, else when the answers ahead of it have ended.
   */
  signal?: AbortSignal | null;
}

/** Body of `engine.chat.completions.create`. */
export interface ChatCompletionRequest extends CompletionOptions {
  messages: readonly ChatMessage[];
  stream?: boolean | null;
}

/** Body of `engine.completions.create`: the prompt is continued as it is, without a chat template. */
export interface CompletionRequest extends CompletionOptions {
  prompt: string;
  stream?: boolean | null;
}

/** Second argument of `create`, as in OpenAI's own client. */
export interface RequestOptions {
  signal?: AbortSignal | null;
}

/** Why an answer ended. */
export type FinishReason = "stop" | "length" | "abort";

/** Tokens that were read and written. */
export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  /** Prompt tokens whose keys and values were still there from the request before. */
  prompt_tokens_details: { cached_tokens: number };
  /** Drafted tokens that the model would have written too, and those that it would not. */
  completion_tokens_details: { accepted_prediction_tokens: number; rejected_prediction_tokens: number };
}

/** Where the time went. */
export interface Timings {
  load_ms: number;
  prefill_ms: number;
  decode_ms: number;
  tokens_per_second: number;
  time_to_first_token_ms: number;
}

/** What speculation did, or why it did nothing. */
export interface SpeculationStats {
  active: boolean;
  reason: string;
  exactness: Exactness;
  /** Passes of the model after the prompt's, those without a draft included. */
  rounds: number;
  /** Rounds that had a draft. */
  drafted_rounds: number;
  /** Tokens proposed. */
  drafted: number;
  /** Proposed tokens that were kept. */
  accepted: number;
  /** accepted / drafted. */
  acceptance_rate: number;
  /** Tokens a round: 1 + accepted / rounds. */
  mean_acceptance_length: number;
  /** By depth in the tree: first the tokens right below the text so far. */
  by_position: Tally[];
  /** By name of the drafter. */
  by_drafter: Record<string, Tally>;
  /**
   * The most tokens a pass of this size can give on average by deterministic drafts (Pankratov and Alistarh, up to a
   * constant); `null` where no method read the model's distributions.
   */
  bound: number | null;
  /** A plain step's time over that of checking a draft of mean size (MoESD): 1 is free. `null` where it was not measured. */
  target_efficiency: number | null;
  submits: number;
  maps: number;
}

/** Tokens proposed, and those of them that were kept. */
export interface Tally {
  drafted: number;
  accepted: number;
}

/** What runs the model. */
export interface DeviceInfo {
  kind: "gpu" | "cpu";
  name: string;
  /** A GPU that is emulated on the CPU. */
  software: boolean;
}

/** One token, and who proposed it. */
export interface TokenPiece {
  id: number;
  text: string;
  /** `"target"`, or the name of the drafter. */
  source: string;
  /** The token was drafted, and the model agreed. */
  accepted: boolean;
}

/** A drafted token that was not kept. */
export interface RejectedPiece {
  id: number;
  text: string;
  /** The name of the drafter. */
  source: string;
}

/** What foredraft adds to a chunk; the last one carries the figures of the whole answer. */
export interface ChunkExtra {
  tokens: TokenPiece[];
  /** In chunks of a stream: what was drafted to stand from the last of `tokens` on, and was not kept. */
  rejected?: RejectedPiece[];
  timings?: Timings;
  speculation?: SpeculationStats;
  device?: DeviceInfo;
}

interface Head<Kind extends string> {
  id: string;
  object: Kind;
  /** Unix time in seconds. */
  created: number;
  model: string;
  /** What decides the bits: equal fingerprints, equal text. In whole answers and in the last chunk of a stream. */
  system_fingerprint?: string;
}

/** One piece of a streamed chat answer. */
export interface ChatCompletionChunk extends Head<"chat.completion.chunk"> {
  /** Empty in the usage chunk. */
  choices: {
    index: 0;
    delta: { role?: "assistant"; content?: string };
    finish_reason: FinishReason | null;
  }[];
  /** In the last chunk where `stream_options.include_usage` was set. */
  usage?: Usage;
  foredraft: ChunkExtra;
}

/** A whole chat answer. */
export interface ChatCompletion extends Head<"chat.completion"> {
  choices: [{ index: 0; message: { role: "assistant"; content: string }; finish_reason: FinishReason }];
  usage: Usage;
  timings: Timings;
  foredraft: Required<Omit<ChunkExtra, "rejected">>;
}

/** One piece of a streamed continuation. */
export interface CompletionChunk extends Head<"text_completion"> {
  /** Empty in the usage chunk. */
  choices: { index: 0; text: string; finish_reason: FinishReason | null }[];
  usage?: Usage;
  foredraft: ChunkExtra;
}

/** A whole continuation. */
export interface Completion extends Head<"text_completion"> {
  choices: [{ index: 0; text: string; finish_reason: FinishReason }];
  usage: Usage;
  timings: Timings;
  foredraft: Required<Omit<ChunkExtra, "rejected">>;
}
