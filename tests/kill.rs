//! A saving process is killed (SIGKILL) at random moments, again and again: no checkpoint
//! acknowledged as durable is lost, no partial one is visible, remains are swept, and the end is
//! bit for bit that of a process that was never killed. With small files, with large ones (written
//! in blocks, by direct I/O), and with background saves.
//!
//! The child is this test's own binary, started again with environment variables.
//! `TENSORKEEP_KILLS=2000 cargo test --release --all-features --test kill -- --ignored --nocapture`
//! is the long form: that many lives.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tensorkeep::engine::Local;
use tensorkeep::{
    Checkpoint, Codec, Every, Keep, PendingSave, Progress, Result, Snapshot, Store, StoreOptions,
    WriteOptions, store::WhenFull,
};
use test_support::{TempFolder, leftovers};

const CHILD: &str = "TENSORKEEP_KILL_TEST_RUN";
const WAY: &str = "TENSORKEEP_KILL_TEST_WAY";
/// Number of lives of the long form.
const LIVES: &str = "TENSORKEEP_KILLS";
/// More than the killed lives of one run can reach, so that the last one saves, and rotates, too.
const STEPS: u64 = 600;
const LIVES_OF_A_RUN: usize = 25;
/// Values that a step changes; the others only make a large state large.
const TRAINED: usize = 50_000;

/// How the child saves.
const WAYS: [&str; 3] = ["small", "large", "background"];

/// A trainer's state: every step changes every trained value in a way that depends on all steps
/// before.
struct State {
    weights: Vec<f32>,
    seed: u64,
    step: u64,
}

impl State {
    fn new(way: &str) -> Self {
        // From 4 MiB on a file is written in blocks by direct I/O.
        let elements = if way == "large" { 1_300_000 } else { TRAINED };
        Self { weights: vec![0.5; elements], seed: 1, step: 0 }
    }

    fn advance(&mut self) {
        for weight in &mut self.weights[..TRAINED] {
            self.seed =
                self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *weight = *weight * 0.999 + (self.seed >> 40) as f32 * 1e-9;
        }
        self.step += 1;
    }

    fn snapshot(&self) -> Result<Snapshot<'_>> {
        let mut snapshot = Snapshot::new().tensor("weights", &self.weights)?.record("seed", &self.seed)?;
        snapshot = snapshot.progress(Progress::new(self.step));
        Ok(snapshot)
    }

    fn restore(checkpoint: &Checkpoint) -> Result<Self> {
        let weights = checkpoint.tensor("weights")?.elements::<f32>()?.to_vec();
        let step = checkpoint.progress()?.unwrap().step;
        Ok(Self { weights, seed: checkpoint.record("seed")?, step })
    }
}

fn train(run: &Path, way: &str, say: impl Fn(&str, u64)) -> Result<()> {
    // Compressed, so that saving takes a while and is hit often; large ones are raw, so that they
    // are large.
    let codec = if way == "large" { Codec::Raw } else { Codec::Balanced };
    let write = WriteOptions::new().codec(codec).chunk_log2(16);
    let settings = StoreOptions::new().save(Every::steps(2)).keep(Keep::last(2)).write(write);
    let store = Store::open(Local::create(run)?, settings.in_flight(2, WhenFull::Wait))?;
    assert!(leftovers(run).is_empty(), "not swept: {:?}", leftovers(run));
    let resumed = store.resume()?;
    assert!(resumed.skipped.is_empty(), "a kill damaged a checkpoint: {:?}", resumed.skipped);
    let mut state = resumed.checkpoint.as_ref().map_or_else(|| Ok(State::new(way)), State::restore)?;
    say("resumed", state.step);
    let mut in_flight: Vec<(u64, PendingSave)> = Vec::new();
    while state.step < STEPS {
        state.advance();
        if store.due(&Progress::new(state.step)).is_some() {
            say("saving", state.step);
            if way == "background" {
                in_flight.extend(store.stage(&state.snapshot()?)?.map(|pending| (state.step, pending)));
            } else {
                store.save(&state.snapshot()?)?;
                say("saved", state.step);
            }
        }
        in_flight.retain(|(step, pending)| match pending.outcome() {
            Some(outcome) => {
                outcome.unwrap();
                say("saved", *step);
                false
            }
            None => true,
        });
    }
    store.close()?;
    say("done", state.step);
    Ok(())
}

/// Reports to the parent. Straight to the descriptor, because the test harness captures `print`,
/// and in one write, so that a kill leaves no partial line.
fn say(event: &str, step: u64) {
    let _ = std::io::stderr().write_all(format!("{event} {step}\n").as_bytes());
}

/// The child that is killed; returns at once when not started as one.
#[test]
fn child_that_is_killed() {
    let Some(run) = std::env::var_os(CHILD) else { return };
    train(Path::new(&run), &std::env::var(WAY).unwrap(), say).unwrap();
}

/// As above, with plain files: saves to one path, over and over.
#[test]
fn child_that_saves_plain_files() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let mut state = State::new("large");
    for step in 1.. {
        state.step = step;
        say("saving", step);
        state.snapshot().unwrap().save(Path::new(&path)).unwrap();
        say("saved", step);
    }
}

/// One life; returns the events it reported before it ended.
fn live(child: &str, run: &Path, way: &str, kill_at: Option<(u64, Duration)>) -> Vec<(String, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", child, "--nocapture"])
        .env(CHILD, run)
        .env(WAY, way)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut events = Vec::new();
    for (seen, line) in (1..).zip(BufReader::new(child.stderr.take().unwrap()).lines()) {
        let line = line.unwrap();
        let Some((event, step)) = line.split_once(' ') else { panic!("the child said {line:?}") };
        let Ok(step) = step.parse() else { panic!("the child said {line:?}") };
        events.push((event.to_owned(), step));
        if let Some((_, delay)) = kill_at.filter(|(at, _)| *at == seen) {
            std::thread::sleep(delay);
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(status.success() || kill_at.is_some(), "{status}");
    events
}

fn last(events: &[(String, u64)], wanted: &str) -> Option<u64> {
    events.iter().filter(|(event, _)| event == wanted).map(|(_, step)| *step).max()
}

/// Random numbers below a bound.
fn random(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    }
}

/// One run: `lives` lives are killed, one ends by itself. Returns how many kills hit a save.
fn run_of_many_lives(way: &str, seed: u64, lives: usize) -> usize {
    let folder = TempFolder::new("kill");
    let run = folder.path().join("run");
    let mut random = random(seed);
    let (mut acknowledged, mut in_saves) = (0, 0);
    for life in 0..lives {
        let kill_at = (1 + random(24), Duration::from_micros(random(8_000)));
        let events = live("child_that_is_killed", &run, way, Some(kill_at));
        if let Some(resumed) = last(&events, "resumed") {
            assert!(
                resumed >= acknowledged,
                "{way}, seed {seed}, life {life} lost step {acknowledged}: it resumed at {resumed}"
            );
        }
        acknowledged = last(&events, "saved").unwrap_or(acknowledged);
        in_saves += usize::from(last(&events, "saving") > last(&events, "saved"));
    }
    assert_eq!(
        live("child_that_is_killed", &run, way, None).last().unwrap(),
        &("done".to_owned(), STEPS),
        "{way}"
    );

    let mut reference = State::new(way);
    for _ in 0..STEPS {
        reference.advance();
    }
    let store = Store::open(Local::open(&run).unwrap(), StoreOptions::new()).unwrap();
    let state = State::restore(&store.resume().unwrap().checkpoint.unwrap()).unwrap();
    assert_eq!((state.step, state.seed), (reference.step, reference.seed));
    assert!(state.weights.iter().map(|w| w.to_bits()).eq(reference.weights.iter().map(|w| w.to_bits())));
    // The last two, and the one that the last life resumed from.
    assert!(store.list().unwrap().len() <= 3, "rotation did not keep up across the kills");
    assert!(leftovers(&run).is_empty(), "what kills left is swept: {:?}", leftovers(&run));
    in_saves
}

// G1 G2 G10
#[test]
fn kills_at_random_moments_lose_nothing_and_the_end_is_the_same() {
    for (way, lives) in WAYS.into_iter().zip([25, 12, 12]) {
        let in_saves = run_of_many_lives(way, 42, lives);
        assert!(in_saves >= 3, "{way}: only {in_saves} of {lives} kills fell into a save");
    }
}

// G1 G2 G10
#[test]
#[ignore = "minutes: TENSORKEEP_KILLS=2000 cargo test --release --all-features --test kill -- --ignored --nocapture"]
fn thousands_of_lives_lose_nothing() {
    let lives: usize = std::env::var(LIVES).map_or(2000, |lives| lives.parse().unwrap());
    let (start, mut in_saves) = (Instant::now(), 0);
    let runs = lives.div_ceil(LIVES_OF_A_RUN);
    for round in 0..runs {
        in_saves += run_of_many_lives(WAYS[round % WAYS.len()], 1000 + round as u64, LIVES_OF_A_RUN);
    }
    let (lives, seconds) = (runs * LIVES_OF_A_RUN, start.elapsed().as_secs_f64());
    println!(
        "{lives} lives in {runs} runs, {in_saves} killed in a save; {:.0} a minute",
        lives as f64 / seconds * 60.0
    );
}

// G1
#[test]
fn a_killed_plain_save_leaves_the_old_or_the_new_file() {
    let folder = TempFolder::new("kill-plain");
    let path = folder.path().join("lenet.tkeep");
    let mut random = random(7);
    let mut left_something = 0;
    for _ in 0..12 {
        let kill_at = (3 + random(4), Duration::from_micros(random(6_000)));
        let events = live("child_that_saves_plain_files", &path, "plain", Some(kill_at));
        let checkpoint = Checkpoint::open(&path).unwrap();
        checkpoint.verify().unwrap();
        let step = checkpoint.progress().unwrap().unwrap().step;
        assert!(
            Some(step) >= last(&events, "saved") && Some(step) <= last(&events, "saving"),
            "{step}: {events:?}"
        );
        left_something += leftovers(folder.path()).len();
        assert!(leftovers(folder.path()).len() <= 1, "leftovers add up: {:?}", leftovers(folder.path()));
    }
    assert!(left_something > 0, "no kill fell between the first byte and the rename");
    State::new("small").snapshot().unwrap().save(&path).unwrap();
    assert!(leftovers(folder.path()).is_empty(), "{:?}", leftovers(folder.path()));
}
