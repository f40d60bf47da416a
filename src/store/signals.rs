//! Signals that ask for a checkpoint. Owns: the flags that the handlers set. SIGTERM and SIGINT ask for a save and the
//! end; SIGUSR1 (what cluster schedulers send ahead of a preemption) asks for a save alone.

use crate::error::{Error, Result};
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGUSR1];

/// The handlers' state. While one of these lives, the signals only set its flags; after the last one is dropped, they
/// act as if nothing had been registered.
#[derive(Debug)]
pub(super) struct Signals {
    save: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    ids: Vec<SigId>,
    _listening: Listening,
}

impl Signals {
    pub(super) fn register() -> Result<Self> {
        let failed = |error| Error::io("registering signal handlers", error);
        let listening = Listening::begin().map_err(failed)?;
        let mut signals =
            Self { save: Arc::default(), stop: Arc::default(), ids: vec![], _listening: listening };
        signals.register_flags().map_err(failed)?;
        Ok(signals)
    }

    fn register_flags(&mut self) -> io::Result<()> {
        for signal in SIGNALS {
            if signal != SIGUSR1 {
                // Asked twice to stop: at once. Before the flag is set, so that the first signal does not see its own.
                // 128 + signal is the exit code that shells expect.
                self.ids.push(flag::register_conditional_shutdown(
                    signal,
                    128 + signal,
                    Arc::clone(&self.stop),
                )?);
                self.ids.push(flag::register(signal, Arc::clone(&self.stop))?);
            }
            self.ids.push(flag::register(signal, Arc::clone(&self.save))?);
        }
        Ok(())
    }

    /// A signal came and no save has answered it.
    pub(super) fn wants_save(&self) -> bool {
        self.save.load(Ordering::Relaxed)
    }

    /// A save answered.
    pub(super) fn saved(&self) {
        self.save.store(false, Ordering::Relaxed);
    }

    /// SIGTERM or SIGINT came.
    pub(super) fn wants_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

/// Unregistering the last action of a signal leaves it ignored: the operating system's default does not come back. So
/// one action per signal stays for ever, and does the default whenever nobody listens.
#[derive(Debug)]
struct Listening;

static LISTENERS: Mutex<usize> = Mutex::new(0);

fn nobody_listens() -> &'static Arc<AtomicBool> {
    static NOBODY: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    NOBODY.get_or_init(Arc::default)
}

impl Listening {
    fn begin() -> io::Result<Self> {
        static REGISTERED: Mutex<bool> = Mutex::new(false);
        let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        if !*registered {
            for signal in SIGNALS {
                flag::register_conditional_default(signal, Arc::clone(nobody_listens()))?;
            }
            *registered = true;
        }
        let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        *listeners += 1;
        nobody_listens().store(false, Ordering::SeqCst);
        Ok(Self)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        *listeners -= 1;
        nobody_listens().store(*listeners == 0, Ordering::SeqCst);
    }
}
