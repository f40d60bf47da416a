//! The folder is held: moved, removed, linked, blocked, full or damaged entries redirect nothing
//! and hide nothing.

use super::*;

/// A run's folder that is moved away, and another run at its path.
#[test]
fn a_moved_folder_takes_its_writer_with_it() {
    let folder = Folder::new("moved");
    let (run, moved) = (folder.0.join("run"), folder.0.join("moved"));
    let old = Local::create(&run).unwrap();
    save(&old, "object", b"old").unwrap();
    let mut upload = old.create("late", None).unwrap();
    upload.append(b"old").unwrap();
    std::fs::rename(&run, &moved).unwrap();
    let new = Local::create(&run).unwrap();
    save(&new, "object", b"new").unwrap();
    save(&new, "other", b"new").unwrap();
    let _lock = new.lock("the new one").unwrap();

    upload.commit(fresh_nonce()).unwrap();
    save(&old, "attempts/0002", b"old").unwrap();
    old.mark("attempts/mark").unwrap();
    assert_eq!(content(&old, "object"), b"old");
    old.delete("object").unwrap();
    assert_eq!(old.delete("other").unwrap_err().kind(), ErrorKind::NotFound);
    drop(old.lock("the old one").unwrap());
    let keys = |local: &Local| {
        let mut keys: Vec<String> = local.list("").unwrap().into_iter().map(|entry| entry.key).collect();
        keys.sort();
        keys
    };
    assert_eq!(
        (keys(&new), keys(&old)),
        (vec!["object".to_owned(), "other".to_owned()], vec!["late".to_owned()])
    );
    assert_eq!((new.list("attempts").unwrap().len(), old.list("attempts").unwrap().len()), (0, 2));
    assert_eq!(content(&new, "object"), b"new");
}

#[test]
fn every_call_on_a_removed_folder_says_that_it_is_gone() {
    let folder = Folder::new("removed");
    let run = folder.0.join("run");
    let old = Local::create(&run).unwrap();
    save(&old, "object", b"old").unwrap();
    let mut upload = old.create("late", None).unwrap();
    upload.append(b"old").unwrap();
    std::fs::remove_dir_all(&run).unwrap();
    save(&Local::create(&run).unwrap(), "object", b"new").unwrap();

    let committed: Error = upload.commit(fresh_nonce()).unwrap_err().into();
    let saved: Error = save(&old, "more", b"old").unwrap_err().into();
    let errors = [
        committed,
        saved,
        old.list("").unwrap_err(),
        old.list("attempts").unwrap_err(),
        old.open("object").unwrap_err(),
        old.delete("object").unwrap_err(),
        old.mark("attempts/mark").unwrap_err(),
        old.unmark("attempts/mark").unwrap_err(),
        old.rename("object", "damaged/object").unwrap_err(),
        old.lock("the old one").unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("folder was removed"), "{error:?}");
        assert_eq!((error.kind(), error.object()), (ErrorKind::NotFound, run.to_str()));
    }
    assert_eq!(std::fs::read_dir(&run).unwrap().count(), 1);
}

#[test]
fn one_entry_that_cannot_be_looked_at_hides_only_itself() {
    let folder = Folder::new("bad-inode");
    let (local, faults) = failing(&folder);
    for key in ["a", "b", "c"] {
        save(&local, key, b"whole").unwrap();
    }
    for errno in [EIO, 117, 74] {
        for bad in 0..3 {
            faults.fail_named("stat", bad, 1, Fault::Errno(errno));
            let mut lens: Vec<u64> = local.list("").unwrap().into_iter().map(|entry| entry.len).collect();
            lens.sort_unstable();
            assert_eq!(lens, [0, 5, 5], "errno {errno}");
        }
    }
    // The run's folder is identified by its inode alone, and the error names the real cause.
    faults.fail_named("stat", 0, usize::MAX, Fault::Errno(117));
    let error = Local::create_on(&folder.0, &FailingVfs::new(&faults)).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && !error.to_string().contains("is a file"), "{error}");
}

#[test]
fn links_are_the_files_they_lead_to() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new("links");
    let (run, elsewhere) = (folder.0.join("run"), folder.0.join("elsewhere"));
    let other = Local::create(&elsewhere).unwrap();
    save(&other, "object", b"content").unwrap();
    save(&other, "folder/object", b"content").unwrap();
    let local = Local::create(&run).unwrap();
    symlink("../elsewhere/object", run.join("linked")).unwrap();
    symlink("nothing", run.join("dangling")).unwrap();
    symlink("circle", run.join("circle")).unwrap();
    symlink("../elsewhere/folder", run.join("folder")).unwrap();
    let mut listed: Vec<(String, u64)> =
        local.list("").unwrap().into_iter().map(|entry| (entry.key, entry.len)).collect();
    listed.sort();
    let expected = [("circle", 0), ("dangling", 0), ("linked", 7)].map(|(key, len)| (key.to_owned(), len));
    assert_eq!(listed, expected);
    assert_eq!(content(&local, "linked"), b"content");
    let error = local.open("dangling").unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.to_string().contains("a link to nothing"), "{error}");
    assert_eq!(local.open("circle").unwrap_err().kind(), ErrorKind::Io);
    // Names in the way are listed.
    for key in ["linked", "dangling", "circle"] {
        assert_eq!(local.create(key, None).map(drop).unwrap_err().kind(), ErrorKind::AlreadyExists, "{key}");
        assert_eq!(local.mark(key).unwrap_err().kind(), ErrorKind::AlreadyExists, "{key}");
    }
    // A linked folder is read, and nothing is written or deleted through it.
    assert_eq!((local.list("folder").unwrap().len(), content(&local, "folder/object").len()), (1, 7));
    let errors = [
        local.create("folder/new", None).map(drop).unwrap_err(),
        local.mark("folder/mark").unwrap_err(),
        local.delete("folder/object").unwrap_err(),
        local.rename("linked", "folder/linked").unwrap_err(),
        local.rename("folder/object", "object").unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Invalid), "{errors:?}");
    assert_eq!(std::fs::read_dir(elsewhere.join("folder")).unwrap().count(), 1);
    // Deletes a link, not its target.
    local.delete("linked").unwrap();
    assert_eq!(content(&other, "object"), b"content");
}

#[test]
fn what_is_in_the_way_and_not_listed_is_not_already_there() {
    let folder = Folder::new("in-the-way");
    let local = Local::create(&folder.0).unwrap();
    let mut uploads: Vec<_> =
        ["folder", "pipe"].map(|key| local.create(key, None).unwrap()).into_iter().collect();
    for key in no_objects(&folder.0) {
        assert_eq!(local.create(key, None).map(drop).unwrap_err().kind(), ErrorKind::Invalid, "{key}");
        assert_eq!(local.mark(key).unwrap_err().kind(), ErrorKind::Invalid, "{key}");
        // The system itself refuses to open a socket.
        if key != "socket" {
            assert_eq!(local.open(key).unwrap_err().kind(), ErrorKind::Invalid, "{key}");
        }
    }
    assert_eq!(local.list("").unwrap(), []);
    let Err(CommitError::NotCommitted(error)) = uploads.remove(0).commit(fresh_nonce()) else {
        panic!("a folder is no other's commit")
    };
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_full_disk_can_be_locked_marked_and_emptied() {
    for errno in [ENOSPC, 122] {
        let folder = Folder::new("full");
        let (local, faults) = failing(&folder);
        for key in ["old", "newer", "attempts/0001"] {
            save(&local, key, b"x").unwrap();
        }
        drop(local.lock("the first").unwrap());
        let local = Local::create_on(&folder.0, &FailingVfs::new(&faults)).unwrap();
        for call in ["write", "fallocate"] {
            faults.fail_named(call, 0, usize::MAX, Fault::Errno(errno));
        }
        let _lock = local.lock("the second").unwrap();
        local.mark("attempts/0001.deletes.old").unwrap();
        local.delete("old").unwrap();
        local.unmark("attempts/0001.deletes.old").unwrap();
        local.rename("newer", "damaged/newer").unwrap();
        let Err(CommitError::NotCommitted(error)) = save(&local, "new", b"x") else {
            panic!("there is no room")
        };
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(folder.names(), ["attempts", "damaged"], "the probe's files stay");
        faults.heal();
        save(&local, "new", b"x").unwrap();
    }
}

#[test]
fn the_lock_names_its_present_holder_and_since_when() {
    let folder = Folder::new("holder");
    let local = Local::create(&folder.0).unwrap();
    drop(local.lock("a holder of many words that was here before").unwrap());
    let _held = local.lock("the present one").unwrap();
    assert_eq!(std::fs::read(folder.0.join(LOCK)).unwrap(), b"the present one");
    let error = local.lock("another").unwrap_err();
    assert!(error.to_string().contains("found the present one ("), "{error}");
    let lock = std::fs::File::open(folder.0.join(LOCK)).unwrap();
    lock.set_modified(std::time::SystemTime::now() - Duration::from_secs(3 * 3600 + 100)).unwrap();
    let error = local.lock("another").unwrap_err();
    assert!(error.to_string().contains("found the present one (3 hours ago)"), "{error}");
    let spans = [0, 1, 2, 119, 120, 7199, 7200, 172_799, 172_800].map(|s| span(Duration::from_secs(s)));
    let words = ["0 seconds", "1 second", "2 seconds", "119 seconds", "2 minutes", "119 minutes", "2 hours"];
    assert_eq!(spans[..7], words);
    assert_eq!(spans[7..], ["47 hours", "2 days"]);
}

#[test]
fn setting_aside_syncs_both_folders() {
    let folder = Folder::new("set-aside");
    let (local, faults) = failing(&folder);
    save(&local, "folder/object", b"x").unwrap();
    save(&local, "other/object", b"x").unwrap();
    faults.take_calls();
    local.rename("folder/object", "other/moved").unwrap();
    let calls = faults.take_calls();
    let synced: Vec<&str> =
        calls.iter().filter(|call| call.name == "fsync-dir").map(|call| call.leaf.as_str()).collect();
    assert_eq!(synced, ["other", "folder"]);
}

#[test]
fn a_folder_that_was_there_is_made_durable_before_it_is_used() {
    let folder = Folder::new("was-there");
    std::fs::create_dir_all(folder.0.join("run/attempts")).unwrap();
    let faults = Faults::new();
    let synced = || -> Vec<String> {
        let calls = faults.take_calls().into_iter().filter(|call| call.name == "fsync-dir");
        calls.map(|call| call.leaf).collect()
    };
    let local = Local::create_on(&folder.0.join("run"), &FailingVfs::new(&faults)).unwrap();
    let parent = folder.0.file_name().unwrap().to_str().unwrap();
    assert_eq!(synced(), [parent], "the run's own name");
    local.0.probed().unwrap();
    synced();
    save(&local, "attempts/0001", b"x").unwrap();
    assert_eq!(synced(), ["", "attempts"], "the folder's name, then the file's");
    // The folder above may belong to another user.
    faults.fail_named("fsync-dir", 0, 1, Fault::Errno(13));
    Local::create_on(&folder.0.join("run"), &FailingVfs::new(&faults)).unwrap();
    faults.fail_named("fsync-dir", 0, 1, Fault::Errno(EIO));
    assert_eq!(
        Local::create_on(&folder.0.join("run"), &FailingVfs::new(&faults)).unwrap_err().kind(),
        ErrorKind::Io
    );
}

#[test]
fn an_aborted_upload_writes_nothing_more() {
    let bytes = large();
    for _ in 0..10 {
        let folder = Folder::new("given-up");
        let (local, faults) = failing(&folder);
        let mut upload = local.create("object", None).unwrap();
        upload.append(&bytes).unwrap();
        drop(upload);
        // Calls after the unlink, by a thread that still ran.
        std::thread::sleep(Duration::from_millis(20));
        let calls = faults.take_calls();
        let unlinked = calls.iter().position(|call| call.name == "unlink").unwrap();
        assert!(calls[unlinked..].iter().all(|call| call.name != "write"), "{:?}", &calls[unlinked..]);
    }
}

/// Every state that a power cut may leave after `save` returned Ok, in a run whose folder was made
/// without an fsync.
#[cfg(feature = "testing")]
#[test]
fn a_run_whose_folder_was_there_survives_a_power_cut() {
    use crate::testing::disks::power_cut::{AtRest, Names};
    use crate::testing::disks::simulated::{Node, SimulatedVfs};
    use std::ops::ControlFlow;
    let disk = SimulatedVfs::empty();
    let base = disk.nodes();
    disk.create_dir(Path::new("/runs")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    // By a process that was killed before its fsync, or by hand.
    disk.create_dir(Path::new("/runs/lenet")).unwrap();
    let local = Local::create_on(Path::new("/runs/lenet"), &disk).unwrap();
    save(&local, "object", b"saved").unwrap();
    let mut rest = AtRest::begin(&base, &disk.nodes());
    for op in &disk.journal() {
        rest.step(op);
    }
    let mut states = 0;
    let _ = rest.every_state(Names::Ordered, &mut |image| {
        states += 1;
        let child = |folder: usize, name: &str| match &image.nodes[folder] {
            Node::Dir(entries) => entries.get(name).copied(),
            Node::File(_) => None,
        };
        let run = child(0, "runs").and_then(|runs| child(runs, "lenet"));
        assert!(run.is_some_and(|run| child(run, "object").is_some()), "state {states} has no checkpoint");
        ControlFlow::<()>::Continue(())
    });
    assert!(states > 0);
}
