//! An interrupted run continues bit for bit, from any step, or reports why it cannot.

mod common;

use common::saved;
use lenet::{Dataset, OptimizerKind, Schedule, Settings, Trainer, data};
use tensorkeep::{ErrorKind, Progress, Snapshot};

/// 100 samples in batches of 16: 7 steps an epoch, the last of them smaller.
const STEPS_PER_EPOCH: u64 = 7;

fn samples() -> Dataset {
    data::drawn(3, 0..100).unwrap()
}

fn settings(optimizer: OptimizerKind) -> Settings {
    let scheduler = Schedule::StepLr { step_size: 1, gamma: 0.5 };
    Settings { seed: 4, optimizer, lr: 0.005, batch_size: 16, epochs: 3, scheduler }
}

/// The whole state of a run, as bits: the bytes of its tensors and the values of its records.
fn state(trainer: &Trainer) -> Vec<(String, Vec<u8>)> {
    let checkpoint = saved(&trainer.snapshot().unwrap(), false);
    let tensors =
        checkpoint.names().map(|name| (name.to_owned(), checkpoint.tensor(name).unwrap().bytes().to_vec()));
    let records = checkpoint.records().map(|name| {
        (
            format!("record {name}"),
            format!("{:?}", checkpoint.inspect().record_value(name).unwrap()).into_bytes(),
        )
    });
    tensors.chain(records).collect()
}

#[test]
fn a_run_resumes_bit_for_bit_from_any_step() {
    let samples = samples();
    for optimizer in [OptimizerKind::ADAM, OptimizerKind::Sgd { momentum: 0.9, weight_decay: 1e-3 }] {
        let mut uninterrupted = Trainer::new(settings(optimizer));
        let mut snapshots = vec![saved(&uninterrupted.snapshot().unwrap(), false)];
        let steps = 2 * STEPS_PER_EPOCH + 3;
        for _ in 0..steps {
            uninterrupted.step(&samples);
            snapshots.push(saved(&uninterrupted.snapshot().unwrap(), true));
        }
        let expected = state(&uninterrupted);
        // Before the first step, inside an epoch, before its last and smaller batch, between
        // epochs, at the end.
        for step in [0, 3, STEPS_PER_EPOCH - 1, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1, steps] {
            let mut resumed = Trainer::restore(&snapshots[step as usize], settings(optimizer)).unwrap();
            assert_eq!(resumed.progress(), Progress::new(step).epoch(step / STEPS_PER_EPOCH));
            while resumed.progress().step < steps {
                resumed.step(&samples);
            }
            assert!(state(&resumed) == expected, "{} from step {step} went another way", optimizer.name());
        }
    }
}

#[test]
fn every_part_of_the_state_is_needed_to_go_on_exactly() {
    // The comparison above could be blind: a run of another seed, or one step behind, must not pass
    // it.
    let samples = samples();
    let mut trainer = Trainer::new(settings(OptimizerKind::ADAM));
    trainer.step(&samples);
    let before = state(&trainer);
    let other = Trainer::new(Settings { seed: 5, ..settings(OptimizerKind::ADAM) });
    assert!(state(&other) != before);
    trainer.step(&samples);
    assert!(state(&trainer) != before);
}

#[test]
fn gradients_change_nothing_until_they_are_applied() {
    let samples = samples();
    let mut trainer = Trainer::new(settings(OptimizerKind::ADAM));
    let mut stepped = trainer.clone();
    for _ in 0..=STEPS_PER_EPOCH {
        let before = state(&trainer);
        let gradients = trainer.forward_backward(&samples);
        assert!(state(&trainer) == before);
        let loss = trainer.apply(gradients);
        assert_eq!(loss.to_bits(), stepped.step(&samples).to_bits());
        assert!(state(&trainer) == state(&stepped));
    }
}

#[test]
#[should_panic(expected = "gradients of another step")]
fn gradients_of_another_step_are_not_applied() {
    let samples = samples();
    let mut trainer = Trainer::new(settings(OptimizerKind::ADAM));
    let early = trainer.forward_backward(&samples);
    trainer.step(&samples);
    trainer.apply(early);
}

#[test]
fn each_epoch_sees_every_sample_once_in_another_order() {
    let samples = samples();
    let mut trainer = Trainer::new(settings(OptimizerKind::SGD));
    let mut orders = Vec::new();
    for _ in 0..2 {
        trainer.step(&samples);
        let checkpoint = saved(&trainer.snapshot().unwrap(), false);
        orders.push(checkpoint.tensor("data_order").unwrap().elements::<u32>().unwrap().to_vec());
        trainer.finish_epoch(&samples);
    }
    assert_eq!(trainer.progress(), Progress::new(2 * STEPS_PER_EPOCH).epoch(2));
    assert_ne!(orders[0], orders[1]);
    for order in &mut orders {
        order.sort_unstable();
        assert!(order.iter().copied().eq(0..100));
    }
}

#[test]
fn another_optimizer_is_refused_and_nothing_is_changed() {
    let samples = samples();
    let mut adam = Trainer::new(settings(OptimizerKind::ADAM));
    adam.step(&samples);
    let checkpoint = saved(&adam.snapshot().unwrap(), false);
    let mut sgd = Trainer::new(settings(OptimizerKind::SGD));
    let before = state(&sgd);
    let error = sgd.load(&checkpoint).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("expected sgd, found adam"), "{error}");
    assert!(state(&sgd) == before);
    let mut fresh = Trainer::new(settings(OptimizerKind::ADAM));
    fresh.load(&checkpoint).unwrap();
    assert!(state(&fresh) == state(&adam));
}

#[test]
fn other_data_in_the_middle_of_an_epoch_is_refused() {
    let mut trainer = Trainer::new(settings(OptimizerKind::ADAM));
    let other = data::drawn(3, 0..99).unwrap();
    assert!(trainer.check_data(&other).is_ok(), "between epochs any data will do");
    trainer.step(&samples());
    let error = trainer.check_data(&other).unwrap_err();
    assert!(error.to_string().contains("expected 100, found 99"), "{error}");
}

#[test]
fn contradicting_parts_are_damage_and_not_a_later_panic() {
    let samples = samples();
    let mut trainer = Trainer::new(settings(OptimizerKind::ADAM));
    trainer.step(&samples);
    let with = |order: &[u32], position: usize, step: u64| {
        use tensorkeep::Stateful;
        let optimizer = lenet::Optimizer::new(OptimizerKind::ADAM, 0.005, trainer.net().parameters());
        let mut snapshot = Snapshot::new().model(trainer.net()).unwrap();
        snapshot = snapshot.state_dict("optimizer", optimizer.state_dict().unwrap()).unwrap();
        snapshot = snapshot.record("optimizer", &optimizer.hyper()).unwrap();
        snapshot = snapshot.record("scheduler", &lenet::Scheduler::new(Schedule::Constant)).unwrap();
        snapshot = snapshot.record("rng", &lenet::Rng::new(1)).unwrap();
        snapshot = snapshot.record("data_order", &position).unwrap().tensor("data_order", order).unwrap();
        snapshot =
            snapshot.tensor("loss_history", trainer.loss_history()).unwrap().progress(Progress::new(step));
        Trainer::restore(&saved(&snapshot, false), settings(OptimizerKind::ADAM)).map(drop)
    };
    with(&[2, 0, 1], 2, 1).unwrap();
    with(&[], 0, 1).unwrap();
    for (order, position, step) in
        [(&[2, 0, 3][..], 0, 1), (&[0, 0, 1], 0, 1), (&[0, 1], 2, 1), (&[], 1, 1), (&[], 0, 2)]
    {
        let error = with(order, position, step).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{order:?} {position} {step}: {error}");
    }
}

#[test]
fn metrics_belong_to_the_step_they_were_measured_at() {
    let samples = samples();
    let mut trainer = Trainer::new(settings(OptimizerKind::ADAM));
    let metrics = |trainer: &Trainer| saved(&trainer.snapshot().unwrap(), false).metrics().unwrap();
    assert!(metrics(&trainer).is_empty());
    let loss = trainer.step(&samples);
    trainer.set_accuracy(trainer.evaluate(&samples));
    let found = metrics(&trainer);
    assert_eq!((found["loss"], found["accuracy"]), (f64::from(loss), trainer.evaluate(&samples)));
    trainer.step(&samples);
    assert!(!metrics(&trainer).contains_key("accuracy"));
}
