//! Buffers of the executor: allocation, writes, reads.

use super::GpuExecutor;
use super::kernels::{TEXTURE_EIGHT, TEXTURE_GROUP, TEXTURE_WIDTH};
use super::poll::Signal;
use crate::error::{Error, Result};
use crate::plan::{BufferId, MatrixPart, ROW_UNIT};
use crate::weights::format::{BLOCK, Layout};

/// Bytes written before the device is made to take them over, so that a model does not pile up in staging memory.
const SETTLE_BYTES: u64 = 64 << 20;

/// A buffer and what to call it.
pub(super) struct Slot {
    pub(super) label: String,
    pub(super) memory: Memory,
    pub(super) words: u64,
}

/// What words lie in.
pub(super) enum Memory {
    /// Any words.
    Buffer(wgpu::Buffer),
    /// Words of a matrix.
    Texture(wgpu::Texture),
}

impl Slot {
    /// The buffer, where it is one.
    pub(super) fn buffer(&self) -> Result<&wgpu::Buffer> {
        match &self.memory {
            Memory::Buffer(buffer) => Ok(buffer),
            Memory::Texture(_) => Err(Error::Gpu { reason: format!("{} is a texture", self.label) }),
        }
    }

    /// The texture, where it is one.
    pub(super) const fn texture(&self) -> Option<&wgpu::Texture> {
        match &self.memory {
            Memory::Buffer(_) => None,
            Memory::Texture(texture) => Some(texture),
        }
    }
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
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::UNIFORM
                | wgpu::BufferUsages::COPY_DST
                | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        self.keep(label, Memory::Buffer(buffer), bytes)
    }

    /// Two textures for a matrix, quants and scales, as `layouts.wgsl` has them; `None` where they would be too high.
    pub(super) fn alloc_textures(
        &self,
        label: &str,
        layout: Layout,
        rows: usize,
        cols: usize,
    ) -> Result<Option<[BufferId; 2]>> {
        self.faults.check()?;
        let blocks = cols / BLOCK;
        let groups = rows.div_ceil(TEXTURE_GROUP);
        let texels = [groups * TEXTURE_GROUP * blocks * layout.quant_words() / 4, groups * TEXTURE_EIGHT * blocks];
        let lines = texels.map(|texels| texels.div_ceil(TEXTURE_WIDTH as usize).max(1) as u64);
        if lines.iter().any(|&lines| lines > u64::from(self.device.limits().max_texture_dimension_2d)) {
            return Ok(None);
        }
        let make = |lines: u64, what: &str| {
            let label = format!("{label} {what}");
            let size = wgpu::Extent3d { width: TEXTURE_WIDTH, height: lines as u32, depth_or_array_layers: 1 };
            let texture = self.device.create_texture(&wgpu::TextureDescriptor {
                label: Some(&label),
                size,
                mip_level_count: 1,
                sample_count: 1,
                dimension: wgpu::TextureDimension::D2,
                format: wgpu::TextureFormat::Rgba32Uint,
                usage: wgpu::TextureUsages::TEXTURE_BINDING | wgpu::TextureUsages::COPY_DST,
                view_formats: &[],
            });
            self.keep(&label, Memory::Texture(texture), lines * u64::from(TEXTURE_WIDTH) * 16)
        };
        Ok(Some([make(lines[0], "quants")?, make(lines[1], "scales")?]))
    }

    /// Writes whole texels from `first` on, line by line.
    pub(super) fn write_texels(&self, texture: &wgpu::Texture, first: usize, words: &[u32]) {
        let width = TEXTURE_WIDTH as usize;
        let (mut at, mut rest) = (first, words);
        while !rest.is_empty() {
            // The rest of a line, or whole lines, or the start of one.
            let (x, y) = (at % width, at / width);
            let texels = rest.len() / 4;
            let (columns, lines) =
                if x > 0 || texels < width { (texels.min(width - x), 1) } else { (width, texels / width) };
            let (now, later) = rest.split_at(columns * lines * 4);
            let origin = wgpu::Origin3d { x: x as u32, y: y as u32, z: 0 };
            self.queue.write_texture(
                wgpu::TexelCopyTextureInfo { texture, mip_level: 0, origin, aspect: wgpu::TextureAspect::All },
                bytemuck::cast_slice(now),
                wgpu::TexelCopyBufferLayout {
                    offset: 0,
                    bytes_per_row: Some(columns as u32 * 16),
                    rows_per_image: None,
                },
                wgpu::Extent3d { width: columns as u32, height: lines as u32, depth_or_array_layers: 1 },
            );
            at += columns * lines;
            rest = later;
        }
    }

    /// Writes rows of a matrix that lies in textures. `row` is a multiple of [`ROW_UNIT`], and so is the number of rows unless
    /// they are the last.
    pub(super) fn write_textures(&self, part: &MatrixPart, row: usize, quants: &[u32], scales: &[u32]) -> Result<()> {
        self.faults.check()?;
        let blocks = part.cols as usize / BLOCK;
        let words = part.layout.quant_words();
        let rows = scales.len() / blocks;
        let whole = row.is_multiple_of(ROW_UNIT) && (rows.is_multiple_of(ROW_UNIT) || row + rows == part.rows as usize);
        if !whole || row + rows > part.rows as usize || quants.len() != rows * blocks * words {
            return Err(Error::Gpu { reason: format!("rows {row} + {rows} of {}: expected units", part.rows) });
        }
        let groups = rows.div_ceil(TEXTURE_GROUP);
        let mut quant_texels = vec![[0u32; 4]; groups * TEXTURE_GROUP * blocks * words / 4];
        let mut scale_texels = vec![[0u32; 4]; groups * TEXTURE_EIGHT * blocks];
        let by_row = quants.as_chunks::<4>().0.chunks_exact(blocks * words / 4).zip(scales.chunks_exact(blocks));
        for (at, (quants, scales)) in by_row.enumerate() {
            let (group, at) = (at / TEXTURE_GROUP, at % TEXTURE_GROUP);
            let to = &mut quant_texels[group * TEXTURE_GROUP * quants.len() + at..];
            to.iter_mut().step_by(TEXTURE_GROUP).zip(quants).for_each(|(to, from)| *to = *from);
            let to = &mut scale_texels[group * TEXTURE_EIGHT * blocks + at % TEXTURE_EIGHT..];
            to.iter_mut().step_by(TEXTURE_EIGHT).zip(scales).for_each(|(to, from)| to[at / TEXTURE_EIGHT] = *from);
        }
        let textures = [part.quants, part.scales].map(|id| {
            let buffers = self.buffers.borrow();
            buffers.get(id.0 as usize).and_then(|slot| slot.texture().cloned())
        });
        let [Some(quant_texture), Some(scale_texture)] = textures else {
            return Err(Error::Gpu {
                reason: format!("buffers {} and {} are no textures", part.quants.0, part.scales.0),
            });
        };
        let group = row / TEXTURE_GROUP * blocks;
        self.write_texels(&quant_texture, group * TEXTURE_GROUP * words / 4, quant_texels.as_flattened());
        self.write_texels(&scale_texture, group * TEXTURE_EIGHT, scale_texels.as_flattened());
        self.settle(4 * (quant_texels.len() + scale_texels.len()))
    }

    /// Notes a new buffer or texture, unless the device could not make it.
    fn keep(&self, label: &str, memory: Memory, bytes: u64) -> Result<BufferId> {
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
        buffers.push(Slot { label: label.to_owned(), memory, words: bytes / 4 });
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
        Ok(slot.buffer()?.clone())
    }

    pub(super) fn write_buffer(&self, buffer: BufferId, offset: usize, words: &[u32]) -> Result<()> {
        self.faults.check()?;
        let target = self.range(buffer, offset, words.len())?;
        self.queue.write_buffer(&target, offset as u64 * 4, bytemuck::cast_slice(words));
        self.settle(words.len())
    }

    /// After writing some words: lets the device take over what piled up.
    fn settle(&self, words: usize) -> Result<()> {
        let unsettled = self.unsettled_bytes.get() + words as u64 * 4;
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
            match &slot.memory {
                Memory::Buffer(buffer) => buffer.destroy(),
                Memory::Texture(texture) => texture.destroy(),
            }
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
