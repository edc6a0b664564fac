/** The conversation on the page: turns, and the marks on tokens that were drafted and accepted. */
import type { TokenPiece } from "../src/index.js";

function element<K extends keyof HTMLElementTagNameMap>(tag: K, className: string, text = ""): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

/** One turn of the conversation. */
export class Turn {
  private readonly root: HTMLElement;
  private readonly body = element("span", "text");

  constructor(
    private readonly log: HTMLElement,
    role: "user" | "assistant",
    text = "",
  ) {
    this.root = element("div", `turn ${role}`);
    this.body.textContent = text;
    this.root.append(element("span", "who", role === "user" ? "You" : "Model"), this.body);
    log.append(this.root);
    this.follow(true);
  }

  /** Marks the turn as being written; a screen reader waits for its end. */
  busy(on: boolean): void {
    this.root.classList.toggle("busy", on);
    this.root.setAttribute("aria-busy", String(on));
  }

  /** Adds text; where its tokens spell it, each drafted and accepted one is marked. */
  append(text: string, tokens: readonly TokenPiece[]): void {
    const atEnd = this.atEnd();
    let at = 0;
    for (const token of tokens) {
      // A token may be held back or cut by a stop string; what the text does not contain is not shown.
      if (token.text === "" || !text.startsWith(token.text, at)) continue;
      if (token.accepted) {
        const mark = element("mark", "drafted", token.text);
        mark.title = `drafted by ${token.source}, accepted`;
        this.body.append(mark);
      } else {
        this.body.append(token.text);
      }
      at += token.text.length;
    }
    this.body.append(text.slice(at));
    this.follow(atEnd);
  }

  /** A line of figures under the turn. */
  note(text: string): void {
    const atEnd = this.atEnd();
    this.root.append(element("span", "note", text));
    this.follow(atEnd);
  }

  private atEnd(): boolean {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
  }

  /** Keeps the end in view, unless the reader has scrolled away from it. */
  private follow(wasAtEnd: boolean): void {
    if (wasAtEnd) this.log.scrollTop = this.log.scrollHeight;
  }
}
