//! The peers in Python, through `python/peers.py`, which has a child's interface: finds out which
//! are installed.

use crate::Outcome;
use crate::ops::Op;
use crate::peer::Peer;
use serde::Deserialize;
use std::path::PathBuf;
use std::process::Command;

/// An interpreter, and the systems that it has.
pub struct Python {
    program: Vec<PathBuf>,
    systems: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    extension: String,
    ops: Vec<Op>,
    /// Letters of the workloads that it can do in reasonable time.
    workloads: String,
}

#[derive(Deserialize)]
struct Listing {
    systems: Vec<Listed>,
    /// The missing packages, in words.
    absent: Vec<String>,
}

impl Python {
    /// Asks the script for its systems; the second list names the missing ones, which are all
    /// without Python.
    pub fn find(interpreter: PathBuf) -> (Option<Self>, Vec<String>) {
        let script = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/python/peers.py"));
        let program = vec![interpreter, script];
        match list(&program) {
            Ok(Listing { systems, absent }) => (Some(Self { program, systems }), absent),
            Err(error) => (None, vec![format!("Python's peers: {error}")]),
        }
    }

    pub fn peers(&self) -> Vec<Peer> {
        let peer = |listed: &Listed| Peer {
            name: listed.name.clone(),
            extension: listed.extension.clone(),
            ops: listed.ops.clone(),
            workloads: listed.workloads.clone(),
            once: true,
            program: self.program.clone(),
        };
        self.systems.iter().map(peer).collect()
    }
}

fn list(program: &[PathBuf]) -> Outcome<Listing> {
    let [interpreter, script] = program else { return Err("no program".into()) };
    let out = Command::new(interpreter).arg(script).arg("list").output();
    let out = out.map_err(|error| format!("{}: {error}", interpreter.display()))?;
    let answer = String::from_utf8_lossy(&out.stdout);
    let last = answer.trim().lines().next_back().unwrap_or_default();
    Ok(serde_json::from_str(last).map_err(|error| format!("{}: {error}: {last:?}", script.display()))?)
}
