/** What went wrong, in the words of the engine, and what can be done about it. */
import { ForedraftError } from "../src/index.js";
import { button, part } from "./dom.js";

const MODEL = "Choose another GGUF file of a supported model, such as one of the catalog.";
// True while it is loaded again, afterwards, and where that was given up.
const DEVICE = "Ask once more when the model has been loaded again. If it keeps happening, choose CPU in the settings.";

/** By `code`; what is missing here says all in its message. */
const ADVICE: Readonly<Record<string, string>> = {
  bad_header: MODEL,
  bad_option: "Correct the value and try again.",
  checksum_mismatch: "The file is not the one that was asked for. Download it again, or choose another source.",
  device_lost: DEVICE,
  download_failed: "Check the address and your connection. Or download the file yourself and drop it onto this page.",
  gpu: DEVICE,
  inexact_speculation: "Choose other methods in the settings, or set guessing to Auto.",
  mismatch: "Please report this with the model, browser and device: the two texts should never differ.",
  missing_tensor: MODEL,
  no_adapter: "Choose Automatic or CPU in the settings: it is slower, and works everywhere.",
  not_gguf: "Choose a file that ends in .gguf; other formats have to be converted first.",
  out_of_memory: "Set a shorter context in the settings, or choose a smaller model.",
  prompt_too_long: "Begin a new conversation, or set a longer context in the settings and load again.",
  quota_exceeded: "Free some space for this site in the browser's settings, or choose a smaller model.",
  self_test_failed: "This GPU or its driver computes wrongly. Choose CPU in the settings.",
  storage_busy: "Another tab loads this model: wait until it is done there.",
  storage_full: "Free some disk space, or choose a smaller model.",
  template: "This model has no usable chat template: choose one that was made for chat.",
  tensor_shape: MODEL,
  tokenizer: MODEL,
  truncated: "The file is not complete: download it again.",
  unloaded: "Load a model to go on.",
  unsupported_architecture: MODEL,
  unsupported_format: "Choose a file in Q4_0, Q4_1, Q5, Q8_0, K-quants, F16 or F32.",
  vocabulary_mismatch: "Choose a draft model of the same family, or none.",
  worker_failed: "Try once more when the model has been loaded again, or reload this page.",
};

/** Shows what was thrown, and what to do. */
export function complain(thrown: unknown): void {
  const error = ForedraftError.from(thrown, "worker_failed");
  const alert = part("alert");
  part("alert-message").textContent = error.message;
  part("alert-advice").textContent = ADVICE[error.code] ?? "";
  alert.dataset["code"] = error.code;
  alert.hidden = false;
}

/** Nothing is wrong any more. */
export function calm(): void {
  part("alert").hidden = true;
}

/** Whether an engine that threw this answers no more. */
export function isGone(thrown: unknown): boolean {
  return ["device_lost", "worker_failed"].includes(ForedraftError.from(thrown, "worker_failed").code);
}

export function startProblems(): void {
  button("alert-close").addEventListener("click", calm);
}
