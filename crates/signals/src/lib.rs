//! Listens for the signals that ask a process for a checkpoint or for its end, and restores the
//! process's own signal handling afterwards. This file decides how to respond to each signal;
//! `handler.rs` holds the unsafe code.

mod handler;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

/// Two requests to stop that are not further apart are one, whichever signals they are: a terminal
/// signals the whole process group, and a launcher in the group forwards its own signals to its
/// children.
pub const SAME_REQUEST_MS: u64 = 250;
/// Once its request has been answered, a process that is still running ends with the next signal
/// after this time.
pub const ANSWERED_MS: u64 = 1_000;
/// How long an unanswered request keeps a launcher's repeated signals from ending the process.
/// Clusters (Slurm's KillWait, Kubernetes' grace period, torchrun) send SIGKILL after 30 s.
pub const GRACE_MS: u64 = 30_000;

/// How many listeners one process may have.
const LISTENERS: usize = 64;

/// A signal that can ask for a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// SIGHUP: the terminal is gone.
    Hup,
    /// SIGINT: Ctrl-C.
    Int,
    /// SIGTERM, sent by `kill`, `timeout` and cluster schedulers.
    Term,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
}

impl Signal {
    const ALL: [Self; 5] = [Self::Hup, Self::Int, Self::Term, Self::Usr1, Self::Usr2];

    fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Whether the signal ends a process that was asked to stop `elapsed` ms ago.
    fn ends(self, elapsed: u64, answered: bool) -> bool {
        match self {
            // Pressed again by a person who does not want to wait.
            Self::Int => elapsed >= SAME_REQUEST_MS,
            // Launchers repeat their signals.
            _ => elapsed >= GRACE_MS || (answered && elapsed >= ANSWERED_MS),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hup => "SIGHUP",
            Self::Int => "SIGINT",
            Self::Term => "SIGTERM",
            Self::Usr1 => "SIGUSR1",
            Self::Usr2 => "SIGUSR2",
        })
    }
}

/// The state of a listener. The handler changes it, so all of it is atomic, and it is never freed.
#[derive(Debug)]
struct Slot {
    /// The listening process, 0 for a free slot: a forked child has a copy of its parent's slots.
    process: AtomicU32,
    stop: AtomicU32,
    save: AtomicU32,
    /// Requests so far.
    requests: AtomicU64,
    /// Which of them asked to stop, 0 for none.
    stop_request: AtomicU64,
    /// The bit of the signal that made it.
    stop_signal: AtomicU32,
    /// When, in ms of the monotonic clock, 0 for never.
    stop_at: AtomicU64,
    answered: AtomicBool,
}

static SLOTS: [Slot; LISTENERS] = [const { Slot::free() }; LISTENERS];

/// The response to a signal.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// No listener in this process.
    Unheard,
    Heard,
    /// The process ends now.
    End,
}

impl Slot {
    const fn free() -> Self {
        Self {
            process: AtomicU32::new(0),
            stop: AtomicU32::new(0),
            save: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            stop_request: AtomicU64::new(0),
            stop_signal: AtomicU32::new(0),
            stop_at: AtomicU64::new(0),
            answered: AtomicBool::new(false),
        }
    }

    fn begin(&self, process: u32, stop: u32, save: u32) {
        self.stop.store(stop, SeqCst);
        self.save.store(save, SeqCst);
        self.requests.store(0, SeqCst);
        self.stop_request.store(0, SeqCst);
        self.stop_signal.store(0, SeqCst);
        self.stop_at.store(0, SeqCst);
        self.answered.store(false, SeqCst);
        // Last: from here on the handler writes to it.
        self.process.store(process, SeqCst);
    }

    fn listens(&self, process: u32, signal: Signal) -> bool {
        let signals = self.stop.load(SeqCst) | self.save.load(SeqCst);
        self.process.load(SeqCst) == process && signals & signal.bit() != 0
    }

    /// Notes a request to stop. None for the first; else whether this repetition may end the
    /// process.
    fn note_stop(&self, signal: Signal, now: u64) -> Option<bool> {
        match self.stop_at.compare_exchange(0, now, SeqCst, SeqCst) {
            Ok(_) => {
                self.stop_signal.store(signal.bit(), SeqCst);
                let request = self.requests.fetch_add(1, SeqCst) + 1;
                self.stop_request.store(request, SeqCst);
                None
            }
            Err(at) => Some(signal.ends(now.saturating_sub(at), self.answered.load(SeqCst))),
        }
    }
}

/// Notes a signal at `now`, in ms. Runs in the handler: atomics only.
fn note(slots: &[Slot], process: u32, signal: Signal, now: u64) -> Verdict {
    let mut heard = false;
    let mut asked_again = false;
    let mut all_end = true;
    for slot in slots.iter().filter(|slot| slot.listens(process, signal)) {
        heard = true;
        if slot.stop.load(SeqCst) & signal.bit() == 0 {
            slot.requests.fetch_add(1, SeqCst);
        } else if let Some(ends) = slot.note_stop(signal, now.max(1)) {
            asked_again = true;
            all_end &= ends;
        } else {
            all_end = false;
        }
    }
    if asked_again && all_end {
        Verdict::End
    } else if heard {
        Verdict::Heard
    } else {
        Verdict::Unheard
    }
}

/// Hears signals until it is dropped.
///
/// * Handlers that were registered before run as well. When the last listener to a signal is
///   dropped, its previous action (a handler, the default, or being ignored) is restored; a handler
///   registered above it meanwhile stays.
/// * SIGHUP and SIGINT that are ignored when listening begins stay ignored: `nohup` sets this, and
///   so does a shell for a background job.
/// * A forked child does not listen: there the signals do what they did before.
#[derive(Debug)]
pub struct Listener {
    slot: &'static Slot,
    process: u32,
}

impl Listener {
    /// Begins to listen. A signal in both lists asks to stop.
    ///
    /// # Errors
    /// If 64 listeners exist in this process already; errors of the operating system.
    pub fn begin(stop: &[Signal], save: &[Signal]) -> io::Result<Self> {
        let bits = |signals: &[Signal]| signals.iter().fold(0, |bits, signal| bits | signal.bit());
        let (process, stop, save) = (std::process::id(), bits(stop), bits(save));
        handler::change(|handlers| {
            // A slot of the parent's is free in its forked child.
            let is_free = |slot: &&Slot| slot.process.load(SeqCst) != process;
            let slot = SLOTS.iter().find(is_free);
            let slot = slot.ok_or_else(|| io::Error::other("too many stores listen to signals"))?;
            slot.begin(process, stop, save);
            for signal in Signal::ALL.into_iter().filter(|&signal| slot.listens(process, signal)) {
                if let Err(error) = handlers.install(signal) {
                    release(slot, process, handlers);
                    return Err(error);
                }
            }
            Ok(Self { slot, process })
        })
    }

    /// The number of requests so far. A repeated signal to stop is not a further request.
    pub fn requests(&self) -> u64 {
        self.slot.requests.load(SeqCst)
    }

    /// Which request, counted from 1, asked to stop.
    pub fn stop_request(&self) -> Option<u64> {
        Some(self.slot.stop_request.load(SeqCst)).filter(|&request| request > 0)
    }

    /// Which signal made it: the first of those that asked.
    pub fn stop_signal(&self) -> Option<Signal> {
        let bit = self.slot.stop_signal.load(SeqCst);
        Signal::ALL.into_iter().find(|signal| signal.bit() == bit)
    }

    /// Records whether the request to stop has been answered: if so, a further signal ends the
    /// process sooner.
    pub fn set_answered(&self, answered: bool) {
        self.slot.answered.store(answered, SeqCst);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A forked child that drops its parent's listener has nothing to restore, and must not wait
        // for a lock that another thread of the parent held.
        if std::process::id() == self.process {
            handler::change(|handlers| release(self.slot, self.process, handlers));
        }
    }
}

/// Frees the slot, and restores the signals that no other listener hears.
fn release(slot: &Slot, process: u32, handlers: &mut handler::Handlers) {
    slot.process.store(0, SeqCst);
    for signal in Signal::ALL {
        if !SLOTS.iter().any(|slot| slot.listens(process, signal)) {
            handlers.restore(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u32 = 7;

    fn slots(stop: &[Signal], save: &[Signal]) -> [Slot; 2] {
        let slots = [Slot::free(), Slot::free()];
        let bits = |signals: &[Signal]| signals.iter().map(|signal| signal.bit()).sum();
        slots[0].begin(ME, bits(stop), bits(save));
        slots
    }

    #[test]
    fn a_launcher_that_repeats_itself_has_asked_once() {
        let slots = slots(&[Signal::Term], &[]);
        for now in [1000, 1001, 1002, 5000, 30_999] {
            assert_eq!(note(&slots, ME, Signal::Term, now), Verdict::Heard, "at {now}");
        }
        let requests = (slots[0].requests.load(SeqCst), slots[0].stop_request.load(SeqCst));
        assert_eq!(requests, (1, 1));
        assert_eq!(slots[0].stop_signal.load(SeqCst), Signal::Term.bit());
        assert_eq!(note(&slots, ME, Signal::Term, 31_000), Verdict::End, "the grace is over");
    }

    #[test]
    fn an_answered_request_leaves_a_second_for_its_repetitions() {
        let slots = slots(&[Signal::Term], &[]);
        note(&slots, ME, Signal::Term, 1000);
        slots[0].answered.store(true, SeqCst);
        assert_eq!(note(&slots, ME, Signal::Term, 1999), Verdict::Heard);
        assert_eq!(note(&slots, ME, Signal::Term, 2000), Verdict::End);
    }

    #[test]
    fn a_person_who_presses_again_ends_the_process() {
        let slots = slots(&[Signal::Int, Signal::Term], &[]);
        assert_eq!(note(&slots, ME, Signal::Int, 0), Verdict::Heard, "the clock may be at 0");
        assert_eq!(note(&slots, ME, Signal::Int, 2), Verdict::Heard, "the group and a forwarder");
        assert_eq!(note(&slots, ME, Signal::Term, 5000), Verdict::Heard, "the forwarder's other signal");
        assert_eq!(note(&slots, ME, Signal::Int, 251), Verdict::End);
    }

    #[test]
    fn a_process_ends_only_when_every_listener_agrees() {
        let slots = slots(&[Signal::Int], &[]);
        note(&slots, ME, Signal::Int, 1000);
        slots[1].begin(ME, Signal::Int.bit(), 0);
        assert_eq!(note(&slots, ME, Signal::Int, 9000), Verdict::Heard, "the first for the second listener");
        assert_eq!(note(&slots, ME, Signal::Int, 9500), Verdict::End);
    }

    #[test]
    fn signals_for_saves_are_counted_and_end_nothing() {
        let slots = slots(&[Signal::Term], &[Signal::Usr1]);
        for now in [1, 2, 90_000] {
            assert_eq!(note(&slots, ME, Signal::Usr1, now), Verdict::Heard);
        }
        assert_eq!((slots[0].requests.load(SeqCst), slots[0].stop_request.load(SeqCst)), (3, 0));
        assert_eq!(note(&slots, ME, Signal::Usr2, 3), Verdict::Unheard);
        assert_eq!(note(&slots, 8, Signal::Usr1, 3), Verdict::Unheard, "a forked child does not listen");
    }
}
