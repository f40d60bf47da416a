//! Every collective keeps the contract; and ranks that are connected by their run's storage alone.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tensorkeep::engine::{Engine, Local, Memory};
use tensorkeep::layout::Layout;
use tensorkeep::ranks::{Collective, Tcp, ThroughStore};
use tensorkeep::testing::collective_suite::{self, Member};
use tensorkeep::{Error, ErrorKind, Progress, Reader, Result, Snapshot, Store, StoreOptions};
use test_support::TempFolder;

fn by(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

fn on(engine: &Arc<dyn Engine>, Member { job, rank, world }: Member<'_>) -> Result<Arc<dyn Collective>> {
    Ok(Arc::new(ThroughStore::join(Arc::clone(engine), rank, world, job, by(20))?))
}

/// The number of files in a folder and in those below it.
fn files_in(folder: &Path) -> usize {
    let count = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        if path.is_dir() { files_in(&path) } else { 1 }
    };
    std::fs::read_dir(folder).unwrap().map(count).sum()
}

#[test]
fn tcp_keeps_the_contract() -> Result<()> {
    let listeners: Mutex<HashMap<String, (Arc<TcpListener>, SocketAddr)>> = Mutex::default();
    collective_suite::run(&|Member { job, rank, world }| {
        let (listener, address) = listeners
            .lock()
            .unwrap()
            .entry(job.to_owned())
            .or_insert_with(|| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                (Arc::new(listener), address)
            })
            .clone();
        Ok(Arc::new(match rank {
            0 => Tcp::listen(&listener, world, job, by(20))?,
            _ => Tcp::connect(address, rank, world, job, by(20))?,
        }))
    })
}

#[test]
fn a_store_in_memory_keeps_the_contract() -> Result<()> {
    let engine: Arc<dyn Engine> = Arc::new(Memory::new());
    collective_suite::run(&|member| on(&engine, member))
}

#[test]
fn a_folder_keeps_the_contract() -> Result<()> {
    let folder = TempFolder::in_memory("collectives");
    let engine: Arc<dyn Engine> = Arc::new(Local::create(folder.path())?);
    collective_suite::run(&|member| on(&engine, member))
}

/// The errors of these processes that join at once: rank, world, name of the start.
fn errors(engine: &Memory, processes: &[(u32, u32, &str)]) -> Vec<Option<Error>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = processes
            .iter()
            .map(|&(rank, world, job)| {
                scope.spawn(move || ThroughStore::join(engine.clone(), rank, world, job, by(2)).err())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn a_rank_is_played_by_one_process() {
    let engine = Memory::new();
    for (what, processes) in [
        ("two are rank 1", vec![(0, 3, "twice"), (1, 3, "twice"), (1, 3, "twice")]),
        ("two are rank 0", vec![(0, 2, "roots"), (0, 2, "roots"), (1, 2, "roots")]),
        ("another world", vec![(0, 2, "worlds"), (1, 3, "worlds")]),
    ] {
        let errors = errors(&engine, &processes);
        let fenced = |error: &Error| error.kind() == ErrorKind::Fenced;
        // Of two that say they are rank 0, one may have begun with rank 1.
        let least = if what == "two are rank 0" { 1 } else { processes.len() };
        let count = errors.iter().flatten().filter(|error| fenced(error)).count();
        assert!(count >= least, "{what}: {errors:?}");
        assert!(errors.iter().flatten().all(fenced), "{what}: {errors:?}");
    }
    // The name of a start that has begun or was refused is not used again.
    for job in ["twice", "roots"] {
        let errors = errors(&engine, &[(0, 2, job), (1, 2, job)]);
        assert!(errors.iter().all(Option::is_some), "{errors:?}");
    }
}

#[test]
fn who_is_missing_is_named_and_bad_names_are_refused() {
    let errors = errors(&Memory::new(), &[(0, 4, "job"), (2, 4, "job")]);
    for error in errors {
        let error = error.expect("ranks 1 and 3 are missing");
        assert!(error.kind() == ErrorKind::Io && error.to_string().contains("rank 1, 3"), "{error}");
    }
    for (rank, world, job) in
        [(0, 0, "job"), (2, 2, "job"), (0, 1025, "job"), (0, 2, ""), (0, 2, "a/b"), (0, 2, "a.b")]
    {
        let error = ThroughStore::join(Memory::new(), rank, world, job, by(1)).err().expect("it is refused");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let long = "j".repeat(65);
    assert!(ThroughStore::join(Memory::new(), 0, 1, &long, by(1)).is_err());
}

#[test]
fn a_process_of_an_earlier_start_neither_hears_nor_is_heard() {
    let engine = Memory::new();
    let join = |rank, job| ThroughStore::join(engine.clone(), rank, 2, job, by(20)).unwrap();
    let start = |job| {
        std::thread::scope(|scope| {
            let other = scope.spawn(move || join(1, job));
            (join(0, job), other.join().unwrap())
        })
    };
    let (_, zombie) = start("first");
    let (root, other) = start("second");
    zombie.gather(b"old", by(5)).unwrap();
    other.gather(b"new", by(5)).unwrap();
    assert_eq!(root.gather(b"root", by(5)).unwrap().unwrap(), [&b"root"[..], b"new"]);
    root.broadcast(Some(b"go on"), by(5)).unwrap();
    assert_eq!(other.broadcast(None, by(5)).unwrap(), b"go on");
    assert!(zombie.broadcast(None, Instant::now() + Duration::from_millis(300)).is_err());
}

#[test]
fn messages_that_were_heard_are_deleted() {
    let folder = TempFolder::in_memory("collectives");
    let rank = |rank| {
        let ranks = ThroughStore::join(folder.path(), rank, 3, "job", by(20)).unwrap();
        for round in 0..100_u8 {
            let bytes = vec![round; 100 * usize::from(round % 2)];
            let heard = ranks.gather(&bytes, by(20)).unwrap();
            ranks.broadcast(heard.map(|_| &bytes[..]), by(20)).unwrap();
        }
    };
    std::thread::scope(|scope| (0..3).for_each(|number| drop(scope.spawn(move || rank(number)))));
    let left = files_in(&folder.path().join("ranks"));
    assert!(left < 10, "{left} files");
}

#[test]
fn a_job_without_a_network_saves_and_resumes() -> Result<()> {
    let folder = TempFolder::in_memory("collectives");
    let run = folder.path();
    let life = |job: &'static str, rank: u32, step: u64| -> Result<Option<u64>> {
        let ranks = ThroughStore::join(run, rank, 2, job, by(30))?;
        let store = Store::open_ranks(run, ranks, StoreOptions::new())?;
        let from = store.resume()?.id.map(|id| id.step);
        let layout = Layout::sharded(0, 2)?;
        let rows = [rank as f32; 6];
        let snapshot = Snapshot::new().sharded("momentum", ([2, 3], &rows), &[4, 3], &layout)?;
        store.save(&snapshot.clone().progress(Progress::new(step)))?;
        // In the background, over the second connection.
        let saving = store.stage(&snapshot.progress(Progress::new(step + 1)))?;
        saving.expect("no save is left out").wait().expect("it is saved");
        store.close()?;
        Ok(from)
    };
    for (job, step, expected) in [("first", 10, None), ("second", 20, Some(11))] {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| life(job, 1, step));
            assert_eq!(life(job, 0, step)?, expected);
            assert_eq!(other.join().unwrap()?, expected);
            Ok::<(), Error>(())
        })?;
    }
    let checkpoint = Reader::open(run)?.checkpoint(21)?;
    checkpoint.verify()?;
    assert_eq!(checkpoint.tensor("momentum")?.elements::<f32>()?[5..7], [0.0, 1.0]);
    Ok(())
}
