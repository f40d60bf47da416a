//! The commit protocol, model checked: all orders in which the calls of a few processes may reach the engine, run by the
//! real store. Then each protocol that is wrong on purpose must break a promise in the same cases.

use std::time::Instant;
use tensorkeep::testing::protocol::{
    Broken, Case, Counterexample, Explored, Locks, Program, WrongProtocol, check, goes_back, reader, writer,
};

fn case(locks: Locks, processes: Vec<Program>) -> Case {
    Case { locks, lost_replies: false, before: Some(writer(1)), processes }
}

fn holds(what: &str, case: &Case) -> Explored {
    let start = Instant::now();
    let explored = check(case, None).unwrap_or_else(|found| panic!("{what}: {}", in_words(&found)));
    println!("{what}: {explored:?}, {:.1} s", start.elapsed().as_secs_f64());
    explored
}

fn in_words(Counterexample { broken, detail, steps, .. }: &Counterexample) -> String {
    format!("{broken:?}: {detail}\n  {}", steps.join("\n  "))
}

/// The cases that run each time, and that the wrong protocols are run through.
fn cases() -> [(&'static str, Case); 5] {
    let lost_replies = Case { lost_replies: true, ..case(Locks::None, vec![writer(1), writer(1)]) };
    [
        ("two writers without locks", case(Locks::None, vec![writer(2), writer(2)])),
        ("two writers whose lock was stolen", case(Locks::Stolen, vec![writer(1), writer(1)])),
        ("two writers with locks, and deaths", case(Locks::Honest, vec![writer(2), writer(2)])),
        ("two writers whose commits lose replies", lost_replies),
        ("a writer and a reader", case(Locks::Honest, vec![writer(2), reader(2)])),
    ]
}

// G1 G3 G4 G9
#[test]
fn every_order_of_two_processes_keeps_every_promise() {
    for (what, case) in cases() {
        let explored = holds(what, &case);
        assert!(explored.worlds > 200 && explored.ends > 1, "{what}: {explored:?}");
    }
}
