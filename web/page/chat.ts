/** The conversation: asking, streaming, stopping, beginning anew. */
import type { ChatMessage, ChunkExtra, Usage } from "../src/index.js";
import { button, byId, input, part } from "./dom.js";
import { fixed } from "./format.js";
import type { LivePanel } from "./panel.js";
import { calm, complain } from "./problems.js";
import type { Session } from "./session.js";
import { sampling, speculation, type Settings } from "./settings.js";
import { Turn } from "./turn.js";

export function startChat(session: Session, settings: Settings, panel: LivePanel): void {
  const log = part("log");
  const welcome = part("welcome");
  const prompt = byId("prompt", HTMLTextAreaElement);
  let messages: ChatMessage[] = [];
  let answering = false;

  const refresh = () => {
    const { state } = session;
    prompt.disabled = !session.engine;
    prompt.placeholder = state === "lost" ? "Load the model again first" : session.engine ? "Write a message" : "Load a model first";
    button("send").disabled = state !== "ready";
    button("send").hidden = answering;
    button("stop").hidden = !answering;
    button("new-chat").hidden = messages.length === 0;
    welcome.hidden = messages.length > 0;
  };

  const newChat = () => {
    if (answering) session.stop();
    messages = [];
    log.replaceChildren(welcome);
    part("announcement").textContent = "";
    refresh();
  };

  const send = async () => {
    const text = prompt.value.trim();
    if (session.state !== "ready" || text === "") return;
    calm();
    const conversation = (messages = [...messages, { role: "user", content: text }]);
    prompt.value = "";
    part("announcement").textContent = "The model is answering.";
    const question = new Turn(log, "user", text);
    const turn = new Turn(log, "assistant");
    turn.busy(true);
    answering = true;
    panel.begin();
    let answer = "";
    try {
      await session.use(async (engine, signal) => {
        const { values } = settings;
        const stream = await engine.chat.completions.create({
          ...sampling(values),
          messages: conversation,
          context_overflow: values.context_overflow === "slide" ? "slide" : "error",
          stream: true,
          stream_options: { include_usage: true },
          speculation: speculation(values, session.hasDraft),
          signal,
        });
        let usage: Usage | undefined;
        for await (const chunk of stream) {
          const choice = chunk.choices[0];
          const piece = choice?.delta.content ?? "";
          answer += piece;
          turn.append(piece, chunk.foredraft.tokens, chunk.foredraft.rejected);
          usage = chunk.usage ?? usage;
          panel.chunk(chunk.foredraft, usage);
          if (choice?.finish_reason) turn.note(ending(choice.finish_reason, chunk.foredraft));
        }
      });
    } catch (thrown) {
      complain(thrown);
    } finally {
      turn.busy(false);
      answering = false;
      // What was said so far is part of the conversation; a question without an answer is not.
      if (messages === conversation) {
        messages = answer === "" ? conversation.slice(0, -1) : [...conversation, { role: "assistant", content: answer }];
        part("announcement").textContent = answer === "" ? "There is no answer." : `The model answered: ${answer}`;
        if (answer === "" && prompt.value === "") {
          // To be asked again, or otherwise.
          prompt.value = text;
          question.remove();
          turn.remove();
        } else if (answer === "") turn.note("no answer");
      }
      refresh();
    }
    // Unless the visitor has gone elsewhere meanwhile. What was pressed is hidden now.
    if (document.activeElement === document.body || document.activeElement === button("stop")) prompt.focus();
  };

  byId("chat-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    void send();
  });
  button("new-chat").addEventListener("click", () => {
    newChat();
    prompt.focus();
  });
  const stop = () => {
    if (answering) session.stop();
  };
  button("stop").addEventListener("click", stop);
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      void send();
    }
  });
  document.addEventListener("keydown", (event) => {
    // In the dialog it closes that.
    if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]")) stop();
  });
  const wrong = input("show-rejected");
  wrong.addEventListener("change", () => log.classList.toggle("with-rejected", wrong.checked));

  // Another model has read nothing of this conversation.
  let { engine } = session;
  session.onChange(() => {
    if (session.engine !== engine) {
      engine = session.engine;
      newChat();
      if (engine) prompt.focus();
      panel.show(engine);
    }
    refresh();
  });
  refresh();
}

function ending(reason: string, { timings, dropped_messages }: ChunkExtra): string {
  const why = { stop: "", length: "longest answer reached", abort: "stopped" }[reason] ?? reason;
  const speed = timings ? `${fixed(timings.tokens_per_second, 1)} tokens/s` : "";
  const dropped = dropped_messages ? `the oldest ${dropped_messages} messages no longer fit and were left out` : "";
  return [speed, why, dropped].filter(Boolean).join(" · ");
}
