//! Work in parallel, results in order, memory bounded, on threads that live for one call. A thread
//! that panics is an error, not the end of the trainer. A library inside a trainer must not take
//! over a global thread pool, so it brings its own threads.

use crate::deadline::CallDeadline;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{self, lock};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock};
use std::thread::{Builder, ScopedJoinHandle};

/// Jobs in flight per worker: enough that none waits, few enough that memory stays at a few chunks
/// a thread.
const IN_FLIGHT_PER_WORKER: usize = 3;

/// Items that a thread draws at a time, however short.
const MOST_ITEMS: usize = 1024;

/// The result of a job: a summary, and bytes that may still lie in the job or the worker.
pub(crate) struct Output<'e, S> {
    pub summary: S,
    pub bytes: Cow<'e, [u8]>,
}

/// The work on the jobs of one call of [`ordered`].
pub(crate) trait Stage<J>: Sync {
    /// Memory that a thread keeps from job to job, made when it is first needed.
    type Worker: Default;
    type Summary: Send;

    /// Whether a job is less work than handing it over.
    fn is_light(&self, job: &J) -> bool;

    fn work<'e>(&self, worker: &'e mut Self::Worker, job: &'e J) -> Result<Output<'e, Self::Summary>>;
}

/// Draws jobs, works on them on `workers` threads (0: in this one, without a copy), and hands job
/// and output to `consume` in the order of the jobs. Stops at the first error and returns it. The
/// calling thread does the light jobs.
///
/// At most `workers × 3` jobs and their outputs are held at a time.
pub(crate) fn ordered<J: Send, S: Stage<J>>(
    workers: usize,
    jobs: impl Iterator<Item = Result<J>>,
    stage: &S,
    mut consume: impl FnMut(&J, Output<'_, S::Summary>) -> Result<()>,
) -> Result<()> {
    if workers == 0 {
        let mut worker = S::Worker::default();
        for job in jobs {
            let job = job?;
            let output = stage.work(&mut worker, &job)?;
            consume(&job, output)?;
        }
        return Ok(());
    }
    let most = workers * IN_FLIGHT_PER_WORKER;
    let (send_job, receive_job) = sync_channel(most);
    let receive_job = &Mutex::new(receive_job);
    std::thread::scope(|scope| {
        let start = |_| {
            let named = Builder::new().name("tensorkeep-encode".to_owned());
            named.spawn_scoped(scope, move || run_worker(stage, receive_job))
        };
        let threads = (0..workers).map(start).collect::<io::Result<Vec<_>>>();
        let result = match &threads {
            Ok(_) => feed(most, jobs, stage, &send_job, &mut consume),
            Err(error) => Err(Error::io("starting an encoding thread", io::Error::from(error.kind()))),
        };
        // Before the threads are joined: without a sender they run out of jobs, also after an
        // error.
        drop(send_job);
        result.and(threads.map_or(Ok(()), join))
    })
}

/// Joined here and not by the scope, which would propagate a thread's panic to the caller.
fn join(threads: Vec<ScopedJoinHandle<'_, ()>>) -> Result<()> {
    let joined: Vec<_> = threads.into_iter().map(|thread| thread.join().map_err(|_| worker_died())).collect();
    joined.into_iter().collect()
}

/// Works on items as they are drawn, in no order, on up to `workers` threads of which the calling
/// one is the first. Stops at the first failing item and returns its error. Each thread makes
/// itself a `scratch`.
pub(crate) fn each<T, S>(
    workers: usize,
    items: impl Iterator<Item = T> + Send,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T) -> Result<()> + Sync,
) -> Result<()> {
    if workers <= 1 {
        let mut scratch = scratch();
        return items.into_iter().try_for_each(|item| work(&mut scratch, item));
    }
    let items = Mutex::new(Some(items.enumerate()));
    let failed: Mutex<Option<(usize, Error)>> = Mutex::default();
    let run = || {
        let mut scratch = scratch();
        loop {
            let next = lock(&items).as_mut().and_then(Iterator::next);
            let Some((number, item)) = next else { return };
            let Err(error) = work(&mut scratch, item) else { continue };
            *lock(&items) = None;
            // Items are drawn in order, so the first failing item is already in progress when any
            // later one fails.
            let mut failed = lock(&failed);
            if failed.as_ref().is_none_or(|(earlier, _)| number < *earlier) {
                *failed = Some((number, error));
            }
        }
    };
    let deadline = CallDeadline::current();
    let run_for_the_call = || match &deadline {
        Some(deadline) => deadline.enter(run),
        None => run(),
    };
    let joined = std::thread::scope(|scope| {
        let named = || Builder::new().name("tensorkeep-load".to_owned());
        let start = |_| named().spawn_scoped(scope, run_for_the_call);
        // If threads cannot be had, this one does all the work.
        let threads = (1..workers).map_while(|i| start(i).ok()).collect();
        run();
        join(threads)
    });
    match sync::into_inner(failed) {
        Some((_, error)) => Err(error),
        None => joined,
    }
}

/// Successive items in batches of `bytes` together, and no more items than a thread should draw.
pub(crate) fn batches<T>(
    mut items: impl Iterator<Item = T>,
    bytes: u64,
    len: impl Fn(&T) -> u64,
) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        let (mut batch, mut total) = (Vec::new(), 0);
        while total < bytes
            && batch.len() < MOST_ITEMS
            && let Some(item) = items.next()
        {
            total += len(&item);
            batch.push(item);
        }
        (!batch.is_empty()).then_some(batch)
    })
}

/// The cores that this process may use. Asked once: the answer takes the kernel longer than opening
/// a file.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Jobs in their order, the oldest first.
enum InFlight<J, S> {
    Elsewhere(Receiver<Done<J, S>>),
    Here(Done<J, S>),
}

fn feed<J, S: Stage<J>>(
    most: usize,
    jobs: impl Iterator<Item = Result<J>>,
    stage: &S,
    send_job: &SyncSender<Ticket<J, S::Summary>>,
    consume: &mut impl FnMut(&J, Output<'_, S::Summary>) -> Result<()>,
) -> Result<()> {
    let (mut in_flight, mut own) = (VecDeque::new(), None);
    for job in jobs {
        let job = job?;
        if stage.is_light(&job) {
            let result = work_on(stage, &mut own, &job);
            in_flight.push_back(InFlight::Here((job, result)));
        } else {
            let (done, receive_done) = sync_channel(1);
            send_job.send(Ticket { job, done }).map_err(|_| worker_died())?;
            in_flight.push_back(InFlight::Elsewhere(receive_done));
        }
        while in_flight.len() >= most || matches!(in_flight.front(), Some(InFlight::Here(_))) {
            finish_oldest(&mut in_flight, consume)?;
        }
    }
    while !in_flight.is_empty() {
        finish_oldest(&mut in_flight, consume)?;
    }
    Ok(())
}

/// A job and the destination of its output.
struct Ticket<J, S> {
    job: J,
    done: SyncSender<Done<J, S>>,
}

type Done<J, S> = (J, Result<Output<'static, S>>);

fn run_worker<J, S: Stage<J>>(stage: &S, jobs: &Mutex<Receiver<Ticket<J, S::Summary>>>) {
    let mut worker = None;
    loop {
        let next = lock(jobs).recv();
        let Ok(Ticket { job, done }) = next else { return };
        let result = work_on(stage, &mut worker, &job);
        // There is no receiver only when another job failed and everything ends.
        let _ = done.send((job, result));
    }
}

/// One job's output, in memory of its own.
fn work_on<J, S: Stage<J>>(
    stage: &S,
    worker: &mut Option<S::Worker>,
    job: &J,
) -> Result<Output<'static, S::Summary>> {
    let worker = worker.get_or_insert_with(S::Worker::default);
    let Output { summary, bytes } = stage.work(worker, job)?;
    Ok(Output { summary, bytes: Cow::Owned(bytes.into_owned()) })
}

fn finish_oldest<J, S>(
    in_flight: &mut VecDeque<InFlight<J, S>>,
    consume: &mut impl FnMut(&J, Output<'_, S>) -> Result<()>,
) -> Result<()> {
    let (job, result) = match in_flight.pop_front() {
        Some(InFlight::Elsewhere(done)) => done.recv().map_err(|_| worker_died())?,
        Some(InFlight::Here(done)) => done,
        None => return Ok(()),
    };
    consume(&job, result?)
}

fn worker_died() -> Error {
    Error::new(ErrorKind::Io, "a working thread died")
        .help("look for its panic message; nothing was published")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Squares numbers; a third of them are light work.
    struct Squares {
        fails_at: Option<u64>,
        panics_at: Option<u64>,
    }

    impl Stage<u64> for Squares {
        type Worker = ();
        type Summary = u64;

        fn is_light(&self, job: &u64) -> bool {
            self.panics_at.is_none() && job % 3 == 1
        }

        fn work(&self, (): &mut (), &job: &u64) -> Result<Output<'static, u64>> {
            assert!(self.panics_at != Some(job), "on purpose");
            if self.fails_at == Some(job) {
                return Err(Error::invalid("this one fails"));
            }
            Ok(Output { summary: job * job, bytes: Cow::Borrowed(&[]) })
        }
    }

    fn squares(workers: usize, count: u64, stage: Squares) -> Result<Vec<u64>> {
        let mut results = Vec::new();
        ordered(workers, (0..count).map(Ok), &stage, |&job, output| {
            assert_eq!(job * job, output.summary);
            results.push(output.summary);
            Ok(())
        })?;
        Ok(results)
    }

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        let expected: Vec<u64> = (0..500).map(|job| job * job).collect();
        for workers in [0, 1, 2, 7] {
            assert_eq!(squares(workers, 500, Squares { fails_at: None, panics_at: None }).unwrap(), expected);
        }
    }

    #[test]
    fn the_first_error_ends_everything_without_a_hang() {
        for workers in [0, 1, 3] {
            for at in [0, 4, 99] {
                let stage = Squares { fails_at: Some(at), panics_at: None };
                let error = squares(workers, 100, stage).unwrap_err();
                assert_eq!(error.to_string(), "this one fails");
            }
        }
    }

    #[test]
    fn a_worker_that_panics_is_an_error_of_the_call() {
        for workers in [1, 2, 3] {
            let stage = Squares { fails_at: None, panics_at: Some(7) };
            let error = squares(workers, 100, stage).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().contains("died"), "{error}");
        }
    }

    #[test]
    fn each_visits_every_item_once_and_returns_the_first_error() {
        for workers in [1, 2, 5] {
            let seen = Mutex::new(Vec::new());
            let count = |sum: &mut u64, item| {
                *sum += item;
                seen.lock().unwrap().push(item);
                Ok(())
            };
            each(workers, 0..1000, || 0, count).unwrap();
            let mut seen = seen.into_inner().unwrap();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..1000));
            let fails = |(): &mut (), item: u64| match item {
                0..20 => Ok(()),
                late => {
                    // The first that fails takes longest to do so.
                    std::thread::sleep(std::time::Duration::from_millis(if late == 20 { 20 } else { 1 }));
                    Err(Error::invalid(format!("item {late}")))
                }
            };
            assert_eq!(each(workers, 0..1000, || (), fails).unwrap_err().to_string(), "item 20");
        }
        // Each of the two threads has an item when the one that was started here dies.
        let both = std::sync::Barrier::new(2);
        let dies = |(): &mut (), _: u64| {
            both.wait();
            assert!(std::thread::current().name() != Some("tensorkeep-load"), "on purpose");
            Ok(())
        };
        assert!(each(2, 0..2, || (), dies).unwrap_err().to_string().contains("died"));
    }
}
