//! Processes that act on a run beside its writer: they pin, unpin, delete and clean up; and a
//! trainer whose metric is not a number.

use super::{Program, open, resumes, save};
use crate::checkpoint::OpenOptions;
use crate::snapshot::Progress;
use crate::store::{CheckpointId, Every, Keep, Mode, Reader, Store, StoreOptions};
use crate::testing::protocol::calls::Event;

/// Pins a checkpoint, as the command line does: without the lock and without an attempt.
pub fn pins(id: CheckpointId) -> Program {
    Program::new("pins", move |engine, say| {
        id.pin(&*engine)?;
        say(Event::Pinned(id));
        Ok(())
    })
    .pinning()
}

/// Removes a pin, as the command line does.
pub fn unpins(id: CheckpointId) -> Program {
    Program::new("unpins", move |engine, say| {
        say(Event::Unpinning(id));
        id.unpin(&*engine)
    })
    .pinning()
}

/// As [`writer`](super::writer), but pins a step before it saves this many.
pub fn writer_that_pins(id: CheckpointId, saves: u64) -> Program {
    Program::new("writer that pins", move |engine, say| {
        let (store, done) = resumes(engine, Keep::last(1), say)?;
        match store.pin(id.step) {
            Ok(()) => say(Event::Pinned(id)),
            Err(error) => say(Event::Failed(error.kind())),
        }
        save(&store, done, saves, say)
    })
    .pinning()
}

/// Opens the run and deletes these checkpoints, one after the other.
pub fn deletes(ids: Vec<CheckpointId>) -> Program {
    Program::new("deletes", move |engine, say| {
        let store = open(engine, Keep::all(), say)?;
        for &id in &ids {
            say(Event::Deleting(id));
            match store.delete(id.step) {
                Ok(()) => say(Event::Deleted(id)),
                Err(error) => say(Event::Failed(error.kind())),
            }
        }
        Ok(())
    })
}

/// Deletes the checkpoints that a policy of the newest `last` does not protect, as the command line
/// does: under the lock if there is one, without an attempt, and only after verifying every byte of
/// those that stay.
pub fn collects(last: usize) -> Program {
    Program::new("gc", move |engine, say| {
        let reader = Reader::on(engine, OpenOptions::new(), None);
        let _lock = reader.lock_for("gc")?;
        say(Event::Collecting);
        reader.plan_deletion(&Keep::last(last), 0, |_| true)?.delete()?;
        Ok(())
    })
}

/// A trainer whose loss is NaN at first, and then a good one.
pub fn logs_nan() -> Program {
    Program::new("trainer whose loss is NaN once", move |engine, say| {
        let keep = Keep::last(9).or(Keep::best("loss", Mode::Min, 1));
        let settings = StoreOptions::new().keep(keep).save(Every::on_best("loss", Mode::Min));
        let store = Store::open(engine, settings)?;
        say(Event::Opened(store.attempt()));
        let resumed = store.resume()?;
        say(Event::Resumed(resumed.id));
        for (step, loss) in (resumed.next_step()..).zip([f64::NAN, f64::NEG_INFINITY, 0.5]) {
            store.observe("loss", loss);
            if loss.is_finite() && store.due(&Progress::new(step + 1)).is_none() {
                say(Event::BestIsNotDue);
            }
            save(&store, step, 1, say)?;
        }
        Ok(())
    })
}
