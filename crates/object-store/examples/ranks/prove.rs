//! The proof: a run that is never killed, and one whose ranks are killed and stopped again and
//! again; both end equal, bit for bit. Then other numbers of ranks go on with it, and each saves at
//! once what it has loaded.

use crate::Arguments;
use crate::fates::{Fate, Settings, Start, draw};
use crate::rank::PATIENCE;
use fake_s3::{Objects, Server};
use lenet::Rng;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use tensorkeep::{Checkpoint, CheckpointId, Reader};
use tensorkeep_object_store::ObjectStoreEngine;

const STEPS: u64 = 48;
/// What the S3 server takes each second; the rest is told to slow down.
const WRITES: u32 = 150;
const READS: u32 = 300;

/// A run's place, and a reader of it.
struct Place {
    name: String,
    reader: Reader,
    server: Option<Server>,
}

impl Place {
    fn new(folder: &Path, name: &str, on_s3: bool) -> Result<Self, String> {
        let path = folder.join(name);
        std::fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        if !on_s3 {
            let name = path.display().to_string();
            return Ok(Self { reader: Reader::open(&path).map_err(words)?, name, server: None });
        }
        let objects = Objects::in_folder(&path).map_err(|error| error.to_string())?;
        let server = Server::start_at(0, objects).map_err(|error| error.to_string())?;
        server.faults().throttle(WRITES, READS);
        let endpoint = server.endpoint().to_string();
        let options = [
            ("endpoint", endpoint.as_str()),
            ("allow_http", "true"),
            ("region", "us-east-1"),
            ("access_key_id", "key"),
            ("secret_access_key", "secret"),
        ];
        let engine = ObjectStoreEngine::from_url_with("s3://bucket/runs/ranks", options).map_err(words)?;
        Ok(Self { reader: Reader::new(engine), name: format!("s3:{endpoint}"), server: Some(server) })
    }

    /// Everything that a checkpoint has, whole: tensors, and the ranks' generators.
    fn state(&self, id: CheckpointId) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let checkpoint = self.reader.checkpoint_by_id(id).map_err(words)?;
        checkpoint.verify().map_err(words)?;
        let mut all = BTreeMap::new();
        for info in checkpoint.tensors() {
            all.insert(info.name.to_owned(), checkpoint.tensor(info.name).map_err(words)?.bytes().to_vec());
        }
        all.insert("rng".to_owned(), rngs(&checkpoint)?);
        Ok(all)
    }

    fn newest(&self) -> Result<CheckpointId, String> {
        self.reader.ids().map_err(words)?.last().copied().ok_or_else(|| "there is no checkpoint".to_owned())
    }
}

fn rngs(checkpoint: &Checkpoint) -> Result<Vec<u8>, String> {
    let all: Vec<u64> = checkpoint.rank_records("rng").map_err(words)?;
    Ok(all.iter().flat_map(|state| state.to_le_bytes()).collect())
}

fn words(error: tensorkeep::Error) -> String {
    format!("{error:?}")
}

/// What happened.
#[derive(Default)]
struct Tally {
    starts: u32,
    killed: u32,
    stopped: u32,
    of_rank_0: u32,
    failed_saves: u32,
}

impl Tally {
    fn interruptions(&self) -> u32 {
        self.killed + self.stopped
    }
}

pub fn prove(arguments: &Arguments) -> Result<(), String> {
    let (seed, kills) = (arguments.number("--seed", 7), arguments.number("--kills", 8) as u32);
    let ranks = arguments.number("--ranks", 8) as u32;
    let begun = Instant::now();
    let folder = std::env::temp_dir().join(format!("tensorkeep-ranks-{}", std::process::id()));
    let ways = Ways { on_s3: arguments.has("--s3"), through_store: arguments.has("--through-store") };
    let proved = prove_in(&folder, seed, kills, ranks, ways);
    if proved.is_ok() {
        let _ = std::fs::remove_dir_all(&folder);
        println!("EQUAL, bit for bit, no promise broken: {:.1} s", begun.elapsed().as_secs_f64());
    } else {
        eprintln!("the run is in {}", folder.display());
    }
    proved
}

/// Where the run is, and how its ranks are connected.
#[derive(Clone, Copy)]
struct Ways {
    on_s3: bool,
    through_store: bool,
}

fn prove_in(folder: &Path, seed: u64, kills: u32, ranks: u32, ways: Ways) -> Result<(), String> {
    let Ways { on_s3, through_store } = ways;
    let reference = Place::new(folder, "reference", on_s3)?;
    let settings =
        |place, ranks, until| Settings { place, ranks, until, seed, save_at_once: false, through_store };
    to_the_end(&settings(&reference.name, ranks, STEPS))?;
    println!("reference: {STEPS} steps on {ranks} ranks, never interrupted");
    // A run ends before many of its ranks are killed: as many runs as it takes.
    let (mut rng, mut tally, mut runs) = (Rng::new(seed), Tally::default(), 0);
    let killed = loop {
        runs += 1;
        let killed = Place::new(folder, &format!("killed-{runs}"), on_s3)?;
        let (place, until) = (&*killed.name, STEPS);
        let of_this = Settings { place, ranks, until, seed, save_at_once: false, through_store };
        interrupted(&of_this, kills, &mut rng, &mut tally)?;
        let (newest, expected) = (killed.newest()?, reference.newest()?);
        same(&reference.state(expected)?, &killed.state(newest)?, "the interrupted run")?;
        check_listed(&killed)?;
        if tally.interruptions() >= kills {
            break killed;
        }
        if runs > 10 + kills {
            return Err(format!(
                "{runs} runs ended, and only {} ranks were interrupted",
                tally.interruptions()
            ));
        }
    };
    println!(
        "interrupted: {runs} runs, {} starts; {} ranks killed, {} stopped and continued, {} of them rank 0; {} saves failed and were told so",
        tally.starts, tally.killed, tally.stopped, tally.of_rank_0, tally.failed_saves
    );
    let mut until = STEPS;
    for world in [3, 5, ranks] {
        let before = killed.newest()?;
        let state = killed.state(before)?;
        until += 5;
        let again = Settings { save_at_once: true, ..settings(&killed.name, world, until) };
        to_the_end(&again)?;
        let ids = killed.reader.ids().map_err(words)?;
        let reloaded = ids.into_iter().find(|id| id.attempt > before.attempt && id.step == before.step);
        let reloaded = reloaded.ok_or_else(|| format!("{world} ranks have not saved what they loaded"))?;
        let (mut one, mut other) = (state, killed.state(reloaded)?);
        // Of another number of ranks, new ones.
        one.remove("rng");
        other.remove("rng");
        same(&one, &other, &format!("what {world} ranks loaded"))?;
        println!("{world} ranks went on from step {} with the same state", before.step);
    }
    if let Some(server) = &killed.server {
        println!("{} requests were told to slow down", server.faults().throttled());
    }
    check_listed(&killed)
}

/// Everything that is listed is whole.
fn check_listed(place: &Place) -> Result<(), String> {
    for id in place.reader.ids().map_err(words)? {
        place.state(id)?;
    }
    Ok(())
}

fn same(
    one: &BTreeMap<String, Vec<u8>>,
    other: &BTreeMap<String, Vec<u8>>,
    what: &str,
) -> Result<(), String> {
    if let Some(name) = one.keys().chain(other.keys()).find(|name| one.get(*name) != other.get(*name)) {
        return Err(format!("{what} differs in {name}"));
    }
    Ok(())
}

fn to_the_end(settings: &Settings<'_>) -> Result<(), String> {
    let mut start = Start::begin(settings)?;
    start.end(None)?;
    match start.heard.broken.first().cloned() {
        Some(broken) => Err(broken),
        None if start.is_done() => Ok(()),
        None => Err(format!("a start on {} ranks failed, which nobody interrupted", settings.ranks)),
    }
}

/// One run to its end, over as many starts as it takes; no rank is interrupted any more once
/// `kills` have been.
fn interrupted(settings: &Settings<'_>, kills: u32, rng: &mut Rng, tally: &mut Tally) -> Result<(), String> {
    // Ranks that stand still while later starts run.
    let mut zombies: Vec<(Start, u32)> = Vec::new();
    let mut acknowledged = 0;
    loop {
        tally.starts += 1;
        let mut start = Start::begin(settings)?;
        let all = settings.ranks as usize;
        start.hear(Instant::now() + 6 * PATIENCE, |heard| heard.resumed.len() == all);
        let resumed = start.heard.resumed.first().map(|(_, step)| *step);
        if start.heard.resumed.iter().any(|(_, step)| Some(*step) != resumed) {
            return Err(format!("ranks resumed from different steps: {:?}", start.heard.resumed));
        }
        if resumed.is_some_and(|step| step < acknowledged) {
            return Err(format!("resumed from step {resumed:?}, after {acknowledged} was acknowledged"));
        }
        let is_last = tally.interruptions() >= kills;
        let mut zombie = None;
        if !is_last {
            let (fate, rank, delay) = draw(rng, settings.ranks);
            start.hear(Instant::now() + delay, |_| false);
            // The run may have ended meanwhile.
            let fate = (!start.is_done()).then_some(fate);
            tally.of_rank_0 += u32::from(fate.is_some() && rank == 0);
            match fate {
                Some(Fate::Kill) => {
                    tally.killed += 1;
                    start.signal(rank, "-KILL");
                }
                Some(Fate::Stop) => {
                    tally.stopped += 1;
                    start.signal(rank, "-STOP");
                    zombie = Some(rank);
                }
                None => {}
            }
        }
        start.end(zombie)?;
        acknowledged = acknowledged.max(start.heard.saved);
        tally.failed_saves += start.heard.failed_saves;
        if let Some(broken) = start.heard.broken.first() {
            return Err(broken.clone());
        }
        let is_done = zombie.is_none() && start.is_done();
        match zombie {
            // It holds the writer's lock, where there is one: a supervisor ends it first.
            Some(0) => {
                start.signal(0, "-CONT");
                start.end(None)?;
                acknowledged = acknowledged.max(start.heard.saved);
            }
            Some(rank) => zombies.push((start, rank)),
            None => {}
        }
        if zombies.len() > 1 || is_done {
            end_zombies(&mut zombies, acknowledged)?;
        }
        if is_done {
            return Ok(());
        }
        if is_last {
            return Err("a start failed that nobody interrupted".to_owned());
        }
    }
}

/// Continues ranks that stood still, and waits for their ends.
fn end_zombies(zombies: &mut Vec<(Start, u32)>, acknowledged: u64) -> Result<(), String> {
    for (mut start, rank) in zombies.drain(..) {
        start.signal(rank, "-CONT");
        start.end(None)?;
        // What it hears late was told to the others, too; it commits nothing by itself.
        if start.heard.saved > acknowledged {
            let step = start.heard.saved;
            return Err(format!("rank {rank}, stopped and continued, says that step {step} is saved"));
        }
    }
    Ok(())
}
