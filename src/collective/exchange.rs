//! Outcomes over a collective: what every rank has done comes to rank 0, and what rank 0 decides to
//! everybody. One rank's error becomes everybody's, and a rank at another call is told apart.

use super::{Collective, frame};
use crate::error::{Error, Result};
use std::time::Instant;

/// A call that all ranks make at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'c> {
    /// What it is, in words that are the same on every rank: `the save of step 20`.
    pub name: &'c str,
    /// Until when all ranks must have come to it.
    pub deadline: Instant,
}

/// Brings this rank's outcome to rank 0. There: everybody's, by rank; elsewhere None.
///
/// # Errors
/// On rank 0 the error of the first rank that failed, with its number, or that of a rank that makes
/// another call: rank 0 has to [`announce`] it. Those of the collective.
pub(crate) fn collect(
    collective: &dyn Collective,
    call: Call<'_>,
    outcome: &Result<Vec<u8>>,
) -> Result<Option<Result<Vec<Vec<u8>>>>> {
    let message = [vec![call.name.as_bytes().to_vec()], vec![frame::outcome(outcome)]].concat();
    let Some(all) = collective.gather(&frame::list(&message), call.deadline)? else { return Ok(None) };
    let world = collective.world();
    let of_rank = |(rank, bytes): (usize, &Vec<u8>)| {
        let message = frame::items(bytes)?;
        let [name, outcome] = &message[..] else {
            return Err(Error::invalid(format!("rank {rank} of {world} sent no outcome")));
        };
        // A rank that could not come to the call says why.
        let outcome = frame::of_rank(rank, world, outcome)?;
        if name[..] != *call.name.as_bytes() {
            return Err(another_call(rank, world, call.name, name));
        }
        Ok(outcome)
    };
    Ok(Some(all.iter().enumerate().map(of_rank).collect()))
}

fn another_call(rank: usize, world: u32, expected: &str, found: &[u8]) -> Error {
    Error::invalid(format!("rank {rank} of {world} is at another call than rank 0"))
        .expected(expected)
        .found(String::from_utf8_lossy(found))
        .help("every rank makes the same calls in the same order, with the same steps")
}

/// Rank 0's decision, to everybody.
///
/// # Errors
/// Those of the collective.
pub(crate) fn announce(
    collective: &dyn Collective,
    decision: &Result<Vec<u8>>,
    deadline: Instant,
) -> Result<()> {
    collective.broadcast(Some(&frame::outcome(decision)), deadline).map(drop)
}

/// Rank 0's decision, on another rank.
///
/// # Errors
/// Rank 0's error; outside, those of the collective.
pub(crate) fn hear(collective: &dyn Collective, deadline: Instant) -> Result<Result<Vec<u8>>> {
    Ok(frame::result(&collective.broadcast(None, deadline)?))
}

/// An error as bytes, for [`take`].
pub(crate) fn hand(error: &Error) -> Vec<u8> {
    frame::outcome(&Err(Error::new(error.kind(), error.to_string())))
}

/// An error that was handed over as bytes.
///
/// # Errors
/// That error.
pub(crate) fn take(bytes: &[u8]) -> Result<()> {
    frame::result(bytes).map(drop)
}

/// The outcome of everybody's part of a call: all ranks' bytes on every rank, or, on every rank,
/// the error of the first that failed, in its words and with its number.
///
/// # Errors
/// The first failing rank's, and those of the collective.
#[cfg(feature = "testing")]
pub fn agree(
    collective: &dyn Collective,
    outcome: Result<Vec<u8>>,
    deadline: Instant,
) -> Result<Vec<Vec<u8>>> {
    let call = Call { name: "an agreement", deadline };
    let heard = match collect(collective, call, &outcome)? {
        Some(all) => {
            let decision = all.map(|all| frame::list(&all));
            announce(collective, &decision, deadline)?;
            decision
        }
        None => hear(collective, deadline)?,
    };
    let heard = heard?;
    // A rank's own error keeps what only it knows.
    outcome?;
    frame::items(&heard)
}
