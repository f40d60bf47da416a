//! A run's checkpoints over both engines: schedules, rotation, attempts and fences, resuming past
//! damage, pins, and a reader beside the writer, with injected faults.

use std::sync::Arc;
use std::time::Duration;
use tensorkeep::engine::{Caps, CommitError, Decorator, Engine, Local, Lock, Memory, Nonce, Upload};
use tensorkeep::testing::{Fault, Faults, failing_local, store_suite};
use tensorkeep::{
    Error, ErrorKind, Every, Keep, Progress, Reader, Result, SaveReason, Saved, Snapshot, Store, StoreOptions,
};
use test_support::{TempFolder, flip_on_disk, steps};

#[test]
fn a_store_in_memory_keeps_its_promises() {
    store_suite::run(|| Arc::new(Memory::new()));
}

#[test]
fn a_store_on_disk_keeps_its_promises() {
    let mut folders = Vec::new();
    store_suite::run(|| {
        folders.push(TempFolder::new("store"));
        Arc::new(Local::create(folders.last().unwrap().path().join("run")).unwrap())
    });
}

fn open(engine: &Arc<dyn Engine>, settings: StoreOptions) -> Store {
    Store::open(Arc::clone(engine), settings).unwrap()
}

fn save(store: &Store, step: u64, loss: f64) -> Result<Saved> {
    let weights = [step as f32; 100];
    let mut snapshot = Snapshot::new().tensor("weight", &weights[..])?.metric("loss", loss)?;
    snapshot = snapshot.progress(Progress::new(step).epoch(step / 100));
    store.save(&snapshot)
}

// G6
#[test]
fn resume_falls_back_past_damage_sets_it_aside_and_says_so() {
    let folder = TempFolder::new("fallback");
    let engine: Arc<dyn Engine> = Arc::new(Local::create(folder.path()).unwrap());
    let store = open(&engine, StoreOptions::new());
    for step in [100, 200, 300, 400] {
        save(&store, step, 0.5).unwrap();
    }
    drop(store);
    flip_on_disk(&folder.path().join("0001-0000000400.tkeep"));
    std::fs::remove_file(folder.path().join("0001-0000000300.tkeep")).unwrap();
    std::fs::write(folder.path().join("0001-0000000300.tkeep"), b"").unwrap();
    let store = open(&engine, StoreOptions::new().keep(Keep::last(1)));
    let resumed = store.resume().unwrap();
    assert_eq!(resumed.next_step(), 200);
    let skipped: Vec<_> =
        resumed.skipped.iter().map(|skipped| (skipped.id.step, skipped.error.kind())).collect();
    assert_eq!(skipped, [(400, ErrorKind::Damaged), (300, ErrorKind::Damaged)]);
    assert!(resumed.skipped[0].error.to_string().contains("tensor weight"), "{}", resumed.skipped[0].error);
    for skipped in resumed.skipped {
        assert!(std::path::Path::new(&skipped.set_aside.unwrap().unwrap()).is_file());
    }
    assert_eq!(steps(&store), [100, 200]);
    drop(store);
    let store = open(&engine, StoreOptions::new());
    assert!(store.resume().unwrap().skipped.is_empty(), "resuming again finds nothing to set aside");
}

// G6
#[test]
fn a_run_of_damaged_checkpoints_does_not_start_from_nothing() {
    let folder = TempFolder::new("all-damaged");
    let engine: Arc<dyn Engine> = Arc::new(Local::create(folder.path()).unwrap());
    let store = open(&engine, StoreOptions::new());
    save(&store, 100, 0.5).unwrap();
    flip_on_disk(&folder.path().join("0001-0000000100.tkeep"));
    for _ in 0..2 {
        let error = store.resume().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains("damaged/"), "{error}");
    }
    std::fs::rename(folder.path().join("damaged"), folder.path().join("old-damaged")).unwrap();
    assert_eq!(store.resume().unwrap().next_step(), 0);
}

#[test]
fn a_checkpoint_of_a_newer_version_stops_the_resume() {
    let folder = TempFolder::new("newer");
    let engine: Arc<dyn Engine> = Arc::new(Local::create(folder.path()).unwrap());
    let store = open(&engine, StoreOptions::new());
    save(&store, 100, 0.5).unwrap();
    save(&store, 200, 0.5).unwrap();
    let path = folder.path().join("0001-0000000200.tkeep");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 2; // the read version, with the header's checksum made right
    let crc = crc32fast::hash(&bytes[..4092]).to_le_bytes();
    bytes[4092..4096].copy_from_slice(&crc);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(store.resume().unwrap_err().kind(), ErrorKind::NewerVersion);
    assert_eq!(steps(&store), [100, 200]);
}

#[test]
fn junk_in_the_folder_is_ignored_and_stays() {
    let folder = TempFolder::new("junk");
    for junk in ["notes.txt", "0001-0000000100.tkeep.bak", "1-2.tkeep", "model.safetensors", "LOCK"] {
        std::fs::write(folder.path().join(junk), b"junk").unwrap();
    }
    std::fs::create_dir(folder.path().join("0009-0000000001.tkeep")).unwrap();
    let engine: Arc<dyn Engine> = Arc::new(Local::create(folder.path()).unwrap());
    let store = open(&engine, StoreOptions::new().keep(Keep::last(1)));
    save(&store, 100, 0.5).unwrap();
    save(&store, 200, 0.5).unwrap();
    assert_eq!(steps(&store), [200]);
    assert_eq!(store.resume().unwrap().next_step(), 200);
    assert!(folder.path().join("notes.txt").is_file());
}

#[test]
fn a_copied_folder_is_a_run_of_its_own() {
    let folder = TempFolder::new("copy");
    let (from, to) = (folder.path().join("a"), folder.path().join("b"));
    let store = Store::open(Local::create(&from).unwrap(), StoreOptions::new()).unwrap();
    save(&store, 100, 0.25).unwrap();
    let status = std::process::Command::new("cp").arg("-r").args([&from, &to]).status().unwrap();
    assert!(status.success());
    let copy = Store::open(Local::create(&to).unwrap(), StoreOptions::new().keep(Keep::last(1))).unwrap();
    assert_eq!(copy.resume().unwrap().next_step(), 100);
    save(&copy, 200, 0.5).unwrap();
    assert_eq!((steps(&store), copy.attempt()), (vec![100], 2));
}

#[test]
fn a_signal_makes_a_save_due_once_and_asks_to_stop() {
    let store = Store::open(Memory::new(), StoreOptions::new().save(Every::on_signal())).unwrap();
    assert_eq!((store.due(&Progress::new(1)), store.should_stop()), (None, false));
    let pid = std::process::id().to_string();
    let kill = |signal: &str| {
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
        std::thread::sleep(Duration::from_millis(50));
    };
    kill("-USR1");
    assert_eq!((store.due(&Progress::new(1)), store.should_stop()), (Some(SaveReason::Signal), false));
    save(&store, 1, 0.5).unwrap();
    assert_eq!(store.due(&Progress::new(2)), None);
    kill("-TERM");
    assert_eq!((store.due(&Progress::new(2)), store.should_stop()), (Some(SaveReason::Signal), false));
    save(&store, 2, 0.5).unwrap();
    assert!(store.should_stop());
}

#[test]
fn missing_progress_and_meaningless_options_are_refused() {
    let store = Store::open(Memory::new(), StoreOptions::new()).unwrap();
    assert!(store.save(&Snapshot::new()).unwrap_err().to_string().contains("progress"));
    for settings in [
        StoreOptions::new().save(Every::steps(0)),
        StoreOptions::new().keep(Keep::last(1).or(Keep::every_steps(0))),
    ] {
        assert_eq!(Store::open(Memory::new(), settings).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

/// Faults of a whole save, counted through: lock, attempt, upload, commit, rotation.
fn run_with_fault(step: usize, fault: Fault) -> Option<()> {
    let folder = TempFolder::new("every-call");
    let faults = Faults::new();
    let local = failing_local(folder.path(), &faults).unwrap();
    let store = Store::open(local, StoreOptions::new().keep(Keep::last(2))).unwrap();
    save(&store, 100, 0.5).unwrap();
    save(&store, 200, 0.5).unwrap();
    faults.take_calls();
    faults.fail_after(step, 1, fault);
    let outcome = save(&store, 300, 0.5);
    faults.heal();
    let failed = faults.take_calls().get(step).cloned();
    let there = steps(&store);
    assert!(there.ends_with(&[200]) || there.ends_with(&[200, 300]), "{failed:?}: {there:?}");
    match outcome {
        Ok(_) => assert_eq!(store.resume().unwrap().next_step(), 300, "{failed:?}"),
        Err(error) => {
            assert!(error.object().is_some(), "{failed:?}: no path in {error}");
            assert_eq!(error.step(), Some(300), "{failed:?}: no step in {error}");
        }
    }
    assert!(save(&store, 400, 0.5).is_ok(), "{failed:?}: the next save must succeed");
    drop(store);
    let store = Store::open(Local::create(folder.path()).unwrap(), StoreOptions::new()).unwrap();
    let resumed = store.resume().unwrap();
    assert!(resumed.skipped.is_empty(), "{failed:?}");
    assert_eq!(resumed.next_step(), 400);
    let leftovers: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".tmp"))
        .collect();
    assert!(leftovers.is_empty(), "{failed:?} left {leftovers:?}");
    failed.map(drop)
}

// G1 G2 G3
#[test]
fn every_call_of_a_save_may_fail_once() {
    for errno in [5, 28, 122, 13, 30, 24, 4] {
        let mut step = 0;
        while run_with_fault(step, Fault::Errno(errno)).is_some() {
            step += 1;
        }
        assert!(step > 12, "errno {errno}: only {step} calls were seen");
    }
}

// G2
#[test]
fn a_failed_fsync_is_answered_by_a_new_file_once() {
    let folder = TempFolder::new("new-file");
    let faults = Faults::new();
    let store = Store::open(failing_local(folder.path(), &faults).unwrap(), StoreOptions::new()).unwrap();
    faults.take_calls();
    faults.fail_named("fsync", 0, 1, Fault::Errno(5));
    save(&store, 1, 0.5).unwrap();
    let calls = faults.take_calls();
    let of = |name| {
        calls.iter().filter(|call| call.name == name).map(|call| call.leaf.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("create").len(), 2, "a second file was written from memory");
    let synced = of("fsync");
    assert_ne!(synced[0], synced[1], "the failed file was synced again");
    faults.fail_named("fsync", 0, 2, Fault::Errno(5));
    let error = save(&store, 2, 0.5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(save(&store, 3, 0.5).unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(store.resume().unwrap().next_step(), 1);
}

// G2
#[test]
fn an_unknown_outcome_is_no_ok_and_deletes_nothing() {
    let folder = TempFolder::new("unknown");
    let faults = Faults::new();
    let keep = StoreOptions::new().keep(Keep::last(1));
    let store = Store::open(failing_local(folder.path(), &faults).unwrap(), keep).unwrap();
    save(&store, 1, 0.5).unwrap();
    faults.fail_named("fsync-dir", 0, 1, Fault::Errno(5));
    assert_eq!(save(&store, 2, 0.5).unwrap_err().kind(), ErrorKind::Unknown);
    assert_eq!(steps(&store), [1, 2], "the older one stays until a newer one is known to be durable");
}

#[test]
fn a_failed_rotation_does_not_fail_the_save() {
    let folder = TempFolder::new("rotation");
    let faults = Faults::new();
    let keep = StoreOptions::new().keep(Keep::last(1));
    let store = Store::open(failing_local(folder.path(), &faults).unwrap(), keep).unwrap();
    save(&store, 1, 0.5).unwrap();
    faults.fail_named("unlink", 0, 1, Fault::Errno(5));
    let saved = save(&store, 2, 0.5).unwrap();
    assert_eq!(saved.not_deleted[0].0.step, 1);
    assert_eq!(save(&store, 3, 0.5).unwrap().deleted.len(), 2);
}

#[test]
fn a_reader_of_a_run_that_is_not_there_says_so() {
    let error = Local::open("nowhere/to/be/found").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let reader = Reader::new(Memory::new());
    assert!(reader.latest().unwrap().is_none() && reader.list().unwrap().is_empty());
    let _: fn(Error) -> ErrorKind = |error| error.kind();
}

/// Without locks, and a newer attempt is taken between a checkpoint's last check and its commit.
#[derive(Debug)]
struct Overtaken(Memory);

struct OvertakenUpload(Memory, String, Box<dyn Upload>);

impl Upload for OvertakenUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.2.append(bytes)
    }

    fn commit(self: Box<Self>, nonce: Nonce) -> Result<(), CommitError> {
        if self.1.ends_with(".tkeep") {
            self.0.create("attempts/0002", None).unwrap().commit([2; 16])?;
        }
        self.2.commit(nonce)
    }
}

impl Decorator for Overtaken {
    type Inner = Memory;

    fn inner(&self) -> &Memory {
        &self.0
    }

    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        Ok(Box::new(OvertakenUpload(self.0.clone(), key.to_owned(), self.0.create(key, size_hint)?)))
    }

    fn lock(&self, _: &str) -> Result<Box<dyn Lock>> {
        Err(Error::new(ErrorKind::Unsupported, "no locks"))
    }

    fn caps(&self) -> Caps {
        let mut caps = self.0.caps();
        caps.lock = false;
        caps
    }
}

// G9: the newer writer may have looked for checkpoints before this one was there.
#[test]
fn a_save_overtaken_during_its_commit_is_not_acknowledged() {
    let store = Store::open(Overtaken(Memory::new()), StoreOptions::new()).unwrap();
    assert_eq!(save(&store, 1, 0.5).unwrap_err().kind(), ErrorKind::Fenced);
}

#[test]
fn a_save_makes_as_many_calls_beside_few_or_many_checkpoints() {
    let (folder, faults) = (TempFolder::new("flat"), Faults::new());
    let engine: Arc<dyn Engine> = Arc::new(failing_local(folder.path(), &faults).unwrap());
    let keep = Keep::all().or(Keep::best("loss", tensorkeep::Mode::Min, 2));
    let store = open(&engine, StoreOptions::new().keep(keep.clone()));
    let calls_of = |store: &Store, step| {
        faults.take_calls();
        save(store, step, 1.0 / step as f64).unwrap();
        // A listing asks for each entry's length, and for nothing else.
        let calls = faults.take_calls();
        calls.iter().map(|call| call.name).filter(|name| *name != "stat").collect::<Vec<_>>()
    };
    save(&store, 1, 1.0).unwrap();
    let few = calls_of(&store, 2);
    let many = (3..=250).map(|step| calls_of(&store, step)).last().unwrap();
    assert_eq!(few, many);
    // Opening reads each checkpoint once; known ones are not read again.
    drop(store);
    let store = open(&engine, StoreOptions::new().keep(keep));
    store.resume().unwrap();
    assert_eq!(calls_of(&store, 251), few);
    assert_eq!(store.list().unwrap().len(), 251);
}

#[test]
fn a_setting_that_is_missing_or_zero_is_told_in_words() {
    let opened = |path: &str, options: StoreOptions| Store::open(path, options).unwrap_err();
    let empty = opened("", StoreOptions::new());
    assert!(empty.kind() == ErrorKind::Invalid && empty.to_string().contains("an empty path"), "{empty}");
    assert_eq!(Reader::open("").unwrap_err().kind(), ErrorKind::Invalid);
    let folder = TempFolder::new("zero");
    let run = folder.path().join("run").display().to_string();
    let last = opened(&run, StoreOptions::new().keep(Keep::last(0))).to_string();
    assert!(last.contains("\"last 0\" keeps nothing: expected at least 1"), "{last}");
    let steps = opened(&run, StoreOptions::new().save(Every::steps(0))).to_string();
    assert!(steps.contains("steps between saves: expected more than 0, found 0"), "{steps}");
}
