//! What a rank of a job of many holds of tensors that other ranks hold, too: whole copies, the box
//! that a layout gives it, explicit boxes, flat ranges. And records that each rank has its own of.

use super::{IntoTensorSource, Record, Snapshot, TensorSource, not_reserved};
use crate::error::{Error, Result};
use crate::format::{records, table};
use crate::layout::{Layout, TensorBox, flat_boxes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// In a manifest, or in the file of a job of one rank: how many ranks saved, and the rules of their
/// own records.
pub(crate) const RANKS: &str = "tensorkeep.ranks";
/// What stands before a name of a rank's own record.
pub(crate) const RANK_RECORD: &str = "tensorkeep.rank/";

/// What becomes of a tensor that several ranks hold whole, or a box that several hold, when their
/// bytes differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Replica {
    /// It is reported in [`Saved::diverged`](crate::store::Saved::diverged), and the bytes of the
    /// rank that stores it are saved: for weights and the state of an optimizer.
    #[default]
    Same,
    /// The save fails on every rank.
    Required,
    /// They are not compared, and this rank's bytes are saved: for what differs by design, such as
    /// the running statistics of a normalisation that is not synchronised.
    OfRank(u32),
}

/// What a rank loads of [its own records](Snapshot::rank_record) when the number of ranks is
/// another one than when they were saved. It is declared when they are saved, and stored with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AnotherWorld {
    /// Loading fails.
    #[default]
    Fail,
    /// Of `n` ranks that saved, rank `r` loads that of rank `r mod n`.
    Modulo,
    /// Every rank loads that of rank 0.
    First,
    /// There is none: the program makes a new one.
    None,
    /// Loading one fails; the program loads those of all ranks and distributes them itself.
    All,
}

/// What a tensor of a snapshot is of a tensor of the job.
#[derive(Clone, Debug)]
pub(crate) enum Holding {
    /// All of it, as other ranks may have it.
    Replica(Replica),
    /// The box that the layout gives this rank.
    Sharded { shape: Vec<u64>, layout: Layout },
    /// A box of the tensor of this name.
    Part { tensor: String, shape: Vec<u64>, tensor_box: TensorBox },
}

/// A rank's own record, and its rule.
#[derive(Clone, Debug)]
pub(crate) struct RankRecord {
    pub bytes: Vec<u8>,
    pub rule: AnotherWorld,
}

/// The record [`RANKS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RanksRecord {
    pub world: u32,
    /// The rules of ranks' own records, by name.
    pub per_rank: BTreeMap<String, AnotherWorld>,
    /// Replicas that differed, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diverged: Vec<String>,
}

impl<'a> Snapshot<'a> {
    /// Adds a tensor that several ranks of a job hold whole. Plain [`Snapshot::tensor`] is the same
    /// with [`Replica::Same`].
    ///
    /// ```
    /// use tensorkeep::Snapshot;
    /// use tensorkeep::ranks::Replica;
    ///
    /// let running_mean = [0.5_f32; 64];
    /// let snapshot = Snapshot::new().replica("bn.running_mean", &running_mean, Replica::OfRank(0))?;
    /// # drop(snapshot);
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Snapshot::tensor`].
    pub fn replica(
        mut self,
        name: impl Into<String>,
        source: impl IntoTensorSource<'a>,
        replica: Replica,
    ) -> Result<Self> {
        let name = name.into();
        self.add_tensor(name.clone(), source)?;
        if replica != Replica::default() {
            self.parts.insert(name, Holding::Replica(replica));
        }
        Ok(self)
    }

    /// Adds the box of a tensor that a layout gives this rank. `shape` is the whole tensor's; the
    /// box, and so the shape of `source`, follows from the rank that saves, which is
    /// [`Layout::box_of`]: it may be empty.
    ///
    /// ```
    /// use tensorkeep::{Snapshot, layout::Layout};
    ///
    /// // Rank 1 of 4 holds rows 3..6 of 10.
    /// let (rows, layout) = (vec![0.0_f32; 3 * 8], Layout::sharded(0, 4)?);
    /// let snapshot = Snapshot::new().sharded("momentum", ([3, 8], &rows), &[10, 8], &layout)?;
    /// # drop(snapshot);
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Snapshot::tensor`]; `Invalid` for a layout that cuts more axes than there are.
    pub fn sharded(
        mut self,
        name: impl Into<String>,
        source: impl IntoTensorSource<'a>,
        shape: &[u64],
        layout: &Layout,
    ) -> Result<Self> {
        let name = name.into();
        layout.check_fits(shape).map_err(|error| error.in_tensor(&name))?;
        self.add_tensor(name.clone(), source)?;
        self.parts.insert(name, Holding::Sharded { shape: shape.to_vec(), layout: layout.clone() });
        Ok(self)
    }

    /// Adds a box of a tensor, which no layout gives: uneven cuts, boxes made by hand. `shape` is
    /// the whole tensor's. All ranks' boxes together have to tile it; equal boxes of several ranks
    /// are replicas.
    ///
    /// # Errors
    /// As [`Snapshot::tensor`]; `Invalid` for a box that leaves the tensor, and where `source` has
    /// another shape than the box.
    pub fn part(
        mut self,
        name: impl Into<String>,
        source: impl IntoTensorSource<'a>,
        shape: &[u64],
        tensor_box: &TensorBox,
    ) -> Result<Self> {
        let (tensor, source) = (name.into(), source.into_source()?);
        if !tensor_box.is_within(shape) {
            return Err(Error::invalid("a box that leaves its tensor")
                .expected(format!("within {}", TensorBox::whole(shape)))
                .found(tensor_box)
                .in_tensor(tensor));
        }
        check_shape(&source, tensor_box).map_err(|error| error.in_tensor(&tensor))?;
        if *tensor_box == TensorBox::whole(shape) {
            return self.replica(tensor, source, Replica::Same);
        }
        let name = key_of(&tensor, tensor_box);
        self.add_tensor(name.clone(), source)?;
        let tensor_box = tensor_box.clone();
        self.parts.insert(name, Holding::Part { tensor, shape: shape.to_vec(), tensor_box });
        Ok(self)
    }

    /// Adds a range of a tensor's elements, in row-major order, as FSDP's flat parameters have
    /// them: it is at most `2 d - 1` boxes of a tensor of `d` axes. The elements of `source` are
    /// those of the range; its shape does not matter.
    ///
    /// ```
    /// use tensorkeep::Snapshot;
    ///
    /// // Elements 10..25 of a weight of 6 rows and 8 columns.
    /// let elements = [0.5_f32; 15];
    /// let snapshot = Snapshot::new().flat("weight", &elements, &[6, 8], 10..25)?;
    /// # drop(snapshot);
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Snapshot::part`].
    pub fn flat(
        mut self,
        name: impl Into<String>,
        source: impl IntoTensorSource<'a>,
        shape: &[u64],
        range: Range<u64>,
    ) -> Result<Self> {
        let (name, source) = (name.into(), source.into_source()?);
        let elements = (source.byte_len() / source.dtype().size()) as u64;
        if range.end.checked_sub(range.start) != Some(elements)
            || range.end > TensorBox::whole(shape).elements()
        {
            return Err(Error::invalid("a flat range of a tensor")
                .expected(format!("{elements} elements within {shape:?}"))
                .found(format!("{range:?}"))
                .in_tensor(name));
        }
        let mut at = 0;
        for tensor_box in flat_boxes(shape, range) {
            let lens: Vec<usize> = tensor_box.lens().iter().map(|&len| len as usize).collect();
            let stretch = source.stretch(at, &lens)?;
            at += stretch.byte_len();
            self = self.part(name.clone(), stretch, shape, &tensor_box)?;
        }
        Ok(self)
    }

    /// Adds a record of which every rank has its own, such as the state of its random generator,
    /// and what a job of another number of ranks is to load:
    /// [`Checkpoint::rank_record`](crate::Checkpoint::rank_record).
    ///
    /// # Errors
    /// As [`Snapshot::record`].
    pub fn rank_record<T: Serialize + ?Sized>(
        mut self,
        name: impl Into<String>,
        value: &T,
        rule: AnotherWorld,
    ) -> Result<Self> {
        let name = name.into();
        not_reserved(&name)?;
        let key = format!("{RANK_RECORD}{name}");
        table::check_name(&key)?;
        let bytes = records::encode(value).map_err(|error| error.in_record(&name))?;
        if self.rank_records.insert(key, RankRecord { bytes, rule }).is_some() {
            return Err(Error::invalid("a record of this name is there already").in_record(name));
        }
        Ok(self)
    }

    /// What this snapshot's tensor of this name is of a tensor of the job.
    pub(crate) fn holding(&self, name: &str) -> Holding {
        self.parts.get(name).cloned().unwrap_or(Holding::Replica(Replica::Same))
    }

    /// The rules of the records that each rank has its own of, by name.
    pub(crate) fn rules(&self) -> BTreeMap<String, AnotherWorld> {
        let name = |key: &String| key.strip_prefix(RANK_RECORD).unwrap_or(key).to_owned();
        self.rank_records.iter().map(|(key, record)| (name(key), record.rule)).collect()
    }

    /// The records that each rank has its own of, by the names that they have in a file.
    pub(crate) fn rank_records(&self) -> &BTreeMap<String, RankRecord> {
        &self.rank_records
    }

    /// Whether tensors over the same memory as this one are aliases of it.
    pub(super) fn may_be_alias(&self, name: &str) -> bool {
        !matches!(self.parts.get(name), Some(Holding::Sharded { .. } | Holding::Part { .. }))
    }

    /// The same without tensors, aliases, and records of ranks: what a manifest has itself.
    pub(crate) fn without_tensors(&self) -> Snapshot<'a> {
        Snapshot {
            records: self.records.clone(),
            metadata: self.metadata.clone(),
            metrics: self.metrics.clone(),
            progress: self.progress,
            ..Snapshot::default()
        }
    }

    /// A part of a tensor is never a file of its own.
    ///
    /// # Errors
    /// `Invalid` with the first tensor of which this is a part.
    pub(crate) fn check_whole(&self) -> Result<()> {
        for (name, holding) in &self.parts {
            let (tensor, shape) = match holding {
                Holding::Sharded { layout, .. } if layout.levels().is_empty() => continue,
                Holding::Replica(_) => continue,
                Holding::Sharded { shape, .. } => (name, shape),
                Holding::Part { tensor, shape, .. } => (tensor, shape),
            };
            return Err(Error::invalid(
                "the snapshot has a part of this tensor, which no file has by itself",
            )
            .expected(format!("all of {shape:?}"))
            .help("save it with Store::open_ranks, on every rank that has a part")
            .in_tensor(tensor));
        }
        Ok(())
    }

    /// A job of one rank has its own records like any other.
    pub(super) fn records_of_one_rank(&self) -> Result<Vec<(&str, Record<'a>)>> {
        if self.rank_records.is_empty() {
            return Ok(vec![]);
        }
        let ranks = RanksRecord { world: 1, per_rank: self.rules(), diverged: vec![] };
        let mut all = vec![(RANKS, Record::encoded(&ranks)?)];
        let own = self.rank_records.iter();
        all.extend(own.map(|(key, record)| (key.as_str(), Record::Here(record.bytes.clone()))));
        Ok(all)
    }
}

/// The name of a part in a snapshot and in a shard.
fn key_of(tensor: &str, tensor_box: &TensorBox) -> String {
    let offsets: Vec<String> = tensor_box.offsets().iter().map(u64::to_string).collect();
    format!("{tensor}@{}", offsets.join(","))
}

/// Fails when a tensor is not as large as its box.
pub(crate) fn check_shape(source: &TensorSource<'_>, tensor_box: &TensorBox) -> Result<()> {
    let shape = || source.shape().iter().map(|&len| len as u64);
    if shape().eq(tensor_box.lens().iter().copied()) {
        return Ok(());
    }
    Err(Error::invalid(format!("the part {tensor_box}"))
        .expected(format!("{:?}", tensor_box.lens()))
        .found(format!("{:?}", source.shape())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checkpoint, WriteOptions};

    #[test]
    fn a_flat_range_is_its_boxes_in_their_order() {
        let elements: Vec<f32> = (10..25).map(|i| i as f32).collect();
        let snapshot = Snapshot::new().flat("w", &elements, &[6, 8], 10..25).unwrap();
        let told: Vec<(String, Vec<f32>)> = snapshot
            .sorted()
            .into_iter()
            .map(|(name, source)| (name.to_owned(), source.produce().unwrap().to_vec().unwrap()))
            .collect();
        let floats = |range: Range<u32>| range.map(|i| i as f32).collect::<Vec<_>>();
        assert_eq!(
            told,
            [
                ("w@1,2".to_owned(), floats(10..16)),
                ("w@2,0".to_owned(), floats(16..24)),
                ("w@3,0".to_owned(), floats(24..25))
            ]
        );
        for range in [10..24, 40..55, Range { start: 25, end: 10 }] {
            let error = Snapshot::new().flat("w", &elements, &[6, 8], range).unwrap_err();
            assert!(error.to_string().contains("tensor w"), "{error}");
        }
    }

    #[test]
    fn a_part_is_no_file_and_a_whole_tensor_is_one() {
        let rows = [1.0_f32; 6];
        let layout = Layout::sharded(0, 2).unwrap();
        let part = Snapshot::new().sharded("w", ([3, 2], &rows), &[6, 2], &layout).unwrap();
        let error = part.to_bytes(&WriteOptions::new()).unwrap_err();
        assert!(error.to_string().contains("tensor w") && error.to_string().contains("[6, 2]"), "{error}");
        let alone = Layout::sharded(0, 1).unwrap();
        let whole = Snapshot::new().sharded("w", ([3, 2], &rows), &[3, 2], &alone).unwrap();
        let whole = whole.part("v", ([3, 2], &rows), &[3, 2], &TensorBox::whole(&[3, 2])).unwrap();
        let whole = whole.rank_record("rng", &7, AnotherWorld::Fail).unwrap();
        let read = Checkpoint::from_bytes(&whole.to_bytes(&WriteOptions::new()).unwrap()).unwrap();
        assert_eq!(read.names().collect::<Vec<_>>(), ["v", "w"]);
        assert_eq!(read.record::<RanksRecord>(RANKS).unwrap().world, 1);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused_by_name() {
        let four = [0_u8; 4];
        let part = |shape: &[u64], offset, len| {
            let tensor_box = TensorBox::new([offset], [len]).unwrap();
            Snapshot::new().part("w", &four[..], shape, &tensor_box).unwrap_err().to_string()
        };
        assert!(part(&[5], 2, 4).contains("leaves"));
        assert!(part(&[9], 2, 3).contains("[2:5]"));
        let layout = Layout::sharded(1, 2).unwrap();
        let error = Snapshot::new().sharded("w", &four[..], &[8], &layout).unwrap_err();
        assert!(error.to_string().contains("more axes"), "{error}");
    }
}
