//! The temporary files of this process that are not published yet, so that a program that is ended
//! by a signal can remove them first: a folder that the user chose is never swept.

use super::Folder;
use crate::sync::{lock, wait, wait_timeout_while};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// How long the end of the process waits for files that are being created.
const LONGEST_CREATE: Duration = Duration::from_secs(2);

/// One file's place in the list, until it is published or aborted.
pub(super) struct Unfinished {
    list: &'static List,
    number: u64,
}

struct File {
    folder: Arc<Folder>,
    path: PathBuf,
    /// It was created. Before, what has its path may be another process's.
    is_there: bool,
    /// A forked child inherits the list, but not the files.
    process: u32,
}

impl File {
    fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }
}

struct Files {
    next: u64,
    listed: BTreeMap<u64, File>,
    is_ending: bool,
}

struct List {
    files: Mutex<Files>,
    changed: Condvar,
}

static LIST: List = List::new();

impl List {
    const fn new() -> Self {
        let files = Files { next: 0, listed: BTreeMap::new(), is_ending: false };
        Self { files: Mutex::new(files), changed: Condvar::new() }
    }

    fn begin(&'static self, folder: &Arc<Folder>, path: PathBuf) -> Unfinished {
        let mut files = lock(&self.files);
        while files.is_ending {
            files = wait(&self.changed, files);
        }
        let number = files.next;
        files.next += 1;
        let (folder, process) = (Arc::clone(folder), std::process::id());
        files.listed.insert(number, File { folder, path, is_there: false, process });
        Unfinished { list: self, number }
    }

    fn abandon(&self) -> MutexGuard<'_, Files> {
        let mut files = lock(&self.files);
        files.is_ending = true;
        let files = wait_timeout_while(&self.changed, files, LONGEST_CREATE, |files| {
            files.listed.values().any(|file| file.is_of_this_process() && !file.is_there)
        });
        for file in files.listed.values().filter(|file| file.is_of_this_process() && file.is_there) {
            // Best effort: a kill leaves the same files, and the next save to the same path removes
            // them.
            let _ = file.folder.vfs.unlink(&file.path);
        }
        files
    }
}

impl Unfinished {
    /// Lists a file that is about to be created.
    pub(super) fn begin(folder: &Arc<Folder>, path: PathBuf) -> Self {
        LIST.begin(folder, path)
    }

    /// The file was created, by this process.
    pub(super) fn created(&self) {
        if let Some(file) = lock(&self.list.files).listed.get_mut(&self.number) {
            file.is_there = true;
        }
        self.list.changed.notify_all();
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        lock(&self.list.files).listed.remove(&self.number);
        self.list.changed.notify_all();
    }
}

/// Unlinks the files that this process has begun to write and not published: files of
/// [`replace_file`](super::replace_file), of [`Snapshot::save`](crate::Snapshot::save) and of local
/// stores. For a program that is about to end, from a thread that waits for signals, not from
/// within a handler. Saves in progress never return: end the process.
pub fn abandon_unfinished_files() {
    // The lock is kept for good: no file is begun between this and the process's end.
    std::mem::forget(LIST.abandon());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::vfs::Os;

    #[test]
    fn a_file_that_is_being_created_at_the_end_is_removed() {
        let root = std::env::temp_dir().join(format!("tensorkeep-unfinished-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let folder = Arc::new(Folder::open(&root, &Os::default()).unwrap());
        let list: &List = Box::leak(Box::new(List::new()));
        let kept = list.begin(&folder, "another's".into());
        std::fs::write(root.join("another's"), "").unwrap();
        let begun = list.begin(&folder, "begun".into());
        let ending = std::thread::spawn(|| list.abandon().listed.len());
        while !lock(&list.files).is_ending {
            std::thread::yield_now();
        }
        std::fs::write(root.join("begun"), "").unwrap();
        begun.created();
        drop(kept);
        assert_eq!(ending.join().unwrap(), 1);
        assert!(!root.join("begun").exists() && root.join("another's").exists());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
