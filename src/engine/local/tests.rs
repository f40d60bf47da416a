//! Every call of an upload fails, once and permanently, and the promises hold: nothing half
//! written, nothing lost, nothing left behind.

mod held;
mod plain;

use super::*;
use crate::engine::{CommitError, Engine, fresh_nonce};
use crate::names::hex;
use crate::testing::disks::failing::{FailingVfs, Fault, Faults};
use rustix::io::Errno;

const EIO: i32 = Errno::IO.raw_os_error();
const ENOSPC: i32 = Errno::NOSPC.raw_os_error();
const EROFS: i32 = Errno::ROFS.raw_os_error();
const EINVAL: i32 = Errno::INVAL.raw_os_error();

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tensorkeep-{name}-{}", hex(&fresh_nonce())));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Everything there but the lock file.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != LOCK)
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Entries that are no objects, each under its own name in the folder.
fn no_objects(folder: &Path) -> [&'static str; 4] {
    use std::os::unix::fs::symlink;
    std::fs::create_dir(folder.join("folder")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("pipe"), 0o600.into()).unwrap();
    symlink("pipe", folder.join("link-to-pipe")).unwrap();
    std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    ["folder", "pipe", "link-to-pipe", "socket"]
}

fn failing(folder: &Folder) -> (Local, Faults) {
    let faults = Faults::new();
    let local = Local::create_on(&folder.0, &FailingVfs::new(&faults)).unwrap();
    local.0.probed().unwrap();
    faults.take_calls();
    (local, faults)
}

fn save(local: &Local, key: &str, bytes: &[u8]) -> Result<(), CommitError> {
    let mut upload = local.create(key, Some(bytes.len() as u64)).map_err(CommitError::NotCommitted)?;
    upload.append(bytes).map_err(CommitError::NotCommitted)?;
    upload.commit(fresh_nonce())
}

fn content(local: &Local, key: &str) -> Vec<u8> {
    let blob = local.open(key).unwrap();
    let mut bytes = vec![0; blob.len() as usize];
    blob.read_at(0, &mut bytes).unwrap();
    bytes
}

// [R114] [R117] [R118] [R119]
#[test]
fn the_steps_of_a_commit_come_in_their_order() {
    let folder = Folder::new("steps");
    let (local, faults) = failing(&folder);
    save(&local, "object", &[1; 300_000]).unwrap();
    let names: Vec<&str> = faults.take_calls().iter().map(|call| call.name).collect();
    assert_eq!(
        names,
        ["lstat", "create", "write", "fchmod", "fsync", "rename", "fsync-dir", "fsync"],
        "write, fsync, rename, fsync of the folder, fsync again: nothing may move"
    );
}

// [R116] [R117]
#[test]
fn each_failing_call_of_a_save_loses_nothing() {
    for fault in [Fault::Errno(EIO), Fault::Errno(ENOSPC), Fault::Errno(EROFS), Fault::Short] {
        for step in 0.. {
            let folder = Folder::new("each-call");
            let (local, faults) = failing(&folder);
            save(&local, "first", b"committed before").unwrap();
            faults.take_calls();
            faults.fail_after(step, 1, fault);
            let outcome = save(&local, "second", &[2; 300_000]);
            faults.heal();
            let calls = faults.take_calls();
            let failed = calls.get(step).map(|call| call.name);
            assert_eq!(content(&local, "first"), b"committed before");
            match &outcome {
                Ok(()) => assert_eq!(content(&local, "second"), [2; 300_000], "{failed:?}"),
                Err(CommitError::Unknown(error)) => {
                    assert!(matches!(failed, Some("fsync-dir" | "fsync")), "{failed:?}: {error}");
                    assert_eq!(content(&local, "second"), [2; 300_000], "whole, if not known to be durable");
                }
                Err(CommitError::NotCommitted(error)) => {
                    assert!(error.object().is_some(), "{failed:?} names no path: {error}");
                    assert_eq!(folder.names(), ["first"], "{failed:?} left something behind");
                    save(&local, "second", &[3; 300_000]).unwrap();
                }
                Err(CommitError::Conflict(error)) => panic!("{failed:?}: {error}"),
            }
            if failed.is_none() {
                assert!(outcome.is_ok() && step > 7, "the run without a fault ended at step {step}");
                break;
            }
        }
    }
}

// [R115]
#[test]
fn a_failed_fsync_is_never_repeated_on_the_same_file() {
    let folder = Folder::new("fsync");
    let (local, faults) = failing(&folder);
    faults.fail_named("fsync", 0, 1, Fault::Errno(EIO));
    assert!(matches!(save(&local, "object", b"x"), Err(CommitError::NotCommitted(_))));
    let calls = faults.take_calls();
    assert_eq!(calls.iter().filter(|call| call.name == "fsync").count(), 1);
    assert!(calls.iter().all(|call| call.name != "rename"), "what was not synced was published");
    assert!(folder.names().is_empty());
}

#[test]
fn two_failed_fsyncs_in_a_row_poison_the_engine() {
    let folder = Folder::new("poison");
    let (local, faults) = failing(&folder);
    save(&local, "before", b"x").unwrap();
    faults.fail_named("fsync", 0, 2, Fault::Errno(EIO));
    assert!(save(&local, "a", b"x").is_err());
    assert!(save(&local, "b", b"x").is_err());
    let Err(CommitError::NotCommitted(error)) = save(&local, "c", b"x") else { panic!("not poisoned") };
    assert_eq!(error.kind(), ErrorKind::Poisoned);
    assert_eq!(content(&local, "before"), b"x");
    save(&Local::create(&folder.0).unwrap(), "c", b"x").unwrap();
}

#[test]
fn a_single_failed_fsync_between_good_ones_does_not_poison() {
    let folder = Folder::new("no-poison");
    let (local, faults) = failing(&folder);
    for round in 0..4 {
        faults.fail_named("fsync", 0, 1, Fault::Errno(EIO));
        assert!(save(&local, "a", b"x").is_err());
        save(&local, &format!("good-{round}"), b"x").unwrap();
    }
}

#[test]
fn a_rename_whose_reply_was_lost_is_known_by_its_inode() {
    let folder = Folder::new("lost-reply");
    let (local, faults) = failing(&folder);
    faults.fail_named("rename", 0, 1, Fault::DoneButErrno(EIO));
    save(&local, "object", b"mine").unwrap();
    assert_eq!(content(&local, "object"), b"mine");
}

#[test]
fn without_rename_noreplace_link_publishes() {
    for (refused, create_only) in [(&["rename"][..], true), (&["rename", "link"], false)] {
        let folder = Folder::new("refused");
        let faults = Faults::new();
        for name in refused {
            faults.fail_named(name, 0, usize::MAX, Fault::Errno(EINVAL));
        }
        let local = Local::create_on(&folder.0, &FailingVfs::new(&faults)).unwrap();
        assert_eq!(local.caps().create_only, create_only);
        save(&local, "object", b"x").unwrap();
        assert!(matches!(save(&local, "object", b"y"), Err(CommitError::NotCommitted(_))));
        assert_eq!(content(&local, "object"), b"x");
        assert_eq!(folder.names(), ["object"]);
    }
}

// [R112]
#[test]
fn a_folder_that_cannot_be_written_shows_when_the_lock_is_taken() {
    let folder = Folder::new("read-only");
    let faults = Faults::new();
    faults.fail_named("create", 0, usize::MAX, Fault::Errno(EROFS));
    let local = Local::create_on(&folder.0, &FailingVfs::new(&faults)).unwrap();
    let error = local.lock("me").unwrap_err();
    assert!(error.to_string().contains("probe"), "{error}");
    assert_eq!(local.caps(), Caps { map: true, ..Caps::NONE });
}

// [R113] [R120]
#[test]
fn leftovers_of_a_kill_are_swept_and_foreign_files_stay() {
    let folder = Folder::new("sweep");
    let local = Local::create(&folder.0).unwrap();
    save(&local, "folder/object", b"x").unwrap();
    save(&local, "folder/below/object", b"x").unwrap();
    let ours = |leaf: &str| format!(".tmp-{leaf}-{}", hex(&fresh_nonce()));
    // A live run in a folder of this one, and a run of which only the files were copied.
    let other = Local::create(folder.0.join("other")).unwrap();
    let _lock = other.lock("its own writer").unwrap();
    let foreign = [
        ".keep".to_owned(),
        "notes.txt".to_owned(),
        ".tmp-somebody-elses".to_owned(),
        format!(".tmp-x-{}", "F".repeat(32)),
        format!("other/{}", ours("object")),
        format!("folder/below/{}", ours("object")),
        "folder/.tmp-1".to_owned(),
    ];
    let swept = [ours("0001-0000000002.tkeep"), format!("folder/{}", ours("object")), ours("probe-from")];
    for junk in swept.iter().chain(&foreign) {
        std::fs::write(folder.0.join(junk), b"junk").unwrap();
    }
    drop(local.lock("me").unwrap());
    let is_there = |name: &String| folder.0.join(name).exists();
    assert_eq!(foreign.iter().filter(|name| !is_there(name)).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(swept.iter().filter(|name| is_there(name)).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn published_files_are_read_only_within_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("mode");
    save(&Local::create(&folder.0).unwrap(), "object", b"x").unwrap();
    std::fs::write(folder.0.join("plain"), b"x").unwrap();
    let mode = |name: &str| folder.0.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("object"), mode("plain") & 0o444);
}

/// Long enough for several blocks and a last one that is neither whole nor aligned.
fn large() -> Vec<u8> {
    (0..(13 << 20) + 777_usize).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

fn save_in_pieces(local: &Local, key: &str, bytes: &[u8]) -> Result<(), CommitError> {
    let mut upload = local.create(key, Some(bytes.len() as u64 + 9999)).map_err(CommitError::NotCommitted)?;
    for piece in bytes.chunks(1_000_003) {
        upload.append(piece).map_err(CommitError::NotCommitted)?;
    }
    upload.commit(fresh_nonce())
}

#[test]
fn a_large_file_comes_back_bit_for_bit_without_direct_io_too() {
    let bytes = large();
    type Refuse = fn(&Faults);
    let refusals: [(&str, Refuse); 6] = [
        ("nothing refused", |_| {}),
        ("when it is asked for", |faults| faults.fail_named("fcntl", 0, 1, Fault::Errno(EINVAL))),
        ("at the first write", |faults| faults.fail_named("write", 0, 1, Fault::Errno(EINVAL))),
        ("at a later write", |faults| faults.fail_named("write", 2, 1, Fault::Errno(EINVAL))),
        ("short writes", |faults| faults.fail_named("write", 1, 2, Fault::Short)),
        ("every change of directness, and writes fall short", |faults| {
            faults.fail_named("fcntl", 0, usize::MAX, Fault::Errno(EINVAL));
            faults.fail_named("write", 0, 2, Fault::Short);
        }),
    ];
    for (what, refuse) in refusals {
        let folder = Folder::new("large");
        let (local, faults) = failing(&folder);
        refuse(&faults);
        save_in_pieces(&local, "object", &bytes).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert!(content(&local, "object") == bytes, "{what}: other bytes came back");
        let calls = faults.take_calls();
        assert!(calls.iter().filter(|call| call.name == "write").count() >= 4, "{what}");
        assert_eq!(local.0.spare.lock().unwrap().len(), 4, "{what}: buffers are kept for the next file");
    }
}

#[test]
fn each_failing_call_of_a_large_save_loses_nothing() {
    let bytes = large();
    for step in 0.. {
        let folder = Folder::new("large-fails");
        let (local, faults) = failing(&folder);
        save(&local, "first", b"committed before").unwrap();
        faults.take_calls();
        faults.fail_after(step, 1, Fault::Errno(ENOSPC));
        let outcome = save_in_pieces(&local, "second", &bytes);
        faults.heal();
        let failed = faults.take_calls().get(step).map(|call| call.name);
        assert_eq!(content(&local, "first"), b"committed before");
        match outcome {
            Ok(()) => assert!(content(&local, "second") == bytes, "{failed:?}"),
            Err(CommitError::Unknown(_)) => assert!(matches!(failed, Some("fsync-dir" | "fsync"))),
            Err(CommitError::NotCommitted(_)) => {
                assert_eq!(folder.names(), ["first"], "{failed:?} left something behind");
                save_in_pieces(&local, "second", &bytes).unwrap();
            }
            Err(CommitError::Conflict(error)) => panic!("{failed:?}: {error}"),
        }
        if failed.is_none() {
            assert!(step > 12, "the run without a fault ended at step {step}");
            break;
        }
    }
}

#[test]
fn a_writing_thread_that_panics_fails_the_save_and_nothing_else() {
    let bytes = large();
    // Every write of the file: the first, those between, the padded last one; then all of them.
    for (skip, times) in [(0, 1), (1, 1), (2, 1), (3, 1), (0, usize::MAX), (1, usize::MAX)] {
        let folder = Folder::new("thread-panics");
        let (local, faults) = failing(&folder);
        save(&local, "first", b"committed before").unwrap();
        faults.fail_named("write", skip, times, Fault::Panic);
        let Err(CommitError::NotCommitted(error)) = save_in_pieces(&local, "second", &bytes) else {
            panic!("write {skip} panicked and the save went through")
        };
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(format!("{error:?}").contains("writing thread died"), "{error:?}");
        faults.heal();
        assert_eq!(content(&local, "first"), b"committed before");
        assert_eq!(folder.names(), ["first"], "write {skip} left something behind");
        save_in_pieces(&local, "second", &bytes).unwrap();
        assert!(content(&local, "second") == bytes);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_system_without_direct_io_takes_the_same_save() {
    // Whether it refuses O_DIRECT depends on the kernel (6.6 and later accept and ignore it): it
    // must work either way.
    let folder = Folder(PathBuf::from(format!("/dev/shm/tensorkeep-{}", hex(&fresh_nonce()))));
    std::fs::create_dir(&folder.0).unwrap();
    let (local, bytes) = (Local::create(&folder.0).unwrap(), large());
    save_in_pieces(&local, "object", &bytes).unwrap();
    assert!(content(&local, "object") == bytes);
    assert_eq!(folder.names(), ["object"]);
}

#[test]
fn a_dropped_upload_leaves_no_file_and_no_thread() {
    let folder = Folder::new("dropped");
    let (local, _) = failing(&folder);
    for _ in 0..20 {
        let mut upload = local.create("object", None).unwrap();
        upload.append(&large()).unwrap();
    }
    assert!(folder.names().is_empty());
    let threads = std::fs::read_dir("/proc/self/task").unwrap().filter(|task| {
        let name = std::fs::read_to_string(task.as_ref().unwrap().path().join("comm")).unwrap_or_default();
        name.starts_with("tensorkeep-writ")
    });
    // Other tests of this process may be writing right now.
    assert!(threads.count() <= 8, "threads outlive their uploads");
}

#[test]
fn a_mark_is_set_and_taken_back_without_an_fsync() {
    let folder = Folder::new("marks");
    let (local, faults) = failing(&folder);
    save(&local, "attempts/0001", b"x").unwrap();
    faults.take_calls();
    local.mark("attempts/0001.deletes.x").unwrap();
    local.unmark("attempts/0001.deletes.x").unwrap();
    let names: Vec<&str> = faults.take_calls().iter().map(|call| call.name).collect();
    assert_eq!(names, ["create", "unlink"]);
    // Without the probe, which writes: a disk without room for a byte may still have room for a
    // name.
    let unprobed = Local::create(&folder.0).unwrap();
    unprobed.mark("pins/mark").unwrap();
    assert!(unprobed.0.publish.get().is_none());
}
