//! Processes that act on a run beside its writer: they pin, unpin, delete and clean up; and a
//! trainer with a metric that is no number.

use super::{Event, Program, open, resumes, save};
use crate::checkpoint::OpenOptions;
use crate::snapshot::Progress;
use crate::store::{CheckpointId, Every, Keep, Mode, Reader, Store, StoreOptions};

/// Pins a checkpoint, as the command line does: without the lock and without an attempt.
pub fn pins(name: CheckpointId) -> Program {
    Program::new("pins", move |engine, say| {
        name.pin(&*engine)?;
        say(Event::Pinned(name));
        Ok(())
    })
    .pinning()
}

/// Takes a pin away, as the command line does.
pub fn unpins(name: CheckpointId) -> Program {
    Program::new("unpins", move |engine, say| {
        say(Event::Unpinning(name));
        name.unpin(&*engine)
    })
    .pinning()
}

/// As [`writer`](super::writer), but pins a step before it saves so many.
pub fn writer_that_pins(name: CheckpointId, saves: u64) -> Program {
    Program::new("writer that pins", move |engine, say| {
        let (store, done) = resumes(engine, Keep::last(1), say)?;
        match store.pin(name.step) {
            Ok(()) => say(Event::Pinned(name)),
            Err(error) => say(Event::Failed(error.kind())),
        }
        save(&store, done, saves, say)
    })
    .pinning()
}

/// Opens the run and deletes these checkpoints, one after the other.
pub fn deletes(names: Vec<CheckpointId>) -> Program {
    Program::new("deletes", move |engine, say| {
        let store = open(engine, Keep::all(), say)?;
        for &name in &names {
            say(Event::Deleting(name));
            match store.delete(name.step) {
                Ok(()) => say(Event::Deleted(name)),
                Err(error) => say(Event::Failed(error.kind())),
            }
        }
        Ok(())
    })
}

/// Deletes what a policy of the newest so many does not protect, as the command line does: under
/// the lock where there is one, without an attempt, and only behind a look at every byte of what
/// stays.
pub fn collects(last: usize) -> Program {
    Program::new("gc", move |engine, say| {
        let reader = Reader::on(engine, OpenOptions::new(), None);
        let _lock = reader.lock_for("gc")?;
        say(Event::Collecting);
        reader.plan_deletion(&Keep::last(last), 0, |_| true)?.delete()?;
        Ok(())
    })
}

/// A trainer whose loss is no number at first, and then a good one.
pub fn logs_nan() -> Program {
    Program::new("trainer whose loss is NaN once", move |engine, say| {
        let keep = Keep::last(9).or(Keep::best("loss", Mode::Min, 1));
        let settings = StoreOptions::new().keep(keep).save(Every::on_best("loss", Mode::Min));
        let store = Store::open(engine, settings)?;
        say(Event::Opened(store.attempt()));
        let resumed = store.resume()?;
        say(Event::Resumed(resumed.name));
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
