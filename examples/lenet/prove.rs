//! The proof: one training run that is never interrupted, and one that is killed (SIGKILL) again
//! and again, also in the middle of saves, and resumed each time. At the end both must be the same,
//! bit for bit.

use crate::Args;
use lenet::{Rng, Settings as Training, Trainer, data};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tensorkeep::engine::Local;
use tensorkeep::{Checkpoint, Error, Every, Keep, Result, Snapshot, Store, StoreOptions, WriteOptions};

const KILLS: u32 = 24;
/// Steps between two saves: so few that many kills hit one.
const SAVE_EVERY: u64 = 3;
/// The most steps that a life trains before it is killed.
const LONGEST_LIFE: u64 = 30;
const IMAGES: u64 = 2_000;
const EPOCHS: u64 = 20;
/// The end, in the middle of the last epoch, so that the half-used order of the data is compared,
/// too.
const STEPS: u64 = 630;

fn training(args: &Args) -> Training {
    Training { epochs: EPOCHS, ..Args { epochs: EPOCHS, ..args.clone() }.training() }
}

/// Kills as often as planned, then lets the run end, then compares. False when they differ.
pub fn prove(args: &Args) -> Result<bool> {
    let start = Instant::now();
    let images = data::drawn(args.seed, 0..IMAGES)?;
    let mut reference = Trainer::new(training(args));
    while reference.progress().step < STEPS {
        reference.step(&images);
    }
    println!(
        "reference: {IMAGES} drawn digits, {STEPS} steps, never interrupted, {:.1} s",
        start.elapsed().as_secs_f64()
    );

    let run = std::env::temp_dir().join(format!("tensorkeep-prove-{}-{}", args.seed, std::process::id()));
    let verdict = kill_until_done(args, &run).and_then(|lives| {
        let store = Store::open(Local::open(&run)?, StoreOptions::new())?;
        let Some(last) = store.resume()?.checkpoint else { return Ok(false) };
        Ok(lives && compare(&reference.snapshot()?, &last)?)
    });
    if let Err(error) = std::fs::remove_dir_all(&run) {
        eprintln!("warning: {} could not be removed: {error}", run.display());
    }
    let equal = verdict?;
    let verdict = if equal { "EQUAL, bit for bit" } else { "NOT EQUAL" };
    println!("{verdict}: {KILLS} kills, {STEPS} steps, {:.1} s", start.elapsed().as_secs_f64());
    Ok(equal)
}

/// Lives of the child, one line each. False when an acknowledged save was lost.
fn kill_until_done(args: &Args, run: &Path) -> Result<bool> {
    let mut rng = Rng::new(args.seed ^ 0x6b69_6c6c);
    let mut acknowledged = 0;
    for life in 1.. {
        let started = Instant::now();
        let plan = (life <= KILLS).then(|| Kill::draw(&mut rng));
        let mut child = spawn(args, run)?;
        let seen = watch(&mut child, plan)?;
        let lost = seen.resumed < acknowledged;
        acknowledged = seen.saved.max(seen.resumed);
        println!(
            "life {life:2}: from step {:3}, {} at step {:3}{}, last save {acknowledged}, {:.2} s{}",
            seen.resumed,
            if seen.finished { "done" } else { "killed" },
            seen.step,
            if seen.in_save { " in a save" } else { "" },
            started.elapsed().as_secs_f64(),
            if lost { "  LOST AN ACKNOWLEDGED SAVE" } else { "" },
        );
        if lost {
            return Ok(false);
        }
        if seen.finished {
            let enough = life > KILLS;
            if !enough {
                println!("the run ended before {KILLS} kills");
            }
            return Ok(enough);
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
        let after_steps = 1 + rng.next_u64() % LONGEST_LIFE;
        let in_save = rng.next_u64().is_multiple_of(2);
        // A save takes a few milliseconds; a step about as long.
        let delay = Duration::from_micros(rng.next_u64() % 6_000);
        Self { after_steps, in_save, delay }
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
    let failed = |error| Error::io("the training process", error);
    let output =
        child.stdout.take().ok_or_else(|| Error::io("its output", std::io::ErrorKind::BrokenPipe.into()))?;
    let mut life = Life::default();
    let mut killed = false;
    for line in BufReader::new(output).lines() {
        let line = line.map_err(failed)?;
        let (event, step) = line.split_once(' ').unwrap_or((&line, "0"));
        let step: u64 = step.parse().unwrap_or(0);
        match event {
            "resumed" => (life.resumed, life.step) = (step, step),
            "step" => (life.step, life.in_save) = (step, false),
            "saving" => life.in_save = true,
            "saved" => (life.saved, life.in_save) = (step, false),
            "done" => life.finished = true,
            _ => {}
        }
        let due = plan.as_ref().is_some_and(|plan| {
            life.step >= life.resumed + plan.after_steps && (!plan.in_save || life.in_save)
        });
        if due && !killed {
            std::thread::sleep(plan.as_ref().map_or(Duration::ZERO, |plan| plan.delay));
            child.kill().map_err(failed)?;
            killed = true;
            // Its last output is still in the pipe and is read on.
        }
    }
    let status = child.wait().map_err(failed)?;
    if !killed && !status.success() {
        return Err(Error::io(
            "the training process ended by itself",
            std::io::Error::other(status.to_string()),
        ));
    }
    Ok(life)
}

fn spawn(args: &Args, run: &Path) -> Result<Child> {
    let failed = |error| Error::io("starting the training process", error);
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("--child").arg("--run").arg(run).arg("--seed").arg(args.seed.to_string());
    let optimizer = format!("{:?}", args.optimizer).to_lowercase();
    command.arg("--optimizer").arg(optimizer).stdout(Stdio::piped()).spawn().map_err(failed)
}

/// The same training in a process of its own: every event is one line, written before the next
/// event.
pub fn child(args: &Args) -> Result<()> {
    let say = |event: &str, step: u64| {
        let mut out = std::io::stdout().lock();
        // The parent is gone only when the proof is over.
        let _ = writeln!(out, "{event} {step}").and_then(|()| out.flush());
    };
    let images = data::drawn(args.seed, 0..IMAGES)?;
    let options = StoreOptions::new().save(Every::steps(SAVE_EVERY)).keep(Keep::last(2));
    let store = Store::open(Local::create(&args.run)?, options)?;
    let resumed = store.resume()?;
    let mut trainer = match &resumed.checkpoint {
        Some(checkpoint) => Trainer::restore(checkpoint, training(args))?,
        None => Trainer::new(training(args)),
    };
    say("resumed", resumed.next_step());
    while trainer.progress().step < STEPS {
        trainer.step(&images);
        let progress = trainer.progress();
        say("step", progress.step);
        if store.due(&progress).is_some() || (progress.step == STEPS && !store.has_saved(&progress)) {
            say("saving", progress.step);
            store.save(&trainer.snapshot()?)?;
            say("saved", progress.step);
        }
    }
    store.close()?;
    say("done", trainer.progress().step);
    Ok(())
}

/// Compares all but the store's own record, bit for bit; one line per group.
fn compare(reference: &Snapshot<'_>, last: &Checkpoint) -> Result<bool> {
    let reference = Checkpoint::from_bytes(&reference.to_bytes(&WriteOptions::new())?)?;
    let groups: [(&str, &[&str]); 5] = [
        ("weights", &["model/"]),
        ("optimizer", &["optimizer"]),
        ("RNG and schedule", &["rng", "scheduler"]),
        ("data order", &["data_order"]),
        ("loss history", &["loss_history"]),
    ];
    let mut all_equal = reference.names().eq(last.names()) && reference.progress()? == last.progress()?;
    for (what, prefixes) in groups {
        let ours = |name: &&str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let (mut bytes, mut equal, mut count) = (0, true, 0);
        for name in reference.names().filter(ours) {
            let (expected, found) = (reference.tensor(name)?, last.tensor(name)?);
            bytes += expected.bytes().len();
            count += 1;
            equal &= expected.dtype() == found.dtype() && expected.shape() == found.shape();
            equal &= expected.bytes() == found.bytes();
        }
        for name in reference.records().filter(ours) {
            count += 1;
            equal &= reference.inspect().record_value(name)? == last.inspect().record_value(name)?;
        }
        all_equal &= equal && count > 0;
        println!(
            "{what:18} {} ({count} entries, {bytes} bytes of tensors)",
            if equal { "equal" } else { "DIFFER" }
        );
    }
    Ok(all_equal)
}
