//! Which tokens a JSON schema allows next, by [llguidance](https://github.com/guidance-ai/llguidance). Natively a part of
//! foredraft, in the browser a wasm of its own that is fetched when a request first needs it: it knows the bytes of tokens
//! and nothing of models.
//!
//! A schema is not trusted: its size, the grammar it becomes, the states of its automata and the work of each step are
//! bounded, and whatever goes beyond is an error.

#[cfg(target_arch = "wasm32")]
mod web;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{JsonCompileOptions, ParserFactory};
use serde_json::Value;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Longest schema that is read.
pub const MAX_SCHEMA_BYTES: usize = 256 << 10;
/// Longest token that takes part, in bytes, and those of all tokens: the trie holds no more.
const MAX_TOKEN_BYTES: usize = 1000;
const MAX_VOCABULARY_BYTES: usize = 1 << 22;
/// Bytes that are told of what has to come next: a draft needs no more.
const MAX_FORCED_BYTES: usize = 512;
/// What merging the parts of a schema with each other may take: llguidance copies what is said of all properties or items
/// for each that is named, and compares all alternatives of a `oneOf`, without counting either.
const MAX_MERGES: usize = 4_000_000;
/// States of all automata of a request at most, of 1 to 2 kB each.
const MAX_LEXER_STATES: usize = 20_000;
/// Said of a step beyond the limits.
const TOO_MUCH: &str = "a step of it takes more work than it may";
/// Length of a reason; what is longer is cut.
const MAX_REASON_BYTES: usize = 300;
/// Bytes that no text in UTF-8 begins with; the trie takes a word that does for a special token.
const NO_TEXT: u8 = 0xff;

/// What is wrong with a schema, or with a token at its place.
pub type Result<T> = std::result::Result<T, String>;

/// The tokens of a model, ready to be matched.
pub struct Vocabulary(Rc<Tokens>);

struct Tokens {
    factory: ParserFactory,
    /// Tokens that end a text, ascending.
    ends: Vec<u32>,
    size: usize,
    /// Tokens of the same bytes as another: the trie holds one of each.
    twins: Vec<(u32, u32)>,
}

impl Vocabulary {
    /// `tokens[i]` are the bytes that token i adds to a text, empty where it adds none; `ends` end one.
    pub fn new(tokens: &[&[u8]], ends: &[u32]) -> Result<Vocabulary> {
        let mut words: Vec<Vec<u8>> = tokens.iter().map(|bytes| bytes.to_vec()).collect();
        let is_end = |id: usize| ends.iter().any(|&end| end as usize == id);
        let mut known = HashMap::new();
        let mut twins = Vec::new();
        for (id, word) in words.iter_mut().enumerate() {
            if is_end(id) || word.first() == Some(&NO_TEXT) || word.len() > MAX_TOKEN_BYTES {
                word.clear();
            }
            if let Some(&twin) = known.get(word.as_slice()) {
                twins.push((twin, id as u32));
                word.clear();
            } else if !word.is_empty() {
                known.insert(word.clone(), id as u32);
            }
        }
        let bytes: usize = words.iter().map(Vec::len).sum();
        if bytes > MAX_VOCABULARY_BYTES {
            return Err(format!("the model's tokens have {bytes} bytes, expected at most {MAX_VOCABULARY_BYTES}"));
        }
        let info = TokRxInfo::new(words.len() as u32, ends.first().copied().unwrap_or(INVALID_TOKEN));
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
        let mut factory =
            ParserFactory::new(&environment, InferenceCapabilities::default(), &SlicedBiasComputer::json_slices())
                .map_err(reason)?;
        *factory.quiet().limits_mut() = ParserLimits {
            max_lexer_states: MAX_LEXER_STATES,
            precompute_large_lexemes: false,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Vocabulary(Rc::new(Tokens { factory, ends: ends.to_vec(), size: words.len(), twins })))
    }

    /// A text that the JSON schema allows, from its beginning: on one line, with a space after each comma and colon.
    pub fn matcher(&self, schema: &str) -> Result<Matcher> {
        if schema.len() > MAX_SCHEMA_BYTES {
            return Err(format!("it has {} bytes, expected at most {MAX_SCHEMA_BYTES}", schema.len()));
        }
        let mut schema: Value = serde_json::from_str(schema).map_err(reason)?;
        if !schema.is_object() {
            return Err(format!("it is {}, expected an object", kind(&schema)));
        }
        let merges = Merges::of(&schema).count();
        if merges > MAX_MERGES {
            return Err(format!("merging its parts takes {merges} steps, expected at most {MAX_MERGES}"));
        }
        let layout = JsonCompileOptions {
            item_separator: ", ".to_owned(),
            key_separator: ": ".to_owned(),
            whitespace_flexible: false,
            ..JsonCompileOptions::default()
        };
        layout.apply_to(&mut schema);
        let parser = self.0.factory.create_parser(TopLevelGrammar::from_json_schema(schema)).map_err(reason)?;
        let mut matcher = llguidance::Matcher::new(Ok(parser));
        // A schema that nothing satisfies, or whose first step is beyond the limits, is refused before the prompt is read.
        matcher.compute_mask().map_err(reason)?;
        let mut matcher = Matcher { tokens: Rc::clone(&self.0), matcher, forced: Vec::new() };
        matcher.force()?;
        Ok(matcher)
    }
}

/// What is merged of a schema at worst.
#[derive(Default)]
struct Merges {
    /// Properties and items that are named.
    named: usize,
    /// Values in what is said of all others.
    general: usize,
    /// Pairs of alternatives.
    pairs: usize,
}

impl Merges {
    fn of(schema: &Value) -> Merges {
        let mut merges = Merges::default();
        merges.add(schema, false);
        merges
    }

    /// The depth is that of the text, which its parser bounds.
    fn add(&mut self, value: &Value, general: bool) {
        self.general += usize::from(general);
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.add(item, general)),
            Value::Object(fields) => {
                for (key, value) in fields {
                    let entries = value.as_object().map_or(0, |of| of.len()).max(value.as_array().map_or(0, Vec::len));
                    match key.as_str() {
                        "properties" | "prefixItems" => self.named += entries,
                        "oneOf" => self.pairs += entries * entries,
                        _ => {}
                    }
                    let others = ["additionalProperties", "patternProperties", "items", "additionalItems"];
                    self.add(value, general || others.contains(&key.as_str()));
                }
            }
            _ => {}
        }
    }

    fn count(&self) -> usize {
        self.named.saturating_mul(self.general).saturating_add(self.pairs)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A text on its way through a schema.
pub struct Matcher {
    tokens: Rc<Tokens>,
    matcher: llguidance::Matcher,
    forced: Vec<u8>,
}

impl Matcher {
    /// Whether `token` may come next; one that ends the text where it is complete.
    pub fn allows(&mut self, token: u32) -> Result<bool> {
        if self.tokens.ends.contains(&token) {
            return self.may_end();
        }
        if token as usize >= self.tokens.size || self.complete() {
            return Ok(false);
        }
        let token = self.twin(token);
        self.matcher.validate_tokens(&[token]).map(|valid| valid == 1).map_err(reason)
    }

    /// `token` comes next; not one that ends the text.
    pub fn advance(&mut self, token: u32) -> Result<()> {
        let token = self.twin(token);
        self.matcher.consume_token(token).map_err(reason)?;
        self.force()
    }

    /// All tokens that may come next: bit `t % 32` of word `t / 32`.
    pub fn mask(&mut self) -> Result<Vec<u32>> {
        let mut words = vec![0; self.tokens.size.div_ceil(32)];
        if !self.complete() {
            let mask = self.matcher.compute_mask().map_err(reason)?;
            let known = mask.as_slice();
            let shared = known.len().min(words.len());
            words[..shared].copy_from_slice(&known[..shared]);
        }
        let bit = |token: u32| (token as usize / 32, 1 << (token % 32));
        for &(twin, token) in &self.tokens.twins {
            let ((from, first), (to, second)) = (bit(twin), bit(token));
            if words[from] & first != 0 {
                words[to] |= second;
            }
        }
        let may_end = self.may_end()?;
        for &end in self.tokens.ends.iter().filter(|&&end| (end as usize) < self.tokens.size) {
            let (word, bit) = bit(end);
            words[word] = if may_end { words[word] | bit } else { words[word] & !bit };
        }
        Ok(words)
    }

    /// Bytes that have to come next, whatever comes after them, the first of them.
    pub fn forced(&self) -> &[u8] {
        &self.forced
    }

    /// Looks ahead for as long as there is no choice. That has a limit too, so it is done after every token, whether anybody
    /// asks for it or not: a schema beyond it is refused with speculation and without.
    fn force(&mut self) -> Result<()> {
        self.forced.clear();
        if self.complete() {
            return Ok(());
        }
        self.forced = self.matcher.compute_ff_bytes();
        self.forced.truncate(MAX_FORCED_BYTES);
        match self.matcher.get_error() {
            Some(error) => Err(reason(error)),
            None => Ok(()),
        }
    }

    /// Whether nothing but the end can follow.
    pub fn complete(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }

    fn may_end(&mut self) -> Result<bool> {
        if self.complete() { Ok(true) } else { self.matcher.is_accepting().map_err(reason) }
    }

    /// The token of the same bytes that the trie holds.
    fn twin(&self, token: u32) -> u32 {
        let twins = &self.tokens.twins;
        twins.binary_search_by_key(&token, |twin| twin.1).map_or(token, |at| twins[at].0)
    }
}

/// The crate's own words, without what it adds for its developers.
fn reason(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    let text = text.split("\n<").next().unwrap_or_default().trim();
    match text {
        "NoExtensionBias" => "no text satisfies it".to_owned(),
        "ParserTooComplex" | "LexerTooComplex" => TOO_MUCH.to_owned(),
        _ if text.contains("Too many items") => TOO_MUCH.to_owned(),
        // Some print the grammar.
        _ if text.len() > MAX_REASON_BYTES => text.chars().take(MAX_REASON_BYTES).chain(['…']).collect(),
        _ => text.to_owned(),
    }
}
