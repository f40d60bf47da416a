//! Processes with two tiers. The promoting thread is called instead of started: a promotion takes
//! place between two of the process's calls, with the trainer's calls in between.

use super::{Program, save_step, went_back};
use crate::checkpoint::OpenOptions;
use crate::engine::{self, Blob, Engine, Entry, Upload};
use crate::error::Result;
use crate::store::{CheckpointId, Keep, Reader, Store, StoreOptions};
use crate::sync::lock;
use crate::testing::protocol::WrongProtocol;
use crate::testing::protocol::calls::{Event, Place, checkpoint_key};
use crate::testing::protocol::machine::Machine;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// The remote tier of all machines.
pub(in crate::testing::protocol) const REMOTE: Place = "remote";

/// A machine whose local tier is `local`: resumes, saves this many steps, promotes each, keeps the
/// newest of each tier.
pub fn tiered(local: Place, saves: u64) -> Program {
    tiered_keeping(local, saves, 1)
}

/// As [`tiered`], but keeps the newest `last` of each tier.
pub fn tiered_keeping(local: Place, saves: u64, last: usize) -> Program {
    Program::on("writer of two tiers", vec![local, REMOTE], move |machine, say| {
        let store = open(machine.at(local), machine.at(REMOTE), last, say)?;
        let resumed = store.resume()?;
        say(Event::Resumed(resumed.id));
        save_and_promote(&store, resumed.next_step(), saves, say)
    })
}

/// As [`tiered`], but goes back to `step`, and keeps everything.
pub fn goes_back_on(local: Place, step: u64, saves: u64) -> Program {
    Program::on("writer of two tiers that goes back", vec![local, REMOTE], move |machine, say| {
        let store = open(machine.at(local), machine.at(REMOTE), 9, say)?;
        went_back(&store, step, say)?;
        save_and_promote(&store, step, saves, say)
    })
}

/// Opens two tiers and promotes what an earlier process left, saving nothing.
pub fn promotes(local: Place) -> Program {
    tiered_keeping(local, 0, 9)
}

/// Saves a step and promotes it; before one of the calls to the remote tier the trainer deletes
/// that step.
pub fn deletes_while_promoting(local: Place) -> Program {
    Program::on("writer of two tiers that deletes", vec![local, REMOTE], move |machine, say| {
        let moment = Moment::default();
        let remote = Interrupted { inner: machine.at(REMOTE), moment: moment.clone() };
        let store = Arc::new(open(machine.at(local), Arc::new(remote), 9, say)?);
        let resumed = store.resume()?;
        say(Event::Resumed(resumed.id));
        let Some(id) = save_step(&store, resumed.next_step() + 1, say)? else { return Ok(()) };
        let deletion = Deletion {
            id,
            trainer: Arc::downgrade(&store),
            machine: machine.clone(),
            local,
            waits: Arc::default(),
        };
        let begins = deletion.clone();
        moment.comes_before(machine.choose(MOMENTS), move || begins.begin());
        promote(&store, None, say)?;
        deletion.end();
        Ok(())
    })
}

/// A deletion requested by the trainer while another thread of its process promotes.
#[derive(Clone)]
struct Deletion {
    id: CheckpointId,
    trainer: Weak<Store>,
    machine: Machine,
    local: Place,
    waits: Arc<AtomicBool>,
}

impl Deletion {
    /// Deletes at once, or begins to and waits for the promotion.
    fn begin(&self) {
        self.machine.say(Event::Deleting(self.id));
        let Some(store) = self.trainer.upgrade() else { return };
        if self.machine.does(WrongProtocol::PromotionIgnoresDelete) {
            let key = checkpoint_key("", self.id);
            for place in [self.local, REMOTE] {
                let _ = self.machine.at(place).delete(&key);
            }
            self.machine.say(Event::Deleted(self.id));
        } else if !store.would_wait_to_delete(self.id) {
            self.delete(&store);
        } else {
            self.waits.store(true, Ordering::Relaxed);
        }
    }

    /// Finishes a deletion that waited.
    fn end(&self) {
        if self.waits.load(Ordering::Relaxed)
            && let Some(store) = self.trainer.upgrade()
        {
            self.delete(&store);
        }
    }

    fn delete(&self, store: &Store) {
        match store.delete(self.id.step) {
            Ok(()) => self.machine.say(Event::Deleted(self.id)),
            Err(error) => self.machine.say(Event::Failed(error.kind())),
        }
    }
}

/// Copies a checkpoint to another place, as the command line and a resume do.
pub fn copies(id: CheckpointId, from: Place, to: Place) -> Program {
    Program::on("copies", vec![to], move |machine, _| {
        let [from, to] = [from, to].map(|place| Reader::on(machine.at(place), OpenOptions::new(), None));
        from.copy_to(id, &to, |_| ()).map(drop)
    })
}

/// How many calls to the remote tier one promotion makes, at least.
const MOMENTS: usize = 12;

type Act = Box<dyn FnOnce() + Send>;

/// An action before a given call, counted in calls.
#[derive(Clone, Default)]
struct Moment(Arc<Mutex<Option<(usize, Act)>>>);

impl Moment {
    fn comes_before(&self, call: usize, act: impl FnOnce() + Send + 'static) {
        *lock(&self.0) = Some((call, Box::new(act)));
    }

    fn tick(&self) {
        let act = match &mut *lock(&self.0) {
            Some((left, _)) if *left > 0 => {
                *left -= 1;
                None
            }
            now => now.take(),
        };
        // Its own calls to this engine come after.
        if let Some((_, act)) = act {
            act();
        }
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a moment")
    }
}

/// An engine with an action between two of its calls, in place of another thread of the process.
#[derive(Debug)]
struct Interrupted {
    inner: Arc<dyn Engine>,
    moment: Moment,
}

impl engine::Decorator for Interrupted {
    type Inner = dyn Engine;

    fn inner(&self) -> &(dyn Engine + 'static) {
        &*self.inner
    }

    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        self.moment.tick();
        Engine::create(&self.inner, key, size_hint)
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        self.moment.tick();
        Engine::open(&self.inner, key)
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        self.moment.tick();
        Engine::list(&self.inner, folder)
    }

    fn delete(&self, key: &str) -> Result<()> {
        self.moment.tick();
        Engine::delete(&self.inner, key)
    }
}

fn open(local: Arc<dyn Engine>, remote: Arc<dyn Engine>, last: usize, say: &dyn Fn(Event)) -> Result<Store> {
    let store =
        Store::open_tiered_without_promoter(local, remote, StoreOptions::new().keep(Keep::last(last)))?;
    say(Event::Opened(store.attempt()));
    Ok(store)
}

fn save_and_promote(store: &Store, done: u64, saves: u64, say: &dyn Fn(Event)) -> Result<()> {
    if saves == 0 {
        return promote(store, None, say);
    }
    for step in done + 1..=done + saves {
        let id = save_step(store, step, say)?;
        promote(store, id, say)?;
    }
    Ok(())
}

fn promote(store: &Store, newest: Option<CheckpointId>, say: &dyn Fn(Event)) -> Result<()> {
    say(Event::Promoting);
    store.promote_now()?;
    say(Event::Promoted(newest));
    Ok(())
}
