/** One turn of a conversation, and the marks on its tokens: guessed and kept, or written instead of a wrong guess. */
import type { RejectedPiece, TokenPiece } from "../src/index.js";
import { make } from "./dom.js";

/** Text whose tokens show where they came from. */
export class MarkedText {
  readonly node = make("span", { class: "text" });

  /** Adds text; where its tokens spell it, they are marked. */
  append(text: string, tokens: readonly TokenPiece[], rejected: readonly RejectedPiece[] = []): void {
    let at = 0;
    for (const [index, token] of tokens.entries()) {
      // The guesses that were not kept stood in the place of the last token, which is the model's own.
      const instead = index === tokens.length - 1 && !token.accepted ? rejected : [];
      if (instead.length > 0) this.node.append(wrong(instead));
      // A token may be held back or cut by a stop string; what the text does not contain is not shown.
      if (token.text === "" || !text.startsWith(token.text, at)) continue;
      this.node.append(marked(token, instead));
      at += token.text.length;
    }
    this.node.append(text.slice(at));
  }
}

function marked(token: TokenPiece, instead: readonly RejectedPiece[]): Node | string {
  if (token.accepted) return make("mark", { class: "drafted", title: `guessed by ${token.source}, kept` }, token.text);
  const first = instead[0];
  if (!first) return token.text;
  return make(
    "span",
    { class: "corrected", title: `${first.source} guessed “${first.text.trim()}”, the model wrote this` },
    token.text,
  );
}

/** Guesses that were not kept; the style sheet shows them only where they are asked for. */
function wrong(pieces: readonly RejectedPiece[]): HTMLElement {
  return make("del", { class: "rejected" }, pieces.map((piece) => piece.text).join(""));
}

/** One turn of the conversation. */
export class Turn {
  private readonly root: HTMLElement;
  private readonly body = new MarkedText();

  constructor(
    private readonly log: HTMLElement,
    role: "user" | "assistant",
    text = "",
  ) {
    this.root = make(
      "div",
      { class: `turn ${role}` },
      make("span", { class: "who" }, role === "user" ? "You" : "Model"),
      this.body.node,
    );
    this.body.append(text, []);
    log.append(this.root);
    this.follow(true);
  }

  /** Takes it out of the conversation. */
  remove(): void {
    this.root.remove();
  }

  /** Marks the turn as being written. */
  busy(on: boolean): void {
    this.root.classList.toggle("busy", on);
    this.root.setAttribute("aria-busy", String(on));
  }

  /** Adds text and its tokens. */
  append(text: string, tokens: readonly TokenPiece[], rejected?: readonly RejectedPiece[]): void {
    const atEnd = this.atEnd();
    this.body.append(text, tokens, rejected);
    this.follow(atEnd);
  }

  /** A line of figures under the turn. */
  note(text: string): void {
    const atEnd = this.atEnd();
    this.root.append(make("span", { class: "note" }, text));
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
