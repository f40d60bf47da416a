//! When a save is due: each rule, and rules beside each other, over saves that arrive, fail, or are
//! still in flight.

use super::*;
use crate::store::keep::Mode;
use std::time::Duration;

/// A save in the foreground.
fn save(schedule: &mut Schedule, progress: Progress, metrics: &[(&str, f64)], now: Instant) -> Vec<String> {
    let HandedOver { number, warnings } = hand_over(schedule, progress, metrics, now);
    schedule.arrived(number);
    warnings
}

fn hand_over(
    schedule: &mut Schedule,
    progress: Progress,
    metrics: &[(&str, f64)],
    now: Instant,
) -> HandedOver {
    let mut snapshot = Snapshot::new().progress(progress);
    for &(name, value) in metrics {
        snapshot = snapshot.metric(name, value).unwrap();
    }
    let begun = schedule.begin(&snapshot).unwrap();
    schedule.handed_over(&begun, now)
}

fn at(step: u64, epoch: u64) -> Progress {
    Progress::new(step).epoch(epoch)
}

#[test]
fn steps_are_due_when_a_multiple_was_passed() {
    let now = Instant::now();
    let mut schedule = Schedule::start(Every::steps(100), now).unwrap();
    assert_eq!(schedule.due(at(0, 0), now), None);
    assert_eq!(schedule.due(at(99, 0), now), None);
    assert_eq!(schedule.due(at(103, 0), now), Some(SaveReason::Steps(100)));
    save(&mut schedule, at(103, 0), &[], now);
    assert_eq!(schedule.due(at(199, 0), now), None);
    assert_eq!(schedule.due(at(200, 0), now), Some(SaveReason::Steps(100)));
    assert_eq!(
        schedule.due(at(201, 0), now),
        Some(SaveReason::Steps(100)),
        "a save that failed is due again"
    );
}

#[test]
fn any_rule_makes_it_due_and_the_first_is_the_reason() {
    let now = Instant::now();
    let every = Every::epochs(1).or(Every::minutes(10)).or_on_best("acc", Mode::Max);
    let mut schedule = Schedule::start(every, now).unwrap();
    assert_eq!(schedule.due(at(50, 0), now), None);
    assert_eq!(schedule.due(at(60, 1), now), Some(SaveReason::Epochs(1)));
    assert_eq!(schedule.begin(&Snapshot::new()).unwrap().why, "every 1 epochs");
    save(&mut schedule, at(60, 1), &[], now);
    let later = now + Duration::from_secs(600);
    assert_eq!(schedule.due(at(70, 1), later), Some(SaveReason::Interval(Duration::from_secs(600))));
}

#[test]
fn a_metric_is_best_only_when_it_beats_every_saved_one() {
    let now = Instant::now();
    let mut schedule = Schedule::start(Every::on_best("acc", Mode::Max), now).unwrap();
    schedule.remember(&BTreeMap::from([("acc".to_owned(), 0.9)]));
    schedule.observe("acc", 0.9);
    assert_eq!(schedule.due(at(1, 0), now), None);
    schedule.observe("acc", 0.91);
    assert_eq!(schedule.due(at(2, 0), now), Some(SaveReason::Best("acc".to_owned())));
    save(&mut schedule, at(2, 0), &[], now);
    schedule.observe("acc", 0.905);
    assert_eq!(schedule.due(at(3, 0), now), None);
}

#[test]
fn intervals_of_nothing_are_refused() {
    for every in [Every::steps(0), Every::epochs(0), Every::minutes(0), Every::stop_on([])] {
        assert!(Schedule::start(every, Instant::now()).is_err());
    }
}

#[test]
fn nothing_that_is_not_finite_is_ever_best() {
    let now = Instant::now();
    let mut schedule = Schedule::start(Every::on_best("loss", Mode::Min), now).unwrap();
    for (step, value) in [(1, f64::NAN), (2, f64::NEG_INFINITY), (3, f64::INFINITY)] {
        schedule.observe("loss", value);
        assert_eq!(schedule.due(at(step, 0), now), None, "{value}");
    }
    save(&mut schedule, at(3, 0), &[], now);
    schedule.remember(&BTreeMap::from([("loss".to_owned(), f64::NAN)]));
    schedule.observe("loss", 5.0);
    assert!(schedule.due(at(4, 0), now).is_some(), "the first number is the best");
    schedule.observe("loss", f64::NAN);
    assert_eq!(schedule.due(at(5, 0), now), None, "the model is no longer the one of 5.0");
}

#[test]
fn a_best_metric_whose_save_failed_is_due_again() {
    let now = Instant::now();
    let mut schedule = Schedule::start(Every::on_best("acc", Mode::Max), now).unwrap();
    schedule.observe("acc", 0.95);
    let first = hand_over(&mut schedule, at(1, 0), &[("acc", 0.95)], now);
    schedule.observe("acc", 0.94);
    assert_eq!(schedule.due(at(2, 0), now), None, "what is in flight counts");
    schedule.observe("acc", 0.96);
    let second = hand_over(&mut schedule, at(3, 0), &[("acc", 0.96)], now);
    schedule.failed(first.number);
    assert_eq!(schedule.due(at(4, 0), now), None, "a newer save is on its way");
    schedule.failed(second.number);
    assert_eq!(schedule.due(at(4, 0), now), Some(SaveReason::Again));
    schedule.observe("acc", 0.5);
    save(&mut schedule, at(4, 0), &[("acc", 0.5)], now);
    schedule.observe("acc", 0.94);
    assert_eq!(schedule.due(at(5, 0), now), Some(SaveReason::Best("acc".to_owned())));
}

#[test]
fn a_run_that_counts_epochs_alone_is_due_by_epochs() {
    let now = Instant::now();
    let mut schedule = Schedule::start(Every::epochs(2), now).unwrap();
    assert_eq!(schedule.due(at(0, 1), now), None);
    assert_eq!(schedule.due(at(0, 2), now), Some(SaveReason::Epochs(2)));
    save(&mut schedule, at(0, 2), &[], now);
    assert_eq!(schedule.due(at(0, 3), now), None);
    assert_eq!(schedule.due(at(0, 4), now), Some(SaveReason::Epochs(2)));
    save(&mut schedule, at(7, 4), &[], now);
    assert_eq!(schedule.due(at(7, 6), now), None, "step 7 is saved, and is saved once");
}

#[test]
fn minutes_that_never_pass_are_never_due() {
    let now = Instant::now();
    let mut schedule = Schedule::start(Every::minutes(u64::MAX), now).unwrap();
    assert_eq!(schedule.due(at(1, 0), now + Duration::from_secs(1 << 31)), None);
}

#[test]
fn saved_means_that_it_is_the_newest_save() {
    let now = Instant::now();
    let mut schedule = Schedule::start(Every::never(), now).unwrap();
    save(&mut schedule, at(1, 0), &[], now);
    let second = hand_over(&mut schedule, at(2, 0), &[], now);
    assert_eq!([1, 2].map(|step| schedule.has_saved(at(step, 0))), [false, true]);
    schedule.failed(second.number);
    assert!(!schedule.has_saved(at(2, 0)));
}

#[test]
fn an_observed_metric_that_is_not_saved_is_a_warning() {
    let now = Instant::now();
    let mut schedule = Schedule::start(Every::on_best("loss", Mode::Min), now).unwrap();
    schedule.observe("loss", 1.0);
    schedule.observe("of no rule", 1.0);
    let warnings = save(&mut schedule, at(1, 0), &[("los", 1.0)], now);
    assert!(matches!(&warnings[..], [warning] if warning.contains("\"loss\"")), "{warnings:?}");
    schedule.observe("loss", 0.5);
    assert_eq!(save(&mut schedule, at(2, 0), &[("loss", 0.5)], now), [""; 0]);
    assert_eq!(save(&mut schedule, at(3, 0), &[], now), [""; 0], "nothing was observed");
}
