//! Training with a progress bar, checkpoints by interval and by signal, and resuming.

use crate::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lenet::{Data, Trainer};
use tensorkeep::engine::replace_file;
use tensorkeep::{Every, Keep, Mode, Reader, Result, Store, StoreOptions};
use tensorkeep_cli::report;

pub fn train(args: &Args) -> Result<()> {
    let data = Data::open(args.data.as_deref(), args.seed)?;
    println!("{}", data.describe());
    let options = StoreOptions::new()
        .save(Every::steps(args.every).or(Every::epochs(1)).or_on_signal())
        .keep(Keep::last(3).or(Keep::best("accuracy", Mode::Max, 1)));
    let store = Store::open(&args.run, options)?;
    let mut trainer = resume(args, &store)?;
    trainer.check_data(&data.train)?;
    let bar = progress_bar(&trainer, data.train.len());
    while !trainer.is_finished() && !store.should_stop() {
        let epoch = trainer.progress().epoch;
        let loss = trainer.step(&data.train);
        let progress = trainer.progress();
        store.log(&progress, [("loss", f64::from(loss))]);
        if progress.epoch > epoch {
            // Before the epoch's save, so that its checkpoint has the accuracy by which it is
            // ranked.
            let accuracy = trainer.evaluate(&data.test);
            trainer.set_accuracy(accuracy);
            store.log(&progress, [("accuracy", accuracy)]);
            bar.suspend(|| {
                println!("epoch {}: loss {loss:.4}, test accuracy {:.2} %", progress.epoch, 100.0 * accuracy)
            });
        }
        if store.due(&progress).is_some() || (trainer.is_finished() && !store.has_saved(&progress)) {
            store.save(&trainer.snapshot()?)?;
        }
        bar.set_message(format!("loss {loss:.4}"));
        bar.set_position(progress.step);
    }
    bar.finish_and_clear();
    let progress = trainer.progress();
    if !store.has_saved(&progress) {
        println!("stopped before the first step: there is nothing to save");
    } else if !trainer.is_finished() {
        println!("stopped after step {}, saved; the same command continues from there", progress.step);
    }
    print_kept(&store)?;
    let reader = store.reader();
    store.close()?;
    write_report(args, &reader)?;
    println!("step {}: test accuracy {:.2} %", progress.step, 100.0 * trainer.evaluate(&data.test));
    Ok(())
}

fn resume(args: &Args, store: &Store) -> Result<Trainer> {
    let resumed = store.resume()?;
    for skipped in &resumed.skipped {
        eprintln!("warning: skipped {}: {}", skipped.id, skipped.error);
    }
    let Some(checkpoint) = &resumed.checkpoint else { return Ok(Trainer::new(args.training())) };
    println!("resumed from {}", checkpoint.name());
    Trainer::restore(checkpoint, args.training())
}

/// The checkpoints that rotation kept, and the rules that keep them.
fn print_kept(store: &Store) -> Result<()> {
    let reader = store.reader();
    for (name, reasons) in store.kept()? {
        let accuracy = reader.checkpoint_by_id(name)?.metrics()?.get("accuracy").copied();
        let accuracy = accuracy.map_or("not evaluated".to_owned(), |it| format!("{:.2} %", 100.0 * it));
        println!("kept step {}, {accuracy}: {}", name.step, Vec::from_iter(reasons).join(", "));
    }
    Ok(())
}

/// The run as a page beside its folder: kills and resumes on a timeline, curves, tensors.
fn write_report(args: &Args, reader: &Reader) -> Result<()> {
    let path = args.run.with_extension("html");
    let html = report::html(reader, &report::Options::titled(args.run.display().to_string()))?;
    replace_file(&path, Some(html.len() as u64), |upload| upload.append(html.as_bytes()))?;
    println!("report: {}", path.display());
    Ok(())
}

fn progress_bar(trainer: &Trainer, samples: usize) -> ProgressBar {
    let options = trainer.settings();
    let steps = options.epochs * samples.div_ceil(options.batch_size) as u64;
    let style = ProgressStyle::with_template("{bar:40} step {pos}/{len} {msg} {per_sec} {eta} left");
    let bar = ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_position(trainer.progress().step);
    bar.reset_eta();
    bar
}
