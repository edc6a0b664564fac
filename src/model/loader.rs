//! Streams the tensors of a file to a device: in file order, in pieces of whole rows, repacked on the way.

use super::config::ModelConfig;
use super::tensors::{Group, Layer, Matrix, MatrixSpec, Tensors, VectorSpec};
use crate::error::{Error, Result};
use crate::plan::{BufferId, Executor, MatrixPart, ROW_UNIT, alloc_matrix_in_buffers, rows_per_part};
use crate::weights::format::Format;
use crate::weights::gguf::{GgufReader, TensorInfo};
use crate::weights::repack::repack;
use std::collections::HashMap;

/// Bytes of a file that are in memory at once.
const PIECE_BYTES: u64 = 4 << 20;

/// Where a tensor's rows go.
enum Place {
    /// Rows from `first_row` of a matrix.
    Rows { matrix: Matrix, first_row: usize },
    /// Words from `offset` of a buffer of floats.
    Floats { buffer: BufferId, offset: usize },
}

/// Makes room for every tensor.
pub struct Placement<'a> {
    executor: &'a dyn Executor,
    max_binding_bytes: u64,
    places: HashMap<String, Place>,
}

impl<'a> Placement<'a> {
    /// On a device.
    pub fn new(executor: &'a dyn Executor) -> Placement<'a> {
        let max_binding_bytes = executor.limits().max_binding_bytes;
        Placement { executor, max_binding_bytes, places: HashMap::new() }
    }

    /// Allocates all of a model's tensors.
    pub fn tensors(&mut self, specs: &Tensors<MatrixSpec, VectorSpec>) -> Result<Tensors<Matrix, BufferId>> {
        Ok(Tensors {
            embedding: self.matrix(&specs.embedding)?,
            head: specs.head.as_ref().map(|head| self.matrix(head)).transpose()?,
            output_norm: self.vector(&specs.output_norm)?,
            rope_freqs: specs.rope_freqs.as_ref().map(|freqs| self.vector(freqs)).transpose()?,
            layers: specs.layers.iter().map(|layer| self.layer(layer)).collect::<Result<_>>()?,
        })
    }

    fn layer(&mut self, spec: &Layer<MatrixSpec, VectorSpec>) -> Result<Layer<Matrix, BufferId>> {
        let mut optional = |spec: &Option<VectorSpec>| spec.as_ref().map(|spec| self.vector(spec)).transpose();
        let (qk_norm, post_attn_norm, post_ffn_norm) =
            (optional(&spec.qk_norm)?, optional(&spec.post_attn_norm)?, optional(&spec.post_ffn_norm)?);
        Ok(Layer {
            attn_norm: self.vector(&spec.attn_norm)?,
            qkv: self.group(&spec.qkv)?,
            qk_norm,
            attn_output: self.matrix(&spec.attn_output)?,
            post_attn_norm,
            ffn_norm: self.vector(&spec.ffn_norm)?,
            gate_up: self.group(&spec.gate_up)?,
            down: self.matrix(&spec.down)?,
            post_ffn_norm,
        })
    }

    fn group(&mut self, specs: &[MatrixSpec]) -> Result<Group<Matrix>> {
        specs.iter().map(|spec| self.matrix(spec)).collect()
    }

    fn matrix(&mut self, spec: &MatrixSpec) -> Result<Matrix> {
        let most = rows_per_part(spec.layout, spec.rows, spec.cols, self.max_binding_bytes);
        let label = &spec.tensors[0].0;
        // A tensor that begins within a unit of rows cannot be written unit by unit.
        let units = spec.tensors.iter().rev().skip(1).all(|(_, rows)| rows.is_multiple_of(ROW_UNIT));
        let mut matrix = Matrix::new();
        for first_row in (0..spec.rows).step_by(most) {
            let rows = most.min(spec.rows - first_row);
            let [quants, scales] = match units {
                true => self.executor.alloc_matrix(label, spec.layout, rows, spec.cols)?,
                false => alloc_matrix_in_buffers(self.executor, label, spec.layout, rows, spec.cols)?,
            };
            matrix.push(MatrixPart {
                layout: spec.layout,
                quants,
                scales,
                first_row: first_row as u32,
                rows: rows as u32,
                cols: spec.cols as u32,
            });
        }
        let mut first_row = 0;
        for (name, rows) in &spec.tensors {
            self.places.insert(name.clone(), Place::Rows { matrix: matrix.clone(), first_row });
            first_row += rows;
        }
        Ok(matrix)
    }

    fn vector(&mut self, spec: &VectorSpec) -> Result<BufferId> {
        let buffer = self.executor.alloc(&spec.tensors[0].0, spec.floats())?;
        let mut offset = 0;
        for (name, len) in &spec.tensors {
            self.places.insert(name.clone(), Place::Floats { buffer, offset });
            offset += len;
        }
        Ok(buffer)
    }

    /// Reads every tensor that has a place. `progress` gets the file offset reached.
    pub async fn fill(
        &self,
        reader: &mut GgufReader<'_>,
        tensors: &[TensorInfo],
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let (mut quants, mut scales) = (Vec::new(), Vec::new());
        for tensor in tensors {
            let Some(place) = self.places.get(&tensor.name) else { continue };
            // Whole rows at a time; a vector is one row.
            let row_bytes = tensor.bytes / tensor.shape[..tensor.shape.len() - 1].iter().product::<u64>().max(1);
            let piece_bytes =
                (PIECE_BYTES / row_bytes).next_multiple_of(ROW_UNIT as u64).max(ROW_UNIT as u64) * row_bytes;
            let mut at = 0;
            while at < tensor.bytes {
                let len = piece_bytes.min(tensor.bytes - at);
                let bytes = reader.read_tensor_piece(tensor, at, len as usize).await?;
                quants.clear();
                scales.clear();
                match place {
                    Place::Rows { matrix, first_row } => {
                        repack(&tensor.name, tensor.format, &bytes, &mut quants, &mut scales)?;
                        let row = first_row + (at / row_bytes) as usize;
                        self.write_rows(matrix, row, (len / row_bytes) as usize, &quants, &scales)?;
                    }
                    Place::Floats { buffer, offset } => {
                        floats(tensor, &bytes, &mut quants)?;
                        self.executor.write(*buffer, *offset, &quants)?;
                    }
                }
                at += len;
                progress(tensor.offset + at);
            }
        }
        Ok(())
    }

    /// Writes `rows` rows from `row` of a matrix, part by part.
    fn write_rows(&self, matrix: &Matrix, row: usize, rows: usize, quants: &[u32], scales: &[u32]) -> Result<()> {
        for part in matrix {
            let (first, end) = (part.first_row as usize, (part.first_row + part.rows) as usize);
            let (from, to) = (row.max(first), (row + rows).min(end));
            if from >= to {
                continue;
            }
            let cols = part.cols as usize;
            let words = |per: usize, source: &[u32]| (from - row) * per..((to - row) * per).min(source.len());
            let quants = &quants[words(part.layout.quant_words_for(cols), quants)];
            let scales = &scales[words(part.layout.scale_words_for(cols), scales)];
            self.executor.write_matrix(part, from - first, quants, scales)?;
        }
        Ok(())
    }
}

/// Vectors are small: whatever float format they have becomes f32. Other formats are refused, also of no bytes.
pub(super) fn floats(tensor: &TensorInfo, bytes: &[u8], out: &mut Vec<u32>) -> Result<()> {
    let half = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
    match tensor.format {
        Format::F32 => out.extend(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        Format::F16 => out.extend(bytes.chunks_exact(2).map(|b| half::f16::from_bits(half(b)).to_f32().to_bits())),
        Format::BF16 => out.extend(bytes.chunks_exact(2).map(|b| u32::from(half(b)) << 16)),
        other => {
            return Err(Error::UnsupportedFormat {
                tensor: tensor.name.clone(),
                found: other.name().to_owned(),
                supported: "F32, F16, BF16 for a vector".to_owned(),
            });
        }
    }
    Ok(())
}

/// Cosine and sine of every position and pair, `(capacity, head_dim/2, 2)`: made on the host in f64, since a device's own
/// functions lose accuracy at large angles.
pub fn rope_table(config: &ModelConfig, local: bool, capacity: usize, divisors: Option<&[f32]>) -> Vec<u32> {
    let (base, factor) = match local {
        true => (config.architecture.local_rope_base, 1.0),
        false => (config.rope_base, config.rope_factor),
    };
    let half = config.head_dim / 2;
    let frequencies: Vec<f64> = (0..half)
        .map(|pair| {
            let divisor = divisors.map_or(1.0, |divisors| f64::from(divisors[pair]));
            f64::from(base).powf(-(pair as f64) / half as f64) / divisor / f64::from(factor)
        })
        .collect();
    let mut table = Vec::with_capacity(capacity * config.head_dim);
    for position in 0..capacity {
        for frequency in &frequencies {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            table.extend([(cos as f32).to_bits(), (sin as f32).to_bits()]);
        }
    }
    table
}
