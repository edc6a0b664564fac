/** Choosing a model, from the catalog, by its address or as a file, and loading it. */
import { ForedraftError, storage, type LoadOptions, type ModelSource } from "../src/index.js";
import catalog from "./catalog.json";
import { button, byId, input, make, part, progress } from "./dom.js";
import { deviceText, size } from "./format.js";
import { calm, complain } from "./problems.js";
import type { Session } from "./session.js";
import { loading, type Settings } from "./settings.js";

type Which = "model" | "draft";

const files: Record<Which, File | undefined> = { model: undefined, draft: undefined };

const radios = () => [...document.querySelectorAll<HTMLInputElement>('input[name="source"]')];

/** Makes the source whose radio has this value the one that is loaded. */
function choose(value: string): void {
  for (const radio of radios()) radio.checked = radio.value === value;
}

/** The model that the form names; undefined where it names none. */
function chosen(): ModelSource | undefined {
  const source = radios().find((radio) => radio.checked)?.value;
  const address = input("model-url").value.trim();
  if (source === "file") return files.model;
  if (source === "url") return address === "" ? undefined : address;
  const entry = catalog.find(({ name }) => name === source);
  return entry && { url: entry.url, sha256: entry.sha256 };
}

function draft(): ModelSource | undefined {
  const address = input("draft-url").value.trim();
  return files.draft ?? (address === "" ? undefined : address);
}

/** The models that have a name, as radios. */
function listCatalog(): void {
  const rows = catalog.map(({ name, bytes, licence }, index) => {
    const radio = make("input", { type: "radio", name: "source", value: name });
    radio.checked = index === 0;
    const about = make("span", { class: "hint", id: `about-${name}` }, `${size(bytes)} to download · ${licence}`);
    return make("label", { class: "choice" }, radio, make("span", {}, make("strong", {}, name), about));
  });
  part("catalog").append(...rows);
}

/** Says of each of them whether it has to be downloaded. */
async function tellStored(): Promise<void> {
  const stored = await storage.list().catch(() => []);
  for (const { name, url, bytes, licence } of catalog) {
    const here = stored.some((model) => model.url === url && model.complete);
    part(`about-${name}`).textContent = `${size(bytes)} ${here ? "on this device" : "to download"} · ${licence}`;
  }
}

/** A drop zone and its file input; gives the function that takes a file for it. */
function fileField(which: Which): (file: File | undefined) => void {
  const zone = part(`${which}-drop`);
  const field = input(`${which}-file`);
  const label = part(`${which}-file-name`);
  const empty = label.textContent;
  const take = (file: File | undefined) => {
    files[which] = file;
    label.textContent = file ? `${file.name} (${size(file.size)})` : empty;
    if (file && which === "model") choose("file");
    if (file && which === "draft") input("draft-url").value = "";
  };
  field.addEventListener("change", () => take(field.files?.[0]));
  // An address typed later is meant instead of the file.
  input(`${which}-url`).addEventListener("input", () => {
    if (which === "model") return choose("url");
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

/** Starts the part of the page that loads models; gives the function that loads the chosen one. */
export function startModel(session: Session, settings: Settings, address: URLSearchParams): () => Promise<boolean> {
  let open = true;
  /** What the visitor chose it by, where that is a name. */
  let name: string | undefined;
  const bar = byId("load-progress", HTMLProgressElement);

  /** Shows what can be done in the present state, and only that. */
  const refresh = () => {
    const { state, engine } = session;
    const loads = state === "loading";
    // A load begins with no news.
    if (loads && part("load-state").hidden) {
      progress(bar, undefined);
      part("load-text").textContent = "Starting";
    }
    part("model-choice").hidden = !open || loads;
    part("load-state").hidden = !loads;
    part("model-loaded").hidden = !engine;
    document.body.dataset["model"] = engine ? "loaded" : "none";
    button("load").disabled = state === "busy";
    button("change").textContent = open ? "Keep this one" : "Change";
    button("change").setAttribute("aria-expanded", String(open));
    button("change").disabled = button("unload").disabled = state === "busy";
    const lost = state === "lost";
    button("recover").hidden = !lost;
    part("model-loaded").classList.toggle("lost", lost);
    if (engine) {
      part("badge").textContent = `${name ?? engine.model} · ${lost ? "no longer running" : deviceText(engine.device)}`;
      part("badge").title = engine.model;
    }
    if (open && !loads) void tellStored();
  };

  const load = async (): Promise<boolean> => {
    const model = chosen();
    const draftModel = draft();
    calm();
    if (model === undefined) {
      complain(
        new ForedraftError("bad_option", "No model is chosen yet: take one of the catalog, give an address or choose a file."),
      );
      return false;
    }
    const options: LoadOptions = { model, ...loading(settings.values), ...(draftModel !== undefined && { draftModel }) };
    const source = radios().find((radio) => radio.checked)?.value;
    name = catalog.find((entry) => entry.name === source)?.name;
    try {
      open = !(await session.load(options));
    } catch (thrown) {
      open = true;
      complain(thrown);
    }
    refresh();
    return session.state === "ready";
  };

  const recover = async () => {
    calm();
    const done = session.recover();
    // The button that was pressed is hidden now, and the focus would go with it.
    const cancel = button("cancel-load");
    cancel.focus();
    try {
      await done;
    } catch (thrown) {
      complain(thrown);
    }
    // Unless the visitor has gone elsewhere meanwhile.
    if (document.activeElement !== cancel && document.activeElement !== document.body) return;
    (session.state === "lost" ? button("recover") : part("prompt")).focus();
  };

  let announced = "";
  session.onProgress = ({ stage, loaded, total, progress: share, text }) => {
    progress(bar, total > 0 ? share : undefined);
    const bytes = total > 0 ? `${size(loaded)} of ${size(total)}` : undefined;
    const told: Readonly<Record<string, string>> = {
      device: "Preparing the device",
      costs: "Measuring the device",
      storage: text,
      waiting: `Another tab downloads this model${bytes ? `: ${bytes}` : ""}`,
    };
    part("load-text").textContent = told[stage] ?? bytes ?? "Reading the model";
    // Bytes change many times a second: that is not for who listens.
    if (stage !== announced) part("load-announcement").textContent = told[stage] ?? "Reading the model";
    announced = stage;
  };
  listCatalog();
  dropAnywhere(fileField("model"));
  fileField("draft");
  const model = address.get("model");
  if (model !== null) {
    input("model-url").value = model;
    choose("url");
  }
  const draftUrl = address.get("draft");
  if (draftUrl !== null) {
    input("draft-url").value = draftUrl;
    byId("draft", HTMLDetailsElement).open = true;
  }
  byId("load-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    void load();
  });
  button("recover").addEventListener("click", () => void recover());
  button("cancel-load").addEventListener("click", () => session.cancelLoad());
  button("change").addEventListener("click", () => {
    open = !open;
    refresh();
  });
  button("unload").addEventListener("click", () => {
    open = true;
    session.unload();
    input("model-url").focus();
  });
  session.onChange(() => {
    if (session.state === "empty") open = true;
    refresh();
  });
  refresh();
  return load;
}
