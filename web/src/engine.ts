/** The engine as a page sees it: a model in a worker, asked in OpenAI's shapes. */
import type { BenchProgress, BenchReport, BenchSettings, BenchSuite } from "./bench.js";
import { WorkerClient } from "./client.js";
import { ForedraftError } from "./errors.js";
import { absolute, modelRef, type ModelSource, type SentModel } from "./models.js";
import type {
  ChatCompletion,
  ChatCompletionChunk,
  ChatCompletionRequest,
  ChunkExtra,
  Completion,
  CompletionChunk,
  CompletionOptions,
  CompletionRequest,
  DeviceInfo,
  FinishReason,
  RequestOptions,
  TokenPiece,
} from "./openai.js";
import type { Speculation } from "./speculation.js";
import type { Calls, EngineInfo, GenerateArgs, GenerateChunk, LoadArgs, LoadProgress, Summary } from "./protocol.js";
import { CompletionStream } from "./stream.js";

/** Where the package's own files are, if a bundler or a CDN has moved them. */
export interface Assets {
  /** `worker.js`; must be of the page's own origin. */
  worker?: string | URL;
  /** `foredraft_bg.wasm`. */
  wasm?: string | URL;
}

/** Options of {@link Engine.load}. */
export interface LoadOptions {
  /** The model, as GGUF. A stream is read once, and cancelled where the load ends early. */
  model: ModelSource;
  /** A smaller model with the same vocabulary that drafts for it. */
  draftModel?: ModelSource;
  /** For every request that does not say otherwise; `"auto"` by default. */
  speculation?: Speculation;
  /** `"auto"` takes a hardware GPU, else the CPU; a software GPU only on `"gpu"`. */
  device?: "auto" | "gpu" | "cpu";
  /**
   * How quantised matrices are multiplied: `"f32"`, or `"q8"`, which rounds the vectors to signed bytes, is faster and moves
   * the perplexity by up to 1 %. Without it, q8 on CPUs and GPUs in software, f32 on GPUs in hardware.
   */
  arithmetic?: "f32" | "q8";
  /** Tokens of context to make room for; without it, as many as the model was trained for, within reason. */
  context?: number;
  /** Called while the model loads. */
  onProgress?: (progress: LoadProgress) => void;
  /** Gives up loading. */
  signal?: AbortSignal;
  /** Where the package's own files are. */
  assets?: Assets;
}

type Streaming<T> = T & { stream: true };
type Whole<T> = T & { stream?: false | null };

/** `create` of one kind of completion: a stream of chunks, or the whole answer. */
export interface Create<Request, Chunk, Answer> {
  (request: Streaming<Request>, options?: RequestOptions): Promise<CompletionStream<Chunk>>;
  (request: Whole<Request>, options?: RequestOptions): Promise<Answer>;
}

/** A loaded model. */
export class Engine {
  /** Name of the model, from its file. */
  readonly model: string;
  /** What runs it. */
  readonly device: DeviceInfo;
  /** Why it runs there: that it was asked for, or what was found wrong with the GPU. */
  readonly deviceReason: string;
  /** OpenAI's `chat.completions`: messages through the model's chat template. */
  readonly chat: { completions: { create: Create<ChatCompletionRequest, ChatCompletionChunk, ChatCompletion> } };
  /** OpenAI's `completions`: a prompt, continued as it is. */
  readonly completions: { create: Create<CompletionRequest, CompletionChunk, Completion> };

  private constructor(
    private readonly client: WorkerClient,
    info: EngineInfo,
  ) {
    this.model = info.model;
    this.device = info.device;
    this.deviceReason = info.device_reason;
    const chat = (request: ChatCompletionRequest, options?: RequestOptions) =>
      this.create(request, { messages: request.messages }, chatShape, options);
    const text = (request: CompletionRequest, options?: RequestOptions) =>
      this.create(request, { prompt: request.prompt }, textShape, options);
    // One implementation serves both overloads; which one it is hangs on `stream`.
    this.chat = { completions: { create: chat as Create<ChatCompletionRequest, ChatCompletionChunk, ChatCompletion> } };
    this.completions = { create: text as Create<CompletionRequest, CompletionChunk, Completion> };
  }

  /** Starts a worker and loads a model into it. */
  static async load(options: LoadOptions): Promise<Engine> {
    const { signal, onProgress, assets } = options;
    if (signal?.aborted) throw ForedraftError.aborted(signal);
    const models: SentModel[] = [];
    let client: WorkerClient | undefined;
    // There is nothing to keep of a load that is given up, so the worker goes with it.
    const abort = () => client?.close(ForedraftError.aborted(signal));
    try {
      const args = loadArgs(options, models);
      const transfer = models.flatMap((model) => model.transfer);
      client = startWorker(assets);
      signal?.addEventListener("abort", abort, { once: true });
      const info = await client.call("load", args, { transfer, ...(onProgress && { onEvent: onProgress }) });
      return new Engine(client, info);
    } catch (thrown) {
      const error = ForedraftError.from(thrown, "worker_failed");
      client?.close(error);
      throw error;
    } finally {
      for (const model of models) model.dispose();
      signal?.removeEventListener("abort", abort);
    }
  }

  /**
   * Measures speculation against plain decoding, in turn, on this device. Requests wait until it is done; {@link unload}
   * ends it early. Fails with `mismatch` where a text is not the one of plain decoding.
   */
  bench(suite: BenchSuite, options: BenchSettings & { onProgress?: (progress: BenchProgress) => void } = {}): Promise<BenchReport> {
    const { onProgress, ...settings } = options;
    return this.client.call("bench", { suite, options: settings }, { ...(onProgress && { onEvent: onProgress }) });
  }

  /** Ends the worker and frees everything; requests that still run fail with `unloaded`. */
  unload(): void {
    this.client.close(new ForedraftError("unloaded", "the engine was unloaded; load the model again to go on"));
  }

  private async create<Chunk, Answer>(
    request: CompletionOptions & { stream?: boolean | null },
    prompt: Pick<GenerateArgs, "messages" | "prompt">,
    shape: Shape<Chunk, Answer>,
    options?: RequestOptions,
  ): Promise<CompletionStream<Chunk> | Answer> {
    const signals = [request.signal, options?.signal].filter((signal) => signal != null);
    const fired = signals.find((signal) => signal.aborted);
    if (fired) throw ForedraftError.aborted(fired);
    const args = generateArgs(request, prompt);
    const own = new AbortController();
    const abort = () => own.abort();
    for (const signal of signals) signal.addEventListener("abort", abort, { once: true });

    const head: AnswerHead = { id: `cmpl-${randomId()}`, created: Math.floor(Date.now() / 1000), model: this.model };
    const stream = new CompletionStream<Chunk>(abort);
    const pieces: TokenPiece[] = [];
    let begun = () => {};
    const firstEvent = new Promise<void>((resolve) => (begun = resolve));
    let first = true;
    const result = this.client.call("generate", args, {
      signal: own.signal,
      onEvent: ({ text, tokens, rejected }: GenerateChunk) => {
        if (request.stream) stream.push(shape.chunk(head, text, first, null, { tokens, rejected }));
        else pieces.push(...tokens);
        first = false;
        begun();
      },
    });
    const done = result.finally(() => signals.forEach((signal) => signal.removeEventListener("abort", abort)));
    if (!request.stream) {
      const summary = await done;
      head.system_fingerprint = summary.system_fingerprint;
      return shape.answer(head, summary, pieces);
    }

    const ended = done.then(
      (summary) => {
        head.system_fingerprint = summary.system_fingerprint;
        stream.push(shape.chunk(head, "", first, summary.finish_reason, { tokens: [], ...figures(summary) }));
        if (request.stream_options?.include_usage) stream.push(shape.usage(head, summary));
        stream.finish();
      },
      (error: Error) => {
        stream.finish(error);
        throw error;
      },
    );
    // What is wrong with a request shows before its first chunk and is thrown here; what breaks later ends the stream.
    await Promise.race([firstEvent, ended]);
    ended.catch(() => {});
    return stream;
  }
}

/** What the engine finds on this machine: adapters, features, limits, self-test. Downloads no model. */
export function devices(assets?: Assets): Promise<unknown> {
  return once("devices", {}, assets);
}

/**
 * Has this browser check every shader, also those that its adapter would not use; with `pipelines` the driver translates
 * them too, which takes minutes in software. Downloads no model.
 */
export function checkShaders(options: { pipelines?: boolean } = {}, assets?: Assets): Promise<unknown> {
  return once("checkShaders", options, assets);
}

async function once<K extends "devices" | "checkShaders">(kind: K, args: Calls[K]["args"], assets?: Assets): Promise<unknown> {
  const client = startWorker(assets);
  try {
    return await client.call(kind, { ...args, ...(assets?.wasm !== undefined && { wasm: absolute(assets.wasm, "assets.wasm") }) });
  } finally {
    client.close(new ForedraftError("unloaded", "the worker has ended"));
  }
}

function startWorker(assets?: Assets): WorkerClient {
  // The expression as bundlers know it: they find the worker by `new Worker(new URL(…, import.meta.url))`.
  const worker = assets?.worker
    ? new Worker(assets.worker, { type: "module", name: "foredraft" })
    : new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "foredraft" });
  return new WorkerClient(worker);
}

/** 128 random bits in hexadecimal; `crypto.randomUUID` is missing where a page came by plain HTTP. */
function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The options of a load as a message; the models that go with it are added to `models`. */
function loadArgs(options: LoadOptions, models: SentModel[]): LoadArgs {
  const send = (model: ModelSource, option: string) => {
    const sent = modelRef(model, option);
    models.push(sent);
    return sent.ref;
  };
  const args: LoadArgs = { model: send(options.model, "model"), device: options.device ?? "auto" };
  if (options.draftModel !== undefined) args.draftModel = send(options.draftModel, "draftModel");
  if (options.arithmetic !== undefined) args.arithmetic = options.arithmetic;
  if (options.context !== undefined) args.context = finite("context", options.context);
  if (options.speculation !== undefined) args.speculation = options.speculation;
  if (options.assets?.wasm !== undefined) args.wasm = absolute(options.assets.wasm, "assets.wasm");
  return args;
}

/** JSON has no NaN and no infinity: they would arrive as `null`, which means "not given". */
function finite<T>(name: string, value: T): T {
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new ForedraftError("bad_option", `${name} is ${value}, expected a finite number`, { option: name, found: String(value) });
  }
  return value;
}

const SAMPLING = [
  "temperature",
  "top_k",
  "top_p",
  "min_p",
  "repeat_penalty",
  "repeat_last_n",
  "presence_penalty",
  "frequency_penalty",
  "seed",
] as const;

/** The request as a message; what is `null` counts as not given, as in OpenAI's API. */
function generateArgs(request: CompletionOptions, prompt: Pick<GenerateArgs, "messages" | "prompt">): GenerateArgs {
  const sampling: Record<string, unknown> = {};
  for (const name of SAMPLING) if (request[name] != null) sampling[name] = finite(name, request[name]);
  if (request.logit_bias) {
    sampling["logit_bias"] = Object.entries(request.logit_bias).map(([token, bias]) => [
      finite(`logit_bias token "${token}"`, Number(token)),
      finite(`logit_bias of token ${token}`, bias),
    ]);
  }
  const stop = request.stop == null ? [] : typeof request.stop === "string" ? [request.stop] : [...request.stop];
  const args: GenerateArgs = { ...prompt, sampling, stop };
  const most = finite("max_completion_tokens", request.max_completion_tokens) ?? finite("max_tokens", request.max_tokens);
  if (most != null) args.max_tokens = most;
  if (request.speculation != null) args.speculation = request.speculation;
  return args;
}

interface AnswerHead {
  id: string;
  created: number;
  model: string;
  system_fingerprint?: string;
}

/** How one kind of completion looks. */
interface Shape<Chunk, Answer> {
  chunk(head: AnswerHead, text: string, first: boolean, finish: FinishReason | null, foredraft: ChunkExtra): Chunk;
  usage(head: AnswerHead, summary: Summary): Chunk;
  answer(head: AnswerHead, summary: Summary, tokens: TokenPiece[]): Answer;
}

const figures = ({ timings, speculation, device }: Summary) => ({ timings, speculation, device });

const chatShape: Shape<ChatCompletionChunk, ChatCompletion> = {
  chunk: (head, text, first, finish_reason, foredraft) => ({
    ...head,
    object: "chat.completion.chunk",
    choices: [{ index: 0, delta: { ...(first && { role: "assistant" }), ...(text && { content: text }) }, finish_reason }],
    foredraft,
  }),
  usage: (head, { usage }) => ({ ...head, object: "chat.completion.chunk", choices: [], usage, foredraft: { tokens: [] } }),
  answer: (head, summary, tokens) => ({
    ...head,
    object: "chat.completion",
    choices: [
      { index: 0, message: { role: "assistant", content: summary.text }, finish_reason: summary.finish_reason },
    ],
    usage: summary.usage,
    timings: summary.timings,
    foredraft: { tokens, ...figures(summary) },
  }),
};

const textShape: Shape<CompletionChunk, Completion> = {
  chunk: (head, text, _first, finish_reason, foredraft) => ({
    ...head,
    object: "text_completion",
    choices: [{ index: 0, text, finish_reason }],
    foredraft,
  }),
  usage: (head, { usage }) => ({ ...head, object: "text_completion", choices: [], usage, foredraft: { tokens: [] } }),
  answer: (head, summary, tokens) => ({
    ...head,
    object: "text_completion",
    choices: [{ index: 0, text: summary.text, finish_reason: summary.finish_reason }],
    usage: summary.usage,
    timings: summary.timings,
    foredraft: { tokens, ...figures(summary) },
  }),
};
