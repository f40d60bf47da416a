//! The executable contract of a [`Collective`]. Its author calls [`run`] with a function that
//! connects the ranks of a job; each sentence of the contract is one check here, with ranks as
//! threads, and the error names a broken one.

use crate::collective::{Collective, agree};
use crate::error::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connects a rank, on a thread of its own, with the others of the same job.
pub type Join<'j> = dyn Fn(Member<'_>) -> Result<Arc<dyn Collective>> + Sync + 'j;

/// A rank that is to be connected.
#[derive(Clone, Copy, Debug)]
pub struct Member<'m> {
    /// The job: each check has another one.
    pub job: &'m str,
    /// The rank's number.
    pub rank: u32,
    /// How many ranks the job has.
    pub world: u32,
}

/// A check: the sentence that it proves, and the proof.
type Check = (&'static str, fn(&Join<'_>, &str) -> Result<()>);

const CHECKS: &[Check] = &[
    ("messages arrive whole and in order", whole_and_in_order),
    ("one rank's error is everybody's, with its words, and the job goes on", one_error),
    ("a rank that is missing is named, by the deadline, and every later call fails", missing),
    ("late ranks are all named at the deadline", late),
    ("a rank that is one call ahead is told apart", another_call),
    ("a second connection has its own messages, or is Unsupported", second),
];

/// Runs every check, each with jobs of its own.
///
/// # Errors
/// The first broken sentence of the contract, with what happened instead.
pub fn run(join: &Join<'_>) -> Result<()> {
    for (number, (sentence, check)) in CHECKS.iter().enumerate() {
        check(join, &format!("check-{number}")).map_err(|error| {
            Error::new(error.kind(), format!("collective contract broken: {sentence}")).because(error)
        })?;
    }
    Ok(())
}

/// Longer than any call takes that is not to fail.
const LONG: Duration = Duration::from_secs(30);

fn by(limit: Duration) -> Instant {
    Instant::now() + limit
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::invalid(what())) }
}

/// Runs `act` as each rank of a job; returns what each returned.
fn ranks<T: Send>(
    join: &Join<'_>,
    job: &str,
    world: u32,
    act: impl Fn(&dyn Collective) -> Result<T> + Sync,
) -> Vec<Result<T>> {
    std::thread::scope(|scope| {
        let act = &act;
        let rank = |rank| scope.spawn(move || act(&*join(Member { job, rank, world })?));
        let threads: Vec<_> = (0..world).map(rank).collect();
        let joined = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(Error::invalid("a rank panicked")))
        };
        threads.into_iter().map(joined).collect()
    })
}

fn all(outcomes: Vec<Result<()>>) -> Result<()> {
    outcomes.into_iter().collect()
}

fn whole_and_in_order(join: &Join<'_>, job: &str) -> Result<()> {
    for world in [1, 2, 5, 17] {
        all(ranks(join, &format!("{job}-{world}"), world, |ranks| {
            for (round, len) in (0..).zip([0, 1, 80, 81, 3000, 3 << 20]) {
                let of = |rank: u32| vec![(rank + round) as u8; len];
                let heard = ranks.gather(&of(ranks.rank()), by(LONG))?;
                ensure(heard.is_some() == (ranks.rank() == 0), || "who hears a gather".to_owned())?;
                if let Some(heard) = &heard {
                    let is_whole = (0..world).map(of).eq(heard.iter().cloned());
                    ensure(is_whole, || format!("a gather of {len} bytes from {world} ranks"))?;
                }
                let last = of(world);
                let heard = ranks.broadcast(heard.is_some().then_some(&last), by(LONG))?;
                ensure(heard == last, || format!("a broadcast of {len} bytes to {world} ranks"))?;
            }
            Ok(())
        }))?;
    }
    Ok(())
}

fn one_error(join: &Join<'_>, job: &str) -> Result<()> {
    all(ranks(join, job, 5, |ranks| {
        let heard = agree(ranks, Ok(vec![ranks.rank() as u8]), by(LONG))?;
        ensure(heard == [[0], [1], [2], [3], [4]], || format!("heard {heard:?}"))?;
        let full = || Error::new(ErrorKind::NoSpace, "the disk is full").in_object("shard 3");
        let outcome = if ranks.rank() == 3 { Err(full()) } else { Ok(vec![]) };
        let error = match agree(ranks, outcome, by(LONG)) {
            Ok(_) => return Err(Error::invalid("an error that nobody hears")),
            Err(error) => error,
        };
        let words = error.to_string();
        let has_words = words.contains("rank 3 of 5: shard 3: the disk is full");
        ensure(error.kind() == ErrorKind::NoSpace && has_words, || format!("heard {words:?}"))?;
        agree(ranks, Ok(vec![]), by(LONG)).map(drop)
    }))
}

/// The words of two calls that must both fail.
fn both_fail(ranks: &dyn Collective, limit: Duration) -> Result<(String, String)> {
    // Rank 0 may take its whole time before it knows.
    let call = || match ranks.gather(&[], by(limit))? {
        Some(_) => ranks.broadcast(Some(&[]), by(limit)),
        None => ranks.broadcast(None, by(2 * limit)),
    };
    match (call(), call()) {
        (Err(first), Err(again)) => Ok((first.to_string(), again.to_string())),
        _ => Err(Error::invalid("a call without a rank that succeeds")),
    }
}

fn missing(join: &Join<'_>, job: &str) -> Result<()> {
    let limit = Duration::from_secs(3);
    let outcomes = ranks(join, job, 4, |ranks| {
        if ranks.rank() == 2 {
            return Ok(None);
        }
        let started = Instant::now();
        let words = both_fail(ranks, limit)?;
        ensure(started.elapsed() < 3 * limit, || format!("took {:?}", started.elapsed()))?;
        Ok(Some(words))
    });
    for (first, again) in outcomes.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten() {
        let is_named =
            first.contains("rank 2") && again.contains("failed before") && again.contains("rank 2");
        ensure(is_named, || format!("{first:?}, then {again:?}"))?;
    }
    Ok(())
}

fn late(join: &Join<'_>, job: &str) -> Result<()> {
    let outcomes = ranks(join, job, 5, |ranks| {
        // Everybody is there before the clock starts.
        agree(ranks, Ok(vec![]), by(LONG))?;
        if matches!(ranks.rank(), 1 | 3) {
            std::thread::sleep(Duration::from_millis(1500));
            return ranks.gather(&[], by(LONG)).and_then(|_| ranks.broadcast(None, by(LONG))).map(drop);
        }
        let started = Instant::now();
        let result = agree(ranks, Ok(vec![]), by(Duration::from_millis(300))).map(drop);
        ensure(started.elapsed() < Duration::from_millis(1400), || format!("took {:?}", started.elapsed()))?;
        result
    });
    let words: Vec<String> = outcomes.iter().map(|outcome| format!("{outcome:?}")).collect();
    ensure(outcomes.iter().all(Result::is_err), || format!("{words:?}"))?;
    ensure(words[0].contains("rank 1, 3"), || words[0].clone())
}

fn another_call(join: &Join<'_>, job: &str) -> Result<()> {
    let limit = Duration::from_secs(5);
    let outcomes = ranks(join, job, 3, |ranks| {
        let gather = || ranks.gather(&[], by(limit)).map(drop);
        let broadcast = || ranks.broadcast((ranks.rank() == 0).then_some(&[][..]), by(limit)).map(drop);
        gather()?;
        // Rank 1 takes the turn for one in which its bytes are wanted.
        if ranks.rank() == 1 {
            gather()?
        } else {
            broadcast()?
        }
        broadcast()?;
        gather()?;
        broadcast()
    });
    let words: Vec<String> = outcomes.iter().map(|outcome| format!("{outcome:?}")).collect();
    ensure(outcomes.iter().all(Result::is_err), || format!("{words:?}"))?;
    ensure(words.iter().any(|words| words.contains("another call")), || format!("{words:?}"))
}

fn second(join: &Join<'_>, job: &str) -> Result<()> {
    all(ranks(join, job, 3, |ranks| {
        let second = match ranks.split(by(LONG)) {
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
            second => second?,
        };
        let heard = second.gather(&[7], by(LONG))?;
        let first = ranks.gather(&[8], by(LONG))?;
        ensure(heard.is_none_or(|heard| heard == [[7], [7], [7]]), || "the second connection".to_owned())?;
        ensure(first.is_none_or(|first| first == [[8], [8], [8]]), || "the first connection".to_owned())?;
        let root = (ranks.rank() == 0).then_some(&[9][..]);
        ensure(second.broadcast(root, by(LONG))? == [9], || "what the second connection says".to_owned())
    }))
}
