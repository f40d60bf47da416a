//! One save of a job of many ranks: which rank stores which box of which tensor, each rank's shard,
//! and the manifest over them. Knows no commit and no collective: who calls this has gathered what
//! the shards are known by.

mod shard;

use super::plan::Further;
#[cfg(feature = "testing")]
use super::plan::Plan;
#[cfg(feature = "testing")]
use super::{WriteOptions, Written};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::Flags;
#[cfg(feature = "testing")]
use crate::format::aliases::Aliases;
use crate::format::index::SECTION_PIECES;
use crate::format::limits::Limits;
use crate::format::pieces::{PiecesBuilder, ShardRef};
use crate::format::shard::{Part, check_save};
use crate::format::table::check_name;
use crate::layout::{self, Assigned, Assignment, Held, Layout, TensorBox};
#[cfg(feature = "testing")]
use crate::snapshot::Snapshot;
use std::collections::{BTreeMap, BTreeSet, HashMap};
#[cfg(feature = "testing")]
use std::path::Path;

/// What a job saves: every rank that plans the same gets the same.
#[derive(Clone, Debug)]
pub struct Job {
    save: String,
    world: u32,
    tensors: BTreeMap<String, Global>,
    /// Who holds the boxes that several ranks hold, by tensor.
    holders: BTreeMap<String, BTreeMap<TensorBox, Vec<u32>>>,
}

/// A tensor of a job.
#[derive(Clone, Debug)]
struct Global {
    dtype: Dtype,
    shape: Vec<u64>,
    stored: Stored,
}

#[derive(Clone, Debug)]
enum Stored {
    Layout(Assigned),
    Boxes(Vec<(TensorBox, u32)>),
}

impl Job {
    /// A save of so many ranks, whose shards' names begin with `save`.
    ///
    /// # Errors
    /// `Invalid` for a bad name, a world of 0 or beyond the limit.
    pub fn new(save: &str, world: u32) -> Result<Self> {
        check_save(save)?;
        if world == 0 || u64::from(world) > Limits::V1.ranks {
            let expected = format!("1 to {} ranks", Limits::V1.ranks);
            return Err(Error::invalid("size of the world").expected(expected).found(world));
        }
        Ok(Self { save: save.to_owned(), world, tensors: BTreeMap::new(), holders: BTreeMap::new() })
    }

    /// Adds a tensor that ranks hold by a layout.
    ///
    /// # Errors
    /// `Invalid` for a bad or taken name, and for a layout that does not fit the shape or the world.
    pub fn layout(&mut self, name: &str, dtype: Dtype, shape: &[u64], layout: &Layout) -> Result<()> {
        let stored = Stored::Layout(Assigned { layout: layout.clone(), copy: 0 });
        layout.check_fits(shape).map_err(|error| error.in_tensor(name))?;
        if let Some(rank) = layout.positions().ranks().find(|&rank| rank >= self.world) {
            return Err(self.no_such_rank(rank).in_tensor(name));
        }
        self.add(name, dtype, shape, stored)
    }

    /// Adds a tensor of explicit boxes, each with the rank that stores it.
    ///
    /// # Errors
    /// `Invalid` for a bad or taken name, for boxes that do not tile the shape, and for ranks
    /// beyond the world.
    pub fn boxes(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[u64],
        mut boxes: Vec<(TensorBox, u32)>,
    ) -> Result<()> {
        boxes.sort();
        if let Some((_, rank)) = boxes.iter().find(|(_, rank)| *rank >= self.world) {
            return Err(self.no_such_rank(*rank).in_tensor(name));
        }
        let alone: Vec<TensorBox> = boxes.iter().map(|(tensor_box, _)| tensor_box.clone()).collect();
        layout::tiling(shape, &alone)
            .map_err(|fault| fault.explain(shape, &alone, |number| boxes[number].1).in_tensor(name))?;
        self.add(name, dtype, shape, Stored::Boxes(boxes))
    }

    fn no_such_rank(&self, rank: u32) -> Error {
        Error::invalid("a rank that the job does not have")
            .expected(format!("below {}", self.world))
            .found(format!("rank {rank}"))
    }

    fn add(&mut self, name: &str, dtype: Dtype, shape: &[u64], stored: Stored) -> Result<()> {
        check_name(name)?;
        let global = Global { dtype, shape: shape.to_vec(), stored };
        match self.tensors.insert(name.to_owned(), global) {
            None => Ok(()),
            Some(_) => Err(Error::invalid("a tensor of this name is there already").in_tensor(name)),
        }
    }

    /// Adds a tensor of explicit boxes, each with the ranks that hold it, ascending.
    ///
    /// # Errors
    /// As [`Job::boxes`].
    pub fn held_boxes(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[u64],
        boxes: BTreeMap<TensorBox, Vec<u32>>,
    ) -> Result<()> {
        let first = |(tensor_box, holders): (&TensorBox, &Vec<u32>)| {
            (tensor_box.clone(), holders.first().copied().unwrap_or_default())
        };
        self.boxes(name, dtype, shape, boxes.iter().map(first).collect())?;
        if boxes.values().any(|holders| holders.len() > 1) {
            self.holders.insert(name.to_owned(), boxes);
        }
        Ok(())
    }

    /// Decides who stores what several ranks hold; with `cut`, large replicas are cut among them.
    ///
    /// # Errors
    /// As [`layout::assign`].
    #[cfg(feature = "testing")]
    pub fn assign(&mut self, cut: bool) -> Result<()> {
        self.assign_among_few(cut, 0)
    }

    /// As [`Job::assign`], with so few ranks that each gets about `least` bytes.
    ///
    /// # Errors
    /// As [`layout::assign`].
    pub fn assign_among_few(&mut self, cut: bool, least: u64) -> Result<()> {
        let mut held = Vec::new();
        for (name, global) in &self.tensors {
            if let Stored::Layout(Assigned { layout, .. }) = &global.stored {
                let element_bytes = global.dtype.size() as u64;
                held.push(Held { name, shape: &global.shape, element_bytes, layout });
            }
        }
        let Assignment { assigned, mut loads } = layout::assign_among_few(&held, cut, least)?;
        let mut assigned = assigned.into_iter();
        for global in self.tensors.values_mut() {
            if let Stored::Layout(stored) = &mut global.stored
                && let Some(next) = assigned.next()
            {
                *stored = next;
            }
        }
        self.assign_boxes(&mut loads);
        Ok(())
    }

    /// Each box of several ranks to the one that has least to store so far.
    fn assign_boxes(&mut self, loads: &mut HashMap<u32, u64>) {
        for (name, held) in &self.holders {
            let Some(Global { dtype, stored: Stored::Boxes(boxes), .. }) = self.tensors.get_mut(name) else {
                continue;
            };
            for (tensor_box, owner) in boxes {
                let holders = held.get(tensor_box).map_or(&[][..], Vec::as_slice);
                let load = |rank: &u32| loads.get(rank).copied().unwrap_or_default();
                *owner = holders.iter().copied().min_by_key(load).unwrap_or(*owner);
                let bytes = tensor_box.elements().saturating_mul(dtype.size() as u64);
                let load = loads.entry(*owner).or_default();
                *load = load.saturating_add(bytes);
            }
        }
    }

    /// What a rank stores: boxes of tensors, by name.
    pub fn parts_of(&self, rank: u32) -> Vec<Part> {
        let mut parts = Vec::new();
        for (name, global) in &self.tensors {
            let boxes = global.pieces().into_iter().filter(|(_, owner)| *owner == rank);
            parts.extend(boxes.map(|(tensor_box, _)| Part {
                name: name.clone(),
                shape: global.shape.clone(),
                tensor_box,
            }));
        }
        parts
    }

    /// Whether one rank stores everything, and all of it is whole tensors: then there is no
    /// manifest, and the checkpoint is a plain file. Of a job that stores nothing, rank 0.
    pub fn only_rank(&self) -> Option<u32> {
        let mut owners = BTreeSet::new();
        for global in self.tensors.values() {
            let pieces = global.pieces();
            if pieces.len() > 1 {
                return None;
            }
            owners.extend(pieces.into_iter().map(|(_, owner)| owner));
        }
        (owners.len() <= 1).then(|| owners.first().copied().unwrap_or(0))
    }

    /// The ranks that store something.
    #[cfg(feature = "testing")]
    pub fn owners(&self) -> BTreeSet<u32> {
        self.tensors.values().flat_map(Global::pieces).map(|(_, owner)| owner).collect()
    }

    /// A rank that stores something, and is not among these.
    fn missing(&self, have: &BTreeSet<u32>) -> Option<u32> {
        // Layouts are few, and tensors times ranks are many.
        let mut complete: HashMap<&Assigned, bool> = HashMap::new();
        let lacks_none = |stored: &Assigned| {
            let Assigned { layout, copy } = stored;
            let to_copy = layout.to_copy(*copy);
            let rank = |first| layout.positions().rank(first + to_copy);
            layout.combinations().all(|first| have.contains(&rank(first)))
        };
        self.tensors.values().find_map(|global| {
            if let Stored::Layout(stored) = &global.stored
                && *complete.entry(stored).or_insert_with(|| lacks_none(stored))
            {
                return None;
            }
            global.pieces().into_iter().map(|(_, owner)| owner).find(|owner| !have.contains(owner))
        })
    }

    /// The section of the manifest, which makes the shards one checkpoint.
    ///
    /// # Errors
    /// `Invalid` when a rank that stores something has no shard.
    pub(crate) fn pieces(&self, mut shards: Vec<ShardRef>) -> Result<Further> {
        let have: BTreeSet<u32> = shards.iter().map(|shard| shard.rank).collect();
        if let Some(missing) = self.missing(&have) {
            let parts = self.parts_of(missing);
            return Err(Error::invalid("a rank is missing")
                .expected(format!("a shard of rank {missing}, with {} pieces", parts.len()))
                .found(format!("those of {} ranks", have.len()))
                .in_tensor(parts.first().map_or("", |part| &part.name)));
        }
        let boxes = |global: &Global| match &global.stored {
            Stored::Layout(_) => 0,
            Stored::Boxes(boxes) => boxes.len() as u64,
        };
        let boxes: u64 = self.tensors.values().map(boxes).sum();
        if boxes > Limits::V1.boxes {
            return Err(Error::new(ErrorKind::LimitExceeded, "boxes of one checkpoint")
                .expected(format!("at most {}", Limits::V1.boxes))
                .found(boxes)
                .help("declare tensors by layouts where their cuts are even"));
        }
        let mut pieces = PiecesBuilder::default();
        for (name, global) in &self.tensors {
            match &global.stored {
                Stored::Layout(stored) => pieces.push_layout(name, global.dtype, &global.shape, stored),
                Stored::Boxes(boxes) => pieces.push_boxes(name, global.dtype, &global.shape, boxes),
            }
        }
        shards.sort_by_key(|shard| shard.rank);
        for shard in shards {
            pieces.push_shard(shard);
        }
        let flags = Flags { incompat: Flags::PIECES, ..Flags::default() };
        Ok(Further { kind: SECTION_PIECES, payload: pieces.encode(&self.save), flags })
    }

    /// Writes the manifest. `snapshot` has the records, and tensors that lie in the manifest
    /// itself. Where one rank stores everything, that is a plain checkpoint: see
    /// [`Job::only_rank`].
    ///
    /// # Errors
    /// As [`Job::pieces`] and [`Snapshot::save`].
    #[cfg(feature = "testing")]
    pub fn write_manifest(
        &self,
        path: &Path,
        snapshot: &Snapshot<'_>,
        options: &WriteOptions,
        shards: Vec<ShardRef>,
    ) -> Result<Written> {
        let pieces = self.pieces(shards)?;
        Plan::of(snapshot, &[], options)?.with(pieces, Aliases::new()).save(path, |_| Ok(()))
    }

    /// The same job with other names of its shards.
    ///
    /// # Errors
    /// `Invalid` for a bad name.
    pub fn named(&self, save: &str) -> Result<Self> {
        check_save(save)?;
        Ok(Self { save: save.to_owned(), ..self.clone() })
    }

    /// Bytes of all tensors.
    pub fn byte_len(&self) -> u64 {
        let len = |global: &Global| {
            let elements = global.shape.iter().fold(1_u64, |all, len| all.saturating_mul(*len));
            elements.saturating_mul(global.dtype.bits()) / 8
        };
        self.tensors.values().map(len).fold(0, u64::saturating_add)
    }

    /// Names of the tensors in shards, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Dtype and whole shape of a tensor.
    pub fn tensor(&self, name: &str) -> Option<(Dtype, &[u64])> {
        self.tensors.get(name).map(|global| (global.dtype, &global.shape[..]))
    }
}

impl Global {
    /// Its pieces, and the rank that stores each.
    fn pieces(&self) -> Vec<(TensorBox, u32)> {
        match &self.stored {
            Stored::Boxes(boxes) => boxes.clone(),
            Stored::Layout(Assigned { layout, copy }) => {
                let to_copy = layout.to_copy(*copy);
                let rank = |first| layout.positions().rank(first + to_copy);
                let pieces = layout.pieces(&self.shape).into_iter();
                pieces.map(|piece| (piece.tensor_box, rank(piece.position))).collect()
            }
        }
    }
}
