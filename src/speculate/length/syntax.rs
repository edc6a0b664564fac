//! `stop_at=syntax`: any policy, whose drafts end where a fragment of code or prose ends (speculative decoding of Verilog,
//! which aligns its drafts with syntactic fragments; reconstruction from the abstract).
//!
//! Stop after a token that ends a fragment, by a predicate of the tokenizer's ([`ends_fragment`]); the token is kept and what
//! was accepted is never cut, so it is a stopping time and exact with every rule. State: that of the policy.

use super::{LengthPolicy, Signals};
use crate::error::Error;
use crate::speculate::cost::CostModel;
use crate::speculate::methods::{Make, Method};
use crate::speculate::outcome::{Needs, RoundOutcome};
use crate::speculate::tree::{NodeId, TokenTree};
use std::rc::Rc;

/// This method.
pub static METHOD: Method = Method {
    name: "syntax",
    paper: "speculative decoding for Verilog, reconstruction from the abstract",
    about: "drafts end where a statement, block or line ends",
    needs: "a tokenizer",
    options: &[],
    test: "length::syntax",
    make: Make::StopAt(|setup, policy| match setup.boundary {
        Some(boundary) => Ok(Box::new(Syntax { policy, boundary: Rc::clone(boundary) })),
        None => Err(Error::BadOption {
            name: "speculation.stop_at".to_owned(),
            found: "syntax".to_owned(),
            expected: "none, where there is no tokenizer".to_owned(),
        }),
    }),
};

/// Whether a token of this text ends a fragment: a line, a statement, a block, a sentence.
pub fn ends_fragment(text: &str) -> bool {
    text.contains('\n') || text.trim_end().ends_with([';', '{', '}', ':', '.', '!', '?'])
}

/// A policy and where its drafts end.
pub struct Syntax {
    policy: Box<dyn LengthPolicy>,
    boundary: Rc<dyn Fn(u32) -> bool>,
}

impl LengthPolicy for Syntax {
    fn name(&self) -> &'static str {
        self.policy.name()
    }

    fn needs(&self) -> Needs {
        self.policy.needs()
    }

    fn plan(&mut self, signals: &Signals<'_>) -> usize {
        self.policy.plan(signals)
    }

    fn estimate(&mut self, tree: &TokenTree, node: NodeId) -> f32 {
        self.policy.estimate(tree, node)
    }

    fn stop(&mut self, tree: &TokenTree, new: &[NodeId], signals: &Signals<'_>) -> bool {
        let ends = |&node: &NodeId| tree.node(node).token.is_some_and(|token| (self.boundary)(token));
        new.iter().all(ends) || self.policy.stop(tree, new, signals)
    }

    fn keep(&mut self, tree: &TokenTree, signals: &Signals<'_>) -> usize {
        self.policy.keep(tree, signals)
    }

    fn looks_ahead(&self) -> bool {
        self.policy.looks_ahead()
    }

    fn reads_drafts(&self) -> bool {
        true
    }

    fn ahead(&mut self, cost: &CostModel) -> bool {
        self.policy.ahead(cost)
    }

    fn observe(&mut self, outcome: &RoundOutcome) {
        self.policy.observe(outcome);
    }

    fn reason(&self) -> Option<String> {
        self.policy.reason()
    }

    fn reset(&mut self) {
        self.policy.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FLAT, Kind, Trace};
    use super::*;
    use crate::speculate::SpeculationConfig;
    use crate::speculate::methods::Setup;

    #[test]
    fn drafts_end_with_a_fragment_and_not_before() {
        let boundary: Rc<dyn Fn(u32) -> bool> = Rc::new(|token| token.is_multiple_of(7));
        for kind in [Kind::Host, Kind::Steps, Kind::Inner] {
            let trace = Trace { boundary: Some(&boundary), ..Trace::new(kind, FLAT, &|_| 0.9) };
            let replay = trace.replay("length=fixed,num_speculative_tokens=12,stop_at=syntax", 100);
            for outcome in &replay.outcomes {
                let tokens: Vec<u32> = outcome.tree.nodes()[1..].iter().filter_map(|node| node.token).collect();
                let end = tokens.iter().position(|&token| token.is_multiple_of(7)).map_or(12, |at| at + 1);
                assert_eq!(tokens.len(), end, "{kind:?}: {tokens:?}");
            }
        }
    }

    #[test]
    fn it_wants_a_tokenizer_and_goes_by_the_text_of_a_token() {
        let config: SpeculationConfig = "drafter=ngram,stop_at=syntax".parse().expect("a name");
        assert_eq!(config.speculator(Setup::new(&config)).err().expect("no tokenizer").code(), "bad_option");
        let boundary: Rc<dyn Fn(u32) -> bool> = Rc::new(|_| true);
        assert!(config.speculator(Setup { boundary: Some(&boundary), ..Setup::new(&config) }).is_ok());
        assert!("stop_at=comma".parse::<SpeculationConfig>().is_err());
        assert!([");\n", ";", " }", "end.\n\n", "."].into_iter().all(ends_fragment));
        assert!(!["endmodule", " ", "(", ","].into_iter().any(ends_fragment));
    }
}
