//! The cost of the fork handler: the time of `fork` and `wait` with no file, one, and a thousand;
//! and how `fcntl` record locks behave instead.
//! `cargo run --release -p tensorkeep-forklock --example cost`
#![expect(unsafe_code, reason = "measures `fork` itself")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Instant;
use tensorkeep_forklock::NotInherited;

const FORKS: u32 = 500;

fn microseconds_of_a_fork() -> f64 {
    let start = Instant::now();
    for _ in 0..FORKS {
        // SAFETY: the child ends at once, and does nothing else.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends this child without running anything of the parent's.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: waits for the child made above; no status is asked for.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(FORKS)
}

/// Whether a new child process gets, or this process keeps, a record lock.
fn record_lock(file: &File) -> bool {
    // SAFETY: all bits zero are a valid `flock`: the whole file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    // SAFETY: a plain call on a descriptor that is open; `lock` lives through it.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &lock) == 0 }
}

fn child_gets_record_lock(path: &std::path::Path) -> bool {
    // SAFETY: the child makes system calls only, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let got = File::options().write(true).open(path).is_ok_and(|file| record_lock(&file));
        // SAFETY: as above.
        unsafe { libc::_exit(i32::from(got)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(child, &mut status, 0) };
    libc::WEXITSTATUS(status) == 1
}

fn main() -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("forklock-cost-{}", std::process::id()));
    println!("fork and wait without files: {:.0} us", microseconds_of_a_fork());
    for count in [1, 100, 1000] {
        let files =
            (0..count).map(|_| NotInherited::new(File::create(&path)?)).collect::<io::Result<Vec<_>>>()?;
        println!("with {count}: {:.0} us", microseconds_of_a_fork());
        drop(files);
    }
    let open = || File::options().write(true).open(&path);
    let (first, second) = (open()?, open()?);
    println!("record lock: first {}, second in this process {}", record_lock(&first), record_lock(&second));
    println!("a child gets it: {}", child_gets_record_lock(&path));
    drop(second);
    println!("a child gets it when another descriptor was closed: {}", child_gets_record_lock(&path));
    std::fs::remove_file(path)
}
