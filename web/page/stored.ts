/** The models that are kept on this device, and how to be rid of them. */
import { storage, type StoredModel } from "../src/index.js";
import { make, part } from "./dom.js";
import { size } from "./format.js";
import { complain } from "./problems.js";

/** Shows those that are there now. */
export async function showStored(): Promise<void> {
  try {
    const models = await storage.list();
    part("stored-rows").replaceChildren(...models.map(row));
    part("stored").hidden = models.length === 0;
  } catch (thrown) {
    complain(thrown);
  }
}

function row({ url, stored_bytes, size_bytes, complete }: StoredModel): HTMLElement {
  const name = nameOf(url);
  const much = complete
    ? size(stored_bytes)
    : `${size(stored_bytes)} of ${size_bytes === null ? "an unknown length" : size(size_bytes)}`;
  const remove = make("button", { class: "plain", type: "button", "aria-label": `Delete ${name}` }, "Delete");
  remove.addEventListener("click", async () => {
    try {
      await storage.delete(url);
    } catch (thrown) {
      complain(thrown);
    }
    await showStored();
  });
  const about = make(
    "span",
    {},
    make("strong", {}, name),
    make("span", { class: "hint" }, `${much}, from ${new URL(url).host}`),
  );
  return make("li", {}, about, remove);
}

/** The file's name, as it is where its escapes are no text. */
function nameOf(url: string): string {
  const name = new URL(url).pathname.split("/").at(-1) || url;
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}
