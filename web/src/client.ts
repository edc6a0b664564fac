/** The caller's end of an engine: calls by id, events on the way, one result each. */
import { ForedraftError, reasonOf } from "./errors.js";
import type { Answer, Ask, Calls, Kind } from "./protocol.js";

/** What carries messages to an engine, wherever it runs. */
export interface Link {
  /** Throws where the message cannot be cloned. */
  post(ask: Ask, transfer: Transferable[]): void;
  /** Nothing more will be asked. */
  end(): void;
}

/** Opens a link; what comes back is told to `receive`, and that nothing will come any more to `fail`. */
export type Connect = (receive: (answer: Answer) => void, fail: (error: ForedraftError) => void) => Link;

interface Pending {
  event(event: unknown): void;
  resolve(result: unknown): void;
  reject(error: ForedraftError): void;
}

/** Options of one call. */
export interface CallOptions<K extends Kind> {
  onEvent?: (event: Calls[K]["event"]) => void;
  signal?: AbortSignal | undefined;
  transfer?: Transferable[];
}

/** A link, and the calls that wait for it. */
export class Client {
  private readonly link: Link;
  private readonly pending = new Map<number, Pending>();
  private lastId = 0;
  private dead: ForedraftError | undefined;

  constructor(connect: Connect) {
    this.link = connect(
      (answer) => this.receive(answer),
      (error) => this.close(error),
    );
  }

  /** Asks the engine; a signal that fires asks it to end early, and the call still settles. */
  call<K extends Kind>(kind: K, args: Calls[K]["args"], options: CallOptions<K> = {}): Promise<Calls[K]["result"]> {
    if (this.dead) return Promise.reject(this.dead);
    const id = ++this.lastId;
    const { onEvent, signal, transfer = [] } = options;
    const cancel = () => this.post({ id, kind: "cancel" });
    const result = new Promise<Calls[K]["result"]>((resolve, reject) => {
      // `receive` hands events and results to the call whose id they carry, so their types are those of its kind.
      this.pending.set(id, {
        event: (event) => onEvent?.(event as Calls[K]["event"]),
        resolve: (value) => resolve(value as Calls[K]["result"]),
        reject,
      });
    });
    try {
      this.post({ id, kind, args } as Ask, transfer);
    } catch (cause) {
      this.pending.delete(id);
      const reason = reasonOf(cause);
      const message = `the options of ${kind} cannot be sent to the engine, expected plain data: ${reason}`;
      return Promise.reject(new ForedraftError("bad_option", message, {}, { cause }));
    }
    signal?.addEventListener("abort", cancel, { once: true });
    return result.finally(() => signal?.removeEventListener("abort", cancel));
  }

  /** Ends the engine; calls that wait fail with `reason`, and so do those to come, with the latest one. */
  close(reason: ForedraftError): void {
    const ended = this.dead !== undefined;
    this.dead = reason;
    if (ended) return;
    this.link.end();
    for (const call of this.pending.values()) call.reject(reason);
    this.pending.clear();
  }

  private post(ask: Ask, transfer: Transferable[] = []): void {
    if (!this.dead) this.link.post(ask, transfer);
  }

  private receive(answer: Answer): void {
    if (this.dead) return;
    if (answer.kind === "fatal") return this.close(ForedraftError.fromWire(answer.error));
    const call = this.pending.get(answer.id);
    if (!call) return;
    if (answer.kind === "event") return call.event(answer.event);
    this.pending.delete(answer.id);
    if (answer.kind === "result") call.resolve(answer.result);
    else call.reject(ForedraftError.fromWire(answer.error));
  }
}
