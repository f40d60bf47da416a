//! Deletion of checkpoints: the one place that deletes them, for rotation in both tiers, `delete`
//! and `gc`.
//!
//! # The protocol
//! 1. **Mark**: for each checkpoint an object `attempts/<maker>.deletes.<name>`.
//! 2. **Look**: at the pins, then at `attempts/`. Whoever is not the run's writer any more takes
//!    all marks back. A checkpoint that was pinned, or that the newest writer goes on from, loses
//!    its mark and stays.
//! 3. **Delete** the checkpoints that are left.
//! 4. **Take the marks back**, and the mark of damage with a checkpoint that had one.
//!
//! # Why nothing is deleted that somebody was told is safe
//! Everybody who relies on a checkpoint writes first and looks afterwards, as the deleter does, so
//! that of the two at least one sees the other. This needs no lock and no clock, only that objects
//! are created atomically and that a listing has everything that was committed before it.
//! * **A pin** creates its object, then lists `attempts/`. Either the pin was there before the
//!   deleter looked: the checkpoint stays. Or the mark was there before the pin looked: the pin
//!   fails with `Busy`, and says so.
//! * **A resume** marks the checkpoint that it goes on from, then lists `attempts/`: the same two
//!   cases. A checkpoint that is being deleted is not gone on from unless nothing else verifies.
//! * **A newer writer** takes its attempt before it lists any checkpoint. A deleter that looks
//!   behind that withdraws; one that looked before had its marks there for the newer writer to see.
//! * **A zombie** that stood still between looking and deleting deletes only what was marked before
//!   it looked: what nobody relies on, by the three cases above.
//! * **A deleter whose run was removed, replaced or restored** finds another attempt's object, or
//!   none, where its own was, and withdraws.
//! * **A kill** between two steps leaves marks, and checkpoints that are whole or gone. The next
//!   writer takes back the marks of what is gone and, under the lock, those of processes that it
//!   can see to be dead. A maker that may only stand still keeps its marks: such a checkpoint
//!   cannot be pinned or gone back to until a rotation or `gc` has deleted it. It is still tried,
//!   last, by a resume.
//! * **A promotion under way** is given up before `delete` deletes; see `tiers/upward.rs`.
//! * **A power cut** ends all of them. Marks need not survive it, so they cost no fsync.
//!
//! A deletion that fails may still happen later (a request that was delayed by the network): its
//! mark stays.

use super::attempt::{Attempt, Writer};
use super::look::{Board, Look};
use super::naming::{
    ATTEMPTS, CheckpointId, DAMAGED, PINS, attempt_key, damaged_mark_key, deletes_key, resumed_key,
};
use crate::clock;
use crate::engine::{Engine, fresh_nonce};
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeSet;
use std::time::Duration;

/// What the marks of tools begin with; then the process.
const TOOL: &str = "tool-";

/// Who deletes.
#[derive(Clone, Copy, Debug)]
pub(super) enum By<'a> {
    /// The run's writer.
    Writer(&'a Attempt),
    /// A tool, under the lock where there is one. It takes no attempt, which would fence a writer
    /// beside it, but withdraws when one is taken after it has begun.
    Tool { maker: &'a str, newest: u32 },
}

impl By<'_> {
    fn maker(self) -> String {
        match self {
            Self::Writer(attempt) => attempt.maker(),
            Self::Tool { maker, .. } => maker.to_owned(),
        }
    }

    /// What the run's folders say behind these marks, as long as nobody has taken over.
    fn look(self, engine: &dyn Engine, marks: Vec<String>) -> Result<Look> {
        const FOLDERS: [&str; 3] = [PINS, ATTEMPTS, DAMAGED];
        let newest = match self {
            Self::Writer(attempt) => return attempt.look(engine, &FOLDERS, marks),
            Self::Tool { newest, .. } => newest,
        };
        let look = Look::behind(engine, &FOLDERS, &marks)?;
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

/// What became of the checkpoints that were to be deleted. One that was gone already is in none of
/// these.
#[derive(Debug, Default)]
pub(super) struct Deleted {
    pub deleted: Vec<CheckpointId>,
    /// Pinned, or gone on from, since they were chosen.
    pub spared: Vec<CheckpointId>,
    pub failed: Vec<(CheckpointId, Error)>,
}

/// Deletes checkpoints by the protocol. Each deletion is durable when this returns.
///
/// # Errors
/// `Fenced`, and what listing says: then nothing was deleted.
pub(super) fn delete(engine: &dyn Engine, by: By<'_>, names: &[CheckpointId]) -> Result<Deleted> {
    let (maker, mut done) = (by.maker(), Deleted::default());
    let (mut marked, mut marks) = (Vec::new(), Vec::new());
    for &name in names {
        let mark = deletes_key(&maker, name);
        match engine.mark(&mark) {
            // A disk so full that it has no place for the name of an empty file must be emptied all
            // the same. What is left is a look right before the deletion.
            Err(error) if error.kind() == ErrorKind::NoSpace => {}
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                done.failed.push((name, error));
                continue;
            }
            // There already: left by a deletion of ours that failed.
            _ => marks.push(mark),
        }
        marked.push(name);
    }
    if marked.is_empty() {
        return Ok(done);
    }
    let take_back = |name| drop(engine.unmark(&deletes_key(&maker, name)));
    let look = match by.look(engine, marks) {
        Ok(look) => look,
        Err(error) => {
            marked.into_iter().for_each(take_back);
            return Err(error);
        }
    };
    let (pins, board, damaged) = (look.pins(), look.board(), look.damaged());
    for name in marked {
        if pins.contains(&*name.pin_key()) || board.is_resumed_from(name) {
            done.spared.push(name);
            take_back(name);
            continue;
        }
        match engine.delete(&name.key()) {
            Ok(()) => done.deleted.push(name),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                done.failed.push((name, error));
                continue;
            }
        }
        take_back(name);
        let mark = damaged_mark_key(name);
        if damaged.contains(&*mark) {
            let _ = engine.delete(&mark);
        }
        // Left by makers that were killed: there is nothing more to delete.
        for (other, _) in board.deletes.iter().filter(|(other, there)| *there == name && *other != maker) {
            let _ = engine.unmark(&deletes_key(other, name));
        }
    }
    Ok(done)
}

/// Keys of all pins.
pub(super) fn pins(engine: &dyn Engine) -> Result<BTreeSet<String>> {
    Ok(engine.list(PINS)?.into_iter().map(|entry| entry.key).collect())
}

/// What a new writer knows when it takes back the marks of earlier ones.
pub(super) struct Inherited<'a> {
    pub board: &'a Board,
    pub attempt: u32,
    pub writer: &'a Writer,
    /// Whether the writer's lock is held: no tool and no writer that keeps to it is at work.
    pub is_locked: bool,
}

/// Takes back what earlier attempts left: objects of attempts that are superfluous, marks of what
/// they went on from, marks of deletion that are done and, under the lock, those whose maker is
/// dead. A lock alone does not say that: its file may have been removed while its holder stood
/// still. What stays is in the way of a pin and of going back to that checkpoint, and of nothing
/// else.
pub(super) fn clear_marks(engine: &dyn Engine, inherited: &Inherited<'_>) {
    let board = inherited.board;
    for attempt in board.superfluous() {
        // What follows on one that is there stays.
        if engine.unmark(&attempt_key(attempt)).is_err() {
            break;
        }
    }
    for &(older, name) in board.resumed.iter().filter(|(older, _)| *older < inherited.attempt) {
        let _ = engine.unmark(&resumed_key(older, name));
    }
    for (maker, name) in &board.deletes {
        // Asked behind the listing of the mark: no name comes back.
        let gone = engine.open(&name.key()).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if gone || (inherited.is_locked && is_dead(engine, maker, inherited.writer)) {
            let _ = engine.unmark(&deletes_key(maker, *name));
        }
    }
}

/// Whether the maker of a mark is dead for certain: a process of this host that is not there any
/// more.
fn is_dead(engine: &dyn Engine, maker: &str, writer: &Writer) -> bool {
    let pid = match (maker.parse::<u32>(), maker.strip_prefix(TOOL)) {
        (Ok(attempt), _) => Writer::read(engine, attempt)
            .ok()
            .filter(|there| there.host == writer.host)
            .map(|there| there.pid),
        (_, Some(tool)) => tool.split('-').next().and_then(|pid| pid.parse().ok()),
        _ => None,
    };
    pid.and_then(|pid| rustix::process::Pid::from_raw(pid.try_into().ok()?))
        .is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

/// A name for the marks of this process as a tool.
pub(super) fn tool_maker() -> String {
    format!("{TOOL}{}-{:032x}", std::process::id(), u128::from_be_bytes(fresh_nonce()))
}

/// Whether a checkpoint, which has this pin, is still being deleted after a moment of patience: a
/// deleter that lives is done, or has withdrawn, within milliseconds.
pub(super) fn is_being_deleted(engine: &dyn Engine, name: CheckpointId, pin: &str) -> Result<bool> {
    const PAUSES: u32 = 20;
    for pause in 0..PAUSES {
        let look = Look::behind(engine, &[PINS, ATTEMPTS], &[pin.to_owned()])?;
        if !look.board().is_being_deleted(name) {
            return Ok(false);
        }
        if clock::is_scripted() {
            break;
        }
        clock::pause(Duration::from_millis(10 + 5 * u64::from(pause)));
    }
    Ok(true)
}

/// What is said of a checkpoint that somebody is about to delete.
pub(super) fn busy(engine: &dyn Engine, name: CheckpointId) -> Error {
    Error::new(ErrorKind::Busy, "is being deleted by another process")
        .in_object(engine.describe(&name.key()))
        .help(format!(
            "try again; if that process is dead, delete the object {ATTEMPTS}/*.deletes.{name} first"
        ))
}
