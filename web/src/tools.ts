/** Tool calls in a model's text: the common `<tool_call>{…}</tool_call>`, and an answer that is JSON and nothing else. */
import type { Tool, ToolCall } from "./openai.js";

const OPEN = "<tool_call>";
const CLOSE = "</tool_call>";

/** Names of the tools that were offered; the engine says what is wrong with a list that is none. */
export function namesOf(tools: unknown): Set<string> {
  const list: unknown[] = Array.isArray(tools) ? tools : [];
  const names = list.map((tool) => record(record(tool)?.["function"])?.["name"]);
  return new Set(names.filter((name) => typeof name === "string"));
}

/** The JSON schema of a call of one of the tools in `names`: as an answer that is JSON alone. */
export function callSchema(tools: readonly Tool[], names: ReadonlySet<unknown>): Record<string, unknown> {
  const wanted = tools.filter((tool: Partial<Tool>) => names.has(tool.function?.name));
  const single = wanted.length === 1;
  const calls = wanted.map(({ function: { name, parameters } }, index) => {
    const at = single ? "#/properties/arguments" : `#/anyOf/${index}/properties/arguments`;
    const properties = { name: { const: name }, arguments: moved(objectSchema(parameters ?? {}), at) };
    return { type: "object", properties, required: ["name", "arguments"], additionalProperties: false };
  });
  return single ? calls[0]! : { anyOf: calls };
}

/** Arguments are an object, also where their schema leaves open what they are: a call with others is none. */
function objectSchema(parameters: object): object {
  const says = ["type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"].some((keyword) => keyword in parameters);
  return says ? parameters : { ...parameters, type: "object" };
}

/** Keywords whose values are no schemas, and those whose values are schemas by names, which may be any. */
const DATA = ["const", "enum", "default", "examples"];
const NAMED = ["properties", "patternProperties", "dependentSchemas", "$defs", "definitions"];

/** A schema that now stands at `at`: its references to its own parts by their place go there. */
function moved(schema: unknown, at: string): unknown {
  if (Array.isArray(schema)) return schema.map((item: unknown) => moved(item, at));
  return mapped(schema, (value, key) => {
    if (key === "$ref" && typeof value === "string" && /^#(\/|$)/.test(value)) return at + value.slice(1);
    if (DATA.includes(key)) return value;
    return NAMED.includes(key) ? mapped(value, (named) => moved(named, at)) : moved(value, at);
  });
}

/** An object with other values; what is none stays as it is. */
function mapped(value: unknown, change: (value: unknown, key: string) => unknown): unknown {
  const object = record(value);
  return object ? Object.fromEntries(Object.entries(object).map(([key, item]) => [key, change(item, key)])) : value;
}

/** Looks for calls in a text that comes in pieces; holds back what may be one. */
export class ToolCallReader {
  private held = "";
  /** All that is left belongs to calls. */
  private calling = false;
  /** Something else than white space has been given out, so the answer as a whole is no JSON. */
  private prose = false;

  /** `names` are the tools that were offered: what calls another is text. */
  constructor(private readonly names: ReadonlySet<string>) {}

  /** Takes a piece, gives out what is certain to be text. */
  push(piece: string): string {
    this.held += piece;
    if (this.calling) return "";
    const start = this.held.trimStart();
    if (!this.prose && (start === "" || start.startsWith("{") || start.startsWith("["))) return "";
    const tag = this.held.indexOf(OPEN);
    this.calling = tag >= 0;
    const text = this.held.slice(0, tag >= 0 ? tag : this.held.length - possibleTag(this.held));
    this.held = this.held.slice(text.length);
    this.prose ||= text.trim() !== "";
    return text;
  }

  /** At the end: the calls and the text behind them, or the text that was held back and is none. */
  finish(): { text: string; calls: ToolCall[] } {
    const found = this.calling ? this.tagged() : { text: "", calls: this.prose ? [] : this.bare() };
    return found?.calls?.length ? { text: found.text, calls: found.calls } : { text: this.held, calls: [] };
  }

  private tagged(): { text: string; calls: ToolCall[] } | undefined {
    let text = "";
    const bodies = this.held
      .split(OPEN)
      .slice(1)
      .map((part) => {
        // The last one: arguments may hold one as well.
        const end = part.lastIndexOf(CLOSE);
        const behind = end < 0 ? "" : part.slice(end + CLOSE.length);
        if (behind.trim() !== "") text += behind;
        return end < 0 ? part : part.slice(0, end);
      });
    const calls = bodies.map((body) => this.call(parse(body)));
    return calls.every((call) => call !== undefined) ? { text, calls } : undefined;
  }

  private bare(): ToolCall[] | undefined {
    const value = parse(this.held);
    const calls = (Array.isArray(value) ? value : [value]).map((item: unknown) => this.call(item));
    return calls.every((call) => call !== undefined) ? calls : undefined;
  }

  private call(value: unknown): ToolCall | undefined {
    const outer = record(value);
    const { name, arguments: args, parameters } = record(outer?.["function"]) ?? outer ?? {};
    const given = args ?? parameters ?? {};
    const object = typeof given === "string" ? parse(given) : given;
    if (typeof name !== "string" || !this.names.has(name) || !record(object)) return undefined;
    const id = `call_${crypto.getRandomValues(new Uint32Array(3)).join("")}`;
    return { id, type: "function", function: { name, arguments: JSON.stringify(object) } };
  }
}

/** Characters at the end of a text that may be the beginning of a tag. */
function possibleTag(text: string): number {
  for (let length = Math.min(OPEN.length - 1, text.length); length > 0; length--) {
    if (OPEN.startsWith(text.slice(-length))) return length;
  }
  return 0;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function record(value: unknown): Record<string, unknown> | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : undefined;
}
