//! How this process ends by a signal: without the files that it has begun to write, and by the
//! signal, as its parent expects.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// From now on, Ctrl-C and its like remove unpublished files before they end the process. A thread
/// waits for them: removing takes a lock, which a handler must not.
pub fn remove_unfinished_files_on_signals() {
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
    let Ok(mut signals) = Signals::new(wanted) else { return };
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            tensorkeep::engine::abandon_unfinished_files();
            // Ends the process. Were it to fail, the next signal would find nobody who waits.
            let _ = emulate_default_handler(signal);
        }
    };
    // Without the thread a signal would do nothing at all; without threads, this process does not
    // get far.
    let waiting = std::thread::Builder::new().name("signals".to_owned()).stack_size(128 << 10).spawn(wait);
    drop(waiting);
}

/// Whether the parent set the signal to be ignored: `nohup` does, and shells for `&`.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
