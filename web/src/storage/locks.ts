/** One download for all tabs: Web Locks say who may write, a BroadcastChannel how far the writer is. */

/** Bytes of a file that have arrived, of how many; 0 where unknown. */
export interface Arrived {
  loaded: number;
  total: number;
}

const PATIENCE_MS = 1000;

const nameOf = (key: string) => `foredraft:model:${key}`;

/**
 * Takes the lock of a file: shared to read it, exclusive to write it. Where another tab has it, `onWait` is told how far that
 * one is: first what has `arrived` so far, then every piece. Gives the function that lets go of it; a tab or worker that ends
 * does so too.
 */
export async function lock(
  key: string,
  mode: LockMode,
  arrived: () => Promise<Arrived>,
  onWait: (arrived: Arrived) => void,
): Promise<() => void> {
  const release = await tryLock(key, mode);
  if (release) return release;
  const channel = new BroadcastChannel(nameOf(key));
  let waits = true;
  let heard = false;
  channel.onmessage = ({ data }: MessageEvent<Arrived>) => {
    heard = true;
    onWait(data);
  };
  // The next piece may be a while, and it may be the last word of a tab that goes.
  void arrived().then((now) => waits && !heard && onWait(now));
  try {
    return (await take(key, { mode }))!;
  } finally {
    waits = false;
    channel.close();
  }
}

/** The same, or undefined where another tab has the lock now. */
export function tryLock(key: string, mode: LockMode): Promise<(() => void) | undefined> {
  return take(key, { mode, ifAvailable: true });
}

/** The lock to delete a file; undefined where somebody reads or writes it and does not end soon. */
export async function lockToDelete(key: string): Promise<(() => void) | undefined> {
  try {
    // Not at once: a lock that was let go of a moment ago may still count as held.
    return await take(key, { mode: "exclusive", signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch (thrown) {
    if (thrown instanceof DOMException && ["AbortError", "TimeoutError"].includes(thrown.name)) return undefined;
    throw thrown;
  }
}

function take(key: string, options: LockOptions): Promise<(() => void) | undefined> {
  return new Promise((taken, failed) => {
    const hold = (held: Lock | null) => {
      if (!held) return taken(undefined);
      return new Promise<void>((release) => taken(release));
    };
    navigator.locks.request(nameOf(key), options, hold).catch(failed);
  });
}

/** Tells tabs that wait for a file how far it is. */
export class Announcer {
  private readonly channel: BroadcastChannel;

  constructor(key: string) {
    this.channel = new BroadcastChannel(nameOf(key));
  }

  tell(arrived: Arrived): void {
    this.channel.postMessage(arrived);
  }

  close(): void {
    this.channel.close();
  }
}
