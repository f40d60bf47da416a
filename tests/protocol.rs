//! A model check of commit and deletion: all orders in which the calls of a few processes may reach
//! the engines, run by the real store. Then each wrong protocol must break a promise in the same
//! cases.

use std::time::Instant;
use tensorkeep::CheckpointId;
use tensorkeep::testing::protocol::{
    Before, Broken, Case, Counterexample, Explored, Locks, Program, WrongProtocol, check, collects, copies,
    deletes, deletes_while_promoting, goes_back, goes_back_on, job, job_that_goes_back, keeper, logs_nan,
    pins, promotes, reader, saves_twice, tiered, tiered_keeping, unpins, writer, writer_that_pins,
};

fn in_words(Counterexample { broken, detail, steps, .. }: &Counterexample) -> String {
    format!("{broken:?}: {detail}\n  {}", steps.join("\n  "))
}

const FIRST: CheckpointId = CheckpointId { attempt: 1, step: 1 };
const SECOND: CheckpointId = CheckpointId { attempt: 1, step: 2 };
const SECOND_KEY: &str = "0001-0000000002.tkeep";

/// After one checkpoint.
fn of_one(locks: Locks, processes: Vec<Program>) -> Case {
    Case { locks, ..Case::new(vec![writer(1)], processes) }
}

/// After two checkpoints, so that one of them is not the one that the next writer resumes from.
fn of_two(processes: Vec<Program>) -> Case {
    Case::new(vec![keeper(2, 2)], processes)
}

/// After two checkpoints, the newer of which is damaged.
fn of_two_one_rotten(processes: Vec<Program>) -> Case {
    let before = vec![Before::Ran(keeper(2, 2)), Before::Rotted(SECOND_KEY)];
    Case { before, ..of_two(processes) }
}

/// After two checkpoints of a run whose folder may be replaced by another run's three at any
/// moment.
fn replaced(processes: Vec<Program>) -> Case {
    Case { replaced_by: Some(keeper(3, 3)), ..of_two(processes) }
}

/// After two checkpoints of a job of two ranks.
fn of_a_job(processes: Vec<Program>) -> Case {
    Case { before: vec![Before::RanTogether(job("first", 2, 2))], ..Case::new(vec![], processes) }
}

fn both(a: Vec<Program>, b: Vec<Program>) -> Vec<Program> {
    [a, b].concat()
}

/// Jobs of two ranks, each of which is a process.
fn jobs() -> Vec<(&'static str, Case)> {
    let two = || both(job("a", 1, 1), job("b", 1, 1));
    vec![
        ("a job of an empty run", Case::new(vec![], job("a", 2, 1))),
        ("two starts of a job of an empty run", Case::new(vec![], two())),
        ("a job whose ranks give up", Case { late: true, ..of_a_job(job("a", 1, 1)) }),
        (
            "a job whose commits lose replies, and whose ranks give up",
            Case { late: true, lost_replies: true, ..Case::new(vec![], job("a", 2, 1)) },
        ),
        ("two starts of a job, with locks and deaths", Case { locks: Locks::Honest, ..of_a_job(two()) }),
        ("a job and a reader", of_a_job(both(job("a", 1, 1), vec![reader(2)]))),
    ]
}

/// Those that take minutes, the last one apart: it takes a second until a mistake shows.
fn long_jobs() -> Vec<(&'static str, Case)> {
    let one = || job("a", 1, 1);
    vec![
        ("two starts of a job", of_a_job(both(one(), job("b", 1, 1)))),
        ("two starts of a job, one of which goes back", of_a_job(both(one(), job_that_goes_back("b", 1, 1)))),
        (
            "two starts of a job of an empty run, one of which saves twice",
            Case::new(vec![], both(one(), job("b", 2, 2))),
        ),
    ]
}

/// The cases of every test run, which the wrong protocols are run through, too.
fn cases() -> Vec<(&'static str, Case)> {
    let honest = |case| Case { locks: Locks::Honest, ..case };
    let local = tiered_keeping("a", 2, 2);
    vec![
        // Commit.
        ("two writers without locks", of_one(Locks::None, vec![writer(2), writer(1)])),
        ("two writers whose lock was stolen", of_one(Locks::Stolen, vec![writer(1), writer(1)])),
        ("two writers with locks, and deaths", of_one(Locks::Honest, vec![writer(2), writer(2)])),
        (
            "two writers whose commits lose replies",
            Case { lost_replies: true, ..of_one(Locks::None, vec![writer(1), writer(1)]) },
        ),
        ("a writer and a reader", of_one(Locks::Honest, vec![writer(2), reader(2)])),
        ("a step that is saved twice", of_one(Locks::Honest, vec![saves_twice(), reader(1)])),
        ("a loss that is NaN once", of_one(Locks::Honest, vec![logs_nan()])),
        // Deletion.
        ("a writer, and one that goes back", of_two(vec![writer(1), goes_back(1, 1)])),
        (
            "a deletion whose lock was stolen, and one that goes back",
            Case { locks: Locks::Stolen, ..of_two(vec![deletes(vec![FIRST]), goes_back(1, 1)]) },
        ),
        ("a writer, and one that pins", of_two(vec![writer(1), pins(FIRST)])),
        ("a writer, and one that pins and writes", of_two(vec![writer(1), writer_that_pins(FIRST, 0)])),
        (
            "a writer, one that pins and one that unpins",
            honest(of_two(vec![writer(1), pins(FIRST), unpins(SECOND)])),
        ),
        ("one that deletes, and one that pins", of_two(vec![deletes(vec![FIRST]), pins(FIRST)])),
        ("one that deletes, and one that goes back", of_two(vec![deletes(vec![FIRST]), goes_back(1, 1)])),
        ("one that deletes the newest, and a writer", of_two(vec![deletes(vec![SECOND]), writer(1)])),
        ("a gc beside a writer", of_two(vec![collects(1), writer(1)])),
        ("a gc beside one that goes back", of_two(vec![collects(1), goes_back(1, 1)])),
        ("a gc that may die, and one that goes back", honest(of_two(vec![collects(1), goes_back(1, 1)]))),
        ("a gc beside one that pins", of_two(vec![collects(1), pins(FIRST)])),
        // Damage.
        ("a gc of a run whose newest is damaged", of_two_one_rotten(vec![collects(1)])),
        ("a deletion where the rest is damaged", of_two_one_rotten(vec![deletes(vec![FIRST])])),
        (
            "a writer of a run that rots, and a reader",
            Case { rots: Some(SECOND_KEY), ..of_two(vec![writer(1), reader(1)]) },
        ),
        (
            "a run that rots and cannot rename",
            Case { rots: Some(SECOND_KEY), renames: false, ..of_two(vec![writer(1), writer(0)]) },
        ),
        // Another run in the folder.
        ("a writer whose folder is replaced", replaced(vec![writer(2)])),
        ("a deletion whose folder is replaced", replaced(vec![deletes(vec![FIRST, SECOND])])),
        // Stale listings.
        (
            "two writers where listings are behind",
            Case { stale: 1, ..of_one(Locks::None, vec![writer(1), writer(0)]) },
        ),
        (
            "a writer, and one that pins, where listings are behind",
            Case { stale: 1, ..of_two(vec![writer(1), pins(FIRST)]) },
        ),
        // Two tiers.
        (
            "two machines on one remote tier",
            Case::new(vec![local.clone()], vec![tiered("a", 1), tiered("b", 0)]),
        ),
        (
            "a machine that goes back beside another one",
            Case::new(vec![local.clone()], vec![tiered("a", 1), goes_back_on("b", 1, 1)]),
        ),
        (
            "two copies to one place",
            Case::new(vec![local.clone()], vec![copies(FIRST, "a", "b"), copies(FIRST, "a", "b")]),
        ),
        (
            "a deletion while it is being promoted",
            Case::new(vec![local.clone()], vec![deletes_while_promoting("a")]),
        ),
        (
            "a whole copy of what rotted in the remote tier",
            Case {
                before: vec![
                    Before::Ran(local),
                    Before::Rotted("remote/0001-0000000002.tkeep"),
                    Before::Ran(tiered("b", 1)),
                ],
                renames: false,
                ..Case::new(vec![], vec![promotes("a")])
            },
        ),
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
    let all: Vec<Explored> = cases().iter().map(|(what, case)| holds(what, case)).collect();
    // A case in which nothing happens, or no process completes, proves nothing.
    for ((what, _), explored) in cases().iter().zip(&all) {
        assert!(explored.worlds > 5 && explored.ends > 0, "{what}: {explored:?}");
    }
    println!("{} worlds in {} cases", all.iter().map(|explored| explored.worlds).sum::<usize>(), all.len());
}

// G1 G3 G4 G9
#[test]
fn every_order_of_the_ranks_of_a_job_keeps_every_promise() {
    for (what, case) in jobs() {
        let explored = holds(what, &case);
        assert!(explored.worlds > 5 && explored.ends > 0, "{what}: {explored:?}");
    }
}

// G1 G3 G4 G9
#[test]
#[ignore = "minutes: cargo test --release --all-features --test protocol -- --ignored --nocapture"]
fn every_order_of_three_processes_keeps_every_promise() {
    for (what, case) in long_jobs() {
        holds(what, &case);
    }
    let lost_replies = Case { lost_replies: true, ..of_one(Locks::None, vec![writer(2), writer(1)]) };
    let from_nothing = Case::new(vec![], vec![writer(1), writer(1)]);
    let rots = Case { rots: Some(SECOND_KEY), renames: false, ..of_two(vec![writer(1), writer(1)]) };
    let stolen = Case { locks: Locks::Stolen, ..of_two(vec![writer(1), goes_back(1, 1)]) };
    let two_tiers = vec![tiered_keeping("a", 2, 2)];
    let behind = |case| Case { stale: 1, ..case };
    for (what, case) in [
        ("two writers of an empty run", from_nothing),
        (
            "two writers that save where listings are behind",
            behind(of_one(Locks::None, vec![writer(1), writer(1)])),
        ),
        (
            "a writer, and one that goes back, where listings are behind",
            behind(of_two(vec![writer(1), goes_back(1, 1)])),
        ),
        ("two writers of two steps each", of_one(Locks::None, vec![writer(2), writer(2)])),
        ("two writers of three steps whose commits lose replies", lost_replies),
        ("two writers and a reader", of_one(Locks::None, vec![writer(1), writer(1), reader(1)])),
        ("two writers of a run that rots and cannot rename", rots),
        ("a writer whose lock was stolen, and one that goes back", stolen),
        ("a writer, and two that pin", of_two(vec![writer(2), pins(FIRST), pins(FIRST)])),
        ("a writer, a gc and one that pins", of_two(vec![writer(1), collects(1), pins(FIRST)])),
        ("two machines that save", Case::new(two_tiers, vec![tiered("a", 1), tiered("b", 1)])),
        (
            "two processes of a new machine",
            Case::new(vec![tiered("a", 1)], vec![tiered("b", 0), tiered("b", 0)]),
        ),
    ] {
        holds(what, &case);
    }
}

/// The case that catches each mistake, and the promise it breaks. The same table is in
/// docs/crash-safety.md.
const KILLED: [(WrongProtocol, &str, Broken); 30] = {
    use Broken::*;
    let (without, deaths) = ("two writers without locks", "two writers with locks, and deaths");
    let (job, jobs) = ("a job of an empty run", "two starts of a job of an empty run");
    let twice = "two starts of a job of an empty run, one of which saves twice";
    let lost = "a job whose commits lose replies, and whose ranks give up";
    [
        (WrongProtocol::CommitReplaces, "two copies to one place", NameIsReplaced),
        (WrongProtocol::AttemptsAreShared, without, TwoOfOneAttempt),
        (WrongProtocol::NoCheckBeforeCommit, without, FencedCommits),
        (WrongProtocol::NoCheckAfterCommit, without, SavedIsPassedOver),
        (WrongProtocol::DeleteBeforeCommit, without, NoneIsLeft),
        (WrongProtocol::ReserveKey, without, HalfIsVisible),
        (WrongProtocol::LockForEverybody, deaths, TwoWriters),
        (WrongProtocol::NoMark, "a writer, and one that pins", PinnedIsGone),
        (WrongProtocol::PinsListedOnce, "a writer, and one that pins", PinnedIsGone),
        (WrongProtocol::PinIgnoresMarks, "a writer, and one that pins", PinnedIsGone),
        (WrongProtocol::MarksIgnoredByResume, "a writer, and one that goes back", ResumedFromIsGone),
        (WrongProtocol::ResumeLeavesNoMark, "a gc beside one that goes back", ResumedFromIsGone),
        (
            WrongProtocol::LockClearsMarks,
            "a deletion whose lock was stolen, and one that goes back",
            ResumedFromIsGone,
        ),
        (WrongProtocol::RotationWithoutAttemptCheck, "a writer, and one that goes back", ResumedFromIsGone),
        (
            WrongProtocol::RemoteRotationWithoutGuard,
            "a machine that goes back beside another one",
            ResumedFromIsGone,
        ),
        (WrongProtocol::PromotionIgnoresDelete, "a deletion while it is being promoted", DeletedIsBack),
        (WrongProtocol::AttemptComparedByNumberOnly, "a writer whose folder is replaced", ForeignIsTouched),
        (WrongProtocol::GcTrustsUnverified, "a gc of a run whose newest is damaged", WholeIsGone),
        (WrongProtocol::StaleListingsBelieved, "two writers where listings are behind", SavedIsPassedOver),
        (WrongProtocol::ShardsOfAllAttempts, jobs, ShardIsGone),
        (WrongProtocol::ShardsAfterTheReceipt, job, ShardIsGone),
        (WrongProtocol::ShardsDeletedFirst, job, ShardIsGone),
        (WrongProtocol::RanksChoose, jobs, RanksDiffer),
        (WrongProtocol::ListedBeforeAttempt, jobs, SavedIsPassedOver),
        (WrongProtocol::OwnShardIsOk, "a job whose ranks give up", SavedIsLost),
        (WrongProtocol::UnknownIsOk, "a job whose ranks give up", SavedIsLost),
        (WrongProtocol::UnknownIsFailed, lost, ShardIsGone),
        (WrongProtocol::SweepsAtOpen, jobs, NoneIsLeft),
        (WrongProtocol::SweptNotHidden, jobs, ShardIsGone),
        (WrongProtocol::HiddenForAWhile, twice, ShardIsGone),
    ]
};

#[test]
fn every_wrong_protocol_breaks_a_promise() {
    assert!(WrongProtocol::ALL.iter().all(|wrong| KILLED.iter().any(|(listed, ..)| listed == wrong)));
    for (wrong, what, broken) in KILLED {
        let cases = [cases(), jobs(), long_jobs()].concat();
        let (_, case) = cases.iter().find(|(named, _)| *named == what).expect("a case of that name");
        let found = check(case, Some(wrong)).err().unwrap_or_else(|| panic!("{wrong:?} lives in {what}"));
        println!("{wrong:?}, {what}: {}", in_words(&found));
        assert_eq!(found.broken, broken, "{wrong:?}, {what}: {}", in_words(&found));
    }
}

#[test]
fn the_table_of_wrong_protocols_is_published_as_it_is() {
    let page = include_str!("../docs/crash-safety.md");
    for (wrong, case, broken) in KILLED {
        let row = page.lines().find(|line| line.starts_with(&format!("| {wrong:?} |")));
        let row = row.unwrap_or_else(|| panic!("{wrong:?} is in no row of docs/crash-safety.md"));
        assert!(row.ends_with(&format!("| {case} | {broken:?} |")), "{row}");
    }
}
