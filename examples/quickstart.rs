//! A trainer of two vectors that resumes where it stopped: kill it at any moment and start it
//! again.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```

use tensorkeep::{Checkpoint, Every, Keep, Progress, Result, Snapshot, Store, StoreOptions};

const STEPS: u64 = 1_000;

fn main() -> Result<()> {
    let options = StoreOptions::new().save(Every::steps(100).or_on_signal()).keep(Keep::last(3));
    let store = Store::open("runs/quickstart", options)?;

    let (mut weights, mut momentum) = (vec![0.0_f32; 1024], vec![0.0_f32; 1024]);
    let resumed = store.resume()?; // the newest checkpoint that verifies
    if let Some(checkpoint) = &resumed.checkpoint {
        load(checkpoint, &mut weights, &mut momentum)?;
    }
    println!("starting at step {}", resumed.next_step());

    for step in resumed.next_step()..STEPS {
        train(&mut weights, &mut momentum);
        let progress = Progress::new(step + 1); // completed steps
        if store.due(&progress).is_some() || progress.step == STEPS {
            let snapshot = Snapshot::new()
                .tensor("weights", &weights[..])?
                .tensor("momentum", &momentum[..])?
                .progress(progress);
            store.save(&snapshot)?; // durable when this returns
        }
        if store.should_stop() {
            break; // SIGTERM or Ctrl-C came, and a save has answered it
        }
    }
    store.close()
}

fn load(checkpoint: &Checkpoint, weights: &mut [f32], momentum: &mut [f32]) -> Result<()> {
    weights.copy_from_slice(checkpoint.tensor("weights")?.elements()?);
    momentum.copy_from_slice(checkpoint.tensor("momentum")?.elements()?);
    Ok(())
}

/// Gradient descent with momentum on the squared distance to 1.
fn train(weights: &mut [f32], momentum: &mut [f32]) {
    for (weight, momentum) in weights.iter_mut().zip(momentum) {
        *momentum = 0.9 * *momentum + (*weight - 1.0);
        *weight -= 0.01 * *momentum;
    }
}
