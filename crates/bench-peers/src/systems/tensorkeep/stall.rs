//! A save's effect on the trainer: its stall, and the slowdown of steps during the save. The steps
//! are those of the LeNet of the examples.

use super::snapshot;
use crate::Outcome;
use crate::ops::{Call, Found};
use crate::system::Work;
use crate::workloads::State;
use lenet::data::{self, Dataset};
use lenet::{Settings as Training, Trainer};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tensorkeep::engine::Local;
use tensorkeep::{Dtype, Keep, PendingSave, Progress, Snapshot, Store, StoreOptions, Tensor};

/// A run of its own beside the workload's file, with ascending steps; only the newest checkpoint
/// stays.
struct Run {
    store: Store,
    step: Cell<u64>,
}

impl Run {
    fn open(work: &Work, settings: StoreOptions) -> Outcome<Rc<Self>> {
        let engine = Local::create(work.file.with_extension("run"))?;
        let store = Store::open(engine, settings.keep(Keep::last(1)))?;
        // Each measurement counts its steps from 1, in a folder that earlier ones may have used.
        store.start_over();
        Ok(Rc::new(Self { store, step: Cell::new(0) }))
    }

    fn next(&self) -> Progress {
        self.step.set(self.step.get() + 1);
        Progress::new(self.step.get())
    }
}

/// The copy is timed, writing is not.
pub fn stage(work: &Work) -> Outcome<Call> {
    let run = Run::open(work, StoreOptions::new())?;
    let (state, waiting) = (Arc::clone(&work.state), Rc::clone(&run));
    let measured = move || {
        let mut snapshot = snapshot(&state)?;
        snapshot = snapshot.progress(run.next());
        run.store.stage(&snapshot)?;
        Ok(Found::Nothing)
    };
    Ok(Call::new(measured).after(move || Ok(waiting.store.wait()?)))
}

/// Handing over is timed, writing is not.
pub fn save_async(work: &Work) -> Outcome<Call> {
    let run = Run::open(work, StoreOptions::new())?;
    let (state, waiting) = (Arc::clone(&work.state), Rc::clone(&run));
    let measured = move || {
        run.store.save_async(shared(&state, run.next())?)?;
        Ok(Found::Nothing)
    };
    Ok(Call::new(measured).after(move || Ok(waiting.store.wait()?)))
}

/// The closure is a trainer's forward and backward pass, repeated for four times the duration of a
/// save: a disk's worst save takes twice its usual one. The figure is the time from the closure's
/// end to the return of `save_during`.
pub fn save_during(work: &Work, nice: u8) -> Outcome<Call> {
    let run = Run::open(work, StoreOptions::new().background_nice(nice))?;
    let state = Arc::clone(&work.state);
    let (trainer, data) = (Trainer::new(Training::default()), drawn()?);
    let start = Instant::now();
    run.store.save(&snapshot(&state)?.progress(run.next()))?;
    let long = start.elapsed() * 4;
    Ok(Call::new(move || {
        let mut snapshot = snapshot(&state)?;
        snapshot = snapshot.progress(run.next());
        let start = Instant::now();
        let (worked, saved) = run.store.save_during(&snapshot, || {
            let start = Instant::now();
            while start.elapsed() < long {
                std::hint::black_box(trainer.forward_backward(&data));
            }
            start.elapsed()
        });
        let stall = start.elapsed() - worked;
        saved?;
        Ok(Found::Times(vec![("save_during".to_owned(), stall.as_secs_f64())]))
    }))
}

/// Steps of one trainer, and of two on two threads, which leave no core to the save.
pub fn step_time(work: &Work, nice: u8) -> Outcome<Call> {
    let run = Run::open(work, StoreOptions::new().background_nice(nice))?;
    let (state, data) = (Arc::clone(&work.state), drawn()?);
    Ok(Call::new(move || {
        let mut times = Vec::new();
        for threads in [1, 2] {
            let mut record = |what: &str, steps: Vec<Duration>| {
                let name = format!("step {what}, {threads} busy");
                times.extend(steps.iter().map(|step| (name.clone(), step.as_secs_f64())));
            };
            record("alone", steps(threads, &data, |done| done >= ALONE));
            let pending = run.store.save_async(shared(&state, run.next())?)?.ok_or("no place for a save")?;
            record("beside a save", steps(threads, &data, |_| is_durable(&pending)));
            run.store.wait()?;
        }
        Ok(Found::Times(times))
    }))
}

/// Steps from which the duration of one is estimated.
const ALONE: usize = 40;

fn is_durable(pending: &PendingSave) -> bool {
    pending.outcome().is_some()
}

/// The duration of each step, on `threads` threads, until `enough` is true for the number of steps
/// of the first.
fn steps(threads: usize, data: &Dataset, enough: impl Fn(usize) -> bool) -> Vec<Duration> {
    let stop = AtomicBool::new(false);
    let train = |is_enough: &dyn Fn(usize) -> bool| {
        let mut trainer = Trainer::new(Training::default());
        let mut times = Vec::new();
        while !is_enough(times.len()) {
            let start = Instant::now();
            trainer.step(data);
            times.push(start.elapsed());
        }
        times
    };
    std::thread::scope(|scope| {
        let others: Vec<_> =
            (1..threads).map(|_| scope.spawn(|| train(&|_| stop.load(Ordering::Relaxed)))).collect();
        let mut times = train(&enough);
        stop.store(true, Ordering::Relaxed);
        for other in others {
            times.extend(other.join().unwrap_or_default());
        }
        times
    })
}

fn drawn() -> Outcome<Dataset> {
    Ok(data::drawn(0, 0..2_000)?)
}

/// One tensor's range of the state, which keeps it alive.
struct Part {
    state: Arc<State>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.state.all()[self.range.clone()]
    }
}

/// A snapshot that shares the state instead of borrowing it.
fn shared(state: &Arc<State>, progress: Progress) -> Outcome<Snapshot<'static>> {
    let mut snapshot = Snapshot::new().progress(progress);
    for entry in &state.tensors {
        let part = Part { state: Arc::clone(state), range: entry.offset..entry.offset + entry.len };
        snapshot = snapshot.tensor(&entry.name, Tensor::shared(Dtype::F32, &entry.shape, Arc::new(part))?)?;
    }
    Ok(snapshot)
}
