//! A disk in memory that remembers every operation. Owns: the live view (what running processes
//! see) and the journal of operations that led to it. What such a disk may hold after a power cut
//! is `power_cut.rs`'s; which order of operations is safe is nobody's here.

use crate::engine::vfs::{Holder, Kind, Stat, Vfs, VfsFile};
use crate::engine::{Blob, Lock, MmapPromise};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which file or folder, whatever its name: an index into the disk's nodes. Never used twice.
pub(crate) type Ino = usize;
/// The folder `/`.
pub(crate) const ROOT: Ino = 0;
const EIO: i32 = 5;

/// A file's bytes or a folder's entries.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    File(Arc<Vec<u8>>),
    Dir(BTreeMap<String, Ino>),
}

/// One operation, as far as a power cut can tell it from others.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// A change of a file's bytes.
    Data(Ino, DataOp),
    /// An fsync of a file that returned Ok.
    SyncFile(Ino),
    /// An fsync of a file that failed: what was pending is clean now, on disk or not, and no later
    /// fsync writes it.
    SyncFailed(Ino),
    /// A change of names: atomic, and pending until its folders are synced.
    Entry(EntryOp),
    /// An fsync of a folder that returned Ok.
    SyncDir(Ino),
}

#[derive(Clone, Debug)]
pub(crate) enum DataOp {
    Write { offset: usize, bytes: Arc<[u8]> },
    SetLen(usize),
}

/// Create, link and mkdir add a name; unlink removes one; rename does both.
#[derive(Clone, Debug)]
pub(crate) struct EntryOp {
    pub remove: Option<(Ino, String)>,
    pub add: Option<(Ino, String, Ino)>,
}

/// The disk, seen from a folder. Clones share it, as processes do. It has no links.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedVfs {
    inner: Arc<Mutex<Inner>>,
    at: Ino,
}

#[derive(Debug)]
struct Inner {
    nodes: Vec<Node>,
    journal: Vec<Op>,
    locked: BTreeSet<Ino>,
    /// After so many operations the disk is gone while processes live on.
    shutdown_at: Option<usize>,
    /// So many fsyncs of files succeed, then one fails.
    syncs_until_failure: Option<usize>,
}

impl SimulatedVfs {
    /// A disk that holds these nodes, durably; the first is `/`.
    pub(crate) fn holding(nodes: Vec<Node>) -> Self {
        let (journal, locked) = Default::default();
        let (shutdown_at, syncs_until_failure) = (None, None);
        let inner = Inner { nodes, journal, locked, shutdown_at, syncs_until_failure };
        Self { inner: Arc::new(Mutex::new(inner)), at: ROOT }
    }

    /// A disk without files.
    pub(crate) fn empty() -> Self {
        Self::holding(vec![Node::Dir(BTreeMap::new())])
    }

    /// What happened since the disk was made.
    pub(crate) fn journal(&self) -> Vec<Op> {
        self.inner().journal.clone()
    }

    /// How many operations happened.
    pub(crate) fn operations(&self) -> usize {
        self.inner().journal.len()
    }

    /// The nodes as running processes see them.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        self.inner().nodes.clone()
    }

    /// From the operation after `count` ones on, the disk is gone, as after `FS_IOC_SHUTDOWN` on
    /// XFS: every change and every fsync of a file fails, reading still works from memory, and the
    /// fsync of a folder *returns Ok* (measured).
    pub(crate) fn shut_down_after(&self, count: usize) {
        self.inner().shutdown_at = Some(count);
    }

    /// After `count` further fsyncs of files one fails, once; what it should have written may be
    /// lost for ever.
    pub(crate) fn fail_sync_after(&self, count: usize) {
        self.inner().syncs_until_failure = Some(count);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, ino: Ino) -> Arc<dyn VfsFile> {
        Arc::new(SimulatedFile { disk: self.clone(), ino })
    }
}

impl Inner {
    fn dir(&self, ino: Ino) -> io::Result<&BTreeMap<String, Ino>> {
        match self.nodes.get(ino) {
            Some(Node::Dir(entries)) => Ok(entries),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn lookup(&self, at: Ino, path: &Path) -> io::Result<Ino> {
        let mut at = if path.is_absolute() { ROOT } else { at };
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            at = *self.dir(at)?.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    /// The folder and the last name of a path.
    fn place(&self, at: Ino, path: &Path) -> io::Result<(Ino, String)> {
        let dir = self.lookup(at, path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        self.dir(dir)?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok((dir, name.to_owned()))
    }

    fn free_place(&self, at: Ino, path: &Path) -> io::Result<(Ino, String)> {
        let (dir, name) = self.place(at, path)?;
        if self.dir(dir)?.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok((dir, name))
    }

    fn taken_place(&self, at: Ino, path: &Path) -> io::Result<(Ino, String, Ino)> {
        let (dir, name) = self.place(at, path)?;
        let ino = *self.dir(dir)?.get(&name).ok_or(io::ErrorKind::NotFound)?;
        Ok((dir, name, ino))
    }

    fn is_shut_down(&self) -> bool {
        self.shutdown_at.is_some_and(|count| self.journal.len() >= count)
    }

    fn check_up(&self) -> io::Result<()> {
        if self.is_shut_down() { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }

    fn add_node(&mut self, (dir, name): (Ino, String), node: Node) -> io::Result<Ino> {
        let ino = self.nodes.len();
        self.check_up()?;
        self.nodes.push(node);
        self.change(EntryOp { remove: None, add: Some((dir, name, ino)) })?;
        Ok(ino)
    }

    fn change(&mut self, op: EntryOp) -> io::Result<()> {
        self.check_up()?;
        apply_entry(&mut self.nodes, &op);
        self.journal.push(Op::Entry(op));
        Ok(())
    }

    fn change_data(&mut self, ino: Ino, op: DataOp) -> io::Result<()> {
        self.check_up()?;
        if let Some(Node::File(bytes)) = self.nodes.get_mut(ino) {
            op.apply(Arc::make_mut(bytes));
        }
        self.journal.push(Op::Data(ino, op));
        Ok(())
    }

    fn sync_file(&mut self, ino: Ino) -> io::Result<()> {
        self.check_up()?;
        match &mut self.syncs_until_failure {
            Some(0) => {
                self.syncs_until_failure = None;
                self.journal.push(Op::SyncFailed(ino));
                return Err(io::Error::from_raw_os_error(EIO));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.journal.push(Op::SyncFile(ino));
        Ok(())
    }

    fn stat(&self, ino: Ino) -> Stat {
        let id = (1, ino as u64);
        match self.nodes.get(ino) {
            Some(Node::File(bytes)) => Stat { kind: Kind::File, len: bytes.len() as u64, id },
            _ => Stat { kind: Kind::Folder, len: 0, id },
        }
    }
}

/// Applies a change of names to the folders among `nodes`.
pub(crate) fn apply_entry(nodes: &mut [Node], op: &EntryOp) {
    if let Some((dir, name)) = &op.remove
        && let Some(Node::Dir(entries)) = nodes.get_mut(*dir)
    {
        entries.remove(name);
    }
    if let Some((dir, name, ino)) = &op.add
        && let Some(Node::Dir(entries)) = nodes.get_mut(*dir)
    {
        entries.insert(name.clone(), *ino);
    }
}

impl DataOp {
    /// Applies it to a file's bytes; a gap before a write is zeros.
    pub(crate) fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[*offset..end].copy_from_slice(bytes);
            }
            Self::SetLen(len) => file.resize(*len, 0),
        }
    }
}

impl Vfs for SimulatedVfs {
    fn hold(&self, folder: &Path) -> io::Result<Arc<dyn Vfs>> {
        let inner = self.inner();
        let at = inner.lookup(self.at, folder)?;
        inner.dir(at)?;
        Ok(Arc::new(Self { inner: Arc::clone(&self.inner), at }))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut inner = self.inner();
        let place = inner.free_place(self.at, path)?;
        let ino = inner.add_node(place, Node::File(Arc::default()))?;
        Ok(self.file(ino))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let ino = self.inner().lookup(self.at, path)?;
        Ok(self.file(ino))
    }

    fn map(&self, _: &Path, name: &str, _: MmapPromise) -> Result<Arc<dyn Blob>> {
        Err(Error::new(crate::ErrorKind::Unsupported, "the simulated disk does not map").in_object(name))
    }

    fn lstat(&self, path: &Path) -> io::Result<Stat> {
        self.stat(path)
    }

    fn read_link(&self, _: &Path) -> io::Result<PathBuf> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let inner = self.inner();
        Ok(inner.stat(inner.lookup(self.at, path)?))
    }

    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let (from_dir, from_name, ino) = inner.taken_place(self.at, from)?;
        let (to_dir, to_name) = inner.free_place(self.at, to)?;
        inner.change(EntryOp { remove: Some((from_dir, from_name)), add: Some((to_dir, to_name, ino)) })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let (from_dir, from_name, ino) = inner.taken_place(self.at, from)?;
        let (to_dir, to_name) = inner.place(self.at, to)?;
        inner.change(EntryOp { remove: Some((from_dir, from_name)), add: Some((to_dir, to_name, ino)) })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let ino = inner.lookup(self.at, from)?;
        let (dir, name) = inner.free_place(self.at, to)?;
        inner.change(EntryOp { remove: None, add: Some((dir, name, ino)) })
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let (dir, name, _) = inner.taken_place(self.at, path)?;
        inner.change(EntryOp { remove: Some((dir, name)), add: None })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let place = inner.free_place(self.at, path)?;
        inner.add_node(place, Node::Dir(BTreeMap::new())).map(drop)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let dir = inner.lookup(self.at, path)?;
        inner.dir(dir)?;
        // The lie of a disk that is gone.
        if !inner.is_shut_down() {
            inner.journal.push(Op::SyncDir(dir));
        }
        Ok(())
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let inner = self.inner();
        let entries = inner.dir(inner.lookup(self.at, path)?)?;
        Ok(entries.keys().cloned().collect())
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn Lock>, Holder>> {
        let mut inner = self.inner();
        let ino = match inner.lookup(self.at, path) {
            Ok(ino) => ino,
            Err(_) => {
                let place = inner.free_place(self.at, path)?;
                inner.add_node(place, Node::File(Arc::default()))?
            }
        };
        if !inner.locked.insert(ino) {
            let Some(Node::File(words)) = inner.nodes.get(ino) else { return Ok(Err(Holder::default())) };
            return Ok(Err(Holder { words: String::from_utf8_lossy(words).into_owned(), age: None }));
        }
        let lock = SimulatedLock { disk: self.clone(), ino };
        let bytes = Arc::from(holder.as_bytes());
        let written = inner
            .change_data(ino, DataOp::SetLen(0))
            .and_then(|()| inner.change_data(ino, DataOp::Write { offset: 0, bytes }));
        drop(inner);
        written.map(|()| Ok(Box::new(lock) as Box<dyn Lock>))
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedVfs,
    ino: Ino,
}

impl VfsFile for SimulatedFile {
    fn stat(&self) -> io::Result<Stat> {
        Ok(self.disk.inner().stat(self.ino))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let inner = self.disk.inner();
        let Some(Node::File(bytes)) = inner.nodes.get(self.ino) else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let count = buffer.len().min(bytes.len() - start);
        buffer[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.disk.inner().change_data(self.ino, DataOp::Write { offset, bytes: Arc::from(bytes) })?;
        Ok(bytes.len())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let wanted = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if inner.stat(self.ino).len >= len {
            return Ok(());
        }
        inner.change_data(self.ino, DataOp::SetLen(wanted))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.disk.inner().change_data(self.ino, DataOp::SetLen(len))
    }

    fn set_read_only(&self) -> io::Result<()> {
        // A mode does not change what is read back: nothing for a power cut to tell apart.
        self.disk.inner().check_up()
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.inner().sync_file(self.ino)
    }
}

/// Freed by drop, as the kernel frees it when the process ends.
#[derive(Debug)]
struct SimulatedLock {
    disk: SimulatedVfs,
    ino: Ino,
}

impl Lock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.disk.inner().locked.remove(&self.ino);
    }
}
