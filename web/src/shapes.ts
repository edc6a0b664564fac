/** How answers look: OpenAI's two kinds of completion, whole and in chunks. */
import type {
  ChatCompletion,
  ChatCompletionChunk,
  ChatLogprobs,
  ChunkExtra,
  Completion,
  CompletionChunk,
  CompletionLogprobs,
  FinishReason,
  RejectedPiece,
  TokenLogprob,
  ToolCall,
} from "./openai.js";
import type { Summary, WireLogprob, WirePiece } from "./protocol.js";

/** What all chunks of an answer share. */
export interface AnswerHead {
  id: string;
  created: number;
  model: string;
  system_fingerprint?: string;
}

/** A piece of an answer. */
export interface Piece {
  text: string;
  tokens: WirePiece[];
  rejected?: RejectedPiece[];
  calls?: ToolCall[];
  /** Length of the text before it. */
  offset: number;
  first?: boolean;
  finish?: FinishReason;
  summary?: Summary;
}

/** How one kind of completion looks. */
export interface Shape<Chunk, Answer> {
  chunk(head: AnswerHead, piece: Piece): Chunk;
  usage(head: AnswerHead, summary: Summary): Chunk;
  answer(head: AnswerHead, piece: Piece & { finish: FinishReason; summary: Summary }): Answer;
}

const plain = (tokens: WirePiece[]) => tokens.map(({ logprob: _, ...piece }) => piece);
const figures = ({ timings, speculation, device, dropped_messages, redrawn_tokens }: Summary) => ({
  timings,
  speculation,
  device,
  dropped_messages,
  redrawn_tokens,
});
const extra = ({ tokens, rejected, summary }: Piece): ChunkExtra => ({
  tokens: plain(tokens),
  ...(rejected && { rejected }),
  ...(summary && figures(summary)),
});
const likelihood = ({ token, logprob, bytes }: WireLogprob): TokenLogprob => ({ token, logprob, bytes });

/** The field itself, for a spread: absent where nothing was asked for. */
function chatLogprobs({ tokens }: Piece): { logprobs?: ChatLogprobs } {
  const told = tokens.flatMap(({ logprob }) => logprob ?? []);
  if (told.length === 0) return {};
  return {
    logprobs: { content: told.map(({ chosen, top }) => ({ ...likelihood(chosen), top_logprobs: top.map(likelihood) })) },
  };
}

function textLogprobs({ tokens, offset }: Piece): { logprobs?: CompletionLogprobs } {
  const logprobs: CompletionLogprobs = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
  for (const { text, logprob } of tokens) {
    if (!logprob) return {};
    logprobs.tokens.push(logprob.chosen.token);
    logprobs.token_logprobs.push(logprob.chosen.logprob);
    logprobs.top_logprobs.push(Object.fromEntries(logprob.top.map(({ token, logprob }) => [token, logprob])));
    logprobs.text_offset.push(offset);
    offset += text.length;
  }
  return tokens.length > 0 ? { logprobs } : {};
}

/** `chat.completions`. */
export const chatShape: Shape<ChatCompletionChunk, ChatCompletion> = {
  chunk: (head, piece) => {
    const calls = piece.calls?.map((call, index) => ({ index, ...call }));
    const delta = { ...(piece.text && { content: piece.text }), ...(calls?.length && { tool_calls: calls }) };
    return {
      ...head,
      object: "chat.completion.chunk",
      choices: [
        {
          index: 0,
          delta: { ...(piece.first && { role: "assistant" }), ...delta },
          ...chatLogprobs(piece),
          finish_reason: piece.finish ?? null,
        },
      ],
      foredraft: extra(piece),
    };
  },
  usage: (head, { usage }) => ({ ...head, object: "chat.completion.chunk", choices: [], usage, foredraft: { tokens: [] } }),
  answer: (head, piece) => {
    const { text, calls = [], summary, finish } = piece;
    const content = calls.length > 0 && text.trim() === "" ? null : text;
    const message = { role: "assistant" as const, content, ...(calls.length > 0 && { tool_calls: calls }) };
    return {
      ...head,
      object: "chat.completion",
      choices: [{ index: 0, message, ...chatLogprobs(piece), finish_reason: finish }],
      usage: summary.usage,
      timings: summary.timings,
      foredraft: { tokens: plain(piece.tokens), ...figures(summary) },
    };
  },
};

/** `completions`. */
export const textShape: Shape<CompletionChunk, Completion> = {
  chunk: (head, piece) => ({
    ...head,
    object: "text_completion",
    choices: [{ index: 0, text: piece.text, ...textLogprobs(piece), finish_reason: piece.finish ?? null }],
    foredraft: extra(piece),
  }),
  usage: (head, { usage }) => ({ ...head, object: "text_completion", choices: [], usage, foredraft: { tokens: [] } }),
  answer: (head, piece) => ({
    ...head,
    object: "text_completion",
    choices: [{ index: 0, text: piece.text, ...textLogprobs(piece), finish_reason: piece.finish }],
    usage: piece.summary.usage,
    timings: piece.summary.timings,
    foredraft: { tokens: plain(piece.tokens), ...figures(piece.summary) },
  }),
};
