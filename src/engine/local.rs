//! The engine on a local file system: the steps by which a file becomes durable and visible, in
//! their order, and the meaning of each failure; the lock file; sweeping. `local/folder.rs` holds
//! the folder, `vfs.rs` has the calls themselves, `local/upload.rs` writes one file,
//! `local/open.rs` opens one.

mod blob;
mod blocks;
mod folder;
mod open;
mod publish;
mod readahead;
mod replace;
mod unfinished;
mod upload;

pub(crate) use open::{map_copy_of_file, map_file, open_file};
pub(crate) use replace::Staged;
pub use replace::replace_file;
pub use unfinished::abandon_unfinished_files;

use super::vfs::{HERE, Holder, Kind, Os, Stat, Vfs};
use super::{Blob, Caps, Engine, Entry, Lock, MmapPromise, Upload, check_key};
use crate::error::{Error, ErrorKind, Result};
use folder::Folder;
use publish::Publish;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const LOCK: &str = "LOCK";
/// Prefix of unpublished files. Never listed, never opened, swept under the lock.
const TEMP_PREFIX: &str = ".tmp-";
/// Prefix of unpublished plain files. An engine's key has no tilde, so this is no upload of a
/// store.
const PLAIN_TEMP_PREFIX: &str = ".tmp-~";
/// After this many consecutive files whose fsync failed, nothing is written until the engine is
/// opened again: the device is gone or lies, and every further save would be a promise without a
/// disk behind it.
const FAILED_SYNCS_TO_POISON: u32 = 2;

/// Objects as files under one folder; `a/b` is the file `b` in the folder `a`.
///
/// The folder is opened once and held from then on, not looked up by its path again: a process that
/// changes its directory, a folder that is moved, or another one that gets its path redirects
/// nothing. If the folder was removed, every call returns `NotFound`.
///
/// **Links.** The folder may be given as a link. A file in it that is a link (git-annex, DVC, `cp
/// -rs`) is listed and opened as its target; a dangling link is listed, and opening it fails with
/// an explanation. A folder in it that is a link is read, and nothing is written, deleted or set
/// aside through it (`Invalid`).
///
/// A file whose length is unknown, because its inode is damaged, is listed with 0 bytes, and only
/// opening it fails. Files on a network file system are never mapped, even on request: see
/// [`MmapPromise`].
#[derive(Clone)]
pub struct Local(Arc<Shared>);

/// Refuses an empty path: most often it is a setting that is missing.
fn named(root: &Path) -> Result<&Path> {
    if root.as_os_str().is_empty() {
        return Err(Error::invalid("an empty path").expected("the path of a folder; `.` is the present one"));
    }
    Ok(root)
}

struct Shared {
    folder: Arc<Folder>,
    publish: OnceLock<Publish>,
    failed_syncs: AtomicU32,
    spare: blocks::Spare,
}

impl Local {
    /// The folder `root`, created if missing, with the folders above it.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, and `Invalid` when a file is in the way.
    pub fn create(root: impl AsRef<Path>) -> Result<Self> {
        Self::create_on(named(root.as_ref())?, &Os::default())
    }

    /// The folder `root`, which must exist: for reading, or for a run that must be there.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` when it is not a folder.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(named(root.as_ref())?, &Os::default())
    }

    pub(crate) fn create_on(root: &Path, vfs: &dyn Vfs) -> Result<Self> {
        Folder::create(root, vfs).map(Self::on)
    }

    pub(crate) fn open_on(root: &Path, vfs: &dyn Vfs) -> Result<Self> {
        Folder::open(root, vfs).map(Self::on)
    }

    fn on(folder: Folder) -> Self {
        let failed_syncs = AtomicU32::new(0);
        let (publish, spare) = (OnceLock::new(), blocks::Spare::default());
        Self(Arc::new(Shared { folder: Arc::new(folder), publish, failed_syncs, spare }))
    }

    /// The path by which the folder was opened.
    pub fn root(&self) -> &Path {
        &self.0.folder.root
    }
}

impl Engine for Local {
    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        let path = path_of(key)?;
        self.0.check_not_poisoned()?;
        let publish = self.0.probed()?;
        self.0.folder.ensure_parent(&path)?;
        if self.0.folder.vfs.lstat(&path).is_ok() {
            return Err(in_the_way(&self.0.folder, &path));
        }
        Ok(Box::new(upload::LocalUpload::start(Arc::clone(&self.0), path, publish, size_hint)?))
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        self.0.folder.open_file(&path_of(key)?)
    }

    fn map(&self, key: &str, promise: MmapPromise) -> Result<Arc<dyn Blob>> {
        self.0.folder.map_file(&path_of(key)?, promise)
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        let path = if folder.is_empty() { PathBuf::from(HERE) } else { path_of(folder)? };
        let names = match self.0.folder.vfs.names(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
            names => names.map_err(|error| self.0.folder.error("listing", &path, error))?,
        };
        // A folder that was removed reads as one without entries.
        if names.is_empty() && self.0.folder.vfs.is_removed() {
            return Err(self.0.folder.removed());
        }
        let mut entries = Vec::new();
        for name in names.iter().filter(|name| check_key(name).is_ok()) {
            let key = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let len = match self.0.folder.look(Path::new(&key)) {
                Ok(Some(stat)) if stat.is_file() => stat.len,
                Ok(_) => continue,
                // One damaged inode hides only itself.
                Err(_) => 0,
            };
            entries.extend((key != LOCK).then_some(Entry { key, len }));
        }
        Ok(entries)
    }

    fn delete(&self, key: &str) -> Result<()> {
        let path = path_of(key)?;
        self.0.unlink(&path, "deleting")?;
        self.0.folder.sync_parent(&path)
    }

    fn mark(&self, key: &str) -> Result<()> {
        let path = path_of(key)?;
        self.0.folder.ensure_parent(&path)?;
        match self.0.folder.vfs.create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(in_the_way(&self.0.folder, &path))
            }
            created => created.map(drop).map_err(|error| self.0.folder.error("setting a mark", &path, error)),
        }
    }

    fn unmark(&self, key: &str) -> Result<()> {
        self.0.unlink(&path_of(key)?, "removing a mark")
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (path_of(from)?, path_of(to)?);
        let publish = match self.0.probed() {
            // Renaming needs no space: try the best way, which fails where it is unsupported.
            Err(error) if error.kind() == ErrorKind::NoSpace => Publish::RenameNoReplace,
            probed => probed?,
        };
        self.0.folder.check_parent(&from)?;
        self.0.folder.ensure_parent(&to)?;
        let renamed = publish.run(&*self.0.folder.vfs, &from, &to);
        renamed.map_err(|error| self.0.folder.error("renaming", &from, error))?;
        self.0.folder.sync_parent(&to)?;
        self.0.folder.sync_parent(&from)
    }

    fn lock(&self, holder: &str) -> Result<Box<dyn Lock>> {
        let path = Path::new(LOCK);
        let locked = self.0.folder.vfs.lock(path, holder).map_err(|error| {
            let unsupported = matches!(error.kind(), io::ErrorKind::Unsupported);
            let error = self.0.folder.error("taking the writer lock", path, error);
            if unsupported { error.with_kind(ErrorKind::Unsupported) } else { error }
        })?;
        let lock = locked.map_err(|holder| {
            Error::new(ErrorKind::Locked, "another writer holds this run")
                .in_object(self.0.folder.name(path))
                .found(in_words(&holder))
                .help("stop it, or wait until it ends; a killed process frees the lock by itself")
        })?;
        self.0.sweep();
        match self.0.probed() {
            // A process that wants to delete needs the lock and no space. One that wants to write
            // gets the error when it does.
            Err(error) if error.kind() == ErrorKind::NoSpace => Ok(lock),
            probed => probed.map(|_| lock),
        }
    }

    fn caps(&self) -> Caps {
        let map = self.0.folder.vfs.network(Path::new(HERE)).is_none();
        match self.0.probed() {
            Ok(publish) => Caps {
                durable: true,
                create_only: publish != Publish::RenameUnderLock,
                lock: true,
                map,
                over_network: false,
            },
            // A read-only folder.
            Err(_) => Caps { map, ..Caps::NONE },
        }
    }

    fn describe(&self, key: &str) -> String {
        self.0.folder.name(Path::new(if key.is_empty() { HERE } else { key }))
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Local({})", self.root().display())
    }
}

impl Shared {
    fn check_not_poisoned(&self) -> Result<()> {
        if self.failed_syncs.load(Ordering::Acquire) < FAILED_SYNCS_TO_POISON {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Poisoned, "fsync failed twice in a row: nothing is written here any more")
            .in_object(self.folder.name(Path::new(HERE)))
            .help(
                "look at the device (dmesg), then open the store again; what was committed before is intact",
            ))
    }

    /// How files are published here; determined once, by doing it: write, fsync, publish, fsync the
    /// folder, unlink. So a wrong path or a read-only disk shows at the start of a run and not at
    /// its first checkpoint.
    fn probed(&self) -> Result<Publish> {
        if let Some(&publish) = self.publish.get() {
            return Ok(publish);
        }
        let publish = Publish::probe(&*self.folder.vfs).map_err(|error| {
            let what = "this folder cannot hold checkpoints: the probe of write, fsync and rename failed";
            let error = self.folder.error(what, Path::new(HERE), error);
            error.help("check that the path is right, writable and not full")
        })?;
        Ok(*self.publish.get_or_init(|| publish))
    }

    fn unlink(&self, path: &Path, what: &'static str) -> Result<()> {
        self.folder.check_parent(path)?;
        self.folder.vfs.unlink(path).map_err(|error| self.folder.error(what, path, error))
    }

    /// Removes the remains of killed uploads, in the folder, in the folders directly in it, and in
    /// those in them whose names are one character, over which many files are spread. Only under
    /// the lock, when no upload is in progress. Never fails: junk that cannot be removed does no
    /// harm.
    ///
    /// A folder with a lock file of its own is another run, whose writer may be at work; deeper
    /// folders are ignored. A file counts as an upload's only if its whole name matches: strangers'
    /// temporary files stay.
    fn sweep(&self) {
        let vfs = &*self.folder.vfs;
        let mut folders = vec![PathBuf::new()];
        for name in vfs.names(Path::new(HERE)).unwrap_or_default() {
            let path = PathBuf::from(&name);
            let is_folder = check_key(&name).is_ok() && vfs.lstat(&path).is_ok_and(|stat| stat.is_folder());
            if is_folder && vfs.lstat(&path.join(LOCK)).is_err() {
                folders.push(path);
            }
        }
        while let Some(folder) = folders.pop() {
            let is_outer = folder.components().count() == 1;
            let here = if folder.as_os_str().is_empty() { Path::new(HERE) } else { &folder };
            for name in vfs.names(here).unwrap_or_default() {
                let path = folder.join(&name);
                if is_outer && name.len() == 1 && vfs.lstat(&path).is_ok_and(|stat| stat.is_folder()) {
                    folders.push(path);
                    continue;
                }
                // A plain file being written: no lock of a store proves that its writer is dead.
                if name.starts_with(PLAIN_TEMP_PREFIX) {
                    let _ = vfs.unlink_if_dead(&path);
                } else if is_temp_name(&name) && vfs.lstat(&path).is_ok_and(|stat| stat.is_file()) {
                    let _ = vfs.unlink(&path);
                }
            }
        }
    }
}

/// An object's path in the folder.
fn path_of(key: &str) -> Result<PathBuf> {
    check_key(key)?;
    if key == LOCK {
        return Err(Error::invalid("the key LOCK is the lock file's"));
    }
    Ok(PathBuf::from(key))
}

/// Whether a name is one of [`upload`]'s or [`publish`]'s: the prefix, a leaf, and a nonce.
fn is_temp_name(name: &str) -> bool {
    let nonce = name.strip_prefix(TEMP_PREFIX).and_then(|rest| rest.rsplit_once('-')).map(|(_, nonce)| nonce);
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    nonce.is_some_and(|nonce| nonce.len() == 32 && nonce.bytes().all(is_hex))
}

/// The holder of a lock, and for how long.
fn in_words(holder: &Holder) -> String {
    let words = match holder.words.trim() {
        "" => "a holder that left no name",
        words => words,
    };
    holder.age.map_or(words.to_owned(), |age| format!("{words} ({} ago)", span(age)))
}

/// A span of time in its largest unit.
fn span(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)];
    let (unit, length) = units.into_iter().find(|(_, length)| seconds >= 2 * length).unwrap_or(("second", 1));
    let count = seconds / length;
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Why an object cannot get a name that is taken: by an object, or by something else that is never
/// listed.
fn in_the_way(folder: &Folder, path: &Path) -> Error {
    match folder.look(path) {
        Ok(Some(Stat { kind: Kind::Folder | Kind::Other, .. })) => {
            Error::invalid("is a folder, a pipe or a device where an object is to be written")
                .in_object(folder.name(path))
                .help("move it away: nothing of a run has this name")
        }
        _ => Error::new(ErrorKind::AlreadyExists, "is committed already and never written again")
            .in_object(folder.name(path)),
    }
}

#[cfg(test)]
mod tests;
