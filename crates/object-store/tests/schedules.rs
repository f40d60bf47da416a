//! Random schedules of faults over saving, resuming, promoting and rotating, with an oracle:
//! nothing acknowledged is lost, nothing whole is condemned, no call passes its deadline. A
//! schedule follows from its seed, as far as threads let it.
//!
//! `TENSORKEEP_SCHEDULES=100000 cargo test --release -p tensorkeep-object-store --test schedules`
//! runs more of them, from `TENSORKEEP_FIRST_SCHEDULE` on, and `TENSORKEEP_SCHEDULE=7` that one
//! alone.

mod common;

use common::by_url;
use fake_s3::{Fault, Objects, Server};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tensorkeep::engine::{Engine, Memory};
use tensorkeep::{
    Checkpoint, Error, ErrorKind, Keep, Progress, Reader, Resumed, Snapshot, Store, StoreOptions, Tier,
};

/// What a call of the store may take: long enough for several tries of a request that hangs.
const DEADLINE: Duration = Duration::from_millis(400);
/// How much more is put up with: the machine has other things to do, a save looks for its reason
/// and deletes by a deadline of its own within that one, and waiting for the remote tier is as many
/// calls as there are checkpoints to promote.
const SLACK: Duration = Duration::from_secs(6);
/// Larger than what lies in one object: uploaded apart, in one part.
const LARGE: usize = 70_000;

/// Schedules at a time: mostly they wait.
const AT_A_TIME: usize = 24;

/// What a store must survive, whatever the order.
const FAULTS: [Fault; 17] = [
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
];

/// One schedule: a server, the run in it, and what was acknowledged.
struct Schedule {
    seed: u64,
    random: u64,
    server: Server,
    /// The local tier, of a run that has two.
    local: Option<Memory>,
    store: Option<Store>,
    /// The newest step that was acknowledged to be in the remote store, and in the local tier.
    remote: u64,
    here: u64,
    step: u64,
    done: Vec<String>,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let server = Server::start(Objects::in_memory()).unwrap();
        let mut schedule = Self {
            seed,
            random: seed,
            server,
            local: None,
            store: None,
            remote: 0,
            here: 0,
            step: 0,
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
        // Listings are few among the requests.
        if self.one_in(8) {
            (per_mille, kinds) = (300, vec![Fault::StaleList]);
        }
        self.done.push(format!(
            "{per_mille} of 1000 requests fail by {kinds:?}, local tier: {}",
            self.local.is_some()
        ));
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
        // What a proxy still holds back arrives.
        std::thread::sleep(Duration::from_millis(70));
        self.check();
    }

    /// Does something within the deadline.
    fn timed<T>(
        &mut self,
        what: &str,
        calls: u32,
        call: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.done.push(what.to_owned());
        let begin = Instant::now();
        let result = call(self);
        let took = begin.elapsed();
        let words = match &result {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{error:?}").lines().next().unwrap_or_default().to_owned(),
        };
        self.done.push(format!("    {words} after {took:?}"));
        self.must(took < DEADLINE * calls + SLACK, "a call passed its deadline");
        result
    }

    fn must(&self, holds: bool, what: &str) {
        assert!(holds, "schedule {}: {what}\n{}", self.seed, self.done.join("\n"));
    }

    fn engine(&self) -> Arc<dyn Engine> {
        Arc::new(by_url(&self.server, "s3://bucket/run", DEADLINE * 10))
    }

    fn open(&mut self) -> Option<()> {
        if self.store.is_some() {
            return Some(());
        }
        let settings = StoreOptions::new()
            .keep(Keep::last(2))
            .keep_remote(Keep::last(2))
            .remote_timeout(DEADLINE / 2)
            .deadline(DEADLINE);
        let engine = self.engine();
        let opened = self.timed("open", 1, |it| match &it.local {
            Some(local) => Store::open_tiered(local.clone(), engine, settings),
            None => Store::open(engine, settings),
        });
        let store = opened.ok()?;
        self.store = Some(store);
        let resumed = self.timed("resume", 1, |it| it.store.as_ref().unwrap().resume());
        let Ok(resumed) = resumed else {
            self.drop_store();
            return None;
        };
        self.judge(&resumed, false);
        self.step = self.step.max(resumed.next_step());
        Some(())
    }

    /// What a resume goes on from is no older than what was acknowledged, and is what was saved.
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
            self.must(is_of(checkpoint, step), &format!("step {step} holds other bytes"));
        }
    }

    fn save(&mut self) {
        if self.open().is_none() {
            return;
        }
        self.step += 1;
        let (step, large) = (self.step, self.one_in(3));
        let saved =
            self.timed(&format!("save {step}"), 1, |it| save(it.store.as_ref().unwrap(), step, large));
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
        let waited =
            self.timed("wait for the remote tier", 8, |it| it.store.as_ref().unwrap().wait_for(Tier::Remote));
        if waited.is_ok() {
            self.remote = self.remote.max(self.here);
        }
    }

    fn restart(&mut self, loses_disk: bool) {
        self.drop_store();
        if loses_disk && self.local.is_some() {
            self.done.push("the disk is lost".to_owned());
            (self.local, self.here) = (Some(Memory::new()), 0);
        }
        self.step = self.here.max(self.remote).max(self.step);
        self.open();
    }

    fn drop_store(&mut self) {
        if let Some(store) = self.store.take() {
            let closed = self.timed("close", 8, |_| store.close_within(DEADLINE));
            if closed.is_ok() {
                self.remote = self.remote.max(self.here);
            }
        }
    }

    /// What people and tools ask beside the saves.
    fn tidy(&mut self) {
        if self.open().is_none() {
            return;
        }
        let step = self.here.max(self.remote);
        let _ = self.timed("pin", 1, |it| it.store.as_ref().unwrap().pin(step));
        let _ = self.timed("unpin", 1, |it| it.store.as_ref().unwrap().unpin(step));
        let _ = self.timed("list", 1, |it| it.store.as_ref().unwrap().list());
        let latest = self.timed("latest", 1, |it| it.store.as_ref().unwrap().latest());
        let here = if self.local.is_some() { self.here } else { self.remote };
        if let Ok(latest) = latest {
            let found = latest.map_or(0, |checkpoint| checkpoint.progress().unwrap().unwrap().step);
            self.must(found >= here, &format!("the latest is {found}, and {here} was acknowledged"));
        }
    }

    /// When nothing fails any more: all that was acknowledged is there, and nothing whole is
    /// condemned.
    fn check(&mut self) {
        self.drop_store();
        let reader = Reader::new(by_url(&self.server, "s3://bucket/run", DEADLINE * 100));
        for listed in reader.listed().unwrap() {
            let verified = reader.checkpoint_by_id(listed.name).and_then(|checkpoint| checkpoint.verify());
            // A promotion that was left running may rotate.
            let is_gone = || reader.names().unwrap().iter().all(|name| *name != listed.name);
            if verified.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) && is_gone() {
                continue;
            }
            self.must(
                verified.is_ok(),
                &format!("{} is there and not whole: {:?}", listed.name, verified.err()),
            );
            self.must(!listed.is_marked, &format!("{} is whole, and marked as damaged", listed.name));
        }
        let store = self.reopen();
        let resumed = self.expect(store.resume());
        self.judge(&resumed, true);
        let step = self.step.max(resumed.next_step()) + 1;
        self.expect(save(&store, step, false));
        self.expect(store.close());
    }

    /// A store that was closed before all was promoted holds its lock until it is.
    fn reopen(&self) -> Store {
        let begin = Instant::now();
        loop {
            let (settings, engine) = (StoreOptions::new().keep(Keep::last(2)), self.engine());
            let opened = match &self.local {
                Some(local) => Store::open_tiered(local.clone(), engine, settings),
                None => Store::open(engine, settings),
            };
            match opened {
                Err(error) if error.kind() == ErrorKind::Locked && begin.elapsed() < SLACK * 4 => {
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

fn save(store: &Store, step: u64, large: bool) -> Result<(), Error> {
    let weights = weights(step, large);
    let snapshot = Snapshot::new().tensor("weights", &weights[..])?.progress(Progress::new(step));
    store.save(&snapshot).map(drop)
}

fn weights(step: u64, large: bool) -> Vec<u64> {
    vec![step; if large { LARGE / 8 } else { 4 }]
}

fn is_of(checkpoint: &Checkpoint, step: u64) -> bool {
    let tensor = checkpoint.tensor("weights").unwrap();
    tensor.bytes().chunks(8).all(|bytes| bytes == step.to_le_bytes())
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
fn whatever_the_network_does_what_was_acknowledged_is_there() {
    if let Some(seed) = count("TENSORKEEP_SCHEDULE") {
        return Schedule::new(seed).run();
    }
    let many = count("TENSORKEEP_SCHEDULES").unwrap_or(200);
    let first = count("TENSORKEEP_FIRST_SCHEDULE").unwrap_or(0);
    let (next, begin) = (AtomicU64::new(first), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + many {
                        break;
                    }
                    // One that fails ends it: the others say no more behind its words.
                    let failed = Ends(&next, first + many);
                    Schedule::new(seed).run();
                    std::mem::forget(failed);
                }
            });
        }
    });
    println!("{many} schedules in {:.0} s", begin.elapsed().as_secs_f64());
}
