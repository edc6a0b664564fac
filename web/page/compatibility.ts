/** What this browser and this device can do, before anything is downloaded. */
import { checkShaders, devices, type DeviceInfo } from "../src/index.js";
import { button, copies, make, part } from "./dom.js";
import { deviceText, fixed, size } from "./format.js";
import { complain } from "./problems.js";

/** The part of a report on devices that is shown. */
interface Report {
  /** What would be used, and why. */
  device: DeviceInfo;
  reason: string;
  adapters: {
    name: string;
    kind: string;
    software: boolean;
    driver: string;
    features: string[];
    max_storage_buffer_binding_bytes: number;
    max_buffer_bytes: number;
    max_storage_buffers_per_stage: number;
    max_workgroup_bytes: number;
    max_workgroup_threads: number;
  }[];
  self_test: { same_bits: string[]; widest_only: string[]; largest_difference: number } | null;
}

/** Asks the package: the one place that knows by which of its functions. Also gives all that it said. */
async function probe(): Promise<Report & { everything: unknown }> {
  const everything = await devices();
  const { auto, gpu, ...rest } = everything as Omit<Report, "device" | "self_test"> & {
    auto: DeviceInfo;
    gpu: Pick<Report, "self_test"> | null;
  };
  return { ...rest, device: auto, self_test: gpu?.self_test ?? null, everything };
}

/** Features that can make a GPU faster. */
const USEFUL = [
  ["SHADER_F16", "half precision"],
  ["SUBGROUP", "subgroups"],
  ["TIMESTAMP_QUERY", "timestamps"],
] as const;

type Mark = "good" | "fair" | "bad";
const WORDS: Readonly<Record<Mark, string>> = { good: "yes", fair: "partly", bad: "no" };

/** One line: what it is, how it stands and what that means. */
function line(name: string, mark: Mark, text: string): HTMLElement {
  const state = make("span", { class: `mark ${mark}` }, WORDS[mark]);
  return make("div", { class: "fact" }, make("dt", {}, name), make("dd", {}, state, make("span", {}, text)));
}

const has = (needed: boolean, good: string, bad: string): [Mark, string] => (needed ? ["good", good] : ["bad", bad]);

function limits(adapter: Report["adapters"][number]): HTMLElement[] {
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

function gpuFacts(report: Report): HTMLElement[] {
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
  if (!test) return [...facts, line("Self-test", "bad", "not passed, or not run")];
  const text =
    `${test.same_bits.length} formats compute the same bits in every width` +
    (test.widest_only.length > 0 ? `, ${test.widest_only.length} only in one, which is used throughout` : "") +
    `; largest difference to the CPU ${test.largest_difference.toExponential(1)}`;
  return [...facts, line("Self-test", test.widest_only.length > 0 ? "fair" : "good", text)];
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
    line("Clipboard", ...has(isSecureContext, "reports can be copied", "only over HTTPS; reports can be downloaded")),
  ];
}

/** Gives the function that looks, the first time that the tab is shown. */
export function startCompatibility(): () => void {
  let json = "";
  let begun = false;

  const look = async () => {
    begun = true;
    const status = part("probe-status");
    status.textContent =
      "Looking for a GPU and testing it. With one that is emulated in software this can take a minute or two.";
    button("probe-again").disabled = true;
    try {
      const report = await probe();
      part("verdict").textContent = `Models will run on ${deviceText(report.device)}`;
      part("verdict-reason").textContent = capital(report.reason);
      part("facts").replaceChildren(...gpuFacts(report), ...(await browserFacts()));
      json = `${JSON.stringify({ user_agent: navigator.userAgent, report: report.everything }, null, 2)}\n`;
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
  };
}

const capital = (text: string) => `${text.slice(0, 1).toUpperCase()}${text.slice(1)}.`;
