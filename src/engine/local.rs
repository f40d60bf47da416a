//! The engine on a local file system. Owns: the steps by which a file becomes durable and visible, in their order, and
//! what each failure means; the lock file; folders. The calls themselves are in `vfs.rs`, writing one file in
//! `local/upload.rs`.

mod ahead;
mod blob;
mod blocks;
mod publish;
mod upload;

pub use upload::replace_file;

use super::vfs::{self, Os, Stat, Vfs};
use super::{Blob, Caps, Engine, Entry, Lock, PrivateMap, Unchanging, Upload, check_key};
use crate::error::{Error, ErrorKind, Result};
use blob::FileBlob;
use publish::Publish;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

const LOCK: &str = "LOCK";
/// What is not published yet. Never listed, never opened, swept under the lock.
const TEMP_PREFIX: &str = ".tmp-";
/// As above, of plain files. No key of an engine has a tilde: it is no upload of a store.
const PLAIN_TEMP_PREFIX: &str = ".tmp-~";
/// After so many files in a row whose fsync failed, nothing is written until the engine is opened again: the device is
/// gone or lies, and every further save would be a promise without a disk behind it.
const FAILED_SYNCS_TO_POISON: u32 = 2;

/// Objects as files under one folder; `a/b` is the file `b` in the folder `a`. On a network file system nothing is mapped,
/// also where mapping is asked for: see [`Unchanging`].
#[derive(Clone)]
pub struct Local(Arc<Shared>);

struct Shared {
    root: PathBuf,
    vfs: Arc<dyn Vfs>,
    publish: OnceLock<Publish>,
    failed_syncs: AtomicU32,
    spare: blocks::Spare,
    /// Folders that this engine has made durable.
    folders: Mutex<HashSet<PathBuf>>,
}

impl Local {
    /// The folder `root`, created where missing, with the folders above it.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, and `Invalid` when something that is no folder is in the way.
    pub fn create(root: impl AsRef<Path>) -> Result<Self> {
        Self::create_on(root.as_ref(), Arc::new(Os))
    }

    /// The folder `root`, which must exist: for reading, or for a run that must be there.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` when it is no folder.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let local = Self::on(root, Arc::new(Os));
        // Followed, not lstat-ed: a run's folder may be a link to where the space is.
        match root.metadata() {
            Ok(metadata) if metadata.is_dir() => Ok(local),
            Ok(_) => Err(not_a_folder(root)),
            Err(error) => Err(Error::io("there is no such folder", error).in_object(root.display())),
        }
    }

    pub(crate) fn create_on(root: &Path, vfs: Arc<dyn Vfs>) -> Result<Self> {
        let local = Self::on(root, vfs);
        local.0.ensure_folder(&local.0.root)?;
        Ok(local)
    }

    pub(crate) fn on(root: &Path, vfs: Arc<dyn Vfs>) -> Self {
        let root = if root.as_os_str().is_empty() { PathBuf::from(".") } else { root.to_owned() };
        let (publish, failed_syncs, spare, folders) = Default::default();
        Self(Arc::new(Shared { root, vfs, publish, failed_syncs, spare, folders }))
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.0.root
    }
}

impl Engine for Local {
    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        let path = self.0.path(key)?;
        self.0.check_not_poisoned()?;
        let publish = self.0.probed()?;
        if let Some(folder) = path.parent() {
            self.0.ensure_folder(folder)?;
        }
        if self.0.vfs.stat(&path).is_ok() {
            return Err(already_there(&path));
        }
        Ok(Box::new(upload::LocalUpload::start(Arc::clone(&self.0), path, publish, size_hint)?))
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        open_on(&*self.0.vfs, &self.0.path(key)?)
    }

    fn map(&self, key: &str, promise: Unchanging) -> Result<Arc<dyn Blob>> {
        map_on(&*self.0.vfs, &self.0.path(key)?, promise)
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        let path = if folder.is_empty() { self.0.root.clone() } else { self.0.path(folder)? };
        let listed = match self.0.vfs.list(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.is_empty() => return Ok(vec![]),
            listed => listed.map_err(|error| Error::io("listing", error).in_object(path.display()))?,
        };
        let key = |name: String| if folder.is_empty() { name } else { format!("{folder}/{name}") };
        let files = listed.into_iter().filter(|(name, stat)| {
            stat.is_file && check_key(name).is_ok() && !(folder.is_empty() && name == LOCK)
        });
        Ok(files.map(|(name, stat)| Entry { key: key(name), len: stat.len }).collect())
    }

    fn delete(&self, key: &str) -> Result<()> {
        let path = self.0.path(key)?;
        let named = |error| Error::io("deleting", error).in_object(path.display());
        self.0.vfs.unlink(&path).map_err(named)?;
        self.0.sync_parent(&path)
    }

    fn mark(&self, key: &str) -> Result<()> {
        let path = self.0.path(key)?;
        let created = match self.0.vfs.create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.0.ensure_folder(parent(&path))?;
                self.0.vfs.create_new(&path)
            }
            created => created,
        };
        match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(already_there(&path)),
            created => created
                .map(drop)
                .map_err(|error| Error::io("setting a mark", error).in_object(path.display())),
        }
    }

    fn unmark(&self, key: &str) -> Result<()> {
        let path = self.0.path(key)?;
        let unlinked = self.0.vfs.unlink(&path);
        unlinked.map_err(|error| Error::io("removing a mark", error).in_object(path.display()))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.0.path(from)?, self.0.path(to)?);
        let publish = self.0.probed()?;
        if let Some(folder) = to.parent() {
            self.0.ensure_folder(folder)?;
        }
        let renamed = publish.run(&*self.0.vfs, &from, &to);
        renamed.map_err(|error| Error::io("renaming", error).in_object(from.display()))?;
        self.0.sync_parent(&to)?;
        self.0.sync_parent(&from)
    }

    fn lock(&self, holder: &str) -> Result<Box<dyn Lock>> {
        let path = self.0.root.join(LOCK);
        let locked = self.0.vfs.lock(&path, holder).map_err(|error| {
            let unsupported = matches!(error.kind(), io::ErrorKind::Unsupported);
            let error = Error::io("taking the writer lock", error).in_object(path.display());
            if unsupported { error.with_kind(ErrorKind::Unsupported) } else { error }
        })?;
        let lock = locked.map_err(|holder| {
            Error::new(ErrorKind::Locked, "another writer holds this run")
                .in_object(path.display())
                .found(if holder.is_empty() { "a holder that left no name" } else { holder.trim() })
                .help("stop it, or wait until it ends; a killed process frees the lock by itself")
        })?;
        self.0.sweep();
        self.0.probed()?;
        Ok(lock)
    }

    fn caps(&self) -> Caps {
        let map = self.0.vfs.network(&self.0.root).is_none();
        match self.0.probed() {
            Ok(publish) => Caps {
                durable: true,
                create_only: publish != Publish::RenameUnderLock,
                lock: true,
                map,
                over_network: false,
            },
            // Nothing can be written here: a folder to read from.
            Err(_) => Caps { map, ..Caps::NONE },
        }
    }

    fn describe(&self, key: &str) -> String {
        self.0.root.join(key).display().to_string()
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Local({})", self.0.root.display())
    }
}

impl Shared {
    fn path(&self, key: &str) -> Result<PathBuf> {
        check_key(key)?;
        if key == LOCK {
            return Err(Error::invalid("the key LOCK is the lock file's"));
        }
        Ok(self.root.join(key))
    }

    fn check_not_poisoned(&self) -> Result<()> {
        if self.failed_syncs.load(Ordering::Acquire) < FAILED_SYNCS_TO_POISON {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Poisoned, "fsync failed twice in a row: nothing is written here any more")
            .in_object(self.root.display())
            .help(
                "look at the device (dmesg), then open the store again; what was committed before is intact",
            ))
    }

    /// How files are published here; found out once, by doing it: write, fsync, publish, fsync the folder, unlink. So a
    /// wrong path or a read-only disk shows at the start of a run and not at its first checkpoint.
    fn probed(&self) -> Result<Publish> {
        if let Some(&publish) = self.publish.get() {
            return Ok(publish);
        }
        let publish = Publish::probe(&*self.vfs, &self.root).map_err(|error| {
            Error::io(
                "this folder cannot hold checkpoints: the probe of write, fsync and rename failed",
                error,
            )
            .in_object(self.root.display())
            .help("check that the path is right, writable and not full")
        })?;
        Ok(*self.publish.get_or_init(|| publish))
    }

    /// Removes what killed uploads left. Only under the lock: then nobody is uploading. Never fails: junk that cannot
    /// be removed is in nobody's way.
    fn sweep(&self) {
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for (name, stat) in self.vfs.list(&folder).unwrap_or_default() {
                let path = folder.join(&name);
                match stat {
                    // A plain file on its way: no lock of a store says that its writer is dead.
                    Stat { is_file: true, .. } if name.starts_with(PLAIN_TEMP_PREFIX) => {
                        let _ = self.vfs.unlink_if_dead(&path);
                    }
                    Stat { is_file: true, .. } if name.starts_with(TEMP_PREFIX) => {
                        let _ = self.vfs.unlink(&path);
                    }
                    Stat { is_dir: true, .. } if check_key(&name).is_ok() => folders.push(path),
                    _ => {}
                }
            }
        }
    }

    /// Creates a folder, and those above it, durably: an fsync of each folder that holds the name of the next.
    fn ensure_folder(&self, folder: &Path) -> Result<()> {
        let mut known = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(folder) {
            return Ok(());
        }
        let mut missing: Vec<&Path> = folder.ancestors().take_while(|path| !self.is_folder(path)).collect();
        missing.reverse();
        for path in missing.iter().filter(|path| !path.as_os_str().is_empty()) {
            let failed = |error| Error::io("creating the folder", error).in_object(path.display());
            match self.vfs.create_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.is_folder(path) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(not_a_folder(path)),
                created => created.map_err(failed)?,
            }
            self.sync_parent(path)?;
        }
        // One that was there may have been made by a process that was killed before its fsync. The run's own parent
        // folder may be closed to us; then its owner made the run, and its durability is theirs.
        if missing.is_empty() && folder != self.root {
            self.sync_parent(folder)?;
        }
        known.insert(folder.to_owned());
        Ok(())
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || self.vfs.list(path).is_ok()
    }

    fn sync_parent(&self, path: &Path) -> Result<()> {
        let folder = parent(path);
        let synced = self.vfs.sync_dir(folder);
        synced.map_err(|error| Error::io("fsync of the folder", error).in_object(folder.display()))
    }
}

/// The folder that holds `path`.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn already_there(path: &Path) -> Error {
    Error::new(ErrorKind::AlreadyExists, "is committed already and never written again")
        .in_object(path.display())
}

fn not_a_folder(path: &Path) -> Error {
    Error::invalid("is a file where a folder is needed").in_object(path.display())
}

fn hex(nonce: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(nonce))
}

/// Opens one file for reading.
///
/// # Errors
/// `NotFound`, `Invalid` for a folder, `Io`.
pub(crate) fn open_file(path: &Path) -> Result<Arc<dyn Blob>> {
    open_on(&Os, path)
}

/// Maps one file; on a network file system it is opened for reading instead.
///
/// # Errors
/// As [`open_file`].
pub(crate) fn map_file(path: &Path, promise: Unchanging) -> Result<Arc<dyn Blob>> {
    map_on(&Os, path, promise)
}

fn map_on(vfs: &dyn Vfs, path: &Path, promise: Unchanging) -> Result<Arc<dyn Blob>> {
    if vfs.network(path).is_some() { open_on(vfs, path) } else { vfs.map(path, promise) }
}

/// Maps one file to read, and once more copy-on-write.
///
/// # Errors
/// As [`open_file`]; `Unsupported` on a network file system, where nothing is mapped.
pub(crate) fn map_copy_of_file(path: &Path, promise: Unchanging) -> Result<(Arc<dyn Blob>, PrivateMap)> {
    if let Some(network) = Os.network(path) {
        return Err(Error::new(ErrorKind::Unsupported, "files of a network file system are not mapped")
            .in_object(path.display())
            .found(network)
            .help("open it for reading, and load its tensors"));
    }
    vfs::map_twice(path, promise)
}

fn open_on(vfs: &dyn Vfs, path: &Path) -> Result<Arc<dyn Blob>> {
    let failed = |error| Error::io("opening for reading", error).in_object(path.display());
    let file = vfs.open(path).map_err(failed)?;
    let stat = file.stat().map_err(failed)?;
    stat.check_is_file(path)?;
    Ok(Arc::new(FileBlob::new(file, stat.len, path.display().to_string())))
}

#[cfg(test)]
mod tests;
