//! One operation of one system in a process of its own, so that its memory is its own and no
//! allocator is warm from another system. This file has the child's task and reply, the clock, and
//! the peak of memory. A child is this program again, or `python/peers.py`, which has the same
//! interface.

use crate::ops::{Found, Op};
use crate::system::Work;
use crate::systems;
use crate::workloads::State;
use crate::{Outcome, memory};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

/// A child's task, as JSON in its second argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    pub op: Op,
    pub system: String,
    /// The file that describes the values: see [`State::open`].
    pub values: PathBuf,
    /// The file to save or load.
    pub file: PathBuf,
    pub warm: usize,
    pub times: usize,
    pub expected_sum: u64,
}

/// Its reply, as one line of JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// Every time under its row's name; the operation's own, unless it has several.
    pub seconds: Vec<(String, f64)>,
    /// Peak memory beyond the memory resident before the first call: the state, and buffers to load
    /// into.
    pub peak_rss: u64,
}

/// The first argument that makes this program a child.
pub const CHILD: &str = "child";

impl Task {
    /// Runs the task in a child and waits.
    ///
    /// # Errors
    /// The child's stderr, also when it found wrong values.
    pub fn run(&self, program: &[PathBuf]) -> Outcome<Reply> {
        let [program, leading @ ..] = program else { return Err("no program".into()) };
        let mut command = Command::new(program);
        command.args(leading).arg(CHILD).arg(serde_json::to_string(self)?);
        let out = command.stderr(Stdio::piped()).output().map_err(|error| format!("{program:?}: {error}"))?;
        let place = || format!("{}, {}", self.system, self.op.name());
        if !out.status.success() {
            let words = String::from_utf8_lossy(&out.stderr);
            let last = words.trim().lines().next_back().unwrap_or("it said nothing").to_owned();
            return Err(format!("{}: {last} ({})", place(), out.status).into());
        }
        // Libraries print, too: the reply is the last line.
        let text = String::from_utf8_lossy(&out.stdout);
        let answer = text.trim().lines().next_back().unwrap_or_default();
        Ok(serde_json::from_str(answer).map_err(|error| format!("{}: {error}: {answer:?}", place()))?)
    }
}

/// The child's side.
///
/// # Errors
/// Those of the system, and wrong results: a figure for wrong bytes is no figure.
pub fn answer(task: &str) -> Outcome<()> {
    let task: Task = serde_json::from_str(task)?;
    println!("{}", serde_json::to_string(&measure(&task)?)?);
    Ok(())
}

/// Measures in this process.
pub fn measure(task: &Task) -> Outcome<Reply> {
    let system = systems::find(&task.system)?;
    let work = Work { state: Arc::new(State::open(&task.values)?), file: task.file.clone() };
    let mut call = system.call(task.op, &work)?;
    let mut reply = Reply::default();
    let resident = memory::reset_peak()?;
    for turn in 0..task.warm + task.times {
        (call.before)()?;
        let start = Instant::now();
        let found = (call.measured)()?;
        let seconds = start.elapsed().as_secs_f64();
        let own = |seconds| vec![(task.op.name().to_owned(), seconds)];
        let taken = match found {
            Found::Nothing => own(seconds),
            Found::Times(all) => all,
            Found::Elements(found) => check(found, work.state.elements()).map(|()| own(seconds))?,
            Found::Sum(found) => check(found, task.expected_sum).map(|()| own(seconds))?,
            Found::Loaded { seconds, sum } => check(sum, task.expected_sum).map(|()| own(seconds))?,
        };
        (call.after)()?;
        if turn >= task.warm {
            reply.seconds.extend(taken);
        }
    }
    reply.peak_rss = memory::peak()?.saturating_sub(resident);
    Ok(reply)
}

fn check(found: u64, expected: u64) -> Outcome<()> {
    if found == expected {
        return Ok(());
    }
    Err(format!("wrong values: {found} instead of {expected}").into())
}
