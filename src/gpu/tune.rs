//! How `matvec` is cut on this device: decided at load by a short measurement of the shapes in use.
//!
//! Software wants few independent threads, hardware wants neighbours that share a row, and how many differs between
//! adapters and between shapes. So the candidates are timed, with 1 and with 8 columns, and the decision is the same for
//! every column count: sums do not depend on the columns in flight.

use super::GpuExecutor;
use super::fault::caught;
use super::kernels::Geometry;
use crate::error::Result;
use crate::plan::{
    Arithmetic, Columns, Executor, MAX_COLUMNS, MatrixPart, Params, Plan, PlanId, Step, Submission, UNIFORM_WORDS,
    Vector, round_trip_ms, rows_per_part, time_ms,
};
use crate::runtime::now_ms;
use crate::weights::format::Layout;
use std::collections::{BTreeMap, BTreeSet};

/// Candidates whose turn would come after this long are left out.
const BUDGET_MS: f64 = 1500.0;
/// A submission that is timed takes at least this long, where it can: timers of browsers are coarse.
const RESOLVED_MS: f64 = 4.0;
/// Measurements of which the best counts.
const TURNS: usize = 3;
/// Calls of a kernel in a plan, each on a matrix of its own: what a pass reads was not read just before.
const MATRICES: usize = 12;
/// Bytes that one of them and all together take, about.
const MATRIX_BYTES: usize = 16 << 20;
const ALL_BYTES: usize = 48 << 20;
/// Smaller matrices are not timed: calling the kernel is what takes their time.
const LEAST_WEIGHTS: usize = 1 << 16;
/// A candidate must beat those before it by this factor: a tie is decided the same way on every day.
const GAIN: f64 = 0.94;
/// Columns up to which the first of [`WIDTHS`] speaks.
const NARROW: u32 = 2;
/// Columns of the two measurements; the product of both times counts.
const WIDTHS: [usize; 2] = [1, 8];

/// Matrices that share a cut: as deep, and as tall as a vocabulary or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ShapeClass {
    /// Layout on the device.
    pub layout: Layout,
    /// Weights in a row.
    pub cols: usize,
    /// Has [`ShapeClass::TALL`] rows and more.
    pub tall: bool,
}

impl ShapeClass {
    /// Rows of which there are enough for any device.
    const TALL: usize = 16_384;

    /// The class of a matrix.
    pub const fn of(layout: Layout, rows: usize, cols: usize) -> ShapeClass {
        ShapeClass { layout, cols, tall: rows >= ShapeClass::TALL }
    }
}

/// A candidate and what it took.
#[derive(Debug, Clone, serde::Serialize)]
pub struct CutTime {
    /// [`Geometry::label`].
    pub cut: String,
    /// One call with 1 column, and with 8.
    pub ms: [f64; WIDTHS.len()],
}

/// What was measured for a class of shapes.
#[derive(Debug, Clone, serde::Serialize)]
pub struct TuneReport {
    /// Layout, rows and columns of the matrix that was timed.
    pub layout: String,
    /// Its rows.
    pub rows: usize,
    /// Its columns.
    pub cols: usize,
    /// In the order in which they were timed; none where there was no time.
    pub candidates: Vec<CutTime>,
    /// What runs.
    pub chosen: String,
}

/// Cuts that were measured on a device, to be kept and given to the next load: then nothing is measured again, and the text
/// of a model whose sums depend on them cannot change from one load to the next.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KnownCuts {
    /// Adapter, driver, build and arithmetic that they hold for.
    device: String,
    cuts: Vec<(ShapeClass, Geometry)>,
}

/// A candidate and milliseconds of a call with each of [`WIDTHS`].
type Timed = (Geometry, [f64; WIDTHS.len()]);

/// What is timed.
#[derive(Clone, Copy)]
struct Timing {
    class: ShapeClass,
    rows: usize,
    /// An empty submission and the wait for it, which is not in the times.
    round_trip_ms: f64,
}

/// The candidate whose times have the smallest product; of those that are nearly as good, the first.
fn best(timed: &[Timed]) -> Option<Timed> {
    let cost = |(_, ms): &Timed| ms.iter().product::<f64>();
    timed.iter().copied().reduce(|best, next| if cost(&next) < GAIN * cost(&best) { next } else { best })
}

impl GpuExecutor {
    /// Times the candidates for matrices of these shapes `(layout, rows, cols)` and takes the best for each class, but for
    /// classes that are `known` on this device; to be called before matrices are allocated, since a cut decides where they
    /// lie.
    pub async fn tune(&self, shapes: &[(Layout, usize, usize)], known: Option<&KnownCuts>) -> Result<Vec<TuneReport>> {
        let classes = self.classes(shapes);
        if let Some(known) = known.filter(|known| known.device == self.identity()) {
            // They come from a file: only what could have been chosen here is taken.
            for &(class, geometry) in known.cuts.iter().filter(|(_, geometry)| self.is_candidate(*geometry)) {
                let here = classes.iter().any(|(ours, _)| *ours == class);
                let cuts = if here { &self.cuts } else { &self.other_cuts };
                cuts.borrow_mut().insert(class, geometry);
            }
        }
        let unknown: Vec<_> =
            classes.into_iter().filter(|(class, _)| !self.cuts.borrow().contains_key(class)).collect();
        if unknown.is_empty() {
            return Ok(Vec::new());
        }
        let round_trip_ms = round_trip_ms(self).await?;
        let deadline = now_ms() + BUDGET_MS;
        let mut favourite = self.geometry;
        let mut reports = Vec::new();
        for (at, &(class, rows)) in unknown.iter().enumerate() {
            // Each class has its share of what is left.
            let now = now_ms();
            let until = now + (deadline - now) / (unknown.len() - at) as f64;
            let mut timed = Vec::new();
            let mut first = favourite;
            let worth_it = rows * class.cols >= LEAST_WEIGHTS;
            let products = self.arithmetic == Arithmetic::Q8 && class.layout.is_quantised();
            let timing = Timing { class, rows, round_trip_ms };
            // The choice that matters most is made whatever it takes.
            if worth_it && products && (at == 0 || now < deadline) {
                first = self.tune_products(timing, favourite, &mut timed).await?;
            }
            let others = Geometry { dot4: first.dot4, masks: first.masks, ..self.geometry }.alternatives();
            let mut candidates = [first].into_iter().chain(others).filter(|_| worth_it);
            // With the time gone, what was best there is taken elsewhere: it stays so, since another cut may be other bits.
            while let Some(geometry) = candidates.next().filter(|_| now_ms() < until) {
                if timed.iter().all(|(known, _)| *known != geometry) {
                    timed.push((geometry, self.time_geometry(timing, geometry).await?));
                }
            }
            let chosen = best(&timed).map_or(first, |(chosen, _)| chosen);
            if at == 0 {
                favourite = chosen;
            }
            self.cuts.borrow_mut().insert(class, chosen);
            reports.push(TuneReport {
                layout: class.layout.name().to_owned(),
                rows,
                cols: class.cols,
                candidates: timed.iter().map(|(geometry, ms)| CutTime { cut: geometry.label(), ms: *ms }).collect(),
                chosen: chosen.label(),
            });
        }
        self.tuned.replace(reports.clone());
        Ok(reports)
    }

    /// Classes of the parts that these matrices lie in, those with most weights first, each with the rows that stand for it.
    fn classes(&self, shapes: &[(Layout, usize, usize)]) -> Vec<(ShapeClass, usize)> {
        let most = self.limits().max_binding_bytes;
        // By class the tallest, and all weights: where the time goes.
        let mut classes: BTreeMap<ShapeClass, (usize, usize)> = BTreeMap::new();
        for &(layout, rows, cols) in shapes {
            let whole = rows_per_part(layout, rows, cols, most);
            for part in (0..rows).step_by(whole).map(|first| whole.min(rows - first)) {
                let (tallest, weights) = classes.entry(ShapeClass::of(layout, part, cols)).or_default();
                *tallest = part.max(*tallest);
                *weights += part * cols;
            }
        }
        let mut classes: Vec<_> = classes.into_iter().collect();
        classes.sort_by_key(|(_, (_, weights))| std::cmp::Reverse(*weights));
        let standing = |(class, (tallest, _)): (ShapeClass, (usize, usize))| {
            let fit = (MATRIX_BYTES / (class.layout.quant_words_for(class.cols) * 4).max(1)).max(1);
            (class, tallest.min(if class.tall { fit.max(ShapeClass::TALL) } else { fit }))
        };
        classes.into_iter().map(standing).collect()
    }

    fn is_candidate(&self, geometry: Geometry) -> bool {
        let dot4 = [0, NARROW, self.widest_dot4(), self.geometry.dot4];
        let masks = geometry.masks && self.masks_are_candidates();
        dot4.into_iter().any(|dot4| Geometry { dot4, masks, ..self.geometry }.alternatives().contains(&geometry))
    }

    /// What was measured or known, to be kept for the next load.
    pub fn known_cuts(&self) -> KnownCuts {
        let (here, others) = (self.cuts.borrow(), self.other_cuts.borrow());
        let cuts: BTreeMap<_, _> = others.iter().chain(here.iter()).map(|(class, cut)| (*class, *cut)).collect();
        KnownCuts { device: self.identity(), cuts: cuts.into_iter().collect() }
    }

    /// Columns up to which products are made by `dot4I8Packed` where that is best for 1 and for 8. In software a pass of 16
    /// is of floats even so: all matrices of one took 81 ms on llvmpipe against 85 to 104.
    const fn widest_dot4(&self) -> u32 {
        if self.geometry.lanes > 1 { MAX_COLUMNS as u32 } else { WIDTHS[1] as u32 }
    }

    /// Hardware shifts as fast as it masks.
    const fn masks_are_candidates(&self) -> bool {
        self.geometry.lanes == 1
    }

    /// How bytes are multiplied: up to which width by `dot4I8Packed`, which is fast for one column in software that knows it
    /// and slow for many, and how where not. The bits are the same, so that widths may differ. What was timed is added to
    /// `timed`.
    async fn tune_products(&self, timing: Timing, geometry: Geometry, timed: &mut Vec<Timed>) -> Result<Geometry> {
        let plain = Geometry { dot4: 0, masks: false, ..geometry };
        let mut without = (plain, self.time_geometry(timing, plain).await?);
        timed.push(without);
        if self.masks_are_candidates() {
            let masks = Geometry { masks: true, ..plain };
            timed.push((masks, self.time_geometry(timing, masks).await?));
            without = best(timed).unwrap_or(without);
        }
        let (without, [_, wide_ms]) = without;
        let of = |dot4: u32| Geometry { dot4, ..without };
        let wide = of(self.widest_dot4());
        let bytes = self.time_geometry(timing, wide).await?;
        timed.extend([(wide, bytes), (of(NARROW), [bytes[0], wide_ms])]);
        Ok(best(timed).map_or(without, |(chosen, _)| chosen))
    }

    /// What a candidate takes; for ever where the driver refuses it.
    async fn time_geometry(&self, timing: Timing, geometry: Geometry) -> Result<[f64; WIDTHS.len()]> {
        let mark = self.mark();
        let timed = self.with_cut(timing.class, geometry, self.time_cut(timing));
        let (ms, refused) = caught(&self.device, timed).await;
        self.release(mark);
        if refused.is_some() { Ok([f64::INFINITY; WIDTHS.len()]) } else { ms }
    }

    /// Milliseconds of a call on a matrix of the class, cut as `self.cuts` says.
    async fn time_cut(&self, timing: Timing) -> Result<[f64; WIDTHS.len()]> {
        let Timing { class: ShapeClass { layout, cols, .. }, rows, round_trip_ms } = timing;
        let matrix_bytes = layout.quant_words_for(rows * cols) * 4;
        let matrices = (ALL_BYTES / matrix_bytes.max(1)).clamp(1, MATRICES);
        let most = WIDTHS[WIDTHS.len() - 1];
        let x = self.alloc("tune x", UNIFORM_WORDS.max(most * cols))?;
        let vector = match self.arithmetic {
            Arithmetic::Q8 if layout.is_quantised() => Vector::Q8(x),
            _ => Vector::F32(x),
        };
        let out = self.alloc("tune out", most * rows)?;
        let steps = (0..matrices).map(|_| {
            let [quants, scales] = self.alloc_matrix("tune", layout, rows, cols)?;
            let weight = MatrixPart { layout, quants, scales, first_row: 0, rows: rows as u32, cols: cols as u32 };
            let (out_offset, out_stride) = (0, rows as u32);
            Ok(Step::Matvec { weight, x: vector, out, out_offset, out_stride, add: false, columns: Columns::All })
        });
        let steps = steps.collect::<Result<Vec<_>>>()?;
        let mut ms = [0.0; WIDTHS.len()];
        for (ms, bucket) in ms.iter_mut().zip(WIDTHS) {
            let plan = self.prepare(Plan { label: "tune".to_owned(), bucket, steps: steps.clone() })?;
            *ms = self.time_plan(plan, bucket, round_trip_ms).await? / matrices as f64;
        }
        Ok(ms)
    }

    /// Milliseconds of a run of a plan, the best of some measurements.
    async fn time_plan(&self, plan: PlanId, columns: usize, round_trip_ms: f64) -> Result<f64> {
        let run = async |times: usize| {
            let runs = vec![(plan, Params::chain(columns, 0, 0)); times];
            let ms = time_ms(self, Submission { runs, read: (0, 1), ..Submission::default() }).await?;
            Ok::<_, crate::error::Error>((ms - round_trip_ms).max(1e-3))
        };
        run(1).await?;
        let mut times = 1;
        let mut first = run(times).await?;
        while first < RESOLVED_MS && times < super::run::RUNS_PER_SUBMIT {
            times = (times * 4).min(super::run::RUNS_PER_SUBMIT);
            first = run(times).await?;
        }
        let mut best = first;
        for _ in 1..TURNS {
            best = best.min(run(times).await?);
        }
        Ok(best / times as f64)
    }

    /// The cut of a matrix.
    pub(super) fn cut_of(&self, layout: Layout, rows: usize, cols: usize) -> Geometry {
        self.cuts.borrow().get(&ShapeClass::of(layout, rows, cols)).copied().unwrap_or(self.geometry)
    }

    /// Every cut that matrices of a layout may have here.
    pub(super) fn cuts_of(&self, layout: Layout) -> BTreeSet<Geometry> {
        let cuts = self.cuts.borrow();
        let of_layout = cuts.iter().filter(|(class, _)| class.layout == layout);
        let tuned: BTreeSet<Geometry> = of_layout.map(|(_, &cut)| cut).collect();
        if tuned.is_empty() { BTreeSet::from([self.geometry]) } else { tuned }
    }

    /// Does something with all matrices of a class cut one way.
    pub(super) async fn with_cut<T>(&self, class: ShapeClass, cut: Geometry, work: impl Future<Output = T>) -> T {
        let before = self.cuts.borrow_mut().insert(class, cut);
        let result = work.await;
        match before {
            Some(before) => self.cuts.borrow_mut().insert(class, before),
            None => self.cuts.borrow_mut().remove(&class),
        };
        result
    }

    /// What was measured at load.
    pub fn tuned(&self) -> Vec<TuneReport> {
        self.tuned.borrow().clone()
    }

    /// What sums depend on: the threads that share a row, by class of shapes.
    pub(super) fn lanes(&self) -> String {
        let cuts = self.cuts.borrow();
        let others = cuts.iter().filter(|(_, cut)| cut.lanes != self.geometry.lanes).map(|(class, cut)| {
            let ShapeClass { layout, cols, tall } = class;
            format!("+{}-{cols}{}:{}", layout.name(), if *tall { "t" } else { "" }, cut.lanes)
        });
        format!("{}{}", self.geometry.lanes, others.collect::<String>())
    }
}
