//! What the host does in a step and in a round, on an executor that does nothing: a model that computes is not needed to make
//! plans run, read samples back, draft, accept and learn.
//!
//! Instructions of all rounds of a test, whose number it prints:
//!
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='host_work::rounds*' TEST_BINARY --nocapture a_plain

#[path = "support/engine.rs"]
mod engine;

use foredraft::bench::Trace;
use foredraft::error::Result;
use foredraft::model::Model;
use foredraft::plan::{
    Arithmetic, BufferId, Counters, DeviceInfo, Executor, Limits, Plan, PlanId, Submission, TOKENS_WORDS, Ticket,
};
use foredraft::sampling::SamplingParams;
use foredraft::speculate::methods::Setup;
use foredraft::speculate::target::ModelTarget;
use foredraft::speculate::{SpeculationConfig, Speculator};
use foredraft::store::LocalFuture;
use foredraft::weights::gguf::GgufReader;
use futures_lite::future::block_on;
use std::cell::{Cell, RefCell};

/// Takes everything and answers with a text that it knows.
struct Null {
    text: Vec<u32>,
    tokens: RefCell<Vec<u32>>,
    buffers: Cell<u32>,
    plans: Cell<u32>,
    read: Cell<(usize, usize)>,
    submits: Cell<u64>,
}

impl Executor for Null {
    fn device(&self) -> DeviceInfo {
        DeviceInfo { kind: "none", name: "nothing".to_owned(), software: true }
    }

    fn limits(&self) -> Limits {
        Limits { max_binding_bytes: 1 << 30, memory_bytes: None }
    }

    fn alloc(&self, _: &str, _: usize) -> Result<BufferId> {
        self.buffers.set(self.buffers.get() + 1);
        Ok(BufferId(self.buffers.get() + 1))
    }

    fn write(&self, _: BufferId, _: usize, _: &[u32]) -> Result<()> {
        Ok(())
    }

    fn read(&self, _: BufferId, _: usize, words: usize) -> LocalFuture<'_, Result<Vec<u32>>> {
        Box::pin(async move { Ok(vec![0; words]) })
    }

    fn release(&self, _: (u32, u32)) {}

    fn mark(&self) -> (u32, u32) {
        (self.buffers.get(), self.plans.get())
    }

    fn prepare(&self, _: Plan) -> Result<PlanId> {
        self.plans.set(self.plans.get() + 1);
        Ok(PlanId(self.plans.get()))
    }

    fn submit(&self, submission: Submission) -> Result<Ticket> {
        let mut tokens = self.tokens.borrow_mut();
        for (_, params) in &submission.runs {
            for column in 0..params.live_cols as usize {
                let next = (params.base + params.depth(column) + 1) as usize;
                tokens[params.sample_at as usize + column] = self.text.get(next).copied().unwrap_or(0);
            }
        }
        self.read.set(submission.read);
        self.submits.set(self.submits.get() + 1);
        Ok(Ticket(self.submits.get()))
    }

    fn finish(&self, _: Ticket) -> LocalFuture<'_, Result<Vec<u32>>> {
        let (at, count) = self.read.get();
        let words = self.tokens.borrow()[at..at + count].to_vec();
        Box::pin(async move { Ok(words) })
    }

    fn counters(&self) -> Counters {
        Counters { submits: self.submits.get(), ..Counters::default() }
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::F32
    }

    fn fingerprint(&self) -> String {
        "null".to_owned()
    }
}

/// Writes the text; gives the rounds it took.
#[inline(never)]
fn rounds(null: &Null, model: &Model, speculator: &mut Speculator, prompt: usize) -> u64 {
    let target = ModelTarget { executor: null, model };
    let sampling = SamplingParams::default();
    let (mut at, mut rounds) = (prompt, 0);
    model.kv.rollback(0);
    model.kv.extend(&null.text[..at - 1]);
    while at < null.text.len() {
        let left = null.text.len() - at;
        let round = speculator.round(&target, &null.text[..at], &sampling, left);
        at += block_on(round).expect("a round").verdict.path.len() + 1;
        rounds += 1;
    }
    rounds
}

/// Writes a recorded answer, and checks that each round was one submit. Gives rounds and tokens.
fn count(config: &str) -> (u64, usize) {
    let traces: Vec<Trace> = serde_json::from_str(include_str!("fixtures/traces.json")).expect("valid");
    let trace = traces.into_iter().find(|trace| trace.category == "code-edit").expect("an edit");
    let null = Null {
        text: [&trace.prompt[..], &trace.answer].concat(),
        tokens: RefCell::new(vec![0; TOKENS_WORDS]),
        buffers: Cell::new(1),
        plans: Cell::new(0),
        read: Cell::default(),
        submits: Cell::default(),
    };
    let mut source = engine::model("smollm2-135m-instruct.gguf");
    let (mut reader, gguf) = block_on(GgufReader::open(source.as_mut())).expect("a header");
    let model = block_on(Model::load(&gguf, &mut reader, &null, 1024, &mut |_| {})).expect("loaded");
    let config: SpeculationConfig = config.parse().expect("valid");
    let mut speculator = config.speculator(Setup::new(&config)).expect("valid");
    let start = std::time::Instant::now();
    let rounds = rounds(&null, &model, &mut speculator, trace.prompt.len());
    let micros = start.elapsed().as_secs_f64() * 1e6;
    println!("{rounds} rounds for {} tokens, {:.1} µs each", trace.answer.len(), micros / rounds as f64);
    assert_eq!(null.submits.get(), rounds, "one submit a round");
    (rounds, trace.answer.len())
}

#[test]
fn a_plain_step_is_one_submit() {
    let (rounds, tokens) = count("off");
    assert_eq!(rounds, tokens as u64);
}

#[test]
fn a_drafted_round_is_one_submit() {
    let (rounds, tokens) = count("drafter=suffix,length=fixed,num_speculative_tokens=7");
    assert!(rounds * 2 < tokens as u64, "{rounds} rounds for {tokens} tokens of an edit");
}
