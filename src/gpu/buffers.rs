//! Buffers of the executor: allocation, writes, reads.

use super::GpuExecutor;
use super::poll::Signal;
use crate::error::{Error, Result};
use crate::plan::BufferId;

/// Bytes written before the device is made to take them over, so that a model does not pile up in staging memory.
const SETTLE_BYTES: u64 = 64 << 20;

/// A buffer and what to call it.
pub(super) struct Slot {
    pub(super) label: String,
    pub(super) buffer: wgpu::Buffer,
    pub(super) words: u64,
}

impl GpuExecutor {
    pub(super) fn alloc_buffer(&self, label: &str, words: usize) -> Result<BufferId> {
        self.faults.check()?;
        let bytes = words.max(1) as u64 * 4;
        let limits = self.device.limits();
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        if bytes > most {
            return Err(Error::OutOfMemory {
                device: self.report.name.clone(),
                plan: format!("{label} needs a buffer of {bytes} bytes, the device allows {most}"),
            });
        }
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        match self.faults.check() {
            Ok(()) => {}
            Err(Error::OutOfMemory { device, plan }) => {
                let allocated = self.counters.get().allocated_bytes;
                let plan = format!("{label} needs {bytes} bytes, {allocated} bytes are in use; {plan}");
                return Err(Error::OutOfMemory { device, plan });
            }
            Err(other) => return Err(other),
        }
        self.count(|counters| counters.allocated_bytes += bytes);
        let mut buffers = self.buffers.borrow_mut();
        buffers.push(Slot { label: label.to_owned(), buffer, words: bytes / 4 });
        Ok(BufferId(buffers.len() as u32 - 1))
    }

    /// Checks that a range of words lies in a buffer, and gives the buffer.
    fn range(&self, buffer: BufferId, offset: usize, words: usize) -> Result<wgpu::Buffer> {
        let buffers = self.buffers.borrow();
        let slot = buffers.get(buffer.0 as usize).ok_or_else(|| Error::Gpu {
            reason: format!("buffer {} does not exist, there are {}", buffer.0, buffers.len()),
        })?;
        if (offset as u64).saturating_add(words as u64) > slot.words {
            return Err(Error::Gpu {
                reason: format!("buffer {}: words {offset} + {words}, it has {}", slot.label, slot.words),
            });
        }
        Ok(slot.buffer.clone())
    }

    pub(super) fn write_buffer(&self, buffer: BufferId, offset: usize, words: &[u32]) -> Result<()> {
        self.faults.check()?;
        let target = self.range(buffer, offset, words.len())?;
        self.queue.write_buffer(&target, offset as u64 * 4, bytemuck::cast_slice(words));
        let unsettled = self.unsettled_bytes.get() + words.len() as u64 * 4;
        if unsettled >= SETTLE_BYTES {
            self.waiter().settle_writes();
            self.unsettled_bytes.set(0);
        } else {
            self.unsettled_bytes.set(unsettled);
        }
        self.faults.check()
    }

    pub(super) async fn read_buffer(&self, buffer: BufferId, offset: usize, words: usize) -> Result<Vec<u32>> {
        self.faults.check()?;
        let source = self.range(buffer, offset, words)?;
        if words == 0 {
            return Ok(Vec::new());
        }
        let staging = self.new_staging(words as u64 * 4);
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("read") });
        encoder.copy_buffer_to_buffer(&source, offset as u64 * 4, &staging, 0, Some(words as u64 * 4));
        let submission = self.queue.submit([encoder.finish()]);
        let signal = request_map(&staging, words);
        self.count(|counters| {
            counters.submits += 1;
            counters.maps += 1;
        });
        let words = self.take_mapped(&staging, words, submission, signal).await?;
        staging.destroy();
        Ok(words)
    }

    pub(super) fn new_staging(&self, bytes: u64) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size: bytes,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// Waits for a map that was requested and copies its words out.
    pub(super) async fn take_mapped(
        &self,
        staging: &wgpu::Buffer,
        words: usize,
        submission: wgpu::SubmissionIndex,
        signal: Signal,
    ) -> Result<Vec<u32>> {
        let mapped = self.waiter().wait(submission, signal).await;
        self.faults.check()?;
        if !mapped {
            return Err(self.faults.or("a buffer could not be mapped for reading"));
        }
        let view = staging
            .get_mapped_range(0..words as u64 * 4)
            .map_err(|error| self.faults.or(&format!("a mapped buffer cannot be read: {error}")))?;
        let copied = view.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        drop(view);
        staging.unmap();
        Ok(copied)
    }

    pub(super) fn release_buffers(&self, keep: usize) {
        let mut buffers = self.buffers.borrow_mut();
        let keep = keep.clamp(2.min(buffers.len()), buffers.len());
        for slot in buffers.drain(keep..) {
            slot.buffer.destroy();
            self.count(|counters| counters.allocated_bytes -= slot.words * 4);
        }
    }
}

/// Asks for the first words of a staging buffer.
pub(super) fn request_map(staging: &wgpu::Buffer, words: usize) -> Signal {
    let signal = Signal::default();
    let done = signal.clone();
    staging.map_async(wgpu::MapMode::Read, 0..words as u64 * 4, move |result| done.set(result.is_ok()));
    signal
}
