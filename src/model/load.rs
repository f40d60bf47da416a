//! Loading a state dict from a checkpoint, all or nothing: names, shapes and dtypes are compared,
//! and every tensor is found and verified before the first value changes.

use super::report::{LoadReport, Mismatch, WRAPPERS};
use super::{cast, grouped};
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::pipeline;
use crate::state_dict::{Stateful, TensorMut};
use std::collections::{BTreeMap, BTreeSet};
use tensorkeep_memcpy::Copier;

/// The differences that loading a state dict allows. Strict by default.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    allow_missing: bool,
    allow_unexpected: bool,
    allow_mismatched: bool,
    cast: bool,
    cast_integers: bool,
    in_place: bool,
    from_torch: bool,
    /// Old and new prefixes of names in the checkpoint.
    prefixes: Vec<(String, String)>,
}

impl LoadOptions {
    /// Strict: the same names on both sides, with the same shapes and dtypes.
    pub fn strict() -> Self {
        Self::default()
    }

    /// Tensors missing from the checkpoint keep their values.
    pub fn allow_missing(self) -> Self {
        Self { allow_missing: true, ..self }
    }

    /// Tensors that only the checkpoint has are ignored.
    pub fn allow_unexpected(self) -> Self {
        Self { allow_unexpected: true, ..self }
    }

    /// Tensors of another shape or dtype keep their values.
    pub fn allow_mismatched(self) -> Self {
        Self { allow_mismatched: true, ..self }
    }

    /// Floats of another width are converted, rounding to the nearest value, ties to even.
    pub fn cast(self) -> Self {
        Self { cast: true, ..self }
    }

    /// Like [`LoadOptions::cast`], and integers are converted to floats with the same rounding, for
    /// example a step count that was `i64` and is now `f32`. Integers are not converted to other
    /// integers, nor floats to integers.
    pub fn cast_integers(self) -> Self {
        Self { cast: true, cast_integers: true, ..self }
    }

    fn casts(&self, from: Dtype, to: Dtype) -> bool {
        self.cast
            && (cast::is_possible(from, to) || self.cast_integers && cast::is_possible_of_integers(from, to))
    }

    /// Names in the checkpoint that begin with `prefix`, behind the group, are looked for without
    /// it: `module.` of torch's DistributedDataParallel, `_orig_mod.` of `torch.compile`. Other
    /// names stay as they are, so one program loads both.
    pub fn strip_prefix(self, prefix: impl Into<String>) -> Self {
        self.rename(prefix, "")
    }

    /// Names in the checkpoint that begin with `old`, after the group, are looked up with `new`
    /// instead. If several prefixes match a name, the first one given applies.
    pub fn rename(mut self, old: impl Into<String>, new: impl Into<String>) -> Self {
        self.prefixes.push((old.into(), new.into()));
        self
    }

    /// For a state dict that PyTorch wrote, and a target of another framework. Two things of torch
    /// have no place there, and the report says which of them was met: the prefix that
    /// DistributedDataParallel or `torch.compile` put before all names ([`LoadReport::stripped`]),
    /// and the number of batches that a norm has seen, `num_batches_tracked`
    /// ([`LoadReport::left_out`]). Where the target has such names itself, they are kept.
    pub fn from_torch(self) -> Self {
        Self { from_torch: true, ..self }
    }

    fn allows(&self, report: &LoadReport) -> bool {
        (self.allow_missing || report.missing.is_empty())
            && (self.allow_unexpected || report.unexpected.is_empty())
            && (self.allow_mismatched || report.mismatched.is_empty())
    }

    /// The name that a tensor of the checkpoint has in the target.
    fn target_name(&self, name: &str) -> String {
        let renamed = self.prefixes.iter().find_map(|(old, new)| {
            let rest = name.strip_prefix(old.as_str())?;
            Some(format!("{new}{rest}"))
        });
        renamed.unwrap_or_else(|| name.to_owned())
    }

    /// Reads directly into the target instead of into memory for a second copy: the fastest way to
    /// resume. Names, shapes and dtypes are still compared before the first value changes. Bytes
    /// are verified as they are read: if they are damaged after the checkpoint was verified, as by
    /// [`Store::resume`](crate::Store::resume), this returns an error and leaves the target partly
    /// old, partly new.
    pub fn in_place(self) -> Self {
        Self { in_place: true, ..self }
    }

    /// Loads `group` into `target` like [`Checkpoint::load_state_dict`], with these options.
    ///
    /// ```
    /// use tensorkeep::{Checkpoint, LoadOptions, Snapshot, StateDict, StateDictMut, Stateful, WriteOptions};
    /// # struct Layer(Vec<f32>);
    /// # impl Stateful for Layer {
    /// #     fn state_dict(&self) -> tensorkeep::Result<StateDict<'_>> { StateDict::new().with("weight", &self.0[..]) }
    /// #     fn state_dict_mut(&mut self) -> tensorkeep::Result<StateDictMut<'_>> { StateDictMut::new().with("weight", (&[2][..], &mut self.0[..])) }
    /// # }
    /// let snapshot = Snapshot::new().tensor("model/weight", &[0.5_f64, 1.5])?;
    /// let checkpoint = Checkpoint::from_bytes(&snapshot.to_bytes(&WriteOptions::new())?)?;
    /// let mut layer = Layer(vec![0.0; 2]); // of f32, where the file has f64
    /// let report = LoadOptions::strict().cast().load(&checkpoint, "model", &mut layer)?;
    /// assert_eq!((layer.0, report.loaded), (vec![0.5, 1.5], vec!["weight".to_owned()]));
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Checkpoint::load_state_dict`]; `Mismatch` also when no tensor would be loaded.
    pub fn load(
        mut self,
        checkpoint: &Checkpoint,
        group: &str,
        target: &mut impl Stateful,
    ) -> Result<LoadReport> {
        let mut targets: Vec<_> = target.state_dict_mut()?.into_iter().collect();
        check_distinct(&targets)?;
        let prefix = checkpoint.prefix_of(group);
        let stripped = if self.from_torch { checkpoint.wrapper_of(&prefix, &targets) } else { None };
        if let Some(wrapper) = stripped {
            self = self.strip_prefix(wrapper);
        }
        let mut there = checkpoint.by_target_name(&prefix, &self)?;
        let mut report = compare(&there, &targets, &self);
        report.stripped = stripped;
        if self.from_torch {
            report.leave_out_counts(&there);
        }
        report.check(self.allows(&report), checkpoint, group, &targets)?;
        targets.retain_mut(|(name, _)| {
            let loads = report.loaded.binary_search(name).is_ok();
            if let Some(info) = there.remove(name.as_str()) {
                info.name.clone_into(name);
            }
            loads
        });
        let mut direct = Vec::new();
        let mut assigned = Vec::new();
        for (name, target) in &mut targets {
            let same_dtype = checkpoint.info(name)?.dtype == Ok(target.dtype());
            if self.in_place && same_dtype && target.bytes_mut().is_some() {
                direct.extend(target.bytes_mut().map(|bytes| (name.as_str(), bytes)));
            } else {
                assigned.push((name.as_str(), target));
            }
        }
        let mut tensors = checkpoint.load(assigned.iter().map(|(name, _)| *name))?;
        if self.cast {
            let pairs = tensors.into_iter().zip(&assigned);
            tensors =
                pairs.map(|(tensor, (_, target))| cast::to(target.dtype(), tensor)).collect::<Result<_>>()?;
        }
        checkpoint.load_into(direct)?;
        // From here on nothing can fail: shapes and dtypes were compared, bytes verified and
        // decoded.
        let total = tensors.iter().map(|tensor| tensor.bytes().len() as u64).sum();
        let workers = checkpoint.workers_for(total);
        let copier = Copier::for_total(total);
        let assignments = assigned.into_iter().map(|(_, target)| target).zip(&tensors);
        pipeline::each(workers, assignments, || (), |(), (target, tensor)| target.assign_by(copier, tensor))?;
        Ok(report)
    }
}

impl Checkpoint {
    /// Overwrites the tensors of `target` by those under `group/` (or by all if the group is
    /// empty): strictly, and all or nothing. Everything is found, checked, verified and decoded
    /// before the first value is assigned.
    ///
    /// Names from torch are joined by dots: if the checkpoint has no tensor under `group/`, the
    /// tensors under `group.` are the group, so that `"state_dict.module"` loads
    /// `state_dict.module.conv.weight` as `conv.weight`. A group that ends in `/` or `.` is taken
    /// literally.
    ///
    /// # Errors
    /// `Mismatch` listing missing, unexpected and mismatched names; `Damaged`, `Unsupported`, `Io`.
    /// Then `target` is unchanged.
    pub fn load_state_dict(&self, group: &str, target: &mut impl Stateful) -> Result<LoadReport> {
        LoadOptions::strict().load(self, group, target)
    }

    /// The common prefix of the names of a group.
    fn prefix_of(&self, group: &str) -> String {
        if group.is_empty() || group.ends_with(['/', '.']) {
            return group.to_owned();
        }
        let slashed = grouped(group, "");
        let dotted = format!("{group}.");
        let exists = |prefix: &str| self.names().any(|name| name.starts_with(prefix));
        if !exists(&slashed) && exists(&dotted) { dotted } else { slashed }
    }

    /// What a wrapper of torch put before all names of a group, unless the target has such names,
    /// too: a module's field can be called `module`.
    fn wrapper_of(&self, prefix: &str, targets: &[(String, TensorMut<'_>)]) -> Option<&'static str> {
        let names = || self.names().filter_map(|name| name.strip_prefix(prefix));
        let is_around = |wrapper: &&str| {
            names().all(|name| name.starts_with(wrapper))
                && !targets.iter().any(|(name, _)| name.starts_with(wrapper))
        };
        names().next().and_then(|_| WRAPPERS.into_iter().find(is_around))
    }

    /// The tensors of a group by the names that they have in the target.
    ///
    /// # Errors
    /// `Invalid` where two tensors would have one name.
    fn by_target_name(
        &self,
        prefix: &str,
        options: &LoadOptions,
    ) -> Result<BTreeMap<String, TensorInfo<'_>>> {
        let mut there = BTreeMap::<String, TensorInfo<'_>>::new();
        for info in self.tensors() {
            let Some(name) = info.name.strip_prefix(prefix) else { continue };
            let (name, renamed) = (options.target_name(name), info.name);
            if let Some(other) = there.insert(name.clone(), info) {
                return Err(Error::invalid(format!("two tensors would be loaded as {name:?}"))
                    .in_object(self.name())
                    .found(format!("{:?} and {renamed:?}", other.name))
                    .help("give LoadOptions::strip_prefix and rename prefixes that keep them apart"));
            }
        }
        Ok(there)
    }
}

/// Two modules that are flattened into one, each with a field of the same name.
fn check_distinct(targets: &[(String, TensorMut<'_>)]) -> Result<()> {
    let mut seen = BTreeSet::new();
    match targets.iter().find(|(name, _)| !seen.insert(name)) {
        Some((name, _)) => Err(Error::invalid(format!("two tensors of the target are called {name:?}"))
            .help("rename one of them, or give its module a name")),
        None => Ok(()),
    }
}

fn compare(
    there: &BTreeMap<String, TensorInfo<'_>>,
    targets: &[(String, TensorMut<'_>)],
    options: &LoadOptions,
) -> LoadReport {
    let mut report = LoadReport::default();
    let mut unexpected: BTreeSet<&String> = there.keys().collect();
    for (name, target) in targets {
        unexpected.remove(name);
        let Some(info) = there.get(name) else {
            report.missing.push(name.clone());
            continue;
        };
        let same_shape = info.shape.iter().map(|&dim| dim as usize).eq(target.shape().iter().copied());
        let castable = |from| options.casts(from, target.dtype());
        let same_dtype = info.dtype.is_ok_and(|dtype| dtype == target.dtype() || castable(dtype));
        if same_shape && same_dtype {
            report.loaded.push(name.clone());
        } else {
            let found = info.dtype.map_or_else(|id| format!("dtype {id}"), |dtype| dtype.to_string());
            report.mismatched.push(Mismatch {
                name: name.clone(),
                expected: format!("{} {:?}", target.dtype(), target.shape()),
                found: format!("{found} {:?}", info.shape),
                remedy: if same_shape { remedy(info.dtype, target.dtype()) } else { None },
            });
        }
    }
    report.unexpected = unexpected.into_iter().cloned().collect();
    report.loaded.sort_unstable();
    report
}

/// The option that converts one dtype into another.
fn remedy(from: Result<Dtype, u16>, to: Dtype) -> Option<&'static str> {
    match from.ok()? {
        from if cast::is_possible(from, to) => Some("LoadOptions::cast"),
        from if cast::is_possible_of_integers(from, to) => Some("LoadOptions::cast_integers"),
        _ => None,
    }
}
