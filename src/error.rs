//! The one error type. Every variant names the thing, what was found and what was expected.

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, typed; [`Error::code`] is stable and is what JavaScript sees.
#[derive(Debug, Clone, thiserror::Error, serde::Serialize)]
#[non_exhaustive]
pub enum Error {
    /// A file or argument could not be opened, read or written.
    #[error("{what}: {reason}")]
    Io {
        /// The file or stream.
        what: String,
        /// The system's reason.
        reason: String,
    },
    /// The disk or the browser's quota is full; what was downloaded is kept and resumed.
    #[error(
        "{what}: no space left; {needed_bytes} bytes are needed. Free some and run again: what was downloaded is kept"
    )]
    StorageFull {
        /// The file being written.
        what: String,
        /// Bytes still to be written.
        needed_bytes: u64,
    },
    /// A download failed or broke off; what arrived is kept.
    #[error("{url}: {reason} ({received_bytes} bytes arrived and are kept; run again to resume)")]
    Download {
        /// What was fetched.
        url: String,
        /// Why it stopped.
        reason: String,
        /// Bytes that are safe on disk.
        received_bytes: u64,
    },
    /// No source of a catalog model could be reached.
    #[error("model {model}: no source could be reached: {reasons}")]
    NoSource {
        /// Catalog name.
        model: String,
        /// One reason per source, joined.
        reasons: String,
    },
    /// The bytes are not the ones that were pinned.
    #[error("{what}: SHA-256 is {found}, expected {expected}")]
    HashMismatch {
        /// The file.
        what: String,
        /// Hash of what arrived.
        found: String,
        /// Pinned hash.
        expected: String,
    },
    /// A model name that is neither in the catalog nor a path nor a URL.
    #[error("unknown model {name}: expected one of {known}, a path to a .gguf file, hf:owner/repo/file.gguf or a URL")]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// Names in the catalog, joined.
        known: String,
    },
    /// The file is not GGUF at all.
    #[error("{what}: not a GGUF file: it starts with {found}, expected \"GGUF\"")]
    NotGguf {
        /// The file.
        what: String,
        /// The first bytes, printable.
        found: String,
    },
    /// The file ends before what its header promises.
    #[error("{what}: truncated: {needed} needs bytes up to {needed_bytes}, the file has {found_bytes}")]
    Truncated {
        /// The file.
        what: String,
        /// The part that does not fit.
        needed: String,
        /// End of that part.
        needed_bytes: u64,
        /// Length of the file.
        found_bytes: u64,
    },
    /// A count, length or value in the file's header that cannot be right.
    #[error("{what}: {field} is {found}, expected {expected}")]
    BadHeader {
        /// The file.
        what: String,
        /// The field or metadata key.
        field: String,
        /// What it holds.
        found: String,
        /// What it may hold.
        expected: String,
    },
    /// The architecture is not one the decoder knows.
    #[error("unsupported architecture \"{found}\", expected one of {supported}")]
    UnsupportedArchitecture {
        /// `general.architecture`.
        found: String,
        /// The ones that are known, joined.
        supported: String,
    },
    /// The block format of a tensor is not one the kernels know.
    #[error("tensor {tensor}: unsupported block format {found}, expected one of {supported}")]
    UnsupportedFormat {
        /// Tensor name.
        tensor: String,
        /// ggml's name of the format, or its number.
        found: String,
        /// The ones that are known, joined.
        supported: String,
    },
    /// A tensor that the architecture needs is not in the file.
    #[error("tensor {tensor} is missing (expected shape {expected})")]
    MissingTensor {
        /// Tensor name.
        tensor: String,
        /// Its shape, slowest dimension first.
        expected: String,
    },
    /// A tensor has another shape than its model says.
    #[error("tensor {tensor} has shape {found}, expected {expected}")]
    TensorShape {
        /// Tensor name.
        tensor: String,
        /// Shape in the file.
        found: String,
        /// Shape by the model's metadata.
        expected: String,
    },
    /// The tokenizer in the file cannot be built or used.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// What is wrong.
        reason: String,
    },
    /// The chat template cannot be compiled or rendered, or ran out of its budget.
    #[error("chat template: {reason}")]
    Template {
        /// What is wrong, with the line where known.
        reason: String,
    },
    /// The JSON schema of an answer is none, says what cannot be kept, or takes more than it may.
    #[error(
        "the JSON schema cannot be used: {reason}; leave out or simplify what it names (json_object asks for any object)"
    )]
    Schema {
        /// What is wrong.
        reason: String,
    },
    /// There is nothing to continue.
    #[error("the prompt is empty: expected at least one token")]
    EmptyPrompt,
    /// The prompt does not fit.
    #[error(
        "the prompt is {prompt_tokens} tokens long and the context holds {context_tokens}; shorten it or load with a larger context"
    )]
    PromptTooLong {
        /// Tokens in the prompt.
        prompt_tokens: usize,
        /// Tokens that the context holds.
        context_tokens: usize,
    },
    /// An option has a value it cannot have.
    #[error("{name} is {found}, expected {expected}")]
    BadOption {
        /// Name as the caller wrote it.
        name: String,
        /// Value found.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// Parts of speculation that together would not keep what the acceptance rule promises.
    #[error("{combination} would not be exact: {reason}; {remedy}")]
    Inexact {
        /// The parts, as they are configured.
        combination: String,
        /// Why.
        reason: String,
        /// What to choose instead.
        remedy: String,
    },
    /// The draft model cannot draft for this target.
    #[error("the draft model has another vocabulary than the target: {difference}; use a draft of the same family")]
    VocabularyMismatch {
        /// The first difference, with both values.
        difference: String,
    },
    /// The model will not fit on the device.
    #[error("the model does not fit on {device}: {plan}")]
    OutOfMemory {
        /// The device.
        device: String,
        /// The memory plan with its numbers.
        plan: String,
    },
    /// No adapter of the kind that was asked for.
    #[error("no GPU adapter: {reason}")]
    NoAdapter {
        /// What was looked for and found.
        reason: String,
    },
    /// A kernel does not compute what its CPU twin computes on this device.
    #[error("self-test of {kernel} failed on {device}: {reason}")]
    SelfTest {
        /// Kernel name.
        kernel: String,
        /// Device.
        device: String,
        /// Difference.
        reason: String,
    },
    /// The device went away; a new load works.
    #[error("the GPU device was lost: {reason}; load the model again to go on (in JavaScript engine.recover() does)")]
    DeviceLost {
        /// What the driver said.
        reason: String,
    },
    /// The GPU refused some work: a bug of ours or of the driver.
    #[error("GPU: {reason}")]
    Gpu {
        /// What it said.
        reason: String,
    },
    /// A bench found another text than plain decoding gives.
    #[error(
        "{config} must give the tokens of plain decoding and does not: token {at} of the answer to {prompt} is {}, plain decoding gives {} ({runs} runs differ)",
        found.map_or("the end".to_owned(), |token| token.to_string()),
        plain.map_or("the end".to_owned(), |token| token.to_string())
    )]
    Mismatch {
        /// The configuration.
        config: String,
        /// The prompt.
        prompt: String,
        /// Index of the first different token.
        at: usize,
        /// Token of plain decoding; `None` is the end.
        plain: Option<u32>,
        /// Token found.
        found: Option<u32>,
        /// Runs that differ.
        runs: usize,
    },
    /// Another request is running on the same engine.
    #[error("another generation is running on this engine; finish or drop it first")]
    Busy,
    /// The caller aborted.
    #[error("aborted by the caller")]
    Aborted,
}

impl Error {
    /// The fields of the variant by name, for programs.
    pub fn details(&self) -> serde_json::Value {
        // A variant with fields is an object of one key, its name; one without fields is a string.
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(variant)) => variant.into_iter().next().map(|(_, fields)| fields),
            _ => None,
        }
        .unwrap_or_else(|| serde_json::json!({}))
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Io { .. } => "io",
            Error::StorageFull { .. } => "storage_full",
            Error::Download { .. } => "download_failed",
            Error::NoSource { .. } => "no_source",
            Error::HashMismatch { .. } => "checksum_mismatch",
            Error::UnknownModel { .. } => "unknown_model",
            Error::NotGguf { .. } => "not_gguf",
            Error::Truncated { .. } => "truncated",
            Error::BadHeader { .. } => "bad_header",
            Error::UnsupportedArchitecture { .. } => "unsupported_architecture",
            Error::UnsupportedFormat { .. } => "unsupported_format",
            Error::MissingTensor { .. } => "missing_tensor",
            Error::TensorShape { .. } => "tensor_shape",
            Error::Tokenizer { .. } => "tokenizer",
            Error::Template { .. } => "template",
            Error::Schema { .. } => "schema",
            Error::EmptyPrompt => "empty_prompt",
            Error::PromptTooLong { .. } => "prompt_too_long",
            Error::BadOption { .. } => "bad_option",
            Error::Inexact { .. } => "inexact_speculation",
            Error::VocabularyMismatch { .. } => "vocabulary_mismatch",
            Error::OutOfMemory { .. } => "out_of_memory",
            Error::NoAdapter { .. } => "no_adapter",
            Error::SelfTest { .. } => "self_test_failed",
            Error::DeviceLost { .. } => "device_lost",
            Error::Gpu { .. } => "gpu",
            Error::Mismatch { .. } => "mismatch",
            Error::Busy => "busy",
            Error::Aborted => "aborted",
        }
    }
}
