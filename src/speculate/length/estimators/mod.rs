//! How likely a drafted node is to be accepted if its parent is.

pub mod confidence;
pub mod ema;
pub mod entropy;
pub mod gamma_mlp;
pub mod kld;
pub mod platt;
pub mod tier;

/// Observations that a mean stands for once it is in doubt.
const DOUBTED: f32 = 12.0;

/// A mean that forgets: the plain mean of the first observations, then an exponential one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mean {
    /// The mean.
    pub(crate) value: f32,
    /// Observations that it stands for.
    pub(crate) weight: f32,
}

impl Mean {
    /// Takes in an observation; `memory` is the most observations that the mean stands for.
    pub(crate) fn add(&mut self, value: f32, memory: f32) {
        self.weight = (self.weight + 1.0).min(memory);
        self.value += (value - self.value) / self.weight;
    }

    /// Lets later observations count for more.
    pub(crate) fn doubt(&mut self) {
        self.weight = self.weight.min(DOUBTED);
    }

    /// The mean, drawn to what was thought before as if that had been observed `strength` times.
    pub(crate) fn toward(self, prior: f32, strength: f32) -> f32 {
        (self.weight * self.value + strength * prior) / (self.weight + strength)
    }
}
