//! burn's learner: stopped, and resumed from its newest checkpoint, which is one commit; and
//! misuse that is refused.

use burn::config::Config;
use burn::data::dataloader::{DataLoader, batcher::Batcher};
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::exponential::ExponentialLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::metric::LossMetric;
use burn::train::{
    ClassificationOutput, InferenceStep, Learner, LearningResult, SupervisedTraining, TrainOutput, TrainStep,
};
use std::sync::{Arc, Mutex};
use tensorkeep::engine::Memory;
use tensorkeep::{Checkpoint, ErrorKind, Every, Keep, Mode, Reader, StoreOptions};
use tensorkeep_burn::{Run, ShuffledLoader};
use test_support::TempFolder;

/// burn has one generator for the whole process: tests that seed it and draw take turns.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[derive(Module, Debug)]
struct Net {
    hidden: Linear,
    dropout: Dropout,
    out: Linear,
}

impl Net {
    fn new(width: usize) -> Self {
        let device = Device::default().autodiff();
        device.seed(7);
        Self {
            hidden: LinearConfig::new(4, width).init(&device),
            dropout: DropoutConfig::new(0.3).init(),
            out: LinearConfig::new(width, 3).init(&device),
        }
    }

    fn classify(&self, batch: Batch) -> ClassificationOutput {
        let output = self.out.forward(self.dropout.forward(self.hidden.forward(batch.inputs)));
        let loss = CrossEntropyLossConfig::new().init(&output.device());
        let loss = loss.forward(output.clone(), batch.targets.clone());
        ClassificationOutput::new(loss, output, batch.targets)
    }
}

#[derive(Clone, Debug)]
struct Batch {
    inputs: Tensor<2>,
    targets: Tensor<1, Int>,
}

impl TrainStep for Net {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let item = self.classify(batch);
        TrainOutput::new(self, item.loss.backward(), item)
    }
}

impl InferenceStep for Net {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.classify(batch)
    }
}

struct Batches;

impl Batcher<u32, Batch> for Batches {
    fn batch(&self, items: Vec<u32>, device: &Device) -> Batch {
        let inputs: Vec<f32> =
            items.iter().flat_map(|&item| (0..4).map(move |i| ((item + i) % 5) as f32)).collect();
        let targets: Vec<i64> = items.iter().map(|&item| i64::from(item % 3)).collect();
        Batch {
            inputs: Tensor::from_data(TensorData::new(inputs, [items.len(), 4]), device),
            targets: Tensor::from_data(TensorData::new(targets, [items.len()]), device),
        }
    }
}

fn options() -> StoreOptions {
    let keep = Keep::last(2).or(Keep::best("valid_loss", Mode::Min, 1));
    StoreOptions::new().save(Every::epochs(1)).keep(keep)
}

fn exponential() -> ModuleLrScheduler {
    ExponentialLrSchedulerConfig::new(0.01, 0.99).init().unwrap()
}

fn loader(completed: u64) -> ShuffledLoader<u32, Batch> {
    ShuffledLoader::new(InMemDataset::new((0..40).collect()), Batches, 8, 1, completed)
}

/// Trains with Adam until so many epochs are completed, and closes the run.
fn train(place: &Memory, epochs: usize) -> LearningResult<Net> {
    let adam = AdamConfig::new();
    train_with(place, epochs, &adam, adam.init(), exponential()).unwrap()
}

fn train_with(
    place: &Memory,
    epochs: usize,
    config: &impl Config,
    optimizer: ModuleOptimizer,
    scheduler: ModuleLrScheduler,
) -> tensorkeep::Result<LearningResult<Net>> {
    let logs = TempFolder::new("burn-logs");
    let run = Run::open(place.clone(), options()).unwrap();
    let learner = Learner::new(Net::new(6), optimizer, scheduler);
    let training =
        SupervisedTraining::new(logs.path(), Arc::new(loader(run.completed_epochs())), Arc::new(loader(0)))
            .metric_train_numeric(LossMetric::new())
            .metric_valid_numeric(LossMetric::new())
            .with_application_logger(None)
            .num_epochs(epochs);
    let result = run.attach(training, &learner, config).map(|training| training.launch(learner));
    run.close().unwrap();
    result
}

fn latest(place: &Memory) -> Checkpoint {
    Reader::new(place.clone()).latest().unwrap().unwrap()
}

fn tensors(checkpoint: &Checkpoint) -> Vec<(String, Vec<u8>)> {
    let names = checkpoint.names().map(str::to_owned);
    names.map(|name| (name.clone(), checkpoint.tensor(&name).unwrap().bytes().to_vec())).collect()
}

#[test]
fn a_learner_that_went_on_is_one_that_never_stopped() {
    let _turn = ONE_AT_A_TIME.lock().unwrap();
    let (straight, stopped) = (Memory::new(), Memory::new());
    assert!(train(&straight, 5).error.is_none());
    train(&stopped, 2);
    assert_eq!(latest(&stopped).progress().unwrap().unwrap().epoch, 2);
    train(&stopped, 5);

    let (expected, found) = (latest(&straight), latest(&stopped));
    assert_eq!(found.progress().unwrap().unwrap().epoch, 5);
    let names: Vec<&str> = found.names().collect();
    assert!(names.contains(&"model/hidden.weight"), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("optimizer/out.bias.")), "{names:?}");
    assert!(found.records().any(|record| record == "scheduler"));
    assert_eq!(tensors(&found), tensors(&expected));
    assert_eq!(
        found.inspect().record_value("scheduler").unwrap(),
        expected.inspect().record_value("scheduler").unwrap()
    );

    // Three parts, one checkpoint for each epoch that is kept, ranked by burn's own metric.
    let metrics = found.metrics().unwrap();
    assert!(metrics["valid_loss"] > 0.0 && metrics["train_loss"] > 0.0, "{metrics:?}");
    assert!(Reader::new(stopped).ids().unwrap().len() <= 3);
}

#[test]
fn a_model_of_another_architecture_is_refused_before_training() {
    let _turn = ONE_AT_A_TIME.lock().unwrap();
    let place = Memory::new();
    train(&place, 1);
    let run = Run::open(place, options()).unwrap();
    let logs = TempFolder::new("burn-logs");
    let adam = AdamConfig::new();
    let learner = Learner::new(Net::new(7), adam.init(), exponential());
    let training = SupervisedTraining::new(logs.path(), Arc::new(loader(1)), Arc::new(loader(0)));
    let error = run.attach(training, &learner, &adam).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("hidden.weight (expected f32 [4, 7], found f32 [4, 6])"), "{error}");
    run.close().unwrap();
}

/// Their states look alike; the names of the configurations do not.
#[test]
fn another_kind_of_optimizer_is_refused_before_training() {
    let _turn = ONE_AT_A_TIME.lock().unwrap();
    let place = Memory::new();
    train(&place, 2);
    let adamw = AdamWConfig::new();
    let error = train_with(&place, 4, &adamw, adamw.init(), exponential()).err().expect("an error");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert_eq!(error.to_string().matches("expected AdamConfig, found AdamWConfig").count(), 1, "{error}");
    assert_eq!(latest(&place).progress().unwrap().unwrap().epoch, 2);
    let heavier = AdamConfig::new().with_epsilon(1e-7);
    assert!(train_with(&place, 3, &heavier, heavier.init(), exponential()).unwrap().error.is_none());
}

/// burn starts them anew without a word; the first save finds it, and overwrites nothing.
#[test]
fn what_burn_has_started_anew_ends_the_training() {
    let _turn = ONE_AT_A_TIME.lock().unwrap();
    let place = Memory::new();
    train(&place, 2);
    let error = |optimizer, scheduler| {
        let result = train_with(&place, 4, &AdamConfig::new(), optimizer, scheduler).unwrap();
        result.error.expect("an error").to_string()
    };
    // The configuration says something else than it is.
    let sgd = error(SgdConfig::new().with_momentum(Some(MomentumConfig::new())).init(), exponential());
    assert!(sgd.contains("kind of optimizer"), "{sgd}");
    let cosine = CosineAnnealingLrSchedulerConfig::new(0.01, 100).init().unwrap();
    let scheduler = error(AdamConfig::new().init(), cosine);
    assert!(scheduler.contains("kind of scheduler"), "{scheduler}");
    assert_eq!(latest(&place).progress().unwrap().unwrap().epoch, 2);
}

#[test]
fn a_run_is_not_closed_while_a_training_holds_it() {
    let _turn = ONE_AT_A_TIME.lock().unwrap();
    let run = Run::open(Memory::new(), options()).unwrap();
    let logs = TempFolder::new("burn-logs");
    let adam = AdamConfig::new();
    let learner = Learner::new(Net::new(6), adam.init(), exponential());
    let training = || SupervisedTraining::new(logs.path(), Arc::new(loader(0)), Arc::new(loader(0)));
    let other = AdamWConfig::new();
    let training = (run.attach(training(), &learner, &adam).unwrap(), training());
    assert_eq!(run.attach(training.1, &learner, &other).err().unwrap().kind(), ErrorKind::Invalid);
    assert_eq!(run.close().unwrap_err().kind(), ErrorKind::Invalid);
    drop(training.0);
}

/// Each epoch has every sample once; a loader that is told of two epochs goes on with the third.
#[test]
fn a_loader_goes_on_with_the_epoch_it_is_told() {
    let _turn = ONE_AT_A_TIME.lock().unwrap();
    let epoch = |loader: &ShuffledLoader<u32, Batch>| -> Vec<f32> {
        let batches = loader.iter().map(|batch| batch.unwrap());
        batches.flat_map(|batch| batch.inputs.into_data().try_into_vec::<f32>().unwrap()).collect()
    };
    let straight = loader(0);
    let orders: Vec<Vec<f32>> = (0..4).map(|_| epoch(&straight)).collect();
    assert_eq!(orders[0].len(), 160);
    assert_ne!(orders[0], orders[1]);
    let resumed = loader(2);
    assert_eq!([epoch(&resumed), epoch(&resumed)], [orders[2].clone(), orders[3].clone()]);
    let copy = loader(2).to_device(&Device::default());
    assert_eq!((copy.num_items(), copy.slice(0, 10).num_items()), (40, 10));
}
