//! The command line as other tools call it: names of flags and JSON fields, errors and exit codes.

#[path = "support/gguf.rs"]
#[expect(dead_code, reason = "only a part is used here")]
mod gguf;
#[path = "support/typescript.rs"]
mod typescript;

use serde_json::Value;
use std::collections::BTreeSet;
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

/// An object has the fields that TypeScript is told of: those of all these interfaces.
fn is_typed(value: &Value, file: &str, interfaces: &[&str]) {
    let keys: BTreeSet<String> = value.as_object().expect("an object").keys().cloned().collect();
    let typed: BTreeSet<String> = interfaces.iter().flat_map(|name| typescript::fields(file, name)).collect();
    assert_eq!(keys, typed, "{interfaces:?} in web/src/{file}");
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
            "/speculation/drafted_rounds",
            "/speculation/drafted",
            "/speculation/accepted",
            "/speculation/acceptance_rate",
            "/speculation/mean_acceptance_length",
            "/speculation/by_position",
            "/speculation/by_drafter/suffix/drafted",
            "/speculation/by_drafter/suffix/accepted",
            "/speculation/submits",
            "/speculation/maps",
        ],
    );
    is_typed(&value["speculation"], "openai.ts", &["SpeculationStats"]);
    is_typed(&value["timings"], "openai.ts", &["Timings"]);
    is_typed(&value, "protocol.ts", &["Summary"]);
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
fn methods_are_listed_with_what_they_promise() {
    let value = json(&foredraft(&["methods", "--json"]));
    let methods = value["methods"].as_array().expect("methods");
    for method in methods {
        has(method, &["/kind", "/name", "/trait", "/about", "/paper", "/needs", "/options", "/test"]);
        assert_eq!(
            method["exactness"].is_null(),
            method["kind"] != "accept",
            "rules alone promise something: {method}"
        );
    }
    let named =
        |name: &str| methods.iter().find(|method| method["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(named("match")["exactness"], "same-tokens");
    assert_eq!(named("match")["trait"], "AcceptanceRule");
    has(
        named("ngram"),
        &["/options/0/key", "/options/0/about", "/options/0/default", "/options/0/min", "/options/0/max"],
    );
    let output = foredraft(&["methods"]);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for method in methods {
        let name = method["name"].as_str().expect("a name");
        assert!(table.lines().any(|line| line.trim_start().starts_with(name)), "{name} is missing in {table}");
    }
    assert!(table.contains("prompt_lookup_max=4 (1 to 64)"), "{table}");
}

const SUITE: &[u8] = br#"{"name":"two","prompts":[
    {"id":"a-1","category":"a","messages":[{"role":"user","content":"hello hello hello hello"}],"max_tokens":48},
    {"id":"b-1","category":"b","messages":[{"role":"user","content":"abc abd abe abf"}],"max_tokens":48},
    {"id":"b-2","category":"b","messages":[{"role":"user","content":"never run"}],"max_tokens":48}]}"#;

#[test]
fn bench_compares_with_plain_decoding_and_replays_its_own_texts() {
    let model = File::new("bench.gguf", &gguf::tiny_llama());
    let suite = File::new("suite.json", SUITE);
    let traces = File::new("traces.json", b"");
    let arms = ["--speculation", "drafter=ngram,length=fixed", "--speculation", "off", "--json"];
    let run = ["bench", "--suite", suite.path(), "--model", model.path(), "--device", "cpu", "--per-category", "1"];
    let output = foredraft(&[&run[..], &["--record", traces.path()], &arms].concat());
    let value = json(&output);
    assert!(output.status.success(), "{value:#}");
    has(
        &value,
        &[
            "/suite",
            "/model",
            "/device/kind",
            "/system_fingerprint",
            "/repeats",
            "/verify_cost/1",
            "/verify_cost/16",
            "/verify_cost_at/127/8",
            "/geomean_speedup",
            "/overall/0/config",
            "/overall/0/exactness",
            "/overall/0/reason",
            "/overall/0/geomean_speedup",
            "/categories/0/category",
            "/categories/0/config",
            "/categories/0/speedup",
            "/categories/0/speedup_range/1",
            "/categories/0/oracle_speedup",
            "/categories/0/share_of_oracle",
            "/categories/0/round_ms/verify",
            "/categories/0/mean_acceptance_length",
            "/categories/0/mean_of_prompts",
            "/categories/0/acceptance_by_position",
            "/categories/0/drafters/ngram/accepted",
            "/categories/0/tokens",
            "/categories/0/rounds",
            "/categories/0/drafted_rounds",
            "/categories/0/calls_per_token",
            "/categories/0/prompts/0/id",
            "/categories/0/prompts/0/same_tokens",
            "/categories/0/prompts/0/plain_tokens_per_second",
            "/categories/0/prompts/0/tokens_per_second",
        ],
    );
    assert_eq!(value["mismatches"], serde_json::json!([]));
    is_typed(&value, "bench.ts", &["BenchReport"]);
    for row in [&value["overall"][0], &value["controls"][0]] {
        is_typed(row, "bench.ts", &["BenchOverall", "BenchFigures"]);
    }
    is_typed(&value["categories"][0], "bench.ts", &["BenchCategory", "BenchFigures"]);
    is_typed(&value["categories"][0]["prompts"][0], "bench.ts", &["BenchPrompt", "BenchFigures"]);
    is_typed(&value["categories"][0]["round_ms"], "bench.ts", &["BenchRoundTime"]);
    let rows = value["categories"].as_array().expect("rows");
    let names: Vec<_> = rows.iter().map(|row| (row["category"].as_str(), row["prompts"][0]["id"].as_str())).collect();
    let (a, b) = ((Some("a"), Some("a-1")), (Some("b"), Some("b-1")));
    assert_eq!(names, [a, a, b, b], "one prompt of each category, both configurations");
    assert_eq!(value["overall"][1]["mean_acceptance_length"], 1.0, "plain decoding is one token a pass");
    let drafts = &value["overall"][0]["drafters"]["ngram"];
    let (accepted, drafted) =
        (drafts["accepted"].as_u64().expect("a count"), drafts["drafted"].as_u64().expect("a count"));
    assert!(accepted > 0 && accepted < drafted, "{accepted} of {drafted}: nothing was shown");

    // What was measured is what a replay may cost.
    let report = File::new("report.json", &output.stdout);
    let page = File::new("report.html", b"");
    let replay = ["bench", "--replay", traces.path(), "--cost", report.path(), "--html", page.path()];
    let replayed = json(&foredraft(&[&replay[..], &arms].concat()));
    assert_eq!(replayed["verify_cost"]["1"], 1.0);
    let html = std::fs::read_to_string(page.path()).expect("written");
    for part in ["drafter=ngram,length=fixed", "c(k)", "Accepted by position", "of the oracle"] {
        assert!(html.contains(part), "{part:?} is missing in {html}");
    }
    assert!(!html.contains("src=") && !html.contains("href="), "the page needs nothing else");
    let shares = replayed["overall"].as_array().expect("rows").iter().map(|row| &row["share_of_oracle"]);
    let shares: Vec<f64> = shares.map(|share| share.as_f64().expect("a number")).collect();
    assert!(shares.iter().all(|&share| share > 0.0 && share <= 1.0), "nobody is better than the oracle: {shares:?}");
    for (engine, replay) in rows.iter().zip(replayed["categories"].as_array().expect("rows")) {
        let length = |row: &Value| row["mean_acceptance_length"].as_f64().expect("a number");
        assert!((length(engine) / length(replay) - 1.0).abs() <= 0.03, "{engine:#} in the engine, {replay:#} replayed");
        assert_eq!((&engine["tokens"], &engine["rounds"]), (&replay["tokens"], &replay["rounds"]));
    }
    let text = foredraft(&[&["bench", "--replay", traces.path()], &arms[..4]].concat());
    let table = String::from_utf8_lossy(&text.stdout).into_owned();
    for part in ["drafter=ngram,length=fixed (same-tokens", "tokens/pass", "ngram ", "geometric mean"] {
        assert!(table.contains(part), "{part:?} is missing in {table}");
    }
}

#[test]
fn bench_refuses_what_it_cannot_measure() {
    let traces = File::new("few.json", br#"[{"id":"a-1","category":"a","prompt":[1,2],"answer":[1,2,1,2]}]"#);
    let broken = File::new("broken.json", br#"[{"id":"a-1"}]"#);
    let silent = File::new("silent.json", br#"[{"id":"a-1","category":"a","prompt":[1,2],"answer":[]}]"#);
    let code = |args: &[&str]| {
        let output = foredraft(&[&["bench", "--json"], args].concat());
        assert!(!output.status.success(), "{args:?} must fail");
        json(&output)["error"]["code"].as_str().expect("a code").to_owned()
    };
    assert_eq!(code(&["--suite", broken.path()]), "bad_option");
    assert_eq!(code(&["--replay", broken.path()]), "bad_option");
    assert_eq!(code(&["--replay", "no/such/file.json"]), "io");
    assert_eq!(code(&["--replay", silent.path()]), "bad_option");
    assert_eq!(code(&["--replay", traces.path(), "--max-tokens", "0"]), "bad_option");
    assert_eq!(code(&["--replay", traces.path(), "--cost", broken.path()]), "bad_option");
    assert_eq!(code(&["--replay", traces.path(), "--cost", "no-such-device"]), "io");
    let replay = ["--replay", traces.path(), "--speculation"];
    assert_eq!(code(&[&replay[..], &["drafter=magic"]].concat()), "bad_option");
    assert_eq!(code(&[&replay[..], &["drafter=model"]].concat()), "bad_option");
    assert_eq!(code(&[&replay[..], &["accept=typical"]].concat()), "bad_option");
    assert_eq!(code(&[&replay[..], &["corpus=some text"]].concat()), "bad_option");
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
    assert_eq!(code(&[&run[..], &["--json-schema", broken.path()]].concat()), "schema");
    let schema = File::new("errors.json", br#"{ "type": "strong" }"#);
    assert_eq!(code(&[&run[..], &["--json-schema", schema.path()]].concat()), "schema");
}

#[test]
fn generate_keeps_to_a_schema() {
    let model = File::new("schema.gguf", &gguf::tiny_llama());
    let schema = File::new("schema.json", br#"{ "enum": ["yes", "no"] }"#);
    let args = ["generate", "hi", "--device", "cpu", "--json", "--model", model.path(), "--json-schema", schema.path()];
    let value = json(&foredraft(&args));
    assert!(["\"yes\"", "\"no\""].contains(&value["text"].as_str().expect("a text")), "{value:#}");
    assert_eq!(value["finish_reason"], "stop");
    assert!(value["redrawn_tokens"].as_u64().expect("a count") > 0, "{value:#}");
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
