//! Ranks of a job that hear what nobody said: each message of a job of two ranks as it was sent,
//! but one.

use crate::put;
use crate::ranks::job;
use arbitrary::{Arbitrary, Unstructured};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};
use tensorkeep::engine::{Engine, Memory};
use tensorkeep::layout::Layout;
use tensorkeep::ranks::{AnotherWorld, Collective, Tcp};
use tensorkeep::{Error, ErrorKind, Progress, Reader, Result, Snapshot, Store, StoreOptions};

/// What an honest job says, and what it leaves.
struct Honest {
    /// By the rank that hears it, in order.
    heard: [Vec<Vec<u8>>; 2],
    /// The objects that are there before any rank saves.
    opened: Vec<(String, Vec<u8>)>,
}

static HONEST: LazyLock<Honest> = LazyLock::new(|| {
    let heard: [Arc<Mutex<Vec<Vec<u8>>>>; 2] = Default::default();
    let run = Memory::new();
    job(2, |ranks| {
        let rank = ranks.rank();
        let to = Arc::clone(&heard[1 - rank as usize]);
        live(run.clone(), rank, Recorder { ranks, to }).unwrap();
    });
    let opened = ["RUN", "attempts/0001"].into_iter();
    let opened = opened.filter_map(|key| Some((key.to_owned(), bytes_of(&run, key)?)));
    Honest { opened: opened.collect(), heard: heard.map(|heard| heard.lock().unwrap().clone()) }
});

fn bytes_of(engine: &Memory, key: &str) -> Option<Vec<u8>> {
    let blob = engine.open(key).ok()?;
    let mut bytes = vec![0; blob.len() as usize];
    blob.read_at(0, &mut bytes).ok()?;
    Some(bytes)
}

/// Resumes, asks whether to save, saves.
fn live(run: Memory, rank: u32, ranks: impl Collective + 'static) -> Result<()> {
    let options = StoreOptions::new().rank_deadline(Duration::from_secs(20)).least_shard_bytes(0);
    let store = Store::open_ranks(run, ranks, options)?;
    store.resume()?;
    let progress = Progress::new(3);
    store.due(&progress);
    let (rows, all) = ([rank as f32; 6], [0.5_f32; 9]);
    let (layout, boxes) = (Layout::sharded(0, 2)?, [1_u8; 3]);
    let snapshot = Snapshot::new()
        .sharded("rows", ([2, 3], &rows), &[4, 3], &layout)?
        .flat("flat", &boxes, &[2, 3], u64::from(rank) * 3..u64::from(rank) * 3 + 3)?
        .tensor("all", &all)?
        .rank_record("rng", &rank, AnotherWorld::Modulo)?;
    store.save(&snapshot.progress(progress))?;
    store.close()
}

/// Records what the other rank hears.
struct Recorder {
    ranks: Tcp,
    to: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collective for Recorder {
    fn rank(&self) -> u32 {
        self.ranks.rank()
    }

    fn world(&self) -> u32 {
        self.ranks.world()
    }

    fn gather(&self, bytes: &[u8], deadline: Instant) -> Result<Option<Vec<Vec<u8>>>> {
        if self.rank() != 0 {
            self.to.lock().unwrap().push(bytes.to_vec());
        }
        self.ranks.gather(bytes, deadline)
    }

    fn broadcast(&self, bytes: Option<&[u8]>, deadline: Instant) -> Result<Vec<u8>> {
        self.to.lock().unwrap().extend(bytes.map(<[u8]>::to_vec));
        self.ranks.broadcast(bytes, deadline)
    }
}

/// Which message is not as it was sent.
#[derive(Arbitrary, Debug)]
struct Lie {
    rank: bool,
    message: u8,
    edit: Edit,
}

#[derive(Arbitrary, Debug)]
enum Edit {
    /// Other bytes.
    Whole(Vec<u8>),
    /// Some bytes are others, and some are left out or come in between.
    Bytes(Vec<(u16, u8, Change)>),
}

#[derive(Arbitrary, Debug)]
enum Change {
    Set,
    Insert,
    Remove,
    Cut,
}

impl Edit {
    fn apply(&self, mut message: Vec<u8>) -> Vec<u8> {
        let edits = match self {
            Self::Whole(bytes) => return bytes.clone(),
            Self::Bytes(edits) => edits,
        };
        for (at, byte, change) in edits {
            let at = usize::from(*at) % (message.len() + 1);
            match change {
                Change::Insert => message.insert(at, *byte),
                Change::Cut => message.truncate(at),
                Change::Set if at < message.len() => message[at] = *byte,
                Change::Remove if at < message.len() => drop(message.remove(at)),
                Change::Set | Change::Remove => {}
            }
        }
        message
    }
}

/// A rank's connection that says nothing to anybody, and hears a lie.
struct Liar {
    lie: Lie,
    heard: AtomicUsize,
}

impl Liar {
    fn hear(&self) -> Result<Vec<u8>> {
        let number = self.heard.fetch_add(1, Ordering::Relaxed);
        let honest = &HONEST.heard[self.rank() as usize];
        let message =
            honest.get(number).cloned().ok_or_else(|| Error::new(ErrorKind::Io, "no more messages"))?;
        let is_lie = usize::from(self.lie.message) % honest.len() == number;
        Ok(if is_lie { self.lie.edit.apply(message) } else { message })
    }
}

impl Collective for Liar {
    fn rank(&self) -> u32 {
        u32::from(self.lie.rank)
    }

    fn world(&self) -> u32 {
        2
    }

    fn gather(&self, bytes: &[u8], _: Instant) -> Result<Option<Vec<Vec<u8>>>> {
        if self.lie.rank {
            return Ok(None);
        }
        Ok(Some(vec![bytes.to_vec(), self.hear()?]))
    }

    fn broadcast(&self, bytes: Option<&[u8]>, _: Instant) -> Result<Vec<u8>> {
        bytes.map_or_else(|| self.hear(), |bytes| Ok(bytes.to_vec()))
    }
}

/// A rank that hears a lie saves, or fails with an error; what is listed afterwards can be opened.
pub fn messages(input: &[u8]) {
    let Ok(lie) = Lie::arbitrary_take_rest(Unstructured::new(input)) else { return };
    let run = Memory::new();
    let rank = u32::from(lie.rank);
    if lie.rank {
        HONEST.opened.iter().for_each(|(key, bytes)| put(&run, key, bytes));
    }
    if let Err(error) = live(run.clone(), rank, Liar { lie, heard: AtomicUsize::new(0) }) {
        drop(format!("{error}{error:?}"));
    }
    let reader = Reader::new(run);
    for id in reader.ids().unwrap() {
        let checkpoint = reader.checkpoint_by_id(id).unwrap();
        // Its shards may not be there: rank 0 believes what it hears of them.
        let _ = checkpoint.verify();
    }
}
