//! The two tiers of a run: a local engine, where saves go, and a remote one. `tiers/remote.rs`
//! reaches the remote tier; `promote.rs` copies checkpoints there, and `tiered.rs` has the calls of
//! a store with tiers.

mod passes;
mod remote;
mod upward;

pub(super) use passes::{Hopeless, Passes, is_for_ever};
pub(super) use remote::Remote;

/// One of the two places of a run's checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Where saves go; the only place of a store without tiers.
    Local,
    /// Where they are promoted to.
    Remote,
}
