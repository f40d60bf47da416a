//! The temporary files of this process that are not published yet, so that a program which a signal
//! ends can remove them first: a folder that the user chose is swept by nobody.

use super::Folder;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One file's place in the list, until it is published or given up.
pub(super) struct Unfinished(u64);

struct File {
    folder: Arc<Folder>,
    path: PathBuf,
    /// A forked child inherits the list, and not the files.
    process: u32,
}

struct Files {
    next: u64,
    there: BTreeMap<u64, File>,
}

static FILES: Mutex<Files> = Mutex::new(Files { next: 0, there: BTreeMap::new() });

fn files() -> MutexGuard<'static, Files> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unfinished {
    pub(super) fn of(folder: &Arc<Folder>, path: PathBuf) -> Self {
        let mut files = files();
        let number = files.next;
        files.next += 1;
        let file = File { folder: Arc::clone(folder), path, process: std::process::id() };
        files.there.insert(number, file);
        Self(number)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        files().there.remove(&self.0);
    }
}

/// Unlinks what this process has begun to write and not published: files of
/// [`replace_file`](super::replace_file), of [`Snapshot::save`](crate::Snapshot::save) and of local
/// stores. For a program that is about to end, from a thread that waits for signals, not from
/// within a handler. Saves that go on meanwhile never return: end the process.
pub fn abandon_unfinished_files() {
    let files = files();
    for file in files.there.values().filter(|file| file.process == std::process::id()) {
        // Best effort: a kill leaves the same, and the next save to the same path removes it.
        let _ = file.folder.vfs.unlink(&file.path);
    }
    // Kept for good: no file is begun between this and the process's end.
    std::mem::forget(files);
}
