/** The figures beside the conversation, while an answer is written and after it. */
import type { ChunkExtra, Engine, SpeculationStats, Usage } from "../src/index.js";
import { shareBars, sparkline } from "./charts.js";
import { make, part } from "./dom.js";
import { deviceText, fixed, size } from "./format.js";

/** The speed that is shown while an answer is written is that of this last while. */
const WINDOW_MS = 2000;
/** Points of the curve at most. */
const POINTS = 80;

const put = (id: string, text: string) => {
  part(id).textContent = text;
};

/** What was written in one round, and when it arrived. */
interface Step {
  at: number;
  tokens: number;
}

export class LivePanel {
  private steps: Step[] = [];
  private speeds: number[] = [];

  /** What runs, and where. */
  show(engine: Engine | undefined): void {
    this.steps = [];
    for (const id of ["speed", "acceptance", "length", "round", "first", "tokens"]) put(`figure-${id}`, "–");
    part("speed-curve").replaceChildren();
    for (const id of ["round-about", "by-position", "by-drafter"]) part(id).hidden = true;
    put("reason", "");
    put("figure-device", engine ? deviceText(engine.device) : "–");
    put("device-reason", engine ? `Device: ${engine.deviceReason === "asked for" ? "as the settings say" : engine.deviceReason}` : "");
    put("figure-memory", "–");
    put("memory-parts", "");
    if (engine) void showMemory(engine);
  }

  /** A new answer begins. */
  begin(): void {
    this.steps = [];
    this.speeds = [];
  }

  /** One chunk of it; the last brings the figures of the whole. */
  chunk(extra: ChunkExtra, usage: Usage | undefined): void {
    if (extra.tokens.length > 0) this.step(extra.tokens.length);
    const { timings, speculation } = extra;
    if (timings) {
      put("figure-speed", fixed(timings.tokens_per_second, 1));
      put("speed-when", "tokens a second, the last answer");
      put("figure-first", `${fixed(timings.time_to_first_token_ms / 1000, 2)} s`);
      if (speculation && speculation.rounds > 0) put("figure-round", `${fixed(timings.decode_ms / speculation.rounds, 0)} ms`);
    }
    if (speculation) showSpeculation(speculation);
    if (extra.device) put("figure-device", deviceText(extra.device));
    if (usage) put("figure-tokens", `${usage.prompt_tokens} / ${usage.completion_tokens}`);
  }

  private step(tokens: number): void {
    const now = performance.now();
    const before = this.steps.at(-1);
    this.steps.push({ at: now, tokens });
    if (!before) return;
    put("figure-round", `${fixed(now - before.at, 0)} ms`);
    const recent = this.steps.filter(({ at }) => at >= now - WINDOW_MS);
    // The first of them only tells when counting begins.
    const since = this.steps[this.steps.length - recent.length - 1] ?? recent[0]!;
    const counted = recent.filter((step) => step !== since).reduce((sum, step) => sum + step.tokens, 0);
    const speed = counted / ((now - since.at) / 1000);
    if (!Number.isFinite(speed)) return;
    put("figure-speed", fixed(speed, 1));
    put("speed-when", "tokens a second, now");
    this.speeds = [...this.speeds, speed].slice(-POINTS);
    if (this.speeds.length > 2) part("speed-curve").replaceChildren(sparkline("Speed during this answer", this.speeds));
  }
}

async function showMemory(engine: Engine): Promise<void> {
  try {
    const use = await engine.memory();
    put("figure-memory", size(use.allocated_bytes));
    const parts = [
      `weights ${size(use.weights_bytes)}`,
      `conversation ${size(use.kv_bytes)}`,
      `work space ${size(use.scratch_bytes)}`,
    ];
    put("memory-parts", `Memory: ${parts.join(", ")}`);
  } catch {
    // The engine has gone meanwhile, and its memory with it.
  }
}

function showSpeculation(stats: SpeculationStats): void {
  const drafted = stats.drafted > 0;
  const share = `${(stats.acceptance_rate * 100).toFixed(0)} % (${stats.accepted} of ${stats.drafted})`;
  put("figure-acceptance", drafted ? share : "no guesses");
  put("figure-length", drafted ? stats.mean_acceptance_length.toFixed(2) : "1.00");
  put("reason", `Speculation ${stats.reason}`);
  const bars = stats.by_position
    .filter((tally) => tally.drafted > 0)
    .map(({ drafted: made, accepted }, index) => {
      const label = String(index + 1);
      return { label, value: accepted / made, text: `guess ${label}: ${accepted} of ${made} kept` };
    });
  part("round-about").hidden = part("by-position").hidden = bars.length === 0;
  if (bars.length > 0) part("position-chart").replaceChildren(shareBars("Guesses kept by position", bars));
  const rows = Object.entries(stats.by_drafter).filter(([, tally]) => tally.drafted > 0);
  part("by-drafter").hidden = rows.length === 0;
  const cells = rows.map(([name, tally]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, `${tally.accepted} of ${tally.drafted} kept`)),
  );
  part("drafter-rows").replaceChildren(...cells);
}
