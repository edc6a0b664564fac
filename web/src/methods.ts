// Written from the registry of the Rust crate by tests/methods.rs, which says how; do not edit.

/** What `drafter` may name. */
export type DrafterName =
  | "suffix"
  | "sam"
  | "ngram"
  | "recycling"
  | "hierarchy"
  | "corpus"
  | "grammar"
  | "jacobi"
  | "reuse"
  | "model"
  | "self"
  | "nested"
  | "ouroboros";

/** What `accept` may name. */
export type AcceptanceRuleName =
  | "match"
  | "greedy"
  | "rejection"
  | "multi-round"
  | "swor"
  | "kseq"
  | "traversal"
  | "typical"
  | "cactus"
  | "fuzzy"
  | "adasd"
  | "easd";

/** What `length` may name. */
export type LengthPolicyName =
  | "fixed"
  | "goodput"
  | "heuristic"
  | "threshold"
  | "survival"
  | "chunked"
  | "preverify"
  | "slo"
  | "thompson"
  | "adasd"
  | "long-tail";

/** What `stop_at` may name. */
export type StopAtName =
  | "syntax";

/** What `estimator` may name. */
export type AcceptanceEstimatorName =
  | "ema"
  | "tier"
  | "platt"
  | "confidence"
  | "entropy"
  | "kld"
  | "gamma-mlp";

/** What `tree` may name. */
export type TreeShapeName =
  | "chain"
  | "static"
  | "dynamic"
  | "equal-growth"
  | "spine"
  | "delayed"
  | "sequoia";

/** What `select` may name. */
export type DraftSelectorName =
  | "cascade"
  | "suffix-score"
  | "hedge"
  | "bandit"
  | "ensemble"
  | "vote"
  | "fusion";

/** What `kv` may name. */
export type KvViewName =
  | "full"
  | "window";

/** Numbers of the methods. */
export interface MethodOptions {
  /** `suffix`: tokens to draft per matched token; 0 to 16, default 1. */
  suffix_factor?: number;
  /** `suffix`: tokens to draft beyond that; -16 to 31, default 0. */
  suffix_offset?: number;
  /** `suffix`: share of the matches that must go on in the same way; 0 to 1, default 0.1. */
  suffix_min_prob?: number;
  /** `suffix`: longest match, tokens; 1 to 64, default 64. */
  suffix_depth?: number;
  /** `suffix`: 1: earlier answers are copied from, and this one joins them; 0: neither, with any drafter; 0 to 1, default 1. */
  suffix_store?: number;
  /** `sam`: shortest match that drafts, tokens; 1 to 64, default 1. */
  sam_min_match?: number;
  /** `sam`: tokens by which a match in the corpus must be longer than one in the text so far; 0 to 64, default 5. */
  sam_bias?: number;
  /** `ngram`: shortest n-gram, tokens; 1 to 64, default 2. */
  prompt_lookup_min?: number;
  /** `ngram`: longest n-gram, tokens; 1 to 64, default 4. */
  prompt_lookup_max?: number;
  /** `hierarchy`: guesses a round; 1 to 31, default 7. */
  hierarchy_guesses?: number;
  /** `corpus`: shortest match that drafts, tokens; 1 to 64, default 2. */
  corpus_min_match?: number;
  /** `jacobi`: positions that are guessed; 1 to 31, default 7. */
  jacobi_window?: number;
  /** `self`: layers to run; 0 takes two thirds; 0 to 1024, default 0. */
  self_layers?: number;
  /** `ouroboros`: tokens that the model drafts before phrases follow; 1 to 15, default 4. */
  ouroboros_gamma?: number;
  /** `typical`: probability above which a token is always kept; 0 to 1, default 0.3. */
  typical_epsilon?: number;
  /** `typical`: share of exp(-entropy) above which a token is kept; 0 to 1, default 0.09. */
  typical_alpha?: number;
  /** `cactus`: divergence budget of a drafted token, nats; 0 is exact; 0 to 100, default 1. */
  cactus_delta?: number;
  /** `fuzzy`: largest divergence at which drafts are kept; nats, or a share for total variation and gap; 0 to 100, default 0.3. */
  fuzzy_threshold?: number;
  /** `fuzzy`: 0 Jensen-Shannon, 1 Kullback-Leibler, 2 total variation, 3 gap at the drafted token; 0 to 3, default 0. */
  fuzzy_divergence?: number;
  /** `fuzzy`: 1: drafts that are too far apart take the ratio test; 0: they are rejected; 0 to 1, default 1. */
  fuzzy_strict?: number;
  /** `easd`: entropy of q above which the draft is unsure, nats; 0 to 20, default 2. */
  easd_draft_entropy?: number;
  /** `easd`: entropy of p above which the target is unsure, nats; 0 to 20, default 2. */
  easd_target_entropy?: number;
  /** `easd`: likeliest tokens that are compared; 1 to 64, default 5. */
  easd_top?: number;
  /** `easd`: share of them that both must have; 0 to 1, default 0.6. */
  easd_overlap?: number;
  /** `heuristic`: tokens of the first draft; 1 to 31, default 5. */
  heuristic_start?: number;
  /** `threshold`: estimate below which drafting stops; 0 for the estimator's published one; 0 to 1, default 0. */
  threshold?: number;
  /** `survival`: P(the draft breaks) above which drafting stops; 0 to 1, default 0.3. */
  survival_stop?: number;
  /** `survival`: fewest tokens of a draft; 1 to 31, default 2. */
  survival_min?: number;
  /** `survival`: most tokens of a draft; 1 to 31, default 20. */
  survival_max?: number;
  /** `chunked`: tokens of a chunk; 1 to 31, default 10. */
  chunk_tokens?: number;
  /** `chunked`: estimate that every token of a chunk must reach; 0 to 1, default 0.45. */
  chunk_confidence?: number;
  /** `preverify`: tokens of a block; 1 to 31, default 4. */
  preverify_block?: number;
  /** `preverify`: score that the first block must reach; 0 to 1, default 0.6. */
  preverify_threshold?: number;
  /** `preverify`: threshold of a block over that of the one before; 1 to 4, default 1.1. */
  preverify_growth?: number;
  /** `slo`: time a token may take, milliseconds; 0 to 1000000, default 50. */
  max_ms_per_token?: number;
  /** `slo`: what a round takes beyond its passes, milliseconds; 0 to 1000000, default 0. */
  slo_fixed_ms?: number;
  /** `slo`: what a drafted token counts beyond its time, milliseconds; 0 to 1000000, default 0. */
  slo_token_ms?: number;
  /** `thompson`: what is left of the counts after a round; 0 to 1, default 0.98. */
  thompson_fade?: number;
  /** `long-tail`: tokens that may be drafted at first; 0 to 31, default 4. */
  long_tail_short?: number;
  /** `long-tail`: expected remainder, in tokens, from which there is no limit; 1 to 1000000, default 512. */
  long_tail_tokens?: number;
  /** `ema`: judged tokens that the average remembers; 1 to 4096, default 32. */
  ema_memory?: number;
  /** `tier`: judged tokens that an average remembers; 1 to 4096, default 128. */
  tier_memory?: number;
  /** `platt`: variance that a round adds to the bias, in logits; 0 to 1, default 0.005. */
  platt_drift?: number;
  /** `entropy`: c in 1 - sqrt(c H), per nat; 0 to 10, default 0.15. */
  entropy_scale?: number;
  /** `gamma-mlp`: share of an error that a step of its training takes away; 0 to 1, default 0.03. */
  gamma_mlp_rate?: number;
  /** `static`: expected acceptance of the first sibling; the others keep their proportions; 0.05 to 0.95, default 0.6. */
  static_first?: number;
  /** `dynamic`: leaves a level, and children of each; 1 to 10, default 4. */
  dynamic_width?: number;
  /** `dynamic`: levels at most; 1 to 31, default 15. */
  dynamic_depth?: number;
  /** `equal-growth`: leaves a step; 1 to 8, default 4. */
  equal_growth_width?: number;
  /** `equal-growth`: steps at most; 1 to 31, default 15. */
  equal_growth_steps?: number;
  /** `delayed`: branches; 1 to 8, default 3. */
  delayed_branches?: number;
  /** `delayed`: survival below which it branches; 0 to 1, default 0.5. */
  delayed_survival?: number;
  /** `suffix-score`: tokens expected to be accepted; 0 to 31, default 2. */
  suffix_score_threshold?: number;
  /** `hedge`: rounds after which a gain counts for a third; 4 to 10000, default 50. */
  hedge_horizon?: number;
  /** `vote`: factor on the weight of a drafter that was wrong; 0.1 to 1, default 0.9. */
  vote_decrease?: number;
  /** `window`: first positions; 0 to 1024, default 16. */
  kv_sink?: number;
  /** `window`: last positions; 1 to 1000000, default 240. */
  kv_window?: number;
}
