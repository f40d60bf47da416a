//! Faults on demand: which of the next requests fail, and how, by a script or at random; and a
//! record of the requests. A request is known by its method, path and query only.

use crate::throttle::Throttle;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Limit of wrong listings in a row, among random faults.
const MOST_WRONG: usize = 2;

/// The way in which a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 503 `SlowDown`, not applied.
    SlowDown,
    /// Applied, and answered 500 `InternalError`.
    ErrorAfter,
    /// Applied, and the connection is reset instead of an answer.
    ResetAfter,
    /// The connection is reset, not applied.
    ResetBefore,
    /// 409 `ConditionalRequestConflict`, not applied.
    Conflict,
    /// 403 `RequestTimeTooSkewed`, not applied.
    ClockSkew,
    /// 403 `SignatureDoesNotMatch`, not applied: the key's secret is wrong.
    WrongSecret,
    /// Applied, and the answer trickles.
    Trickle,
    /// The request is read, not applied, and never answered: a black hole.
    Hang,
    /// Applied, and never answered.
    HangAfter,
    /// 404 `NoSuchKey`, whether the object exists or not.
    NotFound,
    /// 507 `InsufficientStorage`, not applied.
    Full,
    /// Applied, and the connection is cut in the middle of the answer's body.
    CutBody,
    /// Applied, and one bit of the answer's body is wrong.
    Flip,
    /// Applied, and the answer has half the body, with a matching length.
    Short,
    /// Applied twice, as by a proxy that repeats an answered request; the second answer is
    /// returned.
    Twice,
    /// Applied, and once more a little later.
    TwiceLate,
    /// A listing is answered as it was some requests ago; other requests are not affected.
    StaleList,
    /// A listing is answered as that of the whole bucket; other requests are not affected.
    Elsewhere,
    /// Reading an object is answered with the one before it by name, as by a cache that takes one
    /// for the other.
    Neighbour,
    /// Applied, and the answer lacks the object's metadata.
    Bare,
    /// 200 with an error in the body, as from a proxy.
    NotAPage,
    /// A page of a listing that is followed by itself.
    EndlessList,
    /// The whole server is killed before it applies the request: no answers until it is restarted.
    KilledBefore,
    /// The whole server is killed after it has applied the request.
    KilledAfter,
}

impl Fault {
    /// Every fault except those that kill the server, for tests that go through all.
    pub const SURVIVABLE: [Self; 6] = [
        Self::SlowDown,
        Self::ErrorAfter,
        Self::ResetAfter,
        Self::ResetBefore,
        Self::Conflict,
        Self::Trickle,
    ];
}

/// A recorded request: method, path and query, such as `PUT /bucket/run/a?partNumber=1`.
pub type Call = String;

/// The script; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    /// Faults to come: matching requests to let pass first, how many then fail, how, and the text
    /// that the call must contain.
    rules: Vec<Rule>,
    calls: Vec<Call>,
    /// Before every answer.
    delay: Duration,
    /// Requests that wait for their answer now, and their maximum so far.
    waiting: BTreeMap<u64, Call>,
    most_waiting: usize,
    /// The text of a request that is counted among them.
    watched: String,
    served: u64,
    chance: Option<Chance>,
    throttle: Option<Throttle>,
}

/// Random faults.
#[derive(Debug)]
struct Chance {
    state: u64,
    per_mille: u64,
    kinds: Vec<Fault>,
    /// Paths that had a wrong answer: once each, so that a second read is right.
    lied_about: BTreeSet<String>,
    /// Wrong listings in a row: at most two.
    wrong_listings: usize,
}

impl Chance {
    /// The next of the seed's sequence: splitmix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fault(&mut self, call: &str) -> Option<Fault> {
        let is_listing = call.contains("list-type");
        let is_wrong = |fault| matches!(fault, Fault::StaleList | Fault::Elsewhere);
        let fails = self.next() % 1000 < self.per_mille;
        let chosen = self.next() as usize % self.kinds.len();
        let fault = fails.then_some(self.kinds[chosen]);
        if is_listing {
            self.wrong_listings = if fault.is_some_and(is_wrong) { self.wrong_listings + 1 } else { 0 };
        }
        let fault = fault.filter(|fault| !is_wrong(*fault) || self.wrong_listings <= MOST_WRONG)?;
        let path = call.split_once('?').map_or(call, |(path, _)| path).to_owned();
        let lies = matches!(fault, Fault::Flip | Fault::Short | Fault::Neighbour | Fault::Bare);
        (!lies || self.lied_about.insert(path)).then_some(fault)
    }
}

#[derive(Debug)]
struct Rule {
    pass: usize,
    count: usize,
    fault: Fault,
    only: String,
}

impl Faults {
    /// After `pass` more requests, `count` fail.
    pub fn fail_after(&self, pass: usize, count: usize, fault: Fault) {
        self.fail_matching("", pass, count, fault);
    }

    /// As [`Faults::fail_after`], of the requests whose [`Call`] contains `only`.
    pub fn fail_matching(&self, only: &str, pass: usize, count: usize, fault: Fault) {
        self.script().rules.push(Rule { pass, count, fault, only: only.to_owned() });
    }

    /// Lets `per_mille` of a thousand requests fail, each by one of these kinds, determined by the
    /// seed and the order of the requests. No path is answered with wrong bytes or metadata twice,
    /// and a third listing in a row is right.
    pub fn fail_by_chance(&self, seed: u64, per_mille: u64, kinds: &[Fault]) {
        assert!(!kinds.is_empty(), "a request fails somehow");
        let (kinds, lied_about) = (kinds.to_vec(), BTreeSet::new());
        self.script().chance = Some(Chance { state: seed, per_mille, kinds, lied_about, wrong_listings: 0 });
    }

    /// Ends all faults.
    pub fn heal(&self) {
        let mut script = self.script();
        script.rules.clear();
        (script.chance, script.throttle) = (None, None);
    }

    /// Answers 503 `SlowDown` beyond so many writes and so many reads a second.
    pub fn throttle(&self, writes: u32, reads: u32) {
        self.script().throttle = Some(Throttle::new(writes, reads));
    }

    /// How many requests were throttled.
    pub fn throttled(&self) -> u64 {
        self.script().throttle.as_ref().map_or(0, |throttle| throttle.refused)
    }

    /// Delays every answer: the round trip of a line.
    pub fn delay(&self, delay: Duration) {
        self.script().delay = delay;
    }

    /// Counts from now on how many requests that contain `only` wait at a time.
    pub fn watch(&self, only: &str) {
        let mut script = self.script();
        script.watched = only.to_owned();
        script.most_waiting = 0;
    }

    /// The most watched requests that waited for their answers at a time.
    pub fn most_at_once(&self) -> usize {
        self.script().most_waiting
    }

    /// Counts a request as waiting until the result is dropped; also returns its delay.
    pub(crate) fn waits(&self, call: &Call) -> (Waiting, Duration) {
        let mut script = self.script();
        script.served += 1;
        let number = script.served;
        script.waiting.insert(number, call.clone());
        let waiting = script.waiting.values().filter(|call| call.contains(&script.watched)).count();
        script.most_waiting = script.most_waiting.max(waiting);
        (Waiting { faults: self.clone(), number }, script.delay)
    }

    /// The requests since the last call of this.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.script().calls)
    }

    /// Records a request and returns its fault, if it has one.
    pub(crate) fn next(&self, call: Call) -> Option<Fault> {
        let mut script = self.script();
        let rule = script.rules.iter_mut().find(|rule| rule.count > 0 && call.contains(&rule.only));
        let fault = match rule {
            Some(rule) if rule.pass > 0 => {
                rule.pass -= 1;
                None
            }
            Some(rule) => {
                rule.count -= 1;
                Some(rule.fault)
            }
            None => script.chance.as_mut().and_then(|chance| chance.fault(&call)),
        };
        let refuses = |throttle: &mut Throttle| throttle.refuses(&call, Instant::now());
        let slow_down = script.throttle.as_mut().is_some_and(refuses).then_some(Fault::SlowDown);
        let fault = fault.or(slow_down);
        script.calls.push(call);
        fault
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that has no answer yet.
pub(crate) struct Waiting {
    faults: Faults,
    number: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.faults.script().waiting.remove(&self.number);
    }
}
