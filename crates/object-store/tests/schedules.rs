//! Random schedules of faults over saving, resuming, promoting and rotating, with an oracle: no
//! acknowledged checkpoint is lost, no intact one is condemned, no call passes its deadline. A
//! schedule follows from its seed, as far as threads allow.
//!
//! `TENSORKEEP_SCHEDULES=100000 cargo test --release -p tensorkeep-object-store --test schedules`
//! runs more of them, from `TENSORKEEP_FIRST_SCHEDULE` on, `TENSORKEEP_AT_A_TIME` side by side, and
//! `TENSORKEEP_SCHEDULE=7` that one alone.

mod common;

use common::options;
use fake_s3::{Fault, Objects, Server};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tensorkeep::engine::Memory;
use tensorkeep::{
    Checkpoint, CheckpointId, Error, ErrorKind, Keep, Progress, Reader, Resumed, Snapshot, Store,
    StoreOptions, Tier,
};
use tensorkeep_object_store::ObjectStoreEngine;

const URL: &str = "s3://bucket/run";

/// Deadline of a call of the store: long enough for several tries of a request that hangs.
const DEADLINE: Duration = Duration::from_millis(400);
/// Tolerance beyond it: the machine is busy, a failed save looks for its cause and deletes within a
/// deadline of its own, and waiting for the remote tier takes a call for each checkpoint to
/// promote.
const SLACK: Duration = Duration::from_secs(6);
/// Larger than a plain object, in any codec: uploaded apart, with a commit object.
const LARGE: usize = 1_100_000;
/// The time that requests may take that send its part, assemble it, and commit it with copies of
/// both ends: as long as its bytes on the slowest line.
const MOVES: Duration = Duration::from_micros(3 * 10 * LARGE as u64);

/// Checkpoints that a rotation keeps.
const KEPT: usize = 2;

/// Schedules at a time: mostly they wait, and each takes less than a tenth of a second of a core.
const AT_A_TIME: u64 = 32;

/// The faults that a store must survive, in any order.
const FAULTS: [Fault; 20] = [
    Fault::SlowDown,
    Fault::ErrorAfter,
    Fault::ResetAfter,
    Fault::ResetBefore,
    Fault::Conflict,
    Fault::ClockSkew,
    Fault::Trickle,
    Fault::Hang,
    Fault::HangAfter,
    Fault::NotFound,
    Fault::Full,
    Fault::CutBody,
    Fault::Flip,
    Fault::Short,
    Fault::Twice,
    Fault::TwiceLate,
    Fault::StaleList,
    Fault::Elsewhere,
    Fault::Neighbour,
    Fault::Bare,
];

/// One schedule: a server, the run in it, and its acknowledged steps.
struct Schedule {
    seed: u64,
    random: u64,
    server: Server,
    /// Of the machine that trains: its connections, and its probe of the store.
    engine: ObjectStoreEngine,
    /// The local tier, of a run with two.
    local: Option<Memory>,
    store: Option<Store>,
    /// The newest step that was acknowledged to be in the remote store, and in the local tier.
    remote: u64,
    here: u64,
    step: u64,
    /// Whether requests may arrive once more, late.
    repeats_late: bool,
    done: Vec<String>,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let server = Server::start(Objects::in_memory()).unwrap();
        let engine = machine(&server);
        let mut schedule = Self {
            seed,
            random: seed,
            server,
            engine,
            local: None,
            store: None,
            remote: 0,
            here: 0,
            step: 0,
            repeats_late: false,
            done: vec![],
        };
        schedule.local = schedule.one_in(2).then(Memory::new);
        schedule
    }

    fn next(&mut self) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    fn run(mut self) {
        let mut per_mille = [20, 60, 120][self.next() as usize % 3];
        let mut kinds: Vec<Fault> =
            (0..1 + self.next() % 6).map(|_| FAULTS[self.next() as usize % FAULTS.len()]).collect();
        // Few of the requests are listings.
        if self.one_in(8) {
            (per_mille, kinds) = (300, vec![Fault::StaleList, Fault::Elsewhere]);
        }
        self.done.push(format!(
            "{per_mille} of 1000 requests fail by {kinds:?}, local tier: {}",
            self.local.is_some()
        ));
        self.repeats_late = kinds.contains(&Fault::TwiceLate);
        self.server.faults().fail_by_chance(self.seed, per_mille, &kinds);
        for _ in 0..10 {
            match self.next() % 8 {
                0..4 => self.save(),
                4 => self.restart(false),
                5 => self.wait(),
                6 => self.tidy(),
                _ => {
                    let loses_disk = self.one_in(2);
                    self.restart(loses_disk);
                }
            }
        }
        self.server.faults().heal();
        // Requests that a proxy still holds back arrive.
        std::thread::sleep(Duration::from_millis(70));
        self.check();
    }

    /// Runs a call and checks that it ends in the allowed time.
    fn timed<T>(
        &mut self,
        what: &str,
        allowed: Duration,
        call: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.done.push(what.to_owned());
        let (begin, stood) = (Instant::now(), stood_still());
        let result = call(self);
        let took = begin.elapsed();
        if took >= allowed + SLACK {
            // The thread that counts may have stood still as long.
            std::thread::sleep(NAP * 5);
        }
        let stood = stood_still() - stood;
        let words = match &result {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{error:?}").lines().next().unwrap_or_default().to_owned(),
        };
        self.done.push(format!("    {words} after {took:?}"));
        self.must(took < allowed + SLACK + stood * 2, "a call passed its deadline");
        result
    }

    fn must(&self, holds: bool, what: &str) {
        assert!(holds, "schedule {}: {what}\n{}", self.seed, self.done.join("\n"));
    }

    fn open(&mut self) -> Option<()> {
        if self.store.is_some() {
            return Some(());
        }
        let settings = kept().remote_timeout(DEADLINE / 2).deadline(DEADLINE);
        let engine = self.engine.clone();
        let opened = self.timed("open", DEADLINE, |it| match &it.local {
            Some(local) => Store::open_tiered(local.clone(), engine, settings),
            None => Store::open(engine, settings),
        });
        let store = opened.ok()?;
        self.store = Some(store);
        let resumed = self.timed("resume", DEADLINE, |it| it.store.as_ref().unwrap().resume());
        let Ok(resumed) = resumed else {
            self.drop_store();
            return None;
        };
        self.judge(&resumed, false);
        self.step = self.step.max(resumed.next_step());
        Some(())
    }

    /// A resumed checkpoint is no older than the acknowledged one, and has the saved content.
    fn judge(&self, resumed: &Resumed, is_healed: bool) {
        let known = match &self.local {
            Some(_) if resumed.remote_error.is_some() => self.here,
            Some(_) => self.here.max(self.remote),
            None => self.remote,
        };
        let step = resumed.next_step();
        let is_excused = !is_healed && !resumed.skipped.is_empty();
        self.must(
            step >= known || is_excused,
            &format!("resumed from {step}, and {known} was acknowledged: {resumed:?}"),
        );
        if let Some(checkpoint) = &resumed.checkpoint {
            // While requests fail, reading may.
            let right =
                is_of(checkpoint, step).or_else(|error| if is_healed { Err(error) } else { Ok(true) });
            self.must(self.expect(right), &format!("step {step} holds other bytes"));
        }
    }

    fn save(&mut self) {
        if self.open().is_none() {
            return;
        }
        self.step += 1;
        let (step, large) = (self.step, self.one_in(3));
        let saved = self.timed(&format!("save {step}"), DEADLINE + MOVES, |it| {
            save(it.store.as_ref().unwrap(), step, large)
        });
        match saved {
            Ok(()) if self.local.is_some() => self.here = step,
            Ok(()) => self.remote = step,
            Err(error) if error.kind() == ErrorKind::Fenced => {
                self.must(false, "fenced without another writer")
            }
            Err(_) => {}
        }
    }

    fn wait(&mut self) {
        if self.local.is_none() || self.store.is_none() {
            return;
        }
        let waited = self.timed("wait for the remote tier", (DEADLINE + MOVES) * 8, |it| {
            it.store.as_ref().unwrap().wait_for(Tier::Remote)
        });
        if waited.is_ok() {
            self.remote = self.remote.max(self.here);
        }
    }

    /// On the same machine, or on another one.
    fn restart(&mut self, loses_disk: bool) {
        self.drop_store();
        if loses_disk {
            self.engine = machine(&self.server);
        }
        if loses_disk && self.local.is_some() {
            self.done.push("the disk is lost".to_owned());
            (self.local, self.here) = (Some(Memory::new()), 0);
        }
        self.step = self.here.max(self.remote).max(self.step);
        self.open();
    }

    fn drop_store(&mut self) {
        if let Some(store) = self.store.take() {
            let closed = self.timed("close", DEADLINE * 8, |_| store.close_within(DEADLINE));
            if closed.is_ok() {
                self.remote = self.remote.max(self.here);
            }
        }
    }

    /// The calls of users and tools between saves. Sweeping is for a place without uploads.
    fn tidy(&mut self) {
        if self.local.is_none() {
            let remote = self.engine.clone().with_deadline(DEADLINE);
            let _ = self.timed("sweep", DEADLINE, |_| remote.sweep(Duration::ZERO));
        }
        if self.open().is_none() {
            return;
        }
        let step = self.here.max(self.remote);
        let _ = self.timed("pin", DEADLINE, |it| it.store.as_ref().unwrap().pin(step));
        let _ = self.timed("unpin", DEADLINE, |it| it.store.as_ref().unwrap().unpin(step));
        let _ = self.timed("list", DEADLINE, |it| it.store.as_ref().unwrap().list());
        let latest = self.timed("latest", DEADLINE, |it| it.store.as_ref().unwrap().latest());
        let here = if self.local.is_some() { self.here } else { self.remote };
        if let Ok(latest) = latest {
            let found = latest.map_or(0, |checkpoint| checkpoint.progress().unwrap().unwrap().step);
            self.must(found >= here, &format!("the latest is {found}, and {here} was acknowledged"));
        }
    }

    /// Without further faults every acknowledged checkpoint is there, and no intact one is
    /// condemned.
    fn check(&mut self) {
        self.drop_store();
        let reader = Reader::new(self.engine.clone().with_deadline(DEADLINE * 100));
        let all = reader.listed().unwrap();
        let mut ghosts = vec![];
        for (newer, listed) in all.iter().rev().enumerate() {
            let verified = reader.checkpoint_by_id(listed.id).and_then(|checkpoint| checkpoint.verify());
            let is_absent = verified.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
            // A promotion that is still running may rotate.
            if is_absent && reader.ids().unwrap().iter().all(|id| *id != listed.id) {
                continue;
            }
            // A commit that a proxy sends once more after the rotation brings the name back,
            // without its bytes: the next rotation deletes it.
            if is_absent && newer >= KEPT && self.repeats_late {
                ghosts.push(listed.id);
                continue;
            }
            self.must(
                verified.is_ok(),
                &format!("{} is there and not whole: {:?}", listed.id, verified.err()),
            );
            self.must(!listed.is_marked, &format!("{} is whole, and marked as damaged", listed.id));
        }
        let store = self.reopen();
        let resumed = self.expect(store.resume());
        self.judge(&resumed, true);
        let step = self.step.max(resumed.next_step()) + 1;
        self.expect(save(&store, step, false));
        self.expect(store.close());
        // A pin that arrives once more, after it was removed, keeps the name, too.
        let left = reader.list().unwrap();
        let is_kept = |ghost: &CheckpointId| left.iter().any(|info| info.id == *ghost && !info.pinned);
        self.must(!ghosts.iter().any(is_kept), "a rotation keeps a name without bytes");
    }

    /// A store that was closed before all was promoted holds its lock until it is.
    fn reopen(&self) -> Store {
        let begin = Instant::now();
        loop {
            // Long enough for a machine that does other work: nothing fails any more.
            let engine = self.engine.clone().with_deadline(DEADLINE * 100);
            let settings = kept().remote_timeout(DEADLINE * 100);
            let opened = match &self.local {
                Some(local) => Store::open_tiered(local.clone(), engine, settings),
                None => Store::open(engine, settings),
            };
            match opened {
                Err(error) if error.kind() == ErrorKind::Locked && begin.elapsed() < SLACK + MOVES * 4 => {
                    std::thread::sleep(DEADLINE / 20);
                }
                opened => return self.expect(opened),
            }
        }
    }

    fn expect<T>(&self, result: Result<T, Error>) -> T {
        result.unwrap_or_else(|error| panic!("schedule {}: {error:?}\n{}", self.seed, self.done.join("\n")))
    }
}

/// The engine of a machine: it asks for the bucket's abilities once. The server checks no
/// signatures, which would take a tenth of all time.
fn machine(server: &Server) -> ObjectStoreEngine {
    let mut options = options(server);
    options.push(("skip_signature", "true".to_owned()));
    ObjectStoreEngine::from_url_with(URL, options).unwrap().with_deadline(DEADLINE * 10)
}

/// What both tiers keep.
fn kept() -> StoreOptions {
    StoreOptions::new().keep(Keep::last(KEPT)).keep_remote(Keep::last(KEPT))
}

fn save(store: &Store, step: u64, large: bool) -> Result<(), Error> {
    let weights = weights(step, large);
    let snapshot = Snapshot::new().tensor("weights", &weights[..])?.progress(Progress::new(step));
    store.save(&snapshot).map(drop)
}

/// Noise that follows from the step.
fn weights(step: u64, large: bool) -> Vec<u64> {
    let mut state = step;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 29
    };
    std::iter::repeat_with(next).take(if large { LARGE / 8 } else { 4 }).collect()
}

fn is_of(checkpoint: &Checkpoint, step: u64) -> Result<bool, Error> {
    let tensor = checkpoint.tensor("weights")?;
    Ok(tensor.elements::<u64>()?[..] == weights(step, tensor.bytes().len() == LARGE))
}

/// What the thread sleeps at a time that counts how long the process stood still.
const NAP: Duration = Duration::from_millis(20);

/// How long this process was kept from running, in all, by a thread that only sleeps: other work
/// may take the processors for seconds.
fn stood_still() -> Duration {
    static STOOD: AtomicU64 = AtomicU64::new(0);
    static SLEEPER: Once = Once::new();
    SLEEPER.call_once(|| {
        std::thread::spawn(|| {
            loop {
                let begin = Instant::now();
                std::thread::sleep(NAP);
                let late = begin.elapsed().saturating_sub(NAP);
                STOOD.fetch_add(late.as_micros() as u64, Ordering::Relaxed);
            }
        });
    });
    Duration::from_micros(STOOD.load(Ordering::Relaxed))
}

/// Sets a counter to its end, unless it is forgotten.
struct Ends<'c>(&'c AtomicU64, u64);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(self.1, Ordering::Relaxed);
    }
}

fn count(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn acknowledged_saves_survive_any_schedule_of_faults() {
    if let Some(seed) = count("TENSORKEEP_SCHEDULE") {
        return Schedule::new(seed).run();
    }
    let many = count("TENSORKEEP_SCHEDULES").unwrap_or(200);
    let first = count("TENSORKEEP_FIRST_SCHEDULE").unwrap_or(0);
    let (next, begin) = (AtomicU64::new(first), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..count("TENSORKEEP_AT_A_TIME").unwrap_or(AT_A_TIME) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + many {
                        break;
                    }
                    // A failure stops the run: the others print nothing after its message.
                    let failed = Ends(&next, first + many);
                    Schedule::new(seed).run();
                    std::mem::forget(failed);
                }
            });
        }
    });
    println!("{many} schedules in {:.0} s", begin.elapsed().as_secs_f64());
}
