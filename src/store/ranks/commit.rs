//! One save of many ranks. Every rank writes its shard durably and sends a receipt; rank 0 compares
//! them, creates the manifest, and tells everybody the outcome.
//!
//! Ok is told only behind the commit and the look behind it. An error before the manifest's request
//! was sent means that there is none, and each rank deletes its shard. A rank that does not hear
//! the outcome says `Unknown`.

mod write;

use super::plan::{self, Sources};
use super::receipts::{self, Receipt};
use super::{Ranks, copy_of};
use crate::clock::Timer;
use crate::collective::{self, Call, hand, take};
use crate::error::{Error, ErrorKind, Result};
use crate::format::records;
use crate::snapshot::{RANKS, RanksRecord, Record, Snapshot};
use crate::store::background::{caught, panicked};
use crate::store::core::Core;
use crate::store::cost::Stall;
use crate::store::naming::CheckpointId;
use crate::store::record::CheckpointMeta;
use crate::store::retention::Candidate;
use crate::store::save::OwnRecords;
use crate::store::saved::{Diverged, Saved};
use crate::store::schedule::Begun;
use crate::writer::job::Job;
use crate::writer::{Timings, Written};
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

/// What rank 0 says while a save ends.
#[derive(Serialize, Deserialize)]
enum Answer {
    /// Send the checksums of these sets of tensors.
    List(Vec<u32>),
    /// The rank that has everything writes the checkpoint, with these records of rank 0.
    Write(Vec<(String, Vec<u8>)>),
    /// It is durable.
    Done { len: u64, diverged: Vec<Diverged> },
    /// It failed after the manifest's request was sent: an outcome with an error.
    Failed(Vec<u8>),
}

/// A save that failed, and whether the manifest may be there all the same.
struct Failed {
    error: Error,
    was_sent: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, was_sent: false }
    }
}

/// A save in progress, on one rank.
struct Saving<'s, 'a> {
    core: &'s Core,
    ranks: &'s Ranks,
    snapshot: &'s Snapshot<'a>,
    begun: &'s Begun,
    sources: Sources<'s, 'a>,
    plan: plan::Begun,
    /// With the names of this save's shards.
    job: Job,
    id: CheckpointId,
    call: String,
}

/// A save that is durable.
struct Ended {
    saved: Saved,
    /// On rank 0: what to rotate.
    seen: Option<Result<Vec<Candidate>>>,
}

/// A durable checkpoint, on rank 0.
struct Committed {
    written: Written,
    diverged: Vec<Diverged>,
    /// For rotation.
    seen: Result<Vec<Candidate>>,
}

impl Ranks {
    /// Saves, as every rank does at once. Rank 0 then rotates and sweeps.
    pub(in crate::store) fn save(
        &self,
        core: &Core,
        snapshot: &Snapshot<'_>,
        begun: &Begun,
        stall: &Stall,
    ) -> Result<Saved> {
        let _one_at_a_time = crate::sync::lock(&core.saving);
        let id = CheckpointId { attempt: core.attempt.number, step: begun.progress.step };
        let committing = Timer::start();
        let Ended { mut saved, seen } = Saving::begin(core, self, snapshot, begun, id)?.save()?;
        core.last_save.set(id.step, committing.elapsed(), stall);
        let words = |diverged| format!("{diverged}: the bytes of the rank that stores it were saved");
        saved.warnings.extend(saved.diverged.iter().map(words));
        if let Some(seen) = seen {
            core.timed(|| {
                core.rotate_behind(seen, &mut saved);
                if let Err(error) = self.sweep(core) {
                    saved.warnings.push(format!("shards of saves that failed were not swept: {error}"));
                }
                Ok(())
            })?;
        }
        Ok(saved)
    }
}

impl<'s, 'a> Saving<'s, 'a> {
    /// Agrees on what is saved.
    fn begin(
        core: &'s Core,
        ranks: &'s Ranks,
        snapshot: &'s Snapshot<'a>,
        begun: &'s Begun,
        id: CheckpointId,
    ) -> Result<Self> {
        let call = format!("the save of step {}", id.step);
        let declared =
            core.check_order(id).and_then(|()| plan::declare(snapshot, ranks.rank(), ranks.world()));
        let (plan, sources) = match declared {
            Ok((plan, sources)) => (Ok(plan), Some(sources)),
            Err(error) => (Err(error), None),
        };
        let name = || {
            let number = core.saves.fetch_add(1, Ordering::Relaxed);
            (format!("{id}-{number}-{}", core.attempt.tag()), number)
        };
        let plan = ranks.agree_on_plan(&call, plan, name)?;
        let sources = sources.ok_or_else(|| Error::invalid("a save without tensors"))?;
        let job = plan.agreed.job.named(&plan.save)?;
        Ok(Self { core, ranks, snapshot, begun, sources, plan, job, id, call })
    }

    fn save(&self) -> Result<Ended> {
        let own = if self.ranks.is_root() {
            let byte_len = self.snapshot.byte_len();
            Some(self.core.own_records(byte_len, self.id, self.begun))
        } else {
            None
        };
        let mut shard = None;
        // A tensor that cannot be produced must not leave the others waiting.
        let receipt = guarded(|| self.core.timed(|| self.write_part(&mut shard)));
        let receipt = receipt.and_then(|receipt| records::encode(&receipt));
        let outcome = match own {
            Some(own) => self.lead(own, &receipt),
            None => self.follow(&receipt),
        };
        outcome.map_err(|failed| {
            // Without a manifest, and without a request for one on its way, it is nobody's.
            if let (false, Some(key)) = (failed.was_sent, &shard) {
                let _ = self.core.timed(|| self.core.reader.engine().delete(key));
            }
            // A rank's own error keeps what only it knows.
            receipt.err().unwrap_or(failed.error)
        })
    }

    /// Rank 0: everybody's receipts, the manifest, and the answer.
    fn lead(&self, own: Result<OwnRecords>, receipt: &Result<Vec<u8>>) -> Result<Ended, Failed> {
        let on = &*self.ranks.saving;
        let all = self.ranks.collect(on, &self.call, receipt)?.unwrap_or_else(|| Ok(vec![]));
        let commit = |all: Vec<Vec<u8>>| {
            // A panic says nothing of what was sent before it.
            let failed = |panic| Failed {
                error: panicked("rank 0's part of the save")(panic).with_kind(ErrorKind::Unknown),
                was_sent: true,
            };
            catch_unwind(AssertUnwindSafe(|| self.commit(own?, &all)))
                .unwrap_or_else(|panic| Err(failed(panic)))
        };
        let committed = all.map_err(Failed::from).and_then(commit);
        let answer = match &committed {
            Ok(Committed { written, diverged, .. }) => {
                records::encode(&Answer::Done { len: written.byte_len, diverged: diverged.clone() })
            }
            Err(Failed { error, was_sent: true }) => records::encode(&Answer::Failed(hand(error))),
            Err(Failed { error, was_sent: false }) => Err(copy_of(error)),
        };
        let told = self.ranks.announce(on, &answer);
        let Committed { written, diverged, seen } = committed?;
        let mut saved = Saved::of(self.id, written);
        saved.diverged = diverged;
        if let Err(error) = told {
            // It is durable, and the next start resumes from it.
            saved.warnings.push(format!("not every rank has heard that this save is durable: {error}"));
        }
        Ok(Ended { saved, seen: Some(seen) })
    }

    /// Another rank: its receipt, and rank 0's answer.
    fn follow(&self, receipt: &Result<Vec<u8>>) -> Result<Ended, Failed> {
        let on = &*self.ranks.saving;
        let unheard = |error: Error| Failed {
            error: error
                .with_kind(ErrorKind::Unknown)
                .help("the checkpoint may be there: the next start finds out, and resumes from it if it is"),
            was_sent: true,
        };
        self.ranks.collect(on, &self.call, receipt).map_err(unheard)?;
        loop {
            let answer = self.ranks.hear(on).map_err(unheard)??;
            match records::decode_owned(&answer).map_err(unheard)? {
                Answer::List(numbers) => {
                    let list = guarded(|| self.list(&numbers));
                    self.ranks.collect(on, COMPARING, &list).map_err(unheard)?;
                }
                Answer::Write(extra) => {
                    let own = guarded(|| self.core.timed(|| self.write_if_chosen(&extra)));
                    self.ranks.collect(on, WRITING, &own).map_err(unheard)?;
                }
                Answer::Failed(outcome) => {
                    let error =
                        take(&outcome).err().unwrap_or_else(|| Error::invalid("an outcome of rank 0"));
                    return Err(Failed { error, was_sent: true });
                }
                Answer::Done { len, diverged } => {
                    self.core.known().saved = Some(self.id);
                    let written = Written::elsewhere(len, Timings::default());
                    let mut saved = Saved::of(self.id, written);
                    saved.diverged = diverged;
                    return Ok(Ended { saved, seen: None });
                }
            }
        }
    }

    /// Checksums of this rank's tensors in these sets.
    fn list(&self, numbers: &[u32]) -> Result<Vec<u8>> {
        let sets = numbers.iter().filter_map(|&number| self.plan.agreed.compared.get(number as usize));
        let lists: Result<Vec<Vec<u32>>> =
            sets.map(|compared| receipts::checksums(compared, &self.sources)).collect();
        records::encode(&lists?)
    }

    /// Checks the receipts, and creates the manifest or the plain checkpoint.
    fn commit(&self, own: OwnRecords, all: &[Vec<u8>]) -> Result<Committed, Failed> {
        let OwnRecords { save, encoded: mut extra } = own;
        let receipts: Vec<Receipt> =
            all.iter().map(|bytes| records::decode_owned(bytes)).collect::<Result<_>>()?;
        let diverged = self.compare(&receipts)?;
        let agreed = &self.plan.agreed;
        if !agreed.per_rank.is_empty() || !diverged.is_empty() {
            let ranks = RanksRecord {
                world: self.ranks.world(),
                per_rank: agreed.per_rank.clone(),
                diverged: diverged.iter().map(ToString::to_string).collect(),
            };
            extra.push((RANKS, records::encode(&ranks)?));
        }
        let tensors = agreed.job.names().count() + agreed.aliases.len();
        let meta = CheckpointMeta::of_saved(save, self.begun, tensors);
        // Of the outcomes of a commit, one leaves it open whether it arrived.
        let sent = |error: Error| Failed { was_sent: error.kind() == ErrorKind::Unknown, error };
        let (mut written, meta) = match agreed.plain {
            Some(0) => self
                .core
                .timed(|| self.write_plain(self.snapshot, &extra))
                .map(|written| (written, meta))
                .map_err(sent)?,
            Some(writer) => (self.write_elsewhere(writer, &extra)?, meta),
            None => self.core.timed(|| self.write_manifest(&receipts, &extra, meta)).map_err(sent)?,
        };
        written.byte_len = written.byte_len.saturating_add(meta.shard_bytes);
        self.core.lock_schedule().log.saved(self.begun.progress, written.byte_len);
        self.core.reader.remember(self.id, meta);
        let seen = self.core.timed(|| self.core.acknowledge(self.id));
        let seen = seen.map_err(|error| Failed { error, was_sent: true })?;
        Ok(Committed { written, diverged, seen })
    }

    /// Has the rank that has everything write the checkpoint.
    fn write_elsewhere(&self, writer: u32, extra: &[(&'static str, Vec<u8>)]) -> Result<Written, Failed> {
        let mut all: Vec<(String, Vec<u8>)> =
            extra.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        for (name, record) in self.snapshot.without_tensors().encoded_records()? {
            if let Record::Here(bytes) = record.drawn()?
                && all.iter().all(|(there, _)| there != name)
            {
                all.push((name.to_owned(), bytes));
            }
        }
        let on = &*self.ranks.saving;
        let answer = records::encode(&Answer::Write(all))?;
        let sent = |error: Error| Failed { error, was_sent: true };
        // It may be written all the same.
        let unheard = |error: Error| sent(error.with_kind(ErrorKind::Unknown));
        self.ranks.announce(on, &Ok(answer)).map_err(unheard)?;
        // The whole checkpoint is written now.
        let deadline = self.ranks.deadline() + self.ranks.storage;
        let lens = collective::collect(on, Call { name: WRITING, deadline }, &Ok(vec![])).map_err(unheard)?;
        let lens = lens.unwrap_or_else(|| Ok(vec![])).map_err(sent)?;
        let len = lens.get(writer as usize).map_or(&[][..], Vec::as_slice);
        Ok(Written::elsewhere(records::decode_owned(len).map_err(sent)?, Timings::default()))
    }

    fn write_if_chosen(&self, extra: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
        if self.plan.agreed.plain != Some(self.ranks.rank()) {
            return Ok(vec![]);
        }
        let extra: Vec<(&str, Vec<u8>)> =
            extra.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        records::encode(&self.write_plain(&Snapshot::new(), &extra)?.byte_len)
    }

    /// What differs between ranks that should hold the same.
    fn compare(&self, receipts: &[Receipt]) -> Result<Vec<Diverged>> {
        let agreed = &self.plan.agreed;
        let mut all = receipts::diverged_records(receipts)?;
        let numbers = receipts::differing(agreed, receipts);
        if numbers.is_empty() {
            return Ok(all);
        }
        let on = &*self.ranks.saving;
        self.ranks.announce(on, &records::encode(&Answer::List(numbers.clone())))?;
        let lists = self.ranks.collect(on, COMPARING, &self.list(&numbers))?.unwrap_or_else(|| Ok(vec![]))?;
        let lists: Vec<Vec<Vec<u32>>> =
            lists.iter().map(|bytes| records::decode_owned(bytes)).collect::<Result<_>>()?;
        all.extend(receipts::diverged(agreed, &numbers, &lists));
        match all.iter().find(|diverged| agreed.required.contains(&diverged.name)) {
            None => Ok(all),
            Some(diverged) => Err(Error::new(ErrorKind::Mismatch, "replicas that must not differ do")
                .found(diverged)
                .help("nothing was committed; resume from the newest checkpoint")
                .in_tensor(&diverged.name)),
        }
    }
}

/// A panic of this rank as its error: the others are waiting for one.
fn guarded<T>(part: impl FnOnce() -> Result<T>) -> Result<T> {
    caught("this rank's part of the save", part).and_then(|done| done)
}

const COMPARING: &str = "comparing replicas";
const WRITING: &str = "writing the checkpoint of one rank";
