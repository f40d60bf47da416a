//! Runs work in pieces on all cores: a queue of tasks and the threads.

use crate::progress::bar;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tensorkeep::{Error, Result};

/// Bytes of one task: enough to hide taking it, small enough that all threads end together.
const TASK_BYTES: u64 = 8 << 20;

/// Some chunks of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Which tensor.
    pub number: usize,
    /// Which of its chunks.
    pub chunks: std::ops::Range<usize>,
    /// Raw bytes, about.
    pub bytes: u64,
}

/// Cuts tensors, given as (raw bytes, chunks), into tasks.
pub fn tasks(tensors: impl IntoIterator<Item = (u64, usize)>) -> Vec<Task> {
    let mut tasks = Vec::new();
    for (number, (bytes, chunks)) in tensors.into_iter().enumerate() {
        let per_chunk = bytes / (chunks as u64).max(1);
        let step = (TASK_BYTES / per_chunk.max(1)).max(1) as usize;
        for start in (0..chunks).step_by(step) {
            let end = chunks.min(start + step);
            tasks.push(Task { number, chunks: start..end, bytes: per_chunk * (end - start) as u64 });
        }
    }
    tasks
}

/// Runs all tasks, each thread with memory `S` of its own; `done` gets their results in any order,
/// one at a time.
///
/// # Errors
/// The first error of a task; the others are no longer started then.
pub fn run<S: Default, R: Send>(
    what: &'static str,
    tasks: &[Task],
    work: impl Fn(&Task, &mut S) -> Result<R> + Sync,
    done: impl FnMut(&Task, R) + Send,
) -> Result<()> {
    let bar = bar(what, tasks.iter().map(|task| task.bytes).sum());
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done = Mutex::new(done);
    let error: Mutex<Option<Error>> = Mutex::new(None);
    let turn = || {
        let mut memory = S::default();
        while !failed.load(Ordering::Relaxed) {
            let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            match work(task, &mut memory) {
                Ok(result) => done.lock().unwrap_or_else(PoisonError::into_inner)(task, result),
                Err(new) => {
                    failed.store(true, Ordering::Relaxed);
                    error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(new);
                }
            }
            bar.inc(task.bytes);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(tasks.len());
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(turn)));
        // The calling thread works too.
        turn();
    });
    bar.finish_and_clear();
    match error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_cover_every_chunk_once() {
        let tasks = tasks([(100 << 20, 100), (0, 0), (5, 1)]);
        let of = |number| tasks.iter().filter(move |task| task.number == number);
        assert_eq!(of(0).map(|task| task.chunks.len()).sum::<usize>(), 100);
        assert!(of(0).zip(of(0).skip(1)).all(|(a, b)| a.chunks.end == b.chunks.start));
        assert_eq!((of(1).count(), of(2).count()), (0, 1));
    }

    #[test]
    fn the_first_error_ends_the_work() {
        let tasks: Vec<Task> = (0..1000).map(|number| Task { number, chunks: 0..1, bytes: 1 }).collect();
        let mut count = 0;
        run("", &tasks, |_, (): &mut ()| Ok(()), |_, ()| count += 1).unwrap();
        assert_eq!(count, 1000);
        let fail = |task: &Task, (): &mut ()| match task.number {
            3 => Err(Error::new(tensorkeep::ErrorKind::Damaged, "x")),
            _ => Ok(()),
        };
        assert!(run("", &tasks, fail, |_, ()| ()).is_err());
    }
}
