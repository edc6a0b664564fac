/** The bench page: loads a model, measures speculation against plain decoding, shows and offers what was found. */
import { Engine, ForedraftError, type BenchReport, type BenchSuite, type LoadOptions } from "../src/index.js";
import { byId } from "./dom.js";
import { deviceText } from "./figures.js";

const input = (id: string) => byId(id, HTMLInputElement);
const number = (id: string) => Math.max(1, Math.floor(input(id).valueAsNumber) || 1);
const device = byId("device", HTMLSelectElement);
const alertBox = byId("alert", HTMLElement);
const bar = byId("progress", HTMLProgressElement);

let engine: Engine | undefined;
let loading: AbortController | undefined;

function busy(is: boolean): void {
  byId("run", HTMLButtonElement).disabled = is;
  byId("stop", HTMLButtonElement).hidden = !is;
  byId("state", HTMLElement).hidden = !is;
}

function tell(share: number | undefined, text: string): void {
  if (share === undefined) bar.removeAttribute("value");
  else bar.value = share;
  byId("state-text", HTMLElement).textContent = text;
}

async function run(): Promise<void> {
  const model = input("model-file").files?.[0] ?? input("model-url").value.trim();
  alertBox.hidden = true;
  if (model === "") return complain(new ForedraftError("bad_option", "Give the address of a GGUF file, or choose one from your disk."));
  const abort = (loading = new AbortController());
  busy(true);
  tell(undefined, "starting");
  try {
    const suite = (await (await fetch(new URL("prompts.json", document.baseURI))).json()) as BenchSuite;
    const options: LoadOptions = {
      model,
      device: device.value === "gpu" || device.value === "cpu" ? device.value : "auto",
      context: 1024,
      signal: abort.signal,
      onProgress: ({ total, progress, text }) => tell(total > 0 ? progress : undefined, text),
    };
    engine = await Engine.load(options);
    const report = await engine.bench(suite, {
      per_category: number("per-category"),
      max_tokens: number("max-tokens"),
      repeats: number("repeats"),
      onProgress: ({ id, config, done, total }) => tell(done / total, `${id}, ${config === "off" ? "plain" : config}: ${done} of ${total}`),
    });
    show(report);
  } catch (thrown) {
    if (!abort.signal.aborted) complain(thrown);
  } finally {
    engine?.unload();
    engine = undefined;
    busy(false);
  }
}

function stop(): void {
  loading?.abort();
  engine?.unload();
}

function complain(thrown: unknown): void {
  const error = ForedraftError.from(thrown, "worker_failed");
  alertBox.textContent = error.message;
  alertBox.dataset["code"] = error.code;
  alertBox.hidden = false;
}

function show(report: BenchReport): void {
  const text = (value: number | null, digits: number) => (value === null ? "–" : value.toFixed(digits));
  const measured = report.categories.filter((row) => row.config !== "off");
  const rows = measured.map((row) => {
    const line = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = row.category;
    const cells = [
      text(row.speedup, 2),
      text(row.plain_tokens_per_second, 1),
      text(row.tokens_per_second, 1),
      text(row.mean_acceptance_length, 2),
    ].map((value) => {
      const cell = document.createElement("td");
      cell.textContent = value;
      return cell;
    });
    line.append(name, ...cells);
    return line;
  });
  byId("rows", HTMLElement).replaceChildren(...rows);
  const costs = Object.entries(report.verify_cost).map(([k, cost]) => `c(${k}) = ${cost.toFixed(2)}`);
  const control = report.controls[0];
  byId("notes", HTMLElement).textContent = [
    `${report.model} on ${deviceText(report.device)}.`,
    `Geometric mean of the speed-ups ${text(report.geomean_speedup, 2)};`,
    `plain decoding against itself ${text(control?.geomean_speedup ?? null, 2)}, which is the noise of this machine.`,
    costs.length > 0 ? `Checking k tokens costs, over one: ${costs.join(", ")}.` : "",
    report.overall[0] ? `Speculation ${report.overall[0].reason}.` : "",
  ].join(" ");
  const link = byId("download", HTMLAnchorElement);
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([JSON.stringify(report, null, 2)], { type: "application/json" }));
  byId("found", HTMLElement).hidden = false;
  const badge = byId("badge", HTMLElement);
  badge.textContent = deviceText(report.device);
  badge.hidden = false;
}

byId("bench-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  void run();
});
byId("stop", HTMLButtonElement).addEventListener("click", stop);

// An address may ask for what the form has: ?model=URL&device=gpu&per_category=1&max_tokens=96&repeats=1
const wanted = new URLSearchParams(location.search);
for (const [name, id] of [["model", "model-url"], ["per_category", "per-category"], ["max_tokens", "max-tokens"], ["repeats", "repeats"]] as const) {
  const value = wanted.get(name);
  if (value !== null) input(id).value = value;
}
const asked = wanted.get("device");
if (asked === "gpu" || asked === "cpu") device.value = asked;
