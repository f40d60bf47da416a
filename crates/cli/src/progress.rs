//! Progress of long work on stderr, drawn only on a terminal: bytes, rate and the time left.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tensorkeep::engine::bytes_read;

/// How often a bar is looked at.
const TICK: Duration = Duration::from_millis(100);

/// A bar that its caller moves.
pub fn bar(what: &'static str, bytes: u64) -> ProgressBar {
    bar_on(target(), what, bytes)
}

/// A bar that follows what this process reads, until it is dropped. `bytes` is about how much that
/// will be: a bar that is full before the end waits there.
pub fn reading(what: &'static str, bytes: u64) -> Reading {
    Reading::on(target(), what, bytes)
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

fn bar_on(target: ProgressDrawTarget, what: &'static str, bytes: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left");
    ProgressBar::with_draw_target(Some(bytes), target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_prefix(what)
}

/// See [`reading`].
pub struct Reading {
    bar: ProgressBar,
    /// The thread that moves the bar, and what it waits for to end.
    follower: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Reading {
    fn on(target: ProgressDrawTarget, what: &'static str, bytes: u64) -> Self {
        let bar = bar_on(target, what, bytes);
        let follower = if bar.is_hidden() { None } else { follow(bar.clone(), bytes) };
        Self { bar, follower }
    }
}

/// None without a thread: then there is no bar, and all else goes on.
fn follow(bar: ProgressBar, bytes: u64) -> Option<(Sender<()>, JoinHandle<()>)> {
    let (over, ended) = mpsc::channel();
    let before = bytes_read();
    let follow = move || {
        while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            bar.set_position((bytes_read() - before).min(bytes));
        }
    };
    let thread = thread::Builder::new().name("tensorkeep-progress".to_owned()).spawn(follow).ok()?;
    Some((over, thread))
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some((over, thread)) = self.follower.take() {
            drop(over);
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::TermLike;
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Instant;
    use tensorkeep::{Checkpoint, Snapshot};

    /// What was drawn.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_bar_follows_what_is_read() {
        let path = std::env::temp_dir().join(format!("tensorkeep-progress-{}.tkeep", std::process::id()));
        Snapshot::new().tensor("w", vec![1.0_f32; 1 << 20]).unwrap().save(&path).unwrap();
        let screen = Screen::default();
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        let reading = Reading::on(target, "verifying", 8 << 20);
        Checkpoint::open(&path).unwrap().verify().unwrap();
        let drawn = || screen.0.lock().unwrap().clone();
        let until = Instant::now() + Duration::from_secs(20);
        while !drawn().contains("4.0") && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        let shown = drawn();
        for part in ["verifying", "/8.00 MiB", "/s", "left"] {
            assert!(shown.contains(part), "{part:?} in {shown:?}");
        }
        assert!(shown.contains("4.0"), "{shown:?}");
        drop(reading);
        std::fs::remove_file(&path).unwrap();
    }
}
