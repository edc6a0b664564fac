/** How to speculate: the same keys and names as on the command line. */
import type {
  AcceptanceEstimatorName,
  AcceptanceRuleName,
  DrafterName,
  DraftSelectorName,
  KvViewName,
  LengthPolicyName,
  StopAtName,
  MethodOptions,
  TreeShapeName,
} from "./methods.js";

/** A method, or one around another: `"reuse(suffix)"`. */
export type Around<Name extends string> = Name | `${Name}(${Name})`;

/** Where guesses may come from. */
export type Drafter = Around<DrafterName>;

/**
 * What to use of the methods there are, and their numbers; each key that is missing has its default. Names that are none
 * throw `bad_option`, and combinations that would silently change the text `inexact_speculation`.
 */
export interface SpeculationConfig extends MethodOptions {
  /** Drafters in the order they are asked; an empty list is `"off"`. */
  drafter?: Drafter | readonly Drafter[];
  /** What is kept of a draft. `"auto"` is always `"match"`: the same tokens as without speculation. */
  accept?: "auto" | AcceptanceRuleName;
  /** How much to draft; some take another inside: `"long-tail(goodput)"`. */
  length?: Around<LengthPolicyName>;
  /** Whether drafts end at the end of a fragment of code or prose. */
  stop_at?: "none" | StopAtName;
  /** What a length policy takes for the chance of a guess; `"auto"` leaves that to the policy. */
  estimator?: "auto" | Around<AcceptanceEstimatorName>;
  /** The shape of what is drafted. */
  tree?: TreeShapeName;
  /** Which drafters are asked in a round. */
  select?: DraftSelectorName;
  /** What draft models look at of the text so far. */
  kv?: KvViewName;
  /** Tokens to draft a round at most, 0 to 31; without it, what length policy and drafter say. */
  num_speculative_tokens?: number;
  /** The text that the drafter `"corpus"` copies from, at most 16 MiB in UTF-8. */
  corpus?: string;
}

/**
 * `"off"`, `"auto"`, a string as on the command line (`"drafter=ngram,num_speculative_tokens=4"`), or the same as an object.
 * The text is the same with every choice of drafters and lengths; only the speed differs.
 */
export type Speculation = "off" | "auto" | (string & {}) | Readonly<SpeculationConfig>;

/** What the text of a configuration is worth against plain decoding, strongest first. */
export type Exactness = "same-tokens" | "same-distribution" | "greedy-only" | "bounded" | "heuristic";
