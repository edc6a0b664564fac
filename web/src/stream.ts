/** Chunks on their way from a worker that pushes to a caller that pulls. */

/** An answer as it is written. Leaving a `for await` over it early cancels the rest. */
export class CompletionStream<Chunk> implements AsyncIterable<Chunk> {
  private readonly queue: Chunk[] = [];
  private readonly waiting: (() => void)[] = [];
  private ended = false;
  private failure: Error | undefined;

  /** @internal */
  constructor(private readonly cancel: () => void) {}

  /** Ends the answer early: the stream closes with `finish_reason: "abort"`. */
  abort(): void {
    if (!this.ended) this.cancel();
  }

  /** Whoever iterates shares what is left: a chunk is given once. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Chunk> {
    const iterator: AsyncIterableIterator<Chunk> = {
      next: () => this.next(),
      return: async () => {
        this.abort();
        this.finish();
        this.queue.length = 0;
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    return iterator;
  }

  private async next(): Promise<IteratorResult<Chunk>> {
    while (this.queue.length === 0 && !this.ended) await new Promise<void>((resolve) => this.waiting.push(resolve));
    const value = this.queue.shift();
    if (value !== undefined) return { done: false, value };
    const failure = this.failure;
    this.failure = undefined;
    if (failure) throw failure;
    return { done: true, value: undefined };
  }

  /** @internal Adds a chunk; after the end it is dropped. */
  push(chunk: Chunk): void {
    if (this.ended) return;
    this.queue.push(chunk);
    this.wake();
  }

  /** @internal No more chunks; `failure` is thrown once those before it have been read. */
  finish(failure?: Error): void {
    if (this.ended) return;
    this.ended = true;
    this.failure = failure;
    this.wake();
  }

  private wake(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}
