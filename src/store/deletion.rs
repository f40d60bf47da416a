//! Deletion of checkpoints: the one place that deletes them, for rotation in both tiers, `delete`
//! and `gc`.
//!
//! # The protocol
//! 1. **Mark**: for each checkpoint an object `attempts/<maker>.deletes.<name>`.
//! 2. **Look**: at the pins, then at `attempts/`. A deleter that is no longer the run's writer
//!    takes all marks back. A checkpoint that was pinned, or that the newest writer resumed from,
//!    loses its mark and stays.
//! 3. **Delete** the checkpoints that are left. Of one of many files: hide it, delete the manifest,
//!    then the shards. A kill in between leaves no checkpoint that is listed and not whole, and
//!    shards that `ranks/sweep.rs` finds.
//! 4. **Take the marks back**, and the mark of damage with a checkpoint that had one.
//!
//! # Why no checkpoint is deleted that a process was told is safe
//! Every process that relies on a checkpoint writes first and looks afterwards, as the deleter
//! does, so that of the two at least one sees the other. This needs no lock and no clock, only that
//! objects are created atomically and that a listing has everything that was committed before it.
//! * **A pin** creates its object, then lists `attempts/`. Either the pin was there before the
//!   deleter looked: the checkpoint stays. Or the mark was there before the pin looked: the pin
//!   fails with `Busy`, and says so.
//! * **A resume** marks the checkpoint that it resumes from, then lists `attempts/`: the same two
//!   cases. It uses a checkpoint that is being deleted only if nothing else verifies.
//! * **A newer writer** takes its attempt before it lists any checkpoint. A deleter that looks
//!   after that withdraws; one that looked before had its marks there for the newer writer to see.
//! * **A zombie** that stood still between looking and deleting deletes only checkpoints that were
//!   marked before it looked, on which, by the three cases above, no process relies.
//! * **A deleter whose run was removed, replaced or restored** finds another attempt's object, or
//!   none, in place of its own, and withdraws.
//! * **A kill** between two steps leaves marks, and checkpoints that are whole or gone. The next
//!   writer takes back the marks of deleted checkpoints and, under the lock, those of processes
//!   that it can see to be dead. A maker that may only stand still keeps its marks: such a
//!   checkpoint cannot be pinned or rolled back to until a rotation or `gc` has deleted it. A
//!   resume still tries it, last.
//! * **A promotion in progress** is aborted before `delete` deletes; see `tiers/upward.rs`.
//! * **A power cut** ends all of them. Marks need not survive it, so they cost no fsync.
//!
//! A deletion that fails may still happen later (a request that was delayed by the network): its
//! mark stays.

use super::attempt::{Attempt, Writer};
use super::look::{Board, Look};
use super::naming::{
    ATTEMPTS, CheckpointId, DAMAGED, PINS, attempt_key, damaged_mark_key, deletes_key, ended_key, hidden_key,
    resumed_key,
};
use super::process;
use super::reader::Reader;
use crate::clock;
use crate::engine::{Engine, fresh_nonce};
use crate::error::{Error, ErrorKind, NoneIf, Result};
use crate::names::hex;
use std::collections::BTreeSet;
use std::time::Duration;

/// Prefix of the marks of tools, followed by the process.
const TOOL: &str = "tool-";

/// The process that deletes.
#[derive(Clone, Copy, Debug)]
pub(super) enum By<'a> {
    /// The run's writer.
    Writer(&'a Attempt),
    /// A tool, under the lock if there is one. It takes no attempt, which would fence a concurrent
    /// writer, but withdraws when one is taken after it has begun.
    Tool { maker: &'a str, newest: u32 },
}

impl By<'_> {
    pub(super) fn maker(self) -> String {
        match self {
            Self::Writer(attempt) => attempt.maker(),
            Self::Tool { maker, .. } => maker.to_owned(),
        }
    }

    /// Whether the checkpoint is of the attempt that deletes it: then no other process sends it.
    fn is_maker_of(self, id: CheckpointId) -> bool {
        matches!(self, Self::Writer(attempt) if attempt.number == id.attempt)
    }

    /// Looks at folders of the run, `attempts/` among them, after these marks were written; fails
    /// if a newer writer has taken over.
    pub(super) fn look(
        self,
        engine: &dyn Engine,
        folders: &[&'static str],
        marks: Vec<String>,
    ) -> Result<Look> {
        let newest = match self {
            Self::Writer(attempt) => return attempt.look(engine, folders, marks),
            Self::Tool { newest, .. } => newest,
        };
        let look = Look::behind(engine, folders, &marks)?;
        let found = look.board().newest;
        if found == newest {
            return Ok(look);
        }
        Err(Error::new(ErrorKind::Fenced, "a writer has opened this run meanwhile")
            .in_object(engine.describe(""))
            .expected(format!("attempt {newest} to be the newest"))
            .found(format!("attempt {found}"))
            .help("nothing was deleted; try again"))
    }
}

/// The outcome for each checkpoint to be deleted. One that was gone already is in none of these.
#[derive(Debug, Default)]
pub(super) struct Deleted {
    pub deleted: Vec<CheckpointId>,
    /// Pinned or resumed from since they were chosen.
    pub spared: Vec<CheckpointId>,
    pub failed: Vec<(CheckpointId, Error)>,
}

/// Deletes checkpoints by the protocol. Each deletion is durable when this returns.
///
/// # Errors
/// `Fenced`, and errors of listing: then nothing was deleted.
pub(super) fn delete(reader: &Reader, by: By<'_>, ids: &[CheckpointId]) -> Result<Deleted> {
    let engine = reader.engine();
    let (maker, mut done) = (by.maker(), Deleted::default());
    let (marked, marks) = mark_all(engine, &maker, ids, &mut done);
    if marked.is_empty() {
        return Ok(done);
    }
    let take_back = |id| drop(engine.unmark(&deletes_key(&maker, id)));
    let look = by.look(engine, &[PINS, ATTEMPTS, DAMAGED], marks);
    let look = look.inspect_err(|_| marked.iter().copied().for_each(take_back))?;
    let (pins, board, damaged) = (look.pins(), look.board(), look.damaged());
    for id in marked {
        if pins.contains(&*id.pin_key()) || board.is_resumed_from(id) {
            done.spared.push(id);
            take_back(id);
            continue;
        }
        match delete_marked(reader, by, id) {
            Ok(was_there) => done.deleted.extend(was_there.then_some(id)),
            Err(error) => {
                done.failed.push((id, error));
                continue;
            }
        }
        take_back(id);
        let mark = damaged_mark_key(id);
        if damaged.contains(&*mark) {
            let _ = engine.delete(&mark);
        }
        // Left by makers that were killed: there is nothing more to delete.
        for (other, _) in board.deletes.iter().filter(|(other, there)| *there == id && *other != maker) {
            let _ = engine.unmark(&deletes_key(other, id));
        }
    }
    Ok(done)
}

/// Marks the checkpoints; returns those that may go on, and the marks.
fn mark_all(
    engine: &dyn Engine,
    maker: &str,
    ids: &[CheckpointId],
    done: &mut Deleted,
) -> (Vec<CheckpointId>, Vec<String>) {
    let (mut marked, mut marks) = (Vec::new(), Vec::new());
    for &id in ids {
        let mark = deletes_key(maker, id);
        match engine.mark(&mark) {
            // A disk too full for the name of an empty file must still be emptied. The look right
            // before the deletion remains as protection.
            Err(error) if error.kind() == ErrorKind::NoSpace => {}
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                done.failed.push((id, error));
                continue;
            }
            // There already: left by a deletion of ours that failed.
            _ => marks.push(mark),
        }
        marked.push(id);
    }
    (marked, marks)
}

/// Deletes a checkpoint, its shards behind it. False when it was gone.
fn delete_marked(reader: &Reader, by: By<'_>, id: CheckpointId) -> Result<bool> {
    let engine = reader.engine();
    let shards = reader.shards_of(id);
    if shards.is_some() && !by.is_maker_of(id) {
        // A zombie may send its manifest once more: it would be one without shards.
        match engine.mark(&hidden_key(id, &by.maker())) {
            Err(error) if !matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NoSpace) => {
                return Err(error);
            }
            _ => {}
        }
    }
    let deleted = engine.delete(&id.key()).none_if(|error| error.kind() == ErrorKind::NotFound)?;
    if let Some(shards) = shards {
        // Those that cannot be deleted are orphans, and go with a later sweep.
        shards.keys().for_each(|key| drop(engine.delete(&key)));
    }
    Ok(deleted.is_some())
}

/// Keys of all pins.
pub(super) fn pins(engine: &dyn Engine) -> Result<BTreeSet<String>> {
    Ok(engine.list(PINS)?.into_iter().map(|entry| entry.key).collect())
}

/// The knowledge of a new writer that takes back the marks of earlier ones.
pub(super) struct Inherited<'a> {
    pub board: &'a Board,
    /// The newest attempt of which a checkpoint is left: its history tells of it and all before it.
    pub saved_by: u32,
    pub writer: &'a Writer,
    /// Whether the writer's lock is held: no tool and no writer that respects it is at work.
    pub is_locked: bool,
}

/// Removes what earlier attempts left: superfluous attempt objects, marks of the checkpoints they
/// resumed from (where neither they nor a later one has saved, the marks alone tell), marks of
/// completed deletions and, under the lock, those whose maker is dead. A lock alone does not prove
/// that: its file may have been removed while its holder stood still. A mark of deletion that stays
/// prevents a pin of that checkpoint and a rollback to it, and nothing else.
pub(super) fn clear_marks(engine: &dyn Engine, inherited: &Inherited<'_>) {
    let board = inherited.board;
    let superfluous: Vec<u32> = board.superfluous().collect();
    for &attempt in &superfluous {
        // An attempt that follows on an existing one stays.
        if engine.unmark(&attempt_key(attempt)).is_err() {
            break;
        }
        if board.ended.contains(&attempt) {
            let _ = engine.unmark(&ended_key(attempt));
        }
    }
    // Left by a kill between the two.
    for &ended in board.ended.iter().filter(|ended| !board.attempts.contains(ended)) {
        let _ = engine.unmark(&ended_key(ended));
    }
    let is_told = |attempt: u32| attempt <= inherited.saved_by || superfluous.contains(&attempt);
    for &(attempt, id) in board.resumed.iter().filter(|(attempt, _)| is_told(*attempt)) {
        let _ = engine.unmark(&resumed_key(attempt, id));
    }
    for (maker, id) in &board.deletes {
        // Asked after the listing of the mark: names are never reused.
        let gone = engine.open(&id.key()).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if gone || (inherited.is_locked && is_dead(engine, maker, inherited.writer)) {
            let _ = engine.unmark(&deletes_key(maker, *id));
        }
    }
}

/// Whether the maker of a mark is certainly dead: a process of this host that no longer exists.
fn is_dead(engine: &dyn Engine, maker: &str, writer: &Writer) -> bool {
    let pid = match (maker.parse::<u32>(), maker.strip_prefix(TOOL)) {
        (Ok(attempt), _) => Writer::read(engine, attempt)
            .ok()
            .filter(|there| there.host == writer.host)
            .map(|there| there.pid),
        (_, Some(tool)) => tool.split('-').next().and_then(|pid| pid.parse().ok()),
        _ => None,
    };
    pid.is_some_and(process::is_gone)
}

/// A name for the marks of this process as a tool.
pub(super) fn tool_maker() -> String {
    format!("{TOOL}{}-{}", std::process::id(), hex(&fresh_nonce()))
}

/// Whether a checkpoint with this pin is still being deleted after a short wait: a live deleter
/// finishes or withdraws within milliseconds.
pub(super) fn is_being_deleted(engine: &dyn Engine, id: CheckpointId, pin: &str) -> Result<bool> {
    const PAUSES: u32 = 20;
    for pause in 0..PAUSES {
        let look = Look::behind(engine, &[PINS, ATTEMPTS], &[pin.to_owned()])?;
        if !look.board().is_being_deleted(id) {
            return Ok(false);
        }
        if clock::is_scripted() {
            break;
        }
        clock::pause(Duration::from_millis(10 + 5 * u64::from(pause)));
    }
    Ok(true)
}

/// The error for a checkpoint that another process is about to delete.
pub(super) fn busy(engine: &dyn Engine, id: CheckpointId) -> Error {
    Error::new(ErrorKind::Busy, "is being deleted by another process")
        .in_object(engine.describe(&id.key()))
        .help(format!(
            "try again; if that process is dead, delete the object {ATTEMPTS}/*.deletes.{id} first"
        ))
}
