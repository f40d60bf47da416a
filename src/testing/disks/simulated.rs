//! A disk in memory that records every operation: the live view, as running processes see it, and
//! the journal of operations that led to it. `power_cut.rs` derives the states after a power cut.

mod calls;

use crate::engine::vfs::{Kind, Stat};
use crate::sync::lock;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard};

/// Identifies a file or folder independently of its name: an index into the disk's nodes. Never
/// reused.
pub(crate) type Ino = usize;
/// The folder `/`.
pub(crate) const ROOT: Ino = 0;

/// A file's bytes or a folder's entries.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    File(Arc<Vec<u8>>),
    Dir(BTreeMap<String, Ino>),
}

/// One operation, in the detail that matters to a power cut.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// A change of a file's bytes.
    Data(Ino, DataOp),
    /// An fsync of a file that returned Ok.
    SyncFile(Ino),
    /// An fsync of a file that failed: the pending changes are clean now, on disk or not, and no
    /// later fsync writes them.
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
    /// After this many operations the disk is gone while processes live on.
    shutdown_at: Option<usize>,
    /// This many fsyncs of files succeed, then one fails.
    syncs_until_failure: Option<usize>,
}

impl SimulatedVfs {
    /// A disk that holds these nodes, durably; the first is `/`.
    pub(crate) fn holding(nodes: Vec<Node>) -> Self {
        let inner = Inner {
            nodes,
            journal: Vec::new(),
            locked: BTreeSet::new(),
            shutdown_at: None,
            syncs_until_failure: None,
        };
        Self { inner: Arc::new(Mutex::new(inner)), at: ROOT }
    }

    /// A disk without files.
    pub(crate) fn empty() -> Self {
        Self::holding(vec![Node::Dir(BTreeMap::new())])
    }

    /// The operations since the disk was made.
    pub(crate) fn journal(&self) -> Vec<Op> {
        self.inner().journal.clone()
    }

    /// The number of operations so far.
    pub(crate) fn operations(&self) -> usize {
        self.inner().journal.len()
    }

    /// The nodes as running processes see them.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        self.inner().nodes.clone()
    }

    /// From the operation after the first `count` on, the disk is gone, as after `FS_IOC_SHUTDOWN`
    /// on XFS: every change and every fsync of a file fails, reading still works from memory, and
    /// the fsync of a folder *returns Ok* (measured).
    pub(crate) fn shut_down_after(&self, count: usize) {
        self.inner().shutdown_at = Some(count);
    }

    /// After `count` more fsyncs of files one fails, once; the data that it should have written may
    /// be lost for ever.
    pub(crate) fn fail_sync_after(&self, count: usize) {
        self.inner().syncs_until_failure = Some(count);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
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
        if self.is_shut_down() { Err(io::Error::from_raw_os_error(Errno::IO.raw_os_error())) } else { Ok(()) }
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
                return Err(io::Error::from_raw_os_error(Errno::IO.raw_os_error()));
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
