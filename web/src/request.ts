/** From a request to a message: every field is understood or refused, none is passed over. */
import { ForedraftError } from "./errors.js";
import type { ChatCompletionRequest, CompletionOptions, CompletionRequest } from "./openai.js";
import type { GenerateArgs } from "./protocol.js";

const NUMBERS = ["temperature", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty"] as const;
const COUNTS = ["top_k", "repeat_last_n", "seed"] as const;
const SHARED = [
  ...NUMBERS,
  ...COUNTS,
  "max_tokens",
  "max_completion_tokens",
  "logit_bias",
  "stop",
  "model",
  "n",
  "speculation",
  "stream",
  "stream_options",
  "signal",
];
const CHAT = ["messages", "tools", "tool_choice", "logprobs", "top_logprobs", "response_format", "context_overflow"];
const TEXT = ["prompt", "logprobs"];

/** A chat request as a message. */
export function chatArgs(request: ChatCompletionRequest, model: string): GenerateArgs {
  known(request, [...SHARED, ...CHAT]);
  const args: GenerateArgs = { ...sharedArgs(request, model), messages: request.messages };
  const { tool_choice: choice, response_format: format, context_overflow: overflow } = request;
  if (choice != null && choice !== "auto" && choice !== "none") {
    throw refused(
      "tool_choice",
      choice,
      '"auto" or "none": a call cannot be forced without a grammar, which this version does not have',
    );
  }
  if (request.tools != null && choice !== "none") args.tools = request.tools;
  if (format != null && format.type !== "text") {
    throw refused(
      "response_format.type",
      format.type,
      '"text": answers in JSON need a grammar, which this version does not have',
    );
  }
  if (overflow != null) args.context_overflow = oneOf("context_overflow", overflow, ["error", "slide"]);
  if (boolean("logprobs", request.logprobs)) args.logprobs = count("top_logprobs", request.top_logprobs) ?? 0;
  else if (request.top_logprobs != null) throw refused("top_logprobs", request.top_logprobs, "logprobs: true beside it");
  return args;
}

/** A request to continue a text, as a message. */
export function textArgs(request: CompletionRequest, model: string): GenerateArgs {
  known(request, [...SHARED, ...TEXT]);
  const args: GenerateArgs = { ...sharedArgs(request, model), prompt: request.prompt };
  const logprobs = count("logprobs", request.logprobs);
  if (logprobs !== undefined) args.logprobs = logprobs;
  return args;
}

/** What is `null` counts as not given, as in OpenAI's API. */
function sharedArgs(request: CompletionOptions & { stream?: boolean | null }, model: string): GenerateArgs {
  const sampling: Record<string, unknown> = {};
  for (const name of NUMBERS) if (request[name] != null) sampling[name] = number(name, request[name]);
  for (const name of COUNTS) if (request[name] != null) sampling[name] = count(name, request[name]);
  if (request.logit_bias) {
    sampling["logit_bias"] = Object.entries(request.logit_bias).map(([token, bias]) => [
      count(`logit_bias token "${token}"`, Number(token)),
      number(`logit_bias of token ${token}`, bias),
    ]);
  }
  if (request.n != null && request.n !== 1) throw refused("n", request.n, "1: an engine writes one answer at a time");
  if (request.model != null && request.model !== model)
    throw refused("model", request.model, `"${model}", which is loaded, or nothing`);
  boolean("stream", request.stream);
  if (request.stream_options != null) {
    known(request.stream_options, ["include_usage"], "stream_options.");
    boolean("stream_options.include_usage", request.stream_options.include_usage);
  }
  const args: GenerateArgs = { sampling, stop: stops(request.stop) };
  const most = count("max_completion_tokens", request.max_completion_tokens) ?? count("max_tokens", request.max_tokens);
  if (most !== undefined) args.max_tokens = most;
  if (request.speculation != null) args.speculation = request.speculation;
  return args;
}

function stops(stop: CompletionOptions["stop"]): string[] {
  const list = stop == null ? [] : typeof stop === "string" ? [stop] : Array.from(stop);
  for (const text of list) if (typeof text !== "string") throw refused("stop", text, "a string or a list of strings");
  return list;
}

/** A number, as JSON has them: NaN and infinity would arrive as `null`, which means "not given". */
export function number(name: string, value: unknown): number | undefined {
  if (value == null) return undefined;
  if (typeof value === "number" && Number.isFinite(value)) return value;
  throw refused(name, value, "a finite number");
}

/** A whole number that is not negative. */
export function count(name: string, value: unknown): number | undefined {
  if (value == null) return undefined;
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw refused(name, value, "a whole number that is not negative");
}

function boolean(name: string, value: unknown): boolean {
  if (value == null || typeof value === "boolean") return value ?? false;
  throw refused(name, value, "true or false");
}

function oneOf<T extends string>(name: string, value: T, options: readonly T[]): T {
  if (options.includes(value)) return value;
  throw refused(name, value, options.map((option) => `"${option}"`).join(" or "));
}

/** Refuses fields that nothing here reads. */
export function known(request: object, names: readonly string[], prefix = ""): void {
  for (const [name, value] of Object.entries(request)) {
    if (value == null || names.includes(name)) continue;
    const expected = `one of ${names.join(", ")}`;
    throw new ForedraftError("bad_option", `${prefix}${name} is not supported, expected ${expected}`, {
      option: prefix + name,
      expected,
    });
  }
}

/** The error for a value that cannot be. */
export function refused(option: string, value: unknown, expected: string): ForedraftError {
  const found = typeof value === "string" ? `"${value}"` : typeof value === "object" ? JSON.stringify(value) : String(value);
  return new ForedraftError("bad_option", `${option} is ${found}, expected ${expected}`, { option, found, expected });
}
