//! The ranks of a job as threads, connected by TCP.

use crate::collective::Tcp;
use crate::error::{Error, Result};
use std::net::TcpListener;
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

/// Time for the ranks to meet.
const MEETING: Duration = Duration::from_secs(30);

/// Runs `act` as each rank, rank 0 on this thread, whose script of nonces it has; returns what each
/// returned.
pub(super) fn of<T: Send>(world: u32, act: impl Fn(Tcp) -> T + Sync) -> Result<Vec<T>> {
    let failed = |error| Error::io("listening for ranks", error);
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let by = Instant::now() + MEETING;
    thread::scope(|scope| {
        let act = &act;
        let rank = |rank| scope.spawn(move || Tcp::connect(address, rank, world, "job", by).map(act));
        let others: Vec<_> = (1..world).map(rank).collect();
        let mut returned = vec![Tcp::listen(&listener, world, "job", by).map(act)?];
        for rank in others {
            returned.push(rank.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok(returned)
    })
}
