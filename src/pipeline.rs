//! Work in parallel, results in order, memory bounded. Owns: threads that live for one call, and
//! that a thread which panics is an error and not the trainer's end. Knows nothing of files. A
//! library inside a trainer must not take over a global thread pool, so it brings its own.

use crate::deadline::CallDeadline;
use crate::error::{Error, ErrorKind, Result};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{Builder, ScopedJoinHandle};

/// Jobs in flight per worker: enough that none waits, few enough that memory stays at a few chunks
/// a thread.
const IN_FLIGHT_PER_WORKER: usize = 3;

/// Items that a thread draws at a time, however short.
const MOST_ITEMS: usize = 1024;

/// What a job became: a summary, and bytes that may still lie in the job or the worker.
pub(crate) struct Output<'e, S> {
    pub summary: S,
    pub bytes: Cow<'e, [u8]>,
}

/// Draws jobs, works on them on `workers` threads (0: in this one, without a copy), and hands job
/// and output to `consume` in the order of the jobs. The first error ends everything and is
/// returned. Jobs that are `light`, less work than it is to hand them over, are done by the calling
/// thread.
///
/// At most `workers × 3` jobs and their outputs are held at a time.
pub(crate) fn ordered<J: Send, W, S: Send>(
    workers: usize,
    jobs: impl Iterator<Item = Result<J>>,
    light: impl Fn(&J) -> bool,
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
        let start = |_| {
            let named = Builder::new().name("tensorkeep-encode".to_owned());
            named.spawn_scoped(scope, move || run_worker(receive_job, make_worker, work))
        };
        let threads = (0..workers).map(start).collect::<io::Result<Vec<_>>>();
        let result = match &threads {
            Ok(_) => {
                let mut own = None;
                let mut here = |job: J| -> Done<J, S> {
                    let result = work_on(&mut own, make_worker, work, &job);
                    (job, result)
                };
                feed(workers * IN_FLIGHT_PER_WORKER, jobs, light, &mut here, &send_job, &mut consume)
            }
            Err(error) => Err(Error::io("starting an encoding thread", io::Error::from(error.kind()))),
        };
        // Before the threads are joined: without a sender they run out of jobs, also after an
        // error.
        drop(send_job);
        result.and(threads.map_or(Ok(()), join))
    })
}

/// Joined here and not by the scope, which would hand a thread's panic on to whoever saves.
fn join(threads: Vec<ScopedJoinHandle<'_, ()>>) -> Result<()> {
    let joined: Vec<_> = threads.into_iter().map(|thread| thread.join().map_err(|_| worker_died())).collect();
    joined.into_iter().collect()
}

/// Works on items as they are drawn, in no order, on up to `workers` threads of which the calling
/// one is the first. The first item's error that fails ends everything and is returned. Each thread
/// makes itself a `scratch`.
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
            // Items are drawn in order, so the first that fails is being worked on when any later
            // one fails.
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
        // Threads that are not to be had are done without: this one does all the work if it must.
        let threads = (1..workers).map_while(|i| start(i).ok()).collect();
        run();
        join(threads)
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => joined,
    }
}

/// Successive items, some at a time: so many that they are `bytes` together, and no more than a
/// thread should draw.
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The machine's cores that this process may use. Asked once: the answer takes the kernel longer
/// than opening a file.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Jobs in their order, the oldest first.
enum InFlight<J, S> {
    Elsewhere(Receiver<Done<J, S>>),
    Here(Done<J, S>),
}

fn feed<J, S>(
    most: usize,
    jobs: impl Iterator<Item = Result<J>>,
    light: impl Fn(&J) -> bool,
    here: &mut impl FnMut(J) -> Done<J, S>,
    send_job: &SyncSender<Ticket<J, S>>,
    consume: &mut impl FnMut(&J, Output<'_, S>) -> Result<()>,
) -> Result<()> {
    let mut in_flight = VecDeque::new();
    for job in jobs {
        let job = job?;
        if light(&job) {
            in_flight.push_back(InFlight::Here(here(job)));
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
        let next = lock(jobs).recv();
        let Ok(Ticket { job, done }) = next else { return };
        let result = work_on(&mut worker, make_worker, work, &job);
        // Nobody receives only when another job failed and everything ends.
        let _ = done.send((job, result));
    }
}

/// One job's output, in memory of its own. The worker is made when it is first needed.
fn work_on<J, W, S>(
    worker: &mut Option<W>,
    make_worker: &impl Fn() -> Result<W>,
    work: &impl for<'e> Fn(&'e mut W, &'e J) -> Result<Output<'e, S>>,
    job: &J,
) -> Result<Output<'static, S>> {
    let made = match worker.take() {
        Some(made) => made,
        None => make_worker()?,
    };
    let Output { summary, bytes } = work(worker.insert(made), job)?;
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

    fn squares(workers: usize, count: u64, fail_at: Option<u64>) -> Result<Vec<u64>> {
        let mut results = Vec::new();
        ordered(
            workers,
            (0..count).map(Ok),
            |job| job % 3 == 1,
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
    fn results_come_in_the_order_of_the_jobs() {
        let expected: Vec<u64> = (0..500).map(|job| job * job).collect();
        for workers in [0, 1, 2, 7] {
            assert_eq!(squares(workers, 500, None).unwrap(), expected);
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

    #[test]
    fn a_worker_that_panics_is_an_error_of_the_call() {
        for workers in [1, 2, 3] {
            let jobs = (0..100).map(Ok);
            let dies = ordered(
                workers,
                jobs,
                |_| false,
                || Ok(()),
                |(), &job: &u64| {
                    assert!(job != 7, "on purpose");
                    Ok(Output { summary: job, bytes: Cow::Borrowed(&[]) })
                },
                |_, _| Ok(()),
            );
            let error = dies.unwrap_err();
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
