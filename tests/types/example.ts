// The public types, as an application uses them: this must compile against the packed package, and each line that must not is
// marked. Nothing here runs.
import { CompletionStream, Engine, ForedraftError, checkShaders, forget, probe, storage } from "foredraft";
import type {
  ChatCompletion,
  ChatCompletionChunk,
  ChatMessage,
  Completion,
  ErrorCode,
  LoadOptions,
  LoadProgress,
  MemoryUse,
  ModelSource,
  Remembered,
  Speculation,
  SpeculationConfig,
  Tool,
  ToolCall,
  Usage,
} from "foredraft";
import { foredraft, type ForedraftSettings } from "foredraft/ai-sdk";
import { Engine as OwnEngine } from "foredraft/worker";
import type { LanguageModelV4 } from "@ai-sdk/provider";

const sources: ModelSource[] = [
  "/model.gguf",
  new URL("https://example.com/model.gguf"),
  new Blob(),
  new ReadableStream<Uint8Array>(),
];
const speculations: Speculation[] = [
  "off",
  "auto",
  "drafter=ngram,num_speculative_tokens=4",
  { drafter: ["suffix", "model"], accept: "match", length: "goodput", num_speculative_tokens: 8 } satisfies SpeculationConfig,
];

export async function load(): Promise<Engine> {
  const options: LoadOptions = {
    model: sources[0]!,
    draftModel: new URL("https://example.com/draft.gguf"),
    device: "auto",
    arithmetic: "q8",
    context: 4096,
    speculation: speculations[3]!,
    remember: { bytes: 1 << 20 },
    onProgress: ({ stage, loaded, total, progress, text }: LoadProgress) => console.log(stage, loaded / total, progress, text),
    signal: AbortSignal.timeout(60_000),
    assets: { worker: "/assets/worker.js", wasm: new URL("https://example.com/foredraft_bg.wasm") },
  };
  // @ts-expect-error no such device
  await Engine.load({ model: "/model.gguf", device: "npu" });
  // @ts-expect-error no such option
  await Engine.load({ model: "/model.gguf", contxt: 4096 });
  // @ts-expect-error nor there
  await OwnEngine.load({ model: { url: "/model.gguf", sha: "00" } });
  // @ts-expect-error a model is needed
  await Engine.load({});
  // @ts-expect-error engines are loaded, not made
  new Engine(options);
  return Engine.load(options);
}

export async function ask(engine: Engine): Promise<string> {
  const tools: Tool[] = [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }];
  const messages: ChatMessage[] = [
    { role: "system", content: "be brief" },
    { role: "user", content: [{ type: "text", text: "hello" }] },
  ];
  const whole: ChatCompletion = await engine.chat.completions.create({
    messages,
    tools,
    tool_choice: "auto",
    temperature: 0.8,
    top_p: 0.95,
    seed: 7,
    stop: ["\n"],
    logit_bias: { 5: -1 },
    logprobs: true,
    top_logprobs: 2,
    context_overflow: "slide",
    response_format: { type: "json_schema", json_schema: { name: "answer", schema: { type: "object" }, strict: true } },
    n: 1,
  });
  const [{ message, logprobs, finish_reason }] = whole.choices;
  const calls: ToolCall[] = message.tool_calls ?? [];
  messages.push(message, ...calls.map(({ id }) => ({ role: "tool" as const, tool_call_id: id, content: "rain" })));
  const likeliest: number | undefined = logprobs?.content[0]?.top_logprobs[0]?.logprob;
  const usage: Usage = whole.usage;
  const kept: number = usage.prompt_tokens_details.cached_tokens + usage.completion_tokens_details.accepted_prediction_tokens;
  if (finish_reason === "tool_calls")
    console.log(calls[0]?.function.arguments, likeliest, kept, whole.timings.tokens_per_second);

  const stream: CompletionStream<ChatCompletionChunk> = await engine.chat.completions.create(
    { messages, stream: true, stream_options: { include_usage: true } },
    { signal: AbortSignal.timeout(1000) },
  );
  let text = "";
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    for (const { source, accepted } of chunk.foredraft.tokens) console.log(source, accepted);
  }
  stream.abort();
  const continued: Completion = await engine.completions.create({ prompt: text, logprobs: 1, max_tokens: 8 });
  // @ts-expect-error a whole answer has no chunks
  for await (const _ of continued) break;
  // @ts-expect-error not a role
  messages.push({ role: "wizard", content: "" });
  // @ts-expect-error one answer at a time
  await engine.chat.completions.create({ messages, n: 2 });
  await engine.chat.completions.create({ messages, tools, tool_choice: { type: "function", function: { name: "weather" } } });
  await engine.completions.create({ prompt: text, response_format: { type: "json_object" } });
  // @ts-expect-error a schema is missing
  await engine.chat.completions.create({ messages, response_format: { type: "json_schema" } });
  // @ts-expect-error no such drafter
  await engine.chat.completions.create({ messages, speculation: { drafter: "magic" } });
  // @ts-expect-error no such field
  await engine.chat.completions.create({ messages, best_of: 2 });
  return continued.choices[0].text;
}

export async function look(engine: Engine): Promise<void> {
  const memory: MemoryUse = await engine.memory();
  const remembered: Remembered = engine.remembered;
  console.log(memory.weights_bytes + memory.wasm_bytes, remembered.active, engine.device.kind, engine.deviceReason);
  await engine.recover({ onProgress: ({ progress }) => console.log(progress) });
  await engine.forget();
  await forget();
  await engine.bench({ prompts: [{ id: "a", category: "qa", messages: [{ role: "user", content: "hi" }] }] }, { repeats: 1, signal: AbortSignal.timeout(1000) });
  const reports: unknown[] = [await probe({ model: "/model.gguf" }), engine.storage, storage, await checkShaders({ pipelines: false })];
  console.log(reports);
  // @ts-expect-error it is not to be changed
  engine.model = "another";
  engine.unload();
}

export function explain(error: unknown): string {
  if (!(error instanceof ForedraftError)) return "";
  const code: ErrorCode = error.code;
  return code === "device_lost" ? "call engine.recover()" : `${error.message} ${String(error.details["found"])}`;
}

export async function elsewhere(): Promise<LanguageModelV4[]> {
  const settings: ForedraftSettings = { min_p: 0.1, speculation: "auto" };
  const own: OwnEngine = await OwnEngine.load({ model: "/model.gguf" });
  return [foredraft(await load(), settings), foredraft(own)];
}
