//! The signal handler, and the calls of the C library that install and remove it. All unsafe code
//! of this crate is here.
//!
//! Why it is sound:
//! * The handler calls only what POSIX lists as safe in one (`getpid`, `clock_gettime`,
//!   `sigaction`, `raise`, `_exit`), touches statics made of atomics only, allocates nothing, takes
//!   no lock and cannot panic.
//! * A handler that was registered before ours is called as the kernel would have called it: its
//!   address comes from `sigaction`, and SA_SIGINFO says which of the two signatures it has. We use
//!   its mask, and those of its flags that the kernel acts on. Its address stays valid, with or
//!   without us, until the library that registered it is unloaded.
//! * The previous action is recorded before ours is installed, so ours never runs without it.

#![expect(
    unsafe_code,
    reason = "the standard library has no signals; the head of this file has the argument"
)]

use crate::{SLOTS, Signal, Verdict, note};
use libc::{SA_ONSTACK, SA_RESTART, SA_SIGINFO, SIG_DFL, SIG_IGN, c_int, c_void, sigaction, siginfo_t};
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

/// The action registered before ours, as the handler needs it.
struct Found {
    handler: AtomicUsize,
    flags: AtomicI32,
}

static FOUND: [Found; Signal::ALL.len()] =
    [const { Found { handler: AtomicUsize::new(SIG_DFL), flags: AtomicI32::new(0) } }; Signal::ALL.len()];

static HANDLERS: Mutex<Handlers> = Mutex::new(Handlers { before: [None; Signal::ALL.len()] });

/// The signals that have our handler, and their previous actions.
pub(crate) struct Handlers {
    before: [Option<sigaction>; Signal::ALL.len()],
}

/// Changes handlers, one thread at a time.
pub(crate) fn change<T>(change: impl FnOnce(&mut Handlers) -> T) -> T {
    change(&mut HANDLERS.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Handlers {
    /// Installs ours unless it is installed already, or the signal is ignored on purpose.
    pub(crate) fn install(&mut self, signal: Signal) -> io::Result<()> {
        let now = current(signal)?;
        let ignored = now.sa_sigaction == SIG_IGN;
        if ignored && matches!(signal, Signal::Hup | Signal::Int) {
            return Ok(());
        }
        // Ours may be chained below a handler that was registered later and calls it. Installed
        // above it, the two would call each other.
        let replaced = ignored || now.sa_sigaction == SIG_DFL;
        if self.before[signal as usize].is_some() && !replaced {
            return Ok(());
        }
        let found = &FOUND[signal as usize];
        found.handler.store(now.sa_sigaction, SeqCst);
        found.flags.store(now.sa_flags, SeqCst);
        let mut ours = now;
        ours.sa_sigaction = address_of_ours();
        ours.sa_flags =
            SA_SIGINFO | if replaced { SA_RESTART } else { now.sa_flags & (SA_RESTART | SA_ONSTACK) };
        set(signal, &ours)?;
        self.before[signal as usize] = Some(now);
        Ok(())
    }

    /// Restores the previous action, unless another handler has been registered above ours: it may
    /// call ours, which then acts as the previous one and does no more.
    pub(crate) fn restore(&mut self, signal: Signal) {
        let Some(before) = self.before[signal as usize] else { return };
        let is_ours = current(signal).is_ok_and(|now| now.sa_sigaction == address_of_ours());
        if is_ours && set(signal, &before).is_ok() {
            self.before[signal as usize] = None;
        }
    }
}

fn address_of_ours() -> usize {
    let ours: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_signal;
    ours as *const () as usize
}

impl Signal {
    fn number(self) -> c_int {
        match self {
            Self::Hup => libc::SIGHUP,
            Self::Int => libc::SIGINT,
            Self::Term => libc::SIGTERM,
            Self::Usr1 => libc::SIGUSR1,
            Self::Usr2 => libc::SIGUSR2,
        }
    }
}

fn current(signal: Signal) -> io::Result<sigaction> {
    let mut now = MaybeUninit::<sigaction>::uninit();
    // SAFETY: a null action changes nothing, and `now` is valid for a write of its type.
    if unsafe { libc::sigaction(signal.number(), std::ptr::null(), now.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has written all of it.
    Ok(unsafe { now.assume_init() })
}

fn set(signal: Signal, action: &sigaction) -> io::Result<()> {
    // SAFETY: `action` is what `sigaction` returned, its handler and flags replaced at most by
    // ours, which fit each other.
    match unsafe { libc::sigaction(signal.number(), action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Milliseconds of the monotonic clock.
fn now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid for a write. This clock is always there, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    // OK to cast: neither is negative.
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

extern "C" fn on_signal(number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(signal) = Signal::ALL.into_iter().find(|signal| signal.number() == number) else { return };
    // SAFETY: getpid has no preconditions.
    let process = unsafe { libc::getpid() } as u32;
    let verdict = note(&SLOTS, process, signal, now());
    if verdict == Verdict::End {
        // SAFETY: _exit has no preconditions. 128 + signal is the exit code that shells expect.
        unsafe { libc::_exit(128 + number) };
    }
    let found = &FOUND[signal as usize];
    match found.handler.load(SeqCst) {
        SIG_IGN => {}
        SIG_DFL if verdict == Verdict::Unheard => act_as_by_default(signal),
        SIG_DFL => {}
        handler => call(handler, found.flags.load(SeqCst), number, info, context),
    }
}

/// A signal came after the last listener was gone, or in a forked child, which does not listen.
fn act_as_by_default(signal: Signal) {
    // A handler registered above ours is a decision; the default is for a process without one.
    let Ok(mut now) = current(signal) else { return };
    if now.sa_sigaction != address_of_ours() {
        return;
    }
    now.sa_sigaction = SIG_DFL;
    now.sa_flags = 0;
    if set(signal, &now).is_ok() {
        // SAFETY: raise has no preconditions. The signal is blocked here, and delivered when the
        // handler returns.
        unsafe { libc::raise(signal.number()) };
    }
}

fn call(handler: usize, flags: c_int, number: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let handler = handler as *const ();
    if flags & SA_SIGINFO != 0 {
        // SAFETY: this flag told the kernel that the function at this address has this signature.
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
            unsafe { std::mem::transmute(handler) };
        handler(number, info, context);
    } else {
        // SAFETY: as above, without the flag.
        let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
        handler(number);
    }
}
