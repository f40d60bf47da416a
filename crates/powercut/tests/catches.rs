//! The harness catches wrong writers, and lets correct ones pass. Skipped where the harness cannot
//! run: without root, loop devices or FUSE.

use std::process::Command;

/// Runs the harness; its own exit code says whether the expectation was met.
fn powercut(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_powercut")).args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    println!("{words}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {}\n{words}{errors}", output.status);
    assert!(words.contains("\"skipped\"") || words.contains("\"broken\""), "{words}");
}

#[test]
fn a_replay_catches_a_missing_fsync() {
    for wrong in ["no-file-sync", "no-folder-sync"] {
        powercut(&["replay", "--states", "30", "--seed", "1", "--subject", wrong, "--expect-broken"]);
    }
    for right in ["plain", "tensorkeep"] {
        powercut(&["replay", "--states", "30", "--seed", "1", "--subject", right]);
    }
}

#[test]
fn repeating_a_failed_fsync_loses_the_save() {
    // More faults than a life has writes: each of them fails once.
    powercut(&["eio", "--faults", "40", "--seed", "1", "--subject", "retry-sync", "--expect-broken"]);
    for right in ["plain", "tensorkeep"] {
        powercut(&["eio", "--faults", "40", "--seed", "1", "--subject", right]);
    }
}

#[test]
fn object_store_without_fsync_loses_saves_in_a_power_cut() {
    powercut(&["--cuts", "30", "--seed", "1", "--subject", "object-store", "--expect-broken"]);
    powercut(&["--cuts", "10", "--seed", "1", "--subject", "tensorkeep"]);
}
