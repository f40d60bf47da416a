//! The outcome of loading a state dict: what matched, what did not, and what would help.

use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::names::nearest;
use std::collections::BTreeMap;
use std::fmt;

/// The result of loading a state dict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Names that were loaded.
    pub loaded: Vec<String>,
    /// Names missing from the checkpoint.
    pub missing: Vec<String>,
    /// Names that only the checkpoint has.
    pub unexpected: Vec<String>,
    /// Names with a different shape or dtype.
    pub mismatched: Vec<Mismatch>,
    /// The prefix that [`LoadOptions::from_torch`](super::LoadOptions::from_torch) took from all
    /// names.
    pub stripped: Option<&'static str>,
    /// Names that only the checkpoint has, as every batch norm of torch:
    /// [`LoadOptions::from_torch`](super::LoadOptions::from_torch) passes over them.
    pub left_out: Vec<String>,
}

/// A tensor whose shape or dtype differs from the target's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Name.
    pub name: String,
    /// The target's dtype and shape.
    pub expected: String,
    /// The checkpoint's dtype and shape.
    pub found: String,
    /// The option that would load it, if there is one.
    pub remedy: Option<&'static str>,
}

/// What torch's wrappers put before the names of a module that they wrap: DistributedDataParallel
/// and `torch.compile`, each around the other.
pub(super) const WRAPPERS: [&str; 4] = ["module._orig_mod.", "_orig_mod.module.", "module.", "_orig_mod."];

/// How many batches a batch norm of torch has seen: the one tensor of its layers that those of
/// other frameworks do not have.
const BATCH_COUNT: &str = "num_batches_tracked";

impl LoadReport {
    /// Whether everything matched on both sides.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }

    /// Refuses what the options do not allow, and what always is a mistake: to load nothing into a
    /// target with tensors, and to leave out a tensor that both sides have, one of them under a
    /// wrapper's prefix.
    ///
    /// # Errors
    /// `Mismatch`, with what would help.
    pub(super) fn check(&self, is_allowed: bool, checkpoint: &Checkpoint, group: &str) -> Result<()> {
        let has_targets = !self.missing.is_empty() || !self.mismatched.is_empty();
        let loads_something = !self.loaded.is_empty() || !has_targets;
        let is_wrapped = self.missing.iter().any(|missing| self.known_prefix(missing).is_some());
        if is_allowed && loads_something && !is_wrapped {
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
        // The option that casts integers casts floats too, so the greater one covers all.
        let remedies = || self.mismatched.iter().map(|mismatched| mismatched.remedy);
        if self.missing.is_empty()
            && remedies().all(|remedy| remedy.is_some())
            && let Some(remedy) = remedies().flatten().max()
        {
            return Some(format!("names and shapes match, dtypes do not: {remedy} converts them"));
        }
        let missing = self.missing.first()?;
        if let Some(hint) = self.known_prefix(missing) {
            return Some(hint);
        }
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

    /// Moves the counts of batch norms from what is unexpected to what is left out.
    pub(super) fn leave_out_counts(&mut self, there: &BTreeMap<String, TensorInfo<'_>>) {
        let is_count = |name: &String| {
            let is_named = name.rsplit('.').next() == Some(BATCH_COUNT);
            let is_one = |info: &TensorInfo<'_>| info.dtype.is_ok_and(|of| info.byte_len == of.size() as u64);
            is_named && there.get(name).is_some_and(is_one)
        };
        self.left_out = self.unexpected.extract_if(.., |name| is_count(name)).collect();
    }

    /// What to do where the names on one side begin with such a prefix.
    fn known_prefix(&self, missing: &str) -> Option<String> {
        // In order: `compare` takes them from a set.
        let is_there =
            |name: &str| self.unexpected.binary_search_by(|there| there.as_str().cmp(name)).is_ok();
        WRAPPERS.into_iter().find_map(|prefix| {
            if is_there(&format!("{prefix}{missing}")) {
                return Some(format!(
                    "the names in the checkpoint begin with {prefix:?}, as a wrapped torch module writes them: \
                     LoadOptions::strip_prefix({prefix:?}) takes that away"
                ));
            }
            is_there(missing.strip_prefix(prefix)?).then(|| {
                format!(
                    "the names in the target begin with {prefix:?}, those in the checkpoint do not: \
                     LoadOptions::rename(\"\", {prefix:?}) puts it before them"
                )
            })
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
        parts.extend(self.stripped.map(|prefix| format!("{prefix:?} was taken from all names")));
        if !self.left_out.is_empty() {
            parts.push(format!("left out {}", list(&self.left_out)));
        }
        f.write_str(&parts.join("; "))
    }
}
