/** Tabs as the ARIA practices describe them: arrows move, the address remembers. */
import { part } from "./dom.js";

/** What `#NAME` of the address may be. */
const TABS = ["chat", "race", "bench", "compatibility"] as const;
export type Tab = (typeof TABS)[number];

const tab = (name: Tab) => part(`tab-${name}`);
const isTab = (name: string): name is Tab => TABS.some((known) => known === name);

/** Starts the tabs; `onShow` hears of each that comes into view. */
export function startTabs(onShow: (name: Tab) => void): void {
  const show = (shown: Tab) => {
    for (const name of TABS) {
      const selected = name === shown;
      tab(name).setAttribute("aria-selected", String(selected));
      tab(name).tabIndex = selected ? 0 : -1;
      part(`panel-${name}`).hidden = !selected;
    }
    document.body.dataset["tab"] = shown;
    onShow(shown);
  };
  const go = (name: Tab) => {
    // The query stays: it may name a model.
    history.replaceState(null, "", `${location.pathname}${location.search}#${name}`);
    show(name);
  };
  for (const [index, name] of TABS.entries()) {
    tab(name).addEventListener("click", () => go(name));
    tab(name).addEventListener("keydown", (event) => {
      const to = { ArrowRight: index + 1, ArrowLeft: index - 1 + TABS.length, Home: 0, End: TABS.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = TABS[to % TABS.length]!;
      go(next);
      tab(next).focus();
    });
  }
  const fromAddress = () => {
    const name = location.hash.slice(1);
    if (isTab(name)) show(name);
  };
  addEventListener("hashchange", fromAddress);
  show("chat");
  fromAddress();
}
