/** The demo page: load a model, talk to it, see what was drafted. */
import { Engine, ForedraftError, type ChatMessage, type LoadOptions, type ModelSource, type Usage } from "../src/index.js";
import { Turn } from "./chat.js";
import { byId } from "./dom.js";
import { deviceText, showFigures, showSpeed } from "./figures.js";

const input = (id: string) => byId(id, HTMLInputElement);
const button = (id: string) => byId(id, HTMLButtonElement);

const log = byId("log", HTMLElement);
const prompt = byId("prompt", HTMLTextAreaElement);
const alertBox = byId("alert", HTMLElement);
const badge = byId("badge", HTMLElement);
const device = byId("device", HTMLSelectElement);
const speculation = [...document.querySelectorAll<HTMLInputElement>('input[name="speculation"]')];

let engine: Engine | undefined;
let loading: AbortController | undefined;
let answering: AbortController | undefined;
let messages: ChatMessage[] = [];

/** What the two ways of naming a model hold; a file wins over an address. */
const models = { model: undefined as File | undefined, draft: undefined as File | undefined };

function chosen(which: "model" | "draft"): ModelSource | undefined {
  const url = input(`${which}-url`).value.trim();
  return models[which] ?? (url === "" ? undefined : url);
}

function complain(thrown: unknown): void {
  const error = ForedraftError.from(thrown, "worker_failed");
  alertBox.textContent = error.message;
  alertBox.dataset["code"] = error.code;
  alertBox.hidden = false;
}

/** Shows what can be done in the present state, and only that. */
function refresh(): void {
  const ready = engine !== undefined && !answering;
  button("load").disabled = loading !== undefined || answering !== undefined;
  button("load").textContent = engine ? "Load another" : "Load";
  button("cancel-load").hidden = !loading;
  button("unload").hidden = !engine || loading !== undefined;
  byId("load-state", HTMLElement).hidden = !loading;
  prompt.disabled = !engine;
  prompt.placeholder = engine ? "Write a message" : "Load a model first";
  button("send").disabled = !ready;
  button("send").hidden = answering !== undefined;
  button("stop").hidden = answering === undefined;
  button("new-chat").hidden = messages.length === 0;
  badge.hidden = !engine;
  if (engine) badge.textContent = `${engine.model} · ${deviceText(engine.device)}`;
}

function unload(): void {
  answering?.abort();
  engine?.unload();
  engine = undefined;
  newChat();
}

function newChat(): void {
  answering?.abort();
  messages = [];
  const empty = document.createElement("p");
  empty.className = "empty";
  empty.textContent = engine ? "Ask something." : "Load a model to begin.";
  log.replaceChildren(empty);
  refresh();
}

async function load(): Promise<void> {
  const model = chosen("model");
  alertBox.hidden = true;
  if (model === undefined) {
    input("model-url").focus();
    return complain(new ForedraftError("bad_option", "Give the address of a GGUF file, or choose one from your disk."));
  }
  unload();
  loading = new AbortController();
  const bar = byId("load-progress", HTMLProgressElement);
  bar.removeAttribute("value");
  byId("load-text", HTMLElement).textContent = "starting";
  refresh();
  const draftModel = chosen("draft");
  const context = input("context").valueAsNumber;
  const options: LoadOptions = {
    model,
    device: device.value === "gpu" || device.value === "cpu" ? device.value : "auto",
    signal: loading.signal,
    onProgress: ({ total, progress, text }) => {
      if (total > 0) bar.value = progress;
      byId("load-text", HTMLElement).textContent = text;
    },
  };
  if (draftModel !== undefined) options.draftModel = draftModel;
  if (Number.isFinite(context)) options.context = context;
  try {
    engine = await Engine.load(options);
    const byModel = speculation.find((radio) => radio.value.startsWith("drafter=model"));
    if (byModel) byModel.disabled = draftModel === undefined;
    if (byModel?.checked && byModel.disabled) speculation[0]!.checked = true;
  } catch (thrown) {
    if (!loading.signal.aborted) complain(thrown);
  } finally {
    loading = undefined;
    newChat();
  }
  if (engine) prompt.focus();
}

async function send(): Promise<void> {
  const text = prompt.value.trim();
  const asked = engine;
  if (!asked || answering || text === "") return;
  alertBox.hidden = true;
  log.querySelector(".empty")?.remove();
  const conversation = (messages = [...messages, { role: "user", content: text }]);
  prompt.value = "";
  new Turn(log, "user", text);
  const turn = new Turn(log, "assistant");
  turn.busy(true);
  const abort = (answering = new AbortController());
  refresh();

  let answer = "";
  let written = 0;
  let usage: Usage | undefined;
  try {
    const number = (id: string) => input(id).valueAsNumber;
    const stream = await asked.chat.completions.create({
      messages: conversation,
      stream: true,
      stream_options: { include_usage: true },
      signal: abort.signal,
      speculation: speculation.find((radio) => radio.checked)?.value ?? "auto",
      ...(Number.isFinite(number("max-tokens")) && { max_tokens: number("max-tokens") }),
      ...(Number.isFinite(number("temperature")) && { temperature: number("temperature") }),
      ...(Number.isFinite(number("seed")) && { seed: number("seed") }),
    });
    let firstAt = 0;
    for await (const chunk of stream) {
      const choice = chunk.choices[0];
      const piece = choice?.delta.content ?? "";
      answer += piece;
      turn.append(piece, chunk.foredraft.tokens);
      if (chunk.foredraft.tokens.length > 0) {
        if (written > 0) showSpeed(written / ((performance.now() - firstAt) / 1000));
        else firstAt = performance.now();
        written += chunk.foredraft.tokens.length;
      }
      usage = chunk.usage ?? usage;
      showFigures(chunk.foredraft, chunk.usage);
      if (choice?.finish_reason) turn.note(ending(choice.finish_reason, chunk.foredraft.timings?.tokens_per_second));
    }
  } catch (thrown) {
    if (!abort.signal.aborted) complain(thrown);
    // Nothing answers any more after these. Another model may have been loaded meanwhile.
    const gone = ["device_lost", "worker_failed"].includes(ForedraftError.from(thrown, "worker_failed").code);
    if (gone && engine === asked) unload();
  } finally {
    turn.busy(false);
    answering = undefined;
    // What was said so far is part of the conversation; a question without an answer is not.
    if (messages === conversation) messages = answer === "" ? conversation.slice(0, -1) : [...conversation, { role: "assistant", content: answer }];
    refresh();
  }
  prompt.focus();
}

function ending(reason: string, tokensPerSecond: number | undefined): string {
  const why = { stop: "", length: "most tokens reached", abort: "stopped" }[reason] ?? reason;
  const speed = tokensPerSecond === undefined ? "" : `${tokensPerSecond.toFixed(1)} tokens/s`;
  return [speed, why].filter(Boolean).join(" · ");
}

/** A drop zone and its file input; gives the function that takes a file for it. */
function fileField(which: "model" | "draft"): (file: File | undefined) => void {
  const zone = byId(`${which}-drop`, HTMLElement);
  const field = input(`${which}-file`);
  const take = (file: File | undefined) => {
    models[which] = file;
    const label = byId(`${which}-file-name`, HTMLElement);
    label.textContent = file ? `${file.name} (${(file.size / 1e6).toFixed(1)} MB)` : "or drop a file here";
    if (file) input(`${which}-url`).value = "";
  };
  field.addEventListener("change", () => take(field.files?.[0]));
  // An address typed later is meant instead of the file.
  input(`${which}-url`).addEventListener("input", () => {
    field.value = "";
    take(undefined);
  });
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    const file = event.dataTransfer?.files[0];
    if (file) take(file);
  });
  return take;
}

/** A file dropped beside the zones is the model: the browser would leave the page to show it. */
function dropAnywhere(take: (file: File) => void): void {
  const bringsFile = (event: DragEvent) => !event.defaultPrevented && event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (bringsFile(event)) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    if (!bringsFile(event)) return;
    event.preventDefault();
    const file = event.dataTransfer?.files[0];
    if (file) take(file);
  });
}

/** `?model=…&draft=…&device=…&speculation=…&context=…&max_tokens=…&prompt=…` fills in the fields; nothing loads by itself. */
function fillFromAddress(): void {
  const given = new URLSearchParams(location.search);
  const fields = { model: "model-url", draft: "draft-url", context: "context", max_tokens: "max-tokens", temperature: "temperature", seed: "seed" };
  for (const [name, id] of Object.entries(fields)) {
    const value = given.get(name);
    if (value !== null) input(id).value = value;
  }
  if (given.has("draft")) byId("draft", HTMLDetailsElement).open = true;
  const wanted = given.get("device");
  if (wanted === "gpu" || wanted === "cpu") device.value = wanted;
  const mode = given.get("speculation");
  const radio = speculation.find(({ value }) => value === mode || value.startsWith(`drafter=${mode},`));
  // To draft by a model is open once there is one; loading without it goes back to the default.
  if (radio?.disabled) radio.disabled = !given.get("draft");
  if (radio && !radio.disabled) radio.checked = true;
  prompt.value = given.get("prompt") ?? "";
}

byId("load-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  if (!loading) void load();
});
byId("chat-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  void send();
});
button("cancel-load").addEventListener("click", () => loading?.abort());
button("unload").addEventListener("click", unload);
button("new-chat").addEventListener("click", newChat);
button("stop").addEventListener("click", () => answering?.abort());
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    void send();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") answering?.abort();
});
dropAnywhere(fileField("model"));
fileField("draft");
fillFromAddress();
refresh();
