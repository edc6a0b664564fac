/** Requests and answers in OpenAI's shapes, and what foredraft adds to them. */
import type { Exactness, Speculation } from "./speculation.js";

/** A piece of a message's content; only text is understood. */
export interface TextPart {
  type: "text";
  text: string;
}

/** A function that the model wants called. */
export interface ToolCall {
  id: string;
  type: "function";
  function: {
    name: string;
    /** A JSON object, as text. */
    arguments: string;
  };
}

/** One message of a conversation. */
export interface ChatMessage {
  role: "system" | "developer" | "user" | "assistant" | "tool";
  /** `null` only in an assistant's message that calls tools. */
  content: string | readonly TextPart[] | null;
  name?: string;
  /** What an assistant's message called. */
  tool_calls?: readonly ToolCall[];
  /** Of a tool's message: the call that it answers. */
  tool_call_id?: string;
}

/** A function that the model may call. */
export interface Tool {
  type: "function";
  function: {
    name: string;
    description?: string;
    /** JSON schema of its arguments. */
    parameters?: Readonly<Record<string, unknown>>;
  };
}

/** How an answer has to look. */
export type ResponseFormat =
  | { type: "text" }
  /** A JSON object, whatever is in it. */
  | { type: "json_object" }
  /** JSON that a schema allows. The model is not shown the schema: say in a message what its fields are for. */
  | {
      type: "json_schema";
      json_schema: { schema: Readonly<Record<string, unknown>>; name?: string; description?: string; strict?: boolean | null };
    };

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
  /** Must be the loaded model's name where it is given: an engine has one. */
  model?: string | null;
  /** Answers to write: 1, and nothing else. */
  n?: 1 | null;
  /** For this request only; without it, as the engine was loaded. */
  speculation?: Speculation | null;
  stream_options?: { include_usage?: boolean | null } | null;
  /**
   * JSON, on one line, token by token as a grammar allows it: valid unless `max_tokens` or the context cuts it
   * (`finish_reason: "length"`). Speculation works as ever. A schema that cannot be kept to is an error, `schema`. JSON beside
   * tools is `bad_option` unless `tool_choice` is `"none"`: such an answer could not call one.
   */
  response_format?: ResponseFormat | null;
  /**
   * Ends the answer early, with `finish_reason: "abort"`. A request that was aborted before its answer began throws `aborted`
   * instead: at once where the signal had fired already, else when the answers ahead of it have ended.
   */
  signal?: AbortSignal | null;
}

/** Body of `engine.chat.completions.create`. */
export interface ChatCompletionRequest extends CompletionOptions {
  messages: readonly ChatMessage[];
  /** Functions that the model may call; `bad_option` where its chat template has no place for them. */
  tools?: readonly Tool[] | null;
  /**
   * `"none"` hides the tools from the model; `"required"` and a named one make its answer a call, with arguments that the
   * tool's schema allows.
   */
  tool_choice?: "auto" | "none" | "required" | { type: "function"; function: { name: string } } | null;
  /** Tells how likely each token was: `choices[0].logprobs`, after bias, penalties and temperature, before truncation. */
  logprobs?: boolean | null;
  /** With `logprobs`, the likeliest tokens at each place, 0 to 8. */
  top_logprobs?: number | null;
  /**
   * Messages that do not fit the context: `"error"`, the default, throws `prompt_too_long` with the numbers; `"slide"` leaves
   * out the oldest turns, but no system messages, until there is room for an answer (a quarter of the context at a time, so
   * that most requests find what is left in the cache), and counts them in `foredraft.dropped_messages`.
   */
  context_overflow?: "error" | "slide" | null;
  stream?: boolean | null;
}

/** Body of `engine.completions.create`: the prompt is continued as it is, without a chat template. */
export interface CompletionRequest extends CompletionOptions {
  prompt: string;
  stream?: boolean | null;
  /** Tells how likely each token was, and this many of the likeliest at its place, 0 to 8. */
  logprobs?: number | null;
}

/** Second argument of `create`, as in OpenAI's own client. */
export interface RequestOptions {
  signal?: AbortSignal | null;
}

/** Why an answer ended. */
export type FinishReason = "stop" | "length" | "abort" | "tool_calls";

/** How likely a token was. */
export interface TokenLogprob {
  token: string;
  /** Natural logarithm of its probability; at least -9999. */
  logprob: number;
  /** Its bytes; a token may be half a character. */
  bytes: number[];
}

/** `logprobs` of a chat answer: a place for each token. */
export interface ChatLogprobs {
  content: (TokenLogprob & { top_logprobs: TokenLogprob[] })[];
}

/** `logprobs` of a continuation, column by column. */
export interface CompletionLogprobs {
  tokens: string[];
  token_logprobs: number[];
  top_logprobs: Record<string, number>[];
  /** Where each token's text begins in the answer. */
  text_offset: number[];
}

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
  /** Milliseconds of the rounds that drafting took: the host's work, and passes of draft models with a submit of their own. */
  draft_ms: number;
  /** Milliseconds of the rounds that the model's passes took, from submit to read-back. */
  verify_ms: number;
  /** Submits of work to the device in the rounds. */
  submits: number;
  /** Times in the rounds that the device was waited for to read from it. */
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
  /** Messages that the sliding context left out. */
  dropped_messages?: number;
  /** Tokens that were sampled anew, as the schema did not allow the first sample; 0 without a schema. */
  redrawn_tokens?: number;
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
    delta: { role?: "assistant"; content?: string; tool_calls?: (ToolCall & { index: number })[] };
    logprobs?: ChatLogprobs;
    finish_reason: FinishReason | null;
  }[];
  /** In the last chunk where `stream_options.include_usage` was set. */
  usage?: Usage;
  foredraft: ChunkExtra;
}

/** A whole chat answer. */
export interface ChatCompletion extends Head<"chat.completion"> {
  choices: [
    {
      index: 0;
      /** `content` is `null` where there is nothing but calls. */
      message: { role: "assistant"; content: string | null; tool_calls?: ToolCall[] };
      logprobs?: ChatLogprobs;
      finish_reason: FinishReason;
    },
  ];
  usage: Usage;
  timings: Timings;
  foredraft: Required<Omit<ChunkExtra, "rejected">>;
}

/** One piece of a streamed continuation. */
export interface CompletionChunk extends Head<"text_completion"> {
  /** Empty in the usage chunk. */
  choices: { index: 0; text: string; logprobs?: CompletionLogprobs; finish_reason: FinishReason | null }[];
  usage?: Usage;
  foredraft: ChunkExtra;
}

/** A whole continuation. */
export interface Completion extends Head<"text_completion"> {
  choices: [{ index: 0; text: string; logprobs?: CompletionLogprobs; finish_reason: FinishReason }];
  usage: Usage;
  timings: Timings;
  foredraft: Required<Omit<ChunkExtra, "rejected">>;
}
