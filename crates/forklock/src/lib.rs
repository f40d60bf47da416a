//! An open file that a forked child does not keep open, so that its lock ends with the process that
//! took it.
//!
//! # Why
//! A lock of `flock` belongs to the open file, and `fork` shares open files: a data loader's worker
//! that outlives its trainer keeps the trainer's run locked, and no process can resume it.
//! `O_CLOEXEC` helps only children that `exec`.
//!
//! # Alternatives, measured (Linux 6.18, x86-64, 2 cores)
//! * **Record locks of `fcntl`** are not inherited. But they belong to the process: a second store
//!   on the same folder in one process got the lock, too, and closing *any* descriptor of the file,
//!   such as a reader's of the lock's text, dropped it: a new process then got the lock while the
//!   first one still wrote. Both were tried, both happened. Open-file record locks (`F_OFD_SETLK`)
//!   are inherited just as `flock`'s are.
//! * **A fork handler in the child** (this crate) that replaces the locked file by an empty pipe.
//!   `fork` and `wait` of a child that exits at once took 90 to 215 us without such a file, 87 to
//!   322 with one, 137 to 618 with 100 and 1,180 to 1,770 with 1,000 (`examples/cost.rs`, three
//!   runs on a busy machine, which hide the cost of one file). It does not run for a child made by
//!   `vfork`, `posix_spawn` or a bare `clone`: the first two `exec`, and `O_CLOEXEC` is for them. A
//!   bare `clone` keeps the lock until that child exits, or until the holder unlocks.
//!
//! A thread that forks in the microsecond between opening the file and [`NotInherited::new`] makes
//! a child that keeps it, as without this crate.
#![expect(
    unsafe_code,
    reason = "a handler that runs in a forked child, and the two calls that are safe there"
)]

use std::fs::File;
use std::io::{self, PipeReader};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// A free slot.
const FREE: i32 = -1;
/// A slot whose owner has not stored its file yet.
const TAKEN: i32 = -2;

/// A file that a forked child does not keep: in the child, its descriptor is an empty pipe's.
#[derive(Debug)]
pub struct NotInherited {
    file: File,
    place: &'static Place,
}

impl NotInherited {
    /// Takes the file. Lock it afterwards: a lock taken before this call can be inherited until it
    /// returns.
    ///
    /// # Errors
    /// If there is no descriptor left for the pipe, or no memory for the handler.
    pub fn new(file: File) -> io::Result<Self> {
        install()?;
        let place = Place::take();
        place.file.store(file.as_raw_fd(), Ordering::Release);
        Ok(Self { file, place })
    }
}

impl Deref for NotInherited {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for NotInherited {
    fn drop(&mut self) {
        // Before the file is closed: afterwards its number may be another file's.
        self.place.file.store(FREE, Ordering::Release);
    }
}

/// A slot of the list in which the handler finds files. The list only grows, up to the largest
/// number of files at a time: the handler can neither allocate nor wait.
#[derive(Debug)]
struct Place {
    file: AtomicI32,
    next: OnceLock<Box<Place>>,
}

static PLACES: Place = Place { file: AtomicI32::new(FREE), next: OnceLock::new() };

impl Place {
    fn take() -> &'static Self {
        let mut place = &PLACES;
        while place.file.compare_exchange(FREE, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            place = place
                .next
                .get_or_init(|| Box::new(Self { file: AtomicI32::new(FREE), next: OnceLock::new() }));
        }
        place
    }
}

/// The pipe that replaces a file in a child.
static EMPTY: OnceLock<PipeReader> = OnceLock::new();

fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<i32> = OnceLock::new();
    if EMPTY.get().is_none() {
        let _ = EMPTY.set(io::pipe()?.0);
    }
    // SAFETY: `pthread_atfork` takes a function that lives as long as the process does. `in_child`
    // runs in the child, in its only thread, before `fork` returns there; other threads of the
    // parent may have held any lock at that moment, so it may call only
    // async-signal-safe functions, and does: see there.
    let installed = INSTALLED.get_or_init(|| unsafe { libc::pthread_atfork(None, None, Some(in_child)) });
    if *installed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(*installed)) }
}

/// Replaces each file by the empty pipe.
///
/// It allocates nothing, takes no lock and cannot panic: `OnceLock::get` is a load, and `dup2` and
/// `fcntl` are on POSIX's list of async-signal-safe functions. A list that another thread was just
/// extending is seen as it was before or after.
extern "C" fn in_child() {
    let Some(empty) = EMPTY.get() else { return };
    let mut next = Some(&PLACES);
    while let Some(place) = next {
        let file = place.file.load(Ordering::Acquire);
        if file >= 0 {
            // SAFETY: both are plain calls on numbers. `file` is open and owned by the
            // `NotInherited` that holds this slot: it clears its number before it closes the file.
            // Its owner still owns an open descriptor, which it closes once; this crate promises
            // that it is a pipe's now. The parent's own descriptor, and with it the lock, is
            // untouched: closing one of several copies of an open file unlocks nothing.
            unsafe {
                libc::dup2(empty.as_raw_fd(), file);
                libc::fcntl(file, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        next = place.next.get().map(|next| &**next);
    }
}
