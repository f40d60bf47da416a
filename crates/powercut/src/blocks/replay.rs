//! Disks that a power cut may have left, built from a drive's log.
//!
//! A drive keeps every write before a flush. Of the writes since, it may have kept a prefix, or any
//! subset in any order, the last of them torn between two sectors (or larger units, where the file
//! system needs them). Each such disk is mounted and given to the oracle, exactly as after a real
//! cut. The next trainer continues on one of them.

use super::device::{Device, Event};
use super::image::Image;
use crate::random::{self, Random};
use crate::subject::Promise;
use crate::tally::Tally;
use crate::trainer::{Trainer, Word};
use crate::{Options, Result};
use serde_json::Value;
use std::ops::Range;
use std::time::Duration;

/// One possible disk: the log up to and including an event, and the writes kept after the last
/// flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cut {
    event: usize,
    kind: Kind,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// All writes in order, the last one whole.
    Prefix,
    /// All writes in order, the last one torn.
    Torn,
    /// Any of the writes since the last flush, some of them torn.
    Subset,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::Torn => "prefix, the last write torn",
            Self::Subset => "subset of what was not flushed",
        }
    }
}

/// Lives and replays until the requested number of states, and reports.
pub fn run(options: &Options) -> Result<Value> {
    let seed = random::seed(options);
    let mut random = Random(seed);
    let mut device = Device::create(options, seed)?;
    let mut tally = Tally::new(seed)?;
    let formatted = device.image();
    let (mut start, mut promise) = (formatted.clone(), Promise::default());
    let mut lives = 0;
    let mut writes = 0;
    let mut flushes = 0;
    while tally.left(options) > 0 {
        device.load(start.clone());
        let log = live(options, &mut device, &mut random)?;
        lives += 1;
        writes += log.iter().filter(|event| matches!(event, Event::Write { .. })).count() as u64;
        flushes += log.iter().filter(|event| matches!(event, Event::Flush)).count() as u64;
        tally.saved += said(&log, Promise::default())?.count;
        let left = tally.left(options) as usize;
        let cuts = plan(&log, options.per_life.min(left), &mut random);
        let mut disk = Disk::new(start.clone(), promise);
        for cut in &cuts {
            if tally.left(options) == 0 {
                break;
            }
            disk.advance(&log, cut.event)?;
            device.load(disk.after(&log, *cut, options.fs.atomic_bytes()));
            device.mount()?;
            let whole = tally.judge(options, &device.mount_point, cut.kind.name(), disk.promise);
            device.unmount()?;
            (start, promise) =
                if whole { (device.image(), disk.promise) } else { (formatted.clone(), Promise::default()) };
        }
    }
    Ok(tally.report(options, "states", &[("lives", lives), ("block_writes", writes), ("flushes", flushes)]))
}

/// A trainer's life on the device, and the device's log of it.
fn live(options: &Options, device: &mut Device, random: &mut Random) -> Result<Vec<Event>> {
    // Mounting writes, too.
    let hear = device.record();
    device.mount()?;
    let mut trainer = Trainer::start(options, &device.mount_point, None, hear)?;
    // Longer than before a live cut: a log has all the moments of a life.
    std::thread::sleep(Duration::from_micros(5_000 + random.below(options.max_ms.max(6) * 4000)));
    trainer.kill()?;
    trainer.end(Duration::ZERO)?;
    let log = device.recorded();
    device.unmount()?;
    Ok(log)
}

/// The messages in a log, added to the earlier ones.
fn said(log: &[Event], mut promise: Promise) -> Result<Promise> {
    for event in log {
        match event {
            Event::Said(Word::Saved(step)) => promise.saved(*step),
            Event::Said(Word::Broken(words)) => return Err(format!("the trainer says: {words}").into()),
            _ => {}
        }
    }
    Ok(promise)
}

/// The places to cut: half of them prefixes, each write once if there are no more of them; half of
/// them subsets.
fn plan(log: &[Event], count: usize, random: &mut Random) -> Vec<Cut> {
    let mut places: Vec<usize> =
        (0..log.len()).filter(|&at| matches!(log[at], Event::Write { .. })).collect();
    let subsets = if count == 0 { places.len() } else { count / 2 };
    let mut cuts = Vec::new();
    for _ in 0..subsets.min(places.len() * 4) {
        let event = places[random.below(places.len() as u64) as usize];
        cuts.push(Cut { event, kind: Kind::Subset, seed: random.below(u64::MAX) });
    }
    while count > 0 && places.len() > count - subsets {
        places.swap_remove(random.below(places.len() as u64) as usize);
    }
    cuts.extend(places.into_iter().map(|event| {
        let kind = if random.below(4) == 0 { Kind::Torn } else { Kind::Prefix };
        Cut { event, kind, seed: random.below(u64::MAX) }
    }));
    cuts.sort();
    cuts
}

/// The contents of the disk that are certain, as the log goes on.
struct Disk {
    kept: Image,
    /// Events of the log that are in `kept`: all up to a flush.
    flushed: usize,
    /// Events whose messages are in `promise`.
    heard: usize,
    promise: Promise,
}

impl Disk {
    fn new(kept: Image, promise: Promise) -> Self {
        Self { kept, flushed: 0, heard: 0, promise }
    }

    /// Applies everything that an event of the log has made certain.
    fn advance(&mut self, log: &[Event], event: usize) -> Result<()> {
        if let Some(flush) = (self.flushed..event).rev().find(|&at| matches!(log[at], Event::Flush)) {
            for event in &log[self.flushed..flush] {
                if let Event::Write { offset, bytes } = event {
                    self.kept.write_at(*offset, bytes);
                }
            }
            self.flushed = flush + 1;
        }
        self.promise = said(&log[self.heard..=event], self.promise)?;
        self.heard = event + 1;
        Ok(())
    }

    /// The disk after a cut after the last flush. Writes are torn at multiples of `atomic_bytes`.
    fn after(&self, log: &[Event], cut: Cut, atomic_bytes: u64) -> Image {
        let mut random = Random(cut.seed);
        let likely = random.below(1000);
        let mut image = self.kept.clone();
        for (at, event) in log.iter().enumerate().take(cut.event + 1).skip(self.flushed) {
            let Event::Write { offset, bytes } = event else { continue };
            let (kept, torn) = match cut.kind {
                Kind::Prefix => (true, false),
                Kind::Torn => (true, at == cut.event),
                Kind::Subset => (random.below(1000) < likely, random.below(10) == 0),
            };
            let end = offset + bytes.len() as u64;
            let end = if torn { tear(*offset..end, atomic_bytes, &mut random) } else { end };
            if kept {
                image.write_at(*offset, &bytes[..(end - offset) as usize]);
            }
        }
        image
    }
}

/// A multiple of `atomic_bytes` in a write, or one of its ends.
fn tear(write: Range<u64>, atomic_bytes: u64, random: &mut Random) -> u64 {
    let inside = (write.end - 1) / atomic_bytes - write.start / atomic_bytes;
    match random.below(inside + 2) {
        0 => write.start,
        nth => write.end.min((write.start / atomic_bytes + nth) * atomic_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn write(offset: u64, byte: u8) -> Event {
        Event::Write { offset, bytes: vec![byte; 1024] }
    }

    #[test]
    fn flushed_writes_are_kept_and_any_part_of_the_others() {
        let path = std::env::temp_dir().join(format!("powercut-image-{}", std::process::id()));
        std::fs::write(&path, vec![0; 8192]).unwrap();
        let empty = Image::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let log = [write(0, 1), Event::Flush, Event::Said(Word::Saved(7)), write(1024, 2), write(2048, 3)];
        let mut disk = Disk::new(empty, Promise::default());
        disk.advance(&log, 4).unwrap();
        assert_eq!(disk.promise, Promise { newest: 7, count: 1 });
        let mut seconds = 0;
        let mut torn = 0;
        for seed in 0..3000 {
            let left = disk.after(&log, Cut { event: 4, kind: Kind::Subset, seed }, 512);
            assert_eq!(left.read_at(0, 1024), [1; 1024], "flushed");
            seconds += u64::from(left.read_at(1024, 1) == [0] && left.read_at(2048, 1) == [3]);
            torn += u64::from(left.read_at(2048, 1024) == [[3; 512], [0; 512]].concat());
        }
        assert!(seconds > 300 && torn > 15, "{seconds} without the first, {torn} torn");
        let prefix = disk.after(&log, Cut { event: 4, kind: Kind::Prefix, seed: 0 }, 512);
        assert_eq!(prefix.read_at(1024, 2048), [[2; 1024], [3; 1024]].concat());
    }

    #[test]
    fn a_write_is_torn_only_between_atomic_units() {
        let mut random = Random(3);
        let mut tears = |write: Range<u64>, atomic_bytes| -> BTreeSet<u64> {
            (0..200).map(|_| tear(write.clone(), atomic_bytes, &mut random)).collect()
        };
        assert_eq!(tears(1024..2048, 512), BTreeSet::from([1024, 1536, 2048]));
        assert_eq!(tears(1024..2048, 1024), BTreeSet::from([1024, 2048]), "the superblock of ext4");
        assert_eq!(tears(0..3072, 1024), BTreeSet::from([0, 1024, 2048, 3072]));
        assert_eq!(tears(512..5120, 4096), BTreeSet::from([512, 4096, 5120]));
    }

    #[test]
    fn every_prefix_is_in_a_plan_that_has_room_for_it() {
        let log = [write(0, 1), Event::Flush, write(0, 2), write(0, 3)];
        for count in [0, 6, 100] {
            let cuts = plan(&log, count, &mut Random(1));
            let prefixes: Vec<_> =
                cuts.iter().filter(|cut| cut.kind != Kind::Subset).map(|cut| cut.event).collect();
            assert_eq!(prefixes, [0, 2, 3]);
            assert!(cuts.is_sorted() && cuts.iter().any(|cut| cut.kind == Kind::Subset));
        }
    }
}
