//! A run whose trainer is dead, or has closed it, can be opened while a child of the trainer lives
//! on. The trainer is this test's own binary, started again with an environment variable.
#![expect(unsafe_code, reason = "forks")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tensorkeep::engine::{Engine, Local};
use tensorkeep::{ErrorKind, Result};

const RUN: &str = "FORKLOCK_RUN";
const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(10);

/// Locks the run, forks a long-lived worker, and dies.
#[test]
fn trainer() {
    let Some(run) = std::env::var_os(RUN) else { return };
    let _lock = Local::create(run).unwrap().lock("the trainer").unwrap();
    println!("@worker {}", fork_a_worker());
    std::process::abort();
}

fn fork_a_worker() -> i32 {
    // SAFETY: the child sleeps, and ends without running anything of the parent's.
    let worker = unsafe { libc::fork() };
    if worker == 0 {
        for stream in 0..3 {
            // SAFETY: as above; it holds nothing open that the parent waits for.
            unsafe { libc::close(stream) };
        }
        std::thread::sleep(LONG);
        // SAFETY: as above.
        unsafe { libc::_exit(0) };
    }
    worker
}

fn kill(worker: i32) {
    // SAFETY: a child of this test's or of its trainer's, which sleeps.
    assert_eq!(unsafe { libc::kill(worker, libc::SIGKILL) }, 0, "the worker did not live on");
}

/// Takes the lock. A worker gives it up when it first runs, which on a busy machine may be after
/// its trainer has ended.
fn lock_soon(run: &Path) -> Result<()> {
    let begin = Instant::now();
    loop {
        match Local::open(run)?.lock("the next") {
            Err(error) if error.kind() == ErrorKind::Locked && begin.elapsed() < SOON => {
                std::thread::sleep(Duration::from_millis(10));
            }
            locked => return locked.map(drop),
        }
    }
}

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("forklock-{name}-{}", std::process::id()))
}

#[test]
fn a_worker_that_outlives_its_trainer_keeps_no_run_locked() {
    let run = folder("dead");
    let mut trainer = Command::new(std::env::current_exe().unwrap());
    let trainer = trainer.args(["--exact", "trainer", "--nocapture"]).env(RUN, &run);
    let mut trainer = trainer.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(trainer.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut words =
        lines.filter_map(|line| line.split_once("@worker ").and_then(|(_, pid)| pid.parse().ok()));
    let worker: i32 = words.next().expect("the trainer forked nothing");
    trainer.wait().unwrap();
    let locked = lock_soon(&run);
    kill(worker);
    std::fs::remove_dir_all(&run).unwrap();
    locked.unwrap();
}

#[test]
fn a_worker_keeps_no_run_locked_that_its_trainer_closed() {
    let run = folder("closed");
    let lock = Local::create(&run).unwrap().lock("the trainer").unwrap();
    let worker = fork_a_worker();
    drop(lock);
    let locked = lock_soon(&run);
    kill(worker);
    std::fs::remove_dir_all(&run).unwrap();
    locked.unwrap();
}
