//! How long the commit of a checkpoint of many ranks takes once the last byte of the last shard is
//! stored, by a simulation of its requests and messages. What it assumes of stores and networks is
//! of the published order, and nothing here measures one; docs/scale.md has the table.

/// Median and 99th percentile of a lognormal latency, in seconds.
type Latency = (f64, f64);

/// A request that writes a small object, and a page of a listing.
const WRITE: Latency = (0.035, 0.250);
const LIST: Latency = (0.060, 0.300);
/// A message from one rank to another; bandwidth is apart.
const HOP: Latency = (1e-4, 5e-3);
/// Bytes a second of a rank's network, and of its upload to the store.
const NETWORK: f64 = 1e9;
const UPLOAD: f64 = 100e6;
/// What rank 0 works on each message that it receives or sends.
const MESSAGE: f64 = 2e-5;
/// One request of so many fails, and is sent again after a pause.
const FAILS: u64 = 2000;
const PAUSE: f64 = 0.1;
/// Bytes of a rank's receipt, and of the manifest: for each rank, and besides.
const RECEIPT: f64 = 150.0;
const MANIFEST: (f64, f64) = (40.0, 1.2e6);

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    /// In 0..1, without 0.
    fn unit(&mut self) -> f64 {
        (self.next() + 1) as f64 / (1_u64 << 53) as f64
    }

    fn latency(&mut self, (median, p99): Latency) -> f64 {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        median * (normal * (p99 / median).ln() / 2.326).exp()
    }

    /// The end of a request that begins at `now`.
    fn request(&mut self, mut now: f64, latency: Latency) -> f64 {
        loop {
            now += self.latency(latency);
            if !self.next().is_multiple_of(FAILS) {
                return now;
            }
            now += PAUSE * self.unit();
        }
    }
}

/// Seconds from the last shard's last byte until rank 0 knows of the commit, and until every rank
/// does. `spread` is the time within which the shards become durable.
fn commit(ranks: u32, spread: f64, seed: u64) -> (f64, f64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let stored: Vec<f64> = (0..ranks).map(|_| spread * random.unit()).collect();
    let last = stored.iter().fold(0.0, |last: f64, time| last.max(*time));
    // Receipts come to rank 0, which takes one after the other.
    let mut arrivals: Vec<f64> =
        stored.into_iter().map(|time| time + random.latency(HOP) + RECEIPT / NETWORK).collect();
    arrivals.sort_by(f64::total_cmp);
    let gathered = arrivals.into_iter().fold(0.0, |now: f64, arrival| now.max(arrival) + MESSAGE);
    // It looks for a newer writer, creates the manifest, and looks again.
    let looked = random.request(gathered, LIST);
    let manifest = (MANIFEST.0 * f64::from(ranks) + MANIFEST.1) / UPLOAD;
    let created = random.request(looked + manifest, WRITE);
    let durable = random.request(created, LIST);
    // And tells the others, one after the other.
    let told = (1..=ranks).map(|rank| durable + f64::from(rank) * MESSAGE + random.latency(HOP));
    let known = told.fold(durable, f64::max);
    (durable - last, known - last)
}

/// Medians of many runs.
fn typical(ranks: u32, spread: f64) -> (f64, f64) {
    let mut runs: Vec<(f64, f64)> = (1..=51).map(|seed| commit(ranks, spread, seed)).collect();
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let durable = runs[25].0;
    runs.sort_by(|a, b| a.1.total_cmp(&b.1));
    (durable, runs[25].1)
}

#[test]
fn a_commit_of_16_384_ranks_takes_less_than_2_seconds() {
    // Bounds for shards that are all stored at the same moment, the worst case.
    for (ranks, durable, known) in
        [(8, 0.3, 0.3), (64, 0.3, 0.3), (512, 0.3, 0.35), (2048, 0.4, 0.45), (16_384, 0.7, 1.2)]
    {
        let found = typical(ranks, 0.01);
        println!("{ranks:6} ranks: durable after {:.2} s, known after {:.2} s", found.0, found.1);
        assert!(found.0 < durable && found.1 < known, "{ranks} ranks: {found:?}");
        let slowest = (1..=51).map(|seed| commit(ranks, 0.01, seed).1).fold(0.0, f64::max);
        assert!(slowest < 2.0, "{ranks} ranks: {slowest}");
    }
}

#[test]
fn stragglers_hide_what_the_receipts_cost() {
    let (at_once, spread) = (typical(16_384, 0.01), typical(16_384, 15.0));
    assert!(spread.0 < at_once.0, "{spread:?} beside {at_once:?}");
}
