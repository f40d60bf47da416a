//! The points of one metric while they are logged: at most so many, thinned by the smallest and the
//! largest of each bucket of neighbouring steps.
//!
//! Buckets are aligned and double in width, so it makes no difference when they were thinned, nor
//! how often: the extremes of two halves are those of the whole.

use super::Point;

/// A curve has at most so many points: more than a page is wide, and 4 pages of memory each column.
pub(super) const MOST_POINTS: usize = 4096;

/// A bucket that is not finished has at most so many.
const OPEN: usize = 8;

/// The points of one metric, in the order of progress.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    points: Vec<Point>,
    /// How many steps a bucket has: a power of two.
    width: u64,
    /// How many values were logged.
    pub logged: u64,
    /// What was logged last by this attempt.
    pub newest: Option<Point>,
}

impl Default for Curve {
    fn default() -> Self {
        Self { points: Vec::new(), width: 1, logged: 0, newest: None }
    }
}

/// Where a point lies: a run that counts epochs alone is always at step 0.
pub(super) fn place(step: u64, epoch: u64) -> u64 {
    step.max(epoch)
}

impl Curve {
    /// From points that were thinned before, in order.
    pub(super) fn of(points: impl IntoIterator<Item = Point>, logged: u64) -> Self {
        let mut curve = Self::default();
        points.into_iter().for_each(|point| curve.push(point));
        curve.logged = curve.logged.max(logged);
        curve
    }

    pub(super) fn points(&self) -> &[Point] {
        &self.points
    }

    /// The points up to this progress.
    pub(super) fn until(&self, step: u64, epoch: u64) -> &[Point] {
        let last = place(step, epoch);
        &self.points[..self.points.partition_point(|point| place(point.step, point.epoch) <= last)]
    }

    /// How many values were logged up to there.
    pub(super) fn logged_until(&self, step: u64, epoch: u64) -> u64 {
        let beyond = self.points.len() - self.until(step, epoch).len();
        self.logged.saturating_sub(beyond as u64)
    }

    /// Adds a point of this attempt.
    pub(super) fn log(&mut self, point: Point) {
        self.push(point);
        self.newest = Some(point);
    }

    /// Adds a point. One of the newest progress replaces what was logged there.
    pub(super) fn push(&mut self, point: Point) {
        let new = place(point.step, point.epoch);
        let Some(last) = self.points.last_mut() else {
            self.logged = self.logged.saturating_add(1);
            return self.points.push(point);
        };
        if (last.step, last.epoch) == (point.step, point.epoch) {
            *last = point;
            return;
        }
        self.logged = self.logged.saturating_add(1);
        if new < place(last.step, last.epoch) {
            return self.insert(point);
        }
        let bucket = place(last.step, last.epoch) / self.width;
        let start = self.start_of(bucket);
        if new / self.width != bucket || self.points.len() - start >= OPEN {
            self.close_from(start);
        }
        self.points.push(point);
        self.thin_to(MOST_POINTS);
    }

    /// A value that was computed for an earlier step, such as by an evaluation beside training.
    fn insert(&mut self, point: Point) {
        let new = place(point.step, point.epoch);
        let at = self.points.partition_point(|there| place(there.step, there.epoch) <= new);
        match self.points[..at].last_mut() {
            Some(there) if (there.step, there.epoch) == (point.step, point.epoch) => {
                *there = point;
                self.logged = self.logged.saturating_sub(1);
            }
            _ => self.points.insert(at, point),
        }
        self.thin_to(MOST_POINTS);
    }

    /// Where the points of the last bucket begin.
    fn start_of(&self, bucket: u64) -> usize {
        let others = |point: &Point| place(point.step, point.epoch) / self.width != bucket;
        self.points.iter().rposition(others).map_or(0, |at| at + 1)
    }

    fn close_from(&mut self, start: usize) {
        let mut kept = start;
        for at in extremes(&self.points[start..]) {
            self.points[kept] = self.points[start + at];
            kept += 1;
        }
        self.points.truncate(kept);
    }

    /// Makes buckets wider until there are at most so many points, 4 at least. The newest point
    /// stays.
    pub(super) fn thin_to(&mut self, most: usize) {
        while self.points.len() > most.max(OPEN) && self.width < 1 << 62 {
            self.width *= 2;
            let Some(newest) = self.points.pop() else { return };
            let width = self.width;
            let same =
                |a: &Point, b: &Point| place(a.step, a.epoch) / width == place(b.step, b.epoch) / width;
            let closed =
                self.points.chunk_by(same).flat_map(|bucket| extremes(bucket).map(move |at| bucket[at]));
            self.points = closed.chain([newest]).collect();
        }
    }
}

/// The places of the smallest and the largest finite value, and of the first that is not finite, in
/// order.
fn extremes(bucket: &[Point]) -> impl Iterator<Item = usize> + use<> {
    let (mut least, mut most, mut not_finite) = (None::<usize>, None::<usize>, None);
    for (at, point) in bucket.iter().enumerate() {
        if !point.value.is_finite() {
            not_finite = not_finite.or(Some(at));
            continue;
        }
        if least.is_none_or(|there| point.value < bucket[there].value) {
            least = Some(at);
        }
        if most.is_none_or(|there| point.value > bucket[there].value) {
            most = Some(at);
        }
    }
    let mut places = [least, most.filter(|_| most != least), not_finite];
    places.sort_unstable();
    places.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Curve {
        /// The value at exactly this progress.
        fn at(&self, step: u64, epoch: u64) -> Option<f64> {
            let near = self.until(step, epoch).iter().rev();
            let mut near = near.take_while(|point| place(point.step, point.epoch) == place(step, epoch));
            near.find(|point| (point.step, point.epoch) == (step, epoch)).map(|point| point.value)
        }
    }

    fn point(step: u64, value: f64) -> Point {
        Point { step, epoch: step / 1000, time: step as f64, value }
    }

    #[test]
    fn a_long_curve_keeps_its_peaks_its_nan_and_its_ends() {
        let value = |step| match step {
            777_777 => 1e9,
            123_456 => -1e9,
            500_001 => f64::NAN,
            _ => (step as f64).sin(),
        };
        let curve = Curve::of((1..=1_000_000).map(|step| point(step, value(step))), 0);
        assert!(curve.points.len() <= MOST_POINTS && curve.points.len() > MOST_POINTS / 4);
        for step in [777_777, 123_456] {
            assert_eq!(curve.at(step, step / 1000), Some(value(step)));
        }
        assert!(curve.at(500_001, 500).is_some_and(f64::is_nan));
        assert_eq!((curve.logged, curve.points.last().map(|point| point.step)), (1_000_000, Some(1_000_000)));
        assert!(curve.points.windows(2).all(|pair| pair[0].step < pair[1].step));
    }

    #[test]
    fn a_run_that_counts_epochs_alone_is_thinned_by_epoch() {
        let at = |epoch| Point { step: 0, epoch, time: 0.0, value: epoch as f64 };
        let curve = Curve::of((0..100_000).map(at), 0);
        assert!(curve.points.len() <= MOST_POINTS && curve.points.len() > MOST_POINTS / 4);
        assert_eq!(curve.at(0, 99_999), Some(99_999.0));
    }

    #[test]
    fn a_second_value_of_one_progress_replaces_the_first() {
        let mut curve = Curve::of([point(1, 1.0), point(2, 2.0), point(5, 5.0)], 0);
        curve.push(point(5, 6.0));
        curve.push(point(2, 3.0));
        curve.push(point(3, 4.0));
        let steps: Vec<(u64, f64)> = curve.points.iter().map(|point| (point.step, point.value)).collect();
        assert_eq!(steps, [(1, 1.0), (2, 3.0), (3, 4.0), (5, 6.0)]);
        assert_eq!(curve.until(3, 0).len(), 3);
    }

    proptest! {
        #[test]
        fn thinning_keeps_the_extremes(values in prop::collection::vec(-1e6..1e6f64, 1..3000), most in 8usize..200) {
            let mut curve = Curve::of(values.iter().enumerate().map(|(at, &value)| point(at as u64, value)), 0);
            curve.thin_to(most);
            prop_assert!(curve.points.len() <= most);
            let found = |pick: fn(f64, f64) -> f64| curve.points.iter().map(|point| point.value).reduce(pick);
            prop_assert_eq!(found(f64::min), values.iter().copied().reduce(f64::min));
            prop_assert_eq!(found(f64::max), values.iter().copied().reduce(f64::max));
            prop_assert_eq!(curve.points.last().map(|point| point.value), values.last().copied());
        }
    }
}
