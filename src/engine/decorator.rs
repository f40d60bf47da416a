//! Engines around engines: counting, slow, failing, or with other capabilities. Methods that a
//! decorator does not override are the inner engine's, mapping included.

use super::{Blob, Caps, Engine, Entry, Lock, MmapPromise, Upload};
use crate::error::Result;
use std::fmt;
use std::sync::Arc;

/// An [`Engine`] around another one: methods that are not overridden go to the inner engine.
/// `examples/custom_engine.rs` counts the bytes that go through one.
pub trait Decorator: Send + Sync + fmt::Debug {
    /// The type of the decorated engine.
    type Inner: Engine + ?Sized;

    /// The decorated engine.
    fn inner(&self) -> &Self::Inner;

    /// As [`Engine::create`].
    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        self.inner().create(key, size_hint)
    }
    /// As [`Engine::create_shard`], through [`Decorator::create`]: a decorator that changes uploads
    /// overrides only that one.
    fn create_shard(&self, key: &str, size_hint: Option<u64>, _save_len: u64) -> Result<Box<dyn Upload>> {
        self.create(key, size_hint)
    }
    /// As [`Engine::open`].
    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        self.inner().open(key)
    }
    /// As [`Engine::map`].
    fn map(&self, key: &str, promise: MmapPromise) -> Result<Arc<dyn Blob>> {
        self.inner().map(key, promise)
    }
    /// As [`Engine::list`].
    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        self.inner().list(folder)
    }
    /// As [`Engine::list_each`], through [`Decorator::list`] of each: a decorator that changes
    /// listings overrides only that one.
    fn list_each(&self, folders: &[&str]) -> Result<Vec<Vec<Entry>>> {
        folders.iter().map(|folder| self.list(folder)).collect()
    }
    /// As [`Engine::delete`].
    fn delete(&self, key: &str) -> Result<()> {
        self.inner().delete(key)
    }
    /// As [`Engine::mark`].
    fn mark(&self, key: &str) -> Result<()> {
        self.inner().mark(key)
    }
    /// As [`Engine::unmark`].
    fn unmark(&self, key: &str) -> Result<()> {
        self.inner().unmark(key)
    }
    /// As [`Engine::rename`].
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.inner().rename(from, to)
    }
    /// As [`Engine::lock`].
    fn lock(&self, holder: &str) -> Result<Box<dyn Lock>> {
        self.inner().lock(holder)
    }
    /// As [`Engine::caps`].
    fn caps(&self) -> Caps {
        self.inner().caps()
    }
    /// As [`Engine::describe`].
    fn describe(&self, key: &str) -> String {
        self.inner().describe(key)
    }
}

impl<D: Decorator> Engine for D {
    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        Decorator::create(self, key, size_hint)
    }
    fn create_shard(&self, key: &str, size_hint: Option<u64>, save_len: u64) -> Result<Box<dyn Upload>> {
        Decorator::create_shard(self, key, size_hint, save_len)
    }
    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        Decorator::open(self, key)
    }
    fn map(&self, key: &str, promise: MmapPromise) -> Result<Arc<dyn Blob>> {
        Decorator::map(self, key, promise)
    }
    fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        Decorator::list(self, folder)
    }
    fn list_each(&self, folders: &[&str]) -> Result<Vec<Vec<Entry>>> {
        Decorator::list_each(self, folders)
    }
    fn delete(&self, key: &str) -> Result<()> {
        Decorator::delete(self, key)
    }
    fn mark(&self, key: &str) -> Result<()> {
        Decorator::mark(self, key)
    }
    fn unmark(&self, key: &str) -> Result<()> {
        Decorator::unmark(self, key)
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        Decorator::rename(self, from, to)
    }
    fn lock(&self, holder: &str) -> Result<Box<dyn Lock>> {
        Decorator::lock(self, holder)
    }
    fn caps(&self) -> Caps {
        Decorator::caps(self)
    }
    fn describe(&self, key: &str) -> String {
        Decorator::describe(self, key)
    }
}

/// A shared engine is itself an engine.
impl<E: Engine + ?Sized> Decorator for Arc<E> {
    type Inner = E;
    fn inner(&self) -> &E {
        self
    }

    fn create_shard(&self, key: &str, size_hint: Option<u64>, save_len: u64) -> Result<Box<dyn Upload>> {
        E::create_shard(self, key, size_hint, save_len)
    }

    fn list_each(&self, folders: &[&str]) -> Result<Vec<Vec<Entry>>> {
        E::list_each(self, folders)
    }
}
