//! Every method there is: one line here for each file that implements one.

use super::accept::{AcceptanceRule, Exactness};
use super::config::SpeculationConfig;
use super::drafters::Drafter;
use super::drafters::suffix_array::SuffixArray;
use super::drafters::suffix_store::SuffixStore;
use super::kv::KvView;
use super::length::{AcceptanceEstimator, LengthPolicy};
use super::memory::Memory;
use super::select::DraftSelector;
use super::shapes::TreeShape;
use super::{accept, drafters, kv, length, select, shapes};
use crate::error::{Error, Result};
use crate::model::Model;
use std::cell::RefCell;
use std::rc::Rc;

/// All methods, by kind and in the order in which they are listed.
pub static METHODS: &[&Method] = &[
    &drafters::suffix::METHOD,
    &drafters::sam::METHOD,
    &drafters::ngram::METHOD,
    &drafters::recycling::METHOD,
    &drafters::hierarchy::METHOD,
    &drafters::corpus::METHOD,
    &drafters::grammar::METHOD,
    &drafters::jacobi::METHOD,
    &drafters::reuse::METHOD,
    &drafters::model::METHOD,
    &drafters::self_exit::METHOD,
    &drafters::nested::METHOD,
    &drafters::ouroboros::METHOD,
    &accept::match_samples::METHOD,
    &accept::greedy::METHOD,
    &accept::rejection::METHOD,
    &accept::multi_round::METHOD,
    &accept::swor::METHOD,
    &accept::kseq::METHOD,
    &accept::traversal::METHOD,
    &accept::typical::METHOD,
    &accept::cactus::METHOD,
    &accept::fuzzy::METHOD,
    &accept::adasd::METHOD,
    &accept::easd::METHOD,
    &length::fixed::METHOD,
    &length::goodput::METHOD,
    &length::heuristic::METHOD,
    &length::threshold::METHOD,
    &length::survival::METHOD,
    &length::chunked::METHOD,
    &length::preverify::METHOD,
    &length::slo::METHOD,
    &length::thompson::METHOD,
    &length::adasd::METHOD,
    &length::long_tail::METHOD,
    &length::syntax::METHOD,
    &length::estimators::ema::METHOD,
    &length::estimators::tier::METHOD,
    &length::estimators::platt::METHOD,
    &length::estimators::confidence::METHOD,
    &length::estimators::entropy::METHOD,
    &length::estimators::kld::METHOD,
    &length::estimators::gamma_mlp::METHOD,
    &shapes::chain::METHOD,
    &shapes::static_tree::METHOD,
    &shapes::dynamic::METHOD,
    &shapes::equal_growth::METHOD,
    &shapes::spine::METHOD,
    &shapes::delayed::METHOD,
    &shapes::sequoia::METHOD,
    &select::cascade::METHOD,
    &select::suffix_score::METHOD,
    &select::hedge::METHOD,
    &select::bandit::METHOD,
    &select::ensemble::METHOD,
    &select::vote::METHOD,
    &select::fusion::METHOD,
    &kv::full::METHOD,
    &kv::window::METHOD,
];

/// A published method, as its own file describes it.
#[derive(Debug)]
pub struct Method {
    /// Name in configurations.
    pub name: &'static str,
    /// Paper or origin.
    pub paper: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What it needs, for people: a draft model, row statistics (`stats`), whole rows (`p`, `q`), …; empty for nothing.
    pub needs: &'static str,
    /// Numbers that may be set.
    pub options: &'static [OptionSpec],
    /// The test that fails when this method is replaced by the default of its kind.
    pub test: &'static str,
    /// What it is, and how it is made.
    pub make: Make,
}

/// A number that a method can be given: `KEY=VALUE`. Keys are unique among all methods.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct OptionSpec {
    /// The key.
    pub key: &'static str,
    /// What it means, with its unit.
    pub about: &'static str,
    /// Where it is not given.
    pub default: f64,
    /// Smallest value allowed.
    pub min: f64,
    /// Largest value allowed.
    pub max: f64,
}

/// Wraps a policy.
pub type StopAt = fn(&Setup<'_>, Box<dyn LengthPolicy>) -> Result<Box<dyn LengthPolicy>>;

/// Which trait a method implements, and its maker.
#[derive(Debug, Clone, Copy)]
pub enum Make {
    /// [`Drafter`]
    Drafter(fn(&Setup<'_>) -> Result<Box<dyn Drafter>>),
    /// [`AcceptanceRule`]
    Accept(fn(&Setup<'_>) -> Result<Box<dyn AcceptanceRule>>, Exactness),
    /// [`LengthPolicy`]
    Length(fn(&Setup<'_>) -> Result<Box<dyn LengthPolicy>>),
    /// [`AcceptanceEstimator`]
    Estimator(fn(&Setup<'_>) -> Result<Box<dyn AcceptanceEstimator>>),
    /// A wrapper of any [`LengthPolicy`] that says where its drafts end.
    StopAt(StopAt),
    /// [`TreeShape`]
    Tree(fn(&Setup<'_>) -> Result<Box<dyn TreeShape>>),
    /// [`DraftSelector`]
    Select(fn(&Setup<'_>) -> Result<Box<dyn DraftSelector>>),
    /// [`KvView`]: plain data, no trait.
    View(fn(&Setup<'_>) -> KvView),
}

impl Make {
    /// The key of the configuration that names methods of this kind.
    pub fn key(&self) -> &'static str {
        match self {
            Make::Drafter(_) => "drafter",
            Make::Accept(..) => "accept",
            Make::Length(_) => "length",
            Make::Estimator(_) => "estimator",
            Make::StopAt(_) => "stop_at",
            Make::Tree(_) => "tree",
            Make::Select(_) => "select",
            Make::View(_) => "kv",
        }
    }

    /// The trait it implements.
    pub fn trait_name(&self) -> &'static str {
        match self {
            Make::Drafter(_) => "Drafter",
            Make::Accept(..) => "AcceptanceRule",
            Make::Length(_) => "LengthPolicy",
            Make::StopAt(_) => "StopAt",
            Make::Estimator(_) => "AcceptanceEstimator",
            Make::Tree(_) => "TreeShape",
            Make::Select(_) => "DraftSelector",
            Make::View(_) => "KvView",
        }
    }
}

impl Method {
    /// Of a rule, what it promises.
    pub fn exactness(&self) -> Option<Exactness> {
        match self.make {
            Make::Accept(_, exactness) => Some(exactness),
            _ => None,
        }
    }
}

/// For `foredraft methods --json`: all that the file says, with the kind and the trait.
impl serde::Serialize for Method {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut method = serializer.serialize_struct("Method", 9)?;
        method.serialize_field("kind", self.make.key())?;
        method.serialize_field("name", self.name)?;
        method.serialize_field("trait", self.make.trait_name())?;
        method.serialize_field("about", self.about)?;
        method.serialize_field("paper", self.paper)?;
        method.serialize_field("exactness", &self.exactness())?;
        method.serialize_field("needs", self.needs)?;
        method.serialize_field("options", self.options)?;
        method.serialize_field("test", self.test)?;
        method.end()
    }
}

/// What parts are made from.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// What was asked for.
    pub config: &'a SpeculationConfig,
    /// What stands in the brackets of `outer(inner)`.
    pub inner: Option<&'a str>,
    /// The draft model, if one is loaded.
    pub draft: Option<&'a Rc<Model>>,
    /// The target's first layers as a model, if the configuration wants them.
    pub exit: Option<&'a Rc<Model>>,
    /// Tokens of `config.corpus`.
    pub corpus: Option<&'a [u32]>,
    /// What requests share; without it nothing outlives a request.
    pub memory: Option<&'a Memory>,
    /// Whether the request has a JSON schema.
    pub schema: bool,
    /// Whether a token ends a fragment of code or prose, if the tokenizer is known.
    pub boundary: Option<&'a Rc<dyn Fn(u32) -> bool>>,
}

impl<'a> Setup<'a> {
    /// Nothing is loaded.
    pub fn new(config: &'a SpeculationConfig) -> Setup<'a> {
        Setup {
            config,
            inner: None,
            draft: None,
            exit: None,
            corpus: None,
            memory: None,
            schema: false,
            boundary: None,
        }
    }

    /// The store of finished answers, if there is one and this request is not to leave it alone.
    pub fn store(&self) -> Option<Rc<RefCell<SuffixStore>>> {
        self.memory.filter(|_| self.count("suffix_store") > 0).map(|memory| Rc::clone(&memory.suffix))
    }

    /// The index of the corpus, if there is one.
    pub fn corpus_index(&self) -> Option<Rc<SuffixArray>> {
        let tokens = self.corpus?;
        Some(self.memory.map_or_else(|| Rc::new(SuffixArray::new(tokens.to_vec())), |memory| memory.corpus(tokens)))
    }

    /// The value of an option: as given, else its default.
    ///
    /// # Panics
    /// Where no method declares the key.
    pub fn option(&self, key: &str) -> f64 {
        let spec = spec(key).unwrap_or_else(|| panic!("no method declares the option {key}"));
        self.config.options.get(key).copied().unwrap_or(spec.default)
    }

    /// The same as a count.
    pub fn count(&self, key: &str) -> usize {
        self.option(key) as usize
    }

    /// The draft model; an error where none is loaded.
    pub fn draft_model(&self) -> Result<&'a Rc<Model>> {
        self.draft.ok_or_else(|| Error::BadOption {
            name: "speculation.drafter".to_owned(),
            found: "a drafter that needs a draft model".to_owned(),
            expected: "a draft model to be loaded".to_owned(),
        })
    }

    /// The target's first layers; an error where they were not set up.
    pub fn exit_model(&self) -> Result<&'a Rc<Model>> {
        self.exit.ok_or_else(|| Error::BadOption {
            name: "speculation.drafter".to_owned(),
            found: "self".to_owned(),
            expected: "a target model whose first layers can be run".to_owned(),
        })
    }

    /// What draft models look at of their cache.
    pub fn kv_view(&self) -> Result<KvView> {
        match self.find("kv", &self.config.kv)? {
            (Make::View(make), setup) => Ok(make(&setup)),
            _ => Err(unknown("kv", &self.config.kv)),
        }
    }

    /// Makes a drafter by name.
    pub fn drafter(&self, name: &str) -> Result<Box<dyn Drafter>> {
        match self.find("drafter", name)? {
            (Make::Drafter(make), setup) => make(&setup),
            _ => Err(unknown("drafter", name)),
        }
    }

    /// Makes a rule by name; `auto` is `match`.
    pub fn rule(&self, name: &str) -> Result<Box<dyn AcceptanceRule>> {
        match self.find("accept", if name == "auto" { "match" } else { name })? {
            (Make::Accept(make, _), setup) => make(&setup),
            _ => Err(unknown("accept", name)),
        }
    }

    /// Makes a length policy by name.
    pub fn length(&self, name: &str) -> Result<Box<dyn LengthPolicy>> {
        match self.find("length", name)? {
            (Make::Length(make), setup) => make(&setup),
            _ => Err(unknown("length", name)),
        }
    }

    /// Makes an estimator by name.
    pub fn estimator(&self, name: &str) -> Result<Box<dyn AcceptanceEstimator>> {
        match self.find("estimator", name)? {
            (Make::Estimator(make), setup) => make(&setup),
            _ => Err(unknown("estimator", name)),
        }
    }

    /// Wraps a policy so that its drafts end as a method says by name; `none` leaves it as it is.
    pub fn stop_at(&self, name: &str, policy: Box<dyn LengthPolicy>) -> Result<Box<dyn LengthPolicy>> {
        if name == "none" {
            return Ok(policy);
        }
        match self.find("stop_at", name)? {
            (Make::StopAt(make), setup) => make(&setup, policy),
            _ => Err(unknown("stop_at", name)),
        }
    }

    /// Makes a shape by name.
    pub fn shape(&self, name: &str) -> Result<Box<dyn TreeShape>> {
        match self.find("tree", name)? {
            (Make::Tree(make), setup) => make(&setup),
            _ => Err(unknown("tree", name)),
        }
    }

    /// Makes a selector by name.
    pub fn selector(&self, name: &str) -> Result<Box<dyn DraftSelector>> {
        match self.find("select", name)? {
            (Make::Select(make), setup) => make(&setup),
            _ => Err(unknown("select", name)),
        }
    }

    fn find<'b>(&'b self, key: &str, name: &'b str) -> Result<(Make, Setup<'b>)> {
        let (outer, inner) = split(name);
        let method = find(key, outer).ok_or_else(|| unknown(key, name))?;
        Ok((method.make, Setup { inner, ..*self }))
    }
}

/// `outer(inner)` in its parts. With a bracket that does not end it is one name, and no method has that.
pub fn split(name: &str) -> (&str, Option<&str>) {
    match name.strip_suffix(')').and_then(|name| name.split_once('(')) {
        Some((outer, inner)) => (outer, Some(inner)),
        None => (name, None),
    }
}

/// The method of a kind by name.
pub fn find(key: &str, name: &str) -> Option<&'static Method> {
    METHODS.iter().copied().find(|method| method.make.key() == key && method.name == name)
}

/// The methods that a name is made of: itself, and what stands in its brackets.
pub fn parts(name: &str) -> impl Iterator<Item = &str> {
    let (outer, inner) = split(name);
    [Some(outer), inner].into_iter().flatten()
}

/// Whether a drafter of that name runs the draft model.
pub fn needs_draft_model(drafter: &str) -> bool {
    let needs = |name| find("drafter", name).is_some_and(|method| method.needs.contains("draft model"));
    parts(drafter).any(needs)
}

/// Names of the methods of a kind.
pub fn names(key: &str) -> Vec<&'static str> {
    METHODS.iter().filter(|method| method.make.key() == key).map(|method| method.name).collect()
}

/// Who declares an option, and what it may be.
pub fn spec(key: &str) -> Option<&'static OptionSpec> {
    METHODS.iter().flat_map(|method| method.options).find(|option| option.key == key)
}

/// The error of a name that is none.
pub(crate) fn unknown(key: &str, name: &str) -> Error {
    Error::BadOption {
        name: format!("speculation.{key}"),
        found: name.to_owned(),
        expected: format!("one of {}", names(key).join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_keys_are_unique_and_described() {
        let mut seen = std::collections::BTreeSet::new();
        let mut keys = std::collections::BTreeSet::new();
        for method in METHODS {
            assert!(seen.insert((method.make.key(), method.name)), "{} twice", method.name);
            assert!(!method.paper.is_empty() && !method.about.is_empty() && !method.test.is_empty(), "{}", method.name);
            for option in method.options {
                assert!(keys.insert(option.key), "option {} twice", option.key);
                assert!((option.min..=option.max).contains(&option.default), "{}", option.key);
            }
        }
    }

    #[test]
    fn rules_know_their_place_in_the_list() {
        let config = SpeculationConfig::default();
        for method in METHODS {
            if let Make::Accept(make, _) = method.make {
                let rule = make(&Setup::new(&config)).expect("rules need nothing");
                assert!(std::ptr::eq(rule.method(), *method), "{} takes itself for {}", method.name, rule.name());
                assert!(rule.supports(rule.draws()), "{} would draw what it is not good for", method.name);
            }
        }
    }

    #[test]
    fn brackets_name_the_inner_part() {
        assert_eq!(split("platt(confidence)"), ("platt", Some("confidence")));
        assert_eq!(split("chain"), ("chain", None));
    }
}
