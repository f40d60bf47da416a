//! Random operations on a run, judged against a simple model of its contents: saves, pins,
//! deletions, resumes, new writers beside old ones, tools, kills at any call of the engine, rot,
//! lost objects, a clock that jumps, a run that is replaced, a remote tier that is away.
//!
//! An input is bytes, so that a fuzzer, a seed and a file drive the same code: [`run`]. A run of
//! the operations is in memory, in a folder, or in two tiers. The judged promises:
//! * a saved checkpoint is there, byte for byte, until a rule or a person lets it go; no checkpoint
//!   that is pinned, resumed from or protected by the policy is deleted; a deleted one stays
//!   deleted; and rotation leaves none that no rule protects;
//! * resuming takes the newest checkpoint that is whole, in either tier;
//! * a writer that was fenced changes nothing;
//! * `gc` deletes no whole checkpoint while those that stay are damaged;
//! * every error is one that the model expects, nothing panics, and every operation ends.

mod acts;
mod decode;
mod judge;
mod model;
mod outside;
mod saves;
mod site;
mod world;

use crate::clock::script::Script;
use decode::STRIDE;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

/// A broken promise, and the operations that broke it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The broken promise.
    pub what: String,
    /// The place, the policies, and each operation up to the one that broke it.
    pub operations: Vec<String>,
    /// The input, cut after that operation.
    pub input: Vec<u8>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        self.operations.iter().try_for_each(|operation| writeln!(f, "    {operation}"))?;
        write!(f, "  input: ")?;
        self.input.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An input of this many operations that follows from a seed.
pub fn from_seed(seed: u64, operations: usize) -> Vec<u8> {
    decode::from_seed(seed, operations)
}

/// Runs an input, and returns how many operations it had.
///
/// # Errors
/// The first broken promise.
pub fn run(input: &[u8]) -> Result<usize, Box<Violation>> {
    let _script = Script::begin(input.len() as u64);
    let (header, operations) = decode::decode(input);
    let mut done = 0;
    let all = || -> Result<(), String> {
        let mut world = World::new(&header).map_err(world::words)?;
        for operation in &operations {
            done += 1;
            world.step(*operation)?;
        }
        world.audit()
    };
    let outcome = catch_unwind(AssertUnwindSafe(all));
    let what = match outcome {
        Ok(Ok(())) => return Ok(operations.len()),
        Ok(Err(what)) => what,
        Err(panic) => match panic.downcast_ref::<String>() {
            Some(words) => format!("panicked: {words}"),
            None => "panicked".to_owned(),
        },
    };
    let mut words = vec![format!("{header:?}")];
    words.extend(operations[..done].iter().map(|operation| format!("{operation:?}")));
    let input = input[..input.len().min((done + 1) * STRIDE)].to_vec();
    Err(Box::new(Violation { what, operations: words, input }))
}

/// Shortens an input that breaks a promise: leaves out operations as long as one is still broken.
pub fn shrink(violation: Box<Violation>) -> Box<Violation> {
    let mut shortest = violation;
    let mut many = (shortest.input.len() / STRIDE / 2).max(1);
    loop {
        let mut at = STRIDE;
        let before = shortest.input.len();
        while at < shortest.input.len() {
            let mut shorter = shortest.input.clone();
            shorter.drain(at..(at + many * STRIDE).min(shorter.len()));
            match run(&shorter) {
                Err(violation) if violation.input.len() < before => shortest = violation,
                _ => at += many * STRIDE,
            }
        }
        match many {
            1 if shortest.input.len() == before => return shortest,
            _ => many = (many / 2).max(1),
        }
    }
}
