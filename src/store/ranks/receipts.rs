//! What each rank tells of its part of a save: its shard, its records, and digests of what other
//! ranks hold, too; and what rank 0 finds by comparing them.

use super::plan::{Agreed, Compared, Sources};
use crate::error::{Error, ErrorKind, Result};
use crate::format::crc32;
use crate::format::pieces::ShardRef;
use crate::layout::TensorBox;
use crate::snapshot::{RESERVED_PREFIX, Snapshot};
use crate::store::saved::Diverged;
use crate::writer;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// What a rank has done.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Receipt {
    shard: Option<(ShardId, u64, u32)>,
    /// For each set of tensors that is compared and of which this rank has any, a digest.
    digests: Vec<u64>,
    /// Checksums of the records that this rank's snapshot has.
    records: BTreeMap<String, u32>,
}

type ShardId = [u8; 16];

impl Receipt {
    /// With the records and digests of a snapshot.
    ///
    /// # Errors
    /// Errors of producing tensors and records.
    pub(super) fn of(
        snapshot: &Snapshot<'_>,
        agreed: &Agreed,
        sources: &Sources<'_, '_>,
        rank: u32,
    ) -> Result<Self> {
        let mut digests = Vec::new();
        for compared in agreed.compared.iter().filter(|compared| compared.class(rank).is_some()) {
            let sums: Vec<u8> =
                checksums(compared, sources)?.into_iter().flat_map(u32::to_le_bytes).collect();
            let digest = writer::digest(&sums);
            // OK: the first half of 16 bytes.
            digests.push(digest.first_chunk().map_or(0, |half| u64::from_le_bytes(*half)));
        }
        let own = snapshot.records.iter().filter(|(name, _)| !name.starts_with(RESERVED_PREFIX));
        let records = own.map(|(name, record)| (name.clone(), record.crc32())).collect();
        Ok(Self { digests, records, ..Self::default() })
    }

    pub(super) fn with_shard(self, shard: Option<ShardRef>) -> Self {
        Self { shard: shard.map(|shard| (shard.file_id, shard.len, shard.index_crc)), ..self }
    }

    pub(super) fn shard(&self, rank: u32) -> Option<ShardRef> {
        self.shard.map(|(file_id, len, index_crc)| ShardRef { rank, file_id, len, index_crc })
    }
}

/// Checksums of this rank's tensors of a set, in its order.
///
/// # Errors
/// Errors of producing tensors.
pub(super) fn checksums(compared: &Compared, sources: &Sources<'_, '_>) -> Result<Vec<u32>> {
    let sum = |(tensor, tensor_box): &(String, Option<TensorBox>)| match sources
        .held(tensor, tensor_box.as_ref())
    {
        Some(source) => Ok(crc32(source.produce().map_err(|error| error.in_tensor(tensor))?.bytes())),
        None => Ok(0),
    };
    compared.what.iter().map(sum).collect()
}

/// The numbers of the sets in which ranks of one class differ.
pub(super) fn differing(agreed: &Agreed, receipts: &[Receipt]) -> Vec<u32> {
    let mut left: Vec<std::slice::Iter<'_, u64>> =
        receipts.iter().map(|receipt| receipt.digests.iter()).collect();
    let mut found = Vec::new();
    for (number, compared) in (0..).zip(&agreed.compared) {
        let mut firsts: HashMap<u32, u64> = HashMap::new();
        let mut differs = false;
        for (rank, digests) in (0..).zip(&mut left) {
            let Some(class) = compared.class(rank) else { continue };
            let digest = digests.next().copied().unwrap_or_default();
            differs |= *firsts.entry(class).or_insert(digest) != digest;
        }
        if differs {
            found.push(number);
        }
    }
    found
}

/// The tensors of sets that differ, by all ranks' checksums of these sets.
pub(super) fn diverged(agreed: &Agreed, numbers: &[u32], lists: &[Vec<Vec<u32>>]) -> Vec<Diverged> {
    let mut all = Vec::new();
    for (at, &number) in numbers.iter().enumerate() {
        let Some(compared) = agreed.compared.get(number as usize) else { continue };
        for (place, (name, _)) in compared.what.iter().enumerate() {
            let mut classes: BTreeMap<u32, HashMap<u32, Vec<u32>>> = BTreeMap::new();
            for (rank, lists) in (0..).zip(lists) {
                let sum = lists.get(at).and_then(|sums| sums.get(place));
                if let (Some(class), Some(&sum)) = (compared.class(rank), sum) {
                    classes.entry(class).or_default().entry(sum).or_default().push(rank);
                }
            }
            let shape = agreed.job.tensor(name).map_or(&[][..], |(_, shape)| shape);
            for by_value in classes.into_values().filter(|by_value| by_value.len() > 1) {
                let rank = by_value.values().flatten().copied().min().unwrap_or_default();
                let tensor_box = compared.box_of(place, shape, rank);
                all.push(Diverged::of(name, Some(&tensor_box), by_value));
            }
        }
    }
    all
}

/// The records of which ranks have other bytes than rank 0, whose are saved.
///
/// # Errors
/// `Mismatch` for a record that rank 0 does not have: it would be lost.
pub(super) fn diverged_records(receipts: &[Receipt]) -> Result<Vec<Diverged>> {
    let Some(root) = receipts.first() else { return Ok(vec![]) };
    let mut names: BTreeMap<&str, HashMap<u32, Vec<u32>>> = BTreeMap::new();
    for (rank, receipt) in (0..).zip(receipts) {
        for (name, sum) in &receipt.records {
            if !root.records.contains_key(name) {
                return Err(Error::new(ErrorKind::Mismatch, "a record that rank 0 does not have")
                    .found(format!("it on rank {rank} of {}", receipts.len()))
                    .help("the run's records are rank 0's; Snapshot::rank_record keeps each rank's own")
                    .in_record(name));
            }
            names.entry(name).or_default().entry(*sum).or_default().push(rank);
        }
    }
    let differ = names.into_iter().filter(|(_, by_value)| by_value.len() > 1);
    Ok(differ.map(|(name, by_value)| Diverged::of(name, None, by_value)).collect())
}
