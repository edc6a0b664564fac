/** The bench: speculation against plain decoding on a suite of prompts, as a table, a chart and files to share. */
import type { BenchReport } from "../src/index.js";
import { PAGE, PAPER, speedupChart, svgFile, type Palette } from "./charts.js";
import { button, byId, copies, input, make, offer, part, progress } from "./dom.js";
import { deviceText, fixed } from "./format.js";
import { calm, complain } from "./problems.js";
import type { Session } from "./session.js";
import { speculation, type Settings } from "./settings.js";
import { prompts } from "./suite.js";

const FIELDS = { "bench-per-category": "per_category", "bench-max-tokens": "max_tokens", "bench-repeats": "repeats" } as const;

const number = (id: keyof typeof FIELDS) => Math.max(1, Math.floor(input(id).valueAsNumber) || 1);

export function startBench(session: Session, settings: Settings, address: URLSearchParams, load: () => Promise<boolean>): void {
  const bar = byId("bench-progress", HTMLProgressElement);
  let running = false;
  let json = "";

  const refresh = () => {
    const { state } = session;
    button("run").disabled = !["empty", "ready"].includes(state);
    button("run").textContent = session.engine ? "Run" : "Load the model and run";
    button("run").hidden = running;
    button("bench-stop").hidden = part("bench-state").hidden = !running;
  };

  const tell = (share: number | undefined, text: string) => {
    progress(bar, share);
    part("bench-text").textContent = text;
  };

  const run = async () => {
    if (session.state === "empty" && !(await load())) return;
    if (session.state !== "ready") return;
    calm();
    running = true;
    tell(undefined, "Timing passes");
    refresh();
    try {
      const suite = await prompts();
      const report = await session.use((engine, signal) => {
        const wanted = speculation(settings.values, session.hasDraft);
        return engine.bench(suite, {
          speculation: [wanted === "off" ? "auto" : wanted],
          per_category: number("bench-per-category"),
          max_tokens: number("bench-max-tokens"),
          repeats: number("bench-repeats"),
          signal,
          onProgress: ({ id, config, done, total }) =>
            tell(done / total, `${id}, ${config === "off" ? "plain" : "guessing"}: ${done} of ${total}`),
        });
      });
      if (report) {
        json = `${JSON.stringify({ ...report, user_agent: navigator.userAgent }, null, 2)}\n`;
        show(report, json);
      }
    } catch (thrown) {
      complain(thrown);
    } finally {
      running = false;
      refresh();
    }
  };

  for (const [id, name] of Object.entries(FIELDS)) {
    const value = address.get(name);
    if (value !== null) input(id).value = value;
  }
  byId("bench-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    void run();
  });
  button("bench-stop").addEventListener("click", () => session.stop());
  copies(button("bench-copy"), () => json);
  session.onChange(refresh);
  refresh();
}

function show(report: BenchReport, json: string): void {
  const measured = report.categories.filter((row) => row.config !== "off");
  const rows = measured.map((row) => {
    const cells = [
      fixed(row.speedup, 2),
      fixed(row.plain_tokens_per_second, 1),
      fixed(row.tokens_per_second, 1),
      fixed(row.mean_acceptance_length, 2),
    ];
    return make("tr", {}, make("th", { scope: "row" }, row.category), ...cells.map((cell) => make("td", {}, cell)));
  });
  part("rows").replaceChildren(...rows);
  const control = report.controls[0]?.geomean_speedup ?? null;
  const several = Object.entries(report.verify_cost).filter(([k]) => k !== "1");
  const costs = several.map(([k, cost]) => `${k} cost ${cost.toFixed(2)}`);
  part("notes").textContent = [
    `On average ${fixed(report.geomean_speedup, 2)} times as fast (geometric mean).`,
    `Plain decoding against itself gives ${fixed(control, 2)}: that far from 1 is noise of this machine.`,
    costs.length > 0 ? `Checking several tokens at once, over the time of one: ${costs.join(", ")}.` : "",
    report.overall[0] ? `Speculation ${report.overall[0].reason}.` : "",
  ]
    .filter(Boolean)
    .join(" ");
  const chart = (palette: Palette) =>
    speedupChart(
      "Speed-up by guessing ahead",
      `${report.model} · ${deviceText(report.device)} · foredraft`,
      measured.flatMap(({ category: label, speedup: value }) =>
        value === null ? [] : [{ label, value, text: `${label} ${value.toFixed(2)}` }],
      ),
      palette,
    );
  part("bench-chart").replaceChildren(chart(PAGE));
  offer(byId("download", HTMLAnchorElement), json, "application/json");
  offer(byId("download-svg", HTMLAnchorElement), svgFile(chart(PAPER)), "image/svg+xml");
  part("found").hidden = false;
}
