//! Records that each rank of a job has its own of: by the rule that was saved with them.

use super::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::{AnotherWorld, RANK_RECORD, RANKS, RanksRecord};
use serde::de::DeserializeOwned;

impl Checkpoint {
    /// A record that each rank saved its own of, for rank `rank` of `world`. With as many ranks as
    /// saved it, each gets its own; otherwise the rule decides that was saved with it, which is
    /// never overridden silently. None where the rule is that there is none.
    ///
    /// ```
    /// use tensorkeep::{Checkpoint, Snapshot, WriteOptions, ranks::AnotherWorld};
    ///
    /// let snapshot = Snapshot::new().rank_record("rng", &[7_u64, 9], AnotherWorld::Fail)?;
    /// let checkpoint = Checkpoint::from_bytes(&snapshot.to_bytes(&WriteOptions::new())?)?;
    /// assert_eq!(checkpoint.rank_record::<[u64; 2]>("rng", 0, 1)?, Some([7, 9]));
    /// assert!(checkpoint.rank_record::<[u64; 2]>("rng", 0, 2).is_err());
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NotFound`; `Mismatch` when the rule forbids it, and when it is not a `T`; `Damaged` and
    /// errors of the shard that has it.
    pub fn rank_record<T: DeserializeOwned>(&self, name: &str, rank: u32, world: u32) -> Result<Option<T>> {
        let (saved_by, rule) = self.rule_of(name)?;
        let of = match rule {
            _ if world == saved_by => rank,
            AnotherWorld::Modulo => rank % saved_by.max(1),
            AnotherWorld::First => 0,
            AnotherWorld::None => return Ok(None),
            AnotherWorld::Fail | AnotherWorld::All => {
                let help = match rule {
                    AnotherWorld::All => "Checkpoint::rank_records has those of all ranks",
                    _ => "Checkpoint::rank_records has those of all ranks; or load it on as many ranks",
                };
                return Err(Error::new(ErrorKind::Mismatch, "another number of ranks than saved it")
                    .expected(format!("{saved_by} ranks: its rule for others is {rule:?}"))
                    .found(format!("rank {rank} of {world}"))
                    .help(help)
                    .in_record(name)
                    .in_object(self.name()));
            }
        };
        self.record_of_rank(name, of).map(Some)
    }

    /// The records of all ranks of this name, by rank, whatever their rule.
    ///
    /// # Errors
    /// As [`Checkpoint::rank_record`].
    pub fn rank_records<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>> {
        let (saved_by, _) = self.rule_of(name)?;
        (0..saved_by).map(|rank| self.record_of_rank(name, rank)).collect()
    }

    /// How many ranks saved a record, and its rule.
    fn rule_of(&self, name: &str) -> Result<(u32, AnotherWorld)> {
        let ranks: RanksRecord = self.optional_record(RANKS)?.unwrap_or_default();
        let rule = ranks.per_rank.get(name).ok_or_else(|| {
            let known: Vec<&str> = ranks.per_rank.keys().map(String::as_str).collect();
            Error::new(ErrorKind::NotFound, "no rank has a record of its own of this name")
                .found(format!("{known:?}"))
                .in_record(name)
                .in_object(self.name())
        })?;
        Ok((ranks.world, *rule))
    }

    fn record_of_rank<T: DeserializeOwned>(&self, name: &str, rank: u32) -> Result<T> {
        let key = format!("{RANK_RECORD}{name}");
        let Some(pieces) = self.pieces() else { return self.record(&key) };
        let number = (0..pieces.shard_count()).find(|&number| pieces.shard(number).rank == rank);
        match number.map(|number| self.shard(number)).transpose()? {
            Some(shard) if shard.has_record(&key) => shard.record(&key),
            _ => Err(Error::new(ErrorKind::NotFound, "this rank has no record of its own of this name")
                .found(format!("none of rank {rank}"))
                .in_record(name)
                .in_object(self.name())),
        }
    }
}
