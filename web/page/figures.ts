/** The panel of figures beside the conversation. */
import type { ChunkExtra, DeviceInfo, Usage } from "../src/index.js";
import { byId } from "./dom.js";

const show = (id: string, text: string) => {
  byId(id, HTMLElement).textContent = text;
};

/** The device in a few words. */
export function deviceText(device: DeviceInfo): string {
  const kind = device.kind === "gpu" ? (device.software ? "GPU in software" : "GPU") : "CPU";
  if (device.name.toUpperCase().startsWith(device.kind.toUpperCase())) return device.name;
  return device.name === "" ? kind : `${kind}, ${device.name}`;
}

/** Speed while the answer is being written. */
export function showSpeed(tokensPerSecond: number): void {
  show("figure-speed", tokensPerSecond.toFixed(1));
}

/** Figures of a whole answer. */
export function showFigures({ timings, speculation, device }: ChunkExtra, usage: Usage | undefined): void {
  if (timings) {
    showSpeed(timings.tokens_per_second);
    show("figure-first", `${(timings.time_to_first_token_ms / 1000).toFixed(2)} s`);
  }
  if (speculation) {
    const drafted = speculation.drafted > 0;
    const share = `${(speculation.acceptance_rate * 100).toFixed(0)} % (${speculation.accepted} of ${speculation.drafted})`;
    show("figure-acceptance", drafted ? share : "no drafts");
    show("figure-length", drafted ? speculation.mean_acceptance_length.toFixed(2) : "–");
    show("reason", `Speculation ${speculation.reason}`);
  }
  if (device) show("figure-device", deviceText(device));
  if (usage) show("figure-tokens", `${usage.prompt_tokens} / ${usage.completion_tokens}`);
}
