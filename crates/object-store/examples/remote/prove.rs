//! The proof over the wire: one training run that is never interrupted, and one whose trainer and
//! server are killed (SIGKILL) again and again, also in the middle of saves, and on which a second
//! trainer is started while the first one lives. At the end both must be equal, bit for bit.

use crate::trainer::{self, FENCED, IMAGES, STEPS};
use fake_s3::{Objects, Server};
use lenet::{Rng, Trainer, data};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tensorkeep::{Checkpoint, Error, Result, Snapshot, Store, StoreOptions, WriteOptions};

const LIVES: u32 = 24;
/// The most steps that a life trains before its fate.
const LONGEST_LIFE: u64 = 24;

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::io(what, error)
}

/// The server's process: the files in `folder` survive it.
pub fn serve(port: &str, folder: &str) -> Result<bool> {
    let objects = Objects::in_folder(Path::new(folder)).map_err(failed("the server's folder"))?;
    let server = Server::start_at(port.parse().unwrap_or(0), objects).map_err(failed("the server"))?;
    println!("ready {}", server.endpoint());
    let _ = std::io::stdout().flush();
    loop {
        std::thread::park();
    }
}

/// The proof. False when a promise was broken.
pub fn prove(seed: u64) -> Result<bool> {
    let start = Instant::now();
    let images = data::drawn(seed, 0..IMAGES)?;
    let mut reference = Trainer::new(trainer::training(seed));
    while reference.progress().step < STEPS {
        reference.step(&images);
    }
    println!("reference: {STEPS} steps, never interrupted, {:.1} s", start.elapsed().as_secs_f64());

    let folder = std::env::temp_dir().join(format!("tensorkeep-remote-{seed}-{}", std::process::id()));
    let verdict = Proof::start(&folder, seed).and_then(|mut proof| {
        let kept = proof.run()?;
        println!("{}", proof.tally);
        let store = Store::open(trainer::engine(&proof.server.endpoint)?, StoreOptions::new())?;
        let resumed = store.resume()?;
        let Some(last) = resumed.checkpoint else { return Ok(false) };
        Ok(kept
            && resumed.skipped.is_empty()
            && compare(&reference.snapshot()?, &last)?
            && proof.tally.is_enough())
    });
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        eprintln!("warning: {} could not be removed: {error}", folder.display());
    }
    let equal = verdict?;
    let words = if equal { "EQUAL, bit for bit, no promise broken" } else { "A PROMISE IS BROKEN" };
    println!("{words}: {STEPS} steps, {:.1} s", start.elapsed().as_secs_f64());
    Ok(equal)
}

/// The events of the run.
#[derive(Default)]
struct Tally {
    trainers_killed: u32,
    servers_killed: u32,
    in_saves: u32,
    fenced: u32,
    failed_saves: u32,
}

impl Tally {
    /// Without every kind of event the run proves nothing.
    fn is_enough(&self) -> bool {
        self.trainers_killed >= 5 && self.servers_killed >= 5 && self.fenced >= 1 && self.in_saves >= 5
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "killed: {} trainers, {} servers, {} of both in a save; {} trainers fenced; {} saves failed and were told so",
            self.trainers_killed, self.servers_killed, self.in_saves, self.fenced, self.failed_saves
        )
    }
}

/// The fate of a life.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    KillTrainer,
    KillServer,
    KillBoth,
    /// A second trainer is started on the run.
    Rival,
}

struct Plan {
    fate: Fate,
    after_steps: u64,
    in_save: bool,
    delay: Duration,
    /// The length of the server's outage.
    outage: Duration,
}

impl Plan {
    fn draw(rng: &mut Rng) -> Self {
        let fates = [Fate::KillTrainer, Fate::KillServer, Fate::KillServer, Fate::KillBoth, Fate::Rival];
        let mut below = |count: u64| rng.next_u64() % count;
        Self {
            fate: fates[below(fates.len() as u64) as usize],
            after_steps: 1 + below(LONGEST_LIFE),
            in_save: below(3) > 0,
            // A save over the wire takes 10 to 60 ms.
            delay: Duration::from_micros(below(30_000)),
            outage: Duration::from_millis(below(300)),
        }
    }
}

struct Proof {
    folder: PathBuf,
    seed: u64,
    rng: Rng,
    server: Process,
    tally: Tally,
    /// The highest step acknowledged to a trainer as saved.
    acknowledged: u64,
}

struct Process {
    child: Child,
    endpoint: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait().map(drop));
    }
}

fn spawn_server(folder: &Path, port: &str) -> Result<Process> {
    let mut child = Command::new(std::env::current_exe().map_err(failed("finding this program"))?)
        .args(["--server", port])
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed("starting the server"))?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line).map_err(failed("the server"))?;
    }
    let endpoint = line.trim().strip_prefix("ready ").unwrap_or_default().to_owned();
    Ok(Process { child, endpoint })
}

/// The outcome of a life.
#[derive(Default)]
struct Life {
    resumed: u64,
    step: u64,
    saved: u64,
    in_save: bool,
    done: bool,
    lost: bool,
}

impl Proof {
    fn start(folder: &Path, seed: u64) -> Result<Self> {
        let server = spawn_server(folder, "0")?;
        let rng = Rng::new(seed ^ 0x7265_6d6f_7465);
        Ok(Self { folder: folder.to_owned(), seed, rng, server, tally: Tally::default(), acknowledged: 0 })
    }

    /// Lives until the run is done. False when an acknowledged save was lost.
    fn run(&mut self) -> Result<bool> {
        let mut trainer = self.spawn_trainer()?;
        for number in 1.. {
            let plan = (number <= LIVES).then(|| Plan::draw(&mut self.rng));
            let (life, next) = self.live(trainer, plan.as_ref())?;
            println!(
                "life {number:2}: from step {:3} to {:3}{}, {}, last save {:3}{}",
                life.resumed,
                life.step,
                if life.in_save { " in a save" } else { "" },
                plan.map_or("left alone".to_owned(), |plan| format!("{:?}", plan.fate)),
                self.acknowledged,
                if life.lost { "  LOST AN ACKNOWLEDGED SAVE" } else { "" },
            );
            if life.lost || life.done {
                return Ok(!life.lost);
            }
            trainer = match next {
                Some(rival) => rival,
                None => self.spawn_trainer()?,
            };
        }
        Ok(false)
    }

    fn spawn_trainer(&self) -> Result<Child> {
        Command::new(std::env::current_exe().map_err(failed("finding this program"))?)
            .args(["--child", &self.server.endpoint, &self.seed.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed("starting a trainer"))
    }

    /// Follows a trainer to its end, lets its fate happen, and returns the rival that takes over,
    /// if there is one.
    fn live(&mut self, mut trainer: Child, plan: Option<&Plan>) -> Result<(Life, Option<Child>)> {
        let output = trainer
            .stdout
            .take()
            .ok_or_else(|| failed("its output")(std::io::ErrorKind::BrokenPipe.into()))?;
        let mut life = Life::default();
        let mut rival = None;
        let mut killed = false;
        let mut happened = false;
        let must_be_there = self.acknowledged;
        for line in BufReader::new(output).lines() {
            let line = line.map_err(failed("a trainer"))?;
            self.note(&line, &mut life, must_be_there);
            let due = plan.filter(|plan| {
                !happened && life.step >= life.resumed + plan.after_steps && (!plan.in_save || life.in_save)
            });
            if let Some(plan) = due {
                happened = true;
                self.tally.in_saves += u32::from(life.in_save);
                std::thread::sleep(plan.delay);
                match plan.fate {
                    Fate::Rival => rival = Some(self.spawn_trainer()?),
                    Fate::KillServer => self.kill_server(plan.outage)?,
                    Fate::KillTrainer | Fate::KillBoth => {
                        self.kill_trainer(&mut trainer)?;
                        killed = true;
                        if plan.fate == Fate::KillBoth {
                            self.kill_server(plan.outage)?;
                        }
                    }
                }
            }
            // The trainer survives the server's death; then it is killed, too, so that the run has
            // many lives.
            if happened
                && !killed
                && rival.is_none()
                && life.step >= life.resumed + LONGEST_LIFE + LONGEST_LIFE / 2
                && !life.done
            {
                self.kill_trainer(&mut trainer)?;
                killed = true;
            }
        }
        let status = trainer.wait().map_err(failed("a trainer"))?;
        let fenced = status.code() == Some(i32::from(FENCED));
        self.tally.fenced += u32::from(fenced);
        let expected = status.success() || killed || (fenced && rival.is_some());
        if !expected {
            return Err(failed("a trainer ended by itself")(std::io::Error::other(status.to_string())));
        }
        Ok((life, rival))
    }

    fn note(&mut self, line: &str, life: &mut Life, must_be_there: u64) {
        let (event, step) = line.split_once(' ').unwrap_or((line, "0"));
        let step: u64 = step.parse().unwrap_or(0);
        match event {
            "resumed" => {
                life.resumed = step;
                life.step = step;
                life.lost = step < must_be_there;
                self.acknowledged = step;
            }
            "step" => {
                life.step = step;
                life.in_save = false;
            }
            "saving" => life.in_save = true,
            "saved" => {
                life.saved = step;
                life.in_save = false;
                self.acknowledged = step;
            }
            "failed" => {
                self.tally.failed_saves += 1;
                life.in_save = false;
            }
            "damaged" => life.lost = true,
            "done" => life.done = true,
            _ => {}
        }
    }

    fn kill_trainer(&mut self, trainer: &mut Child) -> Result<()> {
        self.tally.trainers_killed += 1;
        trainer.kill().map_err(failed("killing a trainer"))
    }

    fn kill_server(&mut self, outage: Duration) -> Result<()> {
        self.tally.servers_killed += 1;
        self.server.child.kill().map_err(failed("killing the server"))?;
        self.server.child.wait().map_err(failed("killing the server"))?;
        std::thread::sleep(outage);
        let port = self.server.endpoint.rsplit(':').next().unwrap_or_default().to_owned();
        self.server = spawn_server(&self.folder, &port)?;
        Ok(())
    }
}

/// Compares all state that training depends on, bit for bit.
fn compare(reference: &Snapshot<'_>, last: &Checkpoint) -> Result<bool> {
    let reference = Checkpoint::from_bytes(&reference.to_bytes(&WriteOptions::new())?)?;
    let mut equal = reference.progress()? == last.progress()?;
    let mut tensors = 0;
    let mut bytes = 0;
    for name in reference.names() {
        let (expected, found) = (reference.tensor(name)?, last.tensor(name)?);
        let same = expected.bytes() == found.bytes() && expected.shape() == found.shape();
        if !same {
            println!("{name} DIFFERS");
        }
        equal &= same;
        tensors += 1;
        bytes += expected.bytes().len();
    }
    for name in reference.records().filter(|name| !name.starts_with("tensorkeep.")) {
        equal &= reference.inspect().record_value(name)? == last.inspect().record_value(name)?;
    }
    if let Some(ballast) = trainer::ballast(STEPS) {
        equal &= last.tensor("ballast")?.bytes() == &ballast[..];
    }
    println!(
        "compared {tensors} tensors, {bytes} bytes, and the records of optimizer, schedule, RNG and data order"
    );
    Ok(equal && tensors > 0)
}
