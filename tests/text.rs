//! Text: tokens and templates against fixtures made by programs from outside (`fixtures/make.py`), and the properties of
//! the streams that bring tokens back to text.

use foredraft::error::{Error, Result};
use foredraft::store::{ByteSource, LocalFuture};
use foredraft::text::detokenizer::Detokenizer;
use foredraft::text::stop::StopMatcher;
use foredraft::text::template::ChatTemplate;
use foredraft::text::tokenizer::Tokenizer;
use foredraft::weights::gguf::read_header;
use foredraft::weights::metadata::{Metadata, Value};
use futures_lite::future::block_on;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::io::{Read, Seek, SeekFrom};
use std::sync::LazyLock;

struct File {
    name: String,
    file: std::fs::File,
}

impl ByteSource for File {
    fn name(&self) -> &str {
        &self.name
    }
    fn len_bytes(&self) -> Option<u64> {
        self.file.metadata().ok().map(|metadata| metadata.len())
    }
    fn read(&mut self, offset: u64, len: usize) -> LocalFuture<'_, Result<Vec<u8>>> {
        let mut out = Vec::new();
        self.file.seek(SeekFrom::Start(offset)).expect("the model file can be read");
        (&self.file).take(len as u64).read_to_end(&mut out).expect("the model file can be read");
        Box::pin(async move { Ok(out) })
    }
}

/// The metadata of a test model.
fn metadata(name: &str) -> Metadata {
    let folder = std::env::var("FOREDRAFT_TEST_MODELS")
        .expect("FOREDRAFT_TEST_MODELS names the folder with the test models: tests/run.sh fetches them and sets it");
    let path = std::path::Path::new(&folder).join(name);
    let file = std::fs::File::open(&path).unwrap_or_else(|error| {
        panic!("{}: {error}: tests/run.sh fetches the test models", path.display());
    });
    let mut source = File { name: name.to_owned(), file };
    block_on(read_header(&mut source)).expect("a GGUF header").metadata
}

static SMOLLM2: LazyLock<Metadata> = LazyLock::new(|| metadata("smollm2-135m-instruct.gguf"));
static GEMMA3: LazyLock<Metadata> = LazyLock::new(|| metadata("gemma-3-270m.gguf"));
static SMOLLM2_TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_metadata(&SMOLLM2).unwrap());
static GEMMA3_TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_metadata(&GEMMA3).unwrap());

fn with(metadata: &Metadata, key: &str, value: Value) -> Metadata {
    let mut changed = metadata.clone();
    changed.values.insert(key.to_owned(), value);
    changed
}

fn fixture(text: &str) -> Json {
    serde_json::from_str(text).expect("a fixture is JSON")
}

/// Every case of a fixture has the ids that llama.cpp gives it.
fn check_ids(name: &str, tokenizer: &Tokenizer, cases: &Json) {
    let cases = cases.as_array().expect("cases");
    assert!(cases.len() >= 80, "{name}: {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let text = case["text"].as_str().expect("a text");
        let special = case["special"].as_bool().expect("a bool");
        let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).expect("ids");
        let found = tokenizer.encode(text, special).unwrap();
        if found != expected {
            let show = |ids: &[u32]| ids.iter().map(|&id| tokenizer.token_text(id).to_owned()).collect::<Vec<_>>();
            wrong.push(format!(
                "{text:?} special={special}:\n  ours  {:?}\n  other {:?}",
                show(&found),
                show(&expected)
            ));
        }
    }
    assert!(wrong.is_empty(), "{name}: {} of {} differ\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn smollm2_ids_are_llama_cpps() {
    let fixture = fixture(include_str!("fixtures/tokens_smollm2.json"));
    check_ids("smollm2", &SMOLLM2_TOKENIZER, &fixture["cases"]);
}

#[test]
fn gemma3_ids_are_llama_cpps() {
    let fixture = fixture(include_str!("fixtures/tokens_gemma3.json"));
    check_ids("gemma3", &GEMMA3_TOKENIZER, &fixture["cases"]);
}

/// llama.cpp takes `</s>` for an end token wherever it finds it, so it differs here: in Gemma's file it is user-defined, an
/// HTML tag like any other, and the model was trained so.
#[test]
fn user_defined_tokens_are_matched_as_the_file_says() {
    let tokenizer = &*GEMMA3_TOKENIZER;
    for text in ["</s>", "<s>", "<table>"] {
        let tokens = tokenizer.encode(&format!("x{text} y"), false).unwrap();
        let texts: Vec<_> = tokens.iter().map(|&token| tokenizer.token_text(token)).collect();
        assert_eq!(texts, ["x", text, "\u{2581}y"]);
        assert!(!tokenizer.is_end(tokens[1]));
    }
}

#[test]
fn other_pre_tokenizers_and_the_space_prefix_are_llama_cpps() {
    let fixture = fixture(include_str!("fixtures/tokens_variants.json"));
    for (pre, cases) in fixture["pre"].as_object().expect("styles") {
        let metadata = with(&SMOLLM2, "tokenizer.ggml.pre", Value::String(pre.clone()));
        check_ids(pre, &Tokenizer::from_metadata(&metadata).unwrap(), cases);
    }
    let metadata = with(&GEMMA3, "tokenizer.ggml.add_space_prefix", Value::Bool(true));
    let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
    check_ids("add_space_prefix", &tokenizer, &fixture["add_space_prefix"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode("two words", false).unwrap()), "two words");
    assert_eq!(tokenizer.decode(&tokenizer.encode(" two words", false).unwrap()), " two words");
    let mut tokens = vec![tokenizer.bos().unwrap()];
    tokens.extend(tokenizer.encode("two words", false).unwrap());
    assert_eq!(tokenizer.decode(&tokens), "two words");
}

#[test]
fn tokens_come_back_as_the_text() {
    for (tokenizer, fixture) in [
        (&*SMOLLM2_TOKENIZER, fixture(include_str!("fixtures/tokens_smollm2.json"))),
        (&*GEMMA3_TOKENIZER, fixture(include_str!("fixtures/tokens_gemma3.json"))),
    ] {
        for case in fixture["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let tokens = tokenizer.encode(text, false).unwrap();
            // SentencePiece writes a space as U+2581, so it cannot tell the two apart; SmolLM2 has no token for some
            // bytes that UTF-8 hardly uses, and its trainer dropped them.
            let missing = text.contains('\u{2581}') || text.contains('\u{0}') || text.contains('\u{1f}');
            if !missing {
                assert_eq!(tokenizer.decode(&tokens), text);
            }
        }
    }
}

#[test]
fn special_tokens_are_known() {
    let tokenizer = &*SMOLLM2_TOKENIZER;
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(1), Some(2), false));
    assert_eq!(tokenizer.end_tokens(), [0, 2]);
    assert_eq!(tokenizer.vocabulary(), 49_152);
    assert_eq!((tokenizer.token_text(2), tokenizer.token_bytes(2)), ("<|im_end|>", &b""[..]));
    let tokenizer = &*GEMMA3_TOKENIZER;
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(2), Some(1), true));
    assert_eq!(tokenizer.end_tokens(), [1, 106]);
    assert!(tokenizer.is_end(106) && !tokenizer.is_end(105));
    assert_eq!(tokenizer.vocabulary(), 262_144);
    assert_eq!(tokenizer.token_bytes(238 + 0xe2), b"\xe2");
    assert_eq!((tokenizer.token_text(262_144), tokenizer.token_bytes(u32::MAX)), ("", &b""[..]));
}

#[test]
fn no_text_becomes_a_control_token_unasked() {
    for tokenizer in [&*SMOLLM2_TOKENIZER, &*GEMMA3_TOKENIZER] {
        let controls: Vec<u32> =
            (0..tokenizer.vocabulary() as u32).filter(|&id| tokenizer.token_bytes(id).is_empty()).collect();
        assert!(controls.len() > 10);
        for &control in &controls {
            let text = tokenizer.token_text(control);
            let tokens = tokenizer.encode(text, false).unwrap();
            assert!(tokens.iter().all(|token| !controls.contains(token)), "{text}");
            assert_eq!(tokenizer.decode(&tokens), text);
            assert_eq!(tokenizer.encode(text, true).unwrap(), [control]);
        }
    }
}

#[test]
fn a_draft_of_another_vocabulary_is_told_apart() {
    let (smollm2, gemma3) = (&*SMOLLM2_TOKENIZER, &*GEMMA3_TOKENIZER);
    assert_eq!(smollm2.difference(smollm2), None);
    let difference = gemma3.difference(smollm2).unwrap();
    assert_eq!(difference, "262144 tokens in the target, 49152 in the draft");
    let changed = Tokenizer::from_metadata(&with(&SMOLLM2, "tokenizer.ggml.eos_token_id", Value::Uint(0))).unwrap();
    assert_eq!(smollm2.difference(&changed).unwrap(), "eos is 2 in the target, 0 in the draft");
    let mut tokens = SMOLLM2.strings("tokenizer.ggml.tokens").unwrap().to_vec();
    tokens[5] = "<other>".to_owned();
    let changed = Tokenizer::from_metadata(&with(&SMOLLM2, "tokenizer.ggml.tokens", Value::Strings(tokens))).unwrap();
    let difference = smollm2.difference(&changed).unwrap();
    assert_eq!(difference, "token 5 is \"<file_sep>\" in the target, \"<other>\" in the draft");
}

/// A small SentencePiece vocabulary: `<unk>`, `<s>`, `</s>`, bytes, and some pieces with scores.
fn small() -> Metadata {
    let mut tokens = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    let mut kinds = vec![2, 3, 3];
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    kinds.extend([6; 256]);
    let mut scores = vec![0.0; tokens.len()];
    for (piece, score) in [("a", -10.0), ("b", -11.0), ("\u{2581}", -12.0), ("ab", -1.0), ("ba", -2.0), ("aba", -3.0)] {
        tokens.push(piece.to_owned());
        kinds.push(1);
        scores.push(score);
    }
    let values = [
        ("tokenizer.ggml.model", Value::String("llama".into())),
        ("tokenizer.ggml.tokens", Value::Strings(tokens)),
        ("tokenizer.ggml.token_type", Value::Ints(kinds)),
        ("tokenizer.ggml.scores", Value::Floats(scores)),
    ];
    Metadata { what: "small".into(), values: values.map(|(key, value)| (key.to_owned(), value)).into() }
}

#[test]
fn the_pair_with_the_best_score_is_merged_first() {
    let metadata = with(&small(), "tokenizer.ggml.add_space_prefix", Value::Bool(false));
    let tokenizer = Tokenizer::from_metadata(&metadata).unwrap();
    let texts = |text: &str| -> Vec<String> {
        tokenizer.encode(text, false).unwrap().iter().map(|&id| tokenizer.token_text(id).to_owned()).collect()
    };
    assert_eq!(texts("ab"), ["ab"]);
    assert_eq!(texts("aba"), ["aba"]);
    // "ab" at 0 and at 2 before any "ba".
    assert_eq!(texts("abab"), ["ab", "ab"]);
    assert_eq!(texts("baab"), ["ba", "ab"]);
    assert_eq!(texts("a\u{e9}"), ["a", "<0xC3>", "<0xA9>"]);
    assert_eq!(texts("a b"), ["a", "\u{2581}", "b"]);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(1), Some(2), true));
    let prefixed = Tokenizer::from_metadata(&small()).unwrap();
    let tokens = prefixed.encode("b<s>b", true).unwrap();
    assert_eq!(
        tokens.iter().map(|&id| prefixed.token_text(id)).collect::<Vec<_>>(),
        ["\u{2581}", "b", "<s>", "\u{2581}", "b"]
    );
}

#[test]
fn hostile_vocabularies_are_refused_by_name() {
    let refuse = |metadata: &Metadata, key: &str, value: Option<Value>, parts: &[&str]| {
        let mut metadata = metadata.clone();
        match value {
            Some(value) => metadata.values.insert(key.to_owned(), value),
            None => metadata.values.remove(key),
        };
        let error = Tokenizer::from_metadata(&metadata).err().unwrap_or_else(|| panic!("{key}: accepted"));
        assert!(matches!(error, Error::BadHeader { .. } | Error::Tokenizer { .. }), "{error:?}");
        for part in parts {
            assert!(error.to_string().contains(part), "{error} does not say {part}");
        }
    };
    let small = small();
    let strings = |values: &[&str]| Some(Value::Strings(values.iter().map(|&value| value.to_owned()).collect()));
    let tokens = "tokenizer.ggml.tokens";
    refuse(&small, tokens, None, &[tokens, "missing"]);
    refuse(&small, tokens, strings(&[]), &[tokens, "empty"]);
    refuse(&small, tokens, strings(&["a"]), &["tokenizer.ggml.token_type", "265 entries", "1 as tokens"]);
    let mut twice = small.strings(tokens).unwrap().to_vec();
    twice[264] = "ab".to_owned();
    refuse(&small, tokens, Some(Value::Strings(twice.clone())), &["tokens[264]", "\"ab\"", "token 262"]);
    twice[264] = "x".repeat(40_000);
    refuse(&small, tokens, Some(Value::Strings(twice.clone())), &["too long"]);
    twice[264] = "ok".to_owned();
    twice[3] = "<0xGG>".to_owned();
    refuse(&small, tokens, Some(Value::Strings(twice)), &["tokens[3]", "<0xGG>", "<0x00> to <0xFF>"]);
    let kinds = "tokenizer.ggml.token_type";
    refuse(&small, kinds, Some(Value::Ints(vec![7; 265])), &["token_type[0]", "7", "1 to 6"]);
    let scores = "tokenizer.ggml.scores";
    refuse(&small, scores, None, &[scores, "missing"]);
    refuse(&small, scores, Some(Value::Floats(vec![0.0; 3])), &[scores, "3 entries", "265"]);
    refuse(&small, scores, Some(Value::Floats(vec![f32::NAN; 265])), &[scores, "NaN"]);
    for key in ["bos", "eos", "eot", "eom", "unknown"] {
        let key = format!("tokenizer.ggml.{key}_token_id");
        refuse(&small, &key, Some(Value::Uint(265)), &[&key, "265", "below 265"]);
        refuse(&small, &key, Some(Value::Int(-1)), &[&key, "-1"]);
    }
    refuse(&small, "tokenizer.ggml.model", Some(Value::String("wordpiece".into())), &["wordpiece", "gpt2", "llama"]);
    refuse(&SMOLLM2, "tokenizer.ggml.pre", Some(Value::String("klingon".into())), &["klingon", "smollm", "qwen2"]);
    let merges = "tokenizer.ggml.merges";
    refuse(&SMOLLM2, merges, None, &[merges, "missing"]);
    refuse(&SMOLLM2, merges, strings(&["a"]), &["merges[0]", "two tokens"]);
    refuse(&SMOLLM2, merges, strings(&["i n", "zzzzq q"]), &["merges[1]", "zzzzq"]);
}

#[test]
fn templates_render_as_jinja2_does() {
    let fixture = fixture(include_str!("fixtures/templates.json"));
    let cases = fixture["cases"].as_array().unwrap();
    assert!(cases.len() >= 30, "{} cases", cases.len());
    for case in cases {
        let (template, chat) = (case["template"].as_str().unwrap(), case["chat"].as_str().unwrap());
        let source = fixture["templates"][template].as_str().unwrap();
        let chat_value = &fixture["chats"][chat];
        let generation = case["add_generation_prompt"].as_bool().unwrap();
        let compiled = ChatTemplate::new(source).unwrap();
        let rendered = compiled.render(&chat_value["messages"], chat_value.get("tools"), generation, "<s>", "</s>");
        match (case["rendered"].as_str(), rendered) {
            (Some(expected), Ok(found)) => assert_eq!(found, expected, "{template}, {chat}"),
            (None, Err(Error::Template { reason })) => {
                assert!(reason.contains(case["error"].as_str().unwrap()), "{template}, {chat}: {reason}");
            }
            (expected, found) => panic!("{template}, {chat}: {found:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn templates_come_from_the_file_or_not_at_all() {
    assert!(ChatTemplate::from_metadata(&GEMMA3).unwrap().is_none());
    let template = ChatTemplate::from_metadata(&SMOLLM2).unwrap().expect("SmolLM2 has a template");
    let messages =
        json!([{"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}]);
    let prompt = template.render(&messages, None, true, "", "").unwrap();
    assert!(prompt.ends_with("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"), "{prompt}");
    let tokens = SMOLLM2_TOKENIZER.encode(&prompt, true).unwrap();
    assert_eq!(tokens.iter().filter(|&&token| token == 1).count(), 3);
}

#[test]
fn wrong_messages_are_named() {
    let template = ChatTemplate::new("{{ messages[0].content }}").unwrap();
    let refuse = |messages: Json, parts: &[&str]| {
        let error = template.render(&messages, None, true, "", "").unwrap_err();
        assert!(matches!(error, Error::BadOption { .. }), "{error:?}");
        for part in parts {
            assert!(error.to_string().contains(part), "{error} does not say {part}");
        }
    };
    let user = json!({"role": "user", "content": "x"});
    refuse(json!("hello"), &["messages", "hello", "array"]);
    refuse(json!([]), &["messages", "[]"]);
    refuse(json!([user, 1]), &["messages[1]", "1", "object"]);
    refuse(json!([{"content": "x"}]), &["messages[0].role", "missing", "user"]);
    refuse(json!([user, {"role": "wizard", "content": "x"}]), &["messages[1].role", "wizard", "assistant"]);
    refuse(json!([{"role": "user"}]), &["messages[0].content", "missing"]);
    refuse(json!([{"role": "assistant", "content": null}]), &["messages[0].content"]);
    refuse(json!([{"role": "user", "content": 5}]), &["messages[0].content", "5", "string"]);
    refuse(
        json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]),
        &["messages[0].content[1].type", "image_url", "text"],
    );
    refuse(json!([{"role": "user", "content": [{"type": "text"}]}]), &["messages[0].content[0].text"]);
    let call = |arguments: Json| json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}]);
    refuse(call(json!("{not json")), &["messages[0].tool_calls[0].function.arguments", "JSON"]);
    let echo = ChatTemplate::new("{{ messages[0].tool_calls[0].function.arguments|tojson }}").unwrap();
    let rendered = echo.render(&call(json!("{\"b\":[1,2],\"a\":\"<é>\"}")), None, true, "", "").unwrap();
    assert_eq!(rendered, "{\"b\": [1, 2], \"a\": \"<é>\"}");
    let tools = json!([{"type": "function"}]);
    let error = template.render(&json!([user]), Some(&tools), true, "", "").unwrap_err();
    assert!(error.to_string().contains("tools[0]"), "{error}");
}

#[test]
fn hostile_templates_end_with_an_error() {
    let messages = json!([{"role": "user", "content": "x"}]);
    let run = |source: &str| ChatTemplate::new(source)?.render(&messages, None, true, "", "");
    let refuse = |source: &str, part: &str| match run(source) {
        Err(Error::Template { reason }) => assert!(reason.contains(part), "{source}: {reason}"),
        other => panic!("{source}: {other:?}"),
    };
    refuse("{% for i in range(10**9) %}{% endfor %}", "range");
    refuse("{% for i in range(90000) %}{% for j in range(90000) %}{{ '' }}{% endfor %}{% endfor %}", "budget");
    refuse("{% for i in range(90000) %}{{ 'x' * 90000 }}{% endfor %}", "bytes");
    refuse("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "");
    refuse("{% include 'chat_template' %}", "");
    refuse("{% include '/etc/passwd' %}", "");
    refuse("{{ raise_exception('no such role') }}", "no such role");
    refuse("\n\n{% for %}", "line 3");
    refuse(&format!("{{{{ {} }}}}", "(".repeat(100_000)), "");
    refuse(&"x".repeat(2 << 20), "1048576");
    refuse("{{ messages[0].nothing.more }}", "");
    assert_eq!(run(&"(".repeat(10)).unwrap(), "((((((((((");
    assert_eq!(run("{{ strftime_now('%Y')|length }}").unwrap(), "4");
}

/// Cuts `0..len` at some places.
fn cuts(len: usize) -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0..=len, 0..12).prop_map(move |mut cuts| {
        cuts.extend([0, len]);
        cuts.sort_unstable();
        cuts
    })
}

fn bytes_and_cuts() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    let text = "\\PC{0,24}".prop_map(String::into_bytes);
    // Mostly the bytes of which broken UTF-8 is made.
    let broken = proptest::collection::vec(
        prop_oneof![any::<u8>(), Just(0xe2), Just(0x82), Just(0xac), Just(0xf0), Just(0x9f), Just(0xed), Just(0xa0)],
        0..24,
    );
    prop_oneof![text, broken].prop_flat_map(|bytes| {
        let len = bytes.len();
        (Just(bytes), cuts(len))
    })
}

fn stops_and_text() -> impl Strategy<Value = (Vec<String>, String, Vec<usize>)> {
    // Few letters, so that beginnings of stop strings are everywhere; one of two bytes.
    (proptest::collection::vec("[abé]{1,4}", 0..4), "[abé]{0,24}").prop_flat_map(|(stops, text)| {
        let len = text.chars().count();
        (Just(stops), Just(text), cuts(len))
    })
}

/// What a stop list leaves of a text, by the definition: try every end in turn, the longest stop string first.
fn stopped_text(stops: &[String], text: &str) -> (String, bool) {
    for (end, _) in text.char_indices().skip(1).chain([(text.len(), ' ')]) {
        let ends = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
        if let Some(longest) = ends.map(String::len).max() {
            return (text[..end - longest].to_owned(), true);
        }
    }
    (text.to_owned(), false)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_of_any_bytes_gives_the_same_text((bytes, cuts) in bytes_and_cuts()) {
        let mut detokenizer = Detokenizer::new();
        let mut text = String::new();
        for pair in cuts.windows(2) {
            let before = text.len();
            text.push_str(&detokenizer.push(&bytes[pair[0]..pair[1]]));
            prop_assert!(detokenizer.held_bytes() <= 3);
            // All that came so far and was whole is out.
            let whole = String::from_utf8_lossy(&bytes[..pair[1] - detokenizer.held_bytes()]).into_owned();
            prop_assert_eq!(&text, &whole, "{}", before);
        }
        text.push_str(&detokenizer.finish());
        prop_assert_eq!(text, String::from_utf8_lossy(&bytes).into_owned());
        prop_assert_eq!(detokenizer.finish(), "");
    }

    #[test]
    fn stop_strings_do_not_depend_on_the_cuts((stops, text, cuts) in stops_and_text()) {
        let (expected, expected_stop) = stopped_text(&stops, &text);
        let mut matcher = StopMatcher::new(stops.clone()).unwrap();
        let chars: Vec<char> = text.chars().collect();
        let (mut out, mut stopped) = (String::new(), false);
        for pair in cuts.windows(2) {
            let pushed = matcher.push(&chars[pair[0]..pair[1]].iter().collect::<String>());
            out.push_str(&pushed.emit);
            stopped = pushed.stopped;
            if !stopped {
                // Nothing is held back that could not begin a stop string.
                let seen: String = chars[..pair[1]].iter().collect();
                let held = &seen[out.len()..];
                prop_assert!(held.is_empty() || stops.iter().any(|stop| stop.starts_with(held)), "held {held:?}");
            }
        }
        if !stopped {
            out.push_str(&matcher.finish());
        }
        prop_assert_eq!((out, stopped), (expected, expected_stop));
    }

    #[test]
    fn any_text_survives_gemmas_tokens(text in "(\\PC|[ \n\t]){0,40}") {
        // SentencePiece writes a space as U+2581 and cannot tell the two apart.
        let text = text.replace('\u{2581}', "");
        let tokens = GEMMA3_TOKENIZER.encode(&text, false).unwrap();
        prop_assert_eq!(GEMMA3_TOKENIZER.decode(&tokens), text);
    }
}

#[test]
fn stop_lists_are_checked() {
    let refuse = |stops: Vec<String>, part: &str| {
        let error = StopMatcher::new(stops).unwrap_err();
        assert!(matches!(&error, Error::BadOption { name, .. } if name.starts_with("stop")), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
    };
    refuse(vec!["a".into(), String::new()], "stop[1]");
    refuse(vec!["a".into(); 17], "17 strings");
    refuse(vec!["a".repeat(2000)], "2000 bytes");
    let mut matcher = StopMatcher::new(vec!["END".into(), "E".into()]).unwrap();
    let pushed = matcher.push("so E is first");
    assert_eq!((pushed.emit.as_str(), pushed.stopped), ("so ", true));
    assert_eq!((matcher.push("more").emit.as_str(), matcher.finish().as_str()), ("", ""));
}

#[test]
fn gemmas_merges_are_built_quickly() {
    let metadata = &*GEMMA3;
    let started = std::time::Instant::now();
    Tokenizer::from_metadata(metadata).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    println!("Gemma's tokenizer: {seconds:.2} s");
    // Under 1 s optimised on a quiet machine; the bound only tells it from a quadratic search.
    assert!(seconds < 120.0, "{seconds} s");
}
