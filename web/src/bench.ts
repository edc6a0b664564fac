/** Measuring speculation against plain decoding on the visitor's device: the shapes of `foredraft bench`. */
import type { DeviceInfo } from "./openai.js";

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

/** Figures of some runs; of more than one prompt, medians over them. */
export interface BenchFigures {
  speedup: number | null;
  /** The smallest and the largest of what `speedup` is the median of. */
  speedup_range: [number, number] | null;
  plain_tokens_per_second: number | null;
  tokens_per_second: number | null;
  /** Tokens by passes of the target after prefill; 1 is plain decoding. */
  mean_acceptance_length: number;
  acceptance_by_position: number[];
  tokens: number;
  rounds: number;
}

/** What a bench found; a text that is not the one of plain decoding is an error instead. */
export interface BenchReport {
  suite: string;
  model: string;
  device: DeviceInfo;
  system_fingerprint: string;
  categories: (BenchFigures & { category: string; config: string; prompts: (BenchFigures & { id: string })[] })[];
  overall: (BenchFigures & { config: string; reason: string; geomean_speedup: number | null })[];
  /** Plain decoding against itself, where the gain must vanish. */
  controls: (BenchFigures & { config: string; geomean_speedup: number | null })[];
  geomean_speedup: number | null;
  /** Cost of verifying 1, 2, 4, 8 and 16 columns over one, by k, in a short context: the first of `verify_cost_at`. */
  verify_cost: Record<string, number>;
  /** The same by tokens of context. */
  verify_cost_at: Record<string, Record<string, number>>;
}
