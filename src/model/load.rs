//! Loading a state dict out of a checkpoint, all or nothing. Owns: comparing names, shapes and
//! dtypes on both sides, what of a difference may pass, and the order: everything is found and
//! verified before the first value changes.

use super::{cast, grouped};
use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::names::nearest;
use crate::pipeline;
use crate::state_dict::{Stateful, TensorMut};
use std::collections::BTreeMap;
use std::fmt;

/// What [`Checkpoint::load_state_dict_with`] lets pass. Strict unless something is allowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    allow_missing: bool,
    allow_unexpected: bool,
    allow_mismatched: bool,
    cast: bool,
    cast_integers: bool,
    in_place: bool,
}

impl LoadOptions {
    /// Strict: every name on both sides, the same shapes and dtypes.
    pub fn strict() -> Self {
        Self::default()
    }

    /// Tensors that the checkpoint does not have keep their values.
    pub fn allow_missing(self) -> Self {
        Self { allow_missing: true, ..self }
    }

    /// Tensors that only the checkpoint has are left out.
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

    /// As [`LoadOptions::cast`], and integers become floats too, by the same rounding: a step that
    /// was counted in `i64` and is counted in `f32` now. Integers become no other integers, and
    /// floats none.
    pub fn cast_integers(self) -> Self {
        Self { cast: true, cast_integers: true, ..self }
    }

    fn casts(self, from: Dtype, to: Dtype) -> bool {
        self.cast
            && (cast::is_possible(from, to) || self.cast_integers && cast::is_possible_of_integers(from, to))
    }

    /// Reads straight into the target instead of into memory for a second copy: the fastest way to
    /// resume. Names, shapes and dtypes are still compared before the first value changes; bytes
    /// are verified as they come, so damage that was not there when the checkpoint was verified, as
    /// [`Store::resume`](crate::Store::resume) does, leaves a target that is part new, part old
    /// beside the error.
    pub fn in_place(self) -> Self {
        Self { in_place: true, ..self }
    }
}

/// What loading a state dict found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Names that were loaded.
    pub loaded: Vec<String>,
    /// Names that the checkpoint does not have.
    pub missing: Vec<String>,
    /// Names that only the checkpoint has.
    pub unexpected: Vec<String>,
    /// Names whose shape or dtype differ, with both.
    pub mismatched: Vec<Mismatch>,
}

/// A tensor that is not what the target expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Name.
    pub name: String,
    /// What the target is: dtype and shape.
    pub expected: String,
    /// What the checkpoint has.
    pub found: String,
    /// What would load it all the same, if something does.
    pub remedy: Option<&'static str>,
}

impl Checkpoint {
    /// Overwrites the tensors of `target` by those under `group/` (or all, when the group is
    /// empty): strictly, and all or nothing. Everything is found, checked, verified and decoded
    /// before the first value is assigned.
    ///
    /// Names that come from torch are joined by dots: where the checkpoint has nothing under
    /// `group/`, the group is what lies under `group.`, so that `"state_dict.module"` loads
    /// `state_dict.module.conv.weight` as `conv.weight`. A group that ends in `/` or `.` is taken
    /// as it is.
    ///
    /// # Errors
    /// `Mismatch` listing missing, unexpected and mismatched names; `Damaged`, `Unsupported`, `Io`.
    /// Then `target` is what it was.
    pub fn load_state_dict(&self, group: &str, target: &mut impl Stateful) -> Result<LoadReport> {
        self.load_state_dict_with(group, target, LoadOptions::strict())
    }

    /// As [`Checkpoint::load_state_dict`], letting pass what `options` allow.
    ///
    /// # Errors
    /// As [`Checkpoint::load_state_dict`]; `Mismatch` also when nothing at all would be loaded.
    pub fn load_state_dict_with(
        &self,
        group: &str,
        target: &mut impl Stateful,
        options: LoadOptions,
    ) -> Result<LoadReport> {
        let mut targets: Vec<_> = target.state_dict_mut()?.into_iter().collect();
        let prefix = self.prefix_of(group);
        let report = self.compare(&prefix, &targets, options)?;
        report.check(options, self, group, &targets)?;
        targets.retain_mut(|(name, _)| {
            let loads = report.loaded.binary_search(name).is_ok();
            *name = format!("{prefix}{name}");
            loads
        });
        let (mut direct, mut assigned) = (Vec::new(), Vec::new());
        for (name, target) in &mut targets {
            let same_dtype = self.info(name)?.dtype == Ok(target.dtype());
            if options.in_place && same_dtype && target.bytes_mut().is_some() {
                direct.extend(target.bytes_mut().map(|bytes| (name.as_str(), bytes)));
            } else {
                assigned.push((name.as_str(), target));
            }
        }
        let mut tensors = self.load(assigned.iter().map(|(name, _)| *name))?;
        if options.cast {
            let cast =
                |(tensor, (_, target)): (_, &(_, &mut TensorMut<'_>))| cast::to(target.dtype(), tensor);
            tensors = tensors.into_iter().zip(&assigned).map(cast).collect::<Result<_>>()?;
        }
        self.load_all_into(direct)?;
        // From here on nothing can fail: shapes and dtypes were compared, bytes verified and
        // decoded.
        let total = tensors.iter().map(|tensor| tensor.bytes().len() as u64).sum();
        let (workers, copy) = (self.workers_for(total), tensorkeep_memcpy::for_total(total));
        let assignments = assigned.into_iter().map(|(_, target)| target).zip(&tensors);
        pipeline::each(workers, assignments, || (), |(), (target, tensor)| target.assign_by(copy, tensor))?;
        Ok(report)
    }

    /// What the names of a group begin with.
    fn prefix_of(&self, group: &str) -> String {
        if group.is_empty() || group.ends_with(['/', '.']) {
            return group.to_owned();
        }
        let (slashed, dotted) = (grouped(group, ""), format!("{group}."));
        let is_there = |prefix: &str| self.names().any(|name| name.starts_with(prefix));
        if !is_there(&slashed) && is_there(&dotted) { dotted } else { slashed }
    }

    fn compare(
        &self,
        prefix: &str,
        targets: &[(String, TensorMut<'_>)],
        options: LoadOptions,
    ) -> Result<LoadReport> {
        let mut report = LoadReport::default();
        let mut there: BTreeMap<&str, _> =
            self.tensors().filter_map(|info| Some((info.name.strip_prefix(prefix)?, info))).collect();
        for (name, target) in targets {
            let Some(info) = there.remove(name.as_str()) else {
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
                    remedy: remedy(info.dtype, target.dtype()).filter(|_| same_shape),
                });
            }
        }
        report.unexpected = there.into_keys().map(str::to_owned).collect();
        report.loaded.sort_unstable();
        Ok(report)
    }
}

/// Which option converts one dtype into another.
fn remedy(from: Result<Dtype, u16>, to: Dtype) -> Option<&'static str> {
    match from.ok()? {
        from if cast::is_possible(from, to) => Some("LoadOptions::cast"),
        from if cast::is_possible_of_integers(from, to) => Some("LoadOptions::cast_integers"),
        _ => None,
    }
}

impl LoadReport {
    /// Whether everything matched on both sides.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }

    fn check(
        &self,
        options: LoadOptions,
        checkpoint: &Checkpoint,
        group: &str,
        targets: &[(String, TensorMut<'_>)],
    ) -> Result<()> {
        let passes = (options.allow_missing || self.missing.is_empty())
            && (options.allow_unexpected || self.unexpected.is_empty())
            && (options.allow_mismatched || self.mismatched.is_empty());
        // Loading nothing into a target that has tensors is never what was meant.
        let loads_something = !self.loaded.is_empty() || targets.is_empty();
        if passes && loads_something {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Mismatch, format!("the state dict does not fit: {self}"));
        let error = match self.hint(checkpoint, group) {
            Some(hint) => error.help(hint),
            None if !loads_something && self.mismatched.is_empty() => {
                error.help("no name matches: is it the right group and checkpoint?")
            }
            None => error.help("nothing was changed; allow it by LoadOptions if it is meant"),
        };
        Err(error.in_object(checkpoint.name()))
    }

    fn hint(&self, checkpoint: &Checkpoint, group: &str) -> Option<String> {
        // Where an integer is among them, what casts integers casts the floats, too.
        let remedies = || self.mismatched.iter().map(|mismatched| mismatched.remedy);
        if self.missing.is_empty()
            && remedies().all(|remedy| remedy.is_some())
            && let Some(remedy) = remedies().flatten().max()
        {
            return Some(format!("names and shapes match, dtypes do not: {remedy} converts them"));
        }
        let missing = self.missing.first()?;
        let elsewhere = checkpoint.names().find_map(|name| {
            let prefix = name.strip_suffix(missing.as_str())?.strip_suffix(['/', '.'])?;
            (prefix != group.trim_end_matches(['/', '.']))
                .then(|| format!("there is {name:?}: load the group {prefix:?}?"))
        });
        elsewhere.or_else(|| {
            let like = nearest(missing, self.unexpected.iter().map(String::as_str))?;
            Some(format!("did you mean {like:?} by {missing:?}?"))
        })
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| match names.len() {
            0..=5 => names.join(", "),
            more => format!("{}, … and {} more", names[..5].join(", "), more - 5),
        };
        let mut parts = Vec::new();
        for (what, names) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if !names.is_empty() {
                parts.push(format!("{what} {}", list(names)));
            }
        }
        if !self.mismatched.is_empty() {
            let shown: Vec<String> = self
                .mismatched
                .iter()
                .map(|m| format!("{} (expected {}, found {})", m.name, m.expected, m.found))
                .collect();
            parts.push(format!("mismatched {}", list(&shown)));
        }
        parts.push(format!("{} loaded", self.loaded.len()));
        f.write_str(&parts.join("; "))
    }
}
