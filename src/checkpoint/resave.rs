//! A checkpoint as a snapshot again, to write it with another codec, or without its damaged parts.
//! Tensors and records are read one at a time while the snapshot is written.

use super::{Checkpoint, Inspect, TensorInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::{LazyTensor, Record, Snapshot};
use serde::Serialize;
use std::collections::BTreeSet;

/// The record that [`Inspect::salvage`] adds: a map of `from`, the source's name, and `lost`, one
/// text for each missing tensor or record.
pub const SALVAGED: &str = "tensorkeep.salvaged";

/// Most losses that are listed one by one: a record has a limit.
const MOST_LOST: usize = 1000;

#[derive(Serialize)]
struct Salvaged {
    from: String,
    lost: Vec<String>,
}

impl<'c> Inspect<'c> {
    /// Everything in this checkpoint as a snapshot: tensors, aliases, all records, progress,
    /// metrics and metadata.
    ///
    /// # Errors
    /// `Unsupported` for a dtype this version does not know, `Damaged` for a record, `Io`.
    pub fn to_snapshot(&self) -> Result<Snapshot<'c>> {
        let mut snapshot = Snapshot::new();
        for name in self.0.records() {
            self.0.copy_record(name, &mut snapshot)?;
        }
        for info in self.0.tensors() {
            self.0.copy_tensor(&info, &mut snapshot)?;
        }
        Ok(snapshot)
    }

    /// Everything in this checkpoint that verifies, as a snapshot, and an error for everything that
    /// does not. A tensor is taken whole or not at all. Reads every byte. A record named
    /// [`SALVAGED`] marks the snapshot.
    ///
    /// # Errors
    /// Only errors that concern more than one tensor or record: one bad chunk or one bad sector
    /// never ends a salvage.
    pub fn salvage(&self) -> Result<(Snapshot<'c>, Vec<Error>)> {
        let mut snapshot = Snapshot::new();
        let (mut lost, mut lost_tensors) = (Vec::new(), BTreeSet::new());
        for name in self.0.records() {
            lost.extend(self.0.copy_record(name, &mut snapshot).err());
        }
        for info in self.0.tensors() {
            let intact = match info.alias_of {
                // Read before, under its own name.
                Some(other) if !lost_tensors.contains(other) => Ok(()),
                Some(other) => Err(Error::damaged(format!("is the same as {other:?}, which is lost"))
                    .in_tensor(info.name)
                    .in_object(self.0.name())),
                None => self.visit_chunks(info.name, 0..info.chunks, |_, _| Ok(())),
            };
            if let Err(error) = intact.and_then(|()| self.0.copy_tensor(&info, &mut snapshot)) {
                lost.push(error);
                lost_tensors.insert(info.name);
            }
        }
        let mut lost_in_words: Vec<String> = lost.iter().take(MOST_LOST).map(ToString::to_string).collect();
        if lost.len() > MOST_LOST {
            lost_in_words.push(format!("and {} more", lost.len() - MOST_LOST));
        }
        let salvaged = Salvaged { from: self.0.name().to_owned(), lost: lost_in_words };
        snapshot.records.remove(SALVAGED);
        snapshot.insert_record(SALVAGED.to_owned(), &salvaged)?;
        Ok((snapshot, lost))
    }
}

impl Checkpoint {
    fn copy_record<'c>(&'c self, name: &'c str, snapshot: &mut Snapshot<'c>) -> Result<()> {
        let bytes = self.record_bytes(name)?;
        crate::format::records::check(&bytes)
            .map_err(|error| error.in_record(name).in_object(self.name()))?;
        let record = Record::deferred(&bytes, move || self.record_bytes(name));
        snapshot.records.insert(name.to_owned(), record);
        Ok(())
    }

    fn copy_tensor<'c>(&'c self, info: &TensorInfo<'c>, snapshot: &mut Snapshot<'c>) -> Result<()> {
        if let Some(other) = info.alias_of {
            return snapshot
                .add_alias(info.name.to_owned(), other)
                .map_err(|error| error.in_object(self.name()));
        }
        let place = self.locate(info.name)?;
        let (dtype, shape) = self.with_context(info.name, || self.described(place))?;
        let name = info.name.to_owned();
        let deferred = LazyTensor::new(dtype, &shape, move || {
            let tensor = self.tensor(&name)?;
            // The bytes may have been damaged since: that is an error of this save, not a wrong
            // byte in it.
            if tensor.bytes().len() as u64 == self.info(&name)?.byte_len {
                return Ok(tensor);
            }
            Err(Error::new(ErrorKind::Damaged, "length of the tensor changed").in_tensor(&name))
        });
        snapshot.add_tensor(info.name.to_owned(), deferred)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Codec, Progress, WriteOptions};

    fn bytes() -> Vec<u8> {
        let (first, second) = (vec![1.5_f32; 40_000], vec![2.5_f32; 40_000]);
        let mut snapshot = Snapshot::new()
            .tensor("a", &first)
            .unwrap()
            .tensor("b", &second)
            .unwrap()
            .alias("c", "b")
            .unwrap();
        snapshot =
            snapshot.record("lr", &0.1_f32).unwrap().metric("loss", 0.5).unwrap().progress(Progress::new(7));
        snapshot.to_bytes(&WriteOptions::new()).unwrap()
    }

    #[test]
    fn a_checkpoint_resaved_under_another_codec_holds_the_same() {
        let first = Checkpoint::from_bytes(&bytes()).unwrap();
        let options = WriteOptions::new().codec(Codec::Balanced);
        let packed = first.inspect().to_snapshot().unwrap().to_bytes(&options).unwrap();
        let second = Checkpoint::from_bytes(&packed).unwrap();
        assert!(packed.len() < 20_000);
        for name in ["a", "b", "c"] {
            assert_eq!(first.tensor(name).unwrap().bytes(), second.tensor(name).unwrap().bytes());
            assert_eq!(first.info(name).unwrap().alias_of, second.info(name).unwrap().alias_of);
        }
        assert_eq!(first.records().collect::<Vec<_>>(), second.records().collect::<Vec<_>>());
        assert_eq!(
            (second.progress().unwrap(), second.record::<f32>("lr").unwrap()),
            (Some(Progress::new(7)), 0.1)
        );
        // Saved raw again, the two files are identical.
        let again = second.inspect().to_snapshot().unwrap().to_bytes(&WriteOptions::new()).unwrap();
        assert!(again == bytes());
    }

    #[test]
    fn one_flipped_bit_costs_one_tensor_and_its_aliases() {
        let mut bytes = bytes();
        let offset = Checkpoint::from_bytes(&bytes).unwrap().info("b").unwrap().offset as usize;
        bytes[offset + 3] ^= 1;
        let damaged = Checkpoint::from_bytes(&bytes).unwrap();
        let (snapshot, lost) = damaged.inspect().salvage().unwrap();
        assert_eq!(lost[0].tensor(), Some("b"));
        assert_eq!(lost.len(), 2, "{lost:?}");
        assert_eq!((lost[1].tensor(), lost[1].kind()), (Some("c"), ErrorKind::Damaged));
        assert!(lost[1].to_string().contains("the same as \"b\", which is lost"), "{}", lost[1]);
        let saved = Checkpoint::from_bytes(&snapshot.to_bytes(&WriteOptions::new()).unwrap()).unwrap();
        assert_eq!(saved.names().collect::<Vec<_>>(), ["a"]);
        let salvaged = saved.inspect().record_value(SALVAGED).unwrap().to_string();
        assert!(salvaged.contains("tensor b") && salvaged.contains("from:"), "{salvaged}");
        assert_eq!(saved.records().len(), 4);
        // Salvaging a salvaged file records it once.
        let (again, lost) = saved.inspect().salvage().unwrap();
        assert!(lost.is_empty() && again.encoded_records().unwrap().len() == 4);
    }

    #[test]
    fn chunks_are_visited_in_order_with_the_bytes_of_the_tensor() {
        let values: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
        let snapshot = Snapshot::new().tensor("t", &values).unwrap();
        for codec in [Codec::Raw, Codec::Balanced] {
            let bytes = snapshot.to_bytes(&WriteOptions::new().chunk_log2(16).codec(codec)).unwrap();
            let checkpoint = Checkpoint::from_bytes(&bytes).unwrap();
            let chunks = checkpoint.inspect().chunks("t").unwrap();
            assert_eq!((chunks.len(), checkpoint.info("t").unwrap().chunks), (7, 7));
            assert_eq!(chunks.iter().map(|chunk| chunk.raw_len).sum::<u32>(), 400_000);
            let mut seen = vec![];
            let mut visit = |range| {
                checkpoint.inspect().visit_chunks("t", range, |start, bytes| {
                    assert_eq!(start, seen.len() as u64);
                    seen.extend_from_slice(bytes);
                    Ok(())
                })
            };
            visit(0..3).unwrap();
            visit(3..7).unwrap();
            assert!(seen == checkpoint.tensor("t").unwrap().bytes());
        }
    }
}
