/** From a request to a message: every field is understood or refused, none is passed over. */
import { ForedraftError } from "./errors.js";
import type { ChatCompletionRequest, CompletionOptions, CompletionRequest, ResponseFormat } from "./openai.js";
import type { GenerateArgs } from "./protocol.js";
import { callSchema, namesOf } from "./tools.js";

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
  "response_format",
  "stream",
  "stream_options",
  "signal",
];
const CHAT = ["messages", "tools", "tool_choice", "logprobs", "top_logprobs", "context_overflow"];
const TEXT = ["prompt", "logprobs"];

/** A request as a message, and the tools whose calls its answer may be. */
export interface Asked {
  args: GenerateArgs;
  tools: ReadonlySet<string>;
}

/** A chat request. */
export function chatArgs(request: ChatCompletionRequest, model: string): Asked {
  known(request, [...SHARED, ...CHAT]);
  const args: GenerateArgs = { ...sharedArgs(request, model), messages: request.messages };
  const { tool_choice: choice, context_overflow: overflow } = request;
  const tools = choice === "none" ? undefined : (request.tools ?? undefined);
  if (tools !== undefined) args.tools = tools;
  const names = namesOf(tools);
  if (args.schema !== undefined && names.size > 0) {
    const expected = '"text" beside tools, which an answer by a schema cannot call, or tool_choice: "none"';
    throw refused("response_format.type", request.response_format?.type, expected);
  }
  const wanted = forced(choice, names);
  if (wanted !== undefined) {
    const offered = [...wanted].every((name) => names.has(name));
    if (wanted.size === 0 || !offered) throw refused("tool_choice", choice, "tools beside it, and one of them by its name");
    args.schema = asText("tools", () => callSchema(request.tools ?? [], wanted));
  }
  if (overflow != null) args.context_overflow = oneOf("context_overflow", overflow, ["error", "slide"]);
  if (boolean("logprobs", request.logprobs)) args.logprobs = count("top_logprobs", request.top_logprobs) ?? 0;
  else if (request.top_logprobs != null) throw refused("top_logprobs", request.top_logprobs, "logprobs: true beside it");
  return { args, tools: names };
}

/** A request to continue a text. */
export function textArgs(request: CompletionRequest, model: string): Asked {
  known(request, [...SHARED, ...TEXT]);
  const args: GenerateArgs = { ...sharedArgs(request, model), prompt: request.prompt };
  const logprobs = count("logprobs", request.logprobs);
  if (logprobs !== undefined) args.logprobs = logprobs;
  return { args, tools: new Set() };
}

/** Those of the tools' names that one has to be called of; undefined where the model may also answer. */
function forced(choice: ChatCompletionRequest["tool_choice"], names: ReadonlySet<string>): ReadonlySet<string> | undefined {
  if (choice == null || choice === "auto" || choice === "none") return undefined;
  if (choice === "required") return names;
  if (choice.type !== "function" || typeof choice.function?.name !== "string") {
    throw refused("tool_choice", choice, '"auto", "none", "required" or { type: "function", function: { name } }');
  }
  known(choice, ["type", "function"], "tool_choice.");
  known(choice.function, ["name"], "tool_choice.function.");
  return new Set([choice.function.name]);
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
  const schema = schemaOf(request.response_format);
  if (schema !== undefined) args.schema = schema;
  return args;
}

/** JSON of plain data. */
function asText(option: string, data: () => unknown): string {
  let cause: unknown;
  try {
    // What is no data at all, such as a function, has no JSON either.
    const text: string | undefined = JSON.stringify(data());
    if (text !== undefined) return text;
  } catch (thrown) {
    cause = thrown;
  }
  throw new ForedraftError("bad_option", `${option} cannot be written as JSON, expected plain data`, { option }, { cause });
}

/** The JSON schema of a format; the engine says what is wrong with one that is none. */
function schemaOf(format: ResponseFormat | null | undefined): string | undefined {
  switch (format?.type) {
    case undefined:
    case "text":
      return undefined;
    case "json_object":
      known(format, ["type"], "response_format.");
      return '{ "type": "object" }';
    case "json_schema": {
      known(format, ["type", "json_schema"], "response_format.");
      const { json_schema: given } = format;
      if (given?.schema == null) throw refused("response_format.json_schema.schema", given?.schema, "a JSON schema");
      known(given, ["name", "description", "schema", "strict"], "response_format.json_schema.");
      return asText("response_format.json_schema.schema", () => given.schema);
    }
    default:
      throw refused("response_format.type", Reflect.get(format ?? {}, "type"), '"text", "json_object" or "json_schema"');
  }
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
