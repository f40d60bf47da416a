//! Mistakes of peers in background saves and rotation.

use crate::{open, process, save};
use std::path::Path;
use tensorkeep::{ErrorKind, Keep, Mode, Progress, Snapshot, Store, StoreOptions, store::WhenFull};
use test_support::Gated;
use test_support::{TempFolder, steps};

/// Orbax with a best_fn and max_to_keep=1: newer checkpoints are deleted as soon as they are
/// written, and resuming goes back to step 0. Here: the newest is never collected, under any
/// policy.
#[test]
fn p6_the_newest_stays_also_when_only_the_best_are_kept() {
    let folder = TempFolder::new("p6");
    let best_only = || Keep::default().or(Keep::best("loss", Mode::Min, 1));
    let store = open(folder.path(), best_only());
    for (step, loss) in [(1, 0.1), (2, 0.2), (3, 0.3)] {
        save(&store, step, loss).unwrap();
        assert_eq!(steps(&store).last(), Some(&step));
    }
    assert_eq!(steps(&store), [1, 3], "the best and the newest");
    drop(store);
    assert_eq!(open(folder.path(), best_only()).resume().unwrap().next_step(), 3);
}

fn snapshot(weights: &[f32], step: u64) -> Snapshot<'_> {
    Snapshot::new().tensor("weights", weights).unwrap().progress(Progress::new(step))
}

/// Lightning's AsyncCheckpointIO with save_top_k=1: the old checkpoint is removed at once, its
/// successor is still in the queue, and the folder is empty. Here: saves and their deletions share
/// one order.
#[test]
fn p7_the_run_is_never_empty_while_a_save_is_queued() {
    let engine = Gated::default();
    let settings = StoreOptions::new().keep(Keep::last(1)).in_flight(2, WhenFull::Wait);
    let store = Store::open(engine.clone(), settings).unwrap();
    store.save(&snapshot(&[1.0], 1)).unwrap();
    engine.set(|gate| gate.closed = true);
    let queued = store.stage(&snapshot(&[2.0], 2)).unwrap().unwrap();
    store.stage(&snapshot(&[3.0], 3)).unwrap();
    assert!(queued.outcome().is_none());
    assert_eq!(steps(&store), [1], "two saves are queued, and what they replace is there");
    engine.set(|gate| (gate.closed, gate.fails) = (false, true));
    assert_eq!(store.wait().unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(steps(&store), [1], "both failed, and what they would have replaced is there");
}

/// Megabytes of this process: current or peak.
fn memory(line: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|found| found.strip_prefix(line)?.trim().strip_suffix(" kB"));
    kib.unwrap().trim().parse::<usize>().unwrap() / 1024
}

pub fn saves_five_times_on_a_slow_disk(places: usize) {
    let engine = Gated::default();
    let store = Store::open(engine.clone(), StoreOptions::new().in_flight(places, WhenFull::Skip)).unwrap();
    let state = vec![1.0_f32; 16 << 20];
    engine.set(|gate| gate.closed = true);
    let before = memory("VmRSS:");
    let taken = (1..=5).filter(|&step| store.stage(&snapshot(&state, step)).unwrap().is_some()).count();
    eprintln!("@{taken} {}", memory("VmHWM:") - before);
    // The gate stays closed: this process ends here.
    std::process::exit(0);
}

/// DCP: five async_save on a slow disk hold five copies of the state. Here: no more copies than the
/// limit, measured in a process of its own.
#[test]
fn p10_five_saves_hold_no_more_copies_than_places() {
    const STATE_MB: usize = 64;
    for places in [1, 2, 5] {
        let output = process(&places.to_string(), Path::new("."), "");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let (taken, grown) = words.trim().strip_prefix('@').and_then(|words| words.split_once(' ')).unwrap();
        let (taken, grown): (usize, usize) = (taken.parse().unwrap(), grown.parse().unwrap());
        assert_eq!(taken, places);
        let copies = STATE_MB * places;
        assert!(grown >= copies * 9 / 10, "{grown} MB for {places} copies: this measures nothing");
        assert!(grown < copies + STATE_MB / 4, "{grown} MB for {places} copies of {STATE_MB} MB");
    }
}

pub fn drops_a_failed_save() {
    let engine = Gated::default();
    engine.set(|gate| gate.fails = true);
    let store = Store::open(engine, StoreOptions::new()).unwrap();
    drop(store.stage(&snapshot(&[1.0], 7)).unwrap());
    // The program ends as if all were well.
}

/// DCP: an async_save whose writer fails, and whose future is never read: exit code 0 and no
/// message. Here: dropping the store waits for the save, and prints the failure with its step.
#[test]
fn p11_a_failed_background_save_is_never_silent() {
    let output = process("drops-a-failed-save", Path::new("."), "");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("was never returned"), "{words}");
    assert!(words.contains("saving step 7") && words.contains("the disk is full"), "{words}");
}
