//! The commit protocol, model checked: all orders in which the calls of a few processes may reach the engine, run by the
//! real store. Then each protocol that is wrong on purpose must break a promise in the same cases.

use std::time::Instant;
use tensorkeep::testing::protocol::{
    Broken, Case, Counterexample, Explored, Locks, Program, WrongProtocol, check, goes_back, reader,
    saves_twice, writer,
};

fn case(locks: Locks, processes: Vec<Program>) -> Case {
    Case { locks, lost_replies: false, before: Some(writer(1)), processes }
}

fn in_words(Counterexample { broken, detail, steps, .. }: &Counterexample) -> String {
    format!("{broken:?}: {detail}\n  {}", steps.join("\n  "))
}

/// The cases that run each time, and that the wrong protocols are run through.
fn cases() -> [(&'static str, Case); 7] {
    let lost_replies = Case { lost_replies: true, ..case(Locks::None, vec![writer(1), writer(1)]) };
    [
        ("two writers without locks", case(Locks::None, vec![writer(2), writer(2)])),
        ("two writers whose lock was stolen", case(Locks::Stolen, vec![writer(1), writer(1)])),
        ("two writers with locks, and deaths", case(Locks::Honest, vec![writer(2), writer(2)])),
        ("two writers whose commits lose replies", lost_replies),
        ("a writer, and one that goes back", case(Locks::None, vec![writer(1), goes_back(1, 1)])),
        ("a writer and a reader", case(Locks::Honest, vec![writer(2), reader(2)])),
        ("a step that is saved twice", case(Locks::Honest, vec![saves_twice(), reader(1)])),
    ]
}

fn holds(what: &str, case: &Case) -> Explored {
    let start = Instant::now();
    let explored = check(case, None).unwrap_or_else(|found| panic!("{what}: {}", in_words(&found)));
    println!("{what}: {explored:?}, {:.1} s", start.elapsed().as_secs_f64());
    explored
}

// G1 G3 G4 G9
#[test]
fn every_order_of_two_processes_keeps_every_promise() {
    for (what, case) in cases() {
        let explored = holds(what, &case);
        assert!(explored.worlds > 100 && explored.ends > 1, "{what}: {explored:?}");
    }
}

// G1 G3 G4 G9
#[test]
#[ignore = "minutes: cargo test --release --all-features --test protocol -- --ignored --nocapture"]
fn every_order_of_three_processes_and_of_longer_programs_keeps_every_promise() {
    let lost_replies = Case { lost_replies: true, ..case(Locks::None, vec![writer(2), writer(2)]) };
    let from_nothing = Case { before: None, ..case(Locks::None, vec![writer(1), writer(1)]) };
    for (what, case) in [
        ("two writers of an empty run", from_nothing),
        ("two writers of two steps whose commits lose replies", lost_replies),
        ("two writers and a reader", case(Locks::None, vec![writer(1), writer(1), reader(1)])),
    ] {
        holds(what, &case);
    }
}

/// Which case breaks on which mistake, and the promise that it breaks. The same table is in docs/CRASH-SAFETY.md.
const KILLED: [(WrongProtocol, &str, Broken); 7] = {
    use Broken::*;
    let (without, deaths) = ("two writers without locks", "two writers with locks, and deaths");
    [
        (WrongProtocol::CommitReplaces, "a step that is saved twice", NameIsReplaced),
        (WrongProtocol::AttemptsAreShared, without, TwoOfOneAttempt),
        (WrongProtocol::NoCheckBeforeCommit, without, FencedCommits),
        (WrongProtocol::NoCheckAfterCommit, without, SavedIsPassedOver),
        (WrongProtocol::DeleteBeforeCommit, without, NoneIsLeft),
        (WrongProtocol::ReserveKey, without, HalfIsVisible),
        (WrongProtocol::LockForEverybody, deaths, TwoWriters),
    ]
};

#[test]
fn every_wrong_protocol_breaks_a_promise() {
    assert!(WrongProtocol::ALL.iter().all(|wrong| KILLED.iter().any(|(listed, ..)| listed == wrong)));
    for (wrong, in_case, broken) in KILLED {
        let killer =
            cases().into_iter().find_map(|(what, case)| Some((what, check(&case, Some(wrong)).err()?)));
        let (what, found) = killer.unwrap_or_else(|| panic!("{wrong:?} lives"));
        println!("{wrong:?}, {what}: {}", in_words(&found));
        assert_eq!((what, found.broken), (in_case, broken), "{wrong:?}: {}", in_words(&found));
    }
}

#[test]
fn the_table_of_wrong_protocols_is_published_as_it_is() {
    let page = include_str!("../docs/CRASH-SAFETY.md");
    for (wrong, case, broken) in KILLED {
        let row = page.lines().find(|line| line.starts_with(&format!("| {wrong:?} |")));
        let row = row.unwrap_or_else(|| panic!("{wrong:?} is in no row of docs/CRASH-SAFETY.md"));
        assert!(row.ends_with(&format!("| {case} | {broken:?} |")), "{row}");
    }
}
