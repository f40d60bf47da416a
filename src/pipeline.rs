//! Work in parallel, results in order, memory bounded. Owns: threads that live for one call. Knows nothing of files.
//! A library inside a trainer must not take over a global thread pool, so it brings its own.

use crate::error::{Error, ErrorKind, Result};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Jobs in flight per worker: enough that none waits, few enough that memory stays at a few chunks a thread.
const IN_FLIGHT_PER_WORKER: usize = 3;

/// What a job became: a summary, and bytes that may still lie in the job or the worker.
pub(crate) struct Output<'e, S> {
    pub summary: S,
    pub bytes: Cow<'e, [u8]>,
}

/// Draws jobs, works on them on `workers` threads (0: in this one, without a copy), and hands job and output to
/// `consume` in the order of the jobs. The first error ends everything and is returned.
///
/// At most `workers × 3` jobs and their outputs are held at a time.
pub(crate) fn ordered<J: Send, W, S: Send>(
    workers: usize,
    jobs: impl Iterator<Item = Result<J>>,
    make_worker: impl Fn() -> Result<W> + Sync,
    work: impl for<'e> Fn(&'e mut W, &'e J) -> Result<Output<'e, S>> + Sync,
    mut consume: impl FnMut(&J, Output<'_, S>) -> Result<()>,
) -> Result<()> {
    if workers == 0 {
        let mut worker = make_worker()?;
        for job in jobs {
            let job = job?;
            let output = work(&mut worker, &job)?;
            consume(&job, output)?;
        }
        return Ok(());
    }
    let (send_job, receive_job) = sync_channel(workers * IN_FLIGHT_PER_WORKER);
    let receive_job = Mutex::new(receive_job);
    std::thread::scope(|scope| {
        let (receive_job, make_worker, work) = (&receive_job, &make_worker, &work);
        for _ in 0..workers {
            scope.spawn(move || run_worker(receive_job, make_worker, work));
        }
        let result = feed(workers, jobs, &send_job, &mut consume);
        // Before the scope joins its threads: without a sender they run out of jobs, also after an error.
        drop(send_job);
        result
    })
}

fn feed<J, S>(
    workers: usize,
    jobs: impl Iterator<Item = Result<J>>,
    send_job: &SyncSender<Ticket<J, S>>,
    consume: &mut impl FnMut(&J, Output<'_, S>) -> Result<()>,
) -> Result<()> {
    let mut in_flight = VecDeque::new();
    for job in jobs {
        let (done, receive_done) = sync_channel(1);
        send_job.send(Ticket { job: job?, done }).map_err(|_| worker_died())?;
        in_flight.push_back(receive_done);
        if in_flight.len() >= workers * IN_FLIGHT_PER_WORKER {
            finish_oldest(&mut in_flight, consume)?;
        }
    }
    while !in_flight.is_empty() {
        finish_oldest(&mut in_flight, consume)?;
    }
    Ok(())
}

/// A job and where its output goes.
struct Ticket<J, S> {
    job: J,
    done: SyncSender<Done<J, S>>,
}

type Done<J, S> = (J, Result<Output<'static, S>>);

fn run_worker<J, W, S>(
    jobs: &Mutex<Receiver<Ticket<J, S>>>,
    make_worker: &impl Fn() -> Result<W>,
    work: &impl for<'e> Fn(&'e mut W, &'e J) -> Result<Output<'e, S>>,
) {
    let mut worker = None;
    loop {
        let next = jobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv();
        let Ok(Ticket { job, done }) = next else { return };
        let made = match worker.take() {
            Some(worker) => Ok(worker),
            None => make_worker(),
        };
        let result = made.and_then(|made| {
            let made = worker.insert(made);
            let Output { summary, bytes } = work(made, &job)?;
            Ok(Output { summary, bytes: Cow::Owned(bytes.into_owned()) })
        });
        // Nobody receives only when another job failed and everything ends.
        let _ = done.send((job, result));
    }
}

fn finish_oldest<J, S>(
    in_flight: &mut VecDeque<Receiver<Done<J, S>>>,
    consume: &mut impl FnMut(&J, Output<'_, S>) -> Result<()>,
) -> Result<()> {
    let Some(done) = in_flight.pop_front() else { return Ok(()) };
    let (job, result) = done.recv().map_err(|_| worker_died())?;
    consume(&job, result?)
}

fn worker_died() -> Error {
    Error::new(ErrorKind::Io, "a worker thread died")
        .help("look for its panic message; nothing was published")
}

/// Cores of this machine, asked once: asking reads the control group's files.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Does jobs that depend on nothing and return nothing, in this thread and in `workers - 1` others, in no particular
/// order. After an error no further job begins; the error returned is one of those that happened.
pub(crate) fn unordered<J, W: Default>(
    workers: usize,
    jobs: impl Iterator<Item = J> + Send,
    work: impl Fn(&mut W, J) -> Result<()> + Sync,
) -> Result<()> {
    let jobs = Mutex::new(Some(jobs));
    let run = || {
        let mut worker = W::default();
        loop {
            let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(Iterator::next);
            let Some(job) = next else { return Ok(()) };
            if let Err(error) = work(&mut worker, job) {
                *jobs.lock().unwrap_or_else(PoisonError::into_inner) = None;
                return Err(error);
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(run)).collect();
        let own = run();
        let joined = others.into_iter().map(|other| other.join().unwrap_or_else(|_| Err(worker_died())));
        joined.fold(own, Result::and)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squares(workers: usize, count: u64, fail_at: Option<u64>) -> Result<Vec<u64>> {
        let mut results = Vec::new();
        ordered(
            workers,
            (0..count).map(Ok),
            || Ok(()),
            |(), &job| match fail_at {
                Some(at) if at == job => Err(Error::invalid("this one fails")),
                _ => Ok(Output { summary: job * job, bytes: Cow::Borrowed(&[]) }),
            },
            |&job, output| {
                assert_eq!(job * job, output.summary);
                results.push(output.summary);
                Ok(())
            },
        )?;
        Ok(results)
    }

    #[test]
    fn results_come_in_the_order_of_the_jobs_with_any_number_of_workers() {
        let expected: Vec<u64> = (0..500).map(|job| job * job).collect();
        for workers in [0, 1, 2, 7] {
            assert_eq!(squares(workers, 500, None).unwrap(), expected);
        }
    }

    #[test]
    fn jobs_without_an_order_are_each_done_once_until_one_fails() {
        for workers in [1, 2, 5] {
            let mut targets = vec![0; 300];
            let fill = |_: &mut (), (i, target): (usize, &mut usize)| {
                *target += i;
                Ok(())
            };
            unordered(workers, targets.iter_mut().enumerate(), fill).unwrap();
            assert!(targets.into_iter().eq(0..300));
            let error = unordered(workers, 0..100, |(): &mut (), job| match job {
                7 => Err(Error::invalid("this one fails")),
                _ => Ok(()),
            });
            assert_eq!(error.unwrap_err().to_string(), "this one fails");
        }
    }

    #[test]
    fn the_first_error_ends_everything_without_a_hang() {
        for workers in [0, 1, 3] {
            for at in [0, 4, 99] {
                let error = squares(workers, 100, Some(at)).unwrap_err();
                assert_eq!(error.to_string(), "this one fails");
            }
        }
    }
}
