//! Faults on demand: which of the coming requests fail, and how, by a script or by chance; and a
//! record of the requests. Knows requests by their method, path and query, and nothing of objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Stale listings in a row, by chance.
const MOST_STALE: usize = 2;

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 503 `SlowDown`, and nothing is done.
    SlowDown,
    /// It is done, and answered 500 `InternalError`.
    ErrorAfter,
    /// It is done, and the connection is reset instead of an answer.
    ResetAfter,
    /// The connection is reset, and nothing is done.
    ResetBefore,
    /// 409 `ConditionalRequestConflict`, and nothing is done.
    Conflict,
    /// 403 `RequestTimeTooSkewed`, and nothing is done.
    ClockSkew,
    /// 403 `SignatureDoesNotMatch`, and nothing is done: the key's secret is wrong.
    WrongSecret,
    /// It is done, and the answer comes in drops.
    Trickle,
    /// The request is read, nothing is done, and nothing is ever answered: a black hole.
    Hang,
    /// It is done, and nothing is ever answered.
    HangAfter,
    /// 404 `NoSuchKey`, whatever there is.
    NotFound,
    /// 507 `InsufficientStorage`, and nothing is done.
    Full,
    /// It is done, and the connection is cut in the middle of the answer's body.
    CutBody,
    /// It is done, and one bit of the answer's body is wrong.
    Flip,
    /// It is done, and the answer has half the body, as if that were all.
    Short,
    /// It is done twice, as by a proxy that sends again what was answered; the second answer is
    /// given.
    Twice,
    /// It is done, and once more a little later.
    TwiceLate,
    /// A listing is answered as it was some requests ago; everything else as it is.
    StaleList,
    /// The whole server is killed before it does it: nothing answers until it is started again.
    KilledBefore,
    /// The whole server is killed after it has done it.
    KilledAfter,
}

impl Fault {
    /// Every fault but those that kill the server, for tests that go through all.
    pub const SURVIVABLE: [Self; 6] = [
        Self::SlowDown,
        Self::ErrorAfter,
        Self::ResetAfter,
        Self::ResetBefore,
        Self::Conflict,
        Self::Trickle,
    ];
}

/// A request that was seen: method, path and query, such as `PUT /bucket/run/a?partNumber=1`.
pub type Call = String;

/// The script; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    /// Faults to come: matching requests to let pass first, how many then fail, how, and what the
    /// call must contain.
    rules: Vec<Rule>,
    calls: Vec<Call>,
    /// Before every answer.
    delay: Duration,
    /// Requests that wait for their answer now, and the most there ever were at a time.
    waiting: BTreeMap<u64, Call>,
    most_waiting: usize,
    /// What a request must contain to be counted among them.
    watched: String,
    served: u64,
    chance: Option<Chance>,
}

/// Faults by chance.
#[derive(Debug)]
struct Chance {
    state: u64,
    per_mille: u64,
    kinds: Vec<Fault>,
    /// Paths of which an answer was wrong in its bytes: once each, so that a second read is right.
    lied_about: BTreeSet<String>,
    /// Listings that were stale, one after the other: at most two.
    stale: usize,
}

impl Chance {
    /// The next of a sequence that follows from the seed: splitmix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fault(&mut self, call: &str) -> Option<Fault> {
        let (is_listing, fails) = (call.contains("list-type"), self.next() % 1000 < self.per_mille);
        let chosen = self.next() as usize % self.kinds.len();
        let fault = Some(self.kinds[chosen]).filter(|_| fails);
        if is_listing {
            self.stale = if fault == Some(Fault::StaleList) { self.stale + 1 } else { 0 };
        }
        let fault = fault.filter(|fault| *fault != Fault::StaleList || self.stale <= MOST_STALE)?;
        let path = call.split_once('?').map_or(call, |(path, _)| path).to_owned();
        let lies = matches!(fault, Fault::Flip | Fault::Short);
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

    /// So many of a thousand requests fail, each by one of these kinds, as follows from the seed
    /// and the order of the requests. Wrong bytes come from no path twice, and the third listing is
    /// not stale.
    pub fn fail_by_chance(&self, seed: u64, per_mille: u64, kinds: &[Fault]) {
        assert!(!kinds.is_empty(), "a request fails somehow");
        let (kinds, lied_about) = (kinds.to_vec(), BTreeSet::new());
        self.script().chance = Some(Chance { state: seed, per_mille, kinds, lied_about, stale: 0 });
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.script().rules.clear();
        self.script().chance = None;
    }

    /// Every answer comes this much later: the round trip of a line.
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

    /// Counts a request as waiting until the answer is dropped; how long it is to be delayed.
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

    /// Records a request and says whether it fails.
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
