//! Cut after cut. Owns: the moments, the trainer's process, what it said, and the report.

use crate::disk::{Cut, Disk};
use crate::shutdown::Flush;
use crate::subject::Subject;
use crate::{Fs, Options, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long a trainer may take to see that its disk is gone.
const END: Duration = Duration::from_secs(5);
const EXAMPLES: usize = 5;

struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below.max(1)
    }
}

/// Steps that the trainer said are saved. A clone is another disk: what is said after it does not count.
#[derive(Clone, Debug, Default)]
struct Words(Arc<Mutex<Vec<u64>>>);

impl Words {
    fn listen(&self, out: impl Read + Send + 'static) -> std::thread::JoinHandle<()> {
        let words = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(std::io::Result::ok) {
                if let Some(step) = line.strip_prefix("saved ").and_then(|step| step.parse().ok()) {
                    words.0.lock().unwrap_or_else(PoisonError::into_inner).push(step);
                }
            }
        })
    }

    fn so_far(&self) -> Vec<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What was promised on the present image, and what came of it in all.
#[derive(Default)]
struct Tally {
    newest: u64,
    saved_here: u64,
    saved: u64,
    cuts: u64,
    kinds: BTreeMap<&'static str, u64>,
    broken: u64,
    set_aside: u64,
    examples: Vec<Value>,
}

/// Cuts as often as asked, and reports.
pub fn run(options: &Options) -> Result<Value> {
    let seed = options.seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64)
    });
    let mut random = Random(seed);
    let mut disk = Disk::create(options, seed)?;
    let mut tally = Tally::default();
    let start = Instant::now();
    for number in 0..options.cuts {
        let cut = pick(options.fs, &mut random);
        let delay = Duration::from_micros(5_000 + random.below(options.max_ms.max(6) * 1000 - 5_000));
        let words = live_and_cut(options, &disk, cut, delay)?;
        tally.cuts += 1;
        *tally.kinds.entry(cut.name()).or_default() += 1;
        tally.saved += words.len() as u64;
        tally.saved_here += words.len() as u64;
        tally.newest = words.into_iter().max().unwrap_or(tally.newest).max(tally.newest);
        disk.restart(cut)?;
        match options.subject.check(&disk.mount_point, tally.newest, tally.saved_here) {
            Ok(found) => tally.set_aside += found.set_aside,
            Err(promise) => {
                tally.broken += 1;
                tally.examples.push(json!({ "cut": number, "kind": cut.name(), "promise": promise }));
                (tally.newest, tally.saved_here) = (0, 0);
                disk.reset()?;
            }
        }
    }
    Ok(report(options, seed, &tally, start.elapsed()))
}

fn pick(fs: Fs, random: &mut Random) -> Cut {
    match (fs, random.below(4)) {
        (Fs::Btrfs, _) => Cut::Clone,
        (_, 0) => Cut::Shutdown(Flush::All),
        (_, 1) => Cut::Shutdown(Flush::Journal),
        _ => Cut::Shutdown(Flush::Nothing),
    }
}

/// Starts a trainer, cuts the power after `delay`, and returns what the trainer was told is durable.
fn live_and_cut(options: &Options, disk: &Disk, cut: Cut, delay: Duration) -> Result<Vec<u64>> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--subject", options.subject.name(), "--train"])
        .arg(&disk.mount_point)
        .stdout(Stdio::piped())
        .spawn()?;
    let words = Words::default();
    let listener = child.stdout.take().map(|out| words.listen(out));
    std::thread::sleep(delay);
    let before_cut = words.so_far();
    let outcome = disk.cut(cut);
    if cut == Cut::Clone || outcome.is_err() {
        child.kill()?;
    }
    end(&mut child)?;
    outcome?;
    if let Some(listener) = listener {
        let _ = listener.join();
    }
    // Whatever tensorkeep said, also after its disk was gone, must be true. Peers, which never look, are spared that.
    let late_counts = options.subject == Subject::Tensorkeep && cut != Cut::Clone;
    Ok(if late_counts { words.so_far() } else { before_cut })
}

fn end(child: &mut Child) -> Result<()> {
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > END {
            child.kill()?;
            child.wait()?;
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn report(options: &Options, seed: u64, tally: &Tally, elapsed: Duration) -> Value {
    let seconds = elapsed.as_secs_f64();
    json!({
        "subject": options.subject.name(),
        "fs": options.fs.name(),
        "mount_options": options.mount_options,
        "seed": seed,
        "cuts": tally.cuts,
        "kinds": tally.kinds,
        "saves_acknowledged": tally.saved,
        "broken": tally.broken,
        "set_aside": tally.set_aside,
        "examples": tally.examples.iter().take(EXAMPLES).collect::<Vec<_>>(),
        "seconds": (seconds * 10.0).round() / 10.0,
        "cuts_per_second": (tally.cuts as f64 / seconds * 10.0).round() / 10.0,
    })
}
