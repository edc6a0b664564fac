//! What passes cost on a device that is not at hand, for [`super::replay`]: a curve of one's own, or a published one.

use crate::error::{Error, Result};
use crate::plan::COLUMN_BUCKETS;
use crate::speculate::cost::CostModel;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Published curves by name, each a file in `costs/` that names its source.
const PRESETS: [(&str, &str); 3] = [
    ("h200-8b", include_str!("costs/h200-8b.json")),
    ("m5-max-70b", include_str!("costs/m5-max-70b.json")),
    ("mi50-27b", include_str!("costs/mi50-27b.json")),
];

/// What rounds cost somewhere, all in one unit. The JSON report of a bench is one too.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Costs {
    /// Device and model.
    #[serde(default)]
    pub name: String,
    /// Where the figures come from.
    #[serde(default)]
    pub source: String,
    /// A pass by its columns; 1 must be there, what lies between is interpolated.
    #[serde(alias = "verify_cost")]
    pub verify_ms: BTreeMap<usize, f64>,
    /// Drafting on the host, in a round that has a draft.
    #[serde(default)]
    pub draft_ms: f64,
    /// What every round takes beside its pass: submit, wait, read back.
    #[serde(default)]
    pub sync_ms: f64,
}

impl Default for Costs {
    /// What is assumed of a device of which nothing is known.
    fn default() -> Costs {
        let prior = CostModel::default();
        Costs {
            name: "no device, assumed costs".to_owned(),
            source: String::new(),
            verify_ms: COLUMN_BUCKETS.map(|columns| (columns, prior.verify_ms(columns))).into(),
            draft_ms: 0.0,
            sync_ms: 0.0,
        }
    }
}

impl Costs {
    /// A published curve.
    pub fn preset(name: &str) -> Option<Result<Costs>> {
        let (_, json) = PRESETS.iter().find(|(known, _)| *known == name)?;
        Some(serde_json::from_str(json).map_err(|error| bad("JSON", &error.to_string(), "the fields of a preset")))
    }

    /// Names of the published curves.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|(name, _)| *name)
    }

    /// The model that rounds of these costs amount to.
    pub fn model(&self) -> Result<CostModel> {
        let sane = |value: f64| value.is_finite() && value >= 0.0;
        for (name, value) in [("draft_ms", self.draft_ms), ("sync_ms", self.sync_ms)] {
            if !sane(value) {
                return Err(bad(name, &value.to_string(), "a number of at least 0"));
            }
        }
        if let Some((columns, ms)) =
            self.verify_ms.iter().find(|&(&columns, &ms)| columns == 0 || !sane(ms) || ms == 0.0)
        {
            return Err(bad(
                "verify_ms",
                &format!("{ms} for {columns} columns"),
                "positive numbers, by 1 column and more",
            ));
        }
        if !self.verify_ms.contains_key(&1) {
            return Err(bad("verify_ms", "no cost of 1 column", "a plain step among them"));
        }
        // Measured figures may fall by the noise; more columns never cost less.
        let mut least = 0.0_f64;
        let rising = round_curve(|columns| self.verify(columns), self.sync_ms, self.draft_ms).map(|ms| {
            least = least.max(ms);
            least
        });
        Ok(CostModel::of_curve(rising, &[]))
    }

    /// On the line between the neighbours, or on that of the last two if it rises. A single point costs the same for all.
    fn verify(&self, columns: usize) -> f64 {
        let points: Vec<(f64, f64)> = self.verify_ms.iter().map(|(&k, &ms)| (k as f64, ms)).collect();
        let at = columns as f64;
        let after = points.iter().position(|&(k, _)| k >= at).unwrap_or(points.len() - 1);
        let (Some(&(k1, ms1)), Some(&(k0, ms0))) = (points.get(after), points.get(after.saturating_sub(1))) else {
            return 0.0;
        };
        let slope = if k1 == k0 { 0.0 } else { (ms1 - ms0) / (k1 - k0) };
        if at > k1 { ms1 + slope.max(0.0) * (at - k1) } else { ms0 + slope * (at - k0) }
    }
}

/// Rounds by bucket of columns, whose passes cost `verify`, beside `host` in every round and `draft` in one that has a draft.
pub(super) fn round_curve(verify: impl Fn(usize) -> f64, host: f64, draft: f64) -> [f64; COLUMN_BUCKETS.len()] {
    COLUMN_BUCKETS.map(|columns| verify(columns) + host + if columns > 1 { draft } else { 0.0 })
}

fn bad(name: &str, found: &str, expected: &str) -> Error {
    Error::BadOption { name: format!("cost.{name}"), found: found.to_owned(), expected: expected.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_is_interpolated() {
        let json = r#"{"verify_ms": {"1": 10, "3": 14, "8": 24}, "draft_ms": 1, "sync_ms": 2}"#;
        let model = serde_json::from_str::<Costs>(json).expect("valid").model().expect("valid");
        let costs = [1, 2, 4, 8, 16].map(|columns| model.verify_ms(columns));
        assert_eq!(costs, [12.0, 15.0, 19.0, 27.0, 43.0]);
        let falling: Costs = serde_json::from_str(r#"{"verify_ms": {"1": 1, "2": 1.3, "4": 1.2}}"#).expect("valid");
        let falling = falling.model().expect("valid");
        assert_eq!([1, 2, 4, 16].map(|columns| falling.verify_ms(columns)), [1.0, 1.3, 1.3, 1.3]);
    }

    #[test]
    fn presets_are_whole_and_named() {
        for name in Costs::presets() {
            let costs = Costs::preset(name).expect("known").expect("valid");
            assert!(!costs.name.is_empty() && !costs.source.is_empty(), "{name}");
            assert!(costs.model().expect("valid").c(8) > 1.0, "{name}");
        }
        assert!(Costs::preset("none").is_none());
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (json, name) in [
            (r#"{"verify_ms": {"2": 1}}"#, "cost.verify_ms"),
            (r#"{"verify_ms": {"1": 0}}"#, "cost.verify_ms"),
            (r#"{"verify_ms": {"0": 1, "1": 1}}"#, "cost.verify_ms"),
            (r#"{"verify_ms": {"1": 1}, "sync_ms": -1}"#, "cost.sync_ms"),
        ] {
            let error = serde_json::from_str::<Costs>(json).expect("parsed").model().expect_err("nonsense");
            assert!(error.to_string().contains(name), "{error}");
        }
        assert_eq!(Costs::default().model().expect("valid").c(8), CostModel::default().c(8));
    }
}
