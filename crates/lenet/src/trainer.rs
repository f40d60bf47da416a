//! A training run, one step at a time: net, optimizer, schedule, randomness, order of the data, and
//! progress. This file defines a step, and the state that a run must save for an exact resume; when
//! to save is left to the caller.

use crate::data::Dataset;
use crate::net::{Config, LeNet};
use crate::optim::{Hyper, Optimizer, OptimizerKind};
use crate::rng::Rng;
use crate::schedule::{Schedule, Scheduler};
use tensorkeep::{Checkpoint, Error, ErrorKind, Progress, Result, Snapshot};

/// The group of the optimizer's tensors in a checkpoint.
pub const OPTIMIZER_GROUP: &str = "optimizer";
/// The tensor of the current epoch's order, u32 [samples], and the record of the run's position in
/// it.
const DATA_ORDER: &str = "data_order";
/// The tensor of all losses, f32 [steps].
const LOSS_HISTORY: &str = "loss_history";

/// How to train. The defaults reach 97 % of MNIST's and of the drawn digits' test images in 5
/// epochs.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Determines the initial weights and every shuffle.
    pub seed: u64,
    /// Which optimizer.
    pub optimizer: OptimizerKind,
    /// The learning rate before the schedule.
    pub lr: f64,
    /// Samples per update, at least 1; the last batch of an epoch may be smaller.
    pub batch_size: usize,
    /// Epochs to train, for [`Trainer::is_finished`].
    pub epochs: u64,
    /// How the learning rate falls.
    pub scheduler: Schedule,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 0,
            optimizer: OptimizerKind::ADAM,
            lr: 2e-3,
            batch_size: 64,
            epochs: 5,
            scheduler: Schedule::Cosine { t_max: 5, eta_min: 1e-5 },
        }
    }
}

/// The result of one batch for the weights, computed without changing anything.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// The batch's mean loss.
    pub loss: f32,
    net: LeNet,
    samples: usize,
    /// Updates completed when they were computed.
    step: u64,
    /// Where a new epoch starts: its order, and the generator after drawing it.
    new_epoch: Option<(Vec<u32>, Rng)>,
}

/// A training run.
#[derive(Clone, Debug)]
pub struct Trainer {
    settings: Settings,
    net: LeNet,
    optimizer: Optimizer,
    scheduler: Scheduler,
    rng: Rng,
    /// Indices of the samples in the current epoch's order; empty between epochs.
    order: Vec<u32>,
    /// Samples of the order that were trained on already.
    position: usize,
    progress: Progress,
    loss_history: Vec<f32>,
    accuracy: Option<f64>,
}

impl Trainer {
    /// A new run, before its first step.
    ///
    /// # Panics
    /// When the batch size is 0.
    pub fn new(settings: Settings) -> Self {
        assert!(settings.batch_size > 0, "a batch of no samples");
        let mut rng = Rng::new(settings.seed);
        let net = LeNet::new(Config::default(), &mut rng).expect("OK because the default sizes are valid");
        Self {
            optimizer: Optimizer::new(settings.optimizer, settings.lr, net.parameters()),
            scheduler: Scheduler::new(settings.scheduler),
            net,
            rng,
            order: Vec::new(),
            position: 0,
            progress: Progress::default(),
            loss_history: Vec::new(),
            accuracy: None,
            settings,
        }
    }

    /// The net as it is now.
    pub fn net(&self) -> &LeNet {
        &self.net
    }

    /// How it trains.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Completed updates and epochs.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The loss of every update so far.
    pub fn loss_history(&self) -> &[f32] {
        &self.loss_history
    }

    /// Whether all epochs of the settings are completed.
    pub fn is_finished(&self) -> bool {
        self.progress.epoch >= self.settings.epochs
    }

    /// Exactly one update, and the loss of its batch before it.
    ///
    /// # Panics
    /// As [`Trainer::forward_backward`].
    pub fn step(&mut self, data: &Dataset) -> f32 {
        let gradients = self.forward_backward(data);
        self.apply(gradients)
    }

    /// Updates to the end of the current epoch, or through the next one when between epochs; the
    /// mean loss of them.
    ///
    /// # Panics
    /// As [`Trainer::forward_backward`].
    pub fn finish_epoch(&mut self, data: &Dataset) -> f32 {
        let (first, epoch) = (self.loss_history.len(), self.progress.epoch);
        while self.progress.epoch == epoch {
            self.step(data);
        }
        let losses = &self.loss_history[first..];
        losses.iter().sum::<f32>() / losses.len() as f32
    }

    /// The first half of a step: the gradients of the next batch. Changes nothing, so that the
    /// state before it can be saved at the same time.
    ///
    /// # Panics
    /// If the data has another number of samples than the epoch was started with; see
    /// [`Trainer::check_data`].
    pub fn forward_backward(&self, data: &Dataset) -> Gradients {
        if let Err(error) = self.check_data(data) {
            panic!("{error}");
        }
        let new_epoch = self.order.is_empty().then(|| {
            let mut rng = self.rng.clone();
            // OK to cast: no data set here has 2^32 samples.
            let mut order: Vec<u32> = (0..data.len() as u32).collect();
            rng.shuffle(&mut order);
            (order, rng)
        });
        let order = new_epoch.as_ref().map_or(&self.order, |(order, _)| order);
        let rest = &order[self.position..];
        let (images, labels) = data.batch(&rest[..rest.len().min(self.settings.batch_size)]);
        let (loss, net) = self.net.loss_and_gradient(images.view(), &labels);
        Gradients { loss, net, samples: labels.len(), step: self.progress.step, new_epoch }
    }

    /// The second half of a step: updates the weights. Returns the loss that came with the
    /// gradients.
    ///
    /// # Panics
    /// If the gradients were computed at another step: they do not belong to the current weights.
    pub fn apply(&mut self, gradients: Gradients) -> f32 {
        let Gradients { loss, net, samples, step, new_epoch } = gradients;
        assert_eq!(step, self.progress.step, "gradients of another step");
        if let Some((order, rng)) = new_epoch {
            (self.order, self.rng) = (order, rng);
        }
        let lr = self.scheduler.lr_at(self.optimizer.hyper().lr);
        self.optimizer.step(lr, self.net.parameters_mut(), net.parameters());
        self.loss_history.push(loss);
        self.accuracy = None;
        self.position += samples;
        self.progress.step += 1;
        if self.position >= self.order.len() {
            (self.order, self.position) = (Vec::new(), 0);
            self.progress.epoch += 1;
            self.scheduler.step();
        }
        loss
    }

    /// Whether the epoch can continue with this data.
    ///
    /// # Errors
    /// `Mismatch` in the middle of an epoch that was started with another number of samples.
    pub fn check_data(&self, data: &Dataset) -> Result<()> {
        if self.order.is_empty() || self.order.len() == data.len() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Mismatch, "samples in the data, in the middle of an epoch")
            .expected(self.order.len())
            .found(data.len())
            .help("resume with the data that the run was started with"))
    }

    /// The fraction of images that the net classifies correctly.
    pub fn evaluate(&self, data: &Dataset) -> f64 {
        let predicted = self.net.predict(data.images());
        let right = predicted.iter().zip(data.labels()).filter(|(a, b)| a == b).count();
        right as f64 / data.len() as f64
    }

    /// Sets the accuracy of the current net, to be saved with it as a metric. The next step clears
    /// it.
    pub fn set_accuracy(&mut self, accuracy: f64) {
        self.accuracy = Some(accuracy);
    }

    /// All state that [`Trainer::restore`] needs, borrowed.
    ///
    /// # Errors
    /// None that training itself can cause; `Invalid` as [`Snapshot::tensor`].
    pub fn snapshot(&self) -> Result<Snapshot<'_>> {
        use tensorkeep::Stateful;
        let mut snapshot =
            Snapshot::new().model(&self.net)?.state_dict(OPTIMIZER_GROUP, self.optimizer.state_dict()?)?;
        snapshot = snapshot
            .record("optimizer", &self.optimizer.hyper())?
            .record("scheduler", &self.scheduler)?
            .record("rng", &self.rng)?
            .record(DATA_ORDER, &self.position)?
            .tensor(DATA_ORDER, &self.order)?
            .tensor(LOSS_HISTORY, &self.loss_history)?
            .progress(self.progress);
        let loss = self.loss_history.last().map(|&loss| f64::from(loss));
        for (name, value) in [("loss", loss), ("accuracy", self.accuracy)] {
            // A loss that is not finite cannot be ranked; the history keeps it.
            if let Some(value) = value.filter(|value| value.is_finite()) {
                snapshot = snapshot.metric(name, value)?;
            }
        }
        Ok(snapshot)
    }

    /// The saved run, at the step at which it was saved: it continues bit for bit as if never
    /// interrupted.
    ///
    /// Weights, moments, learning rate, schedule, randomness and order come from the checkpoint;
    /// `settings` gives the batch size and the number of epochs, and must name the same kind of
    /// optimizer.
    ///
    /// # Errors
    /// `NotFound` when the checkpoint holds no such run, `Mismatch` when it is of another
    /// optimizer, `Damaged` when its parts contradict each other, and as [`Checkpoint::build`].
    pub fn restore(checkpoint: &Checkpoint, settings: Settings) -> Result<Self> {
        let named = |error: Error| error.in_object(checkpoint.name());
        let net: LeNet = checkpoint.build()?;
        let hyper: Hyper = checkpoint.record("optimizer")?;
        let mut optimizer = Optimizer::new(settings.optimizer, settings.lr, net.parameters());
        optimizer.restore(hyper).map_err(|error| named(error.in_record("optimizer")))?;
        checkpoint.load_state_dict(OPTIMIZER_GROUP, &mut optimizer)?;
        let mut restored = Self::new(settings);
        (restored.net, restored.optimizer) = (net, optimizer);
        restored.scheduler = checkpoint.record("scheduler")?;
        restored.rng = checkpoint.record("rng")?;
        restored.order = checkpoint.tensor(DATA_ORDER)?.elements::<u32>().map_err(named)?.to_vec();
        restored.position = checkpoint.record(DATA_ORDER)?;
        restored.progress = checkpoint.progress()?.unwrap_or_default();
        restored.loss_history = checkpoint.tensor(LOSS_HISTORY)?.elements::<f32>().map_err(named)?.to_vec();
        restored.accuracy = checkpoint.metrics()?.get("accuracy").copied();
        restored.check().map_err(named)?;
        Ok(restored)
    }

    /// As [`Trainer::restore`] with this trainer's settings, all or nothing: on an error it is
    /// unchanged.
    ///
    /// # Errors
    /// As [`Trainer::restore`].
    pub fn load(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        *self = Self::restore(checkpoint, self.settings.clone())?;
        Ok(())
    }

    /// Whether the parts of a checkpoint are consistent: a checksum cannot show this.
    fn check(&self) -> Result<()> {
        let damaged = |what: &'static str| Error::new(ErrorKind::Damaged, what);
        let mut sorted = self.order.clone();
        sorted.sort_unstable();
        if sorted.iter().zip(0..).any(|(&index, place)| index != place) {
            return Err(damaged("not an order of samples").expected("each once").in_tensor(DATA_ORDER));
        }
        if self.position > 0 && self.position >= self.order.len() {
            return Err(damaged("position in the order of samples")
                .expected(format!("below {}", self.order.len()))
                .found(self.position)
                .in_record(DATA_ORDER));
        }
        if self.loss_history.len() as u64 != self.progress.step {
            return Err(damaged("number of losses")
                .expected(format!("one for each of {} updates", self.progress.step))
                .found(self.loss_history.len())
                .in_tensor(LOSS_HISTORY));
        }
        Ok(())
    }
}
