//! Starts of the job: its processes, what they say, and what is done to them.

use crate::rank::PATIENCE;
use lenet::Rng;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// What happens to one rank of a start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Kill,
    /// It is stopped, and continued when the others have given up.
    Stop,
}

/// What a start was told to do.
pub struct Settings<'s> {
    pub place: &'s str,
    pub ranks: u32,
    pub until: u64,
    pub seed: u64,
    pub save_at_once: bool,
    /// Whether the store's ranks are connected by the run's storage alone.
    pub through_store: bool,
}

/// The processes of a start.
pub struct Start {
    children: Vec<Child>,
    lines: Receiver<(u32, String)>,
    pub heard: Heard,
}

/// What the ranks have said.
#[derive(Debug, Default)]
pub struct Heard {
    /// The step that each rank resumed from.
    pub resumed: Vec<(u32, u64)>,
    /// The newest step that a rank was told is saved.
    pub saved: u64,
    /// Checkpoints that did not verify, and replicas that differed.
    pub broken: Vec<String>,
    pub done: u32,
    pub failed_saves: u32,
}

impl Start {
    pub fn begin(settings: &Settings<'_>) -> Result<Self, String> {
        // No start has the name of another.
        static STARTS: AtomicU32 = AtomicU32::new(0);
        let number = STARTS.fetch_add(1, Ordering::Relaxed);
        let (sender, lines) = channel();
        let mut start = Self { children: Vec::new(), lines, heard: Heard::default() };
        start.spawn(0, number, settings, None, &sender)?;
        let address = loop {
            match start.lines.recv_timeout(4 * PATIENCE) {
                Ok((_, line)) => match line.strip_prefix("listening ") {
                    Some(address) => break address.to_owned(),
                    None => continue,
                },
                Err(error) => return Err(format!("rank 0 does not listen: {error}")),
            }
        };
        for rank in 1..settings.ranks {
            start.spawn(rank, number, settings, Some(&address), &sender)?;
        }
        Ok(start)
    }

    fn spawn(
        &mut self,
        rank: u32,
        number: u32,
        settings: &Settings<'_>,
        address: Option<&str>,
        sender: &Sender<(u32, String)>,
    ) -> Result<(), String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["--rank", &rank.to_string(), "--ranks", &settings.ranks.to_string()]);
        command.args(["--place", settings.place, "--until", &settings.until.to_string()]);
        command.args(["--seed", &settings.seed.to_string(), "--job", &format!("start-{number}")]);
        command.args(address.iter().flat_map(|address| ["--address", address]));
        command.args(settings.save_at_once.then_some("--save-at-once"));
        command.args(settings.through_store.then_some("--through-store"));
        let quiet = if std::env::var_os("RANKS_LOUD").is_some() { Stdio::inherit() } else { Stdio::null() };
        command.stdout(Stdio::piped()).stderr(quiet);
        let mut child = command.spawn().map_err(|error| format!("starting rank {rank}: {error}"))?;
        if let Some(out) = child.stdout.take() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let _ = sender.send((rank, line));
                }
            });
        }
        self.children.push(child);
        Ok(())
    }

    /// Hears what the ranks say until a time, or until `enough`.
    pub fn hear(&mut self, until: Instant, enough: impl Fn(&Heard) -> bool) {
        while !enough(&self.heard) {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok((rank, line)) => self.heard.take(rank, &line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    pub fn signal(&self, rank: u32, signal: &str) {
        let pid = self.children[rank as usize].id().to_string();
        let _ = Command::new("kill").args([signal, &pid]).status();
    }

    /// Waits until all ranks but `except` have ended; a rank that has not is a broken promise.
    pub fn end(&mut self, except: Option<u32>) -> Result<(), String> {
        let by = Instant::now() + 12 * PATIENCE;
        for rank in 0..self.children.len() as u32 {
            while Some(rank) != except {
                if self.children[rank as usize].try_wait().map_err(|error| error.to_string())?.is_some() {
                    break;
                }
                if Instant::now() > by {
                    return Err(format!("rank {rank} hangs"));
                }
                self.hear(Instant::now() + Duration::from_millis(20), |_| false);
            }
        }
        self.hear(Instant::now() + Duration::from_millis(50), |_| false);
        Ok(())
    }

    /// Whether every rank ended well.
    pub fn is_done(&mut self) -> bool {
        let all = self
            .children
            .iter_mut()
            .all(|child| child.try_wait().is_ok_and(|status| status.is_some_and(|status| status.success())));
        all && self.heard.done as usize == self.children.len()
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

impl Heard {
    fn take(&mut self, rank: u32, line: &str) {
        let mut words = line.split(' ');
        let (what, number) = (words.next().unwrap_or_default(), words.next());
        let number = number.and_then(|number| number.parse().ok()).unwrap_or_default();
        match what {
            "resumed" => {
                self.resumed.push((rank, number));
                if words.next() != Some("0") {
                    self.broken.push(format!("rank {rank} passed over a checkpoint: {line}"));
                }
            }
            "saved" => self.saved = self.saved.max(number),
            "failed" => self.failed_saves += 1,
            "diverged" => self.broken.push(format!("rank {rank}: {line}")),
            "done" => self.done += 1,
            _ => {}
        }
    }
}

/// A fate, for whom, and how long after all ranks have resumed. Rank 0 has it half of the time.
pub fn draw(rng: &mut Rng, ranks: u32) -> (Fate, u32, Duration) {
    let fate = if rng.below(4) == 0 { Fate::Stop } else { Fate::Kill };
    let rank = if rng.below(2) == 0 { 0 } else { rng.below(u64::from(ranks)) as u32 };
    (fate, rank, Duration::from_millis(rng.below(1500)))
}
