//! One rank of the job: data-parallel training, with the moments of Adam cut over the ranks. Each
//! event is a line on stdout for the parent.

use crate::Arguments;
use crate::state::{Model, SAVE_EVERY};
use lenet::{Rng, data};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tensorkeep::engine::{Decorator, Engine, Local, Upload};
use tensorkeep::ranks::{Collective, Tcp, ThroughStore};
use tensorkeep::{Error, Every, Keep, Progress, Result, Store, StoreOptions};
use tensorkeep_object_store::ObjectStoreEngine;

/// How long a rank waits for the others.
pub const PATIENCE: Duration = Duration::from_secs(5);

pub fn run(arguments: &Arguments) -> ExitCode {
    match train(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rank {}: {error:?}", arguments.number("--rank", 0));
            ExitCode::from(3)
        }
    }
}

fn say(words: &str) {
    let mut out = std::io::stdout().lock();
    // The parent is gone only when the proof is over.
    let _ = writeln!(out, "{words}").and_then(|()| out.flush());
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn connect(arguments: &Arguments) -> Result<Tcp> {
    let (rank, world) = (arguments.number("--rank", 0) as u32, arguments.number("--ranks", 1) as u32);
    let job = arguments.text("--job").unwrap_or_default();
    let by = Instant::now() + 2 * PATIENCE;
    if rank > 0 {
        let address: Option<SocketAddr> = arguments.text("--address").and_then(|text| text.parse().ok());
        let address =
            address.ok_or_else(|| Error::io("no address", std::io::ErrorKind::InvalidInput.into()))?;
        return Tcp::connect(address, rank, world, job, by);
    }
    let failed = |error| Error::io("listening for ranks", error);
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    say(&format!("listening {}", listener.local_addr().map_err(failed)?));
    Tcp::listen(&listener, world, job, by)
}

/// The place of the run, slowed down around the commits.
fn engine(place: &str, rng: Rng) -> Result<Slow> {
    let inner: Arc<dyn Engine> = match place.strip_prefix("s3:") {
        None => Arc::new(Local::create(place)?),
        Some(endpoint) => Arc::new(ObjectStoreEngine::from_url_with(
            "s3://bucket/runs/ranks",
            [
                ("endpoint", endpoint),
                ("allow_http", "true"),
                ("region", "us-east-1"),
                ("access_key_id", "key"),
                ("secret_access_key", "secret"),
            ],
        )?),
    };
    Ok(Slow { inner, rng: Arc::new(std::sync::Mutex::new(rng)) })
}

/// An engine that stands still before it creates: most kills then hit a save.
#[derive(Clone, Debug)]
struct Slow {
    inner: Arc<dyn Engine>,
    rng: Arc<std::sync::Mutex<Rng>>,
}

impl Decorator for Slow {
    type Inner = dyn Engine;

    fn inner(&self) -> &(dyn Engine + 'static) {
        &*self.inner
    }

    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        let below = |bound| self.rng.lock().map_or(0, |mut rng| rng.below(bound));
        let upload = self.inner().create(key, size_hint)?;
        std::thread::sleep(Duration::from_millis(below(if key.contains('/') { 20 } else { 60 })));
        Ok(upload)
    }

    fn delete(&self, key: &str) -> Result<()> {
        std::thread::sleep(Duration::from_millis(self.rng.lock().map_or(0, |mut rng| rng.below(8))));
        self.inner().delete(key)
    }

    fn list_each(&self, folders: &[&str]) -> Result<Vec<Vec<tensorkeep::engine::Entry>>> {
        self.inner().list_each(folders)
    }
}

fn train(arguments: &Arguments) -> Result<()> {
    let (seed, until) = (arguments.number("--seed", 0), arguments.number("--until", 0));
    let ranks = connect(arguments)?;
    let (rank, world) = (ranks.rank(), ranks.world());
    let training = ranks.split(soon())?;
    let engine = engine(arguments.text("--place").unwrap_or("."), Rng::new(u64::from(std::process::id())))?;
    let images = data::drawn(seed, 0..256)?;
    let options = StoreOptions::new()
        .save(Every::steps(SAVE_EVERY))
        .keep(if arguments.has("--save-at-once") { Keep::all() } else { Keep::last(2) })
        .rank_deadline(PATIENCE)
        .deadline(4 * PATIENCE)
        .least_shard_bytes(0);
    let store = if arguments.has("--through-store") {
        let job = arguments.text("--job").unwrap_or_default();
        let ranks = ThroughStore::join(engine.clone(), rank, world, job, Instant::now() + 2 * PATIENCE)?;
        Store::open_ranks(engine, ranks, options)?
    } else {
        Store::open_ranks(engine, ranks, options)?
    };
    let resumed = store.resume()?;
    let mut model = match &resumed.checkpoint {
        None => Model::new(seed, rank, world)?,
        Some(checkpoint) => Model::load(checkpoint, seed, rank, world)?,
    };
    say(&format!("resumed {} {}", resumed.next_step(), resumed.skipped.len()));
    if arguments.has("--save-at-once") {
        store.save(&model.snapshot()?.progress(Progress::new(resumed.next_step())))?;
    }
    for step in resumed.next_step()..until {
        model.step(&images, step, &*training, soon)?;
        let progress = Progress::new(step + 1);
        if store.due(&progress).is_some() || step + 1 == until {
            match store.save(&model.snapshot()?.progress(progress)) {
                Ok(saved) if saved.diverged.is_empty() => say(&format!("saved {}", step + 1)),
                Ok(saved) => say(&format!("diverged {:?}", saved.diverged)),
                Err(error) => {
                    say(&format!("failed {}", step + 1));
                    return Err(error);
                }
            }
        }
    }
    store.close()?;
    say("done");
    Ok(())
}
