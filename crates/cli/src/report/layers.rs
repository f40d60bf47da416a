//! Norm, deviation, update-to-weight ratio and zeros of every tensor of the model over the kept
//! checkpoints, and its histograms: which layer, and since when. The cost of reading
//! bounds how many checkpoints are drawn.

use super::looked::Looked;
use super::tensors::{Tensors, model_of};
use super::{EACH_TENSOR, READ_UP_TO, pack};
use crate::compare::{self, Tolerance, Verdict};
use crate::opened::{Meta, Opened};
use crate::output::clean;
use crate::stats;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use tensorkeep::{CheckpointId, CheckpointInfo, Reader, Result};

/// Checkpoints drawn.
const COLUMNS: usize = 64;
/// Tensors, or modules, drawn.
const ROWS: usize = 192;
/// Tensors that are drawn beside modules, where those are the rows.
const APART: usize = 12;
/// Each is read three times: for its numbers, and beside the one before and the one behind.
const PASSES: u64 = 3;

/// Histograms: tensors, checkpoints, and bins of each.
const RIDGES: usize = 96;
const RIDGE_COLUMNS: usize = 24;
const BINS: usize = 40;
/// Numbers of a sample that are kept for a histogram.
const SAMPLE: usize = 1_024;

/// The numbers of one tensor in one checkpoint.
#[derive(Clone, Debug, Default)]
struct Cell {
    norm: f64,
    std: f64,
    update: f64,
    zeros: f64,
    sample: Vec<f32>,
}

/// Tensors over checkpoints.
pub struct Layers {
    /// Indices into the listing.
    pub cols: Vec<usize>,
    metas: Vec<Meta>,
    /// By tensor, then by column.
    cells: Vec<Vec<Cell>>,
    /// Whether a checkpoint has NaN, for those that were looked at.
    pub has_nan: BTreeMap<CheckpointId, bool>,
}

impl Layers {
    /// Reads the checkpoints that are drawn. One that turns out damaged is left out, and told.
    ///
    /// # Errors
    /// Errors of reading that do not concern a single checkpoint.
    pub fn read(
        reader: &Reader,
        infos: &[CheckpointInfo],
        looked: &mut Looked,
        newest: &Tensors,
    ) -> Result<Self> {
        let metas: Vec<Meta> = model_of(newest.all.iter().map(|(meta, _)| meta))
            .into_iter()
            .filter(|meta| meta.alias_of.is_none())
            .cloned()
            .collect();
        let mut layers =
            Self { cols: vec![], cells: vec![vec![]; metas.len()], metas, has_nan: BTreeMap::new() };
        if layers.metas.is_empty() {
            return Ok(layers);
        }
        let mut before: Option<(u64, Opened)> = None;
        for at in choose(infos, looked, &layers.metas) {
            let info = &infos[at];
            if !looked.verifies(reader, info) {
                continue;
            }
            let opened = Opened::Own(reader.checkpoint_by_id(info.id)?);
            layers.take(at, info.id, &opened, before.as_ref())?;
            before = Some((info.id.step, opened));
        }
        Ok(layers)
    }

    /// Takes one checkpoint in, as the next column.
    fn take(
        &mut self,
        at: usize,
        id: CheckpointId,
        opened: &Opened,
        before: Option<&(u64, Opened)>,
    ) -> Result<()> {
        let there: BTreeMap<String, Meta> =
            opened.tensors().into_iter().map(|meta| (meta.name.clone(), meta)).collect();
        let rows: Vec<(usize, Meta)> = self
            .metas
            .iter()
            .enumerate()
            .filter_map(|(row, meta)| Some((row, there.get(&meta.name)?.clone())))
            .filter(|(_, meta)| meta.alias_of.is_none())
            .collect();
        let metas: Vec<Meta> = rows.iter().map(|(_, meta)| meta.clone()).collect();
        let mut cells: Vec<Cell> = vec![Cell::default(); self.metas.len()];
        let mut has_nan = false;
        for ((row, _), stats) in rows.iter().zip(stats::of(opened, &metas)?) {
            let Some(stats) = stats.ok().flatten() else { continue };
            has_nan |= stats.nans > 0;
            let of = |number: f64| if stats.nans > 0 { f64::NAN } else { number };
            let every = stats.sample().len().div_ceil(SAMPLE).max(1);
            let finite = stats.sample().iter().step_by(every).filter(|x| x.is_finite());
            cells[*row] = Cell {
                norm: of(stats.norm()),
                std: of(stats.std()),
                update: 0.0,
                zeros: stats.zeros as f64 / stats.count.max(1) as f64,
                sample: finite.map(|x| *x as f32).collect(),
            };
        }
        if let Some((step, before)) = before {
            let apart = id.step.abs_diff(*step).max(1) as f64;
            let tolerance = Tolerance { rtol: 1e-5, atol: 1e-8 };
            let verdicts = compare::between((before, matching(before, &metas)), (opened, metas), tolerance)?;
            for (row, meta) in &rows {
                let relative = verdicts.get(&meta.name).and_then(Verdict::distance);
                cells[*row].update = relative.map_or(0.0, |distance| distance.relative() / apart);
            }
        }
        for (row, cell) in cells.into_iter().enumerate() {
            self.cells[row].push(cell);
        }
        self.has_nan.insert(id, has_nan);
        self.cols.push(at);
        Ok(())
    }

    /// The heat map and the histograms.
    pub fn json(&self, newest: &Tensors, kept: usize) -> (Json, Json) {
        if self.cols.is_empty() {
            return (Json::Null, Json::Null);
        }
        let rows = self.rows();
        let column = |number: fn(&Cell) -> f64, is_norm: bool| {
            let each = rows.iter().flat_map(|row| {
                (0..self.cols.len()).map(move |at| self.together(&row.tensors, at, number, is_norm))
            });
            pack::log_scale(&each.collect::<Vec<_>>())
        };
        let tensor = |row: &Row| match row.tensors.as_slice() {
            [one] if !row.is_module => newest.index.get(&self.metas[*one].name).map_or(-1, |at| *at as i64),
            _ => -1,
        };
        let heat = json!({
            "cols": self.cols, "of": kept,
            "labels": rows.iter().map(|row| clean(&row.label)).collect::<Vec<_>>(),
            "count": rows.iter().map(|row| self.values(row)).collect::<Vec<_>>(),
            "tensor": rows.iter().map(tensor).collect::<Vec<_>>(),
            "first_nan": self.first_nan_cell(&rows),
            "norm": column(|cell| cell.norm, true), "std": column(|cell| cell.std, false),
            "update": column(|cell| cell.update, false), "zeros": column(|cell| cell.zeros, false),
        });
        (heat, self.ridges(&rows))
    }

    /// The first tensor with NaN, and in which column, oldest first.
    pub fn first_nan(&self) -> Option<(&str, usize)> {
        let columns = 0..self.cols.len();
        let row_at = |at: usize| self.cells.iter().position(|cells| cells[at].norm.is_nan());
        let (row, at) = columns.filter_map(|at| Some((row_at(at)?, at))).next()?;
        Some((&self.metas[row].name, at))
    }

    fn first_nan_cell(&self, rows: &[Row]) -> Option<(usize, usize)> {
        let (name, at) = self.first_nan()?;
        let row = rows.iter().position(|row| row.tensors.iter().any(|&i| self.metas[i].name == name))?;
        Some((row, at))
    }

    fn values(&self, row: &Row) -> u64 {
        row.tensors.iter().map(|&i| self.metas[i].count()).sum()
    }

    /// A module's norm is the root of its tensors' squares, the rest is weighed by size.
    fn together(&self, tensors: &[usize], at: usize, number: fn(&Cell) -> f64, is_norm: bool) -> f64 {
        if let [one] = tensors {
            return number(&self.cells[*one][at]);
        }
        let (mut sum, mut all) = (0.0, 0.0);
        for &tensor in tensors {
            let (value, count) = (number(&self.cells[tensor][at]), self.metas[tensor].count() as f64);
            sum += if is_norm { value * value } else { value * count };
            all += count;
        }
        if is_norm { sum.sqrt() } else { sum / all.max(1.0) }
    }

    /// Tensors, or where those are too many, modules, and the tensors that changed most.
    fn rows(&self) -> Vec<Row> {
        let label = |name: &str| {
            let own = name.strip_prefix("model/").or_else(|| name.strip_prefix("model."));
            own.unwrap_or(name).to_owned()
        };
        let of_tensor =
            |i: usize| Row { label: label(&self.metas[i].name), tensors: vec![i], is_module: false };
        if self.metas.len() <= ROWS {
            return (0..self.metas.len()).map(of_tensor).collect();
        }
        let modules = |depth: usize| {
            let mut found: Vec<Row> = Vec::new();
            let mut known: BTreeMap<String, usize> = BTreeMap::new();
            for (i, meta) in self.metas.iter().enumerate() {
                let name = label(&meta.name);
                let end = name.match_indices(['.', '/']).nth(depth).map_or(name.len(), |(at, _)| at);
                let row = *known.entry(name[..end].to_owned()).or_insert(found.len());
                if row == found.len() {
                    found.push(Row { label: name[..end].to_owned(), tensors: vec![], is_module: true });
                }
                found[row].tensors.push(i);
            }
            found
        };
        let fits = |rows: &Vec<Row>| rows.len() <= ROWS - APART;
        let deepest = (0..8).map(modules).take_while(fits).last();
        let mut rows = deepest.unwrap_or_default();
        let mut by_change: Vec<usize> = (0..self.metas.len()).collect();
        by_change.sort_by(|&a, &b| self.change(b).total_cmp(&self.change(a)));
        rows.extend(by_change.into_iter().take(APART).map(of_tensor));
        rows
    }

    /// How much a tensor changed over all columns; one with NaN before all others.
    fn change(&self, tensor: usize) -> f64 {
        let sum: f64 = self.cells[tensor].iter().map(|cell| cell.update).sum();
        if self.cells[tensor].iter().any(|cell| cell.norm.is_nan()) { f64::INFINITY } else { sum }
    }

    fn ridges(&self, rows: &[Row]) -> Json {
        let mut drawn: Vec<usize> = (0..rows.len()).filter(|&row| !rows[row].is_module).collect();
        drawn.sort_by(|&a, &b| self.change(rows[b].tensors[0]).total_cmp(&self.change(rows[a].tensors[0])));
        drawn.truncate(RIDGES);
        drawn.sort_unstable();
        let cols = evenly(self.cols.len(), RIDGE_COLUMNS);
        let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
        for &row in &drawn {
            let cells = &self.cells[rows[row].tensors[0]];
            let samples: Vec<&[f32]> = cols.iter().map(|&at| cells[at].sample.as_slice()).collect();
            let (lo, hi) = range(&samples);
            ranges.push([pack::number(f64::from(lo)), pack::number(f64::from(hi))]);
            bytes.extend(histograms(&samples, lo, hi));
        }
        json!({ "rows": drawn, "cols": cols, "bins": BINS, "range": ranges, "h": pack::base64(&bytes) })
    }
}

/// A row of the heat map.
#[derive(Clone, Debug)]
struct Row {
    label: String,
    /// Indices of the tensors that it sums.
    tensors: Vec<usize>,
    is_module: bool,
}

/// Those of these tensors that the checkpoint before has too.
fn matching(before: &Opened, metas: &[Meta]) -> Vec<Meta> {
    metas.iter().filter_map(|meta| before.meta(&meta.name).ok()).collect()
}

/// Smallest and largest of all.
fn range(samples: &[&[f32]]) -> (f32, f32) {
    let all = || samples.iter().flat_map(|sample| sample.iter().copied());
    let (lo, hi) = (all().fold(f32::INFINITY, f32::min), all().fold(f32::NEG_INFINITY, f32::max));
    if lo <= hi { (lo, hi) } else { (0.0, 1.0) }
}

/// A byte for each bin: the square root of its share, against the highest of this tensor.
fn histograms(samples: &[&[f32]], lo: f32, hi: f32) -> Vec<u8> {
    // Halves, because the span of the largest numbers is beyond f32.
    let span = (hi / 2.0 - lo / 2.0).max(f32::MIN_POSITIVE);
    let shares: Vec<f64> = samples
        .iter()
        .flat_map(|sample| {
            let mut bins = [0_u32; BINS];
            for value in *sample {
                let at = (value / 2.0 - lo / 2.0) / span * BINS as f32;
                bins[(at as usize).min(BINS - 1)] += 1;
            }
            bins.map(|count| f64::from(count) / sample.len().max(1) as f64)
        })
        .collect();
    let most = shares.iter().copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    shares.iter().map(|share| ((share / most).sqrt() * 255.0).round() as u8).collect()
}

/// The checkpoints that are drawn: the first, the newest, the first of each attempt, and of the
/// others as many as there is room for, evenly.
fn choose(infos: &[CheckpointInfo], looked: &Looked, metas: &[Meta]) -> Vec<usize> {
    let sound: Vec<usize> = (0..infos.len())
        .filter(|&at| infos[at].state.is_ok() && !looked.damaged.contains_key(&infos[at].id))
        .collect();
    let model: u64 = metas.iter().map(|meta| meta.stored_len + EACH_TENSOR).sum();
    let each = (model * PASSES).max(1);
    let most = ((READ_UP_TO / each) as usize).clamp(2, COLUMNS);
    if sound.len() <= most {
        return sound;
    }
    let resumed = sound.windows(2).filter(|two| infos[two[0]].id.attempt != infos[two[1]].id.attempt);
    let ends = sound.first().copied().into_iter().chain(sound.last().copied());
    let mut special: Vec<usize> = ends.chain(resumed.map(|two| two[1])).take(most / 2).collect();
    special.sort_unstable();
    special.dedup();
    let rest: Vec<usize> = sound.into_iter().filter(|at| special.binary_search(at).is_err()).collect();
    let mut chosen: Vec<usize> =
        evenly(rest.len(), most - special.len()).into_iter().map(|at| rest[at]).chain(special).collect();
    chosen.sort_unstable();
    chosen
}

/// At most `most` of `len`, first and last among them.
pub fn evenly(len: usize, most: usize) -> Vec<usize> {
    if len <= most {
        return (0..len).collect();
    }
    let last = match most {
        0 => return vec![],
        1 => return vec![len - 1],
        most => most - 1,
    };
    let mut chosen: Vec<usize> = (0..=last).map(|i| i * (len - 1) / last).collect();
    chosen.dedup();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_many_are_spread_evenly_and_hold_both_ends() {
        assert_eq!(evenly(3, 5), [0, 1, 2]);
        assert_eq!(evenly(101, 5), [0, 25, 50, 75, 100]);
        assert_eq!(evenly(0, 5), [0_usize; 0]);
        assert_eq!((evenly(9, 0).len(), evenly(9, 1)), (0, vec![8]));
    }

    #[test]
    fn a_histograms_highest_bin_is_full_and_its_ends_are_in_it() {
        let samples: [&[f32]; 2] = [&[0.0, 0.0, 1.0], &[]];
        let (lo, hi) = range(&samples);
        let bytes = histograms(&samples, lo, hi);
        assert_eq!((bytes.len(), bytes[0], bytes[BINS - 1], bytes[BINS]), (2 * BINS, 255, 180, 0));
        assert_eq!(range(&[&[]]), (0.0, 1.0));
        assert_eq!(histograms(&[&[-f32::MAX, f32::MAX]], -f32::MAX, f32::MAX)[BINS - 1], 255);
    }
}
