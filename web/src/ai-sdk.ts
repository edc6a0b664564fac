/**
 * `foredraft/ai-sdk`: a loaded engine as a model of the Vercel AI SDK (specification v4), for `generateText`, `streamText` and
 * whatever builds on them. Only types come from `@ai-sdk/provider`, so nothing has to be installed but the SDK itself.
 */
import type {
  LanguageModelV4,
  LanguageModelV4CallOptions,
  LanguageModelV4Content,
  LanguageModelV4FinishReason,
  LanguageModelV4Message,
  LanguageModelV4StreamPart,
  LanguageModelV4ToolResultPart,
  LanguageModelV4Usage,
  SharedV4ProviderMetadata,
  SharedV4Warning,
} from "@ai-sdk/provider";
import type { ModelEngine } from "./engine.js";
import { ForedraftError } from "./errors.js";
import type {
  ChatCompletionRequest,
  ChatMessage,
  ChunkExtra,
  CompletionOptions,
  FinishReason,
  ResponseFormat,
  Tool,
  ToolCall,
  Usage,
} from "./openai.js";
import { known, refused } from "./request.js";

/** What the SDK has no setting for. A call can give the same in `providerOptions.foredraft`. */
export type ForedraftSettings = Pick<
  CompletionOptions,
  "min_p" | "repeat_penalty" | "repeat_last_n" | "logit_bias" | "speculation"
> &
  Pick<ChatCompletionRequest, "context_overflow">;

/** Every setting by name: one that is missing here would not compile. */
const SETTINGS: Record<keyof ForedraftSettings, true> = {
  min_p: true,
  repeat_penalty: true,
  repeat_last_n: true,
  logit_bias: true,
  speculation: true,
  context_overflow: true,
};

/**
 * The engine's model for the SDK: `streamText({ model: foredraft(engine), prompt })`. What speculation did is in
 * `providerMetadata.foredraft`. What the engine cannot do (files in a prompt, say) is an error,
 * not a worse answer.
 */
export function foredraft(engine: Pick<ModelEngine, "chat" | "model">, settings: ForedraftSettings = {}): LanguageModelV4 {
  return {
    specificationVersion: "v4",
    provider: "foredraft",
    modelId: engine.model,
    supportedUrls: {},

    async doGenerate(options) {
      const { request, warnings } = requestOf(options, settings);
      const answer = await engine.chat.completions.create({ ...request, stream: false });
      const [{ message, finish_reason }] = answer.choices;
      if (finish_reason === "abort") throw options.abortSignal?.reason ?? ForedraftError.aborted();
      const content: LanguageModelV4Content[] = (message.tool_calls ?? []).map(callPart);
      if (message.content) content.unshift({ type: "text", text: message.content });
      return {
        content,
        finishReason: finishOf(finish_reason),
        usage: usageOf(answer.usage),
        warnings,
        providerMetadata: metadataOf(answer.foredraft),
        response: { id: answer.id, timestamp: new Date(answer.created * 1000), modelId: answer.model },
      };
    },

    async doStream(options) {
      const { request, warnings } = requestOf(options, settings);
      const streaming = { ...request, stream: true, stream_options: { include_usage: true } } as const;
      const chunks = await engine.chat.completions.create(streaming);
      return { stream: streamOf(partsOf(chunks, warnings), () => chunks.abort()) };
    },
  };
}

type Chunks = AsyncIterable<{
  id: string;
  created: number;
  model: string;
  choices: { delta: { content?: string; tool_calls?: ToolCall[] }; finish_reason: FinishReason | null }[];
  usage?: Usage;
  foredraft: ChunkExtra;
}>;

/** An answer as the SDK's parts. */
async function* partsOf(chunks: Chunks, warnings: SharedV4Warning[]): AsyncGenerator<LanguageModelV4StreamPart> {
  yield { type: "stream-start", warnings };
  const id = "0";
  let begun = false;
  let writing = false;
  let finish: FinishReason | null = null;
  let metadata: SharedV4ProviderMetadata = {};
  for await (const chunk of chunks) {
    if (!begun) {
      yield { type: "response-metadata", id: chunk.id, timestamp: new Date(chunk.created * 1000), modelId: chunk.model };
    }
    begun = true;
    const [choice] = chunk.choices;
    if (choice?.delta.content) {
      if (!writing) yield { type: "text-start", id };
      writing = true;
      yield { type: "text-delta", id, delta: choice.delta.content };
    }
    for (const call of choice?.delta.tool_calls ?? []) yield callPart(call);
    if (choice?.finish_reason) [finish, metadata] = [choice.finish_reason, metadataOf(chunk.foredraft)];
    if (!chunk.usage) continue;
    if (writing) yield { type: "text-end", id };
    yield { type: "finish", finishReason: finishOf(finish), usage: usageOf(chunk.usage), providerMetadata: metadata };
  }
}

/** `ReadableStream.from`, which not every browser has. A cancelled stream ends the answer. */
function streamOf<T>(parts: AsyncGenerator<T>, abort: () => void): ReadableStream<T> {
  return new ReadableStream<T>({
    async pull(controller) {
      const { done, value } = await parts.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    async cancel() {
      // First: a generator that waits for its next part returns only when that has come.
      abort();
      await parts.return(undefined);
    },
  });
}

function requestOf(
  options: LanguageModelV4CallOptions,
  settings: ForedraftSettings,
): { request: ChatCompletionRequest; warnings: SharedV4Warning[] } {
  const warnings: SharedV4Warning[] = [];
  const tools = (options.tools ?? []).flatMap((tool): Tool[] => {
    if (tool.type === "function") {
      const { name, description, inputSchema } = tool;
      const described = { name, ...(description !== undefined && { description }), parameters: { ...inputSchema } };
      return [{ type: "function", function: described }];
    }
    warnings.push({ type: "unsupported", feature: `provider-defined tool ${tool.id}` });
    return [];
  });
  if (options.reasoning !== undefined && options.reasoning !== "provider-default") {
    warnings.push({ type: "unsupported", feature: "reasoning", details: "the model decides by itself how much it thinks" });
  }
  // Others are the SDK's own, and would be overwritten by it.
  known(settings, Object.keys(SETTINGS), "settings.");
  const given = options.providerOptions?.["foredraft"] ?? {};
  known(given, Object.keys(SETTINGS), "providerOptions.foredraft.");
  const choice = options.toolChoice;
  const asked = options.responseFormat?.type === "json" ? options.responseFormat : undefined;
  // The SDK asks for JSON in every step. An answer by a schema cannot call a tool, so a loop of tools would end in the first:
  // with an object that was made up without them. Text in the last one is an error there, where the SDK reads the object.
  const mayCall = tools.length > 0 && choice?.type !== "none";
  if (asked && mayCall) {
    const details = 'the answer may call tools and is not kept to JSON; a step with toolChoice "none" (see prepareStep) is';
    warnings.push({ type: "unsupported", feature: "responseFormat beside tools", details });
  }
  const json = mayCall ? undefined : asked;
  const schema: ResponseFormat | null = json?.schema
    ? { type: "json_schema", json_schema: { schema: { ...json.schema } } }
    : json
      ? { type: "json_object" }
      : null;
  const request: ChatCompletionRequest = {
    ...settings,
    ...given,
    messages: options.prompt.flatMap(messagesOf),
    max_tokens: options.maxOutputTokens ?? null,
    temperature: options.temperature ?? null,
    top_p: options.topP ?? null,
    top_k: options.topK ?? null,
    presence_penalty: options.presencePenalty ?? null,
    frequency_penalty: options.frequencyPenalty ?? null,
    stop: options.stopSequences ?? null,
    seed: options.seed ?? null,
    tools: tools.length > 0 ? tools : null,
    tool_choice: choice?.type === "tool" ? { type: "function", function: { name: choice.toolName } } : (choice?.type ?? null),
    response_format: schema,
    signal: options.abortSignal ?? null,
  };
  return { request, warnings };
}

/** One of the SDK's messages; a tool's message answers one call each. */
function messagesOf(message: LanguageModelV4Message): ChatMessage[] {
  switch (message.role) {
    case "system":
      return [{ role: "system", content: message.content }];
    case "user":
      return [{ role: "user", content: textOf(message.content) }];
    case "assistant": {
      // What a model thought is no part of the conversation.
      const said = message.content.filter(({ type }) => type !== "reasoning" && type !== "tool-call");
      const calls = message.content.flatMap((part): ToolCall[] => {
        if (part.type !== "tool-call") return [];
        const called = { name: part.toolName, arguments: JSON.stringify(part.input) };
        return [{ id: part.toolCallId, type: "function", function: called }];
      });
      const text = textOf(said);
      if (calls.length === 0) return [{ role: "assistant", content: text }];
      return [{ role: "assistant", content: text || null, tool_calls: calls }];
    }
    case "tool":
      return message.content.map((part) => {
        if (part.type !== "tool-result") throw refused("prompt", part.type, "results of tools");
        return { role: "tool", tool_call_id: part.toolCallId, content: resultOf(part.output) };
      });
  }
}

function textOf(parts: readonly { type: string; text?: string }[]): string {
  const texts = parts.map(({ type, text }) => {
    if (type === "text" && text !== undefined) return text;
    throw refused("prompt", type, "text: the model reads nothing else");
  });
  return texts.join("");
}

function resultOf(output: LanguageModelV4ToolResultPart["output"]): string {
  switch (output.type) {
    case "text":
    case "error-text":
      return output.value;
    case "json":
    case "error-json":
      return JSON.stringify(output.value);
    case "execution-denied":
      return output.reason ?? "the user did not allow it";
    case "content":
      return textOf(output.value);
  }
}

function callPart({ id, function: called }: ToolCall) {
  return { type: "tool-call" as const, toolCallId: id, toolName: called.name, input: called.arguments };
}

function finishOf(reason: FinishReason | null): LanguageModelV4FinishReason {
  const unified = { stop: "stop", length: "length", tool_calls: "tool-calls", abort: "interrupted" } as const;
  return { unified: reason ? unified[reason] : "other", raw: reason ?? undefined };
}

function usageOf(usage: Usage): LanguageModelV4Usage {
  const { prompt_tokens: total, prompt_tokens_details: details, completion_tokens: written } = usage;
  return {
    inputTokens: { total, noCache: total - details.cached_tokens, cacheRead: details.cached_tokens, cacheWrite: undefined },
    outputTokens: { total: written, text: written, reasoning: undefined },
    raw: { ...usage },
  };
}

/** Timings, speculation, device: plain data, which JSON carries as it is. */
function metadataOf({ tokens: _, ...figures }: ChunkExtra): SharedV4ProviderMetadata {
  return { foredraft: JSON.parse(JSON.stringify(figures)) };
}
