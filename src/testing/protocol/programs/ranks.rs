//! The ranks of a job: each is a process of its own, and together they save one checkpoint.

use super::{Program, WEIGHTS, went_back};
use crate::checkpoint::OpenOptions;
use crate::engine::{Engine, Entry};
use crate::error::{ErrorKind, NoneIf, Result};
use crate::layout::Layout;
use crate::snapshot::{Progress, Snapshot};
use crate::store::{CheckpointId, Keep, Reader, Store, StoreOptions};
use crate::testing::protocol::WrongProtocol;
use crate::testing::protocol::calls::{Event, Place};
use crate::testing::protocol::machine::Machine;

/// One rank of one start of a job.
#[derive(Clone, Copy, Debug)]
pub struct Rank {
    /// The start: ranks of equal jobs hear each other.
    pub job: &'static str,
    /// Its number.
    pub rank: u32,
    /// How many there are.
    pub world: u32,
}

/// All ranks of a job of two; each opens the run, resumes, saves this many steps, and keeps the
/// newest `last`.
pub fn job(job: &'static str, saves: u64, last: usize) -> Vec<Program> {
    ranks(job, move |machine, rank, say| {
        let store = open(machine, rank, last, say)?;
        let done = resumes(machine, rank, &store, say)?;
        save(machine, rank, &store, (done, saves), say)
    })
}

/// As [`job`], but goes back to `step` instead of resuming from the newest.
pub fn job_that_goes_back(job: &'static str, step: u64, saves: u64) -> Vec<Program> {
    ranks(job, move |machine, rank, say| {
        let store = open(machine, rank, 1, say)?;
        went_back(&store, step, say)?;
        save(machine, rank, &store, (step, saves), say)
    })
}

const WORLD: u32 = 2;
const PLACE: Place = "";

fn ranks(
    job: &'static str,
    run: impl Fn(&Machine, Rank, &dyn Fn(Event)) -> Result<()> + Clone + Send + Sync + 'static,
) -> Vec<Program> {
    let rank = |rank| {
        let (of, run) = (Rank { job, rank, world: WORLD }, run.clone());
        Program {
            rank: Some(of),
            ..Program::on("rank", vec![PLACE], move |machine, say| run(machine, of, say))
        }
    };
    (0..WORLD).map(rank).collect()
}

fn open(
    machine: &Machine,
    Rank { job, rank, world }: Rank,
    last: usize,
    say: &dyn Fn(Event),
) -> Result<Store> {
    let options = StoreOptions::new().keep(Keep::last(last));
    let store = Store::open_ranks(machine.at(PLACE), machine.ranks(job, rank, world), options)?;
    say(Event::Opened(store.attempt()));
    if rank == 0 && machine.does(WrongProtocol::SweepsAtOpen) {
        sweep(&*machine.at(PLACE), store.attempt())?;
    }
    Ok(store)
}

fn resumes(machine: &Machine, Rank { rank, .. }: Rank, store: &Store, say: &dyn Fn(Event)) -> Result<u64> {
    let resumed = store.resume()?;
    let chosen = if rank > 0 && machine.does(WrongProtocol::RanksChoose) {
        Reader::on(machine.at(PLACE), OpenOptions::new(), None).ids()?.into_iter().max()
    } else {
        resumed.id
    };
    say(Event::Resumed(chosen));
    Ok(resumed.next_step())
}

fn save(
    machine: &Machine,
    Rank { rank, world, .. }: Rank,
    store: &Store,
    (done, saves): (u64, u64),
    say: &dyn Fn(Event),
) -> Result<()> {
    let cut = WEIGHTS.len() / world as usize;
    let layout = Layout::sharded(0, world)?;
    for step in done + 1..=done + saves {
        say(Event::Saving);
        let own = &WEIGHTS[cut * rank as usize..][..cut];
        let snapshot = Snapshot::new().sharded("weights", own, &[WEIGHTS.len() as u64], &layout)?;
        let id = CheckpointId { attempt: store.attempt(), step };
        let own_is_ok = rank > 0 && machine.does(WrongProtocol::OwnShardIsOk);
        let takes_for_ok = |kind| match kind {
            ErrorKind::Unknown => own_is_ok || machine.does(WrongProtocol::UnknownIsOk),
            ErrorKind::Io => own_is_ok,
            _ => false,
        };
        match store.save(&snapshot.progress(Progress::new(step))) {
            Ok(saved) => say(Event::Saved(saved.id)),
            Err(error) if takes_for_ok(error.kind()) => say(Event::Saved(id)),
            // A connection that has failed does not come back.
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Hides and deletes saves of older attempts that have shards and no manifest, as it would be right
/// behind an own commit.
fn sweep(engine: &dyn Engine, attempt: u32) -> Result<()> {
    let id_of = |entry: &Entry| {
        let name = entry.key.rsplit('/').next()?;
        name.get(.."0001-0000000001".len())?.parse::<CheckpointId>().ok()
    };
    let shards = engine.list_each(&["shards/0", "shards/1"])?.concat();
    let manifests = engine.list("")?;
    let is_orphan = |id: CheckpointId, manifests: &[Entry]| {
        id.attempt < attempt && !manifests.iter().any(|manifest| id_of(manifest) == Some(id))
    };
    for id in shards.iter().filter_map(id_of).filter(|id| is_orphan(*id, &manifests)) {
        engine.mark(&format!("damaged/{id}.hidden.{attempt:04}")).none_if(|_| true)?;
    }
    let behind = engine.list("")?;
    let left = shards.iter().filter(|shard| id_of(shard).is_some_and(|id| is_orphan(id, &behind)));
    left.into_iter().try_for_each(|shard| engine.delete(&shard.key).none_if(|_| true).map(drop))
}
