/** The worker's side: owns the wasm and one engine, and answers calls. */
import init, { Engine, Sha256, checkShaders, probe, type Generation } from "../generated/foredraft.js";
import { ForedraftError } from "./errors.js";
import type {
  Answer,
  Ask,
  Calls,
  GenerateArgs,
  GenerateChunk,
  LoadArgs,
  LoadProgress,
  ModelRef,
  Piece,
  ProbeArgs,
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

/** Answers the calls of one client. */
export class EngineHost {
  private engine: Engine | undefined;
  private readonly running = new Map<number, { cancelled: boolean; generation?: Generation }>();
  /** Generations take turns: they share one KV cache. */
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
        return this.post({ id, kind: "result", of: "generate", result: await this.queue(id, ask.args) });
      case "bench":
        return this.post({ id, kind: "result", of: "bench", result: await this.bench(id, ask.args) });
      case "probe":
        await start(ask.args.wasm);
        return this.post({ id, kind: "result", of: "probe", result: await probeModels(ask.args) });
      case "checkShaders":
        await start(ask.args.wasm);
        return this.post({ id, kind: "result", of: "checkShaders", result: JSON.parse(await checkShaders(ask.args.pipelines ?? false)) });
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
      await openAll(args, tell, sources);
      const [model, draft] = sources;
      const { device, arithmetic, context, speculation } = args;
      const options = { device, arithmetic, context, speculation };
      const onProgress = (json: string) => {
        const { stage, file, loaded_bytes, total_bytes } = JSON.parse(json) as RawProgress;
        tell(describe(stage, file, loaded_bytes, total_bytes));
      };
      engine = await Engine.load(model!, draft, JSON.stringify(options), onProgress);
      for (const source of sources) await source.finish();
      this.engine = engine;
      const info = JSON.parse(engine.info()) as Omit<Calls["load"]["result"], "storage">;
      return { ...info, storage: sources.flatMap((source) => source.outcome() ?? []) };
    } catch (thrown) {
      engine?.free();
      // Where the bytes did not come, the source knows best why.
      const failure = sources.find((source) => source.failure)?.failure;
      if (failure) throw failure;
      let error = ForedraftError.from(thrown, "worker_failed");
      for (const source of sources) error = await source.refused(error);
      throw error;
    } finally {
      for (const source of sources) source.close();
    }
  }

  private bench(id: number, { suite, options }: Calls["bench"]["args"]): Promise<Calls["bench"]["result"]> {
    const result = this.turn.then(async () => {
      if (!this.engine) throw new ForedraftError("unloaded", "no model is loaded");
      const onProgress = (json: string) => {
        this.post({ id, kind: "event", of: "bench", event: JSON.parse(json) as Calls["bench"]["event"] });
      };
      const report = await this.engine.bench(JSON.stringify(suite), JSON.stringify(options), onProgress);
      return JSON.parse(report) as Calls["bench"]["result"];
    });
    this.turn = result.catch(() => {});
    return result;
  }

  private queue(id: number, args: GenerateArgs): Promise<Summary> {
    this.running.set(id, { cancelled: false });
    const result = this.turn.then(() => this.generate(id, args));
    this.turn = result.catch(() => {});
    return result.finally(() => this.running.delete(id));
  }

  private async generate(id: number, args: GenerateArgs): Promise<Summary> {
    const state = this.running.get(id);
    if (!this.engine) throw new ForedraftError("unloaded", "no model is loaded");
    if (state?.cancelled) throw ForedraftError.aborted();
    const generation = this.engine.generate(JSON.stringify(args));
    if (state) state.generation = generation;
    try {
      for (;;) {
        const json = await generation.next();
        if (json === undefined) throw new ForedraftError("worker_failed", "the answer ended without its summary");
        const event = JSON.parse(json) as RawEvent;
        if (event.type === "done") return event;
        this.post({ id, kind: "event", of: "generate", event });
      }
    } finally {
      if (state) delete state.generation;
      generation.free();
    }
  }

  private cancel(id: number): void {
    const state = this.running.get(id);
    if (!state) return;
    state.cancelled = true;
    state.generation?.cancel();
  }
}

let started: Promise<unknown> | undefined;

/** Compiles the wasm, once; after a failure the next call tries again. */
async function start(wasm: string | undefined): Promise<void> {
  // The expression as bundlers know it: they copy the file by `new URL(…, import.meta.url)`.
  started ??= init({ module_or_path: wasm ?? new URL("./foredraft_bg.wasm", import.meta.url) });
  try {
    await started;
  } catch (cause) {
    started = undefined;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ForedraftError("worker_failed", `the wasm could not be loaded: ${reason}`, {}, { cause });
  }
}

/** Reads the headers of models and says what a load would find. */
async function probeModels({ model, draftModel, device, arithmetic, context }: ProbeArgs): Promise<Probe> {
  const sources: Remembering[] = [];
  const downloads: DownloadPlan[] = [];
  const peek = async (ref: ModelRef | undefined) => {
    if (!ref) return undefined;
    const peeked = ref.kind === "url" ? await peekModel(ref.url) : { source: open(ref) };
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
async function openAll(args: LoadArgs, tell: (event: Untimed) => void, sources: Remembering[]): Promise<void> {
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
    opened[index] = new Remembering(source);
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

/** A source that keeps its own error: the engine only passes on its words. */
class Remembering implements ByteSource {
  failure: ForedraftError | undefined;

  constructor(private readonly inner: ByteSource | ModelFile) {}

  get name(): string {
    return this.inner.name;
  }

  get size(): number | undefined {
    return this.inner.size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    try {
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

function describe(stage: string, file: string, loaded: number, total: number): Untimed {
  const progress = total > 0 ? Math.min(loaded / total, 1) : 0;
  const mb = (bytes: number) => (bytes / 1e6).toFixed(1);
  const text =
    stage === "ready"
      ? "ready"
      : stage === "device"
        ? "preparing the device"
        : total > 0
          ? `${file}: ${mb(loaded)} of ${mb(total)} MB (${Math.floor(progress * 100)} %)`
          : `${file}: ${mb(loaded)} MB`;
  return { stage, file, loaded, total, progress, text: stage === "waiting" ? `another tab downloads ${text}` : text };
}
