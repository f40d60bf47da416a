//! How much of the machine the background may take. Owns: the priority of threads that save while
//! training goes on.

/// The nicest there is.
pub(super) const NICEST: u8 = 19;

/// Makes the calling thread, and every thread that it starts from here on, `by` steps nicer than it
/// was: block writers and encoders are started by the thread that saves. On Linux, where niceness
/// is a thread's own; nothing elsewhere, where it is the whole process's, trainer included.
pub(super) fn step_back(by: u8) {
    #[cfg(target_os = "linux")]
    if by > 0 {
        // No process id means the calling thread. A system that refuses is slower for the trainer,
        // not wrong.
        let now = rustix::process::getpriority_process(None).unwrap_or(0);
        let _ = rustix::process::setpriority_process(None, (now + i32::from(by)).min(i32::from(NICEST)));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = by;
}
