/** What this browser and this device can do, before anything is downloaded. */
import { checkShaders, probe, type AdapterInfo, type Probe } from "../src/index.js";
import catalog from "./catalog.json";
import { button, copies, make, part } from "./dom.js";
import { deviceText, fixed, size } from "./format.js";
import { complain } from "./problems.js";
import { showStored } from "./stored.js";

/** Features that can make a GPU faster. */
const USEFUL = [
  ["SHADER_F16", "half precision"],
  ["SUBGROUP", "subgroups"],
  ["TIMESTAMP_QUERY", "timestamps"],
] as const;

type Mark = "good" | "fair" | "bad";
const WORDS: Readonly<Record<Mark, string>> = { good: "yes", fair: "partly", bad: "no" };

/** One line: what it is, how it stands and what that means. */
function line(name: string, mark: Mark, text: string, word = WORDS[mark]): HTMLElement {
  const state = make("span", { class: `mark ${mark}` }, word);
  return make("div", { class: "fact" }, make("dt", {}, name), make("dd", {}, state, make("span", {}, text)));
}

const has = (needed: boolean, good: string, bad: string): [Mark, string] => (needed ? ["good", good] : ["bad", bad]);

function limits(adapter: AdapterInfo): HTMLElement[] {
  const { max_storage_buffers_per_stage: buffers, max_workgroup_bytes: shared, max_workgroup_threads: threads } = adapter;
  const enough = buffers >= 8 && shared >= 16_384 && threads >= 256;
  const found = `${buffers} storage buffers, ${shared / 1024} KiB and ${threads} threads a workgroup`;
  const largest = `${size(adapter.max_storage_buffer_binding_bytes)} in one piece, ${size(adapter.max_buffer_bytes)} a buffer; larger matrices are split`;
  const features = USEFUL.map(([name, words]) => `${words} ${adapter.features.includes(name) ? "yes" : "no"}`);
  return [
    line("Limits", ...has(enough, found, `${found}; 8, 16 KiB and 256 are needed`)),
    line("Largest pieces", "good", largest),
    line("Optional features", "good", `${features.join(", ")}; none is needed`),
  ];
}

function gpuFacts(report: Probe): HTMLElement[] {
  const adapter = report.adapters[0];
  if (!adapter) return [line("WebGPU", "bad", "there is no adapter; models run on the CPU, more slowly")];
  const what = [adapter.name, adapter.driver].filter(Boolean).join(", ");
  const facts = [
    adapter.software
      ? line("WebGPU", "fair", `${what}: emulated on the CPU, so it is only used when asked for`)
      : line("WebGPU", "good", `${what}, ${adapter.kind}`),
    ...limits(adapter),
  ];
  const test = report.self_test;
  // An adapter in software is not used, so there is nothing to test.
  if (!test) return adapter.software ? facts : [...facts, line("Self-test", "bad", report.reason)];
  const text =
    `${test.same_bits.length} kernels compute the same bits in every width` +
    (test.widest_only.length > 0 ? `, ${test.widest_only.length} only in one, which is used throughout` : "") +
    `; largest difference to the CPU ${test.largest_difference.toExponential(1)}`;
  return [...facts, line("Self-test", test.widest_only.length > 0 ? "fair" : "good", text)];
}

/** What reading every weight once for each token allows, for the models of the catalog. */
function speedFact({ speed }: Probe): HTMLElement {
  const expected = catalog.map(({ name, bytes }) => {
    const token_ms = (bytes / speed.weight_bytes_per_second) * 1000 + speed.round_trip_ms;
    return { name, tokens: 1000 / token_ms };
  });
  const readable = expected.some(({ tokens }) => tokens >= 7);
  const words = expected.map(({ name, tokens }) => `${name} about ${fixed(tokens, tokens < 10 ? 1 : 0)} tokens a second`);
  return line("Speed to expect", readable ? "good" : "fair", `${words.join(", ")}, before guessing`, readable ? "fine" : "slow");
}

/** What the page can tell of the browser itself. */
async function browserFacts(): Promise<HTMLElement[]> {
  const estimate = await navigator.storage?.estimate?.().catch(() => undefined);
  const { quota = 0, usage = 0 } = estimate ?? {};
  const offline = "serviceWorker" in navigator && isSecureContext;
  return [
    line(
      "Storage",
      ...has(quota > 0, `${size(quota - usage)} free for this site`, "the browser does not tell, or keeps nothing"),
    ),
    line(
      "Offline",
      ...has(
        offline,
        "this page starts without a network once it has been open",
        "only over HTTPS, and not in every private window",
      ),
    ),
    line("Clipboard", ...has(isSecureContext, "reports can be copied", "only over HTTPS")),
  ];
}

/** Gives the function that looks, the first time that the tab is shown. */
export function startCompatibility(): () => void {
  let json = "";
  let begun = false;

  const look = async () => {
    begun = true;
    const status = part("probe-status");
    status.textContent = "Looking for a GPU and testing it";
    button("probe-again").disabled = true;
    try {
      const report = await probe();
      part("verdict").textContent = `Models will run on ${deviceText(report.device)}`;
      part("verdict-reason").textContent = capital(report.reason);
      part("facts").replaceChildren(...gpuFacts(report), speedFact(report), ...(await browserFacts()));
      json = `${JSON.stringify({ user_agent: navigator.userAgent, report }, null, 2)}\n`;
      part("probe-done").hidden = false;
      status.textContent = "";
    } catch (thrown) {
      status.textContent = "";
      complain(thrown);
    } finally {
      button("probe-again").disabled = false;
    }
  };

  const shaders = async () => {
    const status = part("shader-status");
    const check = button("check-shaders");
    check.disabled = true;
    status.textContent = "Compiling…";
    try {
      const { compiled, duration_ms } = (await checkShaders()) as { compiled: number; duration_ms: number };
      status.textContent = `All ${compiled} shaders compile here (${fixed(duration_ms / 1000, 1)} s).`;
    } catch (thrown) {
      status.textContent = "";
      complain(thrown);
    } finally {
      check.disabled = false;
    }
  };

  button("probe-again").addEventListener("click", () => void look());
  button("check-shaders").addEventListener("click", () => void shaders());
  copies(button("copy-report"), () => json);
  return () => {
    if (!begun) void look();
    void showStored();
  };
}

const capital = (text: string) => `${text.slice(0, 1).toUpperCase()}${text.slice(1)}.`;
