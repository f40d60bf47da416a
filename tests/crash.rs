//! Power cuts at every operation of a save, a rotation and a recovery, on a simulated disk; every
//! promise must hold afterwards. Then each wrong protocol must be caught by the same checks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tensorkeep::testing::crash::{
    Again, Broken, CHECKS, Explorer, History, Life, Names, Violation, Visited, Wrong, killer,
};

/// Set to a seed that a failure printed, it runs that seed's history alone.
const SEED: &str = "TENSORKEEP_CRASH_SEED";
/// How many distinct states of each model make up the million; fewer for a short run.
const STATES: &str = "TENSORKEEP_CRASH_STATES";
const BOTH: [Names; 2] = [Names::Ordered, Names::AnySubset];

fn holds(outcome: Result<(), Violation>) {
    if let Err(Violation { broken, detail, place }) = outcome {
        panic!(
            "{broken:?}: {detail}\n  in {place}\n  a seed named there replays: {SEED}=<seed> cargo test --test crash random"
        );
    }
}

fn report(what: &str, explorer: &Explorer, start: Instant) -> Visited {
    let visited = explorer.visited();
    let Visited { distinct, checked } = visited;
    println!("{what}: {distinct} distinct states, {checked} checks, {:.1} s", start.elapsed().as_secs_f64());
    visited
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Random histories from `first` on, on all cores, until `distinct` states were seen.
fn random_until(explorer: &Explorer, first: u64, each: usize, distinct: u64) {
    let next = AtomicU64::new(first);
    let work = || {
        while explorer.visited().distinct < distinct {
            holds(explorer.random(next.fetch_add(1, Ordering::Relaxed), each));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads()).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

// G1 G2 G3
#[test]
fn every_state_of_two_saves_and_a_rotation() {
    for names in BOTH {
        let (start, explorer) = (Instant::now(), Explorer::new(names, Again::Never));
        holds(explorer.every_state(&History::small(), threads()));
        let lives = vec![Life { pins: Some(0), ..Life::of(1) }, Life::of(2)];
        holds(explorer.every_state(&History { keep: 2, lives }, threads()));
        let lives = vec![Life { pins: Some(0), deletes: Some(2), ..Life::of(3) }];
        holds(explorer.every_state(&History { keep: 3, lives }, threads()));
        assert!(report(&format!("every state, {names}"), &explorer, start).distinct > 400);
    }
}

// G1 G2 G3
#[test]
fn the_power_goes_again_at_every_operation_of_the_recovery() {
    for names in BOTH {
        let (start, explorer) = (Instant::now(), Explorer::new(names, Again::Every(2)));
        holds(explorer.every_state(&History::small(), threads()));
        assert!(report(&format!("cut again, {names}"), &explorer, start).distinct > 1_000);
    }
}

// G1 G2 G3
#[test]
fn every_state_of_the_saves_of_jobs() {
    for (names, ranks) in [(Names::Ordered, 1), (Names::AnySubset, 2)] {
        let (start, explorer) = (Instant::now(), Explorer::new(names, Again::Never).recovered_by(ranks));
        holds(explorer.every_state(&History::of_a_job(2), threads()));
        let lives = [3, 2].map(|ranks| Life { ranks, ..Life::of(1) });
        holds(explorer.every_state(&History { keep: 1, lives: lives.into() }, threads()));
        let what = format!("every state of a job, {names}, recovered by {ranks}");
        assert!(report(&what, &explorer, start).distinct > 400);
    }
}

// G2
#[test]
fn a_job_meets_failing_fsyncs_and_a_disk_that_goes() {
    let explorer = || Explorer::new(Names::Ordered, Again::Never);
    holds(explorer().every_failing_sync(&History::of_a_job(2)));
    holds(explorer().every_shutdown(&History::of_a_job(2)));
}

// The mistakes that the states of a single trainer show lose a job's shards, too.
#[test]
fn a_job_on_a_wrong_file_system_breaks_its_promises() {
    for (wrong, ..) in KILLED.into_iter().filter(|(_, check, _)| check.starts_with("every state")) {
        let explorer = Explorer::new(Names::AnySubset, Again::Never).recovered_by(2).on(Some(wrong));
        let violation =
            explorer.every_state(&History::of_a_job(2), threads()).expect_err("the mistake lives");
        println!("{wrong:?}: {violation:?}");
        // Not a connection that failed.
        assert!(!matches!(violation.broken, Broken::CannotResume | Broken::CannotSave), "{violation:?}");
    }
}

// G1 G2 G3
#[test]
fn random_histories_keep_every_promise() {
    let replayed = std::env::var(SEED).ok().map(|seed| seed.parse().unwrap());
    for names in BOTH {
        let (start, explorer) = (Instant::now(), Explorer::new(names, Again::Random(1)));
        match replayed {
            Some(seed) => holds(explorer.random(seed, 4)),
            None => random_until(&explorer, 1, 4, 5_000),
        }
        report(&format!("random, {names}"), &explorer, start);
    }
}

// G1 G2 G3
#[test]
#[ignore = "a minute in a release build: cargo test --release --all-features --test crash -- --ignored"]
fn a_million_distinct_states_keep_every_promise() {
    let states = std::env::var(STATES).map_or(520_000, |states| states.parse().unwrap());
    let mut distinct = 0;
    for names in BOTH {
        let (start, explorer) = (Instant::now(), Explorer::new(names, Again::Random(2)));
        holds(explorer.every_state(&History::small(), threads()));
        random_until(&explorer, 1, 8, states);
        distinct += report(&format!("a million, {names}"), &explorer, start).distinct;
    }
    assert!(distinct >= 2 * states);
}

// G2: on XFS the fsync of a folder returned Ok after the file system had shut down, and the rename
// was lost.
#[test]
fn a_folder_that_lies_after_the_disk_is_gone_makes_no_save_ok() {
    holds(Explorer::new(Names::Ordered, Again::Never).every_shutdown(&History::small()));
}

// G2
#[test]
fn every_fsync_may_fail_and_lose_its_writes() {
    for names in BOTH {
        holds(Explorer::new(names, Again::Never).every_failing_sync(&History::small()));
    }
}

/// The check that catches each mistake, and the promise it breaks. The same table is in
/// docs/crash-safety.md.
const KILLED: [(Wrong, &str, Broken); 18] = {
    use Broken::*;
    let (ordered, subset) = ("every state, names in order", "every state, any subset of names");
    let (replaced, second) =
        ("a committed name is never replaced", "a second writer is refused and disturbs nothing");
    [
        (Wrong::NoFileSync, ordered, HalfIsVisible),
        (Wrong::RenameBeforeFileSync, ordered, HalfIsVisible),
        (Wrong::NoFolderSync, ordered, SavedIsLost),
        (Wrong::OneFolderSyncForTwo, ordered, SavedIsLost),
        (Wrong::NoParentFolderSync, ordered, SavedIsLost),
        (Wrong::NoSecondFileSync, "the disk is gone and folders lie", SavedIsLost),
        (Wrong::RetryFailedSync, "every fsync fails once", IdentityIsLost),
        (Wrong::DeleteBeforeWrite, ordered, SavedIsLost),
        (Wrong::DeleteBeforeFolderSync, subset, SavedIsLost),
        (Wrong::NoFolderSyncAfterDelete, ordered, DeletedIsBack),
        (Wrong::WriteInPlace, ordered, HalfIsVisible),
        (Wrong::ReserveName, ordered, HalfIsVisible),
        (Wrong::CopyInsteadOfRename, ordered, HalfIsVisible),
        (Wrong::TailAfterRename, ordered, HalfIsVisible),
        (Wrong::TruncateAfterRename, ordered, HalfIsVisible),
        (Wrong::ReplaceExisting, replaced, NameIsReplaced),
        (Wrong::SweepWithoutLock, second, TwoWriters),
        (Wrong::NeverSweep, ordered, LeftoversStay),
    ]
};

#[test]
fn every_wrong_protocol_is_killed_by_its_check() {
    assert!(Wrong::ALL.iter().all(|wrong| KILLED.iter().any(|(listed, ..)| listed == wrong)));
    println!("| wrong | killed by | broken promise |\n|---|---|---|");
    for (wrong, check, broken) in KILLED {
        let (killed_by, violation) = killer(wrong).unwrap_or_else(|| panic!("{wrong:?} lives"));
        println!("| {wrong:?} | {killed_by} | {:?}: {} |", violation.broken, violation.detail);
        assert_eq!((killed_by, violation.broken), (check, broken), "{wrong:?}: {violation:?}");
    }
}

// The twin of the table: without a mistake, the same checks pass.
#[test]
fn the_right_protocol_passes_every_check_of_the_table() {
    for (check, run) in CHECKS {
        if let Err(violation) = run(None) {
            panic!("{check}: {violation:?}");
        }
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    let visit = |seed| {
        let explorer = Explorer::new(Names::AnySubset, Again::Never);
        holds(explorer.random(seed, 3));
        explorer.visited()
    };
    assert_eq!(visit(7), visit(7));
    assert_ne!(visit(7), visit(8));
}

#[test]
fn the_table_of_wrong_protocols_is_published_as_it_is() {
    let page = include_str!("../docs/crash-safety.md");
    for (wrong, check, broken) in KILLED {
        let row = page.lines().find(|line| line.starts_with(&format!("| {wrong:?} |")));
        let row = row.unwrap_or_else(|| panic!("{wrong:?} is in no row of docs/crash-safety.md"));
        assert!(row.ends_with(&format!("| {check} | {broken:?} |")), "{row}");
    }
}
