//! The contents that one file may have after a power cut: which bytes are settled, and every
//! content that the pending changes may leave, by whole writes, by sectors of 512 bytes and by
//! pages of 4096.

use super::simulated::DataOp;
use crate::clock::script::Random;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

const SECTOR: usize = 512;
const PAGE: usize = 4096;
/// All subsets of pending writes, and of pages, up to this many of them.
const ALL_SUBSETS_UP_TO: usize = 5;

/// A content with its hash, which is needed more often than it changes.
#[derive(Clone, Debug)]
pub(super) struct Bytes {
    pub bytes: Arc<Vec<u8>>,
    pub hash: u64,
}

impl Bytes {
    fn new(bytes: Vec<u8>) -> Self {
        Self::shared(Arc::new(bytes))
    }

    fn shared(bytes: Arc<Vec<u8>>) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Self { hash: hasher.finish(), bytes }
    }
}

/// The fate of a change when its file was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Pending,
    Durable,
    /// The fsync failed: on disk or not, and no later fsync changes that.
    Abandoned,
}

/// A file's settled bytes and the changes after them.
#[derive(Clone, Debug)]
pub(super) struct FileAtRest {
    base: Bytes,
    ops: Vec<(DataOp, Fate)>,
}

impl FileAtRest {
    pub(super) fn holding(bytes: Arc<Vec<u8>>) -> Self {
        Self { base: Bytes::shared(bytes), ops: Vec::new() }
    }

    pub(super) fn pend(&mut self, op: DataOp) {
        self.ops.push((op, Fate::Pending));
    }

    /// Applies the outcome of an fsync to the pending changes.
    pub(super) fn settle(&mut self, fate: Fate) {
        for (_, pending) in self.ops.iter_mut().filter(|(_, now)| *now == Fate::Pending) {
            *pending = fate;
        }
        if self.ops.iter().all(|(_, fate)| *fate == Fate::Durable) && !self.ops.is_empty() {
            self.base = Bytes::new(self.after(|_| true));
            self.ops.clear();
        }
    }

    /// The bytes after the durable changes and those undecided ones for which `kept` is true,
    /// counted from 0.
    fn after(&self, kept: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut bytes = self.base.bytes.to_vec();
        let mut undecided = 0;
        for (op, fate) in &self.ops {
            let mut is_there = true;
            if *fate != Fate::Durable {
                is_there = kept(undecided);
                undecided += 1;
            }
            if is_there {
                op.apply(&mut bytes);
            }
        }
        bytes
    }

    fn undecided(&self) -> usize {
        self.ops.iter().filter(|(_, fate)| *fate != Fate::Durable).count()
    }

    /// Every content; the first has lost all that can be lost, the last has everything.
    pub(super) fn every_content(&self) -> Vec<Bytes> {
        let count = self.undecided();
        if count == 0 {
            return vec![self.settled()];
        }
        let lost = self.after(|_| false);
        let full = self.after(|_| true);
        let mut found = Distinct::default();
        found.add(lost.clone());
        if count <= ALL_SUBSETS_UP_TO {
            for bits in 0..1_usize << count {
                found.add(self.after(|i| bits >> i & 1 == 1));
            }
        }
        for kept in 0..=count {
            found.add(self.after(|i| i < kept));
            found.add(self.after(|i| i != kept));
        }
        let sectors = full.len().div_ceil(SECTOR);
        for at in 0..sectors {
            found.add(mixed(&full, &lost, |sector| sector < at));
            found.add(mixed(&full, &lost, |sector| sector >= at));
            found.add(mixed(&full, &lost, |sector| sector != at));
            found.add(cut(&full, &lost, at * SECTOR));
        }
        let pages = full.len().div_ceil(PAGE).min(ALL_SUBSETS_UP_TO);
        for bits in 0..1_usize << pages {
            let kept = |sector: usize| bits >> (sector * SECTOR / PAGE).min(pages - 1) & 1 == 1;
            found.add(mixed(&full, &lost, kept));
        }
        found.end_with(full)
    }

    fn settled(&self) -> Bytes {
        if self.ops.is_empty() { self.base.clone() } else { Bytes::new(self.after(|_| true)) }
    }

    /// One content: with a random subset of writes, with random sectors, or with a random length.
    pub(super) fn any_content(&self, random: &mut Random) -> Bytes {
        let count = self.undecided();
        if count == 0 {
            return self.settled();
        }
        let kept: Vec<bool> = (0..count).map(|_| random.flip()).collect();
        let lost = self.after(|_| false);
        Bytes::new(match random.below(4) {
            0 => self.after(|i| kept[i]),
            1 => self.after(|_| true),
            2 => {
                let full = self.after(|_| true);
                let seed = random.next();
                let kept = |sector: usize| crate::clock::script::mix(seed ^ sector as u64) & 1 == 1;
                let torn = mixed(&full, &lost, kept);
                let len = full.len() + 1;
                if random.flip() { torn } else { cut(&torn, &lost, random.below(len)) }
            }
            _ => {
                let full = self.after(|_| true);
                let at = random.below(full.len().div_ceil(SECTOR) + 1);
                mixed(&full, &lost, |sector| sector < at)
            }
        })
    }
}

/// The sectors of `full` for which `kept` is true; elsewhere the bytes from before, and zeros
/// beyond them.
fn mixed(full: &[u8], lost: &[u8], kept: impl Fn(usize) -> bool) -> Vec<u8> {
    let mut bytes = full.to_vec();
    for (sector, chunk) in bytes.chunks_mut(SECTOR).enumerate().filter(|(sector, _)| !kept(*sector)) {
        let before = lost.get(sector * SECTOR..).unwrap_or_default();
        let there = before.len().min(chunk.len());
        chunk[..there].copy_from_slice(&before[..there]);
        chunk[there..].fill(0);
    }
    bytes
}

/// `full`, cut to `len`, but never shorter than the settled bytes.
fn cut(full: &[u8], lost: &[u8], len: usize) -> Vec<u8> {
    full[..len.max(lost.len()).min(full.len())].to_vec()
}

#[derive(Default)]
struct Distinct {
    hashes: BTreeSet<u64>,
    found: Vec<Bytes>,
}

impl Distinct {
    fn add(&mut self, bytes: Vec<u8>) {
        let bytes = Bytes::new(bytes);
        if self.hashes.insert(bytes.hash) {
            self.found.push(bytes);
        }
    }

    fn end_with(mut self, full: Vec<u8>) -> Vec<Bytes> {
        let full = Bytes::new(full);
        self.found.retain(|bytes| bytes.hash != full.hash);
        self.found.push(full);
        self.found
    }
}
