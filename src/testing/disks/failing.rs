//! The real file system with calls that fail on demand: counts the calls, and decides which of them
//! fails and how. For tests of this crate and, behind the feature `testing`, of trainers.

use crate::engine::vfs::{Holder, Os, Stat, Vfs, VfsFile};
use crate::engine::{Blob, Lock, MmapPromise};
use crate::error::{Error, Result};
use crate::sync::lock;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// The calls that fail, and a log of all calls. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    calls: Vec<Call>,
    rules: Vec<Rule>,
    hooks: Vec<(&'static str, Hook)>,
    network: Option<&'static str>,
}

/// An action between two calls.
struct Hook(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// One call that reached the file system: its name as in the manual pages, and the last segment of
/// the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `open`, `write`, `fsync`, `fsync-dir`, `rename`, …
    pub name: &'static str,
    /// Last segment of the path.
    pub leaf: String,
}

#[derive(Debug)]
struct Rule {
    name: Option<&'static str>,
    /// Last segment of the path.
    leaf: Option<String>,
    /// Calls that match and still succeed.
    skip: usize,
    /// Calls that fail after that.
    times: usize,
    fault: Fault,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// With this errno, without having done anything.
    Errno(i32),
    /// A write takes only half of its bytes; other calls succeed.
    Short,
    /// The call is done, and reported as failed with this errno.
    DoneButErrno(i32),
    /// The thread that called panics.
    Panic,
}

impl Faults {
    /// Nothing fails yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        lock(&self.0)
    }

    /// The call after `skip` further ones fails, `times` times; `usize::MAX` is for ever.
    pub fn fail_after(&self, skip: usize, times: usize, fault: Fault) {
        self.plan().rules.push(Rule { name: None, leaf: None, skip, times, fault });
    }

    /// As [`Faults::fail_after`], counting only calls of this name.
    pub fn fail_named(&self, name: &'static str, skip: usize, times: usize, fault: Fault) {
        self.plan().rules.push(Rule { name: Some(name), leaf: None, skip, times, fault });
    }

    /// Every call of this name on files of this name fails from now on.
    pub fn fail_leaf(&self, name: &'static str, leaf: &str, fault: Fault) {
        let leaf = Some(leaf.to_owned());
        self.plan().rules.push(Rule { name: Some(name), leaf, skip: 0, times: usize::MAX, fault });
    }

    /// Before the next call of this name, runs `other`, in place of another process.
    #[cfg(test)]
    pub(crate) fn before(&self, name: &'static str, other: impl FnOnce() + Send + 'static) {
        self.plan().hooks.push((name, Hook(Box::new(other))));
    }

    /// From now on files seem to lie on this network file system.
    pub fn seem_to_be_on(&self, network: &'static str) {
        self.plan().network = Some(network);
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.plan().rules.clear();
    }

    /// The calls so far; clears the log.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.plan().calls)
    }

    fn next(&self, name: &'static str, path: &Path) -> Option<Fault> {
        let mut plan = self.plan();
        let hook = plan.hooks.iter().position(|(wanted, _)| *wanted == name);
        if let Some((_, Hook(other))) = hook.map(|at| plan.hooks.remove(at)) {
            drop(plan);
            other();
            plan = self.plan();
        }
        let leaf = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        plan.calls.push(Call { name, leaf: leaf.clone() });
        let mut fault = None;
        let is_meant = |rule: &&mut Rule| {
            rule.name.is_none_or(|wanted| wanted == name)
                && rule.leaf.as_ref().is_none_or(|wanted| *wanted == leaf)
        };
        for rule in plan.rules.iter_mut().filter(is_meant) {
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 && fault.is_none() {
                rule.times -= usize::from(rule.times != usize::MAX);
                fault = Some(rule.fault);
            }
        }
        fault
    }

    fn run<T>(&self, name: &'static str, path: &Path, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.next(name, path) {
            Some(Fault::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::DoneButErrno(errno)) => call().and(Err(io::Error::from_raw_os_error(errno))),
            Some(Fault::Panic) => panic!("{name} panics on purpose"),
            Some(Fault::Short) | None => call(),
        }
    }
}

/// [`Os`], with faults.
#[derive(Debug)]
pub(crate) struct FailingVfs {
    faults: Faults,
    right: Arc<dyn Vfs>,
}

impl FailingVfs {
    pub(crate) fn new(faults: &Faults) -> Self {
        Self { faults: faults.clone(), right: Arc::new(Os::default()) }
    }

    fn file(&self, path: &Path, file: Arc<dyn VfsFile>) -> Arc<dyn VfsFile> {
        Arc::new(FailingFile { faults: self.faults.clone(), path: path.to_owned(), file })
    }
}

impl Vfs for FailingVfs {
    fn hold(&self, folder: &Path) -> io::Result<Arc<dyn Vfs>> {
        let right = self.faults.run("open-dir", folder, || self.right.hold(folder))?;
        Ok(Arc::new(Self { faults: self.faults.clone(), right }))
    }

    fn is_removed(&self) -> bool {
        self.right.is_removed()
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.faults.run("create", path, || self.right.create_new(path)).map(|file| self.file(path, file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.faults.run("open", path, || self.right.open(path)).map(|file| self.file(path, file))
    }

    fn map(&self, path: &Path, name: &str, promise: MmapPromise) -> Result<Arc<dyn Blob>> {
        let checked = self.faults.run("mmap", path, || Ok(()));
        checked.map_err(|error| Error::io("mapping", error).in_object(name))?;
        self.right.map(path, name, promise)
    }

    fn network(&self, path: &Path) -> Option<&'static str> {
        self.faults.plan().network.or_else(|| self.right.network(path))
    }

    fn lstat(&self, path: &Path) -> io::Result<Stat> {
        self.faults.run("lstat", path, || self.right.lstat(path))
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.faults.run("stat", path, || self.right.stat(path))
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.faults.run("readlink", path, || self.right.read_link(path))
    }

    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.run("rename", to, || self.right.rename_noreplace(from, to))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.run("rename-replace", to, || self.right.rename(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.run("link", to, || self.right.link(from, to))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.faults.run("unlink", path, || self.right.unlink(path))
    }

    fn unlink_if_dead(&self, path: &Path) -> io::Result<()> {
        self.faults.run("unlink-dead", path, || self.right.unlink_if_dead(path))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.faults.run("mkdir", path, || self.right.create_dir(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.faults.run("fsync-dir", path, || self.right.sync_dir(path))
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        self.faults.run("list", path, || self.right.names(path))
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Result<Box<dyn Lock>, Holder>> {
        self.faults.run("lock", path, || self.right.lock(path, holder))
    }
}

#[derive(Debug)]
struct FailingFile {
    faults: Faults,
    path: PathBuf,
    file: Arc<dyn VfsFile>,
}

impl VfsFile for FailingFile {
    fn stat(&self) -> io::Result<Stat> {
        self.faults.run("fstat", &self.path, || self.file.stat())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.faults.run("read", &self.path, || self.file.read_at(offset, buffer))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        match self.faults.next("write", &self.path) {
            Some(Fault::Short) => self.file.write_at(offset, &bytes[..bytes.len().div_ceil(2)]),
            Some(Fault::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::DoneButErrno(errno)) => {
                self.file.write_at(offset, bytes).and(Err(io::Error::from_raw_os_error(errno)))
            }
            Some(Fault::Panic) => panic!("a write panics on purpose"),
            None => self.file.write_at(offset, bytes),
        }
    }

    fn set_direct(&self, direct: bool) -> io::Result<()> {
        self.faults.run("fcntl", &self.path, || self.file.set_direct(direct))
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.faults.run("fallocate", &self.path, || self.file.preallocate(len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.run("ftruncate", &self.path, || self.file.set_len(len))
    }

    fn set_read_only(&self) -> io::Result<()> {
        self.faults.run("fchmod", &self.path, || self.file.set_read_only())
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.run("fsync", &self.path, || self.file.sync())
    }

    fn hold(&self) -> io::Result<()> {
        self.faults.run("flock", &self.path, || self.file.hold())
    }
}
