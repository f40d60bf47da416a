//! A process that saves is killed (SIGKILL) at random moments, again and again: nothing it was told is durable is ever
//! lost, nothing half is ever seen, and the end is bit for bit that of a process that was never killed.
//!
//! The child is this test's own binary, started again with an environment variable.

mod common;

use common::TempFolder;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tensorkeep::engine::Local;
use tensorkeep::{Checkpoint, Codec, Every, Keep, Progress, Result, Settings, Snapshot, Store, WriteOptions};

const CHILD: &str = "TENSORKEEP_KILL_TEST_RUN";
/// More than the lives that are killed can reach, so that the last one saves, and rotates, too.
const STEPS: u64 = 600;
const KILLS: usize = 25;

/// Something that trains: every step changes every value in a way that depends on all steps before.
struct State {
    weights: Vec<f32>,
    seed: u64,
    step: u64,
}

impl State {
    fn new() -> Self {
        Self { weights: vec![0.5; 50_000], seed: 1, step: 0 }
    }

    fn advance(&mut self) {
        for weight in &mut self.weights {
            self.seed =
                self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *weight = *weight * 0.999 + (self.seed >> 40) as f32 * 1e-9;
        }
        self.step += 1;
    }

    fn snapshot(&self) -> Result<Snapshot<'_>> {
        let mut snapshot = Snapshot::new();
        snapshot.tensor("weights", &self.weights)?.record("seed", &self.seed)?;
        snapshot.progress(Progress::new(self.step));
        Ok(snapshot)
    }

    fn restore(checkpoint: &Checkpoint) -> Result<Self> {
        let weights = checkpoint.tensor("weights")?.elements::<f32>()?.to_vec();
        let step = checkpoint.progress()?.unwrap().step;
        Ok(Self { weights, seed: checkpoint.record("seed")?, step })
    }
}

fn train(run: &Path, say: impl Fn(&str, u64)) -> Result<()> {
    // Compressed, so that saving takes a while and is hit often.
    let write = WriteOptions::new().codec(Codec::Balanced).chunk_log2(16);
    let settings = Settings::new().save(Every::steps(2)).keep(Keep::last(2)).write(write);
    let store = Store::open(Local::create(run)?, settings)?;
    let resumed = store.resume()?;
    assert!(resumed.skipped.is_empty(), "a kill damaged a checkpoint: {:?}", resumed.skipped);
    let mut state = resumed.checkpoint.as_ref().map_or_else(|| Ok(State::new()), State::restore)?;
    say("resumed", state.step);
    while state.step < STEPS {
        state.advance();
        if store.due(&Progress::new(state.step)).is_some() {
            say("saving", state.step);
            store.save(&state.snapshot()?)?;
            say("saved", state.step);
        }
    }
    say("done", state.step);
    store.close()
}

/// What a killed child is: not a test of its own, and at once over when it was not started as a child.
#[test]
fn child_that_is_killed() {
    let Some(run) = std::env::var_os(CHILD) else { return };
    let say = |event: &str, step: u64| {
        // Straight to the descriptor: the harness captures what `print` prints.
        let mut out = std::io::stderr().lock();
        let _ = writeln!(out, "{event} {step}").and_then(|()| out.flush());
    };
    train(Path::new(&run), say).unwrap();
}

/// One life; the events it told before it ended.
fn live(run: &Path, kill_at: Option<(u64, Duration)>) -> Vec<(String, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_killed", "--nocapture"])
        .env(CHILD, run)
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

// P1 P2 P10
#[test]
fn kills_at_random_moments_lose_nothing_and_the_end_is_the_same() {
    let folder = TempFolder::new("kill");
    let run = folder.path().join("run");
    let mut seed = 42_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    let (mut acknowledged, mut in_saves) = (0, 0);
    for life in 0..KILLS {
        let kill_at = (1 + random(24), Duration::from_micros(random(8_000)));
        let events = live(&run, Some(kill_at));
        if let Some(resumed) = events.iter().find(|(event, _)| event == "resumed") {
            assert!(
                resumed.1 >= acknowledged,
                "life {life} lost step {acknowledged}: it resumed at {}",
                resumed.1
            );
        }
        acknowledged = events
            .iter()
            .filter(|(event, _)| event == "saved")
            .map(|(_, step)| *step)
            .max()
            .unwrap_or(acknowledged);
        in_saves += usize::from(events.last().is_some_and(|(event, _)| event == "saving"));
    }
    assert!(in_saves >= 3, "only {in_saves} of {KILLS} kills fell into a save");
    assert_eq!(live(&run, None).last().unwrap(), &("done".to_owned(), STEPS));

    let mut reference = State::new();
    (0..STEPS).for_each(|_| reference.advance());
    let store = Store::open(Local::open(&run).unwrap(), Settings::new()).unwrap();
    let state = State::restore(&store.resume().unwrap().checkpoint.unwrap()).unwrap();
    assert_eq!((state.step, state.seed), (reference.step, reference.seed));
    assert!(state.weights.iter().map(|w| w.to_bits()).eq(reference.weights.iter().map(|w| w.to_bits())));
    // The last two, and the one that the last life resumed from.
    assert!(store.list().unwrap().len() <= 3, "rotation did not keep up across the kills");
    let leftovers = std::fs::read_dir(&run)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".tmp"));
    assert_eq!(leftovers.count(), 0, "what kills left is swept");
}
