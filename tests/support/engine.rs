//! Engines for tests: the real models of `FOREDRAFT_TEST_MODELS`, or files made in memory.
#![allow(dead_code, reason = "each test uses a part of it")]

use foredraft::engine::{DeviceChoice, Engine, LoadOptions};
use foredraft::generation::{Generation, Prompt, Request};
use foredraft::store::native::FileSource;
use foredraft::store::{ByteSource, Bytes};
use foredraft::summary::Summary;
use futures_lite::future::block_on;
use std::path::PathBuf;

/// The devices that are tested: the GPU may be one in software.
pub(crate) const DEVICES: [DeviceChoice; 2] = [DeviceChoice::Cpu, DeviceChoice::Gpu];

/// A test model by file name.
pub(crate) fn model(file: &str) -> Box<dyn ByteSource> {
    let folder = std::env::var("FOREDRAFT_TEST_MODELS")
        .expect("FOREDRAFT_TEST_MODELS is not set: run `bash tests/run.sh`, which fetches the models");
    let path = PathBuf::from(folder).join(file);
    Box::new(FileSource::open(&path).unwrap_or_else(|error| panic!("{error}: run `bash tests/run.sh`")))
}

/// A file in memory.
pub(crate) fn bytes(name: &str, bytes: Vec<u8>) -> Box<dyn ByteSource> {
    Box::new(Bytes { name: name.to_owned(), bytes })
}

/// Loads, and tells what is missing where there is no adapter.
pub(crate) fn load(options: LoadOptions) -> Engine {
    block_on(Engine::load(options, &mut |_| {})).unwrap_or_else(|error| {
        panic!("{error} (a software GPU is enough: Debian's mesa-vulkan-drivers and libvulkan1)")
    })
}

/// SmolLM2, with its damaged copy as the draft if wanted.
pub(crate) fn smollm2(device: DeviceChoice, draft: bool) -> Engine {
    let mut options = LoadOptions::new(model("smollm2-135m-instruct.gguf"));
    options.draft_model = draft.then(|| model("smollm2-draft.gguf"));
    options.device = device;
    options.context = Some(1024);
    load(options)
}

/// Runs to the end.
pub(crate) fn run(generation: Generation) -> Summary {
    block_on(generation.finish()).expect("generation")
}

/// A prompt of the development suite by id.
pub(crate) fn prompt(id: &str) -> Prompt {
    let suite: serde_json::Value = serde_json::from_str(include_str!("../prompts/dev.json")).expect("valid");
    let prompts = suite["prompts"].as_array().expect("prompts");
    let found = prompts.iter().find(|prompt| prompt["id"] == id).unwrap_or_else(|| panic!("no prompt {id}"));
    Prompt::Messages(found["messages"].clone())
}

/// Every id of the suite.
pub(crate) fn all_prompts() -> Vec<String> {
    let suite: serde_json::Value = serde_json::from_str(include_str!("../prompts/dev.json")).expect("valid");
    let prompts = suite["prompts"].as_array().expect("prompts").iter();
    prompts.map(|prompt| prompt["id"].as_str().expect("id").to_owned()).collect()
}

/// A request of `max_tokens` tokens.
pub(crate) fn request(prompt: Prompt, max_tokens: usize) -> Request {
    Request { max_tokens: Some(max_tokens), ..Request::new(prompt) }
}

/// Whether the long form was asked for.
pub(crate) fn full() -> bool {
    std::env::var_os("FOREDRAFT_TEST_FULL").is_some()
}
