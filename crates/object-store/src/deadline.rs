//! The deadlines of calls, and when their requests are sent again. Only this layer decides: the
//! clients are built without retries and timeouts of their own.
//!
//! A call of the engine has a deadline. Within it, a request without an answer is cut and sent
//! again, and one with a transient error (5xx, 429, 408, a reset, a refused connection) is sent
//! again after a pause that doubles. A request that moves bytes has more time, by the slowest
//! tolerated line; a read's deadline moves with every byte that arrives. Where a store's call has a
//! deadline of its own, for all its calls of the engine, that one applies, too.

use crate::error::is_final;
use object_store::Error as StoreError;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use tensorkeep::engine::CallDeadline;
use tokio::time::{Instant, sleep, timeout_at};

/// The pause before the second try, at most this fraction of the call; and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const OF_CALL: u32 = 30;
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// With less time left than this, nothing is retried.
const LAST_PAUSE: Duration = Duration::from_millis(10);

/// The time limits of an engine's calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A call that moves no data.
    pub call: Duration,
    /// A request that moves no data: after this time it is cut and sent again.
    pub request: Duration,
    /// Bytes a second on the slowest line.
    pub rate: u64,
}

impl Limits {
    /// Limits of `call`, with room for two more tries of a request that hangs.
    pub(crate) fn of(call: Duration) -> Self {
        Self { call, request: (call / 3).min(Duration::from_secs(30)), rate: 100_000 }
    }

    /// The time for `bytes` on the slowest line.
    pub(crate) fn allowance(&self, bytes: u64) -> Duration {
        Duration::from_micros(bytes.saturating_mul(1_000_000) / self.rate)
    }

    /// The limits of the call that this thread works for.
    pub(crate) fn patience(self) -> Patience {
        Patience { limits: self, outer: CallDeadline::current() }
    }
}

/// The limits of one call of the engine: its own, and those of the store's call that it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    pub limits: Limits,
    outer: Option<CallDeadline>,
}

impl Patience {
    /// As [`Patience::begin`], for a call with one request, which is not cut before the call ends.
    pub(crate) fn whole(mut self, bytes: u64) -> Deadline {
        self.limits.request = Duration::MAX;
        self.begin(bytes)
    }

    /// The deadline of a call that begins now and moves `bytes`.
    pub(crate) fn begin(&self, bytes: u64) -> Deadline {
        let call = self.call(self.limits.allowance(bytes));
        Deadline { patience: self.clone(), call, until: Instant::now() + call }
    }

    /// The time of a call that is allowed `allowance` for its bytes.
    fn call(&self, allowance: Duration) -> Duration {
        // Longer than any process lives, without overflow.
        let most = Duration::from_secs(1 << 32);
        let left = self.outer.as_ref().map_or(most, CallDeadline::left);
        self.limits.call.min(left).saturating_add(allowance).min(most)
    }

    /// Whether a request would come too late for the store's call.
    pub(crate) fn is_over(&self) -> bool {
        self.outer.as_ref().is_some_and(|outer| outer.left().is_zero())
    }

    /// Extends the store's call by the time that `bytes` take on the slowest line.
    pub(crate) fn moved(&self, bytes: u64) {
        if let Some(outer) = &self.outer {
            outer.extend(self.limits.allowance(bytes));
        }
    }
}

/// The end of a call, independent of its progress.
#[derive(Clone, Debug)]
pub(crate) struct Deadline {
    patience: Patience,
    call: Duration,
    until: Instant,
}

impl Deadline {
    /// Moves the deadline for `bytes` that have arrived.
    pub(crate) fn extend(&mut self, bytes: u64) {
        self.patience.moved(bytes);
        self.until = Instant::now() + self.call.min(self.patience.call(Duration::ZERO));
    }

    /// One try of a request that moves `bytes`.
    pub(crate) async fn once<T>(
        &self,
        bytes: u64,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if self.patience.is_over() {
            return Err(passed());
        }
        let begin = Instant::now();
        let allowed = self.patience.limits.request.saturating_add(self.patience.limits.allowance(bytes));
        let until = begin.checked_add(allowed).map_or(self.until, |until| until.min(self.until));
        match timeout_at(until, request).await {
            Ok(result) => result,
            Err(_) => Err(generic(NoAnswer(begin.elapsed()))),
        }
    }

    /// Tries until it succeeds, fails for good, or time is up; then returns the last error with
    /// more content than that.
    pub(crate) async fn retry<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        bytes: u64,
        mut request: impl FnMut() -> F,
    ) -> Result<T, StoreError> {
        let mut tries = Tries::default();
        loop {
            let error = match self.once(bytes, request()).await {
                Err(error) => error,
                done => return done,
            };
            if !self.again(&mut tries, error).await {
                return Err(tries.gave_up());
            }
        }
    }

    /// Whether to try again after an error that may pass and has not lasted too long: waits before
    /// it returns true. False for a final error, and when time is up.
    pub(crate) async fn again(&self, tries: &mut Tries, error: StoreError) -> bool {
        let is_over = is_final(&error, tries.since());
        tries.failed(error);
        !is_over && self.pause(tries).await
    }

    /// Waits before the next try; false when there is no time for one.
    pub(crate) async fn pause(&self, tries: &mut Tries) -> bool {
        let left = self.until.saturating_duration_since(Instant::now());
        if left < LAST_PAUSE {
            return false;
        }
        // At most half of the time left: a call with a short deadline retries near its end, too.
        let first = FIRST_PAUSE.min(self.patience.limits.call / OF_CALL);
        sleep(tries.next_pause(first).min(left / 2)).await;
        true
    }
}

/// The tries of one request: their number, duration and results.
#[derive(Debug)]
pub(crate) struct Tries {
    begin: Instant,
    count: u32,
    told: Option<StoreError>,
}

impl Default for Tries {
    fn default() -> Self {
        Self { begin: Instant::now(), count: 1, told: None }
    }
}

impl Tries {
    /// The pause after this try: twice the one before, less up to a half at random, so that a
    /// thousand trainers do not return at the same moment.
    fn next_pause(&mut self, first: Duration) -> Duration {
        let whole = (first * 2_u32.saturating_pow(self.count.min(16) - 1)).min(LONGEST_PAUSE);
        self.count = self.count.saturating_add(1);
        // OK to cast: below 1000.
        let chance = (RandomState::new().hash_one(self.count) % 1000) as u32;
        whole - whole * chance / 2000
    }

    /// The time since the first try.
    fn since(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Keeps the last error with more content than "no answer came" or "no request was sent".
    pub(crate) fn failed(&mut self, error: StoreError) {
        let says_little = is_no_answer(&error) || is_passed(&error);
        if self.told.is_none() || !says_little {
            self.told = Some(error);
        }
    }

    /// The error of all tries.
    pub(crate) fn gave_up(self) -> StoreError {
        let (count, since) = (self.count, self.since());
        match self.told.unwrap_or_else(|| generic(NoAnswer(since))) {
            StoreError::Generic { store, source } if count > 1 => {
                StoreError::Generic { store, source: Box::new(GaveUp { tries: count, since, source }) }
            }
            error => error,
        }
    }
}

/// The error of a request that is not sent, because the store's call has no time left for it.
pub(crate) fn passed() -> StoreError {
    StoreError::Generic { store: "tensorkeep", source: Box::new(CallDeadline::passed()) }
}

fn is_passed(error: &StoreError) -> bool {
    matches!(error, StoreError::Generic { source, .. } if source.is::<tensorkeep::Error>())
}

/// No answer in time.
#[derive(Debug)]
struct NoAnswer(Duration);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {:.1} s", self.0.as_secs_f64())
    }
}

impl std::error::Error for NoAnswer {}

/// Retried until the deadline.
#[derive(Debug)]
struct GaveUp {
    tries: u32,
    since: Duration,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gave up after {} tries in {:.1} s", self.tries, self.since.as_secs_f64())
    }
}

impl std::error::Error for GaveUp {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

fn generic(error: NoAnswer) -> StoreError {
    StoreError::Generic { store: "tensorkeep", source: Box::new(error) }
}

/// Whether an error only means that no answer came.
pub(crate) fn is_no_answer(error: &StoreError) -> bool {
    matches!(error, StoreError::Generic { source, .. } if source.is::<NoAnswer>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(test)
    }

    fn passing() -> StoreError {
        StoreError::Generic { store: "S3", source: "status code: 503 Service Unavailable: SlowDown".into() }
    }

    #[test]
    fn retries_go_by_time_and_their_pauses_double() {
        run(async {
            let (begin, at) = (Instant::now(), std::cell::RefCell::new(Vec::new()));
            let deadline = Limits::of(Duration::from_secs(180)).patience().begin(0);
            let result = deadline.retry(0, || async {
                at.borrow_mut().push(begin.elapsed());
                Err::<(), _>(passing())
            });
            let error = result.await.unwrap_err();
            let took = begin.elapsed().as_secs_f64();
            assert!((170.0..=180.1).contains(&took), "{took} s");
            assert!(error.to_string().contains("gave up after"), "{error}");
            let pauses: Vec<f64> =
                at.borrow().windows(2).map(|two| (two[1] - two[0]).as_secs_f64()).collect();
            for (number, pause) in pauses[..8].iter().enumerate() {
                let whole = (0.1 * f64::from(1 << number)).min(15.0);
                assert!((whole / 2.0 - 0.002..=whole + 0.002).contains(pause), "pause {number}: {pauses:?}");
            }
            assert!(pauses.iter().all(|pause| *pause <= 15.002), "{pauses:?}");
        });
    }

    #[test]
    fn a_server_that_is_back_after_a_minute_is_found() {
        run(async {
            let begin = Instant::now();
            let deadline = Limits::of(Duration::from_secs(180)).patience().begin(0);
            let away = Duration::from_secs(60);
            let result =
                deadline.retry(0, || async { if begin.elapsed() < away { Err(passing()) } else { Ok(()) } });
            result.await.unwrap();
            assert!(begin.elapsed() < Duration::from_secs(76), "{:?}", begin.elapsed());
        });
    }

    #[test]
    fn silence_costs_one_deadline_and_three_tries() {
        run(async {
            let (begin, tries) = (Instant::now(), Cell::new(0));
            let deadline = Limits::of(Duration::from_secs(30)).patience().begin(0);
            let result = deadline.retry(0, || {
                tries.set(tries.get() + 1);
                std::future::pending::<Result<(), StoreError>>()
            });
            let error = result.await.unwrap_err();
            assert!(begin.elapsed() <= Duration::from_secs(30), "{:?}", begin.elapsed());
            assert!((3..=10).contains(&tries.get()), "{} tries", tries.get());
            assert!(!is_no_answer(&error), "the tries are told: {error}");
        });
    }

    #[test]
    fn a_final_error_is_not_retried() {
        run(async {
            for words in [
                "status code: 400 Bad Request: <Code>ExpiredToken",
                "status code: 507 x",
                "status code: 501 x",
            ] {
                let tries = Cell::new(0);
                let result = Limits::of(Duration::from_secs(30)).patience().begin(0);
                let result = result.retry(0, || {
                    tries.set(tries.get() + 1);
                    let error = StoreError::Generic { store: "S3", source: words.into() };
                    std::future::ready(Err::<(), _>(error))
                });
                result.await.unwrap_err();
                assert_eq!(tries.get(), 1, "{words}");
            }
        });
    }
}
