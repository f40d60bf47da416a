//! A run's history in its checkpoints: curves that rotation, kills and copies leave whole, cut
//! where a kill or a rollback lost steps, and the lives of all attempts with their ends.

use counting::Counting;
use std::sync::Arc;
use tensorkeep::engine::{Engine, Local, Memory};
use tensorkeep::history::{History, LifeEnd};
use tensorkeep::{
    Checkpoint, CheckpointId, Every, Keep, Mode, Progress, Reader, Snapshot, Store, StoreOptions,
};
use test_support::TempFolder;

/// An engine that counts its calls.
mod counting {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tensorkeep::engine::{Decorator, Memory};

    #[derive(Debug, Default)]
    pub struct Counting(Memory, AtomicUsize);

    impl Counting {
        pub fn take(&self) -> usize {
            self.1.swap(0, Ordering::Relaxed)
        }
    }

    impl Decorator for Counting {
        type Inner = Memory;

        fn inner(&self) -> &Memory {
            self.1.fetch_add(1, Ordering::Relaxed);
            &self.0
        }
    }
}

fn open(engine: &Arc<dyn Engine>, options: StoreOptions) -> Store {
    let store = Store::open(Arc::clone(engine), options).unwrap();
    store.resume().unwrap();
    store
}

fn last(count: usize) -> StoreOptions {
    StoreOptions::new().keep(Keep::last(count))
}

/// Logs a loss at each of these steps, and saves at the last.
fn train(store: &Store, steps: std::ops::RangeInclusive<u64>) {
    let end = *steps.end();
    log(store, steps);
    store.save(&snapshot(end)).unwrap();
}

fn log(store: &Store, steps: std::ops::RangeInclusive<u64>) {
    for step in steps {
        store.log(&progress(step), [("loss", 1.0 / step as f64)]);
    }
}

fn progress(step: u64) -> Progress {
    Progress::new(step).epoch(step / 100)
}

fn snapshot(step: u64) -> Snapshot<'static> {
    Snapshot::new().tensor("w", &[0.5_f32]).unwrap().progress(progress(step))
}

fn history(engine: &Arc<dyn Engine>) -> History {
    Reader::new(Arc::clone(engine)).history().unwrap()
}

fn steps(history: &History) -> Vec<u64> {
    history.metrics.get("loss").map(|loss| loss.steps.clone()).unwrap_or_default()
}

fn ends(history: &History) -> Vec<(u32, String)> {
    history.lives.iter().map(|life| (life.attempt, life.end.to_string())).collect()
}

fn memory() -> Arc<dyn Engine> {
    Arc::new(Memory::new())
}

#[test]
fn one_checkpoint_has_the_curve_of_the_whole_run() {
    let engine = memory();
    let store = open(&engine, last(1));
    train(&store, 1..=50);
    train(&store, 51..=120);
    store.close().unwrap();
    let loss = &history(&engine).metrics["loss"];
    assert_eq!(loss.steps, (1..=120).collect::<Vec<_>>());
    assert_eq!((loss.values[119], loss.epochs[119], loss.logged), (1.0 / 120.0, 1, 120));
    assert!(loss.times.iter().all(|&time| time > 1.6e9));
    let newest = Reader::new(Arc::clone(&engine)).latest().unwrap().unwrap();
    assert_eq!(&newest.inspect().history().unwrap().unwrap().metrics["loss"], loss);
}

#[test]
fn a_kill_cuts_what_it_lost() {
    let engine = memory();
    let store = open(&engine, last(2));
    train(&store, 1..=10);
    log(&store, 11..=17);
    drop(store);
    assert_eq!(steps(&history(&engine)), (1..=10).collect::<Vec<_>>());
    let store = open(&engine, last(2));
    log(&store, 11..=14);
    store.save(&snapshot(12)).unwrap();
    assert!(!history(&engine).metrics["loss"].is_thinned(), "what was cut off was not thinned");
    assert_eq!(steps(&history(&engine)), (1..=12).collect::<Vec<_>>());
    let history = history(&engine);
    assert_eq!(ends(&history), [(1, "died".to_owned()), (2, "running".to_owned())]);
    let [first, second] = &history.lives[..] else { panic!("{history:?}") };
    assert_eq!((first.first_step, first.last_step, first.saves), (Some(0), Some(10), 1));
    assert_eq!((second.first_step, second.last_step, second.saves), (Some(10), Some(12), 1));
    assert_eq!(second.resumed_from, Some(CheckpointId { attempt: 1, step: 10 }));
    assert_eq!((&first.host, first.pid), (&second.host, std::process::id()));
}

#[test]
fn a_rollback_cuts_the_curve_and_keeps_the_lives() {
    let engine = memory();
    let store = open(&engine, StoreOptions::new());
    train(&store, 1..=10);
    train(&store, 11..=20);
    store.close().unwrap();
    let store = open(&engine, StoreOptions::new());
    train(&store, 21..=30);
    store.close().unwrap();
    let store = Store::open(Arc::clone(&engine), StoreOptions::new()).unwrap();
    store.resume_at(10).unwrap();
    store.save(&snapshot(11).metric("loss", 9.0).unwrap()).unwrap();
    let history = history(&engine);
    assert_eq!(steps(&history), (1..=11).collect::<Vec<_>>());
    assert_eq!(history.metrics["loss"].last().unwrap().value, 9.0);
    let closed = || "closed".to_owned();
    assert_eq!(ends(&history), [(1, closed()), (2, closed()), (3, "running".to_owned())]);
    assert_eq!(history.life(2).and_then(|life| life.last_step), Some(30));
}

#[test]
fn steps_that_are_run_again_do_not_inherit_metrics() {
    let engine = memory();
    let store = open(&engine, StoreOptions::new());
    train(&store, 1..=10);
    drop(store);
    let store = open(&engine, StoreOptions::new());
    store.save(&snapshot(5)).unwrap();
    let newest = store.latest().unwrap().unwrap();
    assert!(newest.metrics().unwrap().is_empty(), "that loss was of another state");
}

#[test]
fn starting_over_begins_a_curve_and_keeps_the_lives() {
    let engine = memory();
    let store = open(&engine, StoreOptions::new());
    train(&store, 1..=10);
    drop(store);
    let store = Store::open(Arc::clone(&engine), StoreOptions::new()).unwrap();
    store.start_over();
    train(&store, 1..=3);
    let history = history(&engine);
    assert_eq!(steps(&history), [1, 2, 3]);
    assert_eq!(history.life(1).map(|life| (life.saves, &life.end)), Some((1, &LifeEnd::Died)));
}

#[test]
fn an_attempt_that_died_before_a_save_tells_where_it_began() {
    let engine = memory();
    let store = open(&engine, StoreOptions::new());
    train(&store, 1..=10);
    drop(store);
    for _ in 0..3 {
        log(&open(&engine, StoreOptions::new()), 11..=12);
    }
    let from = CheckpointId { attempt: 1, step: 10 };
    let origins = |history: &History| -> Vec<_> {
        history.lives.iter().map(|life| (life.resumed_from, life.first_step)).collect()
    };
    let begun = |count| [vec![(None, Some(0))], vec![(Some(from), Some(10)); count]].concat();
    assert_eq!(origins(&history(&engine)), begun(3), "by their marks");
    let store = open(&engine, StoreOptions::new());
    train(&store, 11..=20);
    store.close().unwrap();
    let store = open(&engine, StoreOptions::new());
    let marks = engine.list("attempts").unwrap();
    let marks = marks.iter().filter(|entry| entry.key.contains("resumed")).count();
    assert_eq!(marks, 1, "what a checkpoint tells of needs no mark: this attempt's is left");
    drop(store);
    assert_eq!(origins(&history(&engine))[..5], begun(4), "by a checkpoint");
}

#[test]
fn an_end_is_told_of_attempts_that_saved_nothing() {
    let engine = memory();
    open(&engine, StoreOptions::new()).close().unwrap();
    let store = open(&engine, StoreOptions::new());
    log(&store, 1..=5);
    drop(store);
    let store = open(&engine, StoreOptions::new());
    train(&store, 1..=2);
    store.close().unwrap();
    let words = |words: [&str; 3]| (1_u32..).zip(words.map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(ends(&history(&engine)), words(["closed", "died", "closed"]));
    // Who the attempts were is in the checkpoint alone, now.
    for key in ["0001", "0001.ended", "0002"] {
        engine.delete(&format!("attempts/{key}")).unwrap();
    }
    assert_eq!(ends(&history(&engine)), words(["closed", "died", "closed"]));
}

#[test]
fn an_end_of_another_process_is_not_taken_for_this_ones() {
    let engine = memory();
    let store = open(&engine, StoreOptions::new());
    train(&store, 1..=2);
    store.close().unwrap();
    let store = open(&engine, StoreOptions::new());
    let mut other = engine.create("attempts/0002.ended", None).unwrap();
    let end = engine.open("attempts/0001.ended").unwrap();
    let mut content = vec![0; end.len() as usize];
    end.read_at(0, &mut content).unwrap();
    let pid = content.windows(4).position(|key| key == b"\xa3pid").unwrap();
    content[pid + 5] ^= 1;
    other.append(&content).unwrap();
    other.commit([7; 16]).unwrap();
    train(&store, 3..=3);
    assert_eq!(history(&engine).lives[1].end, LifeEnd::Running);
    for damage in [&b""[..], b"\xc1", &[0x80; 70_000]] {
        engine.delete("attempts/0002.ended").unwrap();
        let mut upload = engine.create("attempts/0002.ended", None).unwrap();
        upload.append(damage).unwrap();
        upload.commit([8; 16]).unwrap();
        assert_eq!(history(&engine).lives[1].end, LifeEnd::Running);
    }
    drop(store);
}

#[test]
fn what_is_logged_at_a_step_is_its_checkpoints_metric() {
    let options = StoreOptions::new().save(Every::on_best("loss", Mode::Min));
    let store = Store::open(Memory::new(), options.keep(Keep::best("accuracy", Mode::Max, 1))).unwrap();
    for (step, loss, accuracy) in [(1, 0.5, 0.9), (2, 0.25, f64::NAN), (3, 0.75, 0.1)] {
        store.log(&Progress::new(step), [("loss", loss)]);
        store.log(&Progress::new(step), [("accuracy", accuracy)]);
        let is_due = store.due(&Progress::new(step)).is_some();
        assert_eq!(is_due, step < 3, "step {step}");
        store.save(&snapshot(step)).unwrap();
    }
    let listed = store.list().unwrap();
    let told: Vec<_> =
        listed.iter().map(|info| (info.id.step, &info.state.as_ref().unwrap().metrics)).collect();
    assert_eq!(told.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1, 3], "the best, and the newest");
    assert_eq!((told[0].1["loss"], told[0].1["accuracy"]), (0.5, 0.9));
    let history = store.reader().history().unwrap();
    assert!(history.metrics["accuracy"].values[1].is_nan());
    let modes = ["loss", "accuracy"].map(|metric| history.metrics[metric].mode);
    assert_eq!(modes, [Some(Mode::Min), Some(Mode::Max)]);
    assert_eq!(history.metrics["accuracy"].best().map(|best| best.step), Some(1));
}

#[test]
fn what_was_observed_and_what_a_snapshot_says_are_in_the_curve() {
    let store = Store::open(Memory::new(), StoreOptions::new()).unwrap();
    store.observe("loss", 0.5);
    store.due(&Progress::new(1));
    store.observe("loss", 0.25);
    store.due(&Progress::new(2));
    store.save(&Snapshot::new().metric("accuracy", 0.75).unwrap()).unwrap();
    let history = store.reader().history().unwrap();
    let points =
        |metric: &str| history.metrics[metric].points().map(|at| (at.step, at.value)).collect::<Vec<_>>();
    assert_eq!(points("loss"), [(1, 0.5), (2, 0.25)]);
    assert_eq!(points("accuracy"), [(2, 0.75)]);
}

#[test]
fn a_history_is_as_short_as_it_has_to_be() {
    // [R154]
    let engine = memory();
    let store = open(&engine, last(1));
    let names: Vec<String> = (0..30).map(|metric| format!("layer {metric}")).collect();
    for step in 1..=6000 {
        let value = if step == 3333 { 1e9 } else { (step as f64).cos() };
        store.log(&progress(step), names.iter().map(|name| (&**name, value)));
        if step % 1000 == 0 {
            store.save(&snapshot(step)).unwrap();
        }
    }
    let newest = store.latest().unwrap().unwrap();
    let bytes = newest.inspect().record_len("tensorkeep.history").unwrap();
    assert!((8 << 10..=16 << 10).contains(&bytes), "{bytes} bytes");
    let history = newest.inspect().history().unwrap().unwrap();
    assert_eq!((history.metrics.len(), history.metrics_left_out), (30, 0));
    for series in history.metrics.values() {
        assert!(series.values.contains(&1e9), "the peak is gone");
        assert_eq!((series.logged, series.last().unwrap().step, series.is_thinned()), (6000, 6000, true));
    }
    drop(store);
    // Where every bit of room is taken, metrics are left out: those that are ranked by stay.
    let options = last(1).save(Every::on_best("metric 1999", Mode::Max));
    let store = open(&engine, options);
    let names: Vec<String> = (0..2000).map(|metric| format!("metric {metric}")).collect();
    store.log(&progress(6001), names.iter().map(|name| (&**name, 1.5)));
    store.save(&snapshot(6001)).unwrap();
    let newest = store.latest().unwrap().unwrap();
    assert!(newest.inspect().record_len("tensorkeep.history").unwrap() <= 16 << 10);
    let history = newest.inspect().history().unwrap().unwrap();
    assert_eq!(history.metrics.len() as u64 + history.metrics_left_out, 2030);
    assert!(history.metrics_left_out > 1000 && history.metrics.contains_key("metric 1999"));
    assert_eq!(newest.metrics().unwrap().len(), 2000, "what ranks is not thinned");
}

#[test]
fn bad_names_and_late_values_do_no_harm() {
    let store = Store::open(Memory::new(), StoreOptions::new()).unwrap();
    store.log(&Progress::new(5), [("loss", 5.0), ("", 1.0), ("tab\t", 1.0), (&*"x".repeat(5000), 1.0)]);
    store.log(&Progress::new(3), [("loss", 3.0)]);
    store.log(&Progress::new(9), [("loss", 9.0)]);
    store.save(&snapshot(5)).unwrap();
    let history = store.reader().history().unwrap();
    assert_eq!(history.metrics.keys().collect::<Vec<_>>(), ["loss"]);
    assert_eq!(steps(&history), [3, 5], "what is beyond the checkpoint is not in it");
}

#[test]
fn more_attempts_than_objects_stay_in_the_lives() {
    let engine = memory();
    for attempt in 1..=80_u64 {
        let store = open(&engine, last(1));
        train(&store, attempt..=attempt);
        if attempt % 2 == 0 {
            store.close().unwrap();
        }
    }
    let listed = engine.list("attempts").unwrap();
    let ended = listed.iter().filter(|entry| entry.key.ends_with(".ended")).count();
    assert!((60..=66).contains(&(listed.len() - ended)) && (30..=34).contains(&ended), "{listed:?}");
    let history = history(&engine);
    assert_eq!((history.lives.len(), history.lives_left_out), (80, 0));
    for (life, attempt) in history.lives.iter().zip(1..) {
        let end = if attempt % 2 == 0 { LifeEnd::Closed } else { LifeEnd::Died };
        assert_eq!((life.attempt, &life.end, life.saves), (attempt, &end, 1), "{life:?}");
        assert_eq!(life.last_step, Some(u64::from(attempt)));
    }
}

#[test]
fn ends_that_a_kill_left_behind_are_swept() {
    let engine = memory();
    open(&engine, StoreOptions::new()).close().unwrap();
    open(&engine, StoreOptions::new()).close().unwrap();
    engine.delete("attempts/0001").unwrap();
    open(&engine, StoreOptions::new());
    let keys: Vec<String> = engine.list("attempts").unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, ["attempts/0002", "attempts/0002.ended", "attempts/0003"]);
}

#[test]
fn a_run_without_histories_has_what_its_checkpoints_say() {
    let folder = TempFolder::new("history");
    for (name, loss) in [("0001-0000000010", 0.5), ("0001-0000000020", 0.25), ("0002-0000000030", 0.125)] {
        let step = name[5..].parse().unwrap();
        let snapshot = snapshot(step).metric("loss", loss).unwrap();
        snapshot.save(folder.path().join(format!("{name}.tkeep"))).unwrap();
    }
    let engine: Arc<dyn Engine> = Arc::new(Local::create(folder.path()).unwrap());
    let read = history(&engine);
    assert_eq!(steps(&read), [30], "what the newest says that it resumed from");
    assert_eq!(
        read.lives.iter().map(|life| (life.attempt, life.saves)).collect::<Vec<_>>(),
        [(1, 2), (2, 1)]
    );
    let store = open(&engine, StoreOptions::new());
    train(&store, 31..=32);
    assert_eq!(steps(&history(&engine)), [30, 31, 32]);
    assert!(
        Checkpoint::open(folder.path().join("0001-0000000010.tkeep"))
            .unwrap()
            .inspect()
            .history()
            .unwrap()
            .is_none()
    );
}

#[test]
fn both_tiers_hear_of_an_end() {
    let (disk, bucket) = (memory(), memory());
    let store = Store::open_tiered(Arc::clone(&disk), Arc::clone(&bucket), last(1)).unwrap();
    train(&store, 1..=5);
    store.close().unwrap();
    // A new machine.
    let disk = memory();
    let store = Store::open_tiered(Arc::clone(&disk), Arc::clone(&bucket), last(1)).unwrap();
    store.resume().unwrap();
    train(&store, 6..=9);
    store.close().unwrap();
    for engine in [&disk, &bucket] {
        let history = history(engine);
        assert_eq!(steps(&history), (1..=9).collect::<Vec<_>>());
        assert_eq!(ends(&history), [(1, "closed".to_owned()), (2, "closed".to_owned())]);
    }
}

#[test]
fn a_copy_of_a_run_takes_the_attempts_along() {
    let (engine, target) = (memory(), memory());
    open(&engine, last(1)).close().unwrap();
    let store = open(&engine, last(1));
    train(&store, 1..=5);
    let (from, to) = (Reader::new(Arc::clone(&engine)), Reader::new(Arc::clone(&target)));
    let copy = || {
        to.belong_to(from.run_id().unwrap().unwrap()).unwrap();
        for name in from.ids().unwrap() {
            from.copy_to(name, &to, |_| ()).unwrap();
        }
        from.copy_attempts_to(&to).unwrap()
    };
    assert_eq!((copy(), copy()), (3, 0), "two attempts and an end");
    store.close().unwrap();
    open(&engine, last(1)).close().unwrap();
    assert_eq!(copy(), 3, "an end, and an attempt with its own");
    assert_eq!(to.history().unwrap(), from.history().unwrap());
    // Where the copy goes on by itself, its writer is not fenced by the original's next attempt.
    let of_copy = open(&target, last(1));
    for _ in 0..3 {
        open(&engine, last(1)).close().unwrap();
    }
    assert_eq!(copy(), 0);
    train(&of_copy, 6..=6);
}

#[test]
fn a_save_asks_for_no_more_than_without_a_history() {
    let counting = Arc::new(Counting::default());
    let engine: Arc<dyn Engine> = counting.clone();
    let store = open(&engine, last(1));
    store.save(&snapshot(1)).unwrap();
    counting.take();
    store.save(&snapshot(2)).unwrap();
    let silent = counting.take();
    log(&store, 3..=500);
    assert_eq!(counting.take(), 0, "logging asks for nothing");
    store.save(&snapshot(500)).unwrap();
    assert_eq!(counting.take(), silent);
}
