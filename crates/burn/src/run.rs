//! A run of burn's `SupervisedTraining`: one commit for model, optimizer and scheduler, and the
//! newest that verifies instead of a number typed by hand.

use crate::module::load_module;
use crate::record::{
    BurnRecord, Kind, Rest, Taken, check_kind, check_same_fields, kind_of, load_record, save_record,
};
use burn_core::config::Config;
use burn_core::store::ModuleRecord;
use burn_optim::OptimizerRecord;
use burn_optim::lr_scheduler::LrSchedulerRecord;
use burn_train::checkpoint::{Checkpointer, CheckpointerError, CheckpointingAction, CheckpointingStrategy};
use burn_train::metric::store::{Aggregate, EventStoreClient, Split};
use burn_train::{Interrupter, Learner, LearnerModel, SupervisedTraining};
use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tensorkeep::engine::IntoEngine;
use tensorkeep::{Checkpoint, Error, ErrorKind, Progress, Result, SaveReason, Snapshot, Store, StoreOptions};

const MODEL: &str = "model";
const OPTIMIZER: &str = "optimizer";
const SCHEDULER: &str = "scheduler";
/// burn's own metric of every classification and regression.
const LOSS: &str = "Loss";

/// The checkpoints of one training by burn's learner. Its steps are epochs: burn's learner asks for
/// checkpoints between epochs only.
///
/// The one line to change is `.with_default_checkpointers()`:
///
/// ```no_run
/// # use burn_optim::AdamWConfig;
/// # use burn_optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
/// # use burn_train::{Learner, LearnerModel, SupervisedTraining};
/// # use tensorkeep::{Every, Keep, Mode, Result, StoreOptions};
/// # use tensorkeep_burn::Run;
/// # fn train<M: LearnerModel>(training: SupervisedTraining<M>, model: M, scheduler: ModuleLrScheduler) -> Result<()> {
/// let adamw = AdamWConfig::new();
/// let learner = Learner::new(model, adamw.init(), scheduler);
/// let options = StoreOptions::new()
///     .save(Every::epochs(1).or_on_signal())
///     .keep(Keep::last(2).or(Keep::best("valid_loss", Mode::Min, 1)));
/// let run = Run::open("runs/mnist", options)?;
/// let training = run.attach(training.num_epochs(10), &learner, &adamw)?;
/// training.launch(learner);
/// run.close()
/// # }
/// ```
///
/// **What a kill leaves:** the newest checkpoint is the last epoch whose commit was durable, with
/// all three parts. burn's own checkpointers write three files by three threads, so a kill may
/// leave parts of different epochs.
///
/// **What is recorded:** parameters, the optimizer's state, the scheduler's position, and the mean
/// losses of the epoch as `train_loss` and `valid_loss`. What is not: the loader's generator and
/// the device's, which burn does not let anybody read. [`ShuffledLoader`](crate::ShuffledLoader)
/// makes both functions of the epoch.
pub struct Run(Arc<Shared>);

struct Shared {
    store: Store,
    resumed: Option<Checkpoint>,
    completed: u64,
    /// The kind of optimizer, known from the first training that was attached.
    kind: OnceLock<String>,
    /// Parts that have arrived, by epoch.
    parts: Mutex<BTreeMap<usize, Parts>>,
}

#[derive(Default)]
struct Parts {
    model: Option<ModuleRecord>,
    optimizer: Option<OptimizerRecord>,
    scheduler: Option<LrSchedulerRecord>,
}

impl Run {
    /// Opens a run, a path or an engine, and finds the newest checkpoint that verifies.
    ///
    /// # Errors
    /// As [`Store::open`] and [`Store::resume`].
    pub fn open(place: impl IntoEngine, options: StoreOptions) -> Result<Self> {
        let store = Store::open(place, options)?;
        let resumed = store.resume()?;
        let completed = resumed.progress.epoch;
        let (kind, parts) = (OnceLock::new(), Mutex::default());
        Ok(Self(Arc::new(Shared { store, resumed: resumed.checkpoint, completed, kind, parts })))
    }

    /// Epochs that are behind the run: what [`ShuffledLoader`](crate::ShuffledLoader) goes on from.
    pub fn completed_epochs(&self) -> u64 {
        self.0.completed
    }

    /// The checkpoint that the run goes on from.
    pub fn resumed(&self) -> Option<&Checkpoint> {
        self.0.resumed.as_ref()
    }

    /// The store, to list, pin or read.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Makes a training save to this run and go on where the run is: it sets the checkpointers, the
    /// strategy and the epoch, and stops the training when a signal was answered by a save.
    ///
    /// `config` is what the learner's optimizer was built from, such as `AdamWConfig`: burn's
    /// optimizers do not say of which kind they are, so the name of its type is recorded. For
    /// several optimizers, pass a type of your own that holds their configurations.
    ///
    /// All of the checkpoint is read and compared with the learner's model before the training is
    /// touched. burn panics at a model of another architecture.
    ///
    /// # Errors
    /// `Mismatch` when the learner's model is another one than the run's, with the names, or the
    /// optimizer is of another kind; `Invalid` for a second training with another kind; `Damaged`,
    /// `Io`.
    pub fn attach<M: LearnerModel, C: Config>(
        &self,
        training: SupervisedTraining<M>,
        learner: &Learner<M>,
        config: &C,
    ) -> Result<SupervisedTraining<M>> {
        let shared = &self.0;
        let kind = kind_of(config);
        if let Some(first) = shared.kind.get().filter(|first| **first != kind) {
            let error = Error::new(ErrorKind::Invalid, "another kind of optimizer in the same run");
            return Err(error.expected(first).found(kind));
        }
        let strategy = Strategy { shared: Arc::clone(shared), interrupter: training.interrupter() };
        let part = || Part(Arc::clone(shared));
        let mut training =
            training.with_custom_checkpointers(part(), part(), part()).with_checkpointing_strategy(strategy);
        if let Some(checkpoint) = &shared.resumed {
            let saved = Rest::read(checkpoint, OPTIMIZER, Kind::Optimizer)?;
            check_kind(&saved, &kind)
                .map_err(|error| error.in_record(OPTIMIZER).in_object(checkpoint.name()))?;
            load_module(checkpoint, MODEL, &mut learner.model())?;
            load_record::<OptimizerRecord>(checkpoint, OPTIMIZER)?;
            load_record::<LrSchedulerRecord>(checkpoint, SCHEDULER)?;
            let epoch = usize::try_from(shared.completed);
            let epoch = epoch.map_err(|_| Error::new(ErrorKind::Invalid, "number of epochs"))?;
            training = training.checkpoint(epoch);
        }
        shared.kind.get_or_init(|| kind);
        Ok(training)
    }

    /// Ends the run. Call it when the training is over.
    ///
    /// # Errors
    /// As [`Store::close`]; `Invalid` while a training still holds the run.
    pub fn close(self) -> Result<()> {
        match Arc::into_inner(self.0) {
            Some(shared) => shared.store.close(),
            None => {
                Err(Error::new(ErrorKind::Invalid, "a training that was not launched still holds the run"))
            }
        }
    }
}

impl Shared {
    fn lock_parts(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Parts>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a part of an epoch. The last of three commits them: each comes on a thread of its own.
    fn add(&self, epoch: usize, part: impl FnOnce(&mut Parts)) -> Result<()> {
        let mut all = self.lock_parts();
        let parts = all.entry(epoch).or_default();
        part(parts);
        let Parts { model: Some(_), optimizer: Some(_), scheduler: Some(_) } = parts else { return Ok(()) };
        let Some(Parts { model: Some(model), optimizer: Some(optimizer), scheduler: Some(scheduler) }) =
            all.remove(&epoch)
        else {
            return Ok(());
        };
        let mut optimizer = Taken::of(optimizer)?;
        optimizer.rest.optimizer = self.kind.get().cloned();
        let scheduler = Taken::of(scheduler)?;
        if let Some(checkpoint) = &self.resumed {
            // burn starts what it cannot load anew, without a word: the first save shows it.
            let saved = Rest::read(checkpoint, OPTIMIZER, Kind::Optimizer)?;
            check_same_fields("kind of optimizer", &saved, &optimizer.rest)?;
            let saved = Rest::read(checkpoint, SCHEDULER, Kind::Scheduler)?;
            check_same_fields("kind of scheduler", &saved, &scheduler.rest)?;
        }
        let snapshot = save_record(Snapshot::new(), MODEL, model)?;
        let snapshot = scheduler.add_to(optimizer.add_to(snapshot, OPTIMIZER)?, SCHEDULER)?;
        // Still locked: commits are in the order of the epochs.
        self.store.save(&snapshot.progress(progress(epoch)))?;
        Ok(())
    }

    fn restore<R: BurnRecord>(&self, epoch: usize, group: &str) -> Result<R> {
        match &self.resumed {
            Some(checkpoint) if self.completed == epoch as u64 => load_record(checkpoint, group),
            _ => load_record(&self.store.checkpoint(epoch as u64)?, group),
        }
    }
}

fn progress(epoch: usize) -> Progress {
    Progress::new(epoch as u64).epoch(epoch as u64)
}

/// One of burn's three checkpointers.
struct Part(Arc<Shared>);

macro_rules! checkpointers {
    ($($record:ident $field:ident $group:ident),*) => {
        $(impl Checkpointer<$record> for Part {
            fn save(&self, epoch: usize, record: $record) -> Result<(), CheckpointerError> {
                self.0.add(epoch, |parts| parts.$field = Some(record)).map_err(told)
            }

            /// Rotation is the store's.
            fn delete(&self, _: usize) -> Result<(), CheckpointerError> {
                Ok(())
            }

            fn restore(&self, epoch: usize) -> Result<$record, CheckpointerError> {
                self.0.restore(epoch, $group).map_err(told)
            }
        })*
    };
}

checkpointers! {
    ModuleRecord model MODEL, OptimizerRecord optimizer OPTIMIZER, LrSchedulerRecord scheduler SCHEDULER
}

/// An error as burn's, with its causes.
fn told(error: Error) -> CheckpointerError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    CheckpointerError::Unknown(text)
}

/// When to save, by the store's schedule.
struct Strategy {
    shared: Arc<Shared>,
    interrupter: Interrupter,
}

impl CheckpointingStrategy for Strategy {
    fn checkpointing(&mut self, epoch: usize, collector: &EventStoreClient) -> Vec<CheckpointingAction> {
        let store = &self.shared.store;
        let progress = progress(epoch);
        for (name, split) in [("train_loss", Split::Train), ("valid_loss", Split::Valid)] {
            let loss = collector.find_metric(LOSS, epoch, Aggregate::Mean, &split);
            store.log(&progress, loss.map(|loss| (name, loss)));
        }
        let due = store.due(&progress);
        if store.should_stop() || matches!(due, Some(SaveReason::Signal)) {
            self.interrupter.stop(Some("a signal, answered by a checkpoint"));
        }
        due.map(|_| CheckpointingAction::Save).into_iter().collect()
    }
}
