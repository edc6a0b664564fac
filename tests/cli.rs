//! The command line as other tools call it: names of flags and JSON fields, errors and exit codes.

#[path = "support/gguf.rs"]
#[expect(dead_code, reason = "only a part is used here")]
mod gguf;

use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};

/// The tiny model in a file that is removed in the end.
struct File(PathBuf);

impl File {
    fn new(name: &str, bytes: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("foredraft-cli-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("a file in the temporary folder");
        File(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn foredraft(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_foredraft")).args(args).output().expect("the command runs")
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error} in stdout {text:?}, stderr {:?}", String::from_utf8_lossy(&output.stderr))
    })
}

/// Every path has to be there and not null.
fn has(value: &Value, paths: &[&str]) {
    for path in paths {
        assert!(value.pointer(path).is_some_and(|found| !found.is_null()), "{path} is missing in {value:#}");
    }
}

#[test]
fn generate_prints_one_object() {
    let model = File::new("generate.gguf", &gguf::tiny_llama());
    let args =
        ["generate", "hello hello hello", "--model", model.path(), "--device", "cpu", "--max-tokens", "12", "--json"];
    let output = foredraft(&args);
    assert!(output.status.success());
    let value = json(&output);
    has(
        &value,
        &[
            "/model",
            "/device/kind",
            "/device/name",
            "/device/software",
            "/text",
            "/tokens/11",
            "/finish_reason",
            "/usage/prompt_tokens",
            "/usage/completion_tokens",
            "/usage/total_tokens",
            "/usage/completion_tokens_details/accepted_prediction_tokens",
            "/usage/completion_tokens_details/rejected_prediction_tokens",
            "/timings/load_ms",
            "/timings/prefill_ms",
            "/timings/decode_ms",
            "/timings/tokens_per_second",
            "/timings/time_to_first_token_ms",
            "/speculation/active",
            "/speculation/reason",
            "/speculation/exactness",
            "/speculation/rounds",
            "/speculation/drafted",
            "/speculation/accepted",
            "/speculation/acceptance_rate",
            "/speculation/mean_acceptance_length",
            "/speculation/submits",
            "/speculation/maps",
        ],
    );
    assert_eq!(value["finish_reason"], "length");
    assert_eq!(value["usage"]["completion_tokens"], 12);

    let mut off = args.to_vec();
    off.extend(["--speculation", "off"]);
    let plain = json(&foredraft(&off));
    assert_eq!(plain["tokens"], value["tokens"]);
    assert_eq!(plain["speculation"]["active"], false);
}

#[test]
fn without_json_the_text_is_alone_on_stdout() {
    let model = File::new("text.gguf", &gguf::tiny_llama());
    let args = ["generate", "hello", "--model", model.path(), "--device", "cpu", "--max-tokens", "5", "--raw"];
    let output = foredraft(&args);
    assert!(output.status.success());
    let mut with_json = args.to_vec();
    with_json.push("--json");
    let expected = format!("{}\n", json(&foredraft(&with_json))["text"].as_str().expect("text"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    let summary = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in ["tokens/s", "cpu", "accepted", "rounds", "speculation on"] {
        assert!(summary.contains(part), "{part:?} is missing in {summary:?}");
    }
    assert_eq!(summary.trim_end().lines().count(), 1, "one line: {summary:?}");
}

#[test]
fn messages_come_from_a_file() {
    let model = File::new("messages.gguf", &gguf::tiny_llama());
    let messages = File::new("messages.json", br#"[{"role":"user","content":"hi"}]"#);
    let common = ["--model", model.path(), "--device", "cpu", "--max-tokens", "4", "--json"];
    let from_file = json(&foredraft(&[&["generate", "--messages", messages.path()], &common[..]].concat()));
    let from_prompt = json(&foredraft(&[&["generate", "hi"], &common[..]].concat()));
    assert_eq!(from_file["tokens"], from_prompt["tokens"]);
}

#[test]
fn inspect_and_perplexity_have_their_fields() {
    let model = File::new("inspect.gguf", &gguf::tiny_llama());
    let value = json(&foredraft(&["inspect", model.path(), "--json"]));
    has(&value, &["/metadata/general.architecture", "/tensors/0/name", "/tensors/0/format", "/memory/total_bytes"]);
    let text = File::new("text.txt", &b"a stall that seems to sell nothing ".repeat(8));
    let args =
        ["perplexity", "--model", model.path(), "--file", text.path(), "--context", "64", "--device", "cpu", "--json"];
    has(&json(&foredraft(&args)), &["/tokens", "/nll", "/perplexity"]);
}

#[test]
fn errors_are_typed_and_fail() {
    let model = File::new("errors.gguf", &gguf::tiny_llama());
    let broken = File::new("broken.gguf", b"GGUX, not a model");
    let code = |args: &[&str]| {
        let output = foredraft(&[args, &["--json"]].concat());
        assert!(!output.status.success(), "{args:?} must fail");
        json(&output)["error"]["code"].as_str().expect("a code").to_owned()
    };
    assert_eq!(code(&["generate", "hi", "--model", broken.path()]), "not_gguf");
    assert_eq!(code(&["generate", "hi", "--model", "no-such-model"]), "unknown_model");
    assert_eq!(code(&["generate", "hi", "--model", "/no/such/file.gguf"]), "io");
    assert_eq!(code(&["generate", "--model", model.path()]), "empty_prompt");
    let run = ["generate", "hi", "--device", "cpu", "--model", model.path()];
    assert_eq!(code(&[&run[..], &["--temperature", "-1"]].concat()), "bad_option");
    assert_eq!(code(&[&run[..], &["--speculation", "drafter=psychic"]].concat()), "bad_option");
    assert_eq!(code(&[&run[..], &["--speculation", "drafter=model"]].concat()), "bad_option");
}

/// No driver is found where the loader is told of none.
#[test]
fn a_gpu_that_is_not_there_is_an_error_only_if_asked_for() {
    let model = File::new("adapter.gguf", &gguf::tiny_llama());
    let run = |device: &str| {
        Command::new(env!("CARGO_BIN_EXE_foredraft"))
            .args(["generate", "hi", "--max-tokens", "2", "--json", "--device", device, "--model", model.path()])
            .env("VK_DRIVER_FILES", "/dev/null")
            .env("VK_ICD_FILENAMES", "/dev/null")
            .output()
            .expect("the command runs")
    };
    if cfg!(target_os = "linux") {
        let asked = run("gpu");
        assert!(!asked.status.success());
        assert_eq!(json(&asked)["error"]["code"], "no_adapter");
        let auto = run("auto");
        assert_eq!(json(&auto)["device"]["kind"], "cpu");
    }
}
