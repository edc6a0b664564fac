//! Arithmetic of ratio rules on rows of p and q: what is left of p after rejections, and how far two rows are apart.
//!
//! Rows are dense over the vocabulary. A target's row is copied at its first rejection only; rows of q never are: siblings
//! drawn without replacement divide by the mass that is left instead.

use super::top_down::Sibling;
use crate::speculate::tree::Proposal;
use std::borrow::Cow;
use std::rc::Rc;

/// Below this share a difference of sums has lost too many digits, and what is left is summed anew.
const CANCELLED: f64 = 1e-3;

/// What is left of a row of p: weights, and what they sum to.
#[derive(Debug, Clone)]
pub struct Residual<'a> {
    row: &'a [f64],
    weights: Cow<'a, [f64]>,
    total: f64,
}

impl<'a> Residual<'a> {
    /// A whole row.
    pub fn of(row: &'a [f64]) -> Residual<'a> {
        Residual { row, weights: Cow::Borrowed(row), total: 1.0 }
    }

    /// The row before any rejection.
    pub fn row(&self) -> &'a [f64] {
        self.row
    }

    /// What is left, not normalised.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// What is left of the probability of a token, normalised.
    pub fn prob(&self, token: u32) -> f64 {
        self.weights.get(token as usize).map_or(0.0, |weight| weight / self.total)
    }

    /// Starts over with the whole row.
    pub fn restore(&mut self) {
        *self = Residual::of(self.row);
    }

    /// Replaces every normalised p(x) by `f(x, p(x))`, at least 0, and gives the sum. Where that is 0 the whole row is back:
    /// only rounding leads there, since a rejection of p = q has probability 0.
    pub fn update(&mut self, f: impl Fn(usize, f64) -> f64) -> f64 {
        let scale = 1.0 / self.total;
        let mut sum = 0.0;
        for (token, weight) in self.weights.to_mut().iter_mut().enumerate() {
            *weight = f(token, *weight * scale).max(0.0);
            sum += *weight;
        }
        if sum > 0.0 {
            self.total = sum;
        } else {
            self.restore();
        }
        sum
    }

    /// `(scale · p − q)+`, and its sum.
    pub fn subtract(&mut self, scale: f64, q: &Draft<'_>) -> f64 {
        match *q {
            // p(x) ≤ 1, so nothing of x is left.
            Draft::Point(token) => scale * self.remove(token),
            Draft::Row { q, mass } => {
                let per_mass = 1.0 / mass;
                self.update(|token, p| scale * p - q.get(token).map_or(0.0, |q| q * per_mass))
            }
        }
    }

    /// Takes a token out; gives the share of the others.
    pub fn remove(&mut self, token: u32) -> f64 {
        let Some(&weight) = self.weights.get(token as usize) else { return 1.0 };
        if weight == 0.0 {
            return 1.0;
        }
        let before = self.total;
        let weights = self.weights.to_mut();
        weights[token as usize] = 0.0;
        let left = before - weight;
        self.total = if left > CANCELLED * before { left } else { weights.iter().sum() };
        let share = self.total / before;
        if self.total <= 0.0 {
            self.restore();
        }
        share
    }
}

/// The distribution that a candidate was drawn from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Draft<'a> {
    /// All on one token.
    Point(u32),
    /// `q / mass`; tokens that are taken out have no weight left in the residual, so q need not be copied without them.
    Row {
        /// Weights.
        q: &'a [f64],
        /// What the weights of the tokens that are not taken out sum to.
        mass: f64,
    },
}

impl<'a> Draft<'a> {
    /// As if the candidate had no siblings.
    pub fn alone(sibling: &Sibling<'a>) -> Draft<'a> {
        match sibling.proposal {
            Proposal::Deterministic => Draft::Point(sibling.token),
            Proposal::Sampled(q) | Proposal::SampledWor(q) => Draft::Row { q, mass: 1.0 },
        }
    }

    /// As it was drawn: without replacement, the earlier tokens of the same q are taken out of it.
    pub fn among(siblings: &[Sibling<'a>], index: usize) -> Draft<'a> {
        let sibling = &siblings[index];
        let Proposal::SampledWor(q) = sibling.proposal else { return Draft::alone(sibling) };
        let taken: Vec<u32> = siblings[..index]
            .iter()
            .filter(|earlier| same_draw(earlier.proposal, sibling.proposal))
            .map(|earlier| earlier.token)
            .collect();
        Draft::Row { q, mass: mass_without(q, &taken) }
    }

    /// q(x).
    pub fn prob(&self, token: u32) -> f64 {
        match *self {
            Draft::Point(point) => f64::from(u8::from(point == token)),
            Draft::Row { q, mass } => q.get(token as usize).map_or(0.0, |q| q / mass),
        }
    }

    /// `min(1, p / q(x))`, 0 where p is 0.
    pub fn ratio(&self, token: u32, p: f64) -> f64 {
        if p > 0.0 { (p / self.prob(token)).min(1.0) } else { 0.0 }
    }
}

/// Whether two candidates were drawn from the same q together.
pub fn same_draw(a: &Proposal, b: &Proposal) -> bool {
    match (a, b) {
        (Proposal::Sampled(a), Proposal::Sampled(b)) | (Proposal::SampledWor(a), Proposal::SampledWor(b)) => {
            Rc::ptr_eq(a, b)
        }
        _ => false,
    }
}

fn mass_without(q: &[f64], taken: &[u32]) -> f64 {
    if taken.is_empty() {
        return 1.0;
    }
    let left = 1.0 - taken.iter().filter_map(|&token| q.get(token as usize)).sum::<f64>();
    if left > CANCELLED {
        return left;
    }
    let rest = q.iter().enumerate().filter(|(token, _)| !taken.contains(&(*token as u32)));
    rest.map(|(_, q)| q).sum()
}

/// H(p) in nats.
pub fn entropy(row: &[f64]) -> f64 {
    -row.iter().filter(|&&p| p > 0.0).map(|p| p * p.ln()).sum::<f64>()
}

/// H(q) in nats.
pub fn draft_entropy(q: &Draft<'_>) -> f64 {
    match *q {
        Draft::Point(_) => 0.0,
        // The whole row's, siblings or not: how sure the drafter was.
        Draft::Row { q, .. } => entropy(q),
    }
}

/// Jensen–Shannon divergence of p and q in nats, 0 to ln 2.
pub fn jensen_shannon(p: &[f64], q: &Draft<'_>) -> f64 {
    let half = |a: f64, b: f64| if a > 0.0 { 0.5 * a * (2.0 * a / (a + b)).ln() } else { 0.0 };
    sum_over(p, q, |p, q| half(p, q) + half(q, p)).max(0.0)
}

/// Kullback–Leibler divergence of p from q in nats; infinite where q lacks a token of p.
pub fn kullback_leibler(p: &[f64], q: &Draft<'_>) -> f64 {
    sum_over(p, q, |p, q| if p > 0.0 { p * (p / q).ln() } else { 0.0 }).max(0.0)
}

/// Total variation of p and q.
pub fn total_variation(p: &[f64], q: &Draft<'_>) -> f64 {
    0.5 * sum_over(p, q, |p, q| (p - q).abs())
}

fn sum_over(p: &[f64], q: &Draft<'_>, f: impl Fn(f64, f64) -> f64) -> f64 {
    match *q {
        Draft::Point(point) => {
            p.iter().enumerate().map(|(token, &p)| f(p, f64::from(u8::from(token == point as usize)))).sum()
        }
        Draft::Row { q, mass } => p.iter().zip(q).map(|(&p, &q)| f(p, q / mass)).sum(),
    }
}

/// Up to `count` likeliest tokens, of equals the lowest id; what has no probability is none of them.
pub fn likeliest(row: &[f64], count: usize) -> Vec<u32> {
    let mut best: Vec<(f64, u32)> = Vec::with_capacity(count + 1);
    for (token, &p) in row.iter().enumerate() {
        if p > 0.0 && (best.len() < count || best.last().is_some_and(|&(least, _)| p > least)) {
            let at = best.partition_point(|&(other, _)| other >= p);
            best.insert(at, (p, token as u32));
            best.truncate(count);
        }
    }
    best.into_iter().map(|(_, token)| token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_sums_to_one_however_little_it_is() {
        let rest = 1e-17;
        let row = [1.0 - 3.0 * rest, rest, 2.0 * rest];
        let mut left = Residual::of(&row);
        left.remove(0);
        assert!((left.prob(1) - 1.0 / 3.0).abs() < 1e-12 && (left.prob(2) - 2.0 / 3.0).abs() < 1e-12);
        assert!((mass_without(&row, &[0]) / (3.0 * rest) - 1.0).abs() < 1e-12);
        let mut same = Residual::of(&row);
        assert_eq!(same.subtract(1.0, &Draft::Row { q: &row, mass: 1.0 }), 0.0);
        assert_eq!(same.weights(), row, "nothing is left of p - p; only rounding rejects there");
    }

    #[test]
    fn divergences_of_known_rows() {
        let (p, q) = ([0.5, 0.5, 0.0], [0.0, 0.5, 0.5]);
        let draft = Draft::Row { q: &q, mass: 1.0 };
        assert!((jensen_shannon(&p, &draft) - 0.5 * std::f64::consts::LN_2).abs() < 1e-12);
        assert_eq!((total_variation(&p, &draft), kullback_leibler(&p, &draft)), (0.5, f64::INFINITY));
        assert_eq!(jensen_shannon(&p, &Draft::Row { q: &p, mass: 1.0 }), 0.0);
        let disjoint = jensen_shannon(&p, &Draft::Point(2));
        assert!((disjoint - std::f64::consts::LN_2).abs() < 1e-12);
        assert!((entropy(&p) - std::f64::consts::LN_2).abs() < 1e-12);
        assert_eq!(likeliest(&[0.1, 0.0, 0.4, 0.1, 0.4], 3), [2, 4, 0]);
    }
}
