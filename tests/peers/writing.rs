//! Mistakes of peers when writing.

use crate::{open, process, save};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use tensorkeep::engine::Local;
use tensorkeep::testing::{Fault, Faults, failing_local};
use tensorkeep::{
    Checkpoint, Dtype, Error, ErrorKind, Keep, LazyTensor, Mode, Progress, Reader, Snapshot, Store,
    StoreOptions, Tensor,
};
use test_support::{TempFolder, steps};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// DCP: an OSError in a writer thread is swallowed, save() returns, and the commit lacks that
/// tensor. Here: if any write of any thread fails, the save fails, and nothing of it is visible.
#[test]
fn p1_an_error_in_a_writing_thread_fails_the_save() {
    let weights = vec![1.0_f32; 4_000_000]; // 16 MB: blocks of 4 MiB, written by threads
    let mut failed = 0;
    for write in 0.. {
        let folder = TempFolder::new("p1");
        let faults = Faults::new();
        let engine = failing_local(folder.path(), &faults).unwrap();
        let store = Store::open(engine, StoreOptions::new().keep(Keep::last(2))).unwrap();
        save(&store, 1, 0.5).unwrap();
        faults.fail_named("write", write, 1, Fault::Errno(ENOSPC));
        let snapshot = Snapshot::new().tensor("weights", &weights).unwrap().progress(Progress::new(2));
        let outcome = store.save(&snapshot);
        faults.heal();
        let Err(error) = outcome else { break };
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::NoSpace, Some(ENOSPC)), "write {write}");
        assert_eq!(steps(&store), [1], "write {write}");
        store.save(&snapshot).unwrap();
        failed += 1;
    }
    assert!(failed >= 4, "only {failed} writes: the threads were not reached");
}

/// A trainer that is killed (SIGKILL) when its second tensor is being written.
pub fn dies_in_a_save(run: &Path) {
    let store = open(run, Keep::last(1));
    store.resume().unwrap();
    let first = vec![-1.0_f32; 1000];
    let mut snapshot = Snapshot::new();
    let second = LazyTensor::new(Dtype::F64, &[500], || {
        std::process::Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status().unwrap();
        Err(Error::new(ErrorKind::Io, "should be dead by now"))
    });
    snapshot = snapshot.tensor("a", &first).unwrap().tensor("b", second).unwrap();
    snapshot = snapshot.progress(Progress::new(2));
    store.save(&snapshot).unwrap();
}

/// A run with steps 1 and 2, whose next writer was killed while it saved step 2 once more.
fn killed(name: &str) -> (TempFolder, std::path::PathBuf) {
    let folder = TempFolder::new(name);
    let run = folder.path().join("run");
    let store = open(&run, Keep::all());
    save(&store, 1, 0.5).unwrap();
    save(&store, 2, 0.5).unwrap();
    drop(store);
    let output = process("dies-in-a-save", &run, "");
    assert_eq!(output.status.signal(), Some(9), "{output:?}");
    let left = std::fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(
        left.filter(|name| name.to_string_lossy().starts_with(".tmp-")).count(),
        1,
        "a leftover is there"
    );
    (folder, run)
}

fn is_all_of_one_step(checkpoint: &Checkpoint) -> bool {
    let step = checkpoint.progress().unwrap().unwrap().step;
    let (a, b) = (checkpoint.tensor("a").unwrap(), checkpoint.tensor("b").unwrap());
    a.elements::<f32>().unwrap().iter().all(|&value| value == step as f32)
        && b.elements::<f64>().unwrap().iter().all(|&value| value == step as f64)
}

/// DCP: a checkpoint is overwritten, one rank is killed, and loading succeeds with tensors of steps
/// 2, 1, 2, 1. Here: the same step in a newer attempt has a name of its own, and a killed one has
/// none.
#[test]
fn p2_a_killed_overwrite_never_mixes_two_saves() {
    let (_folder, run) = killed("p2");
    let store = open(&run, Keep::last(1));
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.skipped.len(), store.attempt()), (2, 0, 3));
    assert!(is_all_of_one_step(&resumed.checkpoint.unwrap()));
    let again = save(&store, 2, 0.5).unwrap();
    assert_eq!(again.id.to_string(), "0003-0000000002", "not the name of the first step 2");
    assert!(is_all_of_one_step(&store.latest().unwrap().unwrap()));
}

/// Orbax: latest_step() returns a step that is still being written, and save(step <= latest) does
/// nothing and returns False. Here: an uncommitted step is not listed, and a save is done or is an
/// error.
#[test]
fn p5_only_committed_checkpoints_are_listed() {
    let folder = TempFolder::new("p5");
    let store = open(folder.path(), Keep::all());
    save(&store, 5, 0.5).unwrap();
    let reader = store.reader();
    let listed_meanwhile = || {
        let names: Vec<u64> = reader.ids().unwrap().iter().map(|id| id.step).collect();
        assert_eq!(names, [5], "step 10 is still being written");
        Tensor::from_elements(&[1], &[1.0_f32])
    };
    let mut snapshot =
        Snapshot::new().tensor("a", LazyTensor::new(Dtype::F32, &[1], listed_meanwhile)).unwrap();
    snapshot = snapshot.progress(Progress::new(10));
    store.save(&snapshot).unwrap();
    let error = save(&store, 7, 0.5).unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("a step after 10"), "{error}");
    assert_eq!(save(&store, 10, 0.5).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(steps(&store), [5, 10]);
}

/// Lightning: "atomic" saves are staged in the system's temporary folder, then moved over, and
/// nothing is synced. Here: the temporary file is beside its target, synced before and after its
/// rename.
#[test]
fn p8_files_are_staged_beside_their_target_and_synced() {
    let folder = TempFolder::new("p8");
    let run = folder.path().join("run");
    let faults = Faults::new();
    let store = Store::open(failing_local(&run, &faults).unwrap(), StoreOptions::new()).unwrap();
    let staged_there = {
        let run = run.clone();
        move || {
            let names = std::fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name());
            let staged = names.filter(|name| name.to_string_lossy().starts_with(".tmp-")).count();
            assert_eq!(staged, 1, "while it is written it is in the run's own folder");
            Tensor::from_elements(&[1], &[1.0_f32])
        }
    };
    let mut snapshot = Snapshot::new().tensor("a", LazyTensor::new(Dtype::F32, &[1], staged_there)).unwrap();
    snapshot = snapshot.progress(Progress::new(1));
    faults.take_calls();
    store.save(&snapshot).unwrap();
    let order: Vec<_> = faults.take_calls().into_iter().map(|call| call.name).collect();
    let order: Vec<_> =
        order.into_iter().filter(|name| ["write", "fsync", "rename", "fsync-dir"].contains(name)).collect();
    assert_eq!(order, ["write", "fsync", "rename", "fsync-dir", "fsync"]);
}

/// Accelerate: total_limit=1 deletes the old checkpoint before the new one is written. Here: if any
/// call of a save fails, one checkpoint is there at every moment.
#[test]
fn p9_the_old_checkpoint_stays_until_the_new_one_is_durable() {
    for call in 0.. {
        let folder = TempFolder::new("p9");
        let faults = Faults::new();
        let engine = failing_local(folder.path(), &faults).unwrap();
        let store = Store::open(engine, StoreOptions::new().keep(Keep::last(1))).unwrap();
        save(&store, 1, 0.5).unwrap();
        faults.take_calls();
        faults.fail_after(call, usize::MAX, Fault::Errno(ENOSPC));
        let outcome = save(&store, 2, 0.5);
        faults.heal();
        let calls = faults.take_calls();
        let there = steps(&store);
        assert!(!there.is_empty(), "call {call}: {:?}", calls.get(call));
        let stays = if outcome.is_ok() { 2 } else { 1 };
        assert!(there.contains(&stays), "call {call}: {there:?}");
        if calls.len() <= call {
            assert!(call > 12 && there == [2], "only {call} calls: {there:?}");
            break;
        }
    }
}

/// NVRx: a `.dirty` file that a crash left blocks saving that step for good. Here: the remains of a
/// kill block nothing and are swept at the next start.
#[test]
fn p12_a_leftover_never_blocks_a_save() {
    let (_folder, run) = killed("p12");
    let store = open(&run, Keep::all());
    store.resume().unwrap();
    let left = std::fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| name.to_string_lossy().starts_with(".tmp-")).count(), 0, "swept");
    // Any name that a crash of any program may leave, also after the sweep.
    for junk in [".tmp-0003-0000000002.tkeep-0", "0003-0000000002.tkeep.dirty", "0003-0000000002"] {
        std::fs::write(run.join(junk), b"junk").unwrap();
    }
    save(&store, 2, 0.5).unwrap();
    assert!(is_all_of_one_step(&store.latest().unwrap().unwrap()));
}

/// Hugging Face: get_last_checkpoint() returns the folder of an interrupted save. Here: existence
/// is the commit; a killed save cannot be found, and half a file copied there is skipped.
#[test]
fn p13_an_interrupted_save_is_never_the_last_checkpoint() {
    let (_folder, run) = killed("p13");
    let reader = Reader::new(Local::open(&run).unwrap());
    let names: Vec<String> = reader.ids().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["0001-0000000001", "0001-0000000002"]);
    assert!(is_all_of_one_step(&reader.latest().unwrap().unwrap()));
    let whole = std::fs::read(run.join("0001-0000000002.tkeep")).unwrap();
    std::fs::write(run.join("0002-0000000003.tkeep"), &whole[..whole.len() / 2]).unwrap();
    assert_eq!(reader.latest().unwrap().unwrap().progress().unwrap().unwrap().step, 2);
    let resumed = open(&run, Keep::all()).resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.skipped.len()), (2, 1));
}

pub fn saves_under_its_umask(folder: &Path) {
    save(&open(&folder.join("run"), Keep::all()), 1, 0.5).unwrap();
    Snapshot::new().save(folder.join("plain.tkeep")).unwrap();
}

/// safetensors: a file is published with its temporary file's mode, 0600, and never synced. Here:
/// the mode follows the umask, without write permission, since a published file is never written
/// again. (Synced: p8.)
#[test]
fn p15_files_have_the_mode_that_the_umask_says() {
    for (umask, checkpoint, plain) in [("022", 0o444, 0o644), ("027", 0o440, 0o640), ("077", 0o400, 0o600)] {
        let folder = TempFolder::new("p15");
        let output = process("saves-under-its-umask", folder.path(), &format!("umask {umask}"));
        assert!(output.status.success(), "{output:?}");
        let mode = |name: &str| folder.path().join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("run/0001-0000000001.tkeep"), checkpoint, "umask {umask}");
        assert_eq!(mode("plain.tkeep"), plain, "umask {umask}");
    }
}

/// burn: model, optimizer and scheduler are three files, truncated and written in place by three
/// threads, and the best one is deleted before its successor is written. Here: a step is one object
/// with one commit, for any failing call, once or from then on, and the best is deleted only after
/// its successor is committed.
#[test]
fn p20_model_optimizer_and_scheduler_are_one_commit() {
    let state = |step: u64| {
        let mut snapshot =
            Snapshot::new().tensor("model/weight", ndarray::Array1::from_elem(100, step as f32)).unwrap();
        snapshot = snapshot.tensor("optimizer/moment", ndarray::Array1::from_elem(100, step as f32)).unwrap();
        snapshot = snapshot.record("scheduler", &step).unwrap().metric("loss", 1.0 / step as f64).unwrap();
        snapshot = snapshot.progress(Progress::new(step));
        snapshot
    };
    // A save survives one EIO by itself: a step taken too early shows when all later calls fail.
    for (times, errno) in [(1, EIO), (usize::MAX, ENOSPC)] {
        for call in 0.. {
            let folder = TempFolder::new("p20");
            let faults = Faults::new();
            let best = StoreOptions::new().keep(Keep::default().or(Keep::best("loss", Mode::Min, 1)));
            let store = Store::open(failing_local(folder.path(), &faults).unwrap(), best).unwrap();
            store.save(&state(1)).unwrap();
            faults.take_calls();
            faults.fail_after(call, times, Fault::Errno(errno));
            let outcome = store.save(&state(2));
            faults.heal();
            let hit = faults.take_calls().len() > call;
            for info in store.list().unwrap() {
                let step = info.id.step;
                let checkpoint = store.checkpoint(step).unwrap();
                for name in ["model/weight", "optimizer/moment"] {
                    let tensor = checkpoint.tensor(name).unwrap();
                    assert_eq!(tensor.elements::<f32>().unwrap(), [step as f32; 100], "call {call}");
                }
                assert_eq!(checkpoint.record::<u64>("scheduler").unwrap(), step, "call {call}");
            }
            let there = steps(&store);
            let succeeded = outcome.is_ok() && there.contains(&2);
            assert!(there.contains(&1) || succeeded, "call {call}: the best has no successor: {there:?}");
            if !hit {
                assert!(outcome.is_ok() && call > 12, "only {call} calls");
                break;
            }
        }
    }
}
