/** What can be set, from one table: its values, what the browser remembers of them, and what the address may say. */
import type { ChatCompletionRequest, LoadOptions } from "../src/index.js";
import methods from "./methods.json";

/** One value of a choice. */
export interface Option {
  value: string;
  label: string;
  about?: string;
}

interface Common {
  label: string;
  help?: string;
  /** It takes effect when a model is loaded. */
  load?: true;
}

export type Field =
  | (Common & { kind: "number"; min: number; max: number; step: number; initial: number })
  /** A whole number, or none: then the engine decides. */
  | (Common & { kind: "optional"; min: number; max: number; initial: null })
  | (Common & { kind: "choice"; options: readonly Option[]; initial: string })
  | (Common & { kind: "several"; options: readonly Option[]; initial: readonly string[] });

const ofKind = (key: string): Option[] =>
  methods
    .filter((method) => method.key === key)
    .map(({ name, about, exactness }) => ({
      value: name,
      label: exactness === null || exactness === "same-tokens" ? name : `${name} (${EXACTNESS[exactness] ?? exactness})`,
      about,
    }));

const EXACTNESS: Readonly<Record<string, string>> = {
  "greedy-only": "same text at temperature 0",
  "same-distribution": "another text, equally likely",
  bounded: "may change the text a little",
  heuristic: "changes the text",
};

/** Drafters that need nothing which this page cannot give. */
const drafters = ofKind("drafter").filter(({ value }) => !["corpus", "grammar", "reuse", "self"].includes(value));

export const FIELDS = {
  guessing: {
    kind: "choice",
    label: "Guessing ahead",
    options: [
      { value: "auto", label: "Auto", about: "Guesses where that saves time on this device." },
      { value: "custom", label: "Custom", about: "Guesses as the settings say." },
      { value: "off", label: "Off", about: "Writes one token at a time." },
    ],
    initial: "auto",
  },
  drafters: { kind: "several", label: "Who guesses", options: drafters, initial: ["suffix"] },
  length: {
    kind: "choice",
    label: "How much is guessed",
    options: ofKind("length").filter(({ value }) => value !== "long-tail"),
    initial: "goodput",
  },
  num_speculative_tokens: { kind: "optional", label: "Guesses a round, at most", min: 1, max: 31, initial: null },
  accept: {
    kind: "choice",
    label: "Which guesses are kept",
    help: "“match” keeps exactly what the model would have written alone.",
    options: ofKind("accept"),
    initial: "match",
  },
  max_tokens: { kind: "number", label: "Longest answer, tokens", min: 1, max: 100_000, step: 1, initial: 256 },
  temperature: {
    kind: "number",
    label: "Temperature",
    help: "0 always takes the likeliest token; higher is more varied.",
    min: 0,
    max: 5,
    step: 0.05,
    initial: 0,
  },
  top_p: {
    kind: "number",
    label: "Top p",
    help: "Keeps the likeliest tokens up to this share; 1 keeps all.",
    min: 0.01,
    max: 1,
    step: 0.01,
    initial: 1,
  },
  top_k: {
    kind: "number",
    label: "Top k",
    help: "Keeps so many of the likeliest tokens; 0 keeps all.",
    min: 0,
    max: 1_000_000,
    step: 1,
    initial: 0,
  },
  min_p: {
    kind: "number",
    label: "Min p",
    help: "Drops what is much less likely than the likeliest; 0 drops nothing.",
    min: 0,
    max: 1,
    step: 0.01,
    initial: 0,
  },
  repeat_penalty: {
    kind: "number",
    label: "Repeat penalty",
    help: "Above 1, recent tokens become less likely.",
    min: 0.1,
    max: 10,
    step: 0.05,
    initial: 1,
  },
  seed: {
    kind: "number",
    label: "Seed",
    help: "Same seed, same text.",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    step: 1,
    initial: 0,
  },
  context_overflow: {
    kind: "choice",
    label: "Conversations that get too long",
    options: [
      { value: "slide", label: "go on", about: "The oldest messages are left out, and you are told." },
      { value: "error", label: "end", about: "You are told, and can begin a new one." },
    ],
    initial: "slide",
  },
  remember: {
    kind: "choice",
    label: "What answers teach the guessing",
    load: true,
    options: [
      { value: "visit", label: "is for this visit", about: "It goes with the page." },
      {
        value: "keep",
        label: "is kept in this browser",
        about: "Answers and the last words before each. They never leave this device.",
      },
    ],
    initial: "visit",
  },
  device: {
    kind: "choice",
    label: "Device",
    load: true,
    options: [
      { value: "auto", label: "Automatic", about: "A hardware GPU where there is one, else the CPU." },
      { value: "gpu", label: "GPU", about: "Also one that is emulated in software." },
      { value: "cpu", label: "CPU", about: "Works everywhere." },
    ],
    initial: "auto",
  },
  arithmetic: {
    kind: "choice",
    label: "Arithmetic",
    load: true,
    options: [
      { value: "auto", label: "Automatic", about: "f32 on a hardware GPU, q8 elsewhere." },
      { value: "f32", label: "f32", about: "Exact to rounding." },
      { value: "q8", label: "q8", about: "Rounds vectors to bytes: faster, a little less accurate." },
    ],
    initial: "auto",
  },
  context: {
    kind: "optional",
    label: "Context, tokens",
    help: "Room for question and answers together; more takes more memory.",
    load: true,
    min: 16,
    max: 1_000_000,
    initial: null,
  },
} as const satisfies Record<string, Field>;

export type Key = keyof typeof FIELDS;
type ValueOf<F> = F extends { kind: "number" }
  ? number
  : F extends { kind: "optional" }
    ? number | null
    : F extends { kind: "choice" }
      ? string
      : readonly string[];
export type Values = { [K in Key]: ValueOf<(typeof FIELDS)[K]> };
type Value = Values[Key];

export const KEYS = Object.keys(FIELDS) as Key[];

/** The value if the field may have it, else undefined: what is stored may be old, edited or broken. */
function valid(field: Field, value: unknown): Value | undefined {
  const known = (name: unknown): name is string => "options" in field && field.options.some((option) => option.value === name);
  switch (field.kind) {
    case "number":
    case "optional": {
      if (value === null) return field.kind === "optional" ? null : undefined;
      const whole = field.kind === "optional" || field.step === 1;
      const fits = typeof value === "number" && value >= field.min && value <= field.max && (!whole || Number.isInteger(value));
      return fits ? value : undefined;
    }
    case "choice":
      return known(value) ? value : undefined;
    case "several":
      return Array.isArray(value) && value.length > 0 && value.every(known) ? [...new Set<string>(value)] : undefined;
  }
}

/** What a text, of a form or an address, means for a field. */
function parse(field: Field, text: string): unknown {
  if (field.kind === "number" || field.kind === "optional") return text.trim() === "" ? null : Number(text);
  return field.kind === "several" ? text.split("+") : text;
}

const STORE = "foredraft.settings";

/** The settings of this visit. Only what the visitor changed is remembered; the rest follows the defaults. */
export class Settings {
  private readonly changed: Partial<Record<Key, Value>> = {};
  private readonly asked: Partial<Record<Key, Value>> = {};
  private readonly listeners: (() => void)[] = [];

  /** Reads what is remembered, and over it what the address asks for this once. */
  constructor(address: URLSearchParams) {
    const stored = remembered();
    for (const key of KEYS) {
      const kept = valid(FIELDS[key], stored[key]);
      if (kept !== undefined) this.changed[key] = kept;
      const text = address.get(key);
      const wanted = text === null ? undefined : valid(FIELDS[key], parse(FIELDS[key], text));
      if (wanted !== undefined) this.asked[key] = wanted;
    }
    const speculation = address.get("speculation");
    if (speculation === "auto" || speculation === "off") this.asked.guessing = speculation;
    else if (speculation !== null) {
      // One drafter by name, as on the command line, and a short draft each time.
      const named = valid(FIELDS.drafters, speculation.split("+"));
      const possible = named && (address.has("draft") || speculation.split("+").some((name) => !BY_DRAFT_MODEL.includes(name)));
      if (possible)
        Object.assign(this.asked, { guessing: "custom", drafters: named, length: "fixed", num_speculative_tokens: 4 });
    }
  }

  get values(): Values {
    const values = KEYS.map((key) => [key, this.asked[key] ?? this.changed[key] ?? FIELDS[key].initial]);
    return Object.fromEntries(values) as Values; // each was checked by the field of its key
  }

  /** Changes a setting to what a form says; gives whether it may have that value. */
  set(key: Key, text: string): boolean {
    const value = valid(FIELDS[key], parse(FIELDS[key], text));
    if (value === undefined) return false;
    delete this.asked[key];
    this.changed[key] = value;
    this.remember();
    return true;
  }

  /** Back to the defaults. */
  reset(): void {
    for (const key of KEYS) {
      delete this.asked[key];
      delete this.changed[key];
    }
    this.remember();
  }

  onChange(listener: () => void): void {
    this.listeners.push(listener);
  }

  private remember(): void {
    try {
      localStorage.setItem(STORE, JSON.stringify(this.changed));
    } catch {
      // Storage is full or forbidden: the settings last as long as the page.
    }
    for (const listener of this.listeners) listener();
  }
}

function remembered(): Readonly<Record<string, unknown>> {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(STORE) ?? "{}");
    return typeof stored === "object" && stored !== null ? (stored as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** Drafters that only work beside a draft model. */
export const BY_DRAFT_MODEL: readonly string[] = methods
  .filter(({ needs }) => needs === "a draft model")
  .map(({ name }) => name);

/** How to speculate, as on the command line; `hasDraft` is whether a draft model is there. */
export function speculation(values: Values, hasDraft: boolean): string {
  if (values.guessing !== "custom") return values.guessing;
  const usable = values.drafters.filter((name) => hasDraft || !BY_DRAFT_MODEL.includes(name));
  if (usable.length === 0) return "auto";
  const count = values.num_speculative_tokens;
  const keys = [`drafter=${usable.join("+")}`, `length=${values.length}`, `accept=${values.accept}`];
  return [...keys, ...(count === null ? [] : [`num_speculative_tokens=${count}`])].join(",");
}

/** The part of a request that is set. */
export function sampling(values: Values): Omit<ChatCompletionRequest, "messages" | "stream"> {
  const { max_tokens, temperature, top_p, top_k, min_p, repeat_penalty, seed } = values;
  return { max_tokens, temperature, top_p, top_k, min_p, repeat_penalty, seed };
}

/** The part of a load that is set. */
export function loading(values: Values): Pick<LoadOptions, "device" | "arithmetic" | "context" | "remember"> {
  const { device, arithmetic, context, remember } = values;
  return {
    device: device === "gpu" || device === "cpu" ? device : "auto",
    ...((arithmetic === "f32" || arithmetic === "q8") && { arithmetic }),
    ...(context !== null && { context }),
    remember: remember === "keep",
  };
}
