//! The proof: a run that is never interrupted, and one that is killed (SIGKILL) again and again,
//! also in saves, and resumed each time. At the end both must be the same, bit for bit.

use crate::{Args, Result};
use burn_pack::Scalar;
use lenet::Rng;
use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tensorkeep::{Checkpoint, Reader};

const KILLS: u32 = 8;
/// The most batches that a life makes before it is killed: an epoch has 5, and validates on 1.
const LONGEST_LIFE: u64 = 16;
const IMAGES: usize = 160;
const EPOCHS: usize = 12;

/// Kills as often as planned, then lets the run end, then compares. False when they differ.
pub fn prove(args: &Args) -> Result<bool> {
    let start = Instant::now();
    let folder = std::env::temp_dir().join(format!("tensorkeep-burn-{}-{}", args.seed, std::process::id()));
    let of = |name: &str| Args {
        run: folder.join(name),
        images: IMAGES,
        epochs: EPOCHS,
        child: true,
        ..args.clone()
    };
    let (reference, killed) = (of("reference"), of("killed"));
    let verdict = both(&reference, &killed);
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        eprintln!("warning: {} could not be removed: {error}", folder.display());
    }
    let equal = verdict?;
    let verdict = if equal { "EQUAL, bit for bit" } else { "NOT EQUAL" };
    println!("{verdict}: {KILLS} kills, {EPOCHS} epochs, {:.1} s", start.elapsed().as_secs_f64());
    Ok(equal)
}

fn both(reference: &Args, killed: &Args) -> Result<bool> {
    let life = watch(&mut spawn(reference)?, None)?;
    println!("reference: {IMAGES} images, {EPOCHS} epochs, {} batches, never interrupted", life.batches);
    let kept = kill_until_done(killed)?;
    let last = |args: &Args| Reader::open(&args.run)?.latest();
    let (Some(expected), Some(found)) = (last(reference)?, last(killed)?) else { return Ok(false) };
    Ok(compare(&expected, &found)? && kept)
}

/// The newest checkpoint's epoch, 0 for none.
fn newest(run: &Path) -> Result<u64> {
    let newest = if run.is_dir() { Reader::open(run)?.latest()? } else { None };
    Ok(match newest {
        Some(checkpoint) => checkpoint.progress()?.map_or(0, |progress| progress.epoch),
        None => 0,
    })
}

/// Lives of the child, one line each. False when an epoch was lost that had been committed.
fn kill_until_done(args: &Args) -> Result<bool> {
    let mut rng = Rng::new(args.seed ^ 0x6b69_6c6c);
    let mut resumes = 0;
    for life in 1.. {
        let from = newest(&args.run)?;
        resumes += u32::from(from > 0);
        let plan = (life <= KILLS).then(|| {
            // A commit takes some 10 ms, and a batch about as long.
            (1 + rng.below(LONGEST_LIFE), Duration::from_micros(rng.below(15_000)))
        });
        let seen = watch(&mut spawn(args)?, plan)?;
        let reached = newest(&args.run)?;
        let end = if seen.finished { "done" } else { "killed" };
        println!(
            "life {life}: from epoch {from:2}, {end} after {:2} batches, last commit {reached}",
            seen.batches
        );
        if reached < from {
            println!("LOST A COMMIT");
            return Ok(false);
        }
        if seen.finished {
            return Ok(life > KILLS && resumes > 0);
        }
    }
    Ok(false)
}

#[derive(Default)]
struct Life {
    batches: u64,
    finished: bool,
}

/// Counts the child's batches and kills it when the plan says so.
fn watch(child: &mut Child, plan: Option<(u64, Duration)>) -> Result<Life> {
    let output = child.stdout.take().ok_or("the child has no output")?;
    let mut life = Life::default();
    let mut killed = false;
    for line in BufReader::new(output).lines() {
        life.batches += u64::from(line? == "batch");
        if let Some((after, delay)) = plan
            && life.batches >= after
            && !killed
        {
            std::thread::sleep(delay);
            child.kill()?;
            killed = true;
            // Its last output is still in the pipe and is read on.
        }
    }
    let status = child.wait()?;
    life.finished = status.success();
    if !killed && !status.success() {
        return Err(format!("the training process ended by itself: {status}").into());
    }
    Ok(life)
}

fn spawn(args: &Args) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--child").arg("--run").arg(&args.run);
    for (flag, value) in
        [("--seed", args.seed), ("--images", args.images as u64), ("--epochs", args.epochs as u64)]
    {
        command.arg(flag).arg(value.to_string());
    }
    if let Some(folder) = &args.data {
        command.arg("--data").arg(folder);
    }
    Ok(command.stdout(Stdio::piped()).spawn()?)
}

/// An optimizer's or a scheduler's numbers, without the random ids of parameters.
#[derive(Debug, Deserialize, PartialEq)]
struct Scalars {
    scalars: Vec<Named>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Named {
    name: String,
    value: Scalar,
}

/// Compares all tensors and all numbers, bit for bit; one line for each part of the state.
fn compare(expected: &Checkpoint, found: &Checkpoint) -> Result<bool> {
    let mut all_equal = expected.names().eq(found.names()) && expected.progress()? == found.progress()?;
    for part in ["model", "optimizer", "scheduler"] {
        let prefix = format!("{part}/");
        let (mut bytes, mut equal, mut count) = (0, true, 0);
        for name in expected.names().filter(|name| name.starts_with(&prefix)) {
            let (a, b) = (expected.tensor(name)?, found.tensor(name)?);
            bytes += a.bytes().len();
            count += 1;
            equal &= a.dtype() == b.dtype() && a.shape() == b.shape() && a.bytes() == b.bytes();
        }
        let numbers: Scalars = expected.record(part)?;
        equal &= numbers == found.record(part)?;
        count += numbers.scalars.len();
        all_equal &= equal && count > 0;
        println!(
            "{part:9} {} ({count} entries, {bytes} bytes of tensors)",
            if equal { "equal" } else { "DIFFER" }
        );
    }
    Ok(all_equal)
}
