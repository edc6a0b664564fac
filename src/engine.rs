//! The engine: a target model, a draft model if wanted, one device.

use crate::device::Device;
pub use crate::device::DeviceChoice;
use crate::error::{Error, Result};
use crate::generation::{CancelHandle, Generation, Prompt, Request, prompt_tokens};
use crate::gpu::{GpuExecutor, KnownCuts};
use crate::model::tensors::specify;
use crate::model::{MemoryPlan, Model, ModelConfig};
use crate::plan::{Arithmetic, AttentionShape, DeviceInfo, Executor};
use crate::runtime;
use crate::session::Session;
use crate::speculate::SpeculationConfig;
use crate::speculate::cost::CostModel;
use crate::speculate::drafters::suffix_store::{STORE_TOKENS, fingerprint};
use crate::speculate::measure::measure;
use crate::speculate::memory::Memory;
use crate::store::ByteSource;
use crate::text::grammar::{Grammar, Grammars, grammars};
use crate::text::template::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use crate::weights::format::Layout;
use crate::weights::gguf::{Gguf, GgufReader};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::rc::Rc;

/// Tokens of context where the caller does not say: enough for a conversation, small enough for any device.
pub const DEFAULT_CONTEXT: usize = 4096;

/// What to load.
pub struct LoadOptions {
    /// The target.
    pub model: Box<dyn ByteSource>,
    /// A smaller model of the same vocabulary.
    pub draft_model: Option<Box<dyn ByteSource>>,
    /// Where to run.
    pub device: DeviceChoice,
    /// How quantised matrices are multiplied: [`Arithmetic::Q8`] is faster where threads or integers are cheap, and moves the
    /// perplexity by up to 1 %. Where not given, the device's own: q8 on CPUs and GPUs in software, f32 on GPUs in hardware.
    pub arithmetic: Option<Arithmetic>,
    /// Tokens of context; [`DEFAULT_CONTEXT`] or what the model was trained for where not given.
    pub context: Option<usize>,
    /// How requests speculate that do not say it themselves.
    pub speculation: SpeculationConfig,
    /// Tokens of answers, and of what leads to them, that the suffix store holds at most.
    pub remembered_tokens: usize,
    /// What an earlier load has measured on this device ([`Engine::known_cuts`]); what it does not hold is measured.
    pub known_cuts: Option<KnownCuts>,
}

impl LoadOptions {
    /// A model, all else by default.
    pub fn new(model: Box<dyn ByteSource>) -> LoadOptions {
        LoadOptions {
            model,
            draft_model: None,
            device: DeviceChoice::Auto,
            arithmetic: None,
            context: None,
            speculation: SpeculationConfig::default(),
            remembered_tokens: STORE_TOKENS,
            known_cuts: None,
        }
    }
}

/// Bytes on the device by purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MemoryUse {
    /// Matrices and vectors of all models.
    pub weights_bytes: u64,
    /// Keys and values of the whole context.
    pub kv_bytes: u64,
    /// Everything else: activations, logits, tables.
    pub scratch_bytes: u64,
    /// The executor's own count of what it allocated and did not free.
    pub allocated_bytes: u64,
}

/// How far a load is.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Progress {
    /// `header`, `device`, `weights`, `costs` while passes are timed, `ready`.
    pub stage: &'static str,
    /// The file being read.
    pub file: String,
    /// Bytes of it that are done.
    pub loaded_bytes: u64,
    /// Its length, 0 where that is not known.
    pub total_bytes: u64,
}

/// What is shared by an engine's clones, sessions and generations.
pub(crate) struct Core {
    pub(crate) device: Device,
    pub(crate) target: Model,
    pub(crate) draft: Option<Rc<Model>>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) name: String,
    pub(crate) speculation: SpeculationConfig,
    pub(crate) load_ms: f64,
    /// The target's first layers as a model, by their number: made for the drafter `self` when they are first asked for.
    pub(crate) exits: RefCell<BTreeMap<usize, Rc<Model>>>,
    /// What verifying and drafting cost here.
    pub(crate) cost: Rc<RefCell<CostModel>>,
    /// Drafters that the costs of draft steps are those of, whether a schema was among them, and the layers that `self` runs.
    pub(crate) drafters: RefCell<(Vec<String>, bool, Option<usize>)>,
    /// Stores that requests share.
    pub(crate) memory: Memory,
    /// The corpus that was used last, as text and tokens: most requests bring the same.
    pub(crate) corpus: RefCell<Option<(String, Rc<[u32]>)>>,
    /// Matchers of schemas, once a request has had one.
    pub(crate) grammars: RefCell<Option<Rc<dyn Grammars>>>,
    /// A generation is running: there is one KV cache.
    pub(crate) busy: Cell<bool>,
}

impl Core {
    pub(crate) fn executor(&self) -> &dyn Executor {
        self.device.executor.as_ref()
    }
}

impl Drop for Core {
    /// A browser collects garbage when it likes: what an engine held is given back at once.
    fn drop(&mut self) {
        self.executor().release((0, 0));
    }
}

impl Core {
    /// The target's first layers, where the configuration drafts with them.
    pub(crate) fn exit_model(&self, config: &SpeculationConfig) -> Result<Option<Rc<Model>>> {
        let Some(layers) = config.exit_layers(self.target.config.layers) else { return Ok(None) };
        let mut exits = self.exits.borrow_mut();
        let model = match exits.entry(layers) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Rc::new(self.target.exit_after(layers, self.executor())?)),
        };
        Ok(Some(Rc::clone(model)))
    }

    /// Forgets what the caches hold: after a submit that failed nobody knows whether what was to be moved there was.
    pub(crate) fn forget_caches(&self) {
        self.target.kv.rollback(0);
        self.draft.iter().for_each(|draft| draft.kv.rollback(0));
    }

    /// A matcher of a JSON schema.
    pub(crate) fn grammar(&self, schema: &str) -> Result<Box<dyn Grammar>> {
        let mut held = self.grammars.borrow_mut();
        let known = match held.take() {
            Some(known) => known,
            None => grammars(&self.tokenizer)?,
        };
        held.insert(known).grammar(schema)
    }

    /// Tokens of the configured corpus.
    pub(crate) fn corpus_tokens(&self, config: &SpeculationConfig) -> Result<Option<Rc<[u32]>>> {
        let Some(text) = &config.corpus else { return Ok(None) };
        let mut held = self.corpus.borrow_mut();
        if let Some((_, tokens)) = held.as_ref().filter(|(known, _)| known == text) {
            return Ok(Some(Rc::clone(tokens)));
        }
        let tokens: Rc<[u32]> = self.tokenizer.encode(text, false)?.into();
        *held = Some((text.clone(), Rc::clone(&tokens)));
        Ok(Some(tokens))
    }
}

/// A loaded engine; clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) core: Rc<Core>,
}

impl Engine {
    /// Loads the models. Nothing of a failed load stays on the device.
    pub async fn load(options: LoadOptions, progress: &mut dyn FnMut(&Progress)) -> Result<Engine> {
        let start = runtime::now_ms();
        let LoadOptions { mut model, mut draft_model, device, arithmetic, context, speculation, .. } = options;
        // Whatever can be wrong with the files or the options shows before the device is touched.
        let mut target = Opened::open(model.as_mut(), progress).await?;
        let mut draft = match &mut draft_model {
            Some(source) => Some(Opened::open(source.as_mut(), progress).await?),
            None => None,
        };
        let checked = Checked::of(&target.gguf, draft.as_ref().map(|draft| &draft.gguf), context)?;
        let Checked { tokenizer, template, context, plans, shapes, attention } = checked;
        speculation.drafters(draft.is_some())?;
        progress(&Progress { stage: "device", file: target.file.clone(), loaded_bytes: 0, total_bytes: 0 });
        let known = options.known_cuts.as_ref();
        let tune = async |gpu: &GpuExecutor| gpu.tune(&shapes, known).await.map(|_| ());
        let device = Device::open(device, arithmetic, &layouts_of(&shapes), &attention, tune).await?;
        let executor = device.executor.as_ref();
        MemoryPlan::check(&plans, executor)?;
        let name = target.model_name();
        let target = target.load(executor, context, progress).await?;
        let draft = match &mut draft {
            Some(draft) => Some(Rc::new(draft.load(executor, context, progress).await?)),
            None => None,
        };
        progress(&Progress { stage: "costs", file: name.clone(), loaded_bytes: 0, total_bytes: 0 });
        let cost = measure(executor, &target).await?;
        let load_ms = runtime::now_ms() - start;
        progress(&Progress { stage: "ready", file: name.clone(), loaded_bytes: 0, total_bytes: 0 });
        let texts = (0..tokenizer.vocabulary() as u32).map(|token| tokenizer.token_text(token));
        let memory = Memory::new(target.config.vocabulary, fingerprint(texts));
        memory.suffix.borrow_mut().limit(options.remembered_tokens);
        let core = Core {
            device,
            target,
            draft,
            tokenizer,
            template,
            name,
            speculation,
            load_ms,
            exits: RefCell::default(),
            drafters: RefCell::default(),
            cost: Rc::new(RefCell::new(cost)),
            memory,
            corpus: RefCell::default(),
            grammars: RefCell::default(),
            busy: Cell::new(false),
        };
        Ok(Engine { core: Rc::new(core) })
    }

    /// A conversation; see [`Session`].
    pub fn session(&self) -> Session {
        Session::new(self)
    }

    /// Runs a request; what the KV cache still holds of its prompt is not computed again. One at a time: there is one
    /// cache.
    pub fn generate(&self, request: Request) -> Generation {
        Generation::new(Rc::clone(&self.core), request, CancelHandle::default())
    }

    /// Name of the target model.
    pub fn model_name(&self) -> &str {
        &self.core.name
    }

    /// Where it runs.
    pub fn device(&self) -> DeviceInfo {
        self.core.executor().device()
    }

    /// Why it runs there.
    pub fn device_reason(&self) -> &str {
        &self.core.device.reason
    }

    /// The executor, for tools and tests.
    pub fn executor(&self) -> &dyn Executor {
        self.core.executor()
    }

    /// The GPU, where it is one: for reports and tests.
    pub fn gpu(&self) -> Option<&GpuExecutor> {
        self.core.device.gpu.as_deref()
    }

    /// How matrices are cut on the GPU, to be given to the next load ([`LoadOptions::known_cuts`]); `None` on a CPU.
    pub fn known_cuts(&self) -> Option<KnownCuts> {
        self.gpu().map(GpuExecutor::known_cuts)
    }

    /// Takes what makes matchers of schemas, where it is not linked in.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn set_grammars(&self, grammars: Rc<dyn Grammars>) {
        *self.core.grammars.borrow_mut() = Some(grammars);
    }

    /// The tokenizer of the target.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.core.tokenizer
    }

    /// Tokens of a prompt as a request would take them.
    pub fn prompt_tokens(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        prompt_tokens(&self.core, prompt, None)
    }

    /// Takes costs for those of this device, such as what [`Engine::cost_model`] of an earlier engine was.
    pub fn set_cost_model(&self, cost: CostModel) {
        *self.core.cost.borrow_mut() = cost;
    }

    /// What verifying and drafting cost here, as far as requests have shown.
    pub fn cost_model(&self) -> CostModel {
        self.core.cost.borrow().clone()
    }

    /// Forgets whatever requests have taught the engine, so that the next one starts as the first did: for fair comparisons.
    /// A request makes its own drafters, policies and selectors anew; what lives longer is forgotten here. Of the costs, those
    /// of draft steps go, as their places in the configuration may mean other drafters; those of verifying are measurements
    /// of the device and stay, as does the KV cache.
    pub fn reset_learned(&self) {
        self.core.cost.borrow_mut().forget_drafters();
        self.core.memory.suffix.borrow_mut().clear();
    }

    /// The suffix store, which holds answers and the last 16 tokens before each for the drafter `suffix`, as bytes to keep.
    pub fn save_suffix_store(&self) -> Vec<u8> {
        self.core.memory.suffix.borrow().save()
    }

    /// The same to keep in place of bytes that are kept already: of what another engine has written there since nothing is
    /// lost, and this engine learns it. Where nothing is kept any more, what was saved before is forgotten here too. Once they
    /// are kept, [`Engine::suffix_store_is_saved`] is to be told.
    pub fn save_suffix_store_over(&self, kept: Option<&[u8]>) -> Vec<u8> {
        self.core.memory.suffix.borrow_mut().save_over(kept)
    }

    /// The bytes that [`Engine::save_suffix_store_over`] gave out last are kept.
    pub fn suffix_store_is_saved(&self) {
        self.core.memory.suffix.borrow_mut().is_saved();
    }

    /// Takes a suffix store that was saved, in place of what was learned so far. Bytes that are damaged, or of a model with
    /// another tokenizer, are an error and change nothing. Of more than this engine may hold, the newest are taken.
    pub fn load_suffix_store(&self, bytes: &[u8]) -> Result<()> {
        let mut store = self.core.memory.suffix.borrow_mut();
        let capacity = store.capacity();
        store.load(bytes)?;
        store.limit(capacity);
        Ok(())
    }

    /// Forgets the finished answers of the suffix store.
    pub fn clear_suffix_store(&self) {
        self.core.memory.suffix.borrow_mut().clear();
    }

    /// What tells the suffix stores of different tokenizers apart.
    pub fn tokenizer_fingerprint(&self) -> u64 {
        self.core.memory.suffix.borrow().tokenizer()
    }

    /// Bytes that the engine holds on its device.
    pub fn memory(&self) -> MemoryUse {
        let models = [Some(&self.core.target), self.core.draft.as_deref()].into_iter().flatten();
        let (weights_bytes, kv_bytes) =
            models.fold((0, 0), |sums, model| (sums.0 + model.memory.weights_bytes, sums.1 + model.memory.kv_bytes));
        let allocated_bytes = self.core.executor().counters().allocated_bytes;
        let scratch_bytes = allocated_bytes.saturating_sub(weights_bytes + kv_bytes);
        MemoryUse { weights_bytes, kv_bytes, scratch_bytes, allocated_bytes }
    }

    /// The target, for tools and tests.
    pub fn target(&self) -> &Model {
        &self.core.target
    }

    /// The draft model, for tools and tests.
    pub fn draft(&self) -> Option<&Rc<Model>> {
        self.core.draft.as_ref()
    }
}

/// What headers tell of models that can run together.
pub(crate) struct Checked {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) context: usize,
    /// Of the target, then of the draft model.
    pub(crate) plans: Vec<MemoryPlan>,
    /// Layout, rows and columns of all matrices that vectors are multiplied with.
    pub(crate) shapes: Vec<(Layout, usize, usize)>,
    /// Of each model.
    pub(crate) attention: Vec<AttentionShape>,
}

impl Checked {
    /// Refuses whatever can be known to be wrong before a weight is read.
    pub(crate) fn of(target: &Gguf, draft: Option<&Gguf>, context: Option<usize>) -> Result<Checked> {
        let tokenizer = Tokenizer::from_metadata(&target.metadata)?;
        let template = ChatTemplate::from_metadata(&target.metadata)?;
        if let Some(draft) = draft {
            same_vocabulary(&tokenizer, target, draft)?;
        }
        let context = wanted_context(target, context)?;
        let (mut plans, mut shapes, mut attention) = (Vec::new(), Vec::new(), Vec::new());
        for gguf in std::iter::once(target).chain(draft) {
            let config = ModelConfig::from_gguf(gguf)?;
            let tensors = specify(&config, gguf)?;
            plans.push(MemoryPlan::new(&config, &tensors, context.min(config.context)));
            shapes.extend(tensors.multiplied());
            attention.push(config.attention_shape(context));
        }
        Ok(Checked { tokenizer, template, context, plans, shapes, attention })
    }
}

/// Layouts of matrices, each once.
pub(crate) fn layouts_of(shapes: &[(Layout, usize, usize)]) -> Vec<Layout> {
    let layouts: BTreeSet<Layout> = shapes.iter().map(|(layout, ..)| *layout).collect();
    layouts.into_iter().collect()
}

/// A file whose header was read.
struct Opened<'a> {
    reader: GgufReader<'a>,
    gguf: Gguf,
    file: String,
    total_bytes: u64,
}

impl<'a> Opened<'a> {
    async fn open(source: &'a mut dyn ByteSource, progress: &mut dyn FnMut(&Progress)) -> Result<Opened<'a>> {
        let (file, total_bytes) = (source.name().to_owned(), source.len_bytes().unwrap_or(0));
        progress(&Progress { stage: "header", file: file.clone(), loaded_bytes: 0, total_bytes });
        let (reader, gguf) = GgufReader::open(source).await?;
        Ok(Opened { reader, gguf, file, total_bytes })
    }

    async fn load(
        &mut self,
        executor: &dyn Executor,
        context: usize,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Model> {
        let (file, total_bytes) = (self.file.clone(), self.total_bytes);
        let mut report = |loaded_bytes| {
            progress(&Progress { stage: "weights", file: file.clone(), loaded_bytes, total_bytes });
        };
        Model::load(&self.gguf, &mut self.reader, executor, context, &mut report).await
    }

    /// `general.name`, else the file's name.
    fn model_name(&self) -> String {
        let named = self.gguf.metadata.opt_string("general.name").ok().flatten().filter(|name| !name.is_empty());
        named.map_or_else(|| self.file.rsplit(['/', '\\']).next().unwrap_or_default().to_owned(), str::to_owned)
    }
}

/// A draft's tokens must mean the same, and its rows must be as many.
fn same_vocabulary(tokenizer: &Tokenizer, target: &Gguf, draft: &Gguf) -> Result<()> {
    let other = Tokenizer::from_metadata(&draft.metadata)?;
    if let Some(difference) = tokenizer.difference(&other) {
        return Err(Error::VocabularyMismatch { difference });
    }
    let rows = |gguf| Ok::<_, Error>(ModelConfig::from_gguf(gguf)?.vocabulary);
    let (target, draft) = (rows(target)?, rows(draft)?);
    if target != draft {
        let difference = format!("the target has {target} rows of embeddings, the draft {draft}");
        return Err(Error::VocabularyMismatch { difference });
    }
    Ok(())
}

fn wanted_context(gguf: &Gguf, context: Option<usize>) -> Result<usize> {
    let trained = ModelConfig::from_gguf(gguf)?.context;
    match context {
        None => Ok(DEFAULT_CONTEXT.min(trained)),
        Some(context) if (1..=trained).contains(&context) => Ok(context),
        Some(context) => Err(Error::BadOption {
            name: "context".to_owned(),
            found: context.to_string(),
            expected: format!("1 to {trained}, what the model was trained for"),
        }),
    }
}
