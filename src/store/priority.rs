//! The priority of threads that save while training goes on.

/// The maximum niceness.
pub(super) const NICEST: u8 = 19;

/// Makes the calling thread, and every thread that it starts from here on, `by` steps nicer than
/// before: the thread that saves starts block writers and encoders. On Linux, where niceness
/// belongs to a thread; a no-op elsewhere, where it belongs to the whole process, trainer included.
pub(super) fn step_back(by: u8) {
    #[cfg(target_os = "linux")]
    if by > 0 {
        // No process id means the calling thread. If the system refuses, the trainer is slower, and
        // nothing is wrong.
        let now = rustix::process::getpriority_process(None).unwrap_or(0);
        let _ = rustix::process::setpriority_process(None, (now + i32::from(by)).min(i32::from(NICEST)));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = by;
}
