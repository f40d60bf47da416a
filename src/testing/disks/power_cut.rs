//! The states that a disk may be in after a power cut: two models, and every state that they allow
//! after a prefix of a journal: un-synced writes lost, kept, torn and reordered, tails truncated
//! and zero-filled, names lost until their folder was synced. The oracle decides whether a state is
//! good.

use super::power_cut_files::{Bytes, Fate, FileAtRest};
use super::simulated::{EntryOp, Ino, Node, Op, ROOT, apply_entry};
use crate::clock::script::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

/// All subsets of pending changes of names up to this many changes; beyond, those that miss one or
/// keep a prefix.
const ALL_SUBSETS_UP_TO: usize = 10;
/// Every combination of files' contents up to this many; beyond, one file at a time.
const ALL_COMBINATIONS_UP_TO: usize = 20_000;

/// The order in which changes of names reach the disk before their folder's fsync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// In the order they were made, folder by folder: the guarantee of the journals of ext4, XFS
    /// and Btrfs.
    Ordered,
    /// Any subset, each change whole: the only guarantee of POSIX.
    AnySubset,
}

/// A disk at rest after a power cut.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub nodes: Vec<Node>,
    /// Equal for two disks with the same names and bytes.
    pub fingerprint: u64,
}

/// The settled and the pending changes after a prefix of a journal.
#[derive(Clone, Debug)]
pub(crate) struct AtRest {
    /// Folders hold their durable entries; files are in `files`.
    nodes: Vec<Node>,
    files: BTreeMap<Ino, FileAtRest>,
    names: Vec<PendingEntry>,
}

/// A change of names that no fsync of all its folders has made durable.
#[derive(Clone, Debug)]
struct PendingEntry {
    op: EntryOp,
    unsynced: BTreeSet<Ino>,
}

impl AtRest {
    /// The disk as it was when its journal began; `live` shows which of the nodes made since are
    /// folders.
    pub(crate) fn begin(base: &[Node], live: &[Node]) -> Self {
        let empty = |node: &Node| match node {
            Node::File(_) => Node::File(Arc::default()),
            Node::Dir(_) => Node::Dir(BTreeMap::new()),
        };
        let nodes: Vec<Node> = base.iter().cloned().chain(live.iter().skip(base.len()).map(empty)).collect();
        let files = nodes.iter().enumerate().filter_map(|(ino, node)| match node {
            Node::File(bytes) => Some((ino, FileAtRest::holding(Arc::clone(bytes)))),
            Node::Dir(_) => None,
        });
        Self { files: files.collect(), nodes, names: Vec::new() }
    }

    /// Applies one operation.
    pub(crate) fn step(&mut self, op: &Op) {
        match op {
            Op::Data(ino, op) => {
                if let Some(file) = self.files.get_mut(ino) {
                    file.pend(op.clone());
                }
            }
            Op::SyncFile(ino) => self.settle_file(*ino, Fate::Durable),
            Op::SyncFailed(ino) => self.settle_file(*ino, Fate::Abandoned),
            Op::Entry(op) => {
                let dirs = op.remove.iter().map(|(dir, _)| *dir).chain(op.add.iter().map(|(dir, ..)| *dir));
                self.names.push(PendingEntry { op: op.clone(), unsynced: dirs.collect() });
            }
            Op::SyncDir(dir) => self.settle_names(*dir),
        }
    }

    fn settle_file(&mut self, ino: Ino, fate: Fate) {
        if let Some(file) = self.files.get_mut(&ino) {
            file.settle(fate);
        }
    }

    fn settle_names(&mut self, dir: Ino) {
        for pending in &mut self.names {
            pending.unsynced.remove(&dir);
        }
        for settled in self.names.extract_if(.., |pending| pending.unsynced.is_empty()) {
            apply_entry(&mut self.nodes, &settled.op);
        }
    }

    /// Visits every state that a power cut now may leave.
    pub(crate) fn every_state(
        &self,
        names: Names,
        visit: &mut impl FnMut(Image) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut contents: BTreeMap<Ino, Vec<Bytes>> = BTreeMap::new();
        for mask in self.name_masks(names) {
            let nodes = self.with_names(&mask);
            let reachable = reachable_files(&nodes);
            for ino in &reachable {
                contents.entry(*ino).or_insert_with(|| self.files[ino].every_content());
            }
            self.every_combination(&nodes, &reachable, &contents, visit)?;
        }
        ControlFlow::Continue(())
    }

    fn every_combination(
        &self,
        nodes: &[Node],
        reachable: &[Ino],
        contents: &BTreeMap<Ino, Vec<Bytes>>,
        visit: &mut impl FnMut(Image) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let counts: Vec<usize> = reachable.iter().map(|ino| contents[ino].len()).collect();
        let combinations = counts.iter().fold(1_usize, |product, count| product.saturating_mul(*count));
        let mut choice = vec![0; counts.len()];
        if combinations <= ALL_COMBINATIONS_UP_TO {
            loop {
                visit(image(nodes, |ino| pick(reachable, contents, &choice, ino)))?;
                if !advance(&mut choice, &counts) {
                    return ControlFlow::Continue(());
                }
            }
        }
        // One file at a time, the others wholly lost (0, by construction of `every_content`) or
        // with everything (the last content).
        for others_full in [false, true] {
            for file in 0..counts.len() {
                for content in 0..counts[file] {
                    choice = counts.iter().map(|count| if others_full { count - 1 } else { 0 }).collect();
                    choice[file] = content;
                    visit(image(nodes, |ino| pick(reachable, contents, &choice, ino)))?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// One random state that a power cut now may leave.
    pub(crate) fn any_state(&self, names: Names, random: &mut Random) -> Image {
        let mask = match names {
            Names::AnySubset => self.names.iter().map(|_| random.flip()).collect(),
            Names::Ordered => {
                let groups = self.by_folder();
                let kept = groups.iter().map(|group| random.below(group.len() + 1)).collect::<Vec<_>>();
                self.mask_of_prefixes(&groups, &kept)
            }
        };
        let nodes = self.with_names(&mask);
        let contents: BTreeMap<Ino, Vec<Bytes>> = reachable_files(&nodes)
            .into_iter()
            .map(|ino| (ino, vec![self.files[&ino].any_content(random)]))
            .collect();
        image(&nodes, |ino| contents[&ino][0].clone())
    }

    /// Which pending changes of names are on disk: every possibility of the model.
    fn name_masks(&self, names: Names) -> Vec<Vec<bool>> {
        let count = self.names.len();
        match names {
            Names::Ordered => {
                let groups = self.by_folder();
                let counts: Vec<usize> = groups.iter().map(|group| group.len() + 1).collect();
                let mut kept = vec![0; groups.len()];
                let mut masks = Vec::new();
                loop {
                    masks.push(self.mask_of_prefixes(&groups, &kept));
                    if !advance(&mut kept, &counts) {
                        return masks;
                    }
                }
            }
            Names::AnySubset if count <= ALL_SUBSETS_UP_TO => {
                (0..1_usize << count).map(|bits| (0..count).map(|i| bits >> i & 1 == 1).collect()).collect()
            }
            Names::AnySubset => {
                let prefixes = (0..=count).map(|kept| (0..count).map(|i| i < kept).collect());
                let but_one = (0..count).map(|lost| (0..count).map(|i| i != lost).collect());
                prefixes.chain(but_one).collect()
            }
        }
    }

    /// The pending changes of each folder, in order. A rename across folders counts for its target
    /// folder.
    fn by_folder(&self) -> Vec<Vec<usize>> {
        let mut groups: BTreeMap<Ino, Vec<usize>> = BTreeMap::new();
        for (index, PendingEntry { op, .. }) in self.names.iter().enumerate() {
            let dir = op.add.as_ref().map(|(dir, ..)| *dir).or(op.remove.as_ref().map(|(dir, _)| *dir));
            groups.entry(dir.unwrap_or(ROOT)).or_default().push(index);
        }
        groups.into_values().collect()
    }

    fn mask_of_prefixes(&self, groups: &[Vec<usize>], kept: &[usize]) -> Vec<bool> {
        let mut mask = vec![false; self.names.len()];
        for (group, kept) in groups.iter().zip(kept) {
            for &index in &group[..*kept] {
                mask[index] = true;
            }
        }
        mask
    }

    fn with_names(&self, mask: &[bool]) -> Vec<Node> {
        let mut nodes = self.nodes.clone();
        for (pending, _) in self.names.iter().zip(mask).filter(|(_, kept)| **kept) {
            apply_entry(&mut nodes, &pending.op);
        }
        nodes
    }
}

/// Advances to the next choice; false after the last one.
fn advance(choice: &mut [usize], counts: &[usize]) -> bool {
    for (digit, count) in choice.iter_mut().zip(counts) {
        *digit += 1;
        if *digit < *count {
            return true;
        }
        *digit = 0;
    }
    false
}

fn pick(reachable: &[Ino], contents: &BTreeMap<Ino, Vec<Bytes>>, choice: &[usize], ino: Ino) -> Bytes {
    let at = reachable.binary_search(&ino).unwrap_or(0);
    contents[&ino][choice[at]].clone()
}

/// The files that have a name, ordered by number.
fn reachable_files(nodes: &[Node]) -> Vec<Ino> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![ROOT];
    while let Some(dir) = dirs.pop() {
        let Some(Node::Dir(entries)) = nodes.get(dir) else { continue };
        for ino in entries.values() {
            match nodes.get(*ino) {
                Some(Node::Dir(_)) => dirs.push(*ino),
                _ => found.extend([*ino]),
            }
        }
    }
    found.into_iter().collect()
}

/// The nodes that have a name, renumbered from the root, and their fingerprint.
fn image(nodes: &[Node], mut content: impl FnMut(Ino) -> Bytes) -> Image {
    let mut image = Image { nodes: vec![Node::Dir(BTreeMap::new())], fingerprint: 0 };
    let mut hasher = DefaultHasher::new();
    let mut seen: BTreeMap<Ino, Ino> = BTreeMap::new();
    let mut dirs = vec![(ROOT, ROOT)];
    while let Some((from, to)) = dirs.pop() {
        let Some(Node::Dir(entries)) = nodes.get(from) else { continue };
        let mut copied = BTreeMap::new();
        entries.len().hash(&mut hasher);
        for (name, ino) in entries {
            name.hash(&mut hasher);
            let next = image.nodes.len();
            let new = *seen.entry(*ino).or_insert(next);
            copied.insert(name.clone(), new);
            if matches!(nodes.get(*ino), Some(Node::Dir(_))) {
                dirs.push((*ino, new));
                image.nodes.push(Node::Dir(BTreeMap::new()));
                continue;
            }
            let bytes = content(*ino);
            bytes.hash.hash(&mut hasher);
            if new == next {
                image.nodes.push(Node::File(bytes.bytes));
            }
        }
        image.nodes[to] = Node::Dir(copied);
    }
    image.fingerprint = hasher.finish();
    image
}
