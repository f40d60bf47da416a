//! A system as the parent process sees it: one of ours in a child, or one in Python.

use crate::ops::Op;
use std::path::PathBuf;

/// What to start, and what it can.
#[derive(Clone)]
pub struct Peer {
    pub name: String,
    pub extension: String,
    pub ops: Vec<Op>,
    /// Letters of the workloads that it does.
    pub workloads: String,
    /// Whether one round is enough: starting it takes long.
    pub once: bool,
    pub program: Vec<PathBuf>,
}
