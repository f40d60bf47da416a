//! The interval against a grid of fixed ones, in simulated time.

use super::*;
use proptest::prelude::*;

const HOUR: f64 = 3600.0;

/// What a save costs in a simulated run, in seconds.
#[derive(Clone, Copy)]
struct Costs {
    stall: f64,
    durable: f64,
    /// From a failure until training goes on.
    restart: f64,
}

/// Exponentially distributed times of failures, the same for each candidate.
fn failures(mean: f64, count: usize) -> Vec<f64> {
    let mut state = 0x5eed_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        -mean * (((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64).ln()
    };
    (0..count).map(|_| next()).collect()
}

/// The share of all time that is no progress. `interval` is asked before each save and told what it
/// cost; `died` hears how long each life was.
fn waste(failures: &[f64], costs: Costs, policy: &mut impl FnMut(Event) -> f64) -> f64 {
    let (mut all, mut kept) = (0.0, 0.0);
    for &life in failures {
        let (mut at, mut trained, mut durable) = (0.0, 0.0, 0.0);
        let mut on_its_way: Option<(f64, f64)> = None;
        loop {
            let interval = policy(Event::Next);
            let end = at + interval + costs.stall;
            if on_its_way.is_some_and(|(when, _)| when <= end.min(life)) {
                durable = on_its_way.take().map_or(durable, |(_, trained)| trained);
            }
            if end > life {
                break;
            }
            trained += interval;
            at = end;
            // What was not durable yet is waited for: one place.
            if let Some((when, before)) = on_its_way.take() {
                if when > life {
                    break;
                }
                (at, durable) = (at.max(when), before);
            }
            on_its_way = Some((at - costs.stall + costs.durable.max(costs.stall), trained));
            policy(Event::Saved);
        }
        policy(Event::Died(life));
        all += life + costs.restart;
        kept += durable;
    }
    1.0 - kept / all
}

enum Event {
    Next,
    Saved,
    Died(f64),
}

fn fixed(interval: f64) -> impl FnMut(Event) -> f64 {
    move |_| interval
}

/// The real thing, which is started anew with each life and goes on with the interval that the last
/// checkpoint has.
fn auto(costs: Costs) -> impl FnMut(Event) -> f64 {
    let (mut auto, mut lives, mut saves) = (Auto::default(), Vec::<Life>::new(), 0);
    let (stall, took) = (costs.stall, costs.durable.max(costs.stall));
    move |event| {
        match event {
            Event::Next => {}
            Event::Saved => {
                saves += 1;
                let [stall, took] = [stall, took].map(Duration::from_secs_f64);
                auto.learn(&SaveCost { step: saves, took, stall }, between_failures(&lives), 1);
            }
            Event::Died(life) => {
                let last_seen = 1_000_000 + life as u64;
                lives.push(Life { started: 1_000_000, last_seen, end: LifeEnd::Died, ..Life::default() });
                let kept = auto.now.take();
                auto = Auto::default();
                auto.resume(kept);
            }
        }
        auto.interval().as_secs_f64()
    }
}

#[test]
fn it_wastes_at_most_a_tenth_more_than_the_best_of_a_grid() {
    let sync = |seconds| Costs { stall: seconds, durable: seconds, restart: 30.0 };
    let beside = |stall, durable| Costs { stall, durable, restart: 30.0 };
    for mean in [HOUR / 3.0, HOUR, 4.0 * HOUR, 24.0 * HOUR] {
        let failures = failures(mean, 200);
        for costs in [sync(0.5), sync(5.0), sync(20.0), beside(0.2, 10.0), beside(1.0, 60.0)] {
            // Intervals at which saving takes no more than it may, as ours must.
            let grid = (0..46).map(|step| 4.0 * 1.2_f64.powi(step));
            let grid = grid.filter(|interval| costs.stall <= BUDGET * interval);
            let best = grid.map(|interval| waste(&failures, costs, &mut fixed(interval)));
            let best = best.fold(f64::INFINITY, f64::min);
            let ours = waste(&failures, costs, &mut auto(costs));
            assert!(
                ours <= 1.1 * best + 1e-9,
                "M {mean}, S {}, P {}: {ours} instead of {best}",
                costs.stall,
                costs.durable
            );
        }
    }
}

#[test]
fn it_moves_at_most_twofold_and_not_for_noise() {
    let mut auto = Auto::default();
    let day = between_failures([]);
    let cost = |step, stall| SaveCost { step, took: stall, stall };
    let second = Duration::from_secs(1);
    assert_eq!(auto.interval(), FIRST);
    auto.learn(&cost(1, second), day, 1);
    assert_eq!(auto.interval(), FIRST * 2);
    auto.learn(&cost(1, second), day, 1);
    assert_eq!(auto.interval(), FIRST * 2, "each save counts once");
    for step in 2..9 {
        auto.learn(&cost(step, second), day, 1);
    }
    let settled = auto.interval();
    assert!((settled.as_secs_f64() - (2.0 * 86_400.0_f64).sqrt()).abs() < 42.0, "{settled:?}");
    auto.learn(&cost(9, second.mul_f64(1.1)), day, 1);
    assert_eq!(auto.interval(), settled);
    let waste = auto.now.as_ref().unwrap().expected_waste();
    assert!((0.004..0.006).contains(&waste), "{waste}");
}

#[test]
fn planned_ends_are_no_failures_and_clocks_may_jump() {
    let life = |seconds: i64, end: LifeEnd| Life {
        started: 1_000_000,
        last_seen: 1_000_000_u64.saturating_add_signed(seconds),
        end,
        ..Life::default()
    };
    let hours = |lives: &[Life]| between_failures(lives).as_secs_f64() / HOUR;
    assert_eq!(hours(&[]), 24.0);
    let stopped = || LifeEnd::Stopped("SIGTERM".to_owned());
    assert_eq!(hours(&[life(3600 * 12, LifeEnd::Closed), life(3600 * 12, stopped())]), 72.0);
    assert_eq!(hours(&[life(3600 * 3, LifeEnd::Died)]), 10.0);
    assert_eq!(hours(&[life(-50_000, LifeEnd::Died)]), 8.0, "the clock went back");
    assert!(hours(&[life(i64::MAX, LifeEnd::Died)]) < 24.0 * 61.0, "the clock went far ahead");
}

#[test]
fn training_that_is_slower_beside_a_save_is_part_of_its_cost() {
    let (mut auto, start) = (Auto::default(), Instant::now());
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    for step in 0..=100 {
        auto.came_to(Progress::new(step), at(step * 10), false);
    }
    auto.handed_over();
    for step in 101..=111 {
        auto.came_to(Progress::new(step), at(5000 + (step - 101) * 15), true);
    }
    let cost = SaveCost { step: 100, took: Duration::from_millis(200), stall: Duration::from_millis(30) };
    auto.learn(&cost, between_failures([]), 1);
    let stall = auto.now.as_ref().unwrap().stall.as_secs_f64();
    assert!((stall - 0.08).abs() < 0.002, "{stall}");
}

proptest! {
    #[test]
    fn no_cost_makes_it_stand_still_or_panic(stalls in prop::collection::vec(any::<u64>(), 1..50), took: u64, failures: u64) {
        let mut auto = Auto::default();
        for (step, stall) in stalls.into_iter().enumerate() {
            let cost = SaveCost { step: step as u64, took: Duration::from_micros(took), stall: Duration::from_micros(stall) };
            auto.learn(&cost, Duration::from_micros(failures), 3);
            prop_assert!(auto.interval() >= Duration::from_micros(1));
        }
    }
}
