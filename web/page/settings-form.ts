/** The settings as a dialog, made from their table. */
import { forget } from "../src/index.js";
import { button, byId, make, part } from "./dom.js";
import { complain } from "./problems.js";
import type { Session } from "./session.js";
import { BY_DRAFT_MODEL, FIELDS, type Field, type Key, type Option, type Settings } from "./settings.js";

const GROUPS: readonly { title: string; keys: readonly Key[]; note?: string }[] = [
  {
    title: "Custom guessing",
    keys: ["drafters", "length", "num_speculative_tokens", "accept"],
    note: "Used where guessing ahead is set to Custom. What is written can only change by which guesses are kept.",
  },
  {
    title: "Answers",
    keys: ["max_tokens", "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed", "context_overflow"],
  },
  {
    title: "Running the model",
    keys: ["device", "arithmetic", "context", "remember"],
    note: "Takes effect when a model is loaded.",
  },
];

/** Shows a value in its control. */
type Show = (value: unknown) => void;

/** Fills the dialog and keeps it and the settings in step. */
export function startSettings(settings: Settings, session: Session): void {
  const dialog = byId("settings", HTMLDialogElement);
  const shows = new Map<Key, Show>();
  for (const { title, keys, note } of GROUPS) {
    const group = make("fieldset", {}, make("legend", {}, title));
    if (note) group.append(make("p", { class: "hint" }, note));
    const grid = make("div", { class: "settings-grid" });
    for (const key of keys) {
      const { node, show } = control(key, FIELDS[key], settings);
      grid.append(node);
      shows.set(key, show);
    }
    group.append(grid);
    part("settings-fields").append(group);
  }
  shows.set("guessing", guessing(settings));
  const refresh = () => {
    const { values } = settings;
    for (const [key, show] of shows) show(values[key]);
  };
  settings.onChange(refresh);
  refresh();
  button("open-settings").addEventListener("click", () => dialog.showModal());
  button("close-settings").addEventListener("click", () => dialog.close());
  button("forget").addEventListener("click", () => void forgetAll(session));
  button("reset-settings").addEventListener("click", () => settings.reset());
  // A press outside the dialog is on its backdrop, which is the dialog itself.
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}

/** Forgets what answers have taught, in the engine and in what is kept. */
async function forgetAll({ engine }: Session): Promise<void> {
  try {
    await Promise.all([forget(), engine?.forget()]);
    button("forget").textContent = "Forgotten";
    setTimeout(() => (button("forget").textContent = "Forget what was learned"), 2000);
  } catch (thrown) {
    complain(thrown);
  }
}

/** The switch beside the conversation. */
function guessing(settings: Settings): Show {
  const radios = [...document.querySelectorAll<HTMLInputElement>('input[name="speculation"]')];
  for (const radio of radios) radio.addEventListener("change", () => settings.set("guessing", radio.value));
  return (value) => {
    for (const radio of radios) radio.checked = radio.value === value;
    const about = FIELDS.guessing.options.find((option) => option.value === value)?.about ?? "";
    part("guessing-about").textContent = about;
  };
}

function control(key: Key, field: Field, settings: Settings): { node: HTMLElement; show: Show } {
  switch (field.kind) {
    case "several":
      return several(key, field.options, field.label, settings);
    case "choice":
      return choice(key, field, field.options, settings);
    default:
      return number(key, field, settings);
  }
}

const help = (key: Key, text: string) => make("p", { class: "hint", id: `help-${key}` }, text);

function number(
  key: Key,
  field: Field & { min: number; max: number; step?: number },
  settings: Settings,
): { node: HTMLElement; show: Show } {
  const optional = field.kind === "optional";
  const input = make("input", {
    id: key,
    type: "number",
    inputmode: "decimal",
    min: String(field.min),
    max: String(field.max),
    step: String(field.step ?? 1),
    ...(optional && { placeholder: "automatic" }),
    ...(field.help && { "aria-describedby": `help-${key}` }),
  });
  input.addEventListener("change", () => {
    // Letters in a number field read as an empty text: that is no wish for "automatic".
    const accepted = !input.validity.badInput && settings.set(key, input.value);
    input.setAttribute("aria-invalid", String(!accepted));
  });
  const node = make("div", { class: "field" }, make("label", { for: key }, field.label), input);
  if (field.help) node.append(help(key, field.help));
  const show: Show = (value) => {
    input.value = value === null ? "" : String(value);
    input.setAttribute("aria-invalid", "false");
  };
  return { node, show };
}

function choice(key: Key, field: Field, options: readonly Option[], settings: Settings): { node: HTMLElement; show: Show } {
  const select = make("select", { id: key, "aria-describedby": `help-${key}` });
  select.append(...options.map(({ value, label }) => make("option", { value }, label)));
  select.addEventListener("change", () => settings.set(key, select.value));
  const about = help(key, "");
  const node = make("div", { class: "field" }, make("label", { for: key }, field.label), select, about);
  const show: Show = (value) => {
    select.value = String(value);
    const of = options.find((option) => option.value === value)?.about ?? "";
    about.textContent = [capital(of), field.help].filter(Boolean).join(" ");
  };
  return { node, show };
}

function several(key: Key, options: readonly Option[], label: string, settings: Settings): { node: HTMLElement; show: Show } {
  const list = make("div", { class: "checks" });
  const boxes = options.map(({ value, about }) => {
    const box = make("input", { type: "checkbox", value });
    const needs = BY_DRAFT_MODEL.includes(value) ? " Needs a draft model." : "";
    list.append(
      make("label", { class: "check" }, box, make("span", {}, make("strong", {}, value), ` ${capital(about ?? "")}${needs}`)),
    );
    return box;
  });
  list.addEventListener("change", () => {
    const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
    // The last one stays: to guess nothing there is Off.
    if (!settings.set(key, chosen.join("+"))) show(settings.values[key]);
  });
  const show: Show = (value) => {
    for (const box of boxes) box.checked = Array.isArray(value) && value.includes(box.value);
  };
  const node = make(
    "div",
    { class: "field wide", role: "group", "aria-label": label },
    make("span", { class: "label" }, label),
    list,
  );
  return { node, show };
}

/** A sentence of a phrase. */
function capital(text: string): string {
  if (text === "") return "";
  return `${text[0]!.toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`;
}
