//! A system from the parent's point of view: one of ours in a child, or one in Python.

use crate::ops::Op;
use std::path::PathBuf;

/// How to start a system, and what it supports.
#[derive(Clone)]
pub struct Peer {
    pub name: String,
    pub extension: String,
    pub ops: Vec<Op>,
    /// Letters of the workloads that it supports.
    pub workloads: String,
    /// Whether one round is enough: starting it takes long.
    pub once: bool,
    pub program: Vec<PathBuf>,
}
