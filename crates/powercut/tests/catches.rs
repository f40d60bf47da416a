//! The harness catches writers that are wrong, and lets those pass that are right. Skipped, as the harness says, where it
//! cannot run: without root, loop devices or FUSE.

use std::process::Command;

/// Runs the harness; its own exit code says whether what was expected came true.
fn powercut(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_powercut")).args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    println!("{words}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {}\n{words}{errors}", output.status);
    assert!(words.contains("\"skipped\"") || words.contains("\"broken\""), "{words}");
}

#[test]
fn a_missing_fsync_is_caught_in_a_replay_and_the_right_protocol_is_not() {
    for wrong in ["no-file-sync", "no-folder-sync"] {
        powercut(&["replay", "--states", "30", "--seed", "1", "--subject", wrong, "--expect-broken"]);
    }
    for right in ["plain", "tensorkeep"] {
        powercut(&["replay", "--states", "30", "--seed", "1", "--subject", right]);
    }
}

#[test]
fn an_fsync_that_is_repeated_loses_the_save_and_a_new_file_does_not() {
    // More faults than a life has writes: each of them fails once.
    powercut(&["eio", "--faults", "40", "--seed", "1", "--subject", "retry-sync", "--expect-broken"]);
    for right in ["plain", "tensorkeep"] {
        powercut(&["eio", "--faults", "40", "--seed", "1", "--subject", right]);
    }
}

#[test]
fn a_live_cut_takes_what_object_store_says_is_saved_unless_it_is_asked_to_sync() {
    powercut(&["--cuts", "30", "--seed", "1", "--subject", "object-store", "--expect-broken"]);
    powercut(&["--cuts", "10", "--seed", "1", "--subject", "tensorkeep"]);
}
