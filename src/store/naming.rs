//! Names of checkpoints and of the objects beside them: attempt and step to key and back, and the
//! order of checkpoints.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

pub(super) const ATTEMPTS: &str = "attempts";
pub(super) const PINS: &str = "pins";
pub(super) const DAMAGED: &str = "damaged";
/// The object that holds the run's identity.
pub(super) const RUN: &str = "RUN";
/// Separators between an attempt and a checkpoint in the key of a mark.
const DELETES: &str = ".deletes.";
const RESUMED: &str = ".resumed.";
/// What stands behind an attempt in the key of the mark of its end.
const ENDED: &str = ".ended";
/// What stands between a checkpoint and the maker in the key of a mark that hides it.
const HIDDEN: &str = ".hidden.";
const EXTENSION: &str = ".tkeep";
const ATTEMPT_DIGITS: usize = 4;
const STEP_DIGITS: usize = 10;

/// Identifies a checkpoint in a run: the attempt that wrote it and its completed steps. Prints as
/// `0003-0000001200`.
///
/// The order is the order of resuming: a newer attempt is newer, whatever its step. After a
/// rollback to step 300 in attempt 4, its step 400 is newer than step 900 of attempt 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointId {
    /// The writer's attempt, counted from 1.
    pub attempt: u32,
    /// Completed optimizer updates.
    pub step: u64,
}

impl CheckpointId {
    /// The object's key.
    pub(super) fn key(self) -> String {
        format!("{self}{EXTENSION}")
    }

    /// The checkpoint of a listed key, if it is one. Only the exact form counts: one name, one key.
    pub(super) fn of_key(key: &str) -> Option<Self> {
        key.strip_suffix(EXTENSION)?.parse().ok()
    }

    pub(super) fn pin_key(self) -> String {
        format!("{PINS}/{self}")
    }
}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0ATTEMPT_DIGITS$}-{:0STEP_DIGITS$}", self.attempt, self.step)
    }
}

impl FromStr for CheckpointId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once('-').and_then(|(attempt, step)| {
            let id = Self { attempt: number(attempt)?, step: number(step)? };
            (id.to_string() == text).then_some(id)
        });
        parsed.ok_or_else(|| {
            Error::invalid(format!("{text:?} names no checkpoint"))
                .expected("attempt and step, as 0003-0000001200")
        })
    }
}

fn number<T: FromStr>(digits: &str) -> Option<T> {
    // `parse` accepts a sign.
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { digits.parse().ok() } else { None }
}

/// The key of an attempt's create-once object.
pub(super) fn attempt_key(attempt: u32) -> String {
    format!("{ATTEMPTS}/{attempt:0ATTEMPT_DIGITS$}")
}

/// The attempt of a listed key.
pub(super) fn attempt_of_key(key: &str) -> Option<u32> {
    let attempt = number(key.strip_prefix(ATTEMPTS)?.strip_prefix('/')?)?;
    (attempt_key(attempt) == key).then_some(attempt)
}

/// The key of the mark by which `by`, an attempt or a tool, announces a deletion.
pub(super) fn deletes_key(by: &str, id: CheckpointId) -> String {
    format!("{ATTEMPTS}/{by}{DELETES}{id}")
}

/// The maker and the checkpoint of a listed mark of deletion.
pub(super) fn deletes_of_key(key: &str) -> Option<(&str, CheckpointId)> {
    let (by, id) = key.strip_prefix(ATTEMPTS)?.strip_prefix('/')?.split_once(DELETES)?;
    Some((by, id.parse().ok()?))
}

/// The key of the mark by which an attempt records the checkpoint that it resumed from.
pub(super) fn resumed_key(attempt: u32, id: CheckpointId) -> String {
    format!("{}{RESUMED}{id}", attempt_key(attempt))
}

/// The attempt and the checkpoint of a listed mark of resuming.
pub(super) fn resumed_of_key(key: &str) -> Option<(u32, CheckpointId)> {
    let (attempt, id) = key.split_once(RESUMED)?;
    Some((attempt_of_key(attempt)?, id.parse().ok()?))
}

/// The key of the mark by which an attempt says how it ended.
pub(super) fn ended_key(attempt: u32) -> String {
    format!("{}{ENDED}", attempt_key(attempt))
}

/// The attempt of a listed mark of an end.
pub(super) fn ended_of_key(key: &str) -> Option<u32> {
    attempt_of_key(key.strip_suffix(ENDED)?)
}

/// Where a damaged checkpoint is set aside; `copy` distinguishes several of one name.
pub(super) fn damaged_key(id: CheckpointId, copy: u32) -> String {
    if copy == 0 { format!("{DAMAGED}/{}", id.key()) } else { format!("{DAMAGED}/{}.{copy}", id.key()) }
}

/// The mark by which `by`, an attempt or a tool, hides a checkpoint of many files: no listing has
/// it from then on, also when its manifest is created later. It is in the folder that is listed
/// with the checkpoints.
pub(super) fn hidden_key(id: CheckpointId, by: &str) -> String {
    format!("{DAMAGED}/{id}{HIDDEN}{by}")
}

/// The checkpoint of a listed mark that hides it.
pub(super) fn hidden_of_key(key: &str) -> Option<CheckpointId> {
    let (id, _) = key.strip_prefix(DAMAGED)?.strip_prefix('/')?.split_once(HIDDEN)?;
    id.parse().ok()
}

/// The checkpoint of a listed one that is set aside as damaged.
pub(super) fn set_aside_of_key(key: &str) -> Option<CheckpointId> {
    let (id, _) = key.strip_prefix(DAMAGED)?.strip_prefix('/')?.split_once(EXTENSION)?;
    id.parse().ok()
}

/// The checkpoint to which a listed shard of a store belongs:
/// `shards/3/0004-0000001200-1-5b7711e0-r00003.tkeep`.
pub(super) fn save_of_shard_key(key: &str) -> Option<CheckpointId> {
    let name = key.strip_prefix("shards/")?.split_once('/')?.1.strip_suffix(EXTENSION)?;
    let (save, rank) = name.rsplit_once("-r")?;
    let mut parts = save.splitn(4, '-');
    let (attempt, step) = (parts.next()?, parts.next()?);
    number::<u32>(parts.next()?)?;
    let is_tag = parts.next()?.bytes().all(|byte| byte.is_ascii_hexdigit());
    number::<u32>(rank)?;
    format!("{attempt}-{step}").parse().ok().filter(|_| is_tag)
}

/// The mark beside a damaged checkpoint on an engine that cannot rename.
pub(super) fn damaged_mark_key(id: CheckpointId) -> String {
    format!("{DAMAGED}/{id}.mark")
}

/// Whether a key under `damaged/` is such a mark.
pub(super) fn is_mark(key: &str) -> bool {
    key.ends_with(".mark")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_newer_attempt_is_newer_whatever_its_step() {
        let rolled_back = CheckpointId { attempt: 4, step: 400 };
        assert!(rolled_back > CheckpointId { attempt: 3, step: 900 });
        assert!(
            CheckpointId { attempt: 10_000, step: 1 } > CheckpointId { attempt: 9_999, step: 99_999_999_999 }
        );
        assert_eq!(rolled_back.key(), "0004-0000000400.tkeep");
    }

    #[test]
    fn only_the_exact_form_is_a_name() {
        for key in [
            "4-400.tkeep",
            "0004-0000000400",
            "0004-0000000400.tkeep.1",
            "00004-0000000400.tkeep",
            "0004-+000000400.tkeep",
            "0004-00000000400.tkeep",
            "LOCK",
            "-.tkeep",
            "99999999999-0000000400.tkeep",
            "notes.tkeep",
        ] {
            assert_eq!(CheckpointId::of_key(key), None, "{key}");
        }
    }

    proptest! {
        #[test]
        fn every_name_survives_its_key(attempt: u32, step: u64) {
            let id = CheckpointId { attempt, step };
            prop_assert_eq!(CheckpointId::of_key(&id.key()), Some(id));
            prop_assert_eq!(attempt_of_key(&attempt_key(attempt)), Some(attempt));
            let marks = [deletes_key("0007", id), resumed_key(attempt, id)];
            prop_assert_eq!(deletes_of_key(&marks[0]), Some(("0007", id)));
            prop_assert_eq!(resumed_of_key(&marks[1]), Some((attempt, id)));
            let hidden = hidden_key(id, "0007");
            prop_assert_eq!((hidden_of_key(&hidden), set_aside_of_key(&hidden)), (Some(id), None));
            prop_assert_eq!(set_aside_of_key(&damaged_key(id, 3)), Some(id));
            prop_assert_eq!(hidden_of_key(&damaged_mark_key(id)), None);
            crate::engine::check_key(&hidden).unwrap();
            let shard = crate::format::shard::shard_key(&format!("{id}-7-00c0ffee"), attempt);
            prop_assert_eq!(save_of_shard_key(&shard), Some(id));
            let ended = ended_key(attempt);
            prop_assert_eq!(ended_of_key(&ended), Some(attempt));
            prop_assert_eq!((deletes_of_key(&ended), resumed_of_key(&ended)), (None, None));
            for mark in marks.into_iter().chain([ended]) {
                crate::engine::check_key(&mark).unwrap();
                prop_assert_eq!(attempt_of_key(&mark), None);
            }
        }
    }
}
