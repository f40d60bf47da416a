//! The proof: a run that is never interrupted, and one that is killed (SIGKILL) again and again,
//! also in saves, and resumed each time. At the end both must be the same, bit for bit.

use crate::net::Trainer;
use crate::{Args, Result};
use lenet::{Dataset, Rng, data};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tensorkeep::{Checkpoint, Every, Keep, Snapshot, Store, StoreOptions, WriteOptions};

const KILLS: u32 = 8;
/// Steps between two saves: so few that many kills hit one.
const SAVE_EVERY: u64 = 2;
/// The most steps that a life trains before it is killed.
const LONGEST_LIFE: u64 = 10;
const IMAGES: usize = 400;
const BATCH: usize = 16;
/// The end, in the middle of an epoch of 25 steps.
const STEPS: u64 = 60;

/// MNIST where it is at hand, else drawn digits.
fn images(args: &Args) -> Result<Dataset> {
    Ok(match args.data_folder() {
        Some(folder) => data::mnist(&folder)?.split(IMAGES)?.0,
        None => data::drawn(args.seed, 0..IMAGES as u64)?,
    })
}

/// Kills as often as planned, then lets the run end, then compares. False when they differ.
pub fn prove(args: &Args) -> Result<bool> {
    let start = Instant::now();
    let images = images(args)?;
    let mut reference = Trainer::new(args.seed, IMAGES, BATCH)?;
    while reference.progress.step < STEPS {
        reference.step(&images)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("reference: {IMAGES} images, {STEPS} steps, never interrupted, {seconds:.1} s");

    let run = std::env::temp_dir().join(format!("tensorkeep-candle-{}-{}", args.seed, std::process::id()));
    let verdict = kill_until_done(args, &run).and_then(|kept| {
        let store = Store::open(&run, StoreOptions::new())?;
        let Some(last) = store.resume()?.checkpoint else { return Ok(false) };
        Ok(compare(reference.snapshot()?, &last)? && kept)
    });
    if let Err(error) = std::fs::remove_dir_all(&run) {
        eprintln!("warning: {} could not be removed: {error}", run.display());
    }
    let equal = verdict?;
    let verdict = if equal { "EQUAL, bit for bit" } else { "NOT EQUAL" };
    println!("{verdict}: {KILLS} kills, {STEPS} steps, {:.1} s", start.elapsed().as_secs_f64());
    Ok(equal)
}

/// Lives of the child, one line each. False when a save that had returned was lost.
fn kill_until_done(args: &Args, run: &Path) -> Result<bool> {
    let mut rng = Rng::new(args.seed ^ 0x6b69_6c6c);
    let mut acknowledged = 0;
    for life in 1.. {
        let plan = (life <= KILLS).then(|| Kill::draw(&mut rng));
        let seen = watch(&mut spawn(args, run)?, plan)?;
        let lost = seen.resumed < acknowledged;
        acknowledged = seen.saved.max(seen.resumed);
        println!(
            "life {life}: from step {:2}, {} at step {:2}{}, last save {acknowledged}{}",
            seen.resumed,
            if seen.finished { "done" } else { "killed" },
            seen.step,
            if seen.in_save { " in a save" } else { "" },
            if lost { "  LOST A SAVE THAT HAD RETURNED" } else { "" },
        );
        if lost || seen.finished {
            return Ok(!lost && life > KILLS);
        }
    }
    Ok(false)
}

/// When a life ends.
struct Kill {
    after_steps: u64,
    in_save: bool,
    delay: Duration,
}

impl Kill {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            after_steps: 1 + rng.below(LONGEST_LIFE),
            in_save: rng.below(2) == 0,
            // A save of 13 MB takes some 20 ms; a step about as long.
            delay: Duration::from_micros(rng.below(25_000)),
        }
    }
}

#[derive(Default)]
struct Life {
    resumed: u64,
    step: u64,
    saved: u64,
    in_save: bool,
    finished: bool,
}

/// Follows the child's events and kills it when the plan says so.
fn watch(child: &mut Child, plan: Option<Kill>) -> Result<Life> {
    let output = child.stdout.take().ok_or("the child has no output")?;
    let mut life = Life::default();
    let mut killed = false;
    for line in BufReader::new(output).lines() {
        let line = line?;
        let (event, step) = line.split_once(' ').unwrap_or((&line, "0"));
        let step: u64 = step.parse()?;
        match event {
            "resumed" => (life.resumed, life.step) = (step, step),
            "step" => (life.step, life.in_save) = (step, false),
            "saving" => life.in_save = true,
            "saved" => (life.saved, life.in_save) = (step, false),
            "done" => life.finished = true,
            other => return Err(format!("the child said {other:?}").into()),
        }
        let due = plan.as_ref().is_some_and(|plan| {
            life.step >= life.resumed + plan.after_steps && (!plan.in_save || life.in_save)
        });
        if due && !killed {
            std::thread::sleep(plan.as_ref().map_or(Duration::ZERO, |plan| plan.delay));
            child.kill()?;
            killed = true;
            // Its last output is still in the pipe and is read on.
        }
    }
    let status = child.wait()?;
    if !killed && !status.success() {
        return Err(format!("the training process ended by itself: {status}").into());
    }
    Ok(life)
}

fn spawn(args: &Args, run: &Path) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--child").arg("--run").arg(run).arg("--seed").arg(args.seed.to_string());
    if let Some(folder) = &args.data {
        command.arg("--data").arg(folder);
    }
    Ok(command.stdout(Stdio::piped()).spawn()?)
}

/// The same training in a process of its own: every event is one line, written before the next one.
pub fn child(args: &Args) -> Result<()> {
    let say = |event: &str, step: u64| {
        let mut out = std::io::stdout().lock();
        // The parent is gone only when the proof is over.
        let _ = writeln!(out, "{event} {step}").and_then(|()| out.flush());
    };
    let images = images(args)?;
    let options = StoreOptions::new().save(Every::steps(SAVE_EVERY)).keep(Keep::last(2));
    let store = Store::open(&args.run, options)?;
    let resumed = store.resume()?;
    let mut trainer = Trainer::new(args.seed, IMAGES, BATCH)?;
    if let Some(checkpoint) = &resumed.checkpoint {
        trainer.restore(checkpoint, resumed.progress)?;
    }
    say("resumed", resumed.next_step());
    while trainer.progress.step < STEPS {
        trainer.step(&images)?;
        let progress = trainer.progress;
        say("step", progress.step);
        if store.due(&progress).is_some() {
            say("saving", progress.step);
            store.save(&trainer.snapshot()?)?;
            say("saved", progress.step);
        }
    }
    store.close()?;
    say("done", trainer.progress.step);
    Ok(())
}

/// Compares all tensors, bit for bit; one line for each part of the state.
fn compare(reference: Snapshot<'_>, last: &Checkpoint) -> Result<bool> {
    let reference = Checkpoint::from_bytes(&reference.to_bytes(&WriteOptions::new())?)?;
    let mut all_equal = reference.names().eq(last.names()) && reference.progress()? == last.progress()?;
    for part in ["model.", "optimizer.", "dropout.", "data."] {
        let (mut bytes, mut equal, mut count) = (0, true, 0);
        for name in reference.names().filter(|name| name.starts_with(part)) {
            let (expected, found) = (reference.tensor(name)?, last.tensor(name)?);
            bytes += expected.bytes().len();
            count += 1;
            equal &= expected.dtype() == found.dtype() && expected.shape() == found.shape();
            equal &= expected.bytes() == found.bytes();
        }
        all_equal &= equal && count > 0;
        println!("{part:11} {} ({count} tensors, {bytes} bytes)", if equal { "equal" } else { "DIFFER" });
    }
    Ok(all_equal)
}
