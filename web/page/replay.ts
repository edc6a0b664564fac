/** A run as it was recorded, and playing two of them side by side at the speed at which they happened. */
import type { RejectedPiece, TokenPiece } from "../src/index.js";

/** What arrived at once. */
export interface Moment {
  /** Milliseconds since the prompt had been read. */
  at: number;
  text: string;
  tokens: readonly TokenPiece[];
  rejected: readonly RejectedPiece[];
}

/** One answer, recorded. */
export interface Recording {
  moments: readonly Moment[];
  decode_ms: number;
  tokens_per_second: number;
  tokens: readonly number[];
  text: string;
  /** The answer was cut short: there is nothing to compare. */
  aborted: boolean;
}

/** Where a recording is shown. */
export interface Lane {
  clear(): void;
  add(moment: Moment): void;
  /** How far it is: tokens so far, and milliseconds of its own time. */
  tell(tokens: number, ms: number, done: boolean): void;
}

/** Plays the recordings in their lanes. `signal` ends it at once, with everything shown. */
export function replay(runs: readonly { recording: Recording; lane: Lane }[], signal: AbortSignal): Promise<void> {
  const players = runs.map((run) => ({ ...run, next: 0, tokens: 0 }));
  for (const { lane } of players) lane.clear();
  const began = performance.now();
  return new Promise((resolve) => {
    const frame = () => {
      const elapsed = signal.aborted ? Infinity : performance.now() - began;
      let over = true;
      for (const player of players) {
        const { moments, decode_ms } = player.recording;
        for (let moment = moments[player.next]; moment && moment.at <= elapsed; moment = moments[++player.next]) {
          player.lane.add(moment);
          player.tokens += moment.tokens.length;
        }
        const done = player.next === moments.length && elapsed >= decode_ms;
        player.lane.tell(player.tokens, Math.min(elapsed, decode_ms), done);
        over &&= done;
      }
      if (over) resolve();
      else if (document.hidden)
        setTimeout(frame, 50); // there are no frames where nobody looks
      else requestAnimationFrame(frame);
    };
    frame();
  });
}
