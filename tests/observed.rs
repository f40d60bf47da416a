//! Metrics and progress are given once: the metrics observed at a step are in the checkpoint of
//! that step, and in no other.

use std::collections::BTreeMap;
use tensorkeep::engine::Memory;
use tensorkeep::{ErrorKind, Every, Keep, Mode, Progress, Snapshot, Store, StoreOptions};

fn store() -> Store {
    let options = StoreOptions::new().save(Every::on_best("loss", Mode::Min).or(Every::steps(100)));
    Store::open(Memory::new(), options).unwrap()
}

fn snapshot() -> Snapshot<'static> {
    Snapshot::new().tensor("w", &[1.0_f32]).unwrap()
}

/// Step and metrics of the newest checkpoint.
fn newest(store: &Store) -> (u64, BTreeMap<String, f64>) {
    let checkpoint = store.latest().unwrap().unwrap();
    let info = store.list().unwrap().pop().unwrap();
    let said = info.state.unwrap();
    let metrics = checkpoint.metrics().unwrap();
    assert_eq!((said.metrics, said.progress), (metrics.clone(), checkpoint.progress().unwrap().unwrap()));
    (said.progress.step, metrics)
}

fn loss(value: f64) -> BTreeMap<String, f64> {
    BTreeMap::from([("loss".to_owned(), value)])
}

#[test]
fn metrics_observed_at_a_step_are_saved_with_it() {
    let store = store();
    store.observe("loss", 0.5);
    assert!(store.due(&Progress::new(7)).is_some());
    store.save(&snapshot()).unwrap();
    assert_eq!(newest(&store), (7, loss(0.5)));

    // In the background, too; the snapshot's own metric takes precedence.
    store.observe("loss", 0.4);
    assert!(store.due(&Progress::new(8)).is_some());
    store.stage(&snapshot()).unwrap().unwrap().wait().unwrap();
    assert_eq!(newest(&store), (8, loss(0.4)));
    store.observe("loss", 0.3);
    assert!(store.due(&Progress::new(9)).is_some());
    store.save(&snapshot().metric("loss", 0.25).unwrap()).unwrap();
    assert_eq!(newest(&store), (9, loss(0.25)));
}

#[test]
fn what_is_not_finite_is_told_and_ranks_nothing() {
    let options = StoreOptions::new().keep(Keep::last(1).or(Keep::best("accuracy", Mode::Max, 1)));
    let store = Store::open(Memory::new(), options).unwrap();
    for (step, accuracy) in [(1, 0.5), (2, f64::NAN), (3, f64::INFINITY), (4, 0.25)] {
        let progress = Progress::new(step);
        store.log(&progress, [("accuracy", accuracy), ("loss", 1.0)]);
        store.save(&snapshot().progress(progress)).unwrap();
        let said = store.list().unwrap().pop().unwrap().state.unwrap();
        let (name, value) = ("accuracy".to_owned(), accuracy);
        let (ranked, other) = if accuracy.is_finite() {
            (said.metrics.get(&name), said.not_finite.is_empty().then_some(&value))
        } else {
            (said.not_finite.get(&name), said.metrics.get("loss"))
        };
        assert_eq!(ranked.map(|ranked| ranked.to_bits()), Some(accuracy.to_bits()), "step {step}");
        assert!(other.is_some() && newest(&store).1.values().all(|value| value.is_finite()), "step {step}");
    }
    let kept: Vec<u64> = store.list().unwrap().iter().map(|info| info.id.step).collect();
    assert_eq!(kept, [1, 4], "the best is a number");
}

#[test]
fn a_metric_of_an_earlier_step_is_not_the_states() {
    let store = store();
    store.observe("loss", 0.5);
    assert!(store.due(&Progress::new(7)).is_some());
    // That save is skipped; the state trained on.
    assert!(store.due(&Progress::new(8)).is_some());
    let saved = store.save(&snapshot()).unwrap();
    assert_eq!(newest(&store), (8, BTreeMap::new()));
    assert!(saved.warnings[0].contains("\"loss\" was observed at another step"), "{:?}", saved.warnings);
    store.observe("loss", 0.1);
    store.save(&snapshot().progress(Progress::new(9))).unwrap();
    assert_eq!(newest(&store), (9, BTreeMap::new()));
}

#[test]
fn a_save_without_any_progress_is_refused() {
    let store = store();
    let error = store.save(&snapshot()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("does not say how far training is"), "{error}");
}
