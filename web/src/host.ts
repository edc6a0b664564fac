/** The worker's side: owns the wasm and one engine, and answers calls. */
import init, { Engine, Sha256, checkShaders, probe, type Generation, type InitOutput } from "../generated/foredraft.js";
import type { Vocabulary } from "../generated/foredraft_grammar.js";
import { ForedraftError, reasonOf } from "./errors.js";
import { brokeDown, grammarBytes, startGrammar, vocabularyOf } from "./grammar.js";
import { deleteLearned, onForget, readCuts, readLearned, updateLearned, writeCuts } from "./learned.js";
import type {
  Answer,
  Ask,
  Calls,
  EngineInfo,
  GenerateArgs,
  GenerateChunk,
  LoadArgs,
  LoadProgress,
  MemoryUse,
  ModelRef,
  Piece,
  ProbeArgs,
  Remembered,
  Summary,
} from "./protocol.js";
import type { DownloadPlan, Probe } from "./probe.js";
import { StreamSource, openBlob, type ByteSource } from "./sources.js";
import type { ModelFile, StorageOutcome, Wanted } from "./storage/model.js";
import { openModel, peekModel } from "./storage/open.js";

/** What `onProgress` of the wasm gets. */
interface RawProgress {
  stage: string;
  file: string;
  loaded_bytes: number;
  total_bytes: number;
}

/** Progress without its time. */
type Untimed = Omit<LoadProgress, "elapsed_ms">;

/** What `Generation.next` gives, as JSON. */
type RawEvent = ({ type: "chunk" } & GenerateChunk) | ({ type: "done" } & Summary);

/** What `Engine.info` gives, as JSON. */
interface RawInfo extends Omit<EngineInfo, "remember" | "storage"> {
  tokenizer: string;
}

/** Answers the calls of one client. */
export class EngineHost {
  private engine: Engine | undefined;
  private closed = false;
  /** Makes matchers of JSON schemas, once a request has had one. */
  private vocabulary: Vocabulary | undefined;
  /** Where the wasm of that is, if not beside this script. */
  private grammar: string | undefined;
  /** Where what is learned is kept, if it is: the tokenizer it belongs to. */
  private kept: string | undefined;
  /** Ends the hearing of a `forget` that means every engine. */
  private unhear = () => {};
  private readonly running = new Map<number, AbortController>();
  /** Generations and benches take turns: they share one KV cache. */
  private turn: Promise<unknown> = Promise.resolve();

  constructor(private readonly post: (answer: Answer) => void) {}

  /** Answers one message. */
  receive(ask: Ask): void {
    if (ask.kind === "cancel") return this.cancel(ask.id);
    this.answer(ask).catch((thrown: unknown) => {
      this.post({ id: ask.id, kind: "error", error: ForedraftError.from(thrown, "worker_failed").toWire() });
    });
  }

  private async answer(ask: Exclude<Ask, { kind: "cancel" }>): Promise<void> {
    const { id } = ask;
    switch (ask.kind) {
      case "load":
        return this.post({ id, kind: "result", of: "load", result: await this.load(id, ask.args) });
      case "generate":
        return this.post({
          id,
          kind: "result",
          of: "generate",
          result: await this.queue(id, (engine, signal) => this.generate(id, ask.args, engine, signal)),
        });
      case "memory":
        return this.post({ id, kind: "result", of: "memory", result: this.memory() });
      case "forget":
        await this.forget();
        return this.post({ id, kind: "result", of: "forget", result: null });
      case "bench":
        return this.post({
          id,
          kind: "result",
          of: "bench",
          result: await this.queue(id, (engine, signal) => this.bench(id, ask.args, engine, signal)),
        });
      case "probe":
        await start(ask.args.wasm);
        return this.post({ id, kind: "result", of: "probe", result: await probeModels(ask.args) });
      case "checkShaders":
        await start(ask.args.wasm);
        return this.post({
          id,
          kind: "result",
          of: "checkShaders",
          result: JSON.parse(await checkShaders(ask.args.pipelines ?? false)),
        });
    }
  }

  private async load(id: number, args: LoadArgs): Promise<Calls["load"]["result"]> {
    const began = performance.now();
    const sources: Remembering[] = [];
    let engine: Engine | undefined;
    const tell = (event: Untimed) => {
      this.post({ id, kind: "event", of: "load", event: { ...event, elapsed_ms: performance.now() - began } });
    };
    try {
      await start(args.wasm);
      await openAll(args, tell, sources, () => this.closed);
      const [model, draft] = sources;
      const { device, arithmetic, context, speculation } = args;
      const remembered_tokens = args.remember === undefined ? undefined : tokensWithin(args.remember);
      const keeps = args.storage !== "off" && device !== "cpu";
      const known_cuts = keeps ? await readCuts() : undefined;
      const options = { device, arithmetic, context, speculation, remembered_tokens, known_cuts };
      const onProgress = (json: string) => {
        const { stage, file, loaded_bytes, total_bytes } = JSON.parse(json) as RawProgress;
        tell(describe(stage, file, loaded_bytes, total_bytes));
      };
      engine = await Engine.load(model!, draft, JSON.stringify(options), onProgress);
      for (const source of sources) await source.finish();
      const cuts = engine.knownCuts();
      if (keeps && cuts !== undefined && cuts !== known_cuts) await writeCuts(cuts);
      const { tokenizer, ...info } = JSON.parse(engine.info()) as RawInfo;
      const remember = await this.recall(engine, tokenizer, args.remember);
      if (this.closed) throw wasUnloaded();
      this.engine = engine;
      this.grammar = args.grammar;
      return { ...info, remember, storage: sources.flatMap((source) => source.outcome() ?? []) };
    } catch (thrown) {
      engine?.free();
      // Where the bytes did not come, the source knows best why.
      const failure = sources.find((source) => source.failure)?.failure;
      if (failure) throw failure;
      let error = ForedraftError.from(thrown, "worker_failed");
      const named = sources.filter((source) => source.name === error.details["what"]);
      // Of two files one may be good: an error that does not say which one it means discards neither.
      const suspects = named.length > 0 ? named : sources.length === 1 ? sources : [];
      for (const source of suspects) error = await source.refused(error);
      throw error;
    } finally {
      for (const source of sources) source.close();
    }
  }

  /** Frees the engine as soon as nothing runs on it. */
  close(): void {
    this.closed = true;
    this.unhear();
    for (const id of this.running.keys()) this.cancel(id);
    void this.turn.then(() => {
      this.dropVocabulary();
      this.engine?.free();
      this.engine = undefined;
    });
  }

  /** Makes the engine ready for requests with a schema. */
  private readVocabulary(engine: Engine): void {
    if (this.vocabulary) return;
    this.vocabulary = vocabularyOf(engine);
    engine.setVocabulary(this.vocabulary);
  }

  private dropVocabulary(): void {
    try {
      this.vocabulary?.free();
    } catch {
      // After a trap in its wasm it may not let go.
    }
    this.vocabulary = undefined;
  }

  private loaded(): Engine {
    if (!this.engine || this.closed) throw wasUnloaded();
    return this.engine;
  }

  private memory(): MemoryUse {
    const device = JSON.parse(this.loaded().memory()) as Omit<MemoryUse, "wasm_bytes">;
    return { ...device, wasm_bytes: (memory?.buffer.byteLength ?? 0) + grammarBytes() };
  }

  /** Gives a fresh engine what earlier visits have taught it. */
  private async recall(engine: Engine, tokenizer: string, limit: number | undefined): Promise<Remembered> {
    if (limit === undefined) return { active: false, bytes: 0, reason: "not asked for" };
    try {
      const bytes = await readLearned(tokenizer);
      this.kept = tokenizer;
      // It would write back what has been forgotten.
      if (!this.closed) this.unhear = onForget(() => void this.forget().catch(() => {}));
      if (bytes === undefined) return { active: true, bytes: 0, reason: "nothing was kept before" };
      try {
        engine.loadLearned(bytes);
        return { active: true, bytes: bytes.length, reason: "kept by an earlier visit" };
      } catch (thrown) {
        const { message } = ForedraftError.from(thrown, "io");
        return { active: true, bytes: 0, reason: `what was kept before cannot be used: ${message}` };
      }
    } catch (thrown) {
      return { active: false, bytes: 0, reason: ForedraftError.from(thrown, "io").message };
    }
  }

  /** Keeps what the engine has learned; a full disk is no reason to fail an answer. */
  private async keep(): Promise<void> {
    const { engine, kept } = this;
    if (kept === undefined || !engine) return;
    try {
      await updateLearned(kept, (bytes) => engine.saveLearned(bytes));
      engine.learnedIsSaved();
    } catch (thrown) {
      console.warn(`foredraft: what was learned could not be kept: ${ForedraftError.from(thrown, "io").message}`);
    }
  }

  private async forget(): Promise<void> {
    // In turn: an answer that still runs would keep what it has learned.
    const done = this.turn.then(async () => {
      this.loaded().forget();
      if (this.kept !== undefined) await deleteLearned(this.kept);
    });
    this.turn = done.catch(() => {});
    return done;
  }

  /** Runs work on the engine in its turn; its signal is that of `cancel`. */
  private queue<T>(id: number, work: (engine: Engine, signal: AbortSignal) => Promise<T>): Promise<T> {
    const abort = new AbortController();
    this.running.set(id, abort);
    const result = this.turn.then(() => {
      const engine = this.loaded();
      abort.signal.throwIfAborted();
      return work(engine, abort.signal);
    });
    this.turn = result.catch(() => {});
    return result.finally(() => this.running.delete(id));
  }

  private async bench(
    id: number,
    { suite, options }: Calls["bench"]["args"],
    engine: Engine,
    signal: AbortSignal,
  ): Promise<Calls["bench"]["result"]> {
    const onProgress = (json: string) => {
      this.post({ id, kind: "event", of: "bench", event: JSON.parse(json) as Calls["bench"]["event"] });
    };
    const bench = engine.bench(asJson(suite), asJson(options), onProgress);
    return cancelling(bench, signal, async () => JSON.parse(await bench.report()) as Calls["bench"]["result"]);
  }

  private async generate(id: number, args: GenerateArgs, engine: Engine, signal: AbortSignal): Promise<Summary> {
    if (args.schema !== undefined) {
      // A fetch that hangs would hold up every request after this one.
      await unlessAborted(startGrammar(this.grammar), signal);
      this.readVocabulary(engine);
    }
    const generation = engine.generate(asJson(args));
    return cancelling(generation, signal, () => this.follow(id, generation));
  }

  /** Passes on the events of an answer; gives its summary. */
  private async follow(id: number, generation: Generation): Promise<Summary> {
    try {
      for (;;) {
        const json = await generation.next();
        if (json === undefined) throw new ForedraftError("worker_failed", "the answer ended without its summary");
        const event = JSON.parse(json) as RawEvent;
        if (event.type === "done") {
          await this.keep();
          return event;
        }
        this.post({ id, kind: "event", of: "generate", event });
      }
    } catch (thrown) {
      const error = ForedraftError.from(thrown, "worker_failed");
      // A matcher that broke down may have left the others in disorder: they are made anew.
      if (brokeDown(error)) this.dropVocabulary();
      throw error;
    }
  }

  private cancel(id: number): void {
    this.running.get(id)?.abort(ForedraftError.aborted());
  }
}

/** Waits for what an object of the engine does; a signal asks it to end early, and at the end it is let go. */
async function cancelling<T>(handle: { cancel(): void; free(): void }, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const cancel = () => handle.cancel();
  signal.addEventListener("abort", cancel);
  try {
    return await work();
  } finally {
    signal.removeEventListener("abort", cancel);
    handle.free();
  }
}

/** What comes of work, or the reason of a signal that fires before: the work itself goes on. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
  const result = await Promise.race([work, aborted]);
  signal.throwIfAborted();
  return result;
}

let started: Promise<InitOutput> | undefined;
/** Memory of the wasm; read anew each time, as it grows. */
let memory: WebAssembly.Memory | undefined;

/** Compiles the wasm, once; after a failure the next call tries again. */
async function start(wasm: string | undefined): Promise<void> {
  // The expression as bundlers know it: they copy the file by `new URL(…, import.meta.url)`.
  started ??= init({ module_or_path: wasm ?? new URL("./foredraft_bg.wasm", import.meta.url) });
  try {
    ({ memory } = await started);
  } catch (cause) {
    started = undefined;
    const reason = reasonOf(cause);
    throw new ForedraftError("worker_failed", `the wasm could not be loaded: ${reason}`, {}, { cause });
  }
}

/** Reads the headers of models and says what a load would find. */
async function probeModels({ model, draftModel, device, arithmetic, context }: ProbeArgs): Promise<Probe> {
  const sources: Remembering[] = [];
  const downloads: DownloadPlan[] = [];
  const peek = async (ref: ModelRef | undefined) => {
    if (!ref) return undefined;
    const peeked = ref.kind === "url" ? await peekModel(ref.url, ref.sha256) : { source: open(ref) };
    const source = new Remembering(peeked.source);
    sources.push(source);
    if ("download" in peeked) downloads.push(peeked.download);
    return source;
  };
  try {
    const [target, draft] = [await peek(model), await peek(draftModel)];
    const report = await probe(target, draft, JSON.stringify({ device, arithmetic, context }));
    return { ...(JSON.parse(report) as Omit<Probe, "downloads">), downloads };
  } catch (thrown) {
    throw sources.find((source) => source.failure)?.failure ?? thrown;
  } finally {
    for (const source of sources) source.close();
  }
}

/** Opens the models of a load into `sources`, the target first. */
async function openAll(
  args: LoadArgs,
  tell: (event: Untimed) => void,
  sources: Remembering[],
  closed: () => boolean,
): Promise<void> {
  const refs = args.draftModel ? [args.model, args.draftModel] : [args.model];
  // Files are locked by their addresses' order: so two loads of the same two files never wait for each other.
  const address = (index: number) => (refs[index]!.kind === "url" ? refs[index]!.url : "");
  const order = [...refs.keys()].sort((a, b) => (address(a) < address(b) ? -1 : 1));
  const locked = new Set<string>();
  const opened: Remembering[] = [];
  for (const index of order) {
    const ref = refs[index]!;
    const url = address(index);
    const wanted = (sha256: string | undefined): Wanted => ({
      url,
      sha256,
      // A file that is both target and draft would wait for itself.
      mode: locked.has(url) ? "off" : args.storage,
      hasher: () => new Sha256(),
      onWait: ({ loaded, total }) => tell(describe("waiting", url, loaded, total)),
      onUnkept: (reason) =>
        tell({ stage: "storage", file: url, loaded: 0, total: 0, progress: 0, text: reason.message, warning: reason.toWire() }),
    });
    const source = ref.kind === "url" ? await openModel(wanted(ref.sha256)) : open(ref);
    opened[index] = new Remembering(source, closed);
    sources.push(opened[index]);
    locked.add(url);
  }
  sources.splice(0, sources.length, ...opened);
}

function open(ref: Exclude<ModelRef, { kind: "url" }>): ByteSource {
  switch (ref.kind) {
    case "blob":
      return openBlob(ref.blob, ref.name);
    case "port":
      return openPort(ref.port, ref.name);
  }
}

/** The other end of a stream that stayed on its own thread. */
function openPort(port: MessagePort, name: string): ByteSource {
  const pull = () =>
    new Promise<Uint8Array | undefined>((resolve, reject) => {
      port.onmessage = ({ data }: MessageEvent<Piece>) => {
        if ("error" in data) reject(ForedraftError.fromWire(data.error));
        else resolve("bytes" in data ? data.bytes : undefined);
      };
      port.postMessage("pull");
    });
  return new StreamSource(name, undefined, pull, () => port.postMessage("cancel"));
}

/** A request as the engine reads it. What a thread can be sent may still be no JSON: a big integer, a circle. */
function asJson(request: unknown): string {
  try {
    return JSON.stringify(request);
  } catch (thrown) {
    throw new ForedraftError("bad_option", `the request: ${reasonOf(thrown)}`);
  }
}

function wasUnloaded(): ForedraftError {
  return new ForedraftError("unloaded", "no model is loaded: the engine was unloaded, or its load was given up");
}

/** A source that keeps its own error: the engine only passes on its words. */
class Remembering implements ByteSource {
  failure: ForedraftError | undefined;

  /** `closed` ends a load that nobody waits for any more. */
  constructor(
    private readonly inner: ByteSource | ModelFile,
    private readonly closed: () => boolean = () => false,
  ) {}

  get name(): string {
    return this.inner.name;
  }

  get size(): number | undefined {
    return this.inner.size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    try {
      if (this.closed()) throw wasUnloaded();
      return await this.inner.read(offset, length);
    } catch (thrown) {
      this.failure = ForedraftError.from(thrown, "io");
      throw this.failure;
    }
  }

  async finish(): Promise<void> {
    if ("finish" in this.inner) await this.inner.finish();
  }

  async refused(error: ForedraftError): Promise<ForedraftError> {
    return "refused" in this.inner ? this.inner.refused(error) : error;
  }

  outcome(): StorageOutcome | undefined {
    return "outcome" in this.inner ? this.inner.outcome() : undefined;
  }

  close(): void {
    this.inner.close();
  }
}

/** Stages that are not about bytes. */
const STAGES: Record<string, string> = { device: "preparing the device", costs: "measuring the device", ready: "ready" };

function describe(stage: string, file: string, loaded: number, total: number): Untimed {
  const progress = total > 0 ? Math.min(loaded / total, 1) : 0;
  const mb = (bytes: number) => (bytes / 1e6).toFixed(1);
  const bytes =
    total > 0 ? `${file}: ${mb(loaded)} of ${mb(total)} MB (${Math.floor(progress * 100)} %)` : `${file}: ${mb(loaded)} MB`;
  const text = STAGES[stage] ?? bytes;
  return { stage, file, loaded, total, progress, text: stage === "waiting" ? `another tab downloads ${text}` : text };
}

/** Tokens of the store that fit so many bytes, whatever answers it holds: a token and the length of its answer, a word each. */
function tokensWithin(bytes: number): number {
  const OVERHEAD_BYTES = 68;
  return Math.floor((bytes - OVERHEAD_BYTES) / 8);
}
