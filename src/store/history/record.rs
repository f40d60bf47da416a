//! The bytes of a history: columns of numbers, each but the values as the difference to the one
//! before, which is what makes it short. SPEC.md has it as the reserved record
//! `tensorkeep.history`.

use super::{History, Life, LifeEnd, Point, Series};
use crate::error::{Error, Result};
use crate::store::keep::Mode;
use crate::store::naming::CheckpointId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    pub metrics: BTreeMap<String, SeriesRecord>,
    pub lives: Lives,
    #[serde(skip_serializing_if = "is_zero")]
    pub metrics_left_out: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub lives_left_out: u64,
}

/// One metric.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SeriesRecord {
    logged: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    better: Option<String>,
    steps: Vec<i64>,
    /// Empty where all are 0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    epochs: Vec<i64>,
    /// In milliseconds: a clock may go back.
    times: Vec<i64>,
    values: Vec<Value>,
}

/// All lives, column by column.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Lives {
    attempts: Vec<u32>,
    /// Nil where it is not known, empty where it is that of the life before.
    hosts: Vec<Option<String>>,
    pids: Vec<u32>,
    started: Vec<i64>,
    /// From `started` until it was last heard of.
    seconds: Vec<i64>,
    first_steps: Vec<Option<u64>>,
    last_steps: Vec<Option<u64>>,
    saves: Vec<u64>,
    resumed_from: Vec<Option<(u32, u64)>>,
    ends: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A number as the shorter of the two floats that say it exactly. NaN is any NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Value(f64);

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let short = self.0 as f32;
        if f64::from(short) == self.0 || self.0.is_nan() {
            to.serialize_f32(short)
        } else {
            to.serialize_f64(self.0)
        }
    }
}

impl<'d> Deserialize<'d> for Value {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Self, D::Error> {
        f64::deserialize(from).map(Self)
    }
}

/// The differences of a column, the first number being its own. Modulo 2^64, so that every column
/// has them.
fn differences(numbers: impl Iterator<Item = u64>) -> Vec<i64> {
    let mut before = 0;
    numbers.map(|number| number.wrapping_sub(std::mem::replace(&mut before, number)).cast_signed()).collect()
}

fn sums(differences: &[i64]) -> Vec<u64> {
    let mut sum = 0_u64;
    let next = |difference: &i64| {
        sum = sum.wrapping_add_signed(*difference);
        sum
    };
    differences.iter().map(next).collect()
}

/// Refuses columns of different lengths.
fn check_columns(of: impl fmt::Display, expected: usize, columns: &[(&str, usize)]) -> Result<()> {
    match columns.iter().find(|(_, len)| *len != expected) {
        None => Ok(()),
        Some((column, found)) => Err(Error::damaged(format!("column {column:?} of {of}"))
            .expected(format!("{expected} numbers"))
            .found(found)),
    }
}

impl SeriesRecord {
    pub(super) fn of(points: &[Point], logged: u64, mode: Option<Mode>) -> Self {
        let column = |number: fn(&Point) -> u64| differences(points.iter().map(number));
        let has_epochs = points.iter().any(|point| point.epoch > 0);
        // OK to cast: saturates, and a time is no such number.
        let milliseconds = |point: &Point| ((point.time * 1000.0).round() as i64).cast_unsigned();
        Self {
            logged,
            better: mode.map(|mode| if mode == Mode::Min { "min" } else { "max" }.to_owned()),
            steps: column(|point| point.step),
            epochs: if has_epochs { column(|point| point.epoch) } else { vec![] },
            times: column(milliseconds),
            values: points.iter().map(|point| Value(point.value)).collect(),
        }
    }

    fn series(&self, metric: &str) -> Result<Series> {
        let len = self.values.len();
        let epochs = if self.epochs.is_empty() { len } else { self.epochs.len() };
        let columns = [("steps", self.steps.len()), ("epochs", epochs), ("times", self.times.len())];
        check_columns(format_args!("metric {metric:?}"), len, &columns)?;
        let mode = match self.better.as_deref() {
            Some("min") => Some(Mode::Min),
            Some("max") => Some(Mode::Max),
            _ => None,
        };
        Ok(Series {
            steps: sums(&self.steps),
            epochs: if self.epochs.is_empty() { vec![0; len] } else { sums(&self.epochs) },
            times: sums(&self.times).into_iter().map(|time| time.cast_signed() as f64 / 1000.0).collect(),
            values: self.values.iter().map(|value| value.0).collect(),
            logged: self.logged.max(len as u64),
            mode,
        })
    }
}

impl Lives {
    pub(super) fn of<'l>(lives: impl IntoIterator<Item = &'l Life>) -> Self {
        let (mut columns, mut started, mut host) = (Self::default(), vec![], "");
        for life in lives {
            columns.attempts.push(life.attempt);
            columns.hosts.push(match &*life.host {
                "" => None,
                same if same == host => Some(String::new()),
                other => Some(other.to_owned()),
            });
            host = &life.host;
            columns.pids.push(life.pid);
            started.push(life.started);
            columns.seconds.push(life.last_seen.wrapping_sub(life.started).cast_signed());
            columns.first_steps.push(life.first_step);
            columns.last_steps.push(life.last_step);
            columns.saves.push(life.saves);
            columns.resumed_from.push(life.resumed_from.map(|id| (id.attempt, id.step)));
            columns.ends.push(life.end.word());
        }
        columns.started = differences(started.into_iter());
        columns
    }

    fn lives(self) -> Result<Vec<Life>> {
        let columns = [
            ("hosts", self.hosts.len()),
            ("pids", self.pids.len()),
            ("started", self.started.len()),
            ("seconds", self.seconds.len()),
            ("first_steps", self.first_steps.len()),
            ("last_steps", self.last_steps.len()),
            ("saves", self.saves.len()),
            ("resumed_from", self.resumed_from.len()),
            ("ends", self.ends.len()),
        ];
        check_columns("lives", self.attempts.len(), &columns)?;
        let (started, mut host) = (sums(&self.started), String::new());
        let life = |at: usize| {
            host = match &self.hosts[at] {
                Some(same) if same.is_empty() => host.clone(),
                other => other.clone().unwrap_or_default(),
            };
            Life {
                attempt: self.attempts[at],
                host: host.clone(),
                pid: self.pids[at],
                started: started[at],
                last_seen: started[at].wrapping_add_signed(self.seconds[at]),
                first_step: self.first_steps[at],
                last_step: self.last_steps[at],
                saves: self.saves[at],
                resumed_from: self.resumed_from[at].map(|(attempt, step)| CheckpointId { attempt, step }),
                end: LifeEnd::of_word(&self.ends[at]),
            }
        };
        Ok((0..self.attempts.len()).map(life).collect())
    }
}

impl LifeEnd {
    /// As it is recorded: a signal by its name.
    pub(in crate::store) fn word(&self) -> String {
        match self {
            Self::Stopped(signal) => signal.clone(),
            other => other.to_string(),
        }
    }

    pub(in crate::store) fn of_word(word: &str) -> Self {
        match word {
            "closed" => Self::Closed,
            "died" => Self::Died,
            "running" => Self::Running,
            signal if signal.starts_with("SIG") => Self::Stopped(signal.to_owned()),
            _ => Self::Unknown,
        }
    }
}

impl Record {
    /// What it says, checked.
    ///
    /// # Errors
    /// `Damaged` for columns of different lengths.
    pub(super) fn history(self) -> Result<History> {
        let Self { metrics, lives, metrics_left_out, lives_left_out } = self;
        let series = |(metric, record): (String, SeriesRecord)| {
            let series = record.series(&metric)?;
            Ok((metric, series))
        };
        let metrics = metrics.into_iter().map(series).collect::<Result<_>>()?;
        Ok(History { metrics, lives: lives.lives()?, metrics_left_out, lives_left_out })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::error::ErrorKind;
    use crate::format::records;
    use crate::store::history::HISTORY;

    fn point(step: u64, epoch: u64, time: f64, value: f64) -> Point {
        Point { step, epoch, time, value }
    }

    fn read(record: &Record) -> Result<History> {
        records::decode::<Record>(&records::encode(record).unwrap()).unwrap().history()
    }

    #[test]
    fn every_number_survives_also_what_jumps_back() {
        let points = [
            point(7, 0, 1_700_000_000.125, 0.1),
            point(8, 1, 1_600_000_000.5, f64::INFINITY),
            point(u64::MAX, 1, -3.0, f64::NAN),
        ];
        let series = SeriesRecord::of(&points, 99, Some(Mode::Max));
        let life = |attempt, host: &str, end| Life {
            attempt,
            host: host.to_owned(),
            started: 1_700_000_000,
            last_seen: 1_600_000_000,
            last_step: Some(7),
            resumed_from: Some(CheckpointId { attempt: 1, step: 2 }),
            end,
            ..Life::default()
        };
        let stopped = LifeEnd::Stopped("SIGTERM".to_owned());
        let lives = [
            life(1, "a", LifeEnd::Died),
            life(2, "a", stopped),
            life(3, "", LifeEnd::Unknown),
            life(9, "b", LifeEnd::Running),
        ];
        let metrics = BTreeMap::from([("loss".to_owned(), series)]);
        let record = Record { metrics, lives: Lives::of(&lives), metrics_left_out: 1, lives_left_out: 2 };
        let history = read(&record).unwrap();
        assert_eq!(history.lives, lives);
        assert_eq!((history.metrics_left_out, history.lives_left_out), (1, 2));
        let loss = &history.metrics["loss"];
        assert_eq!((loss.logged, loss.mode), (99, Some(Mode::Max)));
        for (read, logged) in loss.points().zip(points) {
            assert_eq!((read.step, read.epoch, read.time), (logged.step, logged.epoch, logged.time));
            assert!(read.value == logged.value || read.value.is_nan() && logged.value.is_nan());
        }
    }

    #[test]
    fn columns_of_different_lengths_are_damage() {
        let series = |points: &[Point]| SeriesRecord::of(points, 0, None);
        let whole = || series(&[point(1, 1, 1.0, 1.0), point(2, 1, 2.0, 2.0)]);
        let cut: [fn(&mut SeriesRecord); 4] = [
            |series| series.steps.truncate(1),
            |series| series.epochs.truncate(1),
            |series| series.times.truncate(1),
            |series| series.values.truncate(1),
        ];
        for cut in cut {
            let mut series = whole();
            cut(&mut series);
            let metrics = BTreeMap::from([("loss".to_owned(), series)]);
            let error = read(&Record { metrics, ..Record::default() }).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        }
        let mut lives = Lives::of(&[Life::default()]);
        lives.ends.clear();
        let error = read(&Record { lives, ..Record::default() }).unwrap_err();
        assert!(error.to_string().contains("ends"), "{error}");
    }

    #[test]
    fn a_record_that_says_nothing_is_an_empty_history() {
        let empty = records::decode::<Record>(&[0x80]).unwrap().history().unwrap();
        assert!(empty.is_empty());
    }

    fn golden() -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/history.tkeep")
    }

    #[test]
    fn the_golden_history_is_written_again_byte_for_byte() {
        let golden = Checkpoint::open(golden()).unwrap();
        let bytes = golden.record_bytes(HISTORY).unwrap();
        let record = records::decode::<Record>(&bytes).unwrap();
        assert_eq!(records::encode(&record).unwrap(), bytes[..]);
    }

    #[test]
    #[cfg(feature = "testing")]
    #[ignore = "writes into the source tree, once for every version of the format"]
    fn make_the_golden_history() {
        use crate::clock::script::{Script, set_seconds};
        use crate::engine::{Engine, Memory};
        use crate::store::{Keep, Store, StoreOptions};
        let _script = Script::begin(27);
        let engine: std::sync::Arc<dyn Engine> = std::sync::Arc::new(Memory::new());
        let options = || StoreOptions::new().keep(Keep::best("loss", Mode::Min, 1));
        let progress = |step| crate::snapshot::Progress::new(step).epoch(step / 2);
        let save = |store: &Store, step| {
            let weights = [0.5_f32, -1.5];
            let snapshot = crate::Snapshot::new().tensor("w", &weights).unwrap();
            store.save(&snapshot.progress(progress(step))).unwrap();
        };
        let store = Store::open(std::sync::Arc::clone(&engine), options()).unwrap();
        for (step, loss) in [(1, 0.5), (2, 0.1), (3, f64::INFINITY)] {
            set_seconds(1_700_000_000 + step * 10);
            store.log(&progress(step), [("loss", loss), ("lr", 0.001)]);
        }
        save(&store, 3);
        store.close().unwrap();
        let store = Store::open(std::sync::Arc::clone(&engine), options()).unwrap();
        store.resume().unwrap();
        set_seconds(1_699_999_000);
        store.log(&progress(4), [("loss", f64::NAN)]);
        save(&store, 4);
        let blob = engine.open("0002-0000000004.tkeep").unwrap();
        let mut bytes = vec![0; blob.len() as usize];
        blob.read_at(0, &mut bytes).unwrap();
        // Golden files are never regenerated.
        match std::fs::File::create_new(golden()) {
            Ok(mut file) => std::io::Write::write_all(&mut file, &bytes).unwrap(),
            Err(error) => println!("{error}"),
        }
    }
}
