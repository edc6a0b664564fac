//! What a user may ask of speculation: the same as a string on the command line, in JSON and in TypeScript.

use super::contract;
use super::methods::{self, METHODS, Setup};
use super::round::{Parts, Speculator};
use crate::error::{Error, Result};
use crate::plan::MAX_NODES;
use serde_json::Value;
use std::collections::BTreeMap;

/// Drafters of `auto`, in their order; a draft model, if one is loaded, comes last. Of the drafters that need no download
/// `suffix` finds whatever the others that copy would find; `recycling` behind it adds nothing on recorded answers, and its
/// row statistics cost a plain step 0.7 of 17 ms on a CPU.
pub const AUTO_DRAFTERS: [&str; 1] = ["suffix"];
/// Most bytes of `corpus`, in UTF-8.
const MAX_CORPUS_BYTES: usize = 16 << 20;

/// `off`, `auto`, or `KEY=VALUE,…`; in JSON also an object with the same keys. Names are those of [`METHODS`].
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct SpeculationConfig {
    /// Drafters in the order they are asked; `None` is `auto`; empty is `off`.
    pub drafter: Option<Vec<String>>,
    /// The acceptance rule; `auto` is always `match`.
    pub accept: String,
    /// The length policy.
    pub length: String,
    /// The estimator of P(accepted), of policies that use one; `auto` leaves it to the policy.
    pub estimator: String,
    /// Where drafts end beyond what the length policy says: `none`, or `syntax`.
    pub stop_at: String,
    /// The shape of the tree.
    pub tree: String,
    /// The selector among drafters.
    pub select: String,
    /// What draft models look at of their cache.
    pub kv: String,
    /// Tokens to draft a round at most, 0 to 31; `None` leaves it to policy and drafter.
    pub num_speculative_tokens: Option<usize>,
    /// The text that the drafter `corpus` copies from, at most 16 MiB in UTF-8.
    pub corpus: Option<String>,
    /// Numbers of the methods, by the keys that they declare.
    pub options: BTreeMap<String, f64>,
}

impl Default for SpeculationConfig {
    /// `auto`
    fn default() -> Self {
        SpeculationConfig {
            drafter: None,
            accept: "auto".to_owned(),
            length: "goodput".to_owned(),
            estimator: "auto".to_owned(),
            stop_at: "none".to_owned(),
            tree: "chain".to_owned(),
            select: "cascade".to_owned(),
            kv: "full".to_owned(),
            num_speculative_tokens: None,
            corpus: None,
            options: BTreeMap::new(),
        }
    }
}

impl SpeculationConfig {
    /// Plain decoding.
    pub fn off() -> Self {
        SpeculationConfig { drafter: Some(Vec::new()), ..Self::default() }
    }

    /// With a text for the drafter `corpus`; an error where it is too long.
    pub fn with_corpus(self, text: String) -> Result<Self> {
        SpeculationConfig { corpus: Some(text), ..self }.check()
    }

    /// Names of the drafters to use; an error where one needs a draft model and none is loaded.
    pub fn drafters(&self, draft_model: bool) -> Result<Vec<String>> {
        let Some(names) = &self.drafter else {
            let model = draft_model.then_some("model");
            return Ok(AUTO_DRAFTERS.into_iter().chain(model).map(str::to_owned).collect());
        };
        match names.iter().find(|name| methods::needs_draft_model(name)) {
            Some(name) if !draft_model => Err(Error::BadOption {
                name: "speculation.drafter".to_owned(),
                found: name.clone(),
                expected: "a drafter that needs no draft model, or a draft model to be loaded".to_owned(),
            }),
            _ => Ok(names.clone()),
        }
    }

    /// Layers of the target that the drafter `self` runs, of `layers`; `None` where it is not asked for.
    pub fn exit_layers(&self, layers: usize) -> Option<usize> {
        let wanted = self.drafter.iter().flatten().any(|name| methods::parts(name).any(|part| part == "self"));
        let given = Setup::new(self).count("self_layers");
        wanted.then(|| if given == 0 { (2 * layers).div_ceil(3) } else { given.min(layers) })
    }

    /// Makes the parts and checks that together they keep what the rule promises.
    pub fn speculator(&self, setup: Setup<'_>) -> Result<Speculator> {
        let setup = Setup { config: self, ..setup };
        let mut names = self.drafters(setup.draft.is_some())?;
        if setup.schema && self.drafter.is_none() {
            // The first drafter of a spine is the one whose copies it follows.
            let at = usize::from(self.tree == "spine");
            names.insert(at.min(names.len()), "grammar".to_owned());
        }
        if self.num_speculative_tokens == Some(0) {
            names.clear();
        }
        let parts = Parts {
            drafters: names.iter().map(|name| setup.drafter(name)).collect::<Result<_>>()?,
            length: setup.stop_at(&self.stop_at, setup.length(&self.length)?)?,
            shape: setup.shape(&self.tree)?,
            rule: setup.rule(&self.accept)?,
            selector: setup.selector(&self.select)?,
        };
        contract::check(&parts)?;
        let reason = match () {
            () if self.num_speculative_tokens == Some(0) => "off: num_speculative_tokens is 0".to_owned(),
            () if names.is_empty() => "off: as configured".to_owned(),
            () => format!("on: drafts by {}", names.join(", then ")),
        };
        Ok(Speculator::new(parts, reason))
    }

    /// Takes one key with its value; anything but `options` by name, the rest as numbers of methods.
    fn set(&mut self, key: &str, value: &Value) -> Result<()> {
        let bad = |expected: &str| Error::BadOption {
            name: format!("speculation.{key}"),
            found: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            expected: expected.to_owned(),
        };
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| bad("a name"));
        match key {
            "drafter" => {
                let names: Vec<String> = match value {
                    Value::String(names) => names.split('+').map(|name| name.trim().to_owned()).collect(),
                    Value::Array(names) => names
                        .iter()
                        .map(|name| name.as_str().map(str::to_owned))
                        .collect::<Option<_>>()
                        .ok_or_else(|| bad("names"))?,
                    _ => return Err(bad("names")),
                };
                self.drafter = Some(names);
            }
            "accept" => self.accept = text()?,
            "length" => self.length = text()?,
            "estimator" => self.estimator = text()?,
            "stop_at" => self.stop_at = text()?,
            "tree" => self.tree = text()?,
            "select" => self.select = text()?,
            "kv" => self.kv = text()?,
            "corpus" => self.corpus = Some(text()?),
            "num_speculative_tokens" => {
                let count = number(value).filter(|n| n.fract() == 0.0 && (0.0..MAX_NODES as f64).contains(n));
                self.num_speculative_tokens = Some(count.ok_or_else(|| bad("a whole number, 0 to 31"))? as usize);
            }
            _ => {
                let spec = methods::spec(key).ok_or_else(|| Error::BadOption {
                    name: "speculation".to_owned(),
                    found: key.to_owned(),
                    expected: format!("off, auto or a list of {}", keys().join(", ")),
                })?;
                let expected = || format!("a number, {} to {}", spec.min, spec.max);
                let number =
                    number(value).filter(|n| (spec.min..=spec.max).contains(n)).ok_or_else(|| bad(&expected()))?;
                self.options.insert(key.to_owned(), number);
            }
        }
        Ok(())
    }

    /// Every name is one, and what does not depend on a model can be made.
    fn check(self) -> Result<Self> {
        let setup = Setup::new(&self);
        for name in self.drafter.iter().flatten() {
            for part in methods::parts(name) {
                methods::find("drafter", part).ok_or_else(|| methods::unknown("drafter", name))?;
            }
        }
        setup.length(&self.length)?;
        if self.estimator != "auto" {
            setup.estimator(&self.estimator)?;
        }
        if self.stop_at != "none" {
            methods::find("stop_at", &self.stop_at).ok_or_else(|| methods::unknown("stop_at", &self.stop_at))?;
        }
        setup.rule(&self.accept)?;
        setup.shape(&self.tree)?;
        setup.selector(&self.select)?;
        setup.kv_view()?;
        if self.corpus.as_ref().is_some_and(|text| text.len() > MAX_CORPUS_BYTES) {
            return Err(Error::BadOption {
                name: "speculation.corpus".to_owned(),
                found: format!("{} bytes", self.corpus.as_ref().map_or(0, String::len)),
                expected: format!("at most {MAX_CORPUS_BYTES} bytes"),
            });
        }
        Ok(self)
    }
}

/// Every key there is, with what it names.
fn keys() -> Vec<String> {
    let named = ["drafter", "accept", "length", "estimator", "stop_at", "tree", "select", "kv"];
    let names = named.iter().map(|key| format!("{key}={}", methods::names(key).join("|")));
    let options = METHODS.iter().flat_map(|method| method.options).map(|option| option.key.to_owned());
    names.chain(["num_speculative_tokens".to_owned(), "corpus".to_owned()]).chain(options).collect()
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        Value::Bool(on) => Some(f64::from(u8::from(*on))),
        _ => None,
    }
    .filter(|number: &f64| number.is_finite())
}

impl std::str::FromStr for SpeculationConfig {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut config = SpeculationConfig::default();
        match text.trim() {
            "auto" | "" => return Ok(config),
            "off" => return Ok(SpeculationConfig::off()),
            _ => {}
        }
        for pair in text.split(',') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            config.set(key.trim(), &Value::String(value.trim().to_owned())).map_err(|error| match error {
                // Most likely the rest of the text.
                Error::BadOption { name, found, .. } if name == "speculation" && config.corpus.is_some() => {
                    let expected = "a key, as corpus=TEXT ends at its first comma: \
                                    give a text with commas as JSON or by --corpus FILE";
                    Error::BadOption { name, found, expected: expected.to_owned() }
                }
                error => error,
            })?;
        }
        config.check()
    }
}

impl TryFrom<Value> for SpeculationConfig {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        match value {
            Value::String(text) => text.parse(),
            Value::Object(keys) => {
                let mut config = SpeculationConfig::default();
                for (key, value) in keys.iter().filter(|(_, value)| !value.is_null()) {
                    config.set(key, value)?;
                }
                config.check()
            }
            other => Err(Error::BadOption {
                name: "speculation".to_owned(),
                found: other.to_string(),
                expected: "a string or an object".to_owned(),
            }),
        }
    }
}

impl std::convert::From<SpeculationConfig> for Value {
    fn from(config: SpeculationConfig) -> Value {
        let mut object = serde_json::Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        if let Some(names) = config.drafter {
            put("drafter", names.into());
        }
        put("accept", config.accept.into());
        put("length", config.length.into());
        put("estimator", config.estimator.into());
        put("stop_at", config.stop_at.into());
        put("tree", config.tree.into());
        put("select", config.select.into());
        put("kv", config.kv.into());
        if let Some(count) = config.num_speculative_tokens {
            put("num_speculative_tokens", count.into());
        }
        if let Some(corpus) = config.corpus {
            put("corpus", corpus.into());
        }
        for (key, value) in config.options {
            put(&key, value.into());
        }
        Value::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_objects_mean_the_same() {
        let text: SpeculationConfig =
            "drafter=ngram+model,num_speculative_tokens=5,prompt_lookup_max=3".parse().expect("valid");
        let json: SpeculationConfig =
            serde_json::from_str(r#"{"drafter":["ngram","model"],"num_speculative_tokens":5,"prompt_lookup_max":3}"#)
                .expect("valid");
        assert_eq!(text, json);
        let written = serde_json::to_string(&text).expect("valid");
        assert_eq!(serde_json::from_str::<SpeculationConfig>(&written).expect("valid"), text, "{written}");
        assert_eq!(serde_json::from_str::<SpeculationConfig>("\"off\"").expect("valid"), SpeculationConfig::off());
    }

    #[test]
    fn a_corpus_has_a_limit_in_bytes() {
        let most = "é".repeat(MAX_CORPUS_BYTES / 2);
        let too_long = SpeculationConfig::default().with_corpus(format!("{most}e")).expect_err("a byte too many");
        assert_eq!(too_long.code(), "bad_option");
        assert!(SpeculationConfig::default().with_corpus(most).is_ok());
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_is() {
        let bad =
            ["drafter=magic", "num_speculative_tokens=32", "tokens=3", "prompt_lookup_min=0", "fast", "accept=luck"];
        for text in bad {
            let error = text.parse::<SpeculationConfig>().expect_err(text);
            assert_eq!(error.code(), "bad_option", "{text}: {error}");
        }
        for text in ["drafter=reuse(ngram", "estimator=platt(ema", "drafter=reuse(magic)"] {
            text.parse::<SpeculationConfig>().expect_err(text);
        }
        let inner = |text: &str| text.parse::<SpeculationConfig>().expect("valid");
        assert_eq!(inner("drafter=reuse(self),self_layers=3").exit_layers(9), Some(3), "also in brackets");
        assert!(inner("drafter=reuse(model)").drafters(false).is_err());
        let error = "drafter=magic".parse::<SpeculationConfig>().expect_err("no such drafter");
        assert!(error.to_string().contains("ngram"), "{error}");
        let error = "drafter=corpus,corpus=Dear Ann, hello".parse::<SpeculationConfig>().expect_err("a comma");
        assert!(
            error.to_string().contains("hello, expected") && error.to_string().contains("--corpus FILE"),
            "{error}"
        );
        let error = "hello,corpus=Dear Ann".parse::<SpeculationConfig>().expect_err("no such key");
        assert!(!error.to_string().contains("--corpus FILE"), "{error}");
    }
}
