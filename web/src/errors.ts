/** The one error type of the package. */

/**
 * Stable names for programs. Those of the engine are listed in the Rust crate's `Error::code`; these are the ones that
 * JavaScript code is most likely to act on.
 */
export type ErrorCode =
  | "aborted"
  | "bad_header"
  | "bad_option"
  | "checksum_mismatch"
  | "device_lost"
  | "download_failed"
  | "empty_prompt"
  | "gpu"
  | "io"
  | "missing_tensor"
  | "no_adapter"
  | "not_gguf"
  | "out_of_memory"
  | "prompt_too_long"
  | "quota_exceeded"
  | "schema"
  | "self_test_failed"
  | "storage_busy"
  | "storage_unavailable"
  | "template"
  | "tensor_shape"
  | "tokenizer"
  | "truncated"
  | "unloaded"
  | "unsupported_architecture"
  | "unsupported_format"
  | "vocabulary_mismatch"
  | "worker_failed"
  | (string & {});

/** Facts about an error, by name: the URL, the number found, the number expected. */
export type ErrorDetails = Readonly<Record<string, unknown>>;

/** An error as it crosses between threads. */
export interface WireError {
  code: ErrorCode;
  message: string;
  details: ErrorDetails;
}

/** What a thrown value says. */
export function reasonOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** Everything that this package throws: a stable `code`, a sentence that a user can act on, and `details`. */
export class ForedraftError extends Error {
  override readonly name = "ForedraftError";
  /** Stable name of the kind of error. */
  readonly code: ErrorCode;
  /** Facts about it, by name. */
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.details = details;
  }

  /** The error as a plain object that a message can carry. */
  toWire(): WireError {
    return { code: this.code, message: this.message, details: this.details };
  }

  /** The error that another thread sent. */
  static fromWire(wire: WireError): ForedraftError {
    return new ForedraftError(wire.code, wire.message, wire.details);
  }

  /** Whatever was thrown, as a `ForedraftError`; what carries no code of ours becomes `fallback`. */
  static from(thrown: unknown, fallback: ErrorCode): ForedraftError {
    if (thrown instanceof ForedraftError) return thrown;
    if (thrown instanceof Error) {
      const code: unknown = Reflect.get(thrown, "code");
      const details: unknown = Reflect.get(thrown, "details");
      return new ForedraftError(
        typeof code === "string" ? code : fallback,
        thrown.message,
        typeof details === "object" && details !== null ? { ...details } : {},
        { cause: thrown },
      );
    }
    return new ForedraftError(fallback, String(thrown));
  }

  /** The error for a signal that fired; its reason is the `cause`. */
  static aborted(signal?: AbortSignal): ForedraftError {
    return new ForedraftError("aborted", "aborted by the caller", {}, { cause: signal?.reason });
  }
}
