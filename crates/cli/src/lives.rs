//! What is known of an attempt: a number that nothing tells is none, and not 0.

use tensorkeep::history::Life;

/// How many checkpoints it saved. Of an attempt that left no checkpoint and no mark of its end
/// only its own object tells, which is older than its first save.
pub fn saves(life: &Life) -> Option<u64> {
    let is_told = life.saves > 0 || life.last_step.is_some() || life.end.is_planned();
    is_told.then_some(life.saves)
}
