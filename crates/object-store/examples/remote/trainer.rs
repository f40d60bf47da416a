//! The training: on a store of the user's, and as the proof's child, which reports each event in a
//! line.

use lenet::{Schedule, Settings as Training, Trainer, data};
use std::io::Write;
use std::process::ExitCode;
use tensorkeep::{ErrorKind, Every, Keep, Mode, Result, Store, StoreOptions};
use tensorkeep_object_store::ObjectStoreEngine;

/// Steps between two saves: so few that many kills hit one.
const SAVE_EVERY: u64 = 4;
pub const IMAGES: u64 = 1_000;
const EPOCHS: u64 = 60;
/// The end, in the middle of an epoch, so that the half-used order of the data is compared, too.
pub const STEPS: u64 = 734;
/// Exit code of a trainer that a newer one has fenced.
pub const FENCED: u8 = 3;
/// Every third checkpoint has this many bytes more, so that it is uploaded in parts.
const BALLAST: usize = 9_000_000;

pub fn training(seed: u64) -> Training {
    let scheduler = Schedule::Cosine { t_max: EPOCHS, eta_min: 1e-5 };
    Training { seed, epochs: EPOCHS, scheduler, ..Training::default() }
}

/// Trains at a URL until it is done, or resumes.
pub fn train(url: &str) -> Result<()> {
    let images = data::drawn(0, 0..10_000)?;
    let settings = StoreOptions::new()
        .save(Every::steps(100).or_on_signal())
        .keep(Keep::last(3).or(Keep::best("loss", Mode::Min, 1)));
    let store = Store::open(ObjectStoreEngine::from_url(url)?, settings)?;
    let resumed = store.resume()?;
    let mut trainer = match &resumed.checkpoint {
        Some(checkpoint) => Trainer::restore(checkpoint, Training::default())?,
        None => Trainer::new(Training::default()),
    };
    println!("attempt {}, from step {}", store.attempt(), resumed.next_step());
    while !trainer.is_finished() && !store.should_stop() {
        let loss = trainer.step(&images);
        let progress = trainer.progress();
        if store.due(&progress).is_some() || (trainer.is_finished() && !store.has_saved(&progress)) {
            let saved = store.save(&trainer.snapshot()?)?;
            println!("step {}: loss {loss:.4}, saved {} bytes", progress.step, saved.byte_len);
        }
    }
    if !trainer.is_finished() && store.has_saved(&trainer.progress()) {
        println!(
            "stopped after step {}, saved; started again, it goes on from there",
            trainer.progress().step
        );
    }
    store.close()
}

/// The proof's child. Its exit code is its outcome.
pub fn child(endpoint: &str, seed: u64) -> ExitCode {
    match run(endpoint, seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::Fenced => {
            say("fenced", 0);
            ExitCode::from(FENCED)
        }
        Err(error) => {
            eprintln!("child: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn say(event: &str, step: u64) {
    let mut out = std::io::stdout().lock();
    // The parent is gone only when the proof is over.
    let _ = writeln!(out, "{event} {step}").and_then(|()| out.flush());
}

/// An engine on the proof's server.
pub fn engine(endpoint: &str) -> Result<ObjectStoreEngine> {
    let options = [
        ("endpoint", endpoint),
        ("allow_http", "true"),
        ("region", "us-east-1"),
        ("access_key_id", "key"),
        ("secret_access_key", "secret"),
    ];
    ObjectStoreEngine::from_url_with("s3://bucket/runs/lenet", options)
}

/// The ballast of every checkpoint of a step that has some.
pub fn ballast(step: u64) -> Option<Vec<u8>> {
    (step / SAVE_EVERY).is_multiple_of(3).then(|| (0..BALLAST).map(|i| (i as u64 ^ step) as u8).collect())
}

fn run(endpoint: &str, seed: u64) -> Result<()> {
    let images = data::drawn(seed, 0..IMAGES)?;
    let settings = StoreOptions::new().save(Every::steps(SAVE_EVERY)).keep(Keep::last(2));
    let store = Store::open(engine(endpoint)?, settings)?;
    let resumed = store.resume()?;
    if let Some(skipped) = resumed.skipped.first() {
        say("damaged", skipped.id.step);
    }
    let mut trainer = match &resumed.checkpoint {
        Some(checkpoint) => Trainer::restore(checkpoint, training(seed))?,
        None => Trainer::new(training(seed)),
    };
    say("resumed", resumed.next_step());
    while trainer.progress().step < STEPS {
        trainer.step(&images);
        let progress = trainer.progress();
        say("step", progress.step);
        if store.due(&progress).is_some() || (progress.step == STEPS && !store.has_saved(&progress)) {
            say("saving", progress.step);
            save(&store, &trainer)?;
        }
    }
    store.close()?;
    say("done", trainer.progress().step);
    Ok(())
}

/// A failed save is reported, and training continues to the next one; only a fence ends it, or a
/// failure of the last save.
fn save(store: &Store, trainer: &Trainer) -> Result<()> {
    let step = trainer.progress().step;
    let ballast = ballast(step);
    let mut snapshot = trainer.snapshot()?;
    if let Some(ballast) = &ballast {
        snapshot = snapshot.tensor("ballast", &ballast[..])?;
    }
    match store.save(&snapshot) {
        Ok(_) => say("saved", step),
        Err(error) if error.kind() == ErrorKind::Fenced || step == STEPS => return Err(error),
        Err(error) => {
            eprintln!("child: step {step}: {error:?}");
            say("failed", step);
        }
    }
    Ok(())
}
