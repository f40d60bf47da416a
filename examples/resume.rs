//! Training that breaks after epoch 5 and resumes from its checkpoint: model, optimizer, scheduler
//! and epoch. Run it twice: the first start breaks, the second resumes; a third finds the run
//! finished and starts over.
//!
//! ```text
//! cargo run --release --example resume
//! cargo run --release --example resume
//! ```

use lenet::{Settings as Training, Trainer, data};
use tensorkeep::{Every, Keep, Result, Store, StoreOptions};

const EPOCHS: u64 = 8;
const BREAKS_AFTER: u64 = 5;

fn main() -> Result<()> {
    let run = std::env::temp_dir().join("tensorkeep-resume");
    let images = data::drawn(0, 0..1000)?;
    let training = Training { epochs: EPOCHS, ..Training::default() };

    let options = StoreOptions::new().save(Every::epochs(1)).keep(Keep::last(2));
    let store = Store::open(&run, options)?;
    let resumed = store.resume()?;
    let mut trainer = match &resumed.checkpoint {
        Some(checkpoint) => Trainer::restore(checkpoint, training)?,
        None => Trainer::new(training),
    };
    println!("starting at epoch {}, step {}", resumed.next_epoch(), resumed.next_step());

    while !trainer.is_finished() {
        let loss = trainer.finish_epoch(&images);
        let progress = trainer.progress();
        println!("epoch {} of {EPOCHS}: loss {loss:.4}", progress.epoch);
        if let Some(why) = store.due(&progress) {
            let saved = store.save(&trainer.snapshot()?)?;
            println!("  saved {} ({why})", saved.id);
        }
        if progress.epoch == BREAKS_AFTER && resumed.checkpoint.is_none() {
            println!("the power goes here; start me again");
            std::process::abort();
        }
    }
    store.close()?;
    println!("done; {} is removed, so that the next start is a first one", run.display());
    std::fs::remove_dir_all(&run).map_err(|error| tensorkeep::Error::io("removing the run", error))
}
