/** The one engine of the page, which its tabs share, and who is using it. */
import { Engine, type LoadOptions, type LoadProgress } from "../src/index.js";
import { calm, complain, isGone } from "./problems.js";

/** What the tabs may do now; a `"lost"` engine answers no more until its model has been loaded again. */
export type State = "empty" | "loading" | "ready" | "busy" | "lost";

export class Session {
  engine: Engine | undefined;
  /** Whether a draft model was loaded with it. */
  hasDraft = false;
  /** Hears how far a load is. */
  onProgress: (progress: LoadProgress) => void = () => {};
  private loading: AbortController | undefined;
  private working: AbortController | undefined;
  private lost = false;
  private readonly listeners: (() => void)[] = [];

  get state(): State {
    if (this.loading) return "loading";
    if (!this.engine) return "empty";
    if (this.lost) return "lost";
    return this.working ? "busy" : "ready";
  }

  /** Called whenever the state has changed. */
  onChange(listener: () => void): void {
    this.listeners.push(listener);
  }

  /** Loads a model in place of the one there is; what went wrong is thrown, unless it was cancelled. */
  async load(options: LoadOptions): Promise<boolean> {
    if (this.loading) return false;
    this.unload();
    const abort = (this.loading = new AbortController());
    this.changed();
    try {
      this.engine = await Engine.load({ ...options, onProgress: this.onProgress, signal: abort.signal });
      this.hasDraft = options.draftModel !== undefined;
      return true;
    } catch (thrown) {
      if (abort.signal.aborted) return false;
      throw thrown;
    } finally {
      this.loading = undefined;
      this.changed();
    }
  }

  cancelLoad(): void {
    this.loading?.abort();
  }

  unload(): void {
    this.stop();
    this.engine?.unload();
    this.engine = undefined;
    this.lost = false;
    this.hasDraft = false;
    this.changed();
  }

  /** Runs work that has the engine for itself; gives undefined where the engine is not free or the work was stopped. */
  async use<T>(work: (engine: Engine, signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
    const { engine } = this;
    if (!engine || this.state !== "ready") return undefined;
    const abort = (this.working = new AbortController());
    this.changed();
    try {
      return await work(engine, abort.signal);
    } catch (thrown) {
      if (abort.signal.aborted) return undefined;
      if (isGone(thrown)) {
        // It takes a while, and who waits is to know for what.
        complain(thrown);
        abort.signal.addEventListener("abort", () => this.cancelLoad(), { once: true });
        await this.recover();
        if (this.engine !== engine) {
          // Who has unloaded it meanwhile is not to ask once more.
          calm();
          return undefined;
        }
      }
      throw thrown;
    } finally {
      if (this.working === abort) this.working = undefined;
      this.changed();
    }
  }

  /** Ends the work that runs, and the reload that it has led to. */
  stop(): void {
    this.working?.abort();
  }

  /** Loads the model again, so that a conversation can go on; where that fails or is cancelled it can be tried again. */
  async recover(): Promise<void> {
    const { engine } = this;
    if (!engine || this.loading) return;
    const abort = (this.loading = new AbortController());
    this.lost = true;
    this.changed();
    try {
      await engine.recover({ signal: abort.signal, onProgress: this.onProgress });
      this.lost = false;
    } catch (thrown) {
      if (!abort.signal.aborted && this.engine === engine) throw thrown;
    } finally {
      if (this.loading === abort) this.loading = undefined;
      this.changed();
    }
  }

  private changed(): void {
    for (const listener of this.listeners) listener();
  }
}
