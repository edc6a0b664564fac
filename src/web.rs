//! The wasm-bindgen surface, for `web/src/host.ts` in a dedicated worker. Options, events and reports cross as JSON, in the
//! shapes of the command line's `--json`; exports take `&self` and hold no borrow across an await.

mod grammar;

use crate::bench::{self, Arm, Suite};
use crate::device::DeviceChoice;
use crate::engine::{self, LoadOptions};
use crate::error::{Error, Result};
use crate::generation::{self, CancelHandle, ContextOverflow, Prompt, Request};
use crate::gpu::{AdapterChoice, GpuExecutor};
use crate::plan::Arithmetic;
use crate::plan::Executor;
use crate::probe::ProbeOptions;
use crate::runtime::now_ms;
use crate::sampling::SamplingParams;
use crate::speculate::SpeculationConfig;
use crate::speculate::drafters::suffix_store::STORE_TOKENS;
use crate::store::web::{JsByteSource, JsSource};
use crate::store::{ByteSource, hex};
use grammar::JsVocabulary;
use serde::Deserialize;
use serde_json::json;
use sha2::Digest;
use std::cell::RefCell;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

/// Panics show in the console with their place.
#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}

/// An error as JavaScript sees it: an `Error` with a stable `code` and, in `details`, the fields of its variant.
fn thrown(error: Error) -> JsValue {
    let object = js_sys::Error::new(&error.to_string());
    let set = |name: &str, value: &JsValue| {
        // Setting a property of a fresh object cannot fail.
        let _ = js_sys::Reflect::set(&object, &name.into(), value);
    };
    set("code", &error.code().into());
    if let Ok(details) = js_sys::JSON::parse(&error.details().to_string()) {
        set("details", &details);
    }
    object.into()
}

fn parse<'a, T: Deserialize<'a>>(what: &str, json: &'a str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| Error::BadOption {
        name: what.to_owned(),
        found: error.to_string(),
        expected: "the options of the documentation".to_owned(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebLoadOptions {
    #[serde(default)]
    device: DeviceChoice,
    arithmetic: Option<Arithmetic>,
    context: Option<usize>,
    speculation: Option<SpeculationConfig>,
    remembered_tokens: Option<usize>,
    /// Of an earlier load, as it was kept.
    known_cuts: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebRequest {
    messages: Option<serde_json::Value>,
    prompt: Option<String>,
    tools: Option<serde_json::Value>,
    /// As JSON.
    schema: Option<String>,
    #[serde(default)]
    context_overflow: ContextOverflow,
    logprobs: Option<usize>,
    max_tokens: Option<usize>,
    #[serde(default)]
    sampling: SamplingParams,
    #[serde(default)]
    stop: Vec<String>,
    speculation: Option<SpeculationConfig>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WebBench {
    speculation: Vec<String>,
    per_category: Option<usize>,
    max_tokens: Option<usize>,
    repeats: usize,
}

impl Default for WebBench {
    fn default() -> WebBench {
        WebBench { speculation: vec!["auto".to_owned()], per_category: None, max_tokens: None, repeats: 1 }
    }
}

/// What a load would find, by the headers of its models: JSON of [`crate::probe::Probe`]. `options` is JSON `{device?,
/// arithmetic?, context?}`.
#[wasm_bindgen]
pub async fn probe(
    model: Option<JsByteSource>,
    draft_model: Option<JsByteSource>,
    options: String,
) -> Result<String, JsValue> {
    let WebLoadOptions { device, arithmetic, context, .. } = parse("probe options", &options).map_err(thrown)?;
    let (model, draft_model) = (model.map(source), draft_model.map(source));
    let options = ProbeOptions { model, draft_model, device, arithmetic, context };
    Ok(json!(crate::probe::probe(options).await.map_err(thrown)?).to_string())
}

fn source(object: JsByteSource) -> Box<dyn ByteSource> {
    Box::new(JsSource::new(object))
}

/// Compiles every shader on the adapter there is, be it in software, and with `pipelines` also for its driver: JSON
/// `{device, compiled, duration_ms}`.
#[wasm_bindgen(js_name = checkShaders)]
pub async fn check_shaders(pipelines: bool) -> Result<String, JsValue> {
    let start = now_ms();
    let gpu = GpuExecutor::request(AdapterChoice::Any).await.map_err(thrown)?;
    let compiled = gpu.compile_all(pipelines).await.map_err(thrown)?;
    Ok(json!({ "device": gpu.device(), "compiled": compiled, "duration_ms": now_ms() - start }).to_string())
}

/// SHA-256 piece by piece, which WebCrypto cannot.
#[wasm_bindgen]
#[derive(Default)]
pub struct Sha256(sha2::Sha256);

#[wasm_bindgen]
impl Sha256 {
    /// Of nothing so far.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Sha256 {
        Sha256::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes, in hexadecimal; what comes next begins anew.
    pub fn finish(&mut self) -> String {
        hex(&self.0.finalize_reset())
    }
}

/// A loaded model.
#[wasm_bindgen]
pub struct Engine(engine::Engine);

#[wasm_bindgen]
impl Engine {
    /// Loads a model, and perhaps one that drafts for it. `options` is JSON `{device?, arithmetic?, context?, speculation?,
    /// remembered_tokens?, known_cuts?}`; `on_progress` is called with JSON `{stage, file, loaded_bytes, total_bytes}`.
    pub async fn load(
        model: JsByteSource,
        draft_model: Option<JsByteSource>,
        options: String,
        #[wasm_bindgen(unchecked_param_type = "(progress: string) => void")] on_progress: js_sys::Function,
    ) -> Result<Engine, JsValue> {
        let options: WebLoadOptions = parse("load options", &options).map_err(thrown)?;
        let options = LoadOptions {
            model: source(model),
            draft_model: draft_model.map(source),
            device: options.device,
            arithmetic: options.arithmetic,
            context: options.context,
            speculation: options.speculation.unwrap_or_default(),
            remembered_tokens: options.remembered_tokens.unwrap_or(STORE_TOKENS),
            // What is damaged is measured again.
            known_cuts: options.known_cuts.and_then(|json| serde_json::from_str(&json).ok()),
        };
        let mut report = |progress: &engine::Progress| {
            let json = json!(progress).to_string();
            // What the listener throws is its own affair.
            let _ = on_progress.call1(&JsValue::NULL, &json.into());
        };
        engine::Engine::load(options, &mut report).await.map(Engine).map_err(thrown)
    }

    /// JSON `{model, device, device_reason, tokenizer}`; the last tells the stores of what was learned apart.
    pub fn info(&self) -> String {
        json!({
            "model": self.0.model_name(),
            "device": self.0.device(),
            "device_reason": self.0.device_reason(),
            "tokenizer": format!("{:016x}", self.0.tokenizer_fingerprint()),
        })
        .to_string()
    }

    /// How matrices are cut on the GPU, to be kept and given to the next load as `known_cuts`; nothing on a CPU.
    #[wasm_bindgen(js_name = knownCuts)]
    pub fn known_cuts(&self) -> Option<String> {
        self.0.known_cuts().map(|cuts| json!(cuts).to_string())
    }

    /// JSON `{weights_bytes, kv_bytes, scratch_bytes, allocated_bytes}` of the device.
    pub fn memory(&self) -> String {
        json!(self.0.memory()).to_string()
    }

    /// What finished answers have taught the drafters, as bytes to keep in place of those that are kept, which another tab may
    /// have written: what that has learned stays, and is learned here too.
    #[wasm_bindgen(js_name = saveLearned)]
    pub fn save_learned(&self, kept: Option<Vec<u8>>) -> Vec<u8> {
        self.0.save_suffix_store_over(kept.as_deref())
    }

    /// Those bytes are kept now.
    #[wasm_bindgen(js_name = learnedIsSaved)]
    pub fn learned_is_saved(&self) {
        self.0.suffix_store_is_saved();
    }

    /// Takes such bytes; damaged ones, and those of another tokenizer, are an error and change nothing.
    #[wasm_bindgen(js_name = loadLearned)]
    pub fn load_learned(&self, bytes: &[u8]) -> Result<(), JsValue> {
        self.0.load_suffix_store(bytes).map_err(thrown)
    }

    /// Forgets what answers have taught.
    pub fn forget(&self) {
        self.0.clear_suffix_store();
    }

    /// Begins an answer. `request` is JSON `{messages | prompt, tools?, context_overflow?, logprobs?, max_tokens?, sampling?,
    /// stop?, schema?, speculation?}`.
    pub fn generate(&self, request: &str) -> Result<Generation, JsValue> {
        let request: WebRequest = parse("request", request).map_err(thrown)?;
        let prompt = match (request.messages, request.prompt) {
            (Some(messages), None) => Prompt::Messages(messages),
            (None, Some(text)) => Prompt::Text(text),
            (messages, _) => {
                return Err(thrown(Error::BadOption {
                    name: "request".to_owned(),
                    found: if messages.is_some() { "messages and a prompt" } else { "neither" }.to_owned(),
                    expected: "either messages or a prompt".to_owned(),
                }));
            }
        };
        let generation = self.0.generate(Request {
            prompt,
            tools: request.tools,
            schema: request.schema,
            context_overflow: request.context_overflow,
            logprobs: request.logprobs,
            max_tokens: request.max_tokens,
            sampling: request.sampling,
            stop: request.stop,
            speculation: request.speculation,
        });
        Ok(Generation { cancel: generation.cancel_handle(), generation: Rc::new(RefCell::new(Some(generation))) })
    }
}

/// What matchers of JSON schemas are made from; requests with a schema need one to be set before.
#[wasm_bindgen]
impl Engine {
    /// The bytes of all tokens, one after the other.
    #[wasm_bindgen(js_name = tokenBytes)]
    pub fn token_bytes(&self) -> Vec<u8> {
        self.tokens().flatten().copied().collect()
    }

    /// How many bytes each token has.
    #[wasm_bindgen(js_name = tokenLengths)]
    pub fn token_lengths(&self) -> Vec<u32> {
        self.tokens().map(|bytes| bytes.len() as u32).collect()
    }

    /// The tokens that end a text.
    #[wasm_bindgen(js_name = endTokens)]
    pub fn end_tokens(&self) -> Vec<u32> {
        self.0.tokenizer().end_tokens().to_vec()
    }

    /// Takes what makes matchers of schemas, in place of what it had.
    #[wasm_bindgen(js_name = setVocabulary)]
    pub fn set_vocabulary(&self, vocabulary: JsVocabulary) {
        self.0.set_grammars(Rc::new(vocabulary));
    }
}

impl Engine {
    fn tokens(&self) -> impl Iterator<Item = &[u8]> {
        let tokenizer = self.0.tokenizer();
        (0..tokenizer.vocabulary() as u32).map(|id| tokenizer.token_bytes(id))
    }
}

#[wasm_bindgen]
impl Engine {
    /// Measures speculation against plain decoding. `suite` is JSON `{name?, prompts: [{id, category, messages,
    /// max_tokens?}]}`, `options` JSON `{speculation?: [text, …], per_category?, max_tokens?, repeats?}`; `on_progress` is
    /// called with JSON `{id, config, done, total}`.
    pub fn bench(
        &self,
        suite: &str,
        options: &str,
        #[wasm_bindgen(unchecked_param_type = "(progress: string) => void")] on_progress: js_sys::Function,
    ) -> Result<Bench, JsValue> {
        let suite: Suite = parse("suite", suite).map_err(thrown)?;
        let options: WebBench = parse("bench options", options).map_err(thrown)?;
        let arms = options.speculation.iter().map(|text| text.parse()).collect::<Result<Vec<Arm>, Error>>();
        let options = bench::Options {
            arms: arms.map_err(thrown)?,
            per_category: options.per_category,
            max_tokens: options.max_tokens,
            repeats: options.repeats,
            ..bench::Options::default()
        };
        let (engine, cancel) = (self.0.clone(), options.cancel.clone());
        let report = future_to_promise(async move {
            let mut report = |progress: &bench::Progress<'_>| {
                // What the listener throws is its own affair.
                let _ = on_progress.call1(&JsValue::NULL, &json!(progress).to_string().into());
            };
            let (report, _) = bench::run(&engine, &suite, &options, &mut report).await.map_err(thrown)?;
            report.check().map_err(thrown)?;
            Ok(json!(report).to_string().into())
        });
        Ok(Bench { report, cancel })
    }
}

/// A bench that runs.
#[wasm_bindgen]
pub struct Bench {
    report: js_sys::Promise,
    cancel: CancelHandle,
}

#[wasm_bindgen]
impl Bench {
    /// The report as JSON, the same as `foredraft bench --json`.
    #[wasm_bindgen(unchecked_return_type = "Promise<string>")]
    pub fn report(&self) -> js_sys::Promise {
        self.report.clone()
    }

    /// Asks it to end; then there is an error, `aborted`, in place of the report.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

/// An answer being written.
#[wasm_bindgen]
pub struct Generation {
    /// Empty while a `next` is under way: it takes the generation along, so that nothing stays borrowed.
    generation: Rc<RefCell<Option<generation::Generation>>>,
    cancel: CancelHandle,
}

#[wasm_bindgen]
impl Generation {
    /// The next event as JSON, `{type: "chunk", …}` or at the end `{type: "done", …}`, then undefined. One call at
    /// a time.
    #[wasm_bindgen(unchecked_return_type = "Promise<string | undefined>")]
    pub fn next(&self) -> js_sys::Promise {
        let cell = Rc::clone(&self.generation);
        future_to_promise(async move {
            let Some(mut generation) = cell.borrow_mut().take() else {
                return Err(thrown(Error::BadOption {
                    name: "next".to_owned(),
                    found: "a second call".to_owned(),
                    expected: "one call at a time".to_owned(),
                }));
            };
            let event = generation.next().await;
            cell.replace(Some(generation));
            match event {
                None => Ok(JsValue::UNDEFINED),
                Some(Ok(event)) => Ok(json!(event).to_string().into()),
                Some(Err(error)) => Err(thrown(error)),
            }
        })
    }

    /// Asks the answer to end; the event after those already written is its summary, with `finish_reason` `abort`.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}
