//! The objects, and the incomplete uploads: atomic operations under one lock, and the folder that
//! survives a kill of the process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// One object; its bytes are shared with the responses that send them.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub bytes: Arc<Vec<u8>>,
    /// User metadata: header names in lower case, values.
    pub metadata: BTreeMap<String, String>,
    pub etag: String,
    /// Seconds since 1970.
    pub modified: u64,
}

/// All objects; clones share them, so that a server started again finds them.
#[derive(Clone, Debug, Default)]
pub struct Objects(Arc<Mutex<State>>, Option<Arc<PathBuf>>);

#[derive(Debug, Default)]
pub(crate) struct State {
    /// By `/bucket/key`.
    pub objects: BTreeMap<String, Object>,
    pub uploads: BTreeMap<String, Upload>,
}

/// A multipart upload that is not complete.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    pub path: String,
    pub metadata: BTreeMap<String, String>,
    pub parts: BTreeMap<u32, Arc<Vec<u8>>>,
}

/// The outcome of a conditional write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Done(String),
    Exists,
}

impl Objects {
    /// Objects that live as long as this value and its clones.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Objects in a folder, read back from it: acknowledged ones survive a kill of the process.
    /// Incomplete multipart uploads do not.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn in_folder(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut state = State::default();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            // Half-written by a killed process.
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(&path)?;
            } else if let Some((key, object)) = parse(fs::read(&path)?) {
                state.objects.insert(key, object);
            }
        }
        Ok(Self(Arc::new(Mutex::new(state)), Some(Arc::new(folder.to_owned()))))
    }

    /// Paths of all objects, as `/bucket/key`.
    pub fn paths(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// The path of the object before this one.
    pub(crate) fn before(&self, path: &str) -> Option<String> {
        self.state().objects.range(..path.to_owned()).next_back().map(|(path, _)| path.clone())
    }

    /// Creates or overwrites an object, as another program would: `path` is `/bucket/key`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn place(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.put(path, Arc::new(bytes.to_vec()), BTreeMap::new(), false).map(drop)
    }

    /// The number of uploads that are neither completed nor aborted.
    pub fn unfinished_uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// Ends all of them, as a bucket's life cycle does.
    pub fn end_uploads(&self) {
        self.state().uploads.clear();
    }

    /// Changes an object without a request: damage, for tests. None removes it.
    pub fn tamper(&self, path: &str, change: impl FnOnce(&mut Vec<u8>) -> Option<()>) {
        let mut state = self.state();
        let Some(object) = state.objects.get_mut(path) else { return };
        let mut bytes = object.bytes.to_vec();
        match change(&mut bytes) {
            Some(()) => object.bytes = Arc::new(bytes),
            None => drop(state.objects.remove(path)),
        }
    }

    /// Makes an object older.
    pub fn age(&self, path: &str, by: std::time::Duration) {
        if let Some(object) = self.state().objects.get_mut(path) {
            object.modified = object.modified.saturating_sub(by.as_secs());
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an object; with `create`, only if there is none, atomically.
    pub(crate) fn put(
        &self,
        path: &str,
        bytes: Arc<Vec<u8>>,
        metadata: BTreeMap<String, String>,
        create: bool,
    ) -> io::Result<Put> {
        let mut state = self.state();
        if create && state.objects.contains_key(path) {
            return Ok(Put::Exists);
        }
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let modified = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let etag =
            format!("\"{:x}-{:x}\"", bytes.len(), modified << 20 | COUNTER.fetch_add(1, Ordering::Relaxed));
        let object = Object { bytes, metadata, etag: etag.clone(), modified };
        self.store(path, &object)?;
        state.objects.insert(path.to_owned(), object);
        Ok(Put::Done(etag))
    }

    pub(crate) fn delete(&self, path: &str) -> io::Result<bool> {
        let mut state = self.state();
        if let Some(folder) = &self.1
            && state.objects.contains_key(path)
        {
            fs::remove_file(file_of(folder, path))?;
        }
        Ok(state.objects.remove(path).is_some())
    }

    /// To the folder, under a temporary name first: a kill leaves the whole file or none.
    fn store(&self, path: &str, object: &Object) -> io::Result<()> {
        let Some(folder) = &self.1 else { return Ok(()) };
        let mut head = format!("{path}\n{}\n{}\n", object.etag, object.modified);
        for (name, value) in &object.metadata {
            head += &format!("{name}: {value}\n");
        }
        let file = file_of(folder, path);
        let temporary = file.with_extension("tmp");
        fs::write(&temporary, [head.as_bytes(), b"\n", &object.bytes[..]].concat())?;
        fs::rename(&temporary, &file)
    }
}

fn file_of(folder: &Path, path: &str) -> PathBuf {
    let name: String =
        path.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    folder.join(format!("{name}-{:x}", path.len()))
}

fn parse(bytes: Vec<u8>) -> Option<(String, Object)> {
    let end = bytes.windows(2).position(|two| two == b"\n\n")?;
    let mut lines = std::str::from_utf8(&bytes[..end]).ok()?.lines();
    let (path, etag, modified) = (lines.next()?, lines.next()?, lines.next()?.parse().ok()?);
    let metadata = lines.filter_map(|line| line.split_once(": ")).map(|(a, b)| (a.to_owned(), b.to_owned()));
    let (metadata, bytes) = (metadata.collect(), Arc::new(bytes[end + 2..].to_vec()));
    Some((path.to_owned(), Object { bytes, metadata, etag: etag.to_owned(), modified }))
}
