//! Options of stores and files, out of the plain tuples that `_policy.py` makes of them.

use std::time::Duration;
use tensorkeep::store::WhenFull;
use tensorkeep::{Codec, Error, ErrorKind, Every, Keep, Mode, Result, WriteOptions};

/// A rule of a schedule or of retention: its name, a number, a metric and a mode.
pub type Rule = (String, f64, String, String);

fn unknown(what: &'static str, found: &str) -> Error {
    Error::new(ErrorKind::Invalid, what).found(format!("{found:?}"))
}

/// A count that Python gave as a number.
fn count(number: f64) -> Result<u64> {
    // OK to cast: a whole number that a u64 holds.
    if number.fract() == 0.0 && (0.0..9e15).contains(&number) {
        Ok(number as u64)
    } else {
        Err(Error::new(ErrorKind::Invalid, "a count").expected("a whole number from 0 on").found(number))
    }
}

fn duration(seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| Error::new(ErrorKind::Invalid, "a time").found(seconds).because(error))
}

/// A mode by its word.
pub fn mode(word: &str) -> Result<Mode> {
    match word {
        "min" => Ok(Mode::Min),
        "max" => Ok(Mode::Max),
        _ => Err(unknown("a mode: expected \"min\" or \"max\"", word)),
    }
}

/// When saves are due.
pub fn every(rules: &[Rule]) -> Result<Every> {
    rules.iter().try_fold(Every::never(), |every, (rule, number, metric, word)| {
        Ok(every.or(match rule.as_str() {
            "steps" => Every::steps(count(*number)?),
            "epochs" => Every::epochs(count(*number)?),
            "seconds" => Every::interval(duration(*number)?),
            "best" => Every::on_best(metric, mode(word)?),
            "auto" => Every::auto(),
            _ => return Err(unknown("a rule of a schedule", rule)),
        }))
    })
}

/// What stays.
pub fn keep(rules: &[Rule]) -> Result<Keep> {
    let one = |(rule, number, metric, word): &Rule| {
        Ok(match rule.as_str() {
            "all" => Keep::all(),
            "last" => Keep::last(count(*number)? as usize),
            "best" => Keep::best(metric, mode(word)?, count(*number)? as usize),
            "every_steps" => Keep::every_steps(count(*number)?),
            "every_epochs" => Keep::every_epochs(count(*number)?),
            "younger_than" => Keep::younger_than(duration(*number)?),
            "newest_within_bytes" => Keep::newest_within_bytes(count(*number)?),
            _ => return Err(unknown("a rule of retention", rule)),
        })
    };
    let mut keeps = rules.iter().map(one);
    let first = keeps.next().unwrap_or_else(|| Ok(Keep::all()))?;
    keeps.try_fold(first, |keep, other| Ok(keep.or(other?)))
}

fn codec(word: &str) -> Result<Codec> {
    match word {
        "raw" => Ok(Codec::Raw),
        "balanced" => Ok(Codec::Balanced),
        "max" => Ok(Codec::Max),
        _ => Err(unknown("a codec: expected \"raw\", \"balanced\" or \"max\"", word)),
    }
}

/// Codecs by pattern; that of the empty pattern is for everything else.
pub fn write(codecs: &[(String, String)]) -> Result<WriteOptions> {
    codecs.iter().try_fold(WriteOptions::new(), |options, (pattern, word)| {
        let codec = codec(word)?;
        Ok(if pattern.is_empty() { options.codec(codec) } else { options.codec_for(pattern, codec) })
    })
}

/// What a save does when too many are in flight.
pub fn when_full(word: &str) -> Result<WhenFull> {
    match word {
        "wait" => Ok(WhenFull::Wait),
        "skip" => Ok(WhenFull::Skip),
        "error" => Ok(WhenFull::Error),
        _ => Err(unknown("when_full: expected \"wait\", \"skip\" or \"error\"", word)),
    }
}
