/** Measuring speculation against plain decoding on the visitor's device: the shapes of `foredraft bench`. */
import type { DeviceInfo, Tally } from "./openai.js";
import type { Exactness } from "./speculation.js";

/** Prompts to measure on. */
export interface BenchSuite {
  name?: string;
  prompts: {
    id: string;
    category: string;
    messages: { role: string; content: string }[];
    max_tokens?: number;
  }[];
}

/** What to measure, as the engine reads it. */
export interface BenchSettings {
  /** Configurations, each against plain decoding: `"auto"`, or `"KEY=VALUE,…"`; `["auto"]` by default. */
  speculation?: string[];
  /** Prompts of a category at most, the first ones. */
  per_category?: number;
  /** Tokens of an answer at most. */
  max_tokens?: number;
  /** Timed pairs of a plain and a speculative run for each prompt and configuration; 1 by default. */
  repeats?: number;
}

/** How far a bench is. */
export interface BenchProgress {
  /** The prompt that is run. */
  id: string;
  /** The configuration that is run; `"off"` for plain runs. */
  config: string;
  /** Runs done, and runs there will be. */
  done: number;
  total: number;
}

/** Milliseconds of a round, on average. */
export interface BenchRoundTime {
  /** Drafting: the host's work, and passes of draft models that have a submit of their own. */
  draft: number;
  /** The model's pass from submit to read-back, with draft steps inside it. */
  verify: number;
  /** The rest: accepting, learning, text. */
  host: number;
}

/** Figures of some runs; of more than one prompt, times and rates are medians over them. `null` is what was not measured. */
export interface BenchFigures {
  /** Tokens a second with speculation over those of plain decoding. */
  speedup: number | null;
  /** The smallest and the largest of what `speedup` is the median of. */
  speedup_range: [number, number] | null;
  plain_tokens_per_second: number | null;
  tokens_per_second: number | null;
  /** What `speedup` would be at this device's costs with the best length of each draft; `null` also where no recording tells. */
  oracle_speedup: number | null;
  /** `speedup` as a share of it, 0 to 1 but for noise. */
  share_of_oracle: number | null;
  /** Where the time of a round goes. */
  round_ms: BenchRoundTime | null;
  /** Tokens by passes of the model after the prompt's; 1 is plain decoding. */
  mean_acceptance_length: number;
  /** The mean of the same of each prompt: each prompt counts the same, where above each pass does. */
  mean_of_prompts: number;
  /** Accepted by drafted at each depth of the tree, 0 to 1: first the tokens right below the text so far. */
  acceptance_by_position: number[];
  /** The counts behind it. */
  by_position: Tally[];
  /** By name of the drafter. */
  drafters: Record<string, Tally>;
  /** Tokens written, end tokens included. */
  tokens: number;
  /** Passes of the model after the prompt's. */
  rounds: number;
  /** Those of them that checked a draft. */
  drafted_rounds: number;
  /** rounds / tokens. */
  calls_per_token: number;
}

/** One prompt with one configuration. */
export interface BenchPrompt extends BenchFigures {
  id: string;
  /** Whether every run gave the tokens of plain decoding; `null` where the configuration does not promise it. */
  same_tokens: boolean | null;
}

/** One category with one configuration. */
export interface BenchCategory extends BenchFigures {
  category: string;
  config: string;
  prompts: BenchPrompt[];
}

/** One configuration. */
export interface BenchOverall extends BenchFigures {
  config: string;
  /** What its texts are worth against plain decoding; `null` where nothing ran. */
  exactness: Exactness | null;
  /** What it drafts by, or why not. */
  reason: string;
  /** Geometric mean of the prompts' speed-ups. */
  geomean_speedup: number | null;
}

/** What a bench found. */
export interface BenchReport {
  suite: string;
  model: string;
  device: DeviceInfo;
  system_fingerprint: string;
  /** Of every run, as the seed. */
  temperature: number;
  seed: number;
  /** Timed pairs for each configuration and prompt. */
  repeats: number;
  categories: BenchCategory[];
  overall: BenchOverall[];
  /** Plain decoding against itself, where the gain must vanish. */
  controls: BenchOverall[];
  /** That of the first configuration. */
  geomean_speedup: number | null;
  /** Cost of verifying 1, 2, 4, 8 and 16 columns over one, by k, in a short context: the first of `verify_cost_at`. */
  verify_cost: Record<string, number>;
  /** The same by tokens of context. */
  verify_cost_at: Record<string, Record<string, number>>;
  /** Empty: a text that is not the one of plain decoding is an error, `mismatch`, instead. */
  mismatches: [];
}
