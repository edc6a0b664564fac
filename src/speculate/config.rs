//! What a user may ask of speculation: the same as a string on the command line, in JSON and in TypeScript.

use crate::error::{Error, Result};
use crate::plan::MAX_COLUMNS;

/// Drafters by name.
pub const DRAFTERS: [&str; 2] = ["ngram", "model"];

/// `off`, `auto`, or `KEY=VALUE,…`; in JSON also an object with the same keys.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Raw")]
pub struct SpeculationConfig {
    /// Drafters in the order they are asked; `None` is `auto`: all that need no download, then the draft model if one is
    /// loaded; empty is `off`.
    pub drafter: Option<Vec<String>>,
    /// Tokens to draft a round, 0 to 15; `None` leaves it to the drafter.
    pub num_speculative_tokens: Option<usize>,
    /// Shortest n-gram of `ngram`.
    pub prompt_lookup_min: usize,
    /// Longest n-gram of `ngram`.
    pub prompt_lookup_max: usize,
}

impl Default for SpeculationConfig {
    /// `auto`
    fn default() -> Self {
        SpeculationConfig { drafter: None, num_speculative_tokens: None, prompt_lookup_min: 2, prompt_lookup_max: 4 }
    }
}

impl SpeculationConfig {
    /// Plain decoding.
    pub fn off() -> Self {
        SpeculationConfig { drafter: Some(Vec::new()), ..Self::default() }
    }

    /// Names of the drafters to use; an error where one needs a draft model and none is loaded.
    pub fn drafters(&self, draft_model: bool) -> Result<Vec<String>> {
        match &self.drafter {
            Some(names) if !draft_model && names.iter().any(|name| name == "model") => Err(Error::BadOption {
                name: "speculation.drafter".to_owned(),
                found: "model".to_owned(),
                expected: "ngram; or model, where a draft model is loaded".to_owned(),
            }),
            Some(names) => Ok(names.clone()),
            None => Ok(DRAFTERS[..if draft_model { 2 } else { 1 }].iter().map(|&name| name.to_owned()).collect()),
        }
    }

    fn check(self) -> Result<Self> {
        let bad = |name: &str, found: String, expected: &str| {
            Err(Error::BadOption { name: format!("speculation.{name}"), found, expected: expected.to_owned() })
        };
        for name in self.drafter.iter().flatten() {
            if !DRAFTERS.contains(&name.as_str()) {
                return bad("drafter", name.clone(), &format!("one of {}", DRAFTERS.join(", ")));
            }
        }
        if let Some(count) = self.num_speculative_tokens.filter(|&count| count >= MAX_COLUMNS) {
            return bad("num_speculative_tokens", count.to_string(), "0 to 15");
        }
        if self.prompt_lookup_min == 0 || self.prompt_lookup_min > self.prompt_lookup_max || self.prompt_lookup_max > 64
        {
            let found = format!("{}..{}", self.prompt_lookup_min, self.prompt_lookup_max);
            return bad("prompt_lookup_min..max", found, "1 <= min <= max <= 64");
        }
        Ok(self)
    }
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
            let (key, value) =
                pair.split_once('=').map_or((pair.trim(), ""), |(key, value)| (key.trim(), value.trim()));
            let number = || {
                value.parse::<usize>().map_err(|_| Error::BadOption {
                    name: format!("speculation.{key}"),
                    found: value.to_owned(),
                    expected: "a whole number".to_owned(),
                })
            };
            match key {
                "drafter" => config.drafter = Some(value.split('+').map(str::to_owned).collect()),
                "num_speculative_tokens" => config.num_speculative_tokens = Some(number()?),
                "prompt_lookup_min" => config.prompt_lookup_min = number()?,
                "prompt_lookup_max" => config.prompt_lookup_max = number()?,
                _ => {
                    let keys = "drafter=ngram+model, num_speculative_tokens, prompt_lookup_min, prompt_lookup_max";
                    return Err(Error::BadOption {
                        name: "speculation".to_owned(),
                        found: pair.trim().to_owned(),
                        expected: format!("off, auto or a list of {keys}"),
                    });
                }
            }
        }
        config.check()
    }
}

/// The two forms in JSON.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Raw {
    Text(String),
    Keys(Keys),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    drafter: Option<Names>,
    num_speculative_tokens: Option<usize>,
    prompt_lookup_min: Option<usize>,
    prompt_lookup_max: Option<usize>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Names {
    One(String),
    Many(Vec<String>),
}

impl TryFrom<Raw> for SpeculationConfig {
    type Error = Error;

    fn try_from(raw: Raw) -> Result<Self> {
        let keys = match raw {
            Raw::Text(text) => return text.parse(),
            Raw::Keys(keys) => keys,
        };
        let default = SpeculationConfig::default();
        SpeculationConfig {
            drafter: keys.drafter.map(|names| match names {
                Names::One(name) => vec![name],
                Names::Many(names) => names,
            }),
            num_speculative_tokens: keys.num_speculative_tokens,
            prompt_lookup_min: keys.prompt_lookup_min.unwrap_or(default.prompt_lookup_min),
            prompt_lookup_max: keys.prompt_lookup_max.unwrap_or(default.prompt_lookup_max),
        }
        .check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_objects_mean_the_same() {
        let text: SpeculationConfig = "drafter=ngram+model,num_speculative_tokens=5".parse().expect("valid");
        let json: SpeculationConfig =
            serde_json::from_str(r#"{"drafter":["ngram","model"],"num_speculative_tokens":5}"#).expect("valid");
        assert_eq!(text, json);
        assert_eq!(serde_json::from_str::<SpeculationConfig>("\"off\"").expect("valid"), SpeculationConfig::off());
        for bad in ["drafter=magic", "num_speculative_tokens=16", "tokens=3", "prompt_lookup_min=0", "fast"] {
            let error = bad.parse::<SpeculationConfig>().expect_err(bad);
            assert_eq!(error.code(), "bad_option", "{bad}: {error}");
        }
    }
}
