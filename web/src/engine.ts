/** The engine as its user sees it: a model, asked in OpenAI's shapes, wherever it runs. */
import type { BenchProgress, BenchReport, BenchSettings, BenchSuite } from "./bench.js";
import type { Client } from "./client.js";
import { ForedraftError } from "./errors.js";
import { absolute, modelRef, type ModelSource, type SentModel } from "./models.js";
import type {
  ChatCompletion,
  ChatCompletionChunk,
  ChatCompletionRequest,
  Completion,
  CompletionChunk,
  CompletionOptions,
  CompletionRequest,
  DeviceInfo,
  FinishReason,
  RequestOptions,
} from "./openai.js";
import type {
  EngineInfo,
  GenerateChunk,
  LoadArgs,
  LoadProgress,
  MemoryUse,
  ProbeArgs,
  Remembered,
  WirePiece,
} from "./protocol.js";
import type { Probe, ProbeOptions } from "./probe.js";
import { chatArgs, known, number, refused, textArgs, type Asked } from "./request.js";
import { chatShape, textShape, type AnswerHead, type Shape } from "./shapes.js";
import type { Speculation } from "./speculation.js";
import type { StorageMode, StorageOutcome } from "./storage/model.js";
import { CompletionStream } from "./stream.js";
import { ToolCallReader } from "./tools.js";

/** Where the package's own files are, if a bundler or a CDN has moved them. */
export interface Assets {
  /** `worker.js`. It may be of another origin where that allows it by CORS. */
  worker?: string | URL;
  /** `foredraft_bg.wasm`. */
  wasm?: string | URL;
  /** `foredraft_grammar_bg.wasm`, which is fetched when a request first asks for JSON. */
  grammar?: string | URL;
}

/** Options of {@link Engine.load}. */
export interface LoadOptions {
  /** The model, as GGUF. A stream is read once, and cancelled where a load that has begun ends early. */
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
  /**
   * Keeps what answers teach the drafters for later visits, in the origin's IndexedDB; up to so many bytes, or 1 MiB. It is
   * off by default: answers, also aborted ones, and the last 16 tokens before each are as private as the conversation. They
   * never leave the device; see `forget`.
   */
  remember?: boolean | { bytes: number };
  /**
   * Whether models that come by URL are kept on this device. `"auto"`, the default, keeps them where there is room; where
   * there is none the model runs all the same, and `onProgress` and {@link ModelEngine.storage} say why. `"require"` fails there
   * with `quota_exceeded` before anything is downloaded; `"off"` neither keeps models nor looks for kept ones.
   */
  storage?: StorageMode;
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

/** Where an engine finds its files, as far as it has to be told. */
export type Files = Pick<LoadArgs, "wasm" | "grammar">;

/** Starts whatever an engine runs in. */
export type Start = (assets?: Assets) => { client: Client; files: Files };

/** A loaded model. */
export class ModelEngine {
  /** OpenAI's `chat.completions`: messages through the model's chat template. */
  readonly chat: { completions: { create: Create<ChatCompletionRequest, ChatCompletionChunk, ChatCompletion> } };
  /** OpenAI's `completions`: a prompt, continued as it is. */
  readonly completions: { create: Create<CompletionRequest, CompletionChunk, Completion> };

  private loaded: { client: Client; info: EngineInfo } | undefined;
  /** Of a load that is under way. */
  private opening: Client | undefined;
  private recovering: Promise<void> | undefined;
  private unloaded = false;

  /** @internal */
  protected constructor(
    private readonly start: Start,
    private readonly options: LoadOptions,
  ) {
    const chat = (request: ChatCompletionRequest, options?: RequestOptions) =>
      this.create(request, () => chatArgs(request, this.model), chatShape, options);
    const text = (request: CompletionRequest, options?: RequestOptions) =>
      this.create(request, () => textArgs(request, this.model), textShape, options);
    // One implementation serves both overloads; which one it is hangs on `stream`.
    this.chat = { completions: { create: chat as Create<ChatCompletionRequest, ChatCompletionChunk, ChatCompletion> } };
    this.completions = { create: text as Create<CompletionRequest, CompletionChunk, Completion> };
  }

  /** Name of the model, from its file. */
  get model(): string {
    return this.now.info.model;
  }

  /** What runs it. */
  get device(): DeviceInfo {
    return this.now.info.device;
  }

  /** Why it runs there: that it was asked for, or what was found wrong with the GPU. */
  get deviceReason(): string {
    return this.now.info.device_reason;
  }

  /** Whether what answers teach the drafters is kept for later visits, and what was there already. */
  get remembered(): Remembered {
    return this.now.info.remember;
  }

  /** What became of the files that came by URL: from where they came, and whether they are kept for the next load. */
  get storage(): readonly StorageOutcome[] {
    return this.now.info.storage;
  }

  /**
   * Measures speculation against plain decoding, in turn, on this device. Requests wait until it is done; a signal ends it
   * early, with `aborted`, and so does {@link unload}. Fails with `mismatch` where a text is not the one of plain decoding.
   */
  async bench(
    suite: BenchSuite,
    options: BenchSettings & { onProgress?: (progress: BenchProgress) => void; signal?: AbortSignal } = {},
  ): Promise<BenchReport> {
    const { onProgress, signal, ...settings } = options;
    if (signal?.aborted) throw ForedraftError.aborted(signal);
    const call = { signal, ...(onProgress && { onEvent: onProgress }) };
    return this.now.client.call("bench", { suite, options: settings }, call);
  }

  /** Bytes in use, by purpose. */
  async memory(): Promise<MemoryUse> {
    return this.now.client.call("memory", {});
  }

  /** Forgets what answers have taught the drafters, here and, with `remember`, in what is kept for later visits. */
  async forget(): Promise<void> {
    await this.now.client.call("forget", {});
  }

  /**
   * Loads the model again, from the same source and with the same options: after an error `device_lost`, or any other that an
   * engine does not get over by itself. The engine stays the same object; a conversation goes on with its next request, which
   * computes again what the device has lost. Requests that still run fail. A model that came as a stream is gone, and cannot be
   * loaded again.
   */
  recover(options: Pick<LoadOptions, "onProgress" | "signal"> = {}): Promise<void> {
    this.recovering ??= this.reopen(options).finally(() => (this.recovering = undefined));
    return this.recovering;
  }

  /** Ends the engine and frees everything; requests that still run fail with `unloaded`. */
  unload(): void {
    this.unloaded = true;
    this.opening?.close(wasUnloaded());
    this.loaded?.client.close(wasUnloaded());
  }

  /** @internal Loads the model; there is nothing to keep of a load that is given up. */
  protected async open({ signal, onProgress }: Pick<LoadOptions, "onProgress" | "signal">): Promise<void> {
    if (signal?.aborted) throw ForedraftError.aborted(signal);
    const models: SentModel[] = [];
    let client: Client | undefined;
    const abort = () => client?.close(ForedraftError.aborted(signal));
    try {
      const args = loadArgs(this.options, models);
      const transfer = models.flatMap((model) => model.transfer);
      const started = this.start(this.options.assets);
      client = this.opening = started.client;
      Object.assign(args, started.files);
      signal?.addEventListener("abort", abort, { once: true });
      const info = await client.call("load", args, { transfer, ...(onProgress && { onEvent: onProgress }) });
      if (this.unloaded) throw wasUnloaded();
      this.loaded = { client, info };
    } catch (thrown) {
      const error = ForedraftError.from(thrown, "worker_failed");
      client?.close(error);
      throw error;
    } finally {
      this.opening = undefined;
      for (const model of models) model.dispose();
      signal?.removeEventListener("abort", abort);
    }
  }

  private async reopen(options: Pick<LoadOptions, "onProgress" | "signal">): Promise<void> {
    if (this.unloaded) throw wasUnloaded();
    const { model, draftModel } = this.options;
    if (model instanceof ReadableStream || draftModel instanceof ReadableStream) {
      throw new ForedraftError(
        "bad_option",
        "the model came as a stream, which is read once: load it again with a new one, or from a URL or a file",
      );
    }
    const { client } = this.now;
    client.close(new ForedraftError("unloaded", "the engine is being loaded again"));
    try {
      await this.open(options);
    } catch (cause) {
      const reason = ForedraftError.from(cause, "worker_failed").message;
      const message = `the engine could not be loaded again: ${reason}; recover() tries once more`;
      if (!this.unloaded) client.close(new ForedraftError("unloaded", message, {}, { cause }));
      throw cause;
    }
  }

  private get now(): { client: Client; info: EngineInfo } {
    if (!this.loaded) throw wasUnloaded();
    return this.loaded;
  }

  private async create<Chunk, Answer>(
    request: CompletionOptions & { stream?: boolean | null },
    asked: () => Asked,
    shape: Shape<Chunk, Answer>,
    options?: RequestOptions,
  ): Promise<CompletionStream<Chunk> | Answer> {
    const signals = [request.signal, options?.signal].filter((signal) => signal != null);
    const fired = signals.find((signal) => signal.aborted);
    if (fired) throw ForedraftError.aborted(fired);
    const { args, tools } = asked();
    const own = new AbortController();
    const abort = () => own.abort();
    for (const signal of signals) signal.addEventListener("abort", abort, { once: true });

    const head: AnswerHead = { id: `cmpl-${randomId()}`, created: Math.floor(Date.now() / 1000), model: this.model };
    const stream = new CompletionStream<Chunk>(abort);
    const reader = tools.size > 0 ? new ToolCallReader(tools) : undefined;
    const whole: { text: string; tokens: WirePiece[] } = { text: "", tokens: [] };
    let begun = () => {};
    const firstEvent = new Promise<void>((resolve) => (begun = resolve));
    let offset = 0;
    let first = true;
    const result = this.now.client.call("generate", args, {
      signal: own.signal,
      onEvent: ({ text, tokens, rejected }: GenerateChunk) => {
        const certain = reader ? reader.push(text) : text;
        if (request.stream) {
          stream.push(shape.chunk(head, { text: certain, tokens, rejected, offset, first }));
        } else {
          whole.text += certain;
          whole.tokens.push(...tokens);
        }
        offset += text.length;
        first = false;
        begun();
      },
    });
    const done = result.finally(() => signals.forEach((signal) => signal.removeEventListener("abort", abort)));
    /** What the end of the answer adds to it. */
    const last = (finish: FinishReason) => {
      const { text, calls } = reader?.finish() ?? { text: "", calls: [] };
      return { text, calls, finish: calls.length > 0 && finish === "stop" ? ("tool_calls" as const) : finish };
    };
    if (!request.stream) {
      const summary = await done;
      head.system_fingerprint = summary.system_fingerprint;
      const { text, ...rest } = last(summary.finish_reason);
      return shape.answer(head, { ...whole, text: whole.text + text, offset: 0, ...rest, summary });
    }

    const ended = done.then(
      (summary) => {
        head.system_fingerprint = summary.system_fingerprint;
        stream.push(shape.chunk(head, { tokens: [], offset, first, ...last(summary.finish_reason), summary }));
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

/** What would run here, and how. */
export function probeWith(start: Start, options: ProbeOptions, assets?: Assets): Promise<Probe> {
  return once(start, assets, (client, wasm) => client.call("probe", { ...probeArgs(options), ...wasm }), options.signal);
}

/** Has the browser check every shader. */
export function checkShadersOf(start: Start, options: { pipelines?: boolean }, assets?: Assets): Promise<unknown> {
  return once(start, assets, (client, wasm) => client.call("checkShaders", { ...options, ...wasm }));
}

/** One call to an engine of its own. */
async function once<T>(
  start: Start,
  assets: Assets | undefined,
  ask: (client: Client, wasm: { wasm?: string }) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  if (signal?.aborted) throw ForedraftError.aborted(signal);
  knownAssets(assets);
  const { client, files } = start(assets);
  const abort = () => client.close(ForedraftError.aborted(signal));
  signal?.addEventListener("abort", abort, { once: true });
  try {
    return await ask(client, files.wasm === undefined ? {} : { wasm: files.wasm });
  } finally {
    signal?.removeEventListener("abort", abort);
    client.close(wasUnloaded());
  }
}

function probeArgs(options: ProbeOptions): ProbeArgs {
  known(options, Object.keys(PROBE));
  const { model, draftModel, device = "auto", arithmetic, context } = options;
  const args: ProbeArgs = { device };
  if (model !== undefined) args.model = modelRef(model, "model").ref;
  if (draftModel !== undefined) args.draftModel = modelRef(draftModel, "draftModel").ref;
  if (arithmetic !== undefined) args.arithmetic = arithmetic;
  const tokens = number("context", context);
  if (tokens !== undefined) args.context = tokens;
  return args;
}

function knownAssets(assets: Assets | undefined): void {
  if (assets) known(assets, ["worker", "wasm", "grammar"], "assets.");
}

/** The files whose place is given. */
export function filesOf(assets: Assets | undefined): Files {
  const files: Files = {};
  for (const name of ["wasm", "grammar"] as const) {
    if (assets?.[name] !== undefined) files[name] = absolute(assets[name], `assets.${name}`);
  }
  return files;
}

function wasUnloaded(): ForedraftError {
  return new ForedraftError("unloaded", "the engine was unloaded; load the model again to go on");
}

/** 128 random bits in hexadecimal; `crypto.randomUUID` is missing where a page came by plain HTTP. */
function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Bytes to remember where the page does not say how many, and the bounds of what it may say. */
const REMEMBER_BYTES = { usual: 1 << 20, least: 1 << 10, most: 4 << 20 };

/** Every option by name: one that is missing here would not compile. */
const LOAD: Record<keyof LoadOptions, true> = {
  model: true,
  draftModel: true,
  speculation: true,
  device: true,
  arithmetic: true,
  context: true,
  remember: true,
  storage: true,
  onProgress: true,
  signal: true,
  assets: true,
};
const PROBE: Record<keyof ProbeOptions, true> = {
  model: true,
  draftModel: true,
  device: true,
  arithmetic: true,
  context: true,
  signal: true,
};

/** The options of a load as a message; the models that go with it are added to `models`. */
function loadArgs(options: LoadOptions, models: SentModel[]): LoadArgs {
  const send = (model: ModelSource, option: string) => {
    const sent = modelRef(model, option);
    models.push(sent);
    return sent.ref;
  };
  // Before a stream is taken: it can be given again with the options put right.
  known(options, Object.keys(LOAD));
  knownAssets(options.assets);
  if (typeof options.remember === "object") known(options.remember, ["bytes"], "remember.");
  const { device = "auto", storage = "auto" } = options;
  if (!["auto", "require", "off"].includes(storage)) throw refused("storage", storage, '"auto", "require" or "off"');
  const context = number("context", options.context);
  const { usual, least, most } = REMEMBER_BYTES;
  const remember =
    typeof options.remember === "object"
      ? number("remember.bytes", options.remember.bytes)
      : options.remember
        ? usual
        : undefined;
  if (remember !== undefined && (remember < least || remember > most)) {
    throw refused("remember.bytes", remember, `${least} to ${most}`);
  }
  const args: LoadArgs = { model: send(options.model, "model"), device, storage };
  if (options.draftModel !== undefined) args.draftModel = send(options.draftModel, "draftModel");
  if (options.arithmetic !== undefined) args.arithmetic = options.arithmetic;
  if (context !== undefined) args.context = context;
  if (options.speculation !== undefined) args.speculation = options.speculation;
  if (remember !== undefined) args.remember = remember;
  return args;
}
