//! Objects that a listing names and a request does not find. Absence is not believed on one answer.
//! A checkpoint may have been deleted after the listing: a new listing does not have it. One that
//! is listed again is there, despite the single answer: it is requested again with pauses, and then
//! reported as an error, never as nothing.

use crate::clock;
use crate::error::{Error, ErrorKind};
use std::collections::BTreeMap;
use std::time::Duration;

/// Pauses before each new listing.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(250), Duration::from_millis(1000)];

/// Limit of listings in all. Before each, a writer may have saved and rotated.
const MOST_LISTINGS: usize = 100;

/// Limit of one call's waiting in all: if much is absent, the storage has contradicted itself long
/// enough.
const LONGEST: Duration = Duration::from_secs(5);

/// Names that were listed but absent, and how often. Kept from one call to the next, so that a name
/// already waited for in vain is not waited for again.
#[derive(Clone, Debug)]
pub(super) struct Absent<K> {
    names: BTreeMap<K, usize>,
    listings: usize,
    waited: Duration,
}

impl<K> Default for Absent<K> {
    fn default() -> Self {
        Self { names: BTreeMap::new(), listings: 0, waited: Duration::ZERO }
    }
}

impl<K: Ord> Absent<K> {
    /// Keeps this for another call, restricted to the names that are still listed.
    pub(super) fn retain(&mut self, is_listed: impl Fn(&K) -> bool) {
        self.names.retain(|name, _| is_listed(name));
        (self.listings, self.waited) = (0, Duration::ZERO);
    }

    /// After a listing: these names were absent. Pauses and returns whether to list again; false
    /// when each has been requested often enough, when there are none, and when this call has taken
    /// long enough.
    pub(super) fn ask_again(&mut self, names: impl IntoIterator<Item = K>) -> bool {
        let mut fewest = usize::MAX;
        for name in names {
            let times = self.names.entry(name).or_default();
            *times += 1;
            fewest = fewest.min(*times);
        }
        self.listings += 1;
        let pause = PAUSES.get(fewest.wrapping_sub(1)).copied();
        let Some(pause) =
            pause.filter(|pause| self.listings < MOST_LISTINGS && self.waited + *pause <= LONGEST)
        else {
            return false;
        };
        self.waited += pause;
        clock::pause(pause);
        true
    }
}

/// Whether an error says that an object is not there.
pub(super) fn is_absence(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

/// The error for an object that every listing names and no request finds, made from the last
/// answer. Other errors stay as they are.
pub(super) fn told(answer: Error) -> Error {
    if !is_absence(&answer) {
        return answer;
    }
    let error = Error::new(ErrorKind::Io, "is listed, and answers each request that it is not there");
    match answer.object().map(str::to_owned) {
        Some(object) => error.in_object(object),
        None => error,
    }
    .help("the storage contradicts itself: nothing is known of its bytes, and nothing is deleted for it")
    .because(answer)
}

/// Whether an error was made by [`told`].
pub(super) fn is_told(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>());
    error.kind() == ErrorKind::Io && source.is_some_and(is_absence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::CheckpointId;

    fn name(step: u64) -> CheckpointId {
        CheckpointId { attempt: 1, step }
    }

    #[test]
    fn a_name_is_asked_for_as_often_as_there_are_pauses() {
        let mut absent = Absent::default();
        let asked = (0..10).take_while(|_| absent.ask_again([name(1)])).count();
        assert_eq!(asked, PAUSES.len());
        assert!(!absent.ask_again([name(1)]), "nor in the next call");
    }

    #[test]
    fn none_is_none_and_a_new_one_begins_anew() {
        let mut absent = Absent::default();
        assert!(!absent.ask_again([]));
        for _ in PAUSES {
            assert!(absent.ask_again([name(1)]));
        }
        assert!(absent.ask_again([name(1), name(2)]), "the second was asked for once");
        assert!(!absent.ask_again([name(1)]), "and the first one is not forgotten for it");
    }

    #[test]
    fn a_run_that_never_stands_still_ends_it_too() {
        let mut absent = Absent::default();
        assert_eq!((0..10_000).take_while(|&step| absent.ask_again([name(step)])).count(), MOST_LISTINGS - 1);
    }

    #[test]
    fn however_much_is_absent_a_call_ends() {
        let (mut absent, mut asked) = (Absent::default(), 0);
        for step in 0..1000 {
            while absent.ask_again([name(step)]) {
                asked += 1;
            }
        }
        assert!(asked < MOST_LISTINGS && absent.waited <= LONGEST, "{asked} listings, {:?}", absent.waited);
    }

    #[test]
    fn what_is_told_is_known_again() {
        let error = told(Error::new(ErrorKind::NotFound, "no such object").in_object("run/a"));
        assert!(is_told(&error) && error.object() == Some("run/a"));
        assert!(!is_told(&Error::new(ErrorKind::Io, "a disk")));
        assert!(!is_told(&Error::new(ErrorKind::NotFound, "gone")));
    }
}
