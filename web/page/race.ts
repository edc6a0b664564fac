/** The race: the same question plain and with guesses, in turn, then both replayed side by side. */
import type { Engine } from "../src/index.js";
import { button, byId, make, part } from "./dom.js";
import { fixed } from "./format.js";
import { calm, complain } from "./problems.js";
import { replay, type Lane, type Moment, type Recording } from "./replay.js";
import type { Session } from "./session.js";
import { sampling, speculation, type Settings } from "./settings.js";
import { prompts } from "./suite.js";
import { MarkedText } from "./turn.js";

/** Categories of the suite in words, with what is to be expected of them. */
const EXAMPLES: Readonly<Record<string, string>> = {
  copy: "Repeat a text (guesses often right)",
  "code-edit": "Change some code",
  translation: "Translate",
  rag: "Answer from a text",
  summarization: "Summarise",
  math: "Calculate",
  qa: "Answer a question",
  story: "Write a story (guesses seldom right)",
};

class LaneView implements Lane {
  private body = new MarkedText();

  constructor(private readonly name: "plain" | "guessing") {}

  clear(): void {
    this.body = new MarkedText();
    part(`lane-${this.name}-text`).replaceChildren(this.body.node);
    part(`lane-${this.name}`).classList.remove("done");
    this.say("");
  }

  add({ text, tokens, rejected }: Moment): void {
    this.body.append(text, tokens, rejected);
    const box = part(`lane-${this.name}-text`);
    box.scrollTop = box.scrollHeight;
  }

  tell(tokens: number, ms: number, done: boolean): void {
    part(`lane-${this.name}`).classList.toggle("done", done);
    this.say(
      `${fixed(ms / 1000, 1)} s · ${tokens} tokens${done && ms > 0 ? ` · ${fixed(tokens / (ms / 1000), 1)} tokens/s` : ""}`,
    );
  }

  say(text: string): void {
    part(`lane-${this.name}-figures`).textContent = text;
  }
}

/** One answer, with the times at which its pieces came. */
async function record(
  engine: Engine,
  question: string,
  how: string,
  settings: Settings,
  signal: AbortSignal,
  onTokens: (count: number) => void,
): Promise<Recording> {
  const stream = await engine.chat.completions.create({
    ...sampling(settings.values),
    messages: [{ role: "user", content: question }],
    stream: true,
    speculation: how,
    signal,
  });
  const arrived: Moment[] = [];
  const recording = { decode_ms: 0, tokens_per_second: 0, tokens: [] as number[], text: "", aborted: signal.aborted };
  for await (const { choices, foredraft } of stream) {
    const { tokens, rejected = [], timings } = foredraft;
    const text = choices[0]?.delta.content ?? "";
    arrived.push({ at: performance.now(), text, tokens, rejected });
    recording.text += text;
    recording.tokens.push(...tokens.map(({ id }) => id));
    if (timings) Object.assign(recording, { decode_ms: timings.decode_ms, tokens_per_second: timings.tokens_per_second });
    if (choices[0]?.finish_reason === "abort") recording.aborted = true;
    onTokens(recording.tokens.length);
  }
  // Reading the prompt is not part of the race: the second run finds it read. The last chunk came when decoding ended.
  const start = (arrived.at(-1)?.at ?? 0) - recording.decode_ms;
  const moments = arrived.map((moment) => ({ ...moment, at: Math.min(Math.max(moment.at - start, 0), recording.decode_ms) }));
  return { ...recording, moments };
}

const same = (a: Recording, b: Recording) =>
  a.text === b.text && a.tokens.length === b.tokens.length && a.tokens.every((id, index) => id === b.tokens[index]);

export function startRace(session: Session, settings: Settings): void {
  const question = byId("race-prompt", HTMLTextAreaElement);
  const example = byId("race-example", HTMLSelectElement);
  const lanes = { plain: new LaneView("plain"), guessing: new LaneView("guessing") };
  let runs: { recording: Recording; lane: Lane }[] = [];
  let running = false;
  let replaying: AbortController | undefined;

  const refresh = () => {
    button("race-start").disabled = session.state !== "ready" || replaying !== undefined;
    button("race-start").hidden = running;
    button("race-stop").hidden = !running;
    button("race-replay").hidden = runs.length === 0 || replaying !== undefined || running;
    button("race-skip").hidden = replaying === undefined;
    part("race-needs").hidden = session.engine !== undefined;
  };

  const play = async () => {
    const abort = (replaying = new AbortController());
    refresh();
    // Who wants no motion sees the end at once.
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) abort.abort();
    await replay(runs, abort.signal);
    if (replaying === abort) replaying = undefined;
    refresh();
  };

  const start = async () => {
    const text = question.value.trim();
    if (text === "") return question.focus();
    if (session.state !== "ready") return;
    calm();
    running = true;
    runs = [];
    part("race-result").replaceChildren();
    lanes.plain.clear();
    lanes.guessing.clear();
    const status = part("race-status");
    refresh();
    try {
      const recordings = await session.use(async (engine, signal) => {
        const wanted = speculation(settings.values, session.hasDraft);
        status.textContent = "First without guesses.";
        const plain = await record(engine, text, "off", settings, signal, (count) =>
          lanes.plain.say(`running, ${count} tokens`),
        );
        if (plain.aborted) return undefined;
        lanes.plain.say("recorded");
        status.textContent = "Now with guesses.";
        // Not from an answer to the same question that was given before: that would be a race against a copy.
        const how = `${["auto", "off"].includes(wanted) ? "" : `${wanted},`}suffix_store=0`;
        const guessing = await record(engine, text, how, settings, signal, (count) =>
          lanes.guessing.say(`running, ${count} tokens`),
        );
        return guessing.aborted ? undefined : { plain, guessing };
      });
      status.textContent = recordings ? "" : "Stopped.";
      if (recordings) {
        runs = [
          { recording: recordings.plain, lane: lanes.plain },
          { recording: recordings.guessing, lane: lanes.guessing },
        ];
        verdict(recordings.plain, recordings.guessing);
      }
    } catch (thrown) {
      status.textContent = "";
      complain(thrown);
    } finally {
      running = false;
      refresh();
    }
    if (runs.length > 0) await play();
  };

  byId("race-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    void start();
  });
  button("race-stop").addEventListener("click", () => session.stop());
  button("race-replay").addEventListener("click", () => void play());
  button("race-skip").addEventListener("click", () => replaying?.abort());
  example.addEventListener("change", () => void fill(example.value, question));
  example.append(...Object.entries(EXAMPLES).map(([value, label]) => make("option", { value }, label)));
  session.onChange(refresh);
  refresh();
}

/** Puts the first question of that category in, of a conversation that has only begun. */
async function fill(category: string, question: HTMLTextAreaElement): Promise<void> {
  try {
    const found = (await prompts()).prompts.find((prompt) => prompt.category === category && prompt.messages.length === 1);
    if (found) question.value = found.messages[0]?.content ?? "";
  } catch (thrown) {
    complain(thrown);
  }
}

function verdict(plain: Recording, guessing: Recording): void {
  const ratio = guessing.tokens_per_second / plain.tokens_per_second;
  const equal = same(plain, guessing);
  const result = part("race-result");
  const words =
    ratio >= 1.05
      ? "as fast with guesses"
      : ratio > 0.95
        ? "the speed: no difference here"
        : "the speed: guessing did not pay here";
  const check = equal ? `Same text, token by token (${plain.tokens.length} tokens).` : "The texts differ.";
  result.replaceChildren(
    make("strong", { class: "ratio" }, `${fixed(ratio, 2)}×`),
    make("span", {}, ` ${words} `),
    make("span", { class: equal ? "same" : "differs" }, check),
  );
  result.dataset["same"] = String(equal);
  result.dataset["ratio"] = String(ratio);
}
