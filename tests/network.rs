//! When files are mapped, and when they are read although mapping was requested: engines without
//! mappings, and network file systems. Simulated through the `Vfs`, and on a real FUSE mount where
//! possible.
#![expect(unsafe_code, reason = "mapping takes a promise; here it is kept, or not needed")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tensorkeep::engine::{Blob, Caps, Decorator, Engine, Local, MmapPromise};
use tensorkeep::testing::{Faults, failing_local};
use tensorkeep::{
    Checkpoint, Error, ErrorKind, MappedCopy, Progress, Reader, Result, Snapshot, Store, StoreOptions,
};
use test_support::{TempFolder, wave};

fn promise() -> MmapPromise {
    // SAFETY: the files of these tests are truncated only where nothing is mapped.
    unsafe { MmapPromise::assume_unchanged() }
}

fn snapshot(weights: &[f32]) -> Snapshot<'_> {
    Snapshot::new().tensor("weight", weights).unwrap().progress(Progress::new(1))
}

fn save(engine: Local, weights: &[f32]) {
    Store::open(engine, StoreOptions::new()).unwrap().save(&snapshot(weights)).unwrap();
}

const KEY: &str = "0001-0000000001.tkeep";

#[test]
fn files_on_a_network_file_system_are_read_and_not_mapped() {
    let folder = TempFolder::new("network");
    let weights = wave(50_000);
    for (network, maps) in [(None, true), (Some("NFS"), false)] {
        let run = folder.path().join(network.unwrap_or("disk"));
        let faults = Faults::new();
        if let Some(name) = network {
            faults.seem_to_be_on(name);
        }
        let local = failing_local(&run, &faults).unwrap();
        save(local.clone(), &weights);
        assert_eq!(local.caps().map, maps, "{network:?}");
        let blob = local.map(KEY, promise()).unwrap();
        assert_eq!(blob.as_bytes().is_some(), maps, "{network:?}");
        let store = Store::open(local, StoreOptions::new().map(promise())).unwrap();
        let resumed = store.resume().unwrap().checkpoint.unwrap();
        assert_eq!(resumed.tensor("weight").unwrap().elements::<f32>().unwrap(), weights);
    }
}

/// Read-only: other requests fail as unsupported.
#[derive(Debug)]
struct ForReading(Local, bool);

impl Decorator for ForReading {
    type Inner = Local;

    fn inner(&self) -> &Local {
        &self.0
    }

    fn map(&self, key: &str, promise: MmapPromise) -> Result<Arc<dyn Blob>> {
        if self.1 { self.0.map(key, promise) } else { Err(Error::new(ErrorKind::Unsupported, "no mappings")) }
    }

    fn caps(&self) -> Caps {
        panic!("to find out capabilities, a local engine writes")
    }
}

#[test]
fn a_reader_maps_where_it_can_and_never_writes() {
    let folder = TempFolder::new("reader-maps");
    let weights = wave(5_000);
    save(Local::create(folder.path()).unwrap(), &weights);
    for maps in [true, false] {
        let engine = ForReading(Local::open(folder.path()).unwrap(), maps);
        let checkpoint = Reader::new(engine).map(promise()).checkpoint(1).unwrap();
        let tensor = checkpoint.tensor("weight").unwrap();
        assert_eq!(tensor.borrowed().is_some(), maps);
        assert_eq!(tensor.elements::<f32>().unwrap(), weights);
    }
}

/// A folder mounted through FUSE, if this machine can.
struct Fuse(PathBuf);

impl Fuse {
    fn over(folder: &Path, point: &Path) -> Option<Self> {
        std::fs::create_dir(point).unwrap();
        match Command::new("bindfs").arg("--no-allow-other").args([folder, point]).output() {
            Ok(output) if output.status.success() => Some(Self(point.to_owned())),
            outcome => {
                println!("skipped: no FUSE mount without bindfs and /dev/fuse ({outcome:?})");
                None
            }
        }
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

// A mapped file that is truncated ends the process: see `tests/hostile.rs`.
#[test]
fn a_file_on_fuse_is_read_and_truncation_is_an_error() {
    let folder = TempFolder::new("fuse");
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let Some(fuse) = Fuse::over(&disk, &folder.path().join("mounted")) else { return };
    let weights = wave(50_000);
    let local = Local::create(fuse.0.join("run")).unwrap();
    save(local.clone(), &weights);
    assert!(!local.caps().map && local.caps().lock && local.caps().create_only, "{:?}", local.caps());
    let path = fuse.0.join("run").join(KEY);
    // SAFETY: nothing is mapped there, which is under test.
    let checkpoint = unsafe { Checkpoint::map(&path) }.unwrap();
    assert_eq!(checkpoint.tensor("weight").unwrap().elements::<f32>().unwrap(), weights);
    // SAFETY: as above.
    let refused = unsafe { MappedCopy::open(&path) }.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    assert_eq!(checkpoint.tensor("weight").unwrap_err().kind(), ErrorKind::Damaged);
}
