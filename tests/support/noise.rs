//! Random numbers that are the same every time, and random matrices.

use foredraft::sampling::pcg4d;
use foredraft::weights::format::Layout;
use half::{bf16, f16};

/// A stream of random words.
#[derive(Clone)]
pub(crate) struct Noise {
    seed: u32,
    count: u32,
}

impl Noise {
    /// The stream of a seed.
    pub(crate) fn new(seed: u32) -> Noise {
        Noise { seed, count: 0 }
    }

    /// Random bits.
    pub(crate) fn word(&mut self) -> u32 {
        self.count += 1;
        pcg4d([self.count, self.seed, 0x7e57, 0])[0]
    }

    /// 0 to `end - 1`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.word() as usize % end
    }

    /// -1 to 1.
    pub(crate) fn float(&mut self) -> f32 {
        self.word() as i32 as f32 / 2_147_483_648.0
    }

    /// Many of them.
    pub(crate) fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }

    /// Words of two halves from -1 to 1.
    pub(crate) fn halves(&mut self, words: usize) -> Vec<u32> {
        (0..words).map(|_| pair(f16::from_f32(self.float()).to_bits(), f16::from_f32(self.float()).to_bits())).collect()
    }

    /// Quants and scales of a matrix; the scales are small, the quants any bits.
    pub(crate) fn matrix(&mut self, layout: Layout, weights: usize) -> (Vec<u32>, Vec<u32>) {
        let quants = (0..layout.quant_words_for(weights))
            .map(|_| match layout {
                Layout::F16 => self.halves(1)[0],
                Layout::BF16 => pair(bf16::from_f32(self.float()).to_bits(), bf16::from_f32(self.float()).to_bits()),
                Layout::F32 => self.float().to_bits(),
                _ => self.word(),
            })
            .collect();
        let (words, _) = layout.scale_words();
        let scales = (0..layout.scale_words_for(weights))
            .map(|i| {
                let mut small = |size: f32| f16::from_f32(size * self.float()).to_bits();
                match layout {
                    Layout::Q4 | Layout::Q5 => pair(small(0.01), small(0.01)),
                    Layout::Q8 => pair(small(0.01), 0),
                    Layout::Q6K if i % words == 0 => pair(small(0.0002), 0),
                    Layout::Q4K | Layout::Q5K if i % words == 0 => pair(small(0.0005), small(0.0005)),
                    Layout::Q6K => self.word(),
                    _ => self.word() & 0x3f3f_3f3f,
                }
            })
            .collect();
        (quants, scales)
    }
}

fn pair(low: u16, high: u16) -> u32 {
    u32::from(low) | u32::from(high) << 16
}

/// The halves of some words.
pub(crate) fn unpack(words: &[u32]) -> Vec<f32> {
    words.iter().flat_map(|&word| [word, word >> 16].map(|half| f16::from_bits(half as u16).to_f32())).collect()
}
