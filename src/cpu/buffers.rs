//! The buffers of the CPU executor: words in memory.

use crate::plan::BufferId;

/// Buffers by id. A step takes its output out, reads the rest, and puts it back.
#[derive(Default)]
pub struct Buffers {
    all: Vec<Vec<u32>>,
}

impl Buffers {
    /// A zeroed buffer.
    pub fn alloc(&mut self, words: usize) -> BufferId {
        self.all.push(vec![0; words]);
        BufferId(self.all.len() as u32 - 1)
    }

    /// A zeroed buffer, or `None` where memory is out.
    pub fn try_alloc(&mut self, words: usize) -> Option<BufferId> {
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(words).ok()?;
        buffer.resize(words, 0);
        self.all.push(buffer);
        Some(BufferId(self.all.len() as u32 - 1))
    }

    /// Number of buffers.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Bytes in all buffers.
    pub fn bytes(&self) -> u64 {
        self.all.iter().map(|buffer| buffer.len() as u64 * 4).sum()
    }

    /// Drops the buffers from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.all.truncate(len);
    }

    /// Contents as words.
    pub fn words(&self, id: BufferId) -> &[u32] {
        &self.all[id.0 as usize]
    }

    /// Contents as floats.
    pub fn floats(&self, id: BufferId) -> &[f32] {
        bytemuck::cast_slice(self.words(id))
    }

    /// Contents as words, to be changed.
    pub fn words_mut(&mut self, id: BufferId) -> &mut [u32] {
        &mut self.all[id.0 as usize]
    }

    /// Writes words at an offset.
    pub fn write(&mut self, id: BufferId, offset: usize, words: &[u32]) {
        self.words_mut(id)[offset..offset + words.len()].copy_from_slice(words);
    }

    /// Lends out a buffer's words while the others stay readable.
    pub fn with_words<T>(&mut self, id: BufferId, work: impl FnOnce(&mut [u32], &Buffers) -> T) -> T {
        let mut taken = std::mem::take(&mut self.all[id.0 as usize]);
        let result = work(&mut taken, self);
        self.all[id.0 as usize] = taken;
        result
    }

    /// Lends out a buffer's floats while the others stay readable.
    pub fn with_floats<T>(&mut self, id: BufferId, work: impl FnOnce(&mut [f32], &Buffers) -> T) -> T {
        self.with_words(id, |words, buffers| work(bytemuck::cast_slice_mut(words), buffers))
    }
}
