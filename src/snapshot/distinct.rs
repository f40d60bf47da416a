//! Which tensors of a snapshot are stored, and which are aliases of them: tensors over the same
//! memory, with the same dtype and shape, are stored once.

use super::{Snapshot, TensorSource};
use crate::error::Result;

/// A tensor's name and where its bytes come from.
pub(crate) type NamedSource<'s, 'a> = (&'s str, &'s TensorSource<'a>);

/// For each of these tensors, the number of the first one with the same memory, dtype and
/// shape: its own number, unless it is an alias of an earlier one.
fn firsts(snapshot: &Snapshot<'_>, tensors: &[NamedSource<'_, '_>]) -> Vec<usize> {
    // Parts of two tensors over the same memory are two parts.
    let identities: Vec<_> = tensors
        .iter()
        .map(|(name, source)| if snapshot.may_be_alias(name) { source.identity() } else { None })
        .collect();
    let numbered = identities.iter().enumerate();
    let mut by_address: Vec<(usize, usize)> =
        numbered.filter_map(|(i, identity)| Some((identity.as_ref()?.address, i))).collect();
    by_address.sort_unstable();
    let mut firsts: Vec<usize> = (0..identities.len()).collect();
    for same_address in by_address.chunk_by(|(a, _), (b, _)| a == b).filter(|same| same.len() > 1) {
        for &(_, i) in same_address {
            let first = same_address.iter().find(|&&(_, other)| identities[other] == identities[i]);
            firsts[i] = first.map_or(i, |&(_, first)| first);
        }
    }
    firsts
}

impl<'a> Snapshot<'a> {
    /// For each of its tensors, given in the order of [`Snapshot::sorted`], the number of the first
    /// one with the same memory, dtype and shape: its own number, unless it is an alias.
    pub(crate) fn firsts(&self, sorted: &[NamedSource<'_, 'a>]) -> Vec<usize> {
        firsts(self, sorted)
    }

    /// The tensors in the order of a file: by name.
    pub(crate) fn sorted(&self) -> Vec<NamedSource<'_, 'a>> {
        let mut tensors: Vec<_> = self.tensors.iter().map(|(name, source)| (name.as_str(), source)).collect();
        // Stable, for its speed: it merges the sorted runs that the order of a model's layers has.
        tensors.sort_by_key(|&(name, _)| name);
        tensors
    }

    /// Every tensor by its first name, without aliases, sorted.
    pub(crate) fn distinct(&self) -> impl Iterator<Item = NamedSource<'_, 'a>> {
        let sorted = self.sorted();
        let numbered = firsts(self, &sorted).into_iter().enumerate();
        let distinct: Vec<_> = numbered.filter(|(i, first)| i == first).map(|(i, _)| sorted[i]).collect();
        distinct.into_iter()
    }

    /// A snapshot with immutable tensors in place of the distinct ones, and with the same aliases.
    ///
    /// # Errors
    /// Errors of reading another checkpoint's record.
    pub(crate) fn with_tensors<'b>(
        &self,
        tensors: impl IntoIterator<Item = (String, TensorSource<'b>)>,
    ) -> Result<Snapshot<'b>> {
        let sorted = self.sorted();
        let mut aliases = self.aliases.clone();
        for (i, first) in firsts(self, &sorted).into_iter().enumerate().filter(|(i, first)| i != first) {
            aliases.insert(sorted[i].0.to_owned(), sorted[first].0.to_owned());
        }
        // An alias of a name that has itself become an alias follows it.
        let resolved = aliases
            .iter()
            .map(|(name, existing)| (name.clone(), aliases.get(existing).unwrap_or(existing).clone()));
        let records = self.records.iter().map(|(name, record)| Ok((name.clone(), record.drawn()?)));
        Ok(Snapshot {
            tensors: tensors.into_iter().collect(),
            aliases: resolved.collect(),
            records: records.collect::<Result<_>>()?,
            metadata: self.metadata.clone(),
            metrics: self.metrics.clone(),
            progress: self.progress,
            volatile: false,
            parts: self.parts.clone(),
            rank_records: self.rank_records.clone(),
        })
    }
}
