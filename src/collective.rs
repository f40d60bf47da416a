//! What the ranks of a job need of each other: two calls, by whatever network the job has. Knows no
//! engine and no checkpoint. [`Alone`] is a job of one rank, [`Tcp`] needs nothing but sockets;
//! `exchange.rs` carries errors over the two calls.

mod exchange;
mod frame;
mod tcp;
#[cfg(test)]
mod tests;

#[cfg(feature = "testing")]
pub use exchange::agree;
pub(crate) use exchange::{Call, announce, collect, hand, hear, take};
pub use tcp::Tcp;

use crate::error::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Instant;

/// The connection of a rank with the others of its job.
///
/// All ranks make the same calls in the same order. Messages arrive whole and in that order, or a
/// call fails; after a failure every later call of every rank fails, too, by its deadline, with the
/// words of the first. A rank that is at another call than the others is such a failure. A call on
/// another rank than 0 may return before rank 0 has its bytes: the next call tells.
pub trait Collective: Send + Sync {
    /// This process's number, below [`Collective::world`].
    fn rank(&self) -> u32;

    /// Number of ranks, at least 1.
    fn world(&self) -> u32;

    /// Brings everybody's bytes to rank 0: there by rank, elsewhere None.
    ///
    /// # Errors
    /// `Io` when a rank is lost or late, which it names; `Invalid` when the ranks are at different
    /// calls.
    fn gather(&self, bytes: &[u8], deadline: Instant) -> Result<Option<Vec<Vec<u8>>>>;

    /// Brings rank 0's bytes to everybody; the others give None.
    ///
    /// # Errors
    /// As [`Collective::gather`].
    fn broadcast(&self, bytes: Option<&[u8]>, deadline: Instant) -> Result<Vec<u8>>;

    /// A second connection of the same ranks, so that saves in the background do not get between
    /// the calls of training. Every rank calls it once. By default there is none, and a store saves
    /// in the foreground alone.
    ///
    /// # Errors
    /// `Unsupported` without one; as [`Collective::gather`].
    fn split(&self, _deadline: Instant) -> Result<Arc<dyn Collective>> {
        Err(Error::new(ErrorKind::Unsupported, "this connection of ranks has no second one")
            .help("save in the foreground, by Store::save"))
    }
}

/// A job of one rank.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> u32 {
        0
    }

    fn world(&self) -> u32 {
        1
    }

    fn gather(&self, bytes: &[u8], _: Instant) -> Result<Option<Vec<Vec<u8>>>> {
        Ok(Some(vec![bytes.to_vec()]))
    }

    fn broadcast(&self, bytes: Option<&[u8]>, _: Instant) -> Result<Vec<u8>> {
        bytes.map(<[u8]>::to_vec).ok_or_else(nothing_to_broadcast)
    }

    fn split(&self, _: Instant) -> Result<Arc<dyn Collective>> {
        Ok(Arc::new(Self))
    }
}

/// Checks the number of a rank, and that of all of them.
pub(crate) fn check_world(rank: u32, world: u32, most: u32) -> Result<()> {
    if rank < world && world <= most {
        return Ok(());
    }
    Err(Error::invalid("rank and size of the world")
        .expected(format!("a rank below the world, of at most {most}"))
        .found(format!("rank {rank} of {world}")))
}

/// Every call after one that failed.
pub(crate) fn failed_before(words: &str) -> Error {
    Error::new(ErrorKind::Io, "the ranks' connection has failed before").found(words)
}

/// The failure of another rank, in its words.
pub(crate) fn failure(words: &[u8]) -> Error {
    Error::new(ErrorKind::Io, "another rank has failed").found(String::from_utf8_lossy(words))
}

/// A rank is not where this one is.
pub(crate) fn another_call(rank: u32) -> Error {
    Error::invalid(format!("rank {rank} is at another call than this rank"))
        .help("every rank makes the same calls in the same order")
}

pub(crate) fn nothing_to_broadcast() -> Error {
    Error::invalid("a broadcast").expected("bytes from rank 0, and from no other")
}

pub(crate) fn lost(ranks: &[u32], doing: &str) -> Error {
    let named: Vec<String> = ranks.iter().take(16).map(u32::to_string).collect();
    let more = ranks.len().saturating_sub(named.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Error::new(ErrorKind::Io, "ranks of the job are lost or late")
        .expected(format!("all of them {doing}"))
        .found(format!("nothing from rank {}{more}", named.join(", ")))
        .help("look at their logs, and start the job again: it resumes from its last checkpoint")
}
