//! A rate of requests beyond which the server answers 503, as stores do for each prefix: one of
//! writes, and one of reads.

use std::time::Instant;

#[derive(Debug)]
pub struct Throttle {
    writes: Bucket,
    reads: Bucket,
    /// Requests that were turned away.
    pub refused: u64,
}

impl Throttle {
    pub fn new(writes: u32, reads: u32) -> Self {
        Self { writes: Bucket::of(writes), reads: Bucket::of(reads), refused: 0 }
    }

    /// Whether a request is turned away; `call` begins with its method.
    pub fn refuses(&mut self, call: &str, now: Instant) -> bool {
        let is_read = call.starts_with("GET") || call.starts_with("HEAD");
        let bucket = if is_read { &mut self.reads } else { &mut self.writes };
        let refuses = !bucket.take(now);
        self.refused += u64::from(refuses);
        refuses
    }
}

/// Tokens that come back at a rate; those of one second at most.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    at: Option<Instant>,
}

impl Bucket {
    fn of(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, tokens: per_second, at: None }
    }

    fn take(&mut self, now: Instant) -> bool {
        let since = self.at.replace(now).map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.tokens = (self.tokens + since * self.per_second).min(self.per_second);
        let is_there = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(is_there));
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_of_a_second_passes_and_then_the_rate() {
        let (mut throttle, start) = (Throttle::new(10, 20), Instant::now());
        let mut passed = |call, after| {
            let now = start + Duration::from_millis(after);
            (0..100).filter(|_| !throttle.refuses(call, now)).count()
        };
        assert_eq!((passed("PUT /a", 0), passed("GET /a", 0), passed("HEAD /a", 0)), (10, 20, 0));
        assert_eq!((passed("DELETE /a", 500), passed("GET /a", 500)), (5, 10));
        assert_eq!(passed("POST /a", 60_000), 10);
        assert_eq!(throttle.refused, 600 - 55);
    }
}
