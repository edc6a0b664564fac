/** The element with this id; the page is ours, so a missing one is a mistake in it. */
export function byId<T extends Element>(id: string, type: abstract new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`the page has no ${type.name} #${id}`);
  return found;
}

export const button = (id: string): HTMLButtonElement => byId(id, HTMLButtonElement);
export const input = (id: string): HTMLInputElement => byId(id, HTMLInputElement);
export const part = (id: string): HTMLElement => byId(id, HTMLElement);

/** A new element; text is only ever put in as text. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string>> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A bar of progress; without a share it only shows that something happens. */
export function progress(bar: HTMLProgressElement, share: number | undefined): void {
  if (share === undefined) bar.removeAttribute("value");
  else bar.value = share;
}

/** A link that downloads `text` as a file, instead of what it offered before. */
export function offer(link: HTMLAnchorElement, text: string, type: string): void {
  if (link.href.startsWith("blob:")) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([text], { type }));
}

/** Makes a button copy what `text` gives, and say so. */
export function copies(copy: HTMLButtonElement, text: () => string): void {
  const label = copy.textContent ?? "";
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Not allowed to copy";
    }
    setTimeout(() => (copy.textContent = label), 2000);
  });
}
