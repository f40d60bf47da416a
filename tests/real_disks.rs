//! Real disks that are full or read-only: small file systems of these tests' own, mounted by root
//! and skipped without. Every promise holds, no remains are left, and saving works again when the
//! disk does.
//!
//! A single block that fails is in `crates/powercut`, below real file systems as well.

use std::path::{Path, PathBuf};
use std::process::Command;
use tensorkeep::engine::Local;
use tensorkeep::{ErrorKind, Keep, Result, Store, StoreOptions};
use test_support::{TempFolder, leftovers, save_elements};

fn open(folder: &Path, keep: usize) -> Result<Store> {
    Store::open(Local::create(folder)?, StoreOptions::new().keep(Keep::last(keep)))
}

/// A small file system of its own, if this process may mount one.
struct Mounted {
    point: PathBuf,
    arguments: Vec<String>,
    _folders: [TempFolder; 2],
}

impl Mounted {
    fn tmpfs() -> Option<Self> {
        Self::new(TempFolder::new("no-image"), &["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
    }

    fn ext4() -> Option<Self> {
        let folder = TempFolder::new("image");
        let image = folder.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
        let formatted = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).output();
        if !formatted.is_ok_and(|output| output.status.success()) {
            println!("skipped ext4: there is no mkfs.ext4");
            return None;
        }
        Self::new(folder, &["-o", "loop", image.to_str().unwrap()])
    }

    fn new(image: TempFolder, arguments: &[&str]) -> Option<Self> {
        let folder = TempFolder::new("mounted");
        let point = folder.path().join("point");
        std::fs::create_dir(&point).unwrap();
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mounted = Self { point, arguments, _folders: [folder, image] };
        mounted.mount().then_some(mounted)
    }

    fn mount(&self) -> bool {
        let outcome = Command::new("mount").args(&self.arguments).arg(&self.point).output();
        let mounted = outcome.as_ref().is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: mounting needs root, loop devices and the file system ({outcome:?})");
        }
        mounted
    }

    /// As after a reboot. No file may be open.
    fn start_again(&self) {
        assert!(Command::new("umount").arg(&self.point).status().unwrap().success());
        assert!(self.mount());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a failed test may still hold a file open, and the loop device is removed with the
        // last one.
        let _ = Command::new("umount").arg("-l").arg(&self.point).output();
    }
}

/// Fills the disk except for `left` bytes.
fn fill(folder: &Path, left: u64) -> PathBuf {
    let filler = folder.join("filler");
    let block = vec![1_u8; 4096];
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    let len = file.metadata().unwrap().len();
    file.set_len(len.saturating_sub(left)).unwrap();
    file.sync_all().unwrap();
    filler
}

// G1 G3
#[test]
fn a_full_disk_loses_nothing_and_saves_again_with_space() {
    for disk in [Mounted::tmpfs(), Mounted::ext4()].into_iter().flatten() {
        let run = disk.point.join("run");
        let store = open(&run, 2).unwrap();
        // 400 KB each: reported by preallocation; then 100 KB: found while writing.
        for elements in [100_000, 25_000] {
            let first = 1 + store.list().unwrap().last().map_or(0, |info| info.id.step);
            save_elements(&store, first, 1000).unwrap();
            let filler = fill(&disk.point, 50_000);
            for round in 0..3 {
                let error = save_elements(&store, first + 1 + round, elements).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                assert!(error.object().is_some_and(|object| object.contains("run")), "{error}");
                assert_eq!(store.resume().unwrap().next_step(), first);
                assert!(leftovers(&run).is_empty(), "{:?}", leftovers(&run));
            }
            std::fs::remove_file(filler).unwrap();
            save_elements(&store, first + 10, elements).unwrap();
        }
        store.close().unwrap();
    }
}

// G3
#[test]
fn a_disk_with_room_for_one_more_than_is_kept_saves_for_ever() {
    for disk in [Mounted::tmpfs(), Mounted::ext4()].into_iter().flatten() {
        let store = open(&disk.point.join("run"), 1).unwrap();
        save_elements(&store, 1, 50_000).unwrap();
        fill(&disk.point, 300_000);
        for step in 2..30 {
            let saved =
                save_elements(&store, step, 50_000).unwrap_or_else(|error| panic!("step {step}: {error}"));
            assert!(saved.rotation_error.is_none() && saved.not_deleted.is_empty(), "{saved:?}");
        }
        assert_eq!(store.list().unwrap().len(), 1);
    }
}

// G1 G3: ext4's behaviour when its journal fails, `errors=remount-ro`.
#[test]
fn a_disk_that_becomes_read_only_keeps_its_checkpoints() {
    let Some(disk) = Mounted::ext4() else { return };
    let run = disk.point.join("run");
    let store = open(&run, 2).unwrap();
    for step in [1, 2] {
        save_elements(&store, step, 1000).unwrap();
    }
    let aborted = Command::new("mount").args(["-o", "remount,abort"]).arg(&disk.point).status().unwrap();
    assert!(aborted.success());
    for step in [3, 4] {
        let error = save_elements(&store, step, 1000).unwrap_err();
        assert!(error.object().is_some_and(|object| object.contains("run")), "{error}");
    }
    // A reader sees the same as before.
    assert_eq!(store.list().unwrap().len(), 2);
    assert_eq!(store.latest().unwrap().unwrap().progress().unwrap().map(|progress| progress.step), Some(2));
    drop(store);
    disk.start_again();
    let store = open(&run, 2).unwrap();
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.skipped.len()), (2, 0));
    save_elements(&store, 3, 1000).unwrap();
    assert!(leftovers(&run).is_empty(), "{:?}", leftovers(&run));
}
