//! Training with checkpoints by interval and by signal. The same command goes on where it ended.

use crate::net::Trainer;
use crate::{Args, Result};
use lenet::Data;
use tensorkeep::{Every, Keep, Mode, Store, StoreOptions};

const BATCH: usize = 64;

pub fn train(args: &Args) -> Result<()> {
    let data = Data::open(args.data_folder().as_deref(), args.seed)?;
    println!("{}", data.describe());
    let options = StoreOptions::new()
        .save(Every::epochs(1).or(Every::steps(50)).or_on_signal())
        .keep(Keep::last(2).or(Keep::best("accuracy", Mode::Max, 1)));
    let store = Store::open(&args.run, options)?;
    let mut trainer = Trainer::new(args.seed, data.train.len(), BATCH)?;
    let resumed = store.resume()?;
    for skipped in &resumed.skipped {
        eprintln!("warning: skipped {}: {}", skipped.id, skipped.error);
    }
    if let Some(checkpoint) = &resumed.checkpoint {
        trainer.restore(checkpoint, resumed.progress)?;
        println!("resumed from {}", checkpoint.name());
    }
    while trainer.progress.epoch < args.epochs && !store.should_stop() {
        let epoch = trainer.progress.epoch;
        let loss = trainer.step(&data.train)?;
        let progress = trainer.progress;
        store.log(&progress, [("loss", f64::from(loss))]);
        if progress.epoch > epoch {
            let accuracy = trainer.accuracy(&data.test)?;
            store.log(&progress, [("accuracy", accuracy)]);
            println!("epoch {}: loss {loss:.4}, test accuracy {:.2} %", progress.epoch, 100.0 * accuracy);
        }
        if store.due(&progress).is_some() {
            store.save(&trainer.snapshot()?)?;
        }
    }
    if !store.has_saved(&trainer.progress) {
        store.save(&trainer.snapshot()?)?;
    }
    println!("at step {}", trainer.progress.step);
    store.close()?;
    Ok(())
}
