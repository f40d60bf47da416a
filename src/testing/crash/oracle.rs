//! The promises for every disk after a power cut: checks, each with a name of its own, so that a
//! wrong protocol is identified by the promise it breaks.

use super::trainer::{Disk, Life, Lived, Log, Promise, Recorded, weights};
use super::{Image, Violation, Wrong};
use crate::checkpoint::Checkpoint;
use crate::clock::script::Script;
use crate::engine::{CommitError, Engine};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{CheckpointId, CheckpointInfo, Reader};
use std::collections::BTreeSet;

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Broken {
    /// A save returned Ok, and it is not there although too few newer ones are.
    SavedIsLost,
    /// A pinned checkpoint, or the one resumed from, is gone.
    ProtectedIsLost,
    /// An object is visible that does not verify.
    HalfIsVisible,
    /// A checkpoint is visible that was never begun, or holds another's bytes.
    ForeignIsVisible,
    /// Fewer whole checkpoints than were saved and are kept.
    TooFewAreWhole,
    /// The run cannot be opened or resumed.
    CannotResume,
    /// Resuming took another checkpoint than the newest whole one.
    ResumedAnother,
    /// Saving after the recovery failed.
    CannotSave,
    /// Temporary files are there after the recovery.
    LeftoversStay,
    /// A checkpoint whose deletion rotation reported is there again.
    DeletedIsBack,
    /// A second recovery had another result.
    NotIdempotent,
    /// A checkpoint is there, and the run's identity is missing or another one.
    IdentityIsLost,
    /// A mark of a deletion is there after the recovery, and its checkpoint is not.
    MarksStay,
    /// A committed name was written again.
    NameIsReplaced,
    /// Two writers at a time.
    TwoWriters,
}

type Check<T> = std::result::Result<T, (Broken, String)>;

fn ensure(holds: bool, broken: Broken, detail: impl FnOnce() -> String) -> Check<()> {
    if holds { Ok(()) } else { Err((broken, detail())) }
}

/// A disk after a cut, and the promises before it.
pub(super) struct Case<'a> {
    pub image: &'a Image,
    pub promise: &'a Promise,
    pub wrong: Option<Wrong>,
    /// How many cuts came before: each life has its own script of nonces.
    pub depth: u32,
    /// How many ranks recover.
    pub ranks: u32,
    /// Whether the recovery is recovered from as well.
    pub recovers_twice: bool,
}

impl Case<'_> {
    /// Checks the disk, recovers, saves, and checks again. Returns the recovery, to be cut in turn.
    pub(super) fn check(&self) -> Check<Recorded> {
        let _script = Script::begin(100 + u64::from(self.depth));
        let disk = Disk::holding(self.image.nodes.clone(), self.wrong);
        let whole = self.check_view(&disk)?;
        let mut log = Log::default();
        let life = Life { ranks: self.ranks, ..Life::of(1) };
        let lived = disk.live(self.promise.keep, &life, &mut log);
        self.check_recovery(&disk, &whole, &lived)?;
        let recovery = disk.clone().recorded(self.image.nodes.clone(), log, self.promise.clone());
        if self.recovers_twice {
            self.check_again(&disk, lived.ok().and_then(|lived| lived.saved))?;
        }
        Ok(recovery)
    }

    /// Before recovery: everything that a reader sees is whole, and everything promised is there.
    fn check_view(&self, disk: &Disk) -> Check<BTreeSet<CheckpointId>> {
        let whole = whole_ones(disk)?;
        let Promise { keep, started, saved, pinned, deleting, deleted, resumed_from } = self.promise;
        let foreign = whole.difference(started).next();
        ensure(foreign.is_none(), Broken::ForeignIsVisible, || format!("{foreign:?} was never begun"))?;
        let back = whole.intersection(deleted).next();
        ensure(back.is_none(), Broken::DeletedIsBack, || format!("{back:?} was deleted"))?;
        for name in saved.difference(&whole) {
            ensure(!pinned.contains(name) && *resumed_from != Some(*name), Broken::ProtectedIsLost, || {
                format!("{name} is gone")
            })?;
            let newer = whole.union(deleting).filter(|there| *there >= name).count();
            ensure(newer >= *keep, Broken::SavedIsLost, || {
                format!("{name} returned Ok and is gone; {newer} newer ones are there, {keep} are kept")
            })?;
        }
        let kept = whole.union(deleting).count();
        ensure(kept >= saved.len().min(*keep), Broken::TooFewAreWhole, || {
            format!("{} are whole, {} were saved, {keep} are kept", whole.len(), saved.len())
        })?;
        self.check_identity(disk, &whole)?;
        Ok(whole)
    }

    /// The identity is durable before the first checkpoint is, and each checkpoint records the
    /// same.
    fn check_identity(&self, disk: &Disk, whole: &BTreeSet<CheckpointId>) -> Check<()> {
        if whole.is_empty() {
            return Ok(());
        }
        let local = disk.local_to_read();
        let reader = Reader::new(local.map_err(|error| (Broken::CannotResume, error.to_string()))?);
        let found = reader.written_run_id().map_err(|error| (Broken::IdentityIsLost, error.to_string()))?;
        let infos = reader.list().map_err(|error| (Broken::CannotResume, error.to_string()))?;
        let says = |info: &CheckpointInfo| info.state.as_ref().ok().and_then(|state| state.run);
        let other = infos.iter().find(|info| says(info) != found);
        ensure(found.is_some() && other.is_none(), Broken::IdentityIsLost, || {
            format!("the run is {found:?}, a checkpoint says {:?}", other.and_then(says))
        })
    }

    fn check_recovery(
        &self,
        disk: &Disk,
        whole: &BTreeSet<CheckpointId>,
        lived: &Result<Lived>,
    ) -> Check<()> {
        let lived = lived.as_ref().map_err(|error| (Broken::CannotResume, error.to_string()))?;
        let newest = whole.last().copied();
        ensure(lived.resumed == newest && lived.skipped == 0, Broken::ResumedAnother, || {
            format!("resumed {:?}, the newest is {newest:?}, {} were skipped", lived.resumed, lived.skipped)
        })?;
        ensure(lived.saved.is_some() && lived.error.is_none(), Broken::CannotSave, || {
            format!("saved {:?}, error {:?}", lived.saved, lived.error)
        })?;
        let mark = mark_of_nothing(disk).map_err(|error| (Broken::CannotResume, error.to_string()))?;
        ensure(mark.is_none(), Broken::MarksStay, || format!("{mark:?}"))?;
        let leftovers = disk.leftovers();
        ensure(leftovers.is_empty(), Broken::LeftoversStay, || format!("{leftovers:?}"))?;
        if self.ranks == 1 {
            return Ok(());
        }
        // The sweep behind a job's save takes them.
        let orphans = disk.orphans().map_err(|error| (Broken::CannotResume, error.to_string()))?;
        ensure(orphans.is_empty(), Broken::LeftoversStay, || format!("{orphans:?}"))
    }

    /// A second recovery finds the save of the first one, and has nothing else to do.
    fn check_again(&self, disk: &Disk, saved: Option<CheckpointId>) -> Check<()> {
        let mut log = Log::default();
        let lived = disk.live(self.promise.keep, &Life::of(0), &mut log);
        let lived = lived.map_err(|error| (Broken::NotIdempotent, error.to_string()))?;
        ensure(lived.resumed == saved && lived.skipped == 0, Broken::NotIdempotent, || {
            format!("saved {saved:?}, then resumed {:?}", lived.resumed)
        })
    }
}

/// Everything that is visible, each checkpoint read whole.
fn whole_ones(disk: &Disk) -> Check<BTreeSet<CheckpointId>> {
    let cannot_resume = |error: Error| (Broken::CannotResume, error.to_string());
    let reader = match disk.local_to_read() {
        // The run's own folder was never durable.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        local => Reader::new(local.map_err(cannot_resume)?),
    };
    let names = reader.ids().map_err(cannot_resume)?;
    for name in &names {
        let opened = reader.checkpoint_by_id(*name).and_then(|checkpoint| check_content(&checkpoint, *name));
        let is_own = opened.map_err(|error| (Broken::HalfIsVisible, error.to_string()))?;
        ensure(is_own, Broken::ForeignIsVisible, || format!("{name} holds another's tensor"))?;
    }
    Ok(names.into_iter().collect())
}

/// A mark of a deletion whose checkpoint is gone.
fn mark_of_nothing(disk: &Disk) -> Result<Option<String>> {
    let local = disk.local_to_read()?;
    let there: Vec<String> = local.list("")?.into_iter().map(|entry| entry.key).collect();
    let marks = local.list("attempts")?.into_iter().map(|entry| entry.key);
    Ok(marks.into_iter().find(|mark| {
        let name = mark.split_once(".deletes.").map(|(_, name)| format!("{name}.tkeep"));
        name.is_some_and(|key| !there.contains(&key))
    }))
}

fn check_content(checkpoint: &Checkpoint, id: CheckpointId) -> Result<bool> {
    checkpoint.verify()?;
    let own = checkpoint.tensor("w")?.elements::<f32>()?[..] == weights(id);
    Ok(own && checkpoint.progress()?.is_some_and(|progress| progress.step == id.step))
}

fn outside(place: &str, result: Check<()>) -> std::result::Result<(), Violation> {
    result.map_err(|(broken, detail)| Violation { broken, detail, place: place.to_owned() })
}

/// An upload that began before another one committed the same name must not replace it.
pub(super) fn never_replaced(wrong: Option<Wrong>) -> std::result::Result<(), Violation> {
    let run = || -> Result<bool> {
        let engine = Disk::with(wrong).local()?;
        let key = "0001-0000000010.tkeep";
        let mut stale = engine.create(key, None)?;
        stale.append(b"stale")?;
        let mut first = engine.create(key, None)?;
        first.append(b"first")?;
        first.commit([1; 16])?;
        let refused = matches!(stale.commit([2; 16]), Err(CommitError::Conflict(_)));
        let mut bytes = [0; 5];
        engine.open(key)?.read_at(0, &mut bytes)?;
        Ok(refused && &bytes == b"first")
    };
    let result = match run() {
        Ok(true) => Ok(()),
        Ok(false) => Err((Broken::NameIsReplaced, "a stale upload was published over a commit".to_owned())),
        // Another mistake than this check covers shows elsewhere.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err((Broken::NameIsReplaced, error.to_string())),
    };
    outside("two uploads of one name", result)
}

/// While one writer holds the run, another is refused, and the first one's upload stays.
pub(super) fn second_writer_refused(wrong: Option<Wrong>) -> std::result::Result<(), Violation> {
    let run = || -> Result<bool> {
        let disk = Disk::with(wrong);
        let first = disk.local()?;
        let _lock = first.lock("the first")?;
        let mut upload = first.create("object", None)?;
        upload.append(b"first")?;
        let second = disk.open(1).map(drop).map_err(|error| error.kind());
        upload.commit([1; 16]).map_err(Error::from)?;
        Ok(second == Err(ErrorKind::Locked))
    };
    let result = match run() {
        Ok(true) => Ok(()),
        Ok(false) => Err((Broken::TwoWriters, "a second writer was let in".to_owned())),
        Err(error) => Err((Broken::TwoWriters, format!("the first writer was disturbed: {error}"))),
    };
    outside("two writers", result)
}
