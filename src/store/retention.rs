//! Decides which checkpoints may be deleted: one pure function, which deletes nothing.

use super::keep::{Keep, Rule};
use super::naming::CheckpointId;
use super::record::CheckpointMeta;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The input of retention. `state` is None when the checkpoint could not be read: it is left alone.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Candidate {
    pub id: CheckpointId,
    pub len: u64,
    pub pinned: bool,
    /// Marked as damaged. `state` is None, and the policy still decides.
    pub marked: bool,
    pub state: Option<Arc<CheckpointMeta>>,
}

/// Why each checkpoint stays: the words that [`Store::kept`](super::Store::kept) returns.
pub(super) type Kept = BTreeMap<CheckpointId, BTreeSet<String>>;

/// A checkpoint that stays regardless of the rules, and why.
pub(super) type Spared = (CheckpointId, &'static str);

/// Why each protected checkpoint is protected; every other candidate may go. `now` in seconds since
/// 1970.
pub(super) fn select(keep: &Keep, candidates: &[Candidate], spared: &[Spared], now: u64) -> Kept {
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by_key(|candidate| candidate.id);
    let mut kept = Kept::new();
    let mut protect = |candidate: &Candidate, why: &str| {
        kept.entry(candidate.id).or_default().insert(why.to_owned());
    };
    for candidate in &sorted {
        if candidate.pinned {
            protect(candidate, "pinned");
        }
        if candidate.state.is_none() && !candidate.marked {
            protect(candidate, "unreadable");
        }
        for (_, why) in spared.iter().filter(|(id, _)| *id == candidate.id) {
            protect(candidate, why);
        }
    }
    // Newest means the newest readable one. An unreadable one protects nothing.
    let readable: Vec<(&Candidate, &CheckpointMeta)> =
        sorted.iter().filter_map(|candidate| Some((*candidate, &**candidate.state.as_ref()?))).collect();
    let newest = readable.last().map(|(newest, _)| *newest);
    if let Some(newest) = newest {
        protect(newest, "newest");
    }
    let mut oldest_recent = newest.map(|newest| newest.id);
    for rule in &keep.rules {
        apply(rule, &readable, now, &mut |candidate, why| {
            protect(candidate, why);
            if rule.is_of_age() {
                oldest_recent = oldest_recent.min(Some(candidate.id));
            }
        });
    }
    // The content of a marked checkpoint is not to be trusted, but its place in the order is: it is
    // deleted no sooner than if it were whole, and not while the run has resumed from an older one
    // because of the mark.
    let last =
        keep.rules.iter().filter_map(|rule| if let Rule::Last(count) = rule { Some(*count) } else { None });
    let last = last.max().unwrap_or(1);
    let oldest_spared = spared.iter().map(|(id, _)| *id).min();
    let newer =
        |id: CheckpointId| readable.iter().rev().take_while(|(candidate, _)| candidate.id > id).count();
    let is_recent = |candidate: &&&Candidate| {
        let id = candidate.id;
        let is_young = Some(id) > oldest_recent || newer(id) < last;
        let was_passed_over = oldest_spared.is_some_and(|spared| id > spared);
        candidate.marked && (keep.keeps_all() || is_young || was_passed_over)
    };
    for candidate in sorted.iter().filter(is_recent) {
        protect(candidate, "marked as damaged");
    }
    kept
}

fn apply(
    rule: &Rule,
    readable: &[(&Candidate, &CheckpointMeta)],
    now: u64,
    protect: &mut impl FnMut(&Candidate, &str),
) {
    match rule {
        Rule::All => {
            for (candidate, _) in readable {
                protect(candidate, "all");
            }
        }
        Rule::Last(count) => {
            for (candidate, _) in readable.iter().rev().take(*count) {
                protect(candidate, &format!("last {count}"));
            }
        }
        Rule::Best { metric, mode, count } => {
            let mut ranked: Vec<(f64, &Candidate)> = readable
                .iter()
                .rev()
                .filter_map(|(candidate, state)| Some((*state.metrics.get(metric)?, *candidate)))
                .collect();
            // The sort is stable, and newest comes first: of equal values the newer comes first.
            ranked.sort_by(|(a, _), (b, _)| mode.compare(*a, *b));
            for (_, candidate) in ranked.iter().take(*count) {
                protect(candidate, &format!("best {metric}"));
            }
        }
        Rule::EverySteps(every) => {
            for candidate in firsts(&line(readable), *every, |candidate, _| candidate.id.step) {
                protect(candidate, &format!("every {every} steps"));
            }
        }
        Rule::EveryEpochs(every) => {
            for candidate in firsts(&line(readable), *every, |_, state| state.progress.epoch) {
                protect(candidate, &format!("every {every} epochs"));
            }
        }
        Rule::YoungerThan(age) => {
            let is_young = |state: &CheckpointMeta| now.saturating_sub(state.saved_at) < age.as_secs();
            for (candidate, _) in readable.iter().filter(|(_, state)| is_young(state)) {
                protect(candidate, "young");
            }
        }
        Rule::NewestWithinBytes(bytes) => {
            let mut left = *bytes;
            for (candidate, _) in readable.iter().rev() {
                let Some(rest) = left.checked_sub(candidate.len) else { break };
                left = rest;
                protect(candidate, "within bytes");
            }
        }
    }
}

/// The checkpoints that led to the newest one, oldest first: those that a restart resumed from are
/// included, those that a rollback discarded are not.
pub(super) fn line<'c>(
    readable: &[(&'c Candidate, &'c CheckpointMeta)],
) -> Vec<(&'c Candidate, &'c CheckpointMeta)> {
    let mut line = Vec::new();
    let mut end = CheckpointId { attempt: u32::MAX, step: u64::MAX };
    let attempts = readable.chunk_by(|(one, _), (other, _)| one.id.attempt == other.id.attempt);
    for of_attempt in attempts.rev() {
        let (first, state) = of_attempt[0];
        if first.id.attempt > end.attempt {
            continue;
        }
        line.extend(of_attempt.iter().rev().filter(|(candidate, _)| candidate.id.step <= end.step));
        // All checkpoints of an attempt record the same. One that records none began from nothing.
        let Some(start) = state.resumed_from.as_ref().and_then(|id| id.parse::<CheckpointId>().ok()) else {
            break;
        };
        end = CheckpointId { attempt: start.attempt, step: end.step.min(start.step) };
    }
    line.reverse();
    line
}

/// The first of each bucket of `every`, in the order of writing. It stays the first, because it is
/// protected.
fn firsts<'c>(
    line: &[(&'c Candidate, &'c CheckpointMeta)],
    every: u64,
    position: impl Fn(&Candidate, &CheckpointMeta) -> u64,
) -> impl Iterator<Item = &'c Candidate> {
    let mut seen = BTreeSet::new();
    line.iter().filter_map(move |(candidate, state)| {
        let bucket = position(candidate, state) / every.max(1);
        (bucket > 0 && seen.insert(bucket)).then_some(*candidate)
    })
}

/// Metrics that a policy ranks by and that no checkpoint has.
pub(super) fn unknown_metrics<'k>(keep: &'k Keep, candidates: &[Candidate]) -> Vec<&'k str> {
    let has = |candidate: &Candidate, metric: &str| {
        candidate.state.as_ref().is_some_and(|state| state.metrics.contains_key(metric))
    };
    let metrics = keep.ranked().map(|(metric, _)| metric);
    metrics.filter(|metric| !candidates.iter().any(|candidate| has(candidate, metric))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Progress;
    use crate::store::Mode;
    use proptest::prelude::*;
    use std::time::Duration;

    /// The checkpoint of a step, with metadata besides its progress.
    fn whole(attempt: u32, step: u64, state: CheckpointMeta) -> Candidate {
        let state = CheckpointMeta { progress: Progress::new(step).epoch(step / 100), ..state };
        let (id, state) = (CheckpointId { attempt, step }, Some(Arc::new(state)));
        Candidate { id, len: 10, pinned: false, marked: false, state }
    }

    fn candidate(attempt: u32, step: u64, loss: f64) -> Candidate {
        let metrics = BTreeMap::from([("loss".to_owned(), loss)]);
        whole(attempt, step, CheckpointMeta { metrics, saved_at: step, ..CheckpointMeta::default() })
    }

    /// Steps 100, 200, … 1000 with losses that are best in the middle.
    fn run() -> Vec<Candidate> {
        (1..=10).map(|i| candidate(1, i * 100, (i as f64 - 5.0).abs())).collect()
    }

    fn steps(keep: &Keep, candidates: &[Candidate]) -> Vec<u64> {
        select(keep, candidates, &[], 1000).keys().map(|id| id.step).collect()
    }

    #[test]
    fn each_rule_protects_what_it_says_and_the_union_is_kept() {
        let run = run();
        assert_eq!(steps(&Keep::last(3), &run), [800, 900, 1000]);
        assert_eq!(steps(&Keep::last(0), &run), [1000], "the newest always stays");
        assert_eq!(steps(&Keep::all(), &run).len(), 10);
        assert_eq!(steps(&Keep::last(1).or(Keep::best("loss", Mode::Min, 2)), &run), [500, 600, 1000]);
        assert_eq!(steps(&Keep::last(1).or(Keep::best("loss", Mode::Max, 1)), &run), [1000]);
        assert_eq!(steps(&Keep::last(1).or(Keep::best("other", Mode::Max, 1)), &run), [1000]);
        assert_eq!(steps(&Keep::last(1).or(Keep::every_steps(400)), &run), [400, 800, 1000]);
        assert_eq!(steps(&Keep::last(1).or(Keep::every_epochs(3)), &run), [300, 600, 900, 1000]);
        let age = Duration::from_secs(250);
        assert_eq!(steps(&Keep::last(1).or(Keep::younger_than(age)), &run), [800, 900, 1000]);
        assert_eq!(steps(&Keep::newest_within_bytes(25), &run), [900, 1000]);
        let both = Keep::last(2).or(Keep::every_steps(500)).or(Keep::best("loss", Mode::Min, 1));
        assert_eq!(steps(&both, &run), [500, 900, 1000]);
    }

    #[test]
    fn a_checkpoint_off_the_grid_stands_for_its_bucket() {
        let run: Vec<_> = [90, 130, 170, 230, 310].map(|step| candidate(1, step, 0.0)).into();
        assert_eq!(steps(&Keep::last(1).or(Keep::every_steps(100)), &run), [130, 230, 310]);
    }

    #[test]
    fn newest_within_bytes_ends_at_the_first_that_does_not_fit() {
        let mut run = run();
        run[8].len = 100;
        assert_eq!(steps(&Keep::newest_within_bytes(25), &run), [1000], "800 would fit, and is not the next");
        assert_eq!(steps(&Keep::newest_within_bytes(110), &run), [900, 1000]);
    }

    fn resumed(attempt: u32, step: u64, from: Option<(u32, u64)>) -> Candidate {
        let resumed_from = from.map(|(attempt, step)| CheckpointId { attempt, step }.to_string());
        whole(attempt, step, CheckpointMeta { resumed_from, ..CheckpointMeta::default() })
    }

    #[test]
    fn forty_restarts_keep_one_checkpoint_of_a_bucket() {
        let mut run = vec![resumed(1, 1000, None)];
        for life in 1..40_u32 {
            let from = run.last().map(|candidate| (candidate.id.attempt, candidate.id.step));
            run.push(resumed(life + 1, 1000 + 20 * u64::from(life), from));
        }
        for keep in [Keep::last(1).or(Keep::every_steps(1000)), Keep::last(1).or(Keep::every_epochs(10))] {
            assert_eq!(steps(&keep, &run), [1000, 1780]);
        }
    }

    #[test]
    fn a_rollback_supersedes_the_steps_behind_it() {
        let keep = Keep::last(1).or(Keep::every_steps(100));
        let mut run: Vec<_> = (1..=4).map(|i| resumed(1, i * 100, None)).collect();
        run.push(resumed(2, 250, Some((1, 200))));
        assert_eq!(steps(&keep, &run), [100, 200, 250], "300 and 400 are not on the way to 250");
        run.push(resumed(2, 310, Some((1, 200))));
        assert_eq!(steps(&keep, &run), [100, 200, 310]);
        // From one attempt back into another: the checkpoints between them do not lead to the
        // newest.
        run.push(resumed(3, 150, Some((1, 100))));
        assert_eq!(steps(&keep, &run), [100, 150]);
        run.push(resumed(4, 120, None));
        assert_eq!(steps(&keep, &run), [120], "from nothing");
    }

    #[test]
    fn metrics_that_no_checkpoint_has_are_found() {
        let keep =
            Keep::last(1).or(Keep::best("loss", Mode::Min, 1)).or(Keep::best("accuracy", Mode::Max, 1));
        assert_eq!(unknown_metrics(&keep, &run()), ["accuracy"]);
        assert_eq!(unknown_metrics(&Keep::all(), &run()), [""; 0]);
    }

    #[test]
    fn pinned_resumed_from_and_unreadable_stay_whatever_the_rules() {
        let mut run = run();
        run[0].pinned = true;
        run[2].state = None;
        let kept = select(&Keep::last(1), &run, &[(run[1].id, "resumed from")], 1000);
        let words: Vec<_> = kept.values().flatten().map(String::as_str).collect();
        assert_eq!(words, ["pinned", "resumed from", "unreadable", "last 1", "newest"]);
    }

    #[test]
    fn what_is_marked_stays_as_long_as_its_place_in_the_order_would() {
        let mut run = run();
        for marked in [1, 6, 9] {
            (run[marked].marked, run[marked].state) = (true, None);
        }
        assert_eq!(steps(&Keep::last(2), &run), [800, 900, 1000]);
        assert_eq!(steps(&Keep::last(3), &run), [600, 700, 800, 900, 1000]);
        assert_eq!(steps(&Keep::last(1).or(Keep::best("loss", Mode::Min, 1)), &run), [500, 900, 1000]);
        assert_eq!(steps(&Keep::all(), &run).len(), 10);
        assert_eq!(steps(&Keep::last(1), &run[9..]), [1000], "there is no other");
    }

    #[test]
    fn an_unreadable_newest_does_not_stand_in_for_the_newest() {
        let mut run = run();
        run[9].state = None;
        assert_eq!(steps(&Keep::last(1), &run), [900, 1000]);
    }

    #[test]
    fn after_a_rollback_the_new_attempt_is_newest() {
        let mut run = run();
        run.push(candidate(2, 400, 9.0));
        let kept = select(&Keep::last(1), &run, &[], 0);
        assert_eq!(kept.keys().copied().collect::<Vec<_>>(), [CheckpointId { attempt: 2, step: 400 }]);
    }

    #[test]
    fn a_wrong_clock_deletes_no_newest_checkpoint() {
        let keep = Keep::last(0).or(Keep::younger_than(Duration::from_secs(1)));
        assert_eq!(select(&keep, &run(), &[], 0).len(), 10);
        assert_eq!(select(&keep, &run(), &[], u64::MAX).len(), 1);
    }

    proptest! {
        #[test]
        fn selecting_again_after_deleting_protects_the_same(
            losses in proptest::collection::vec(0_u8..5, 1..20), last in 0_usize..4, best in 1_usize..3, every in 1_u64..500
        ) {
            let run: Vec<_> =
                losses.iter().zip(1..).map(|(&loss, i)| candidate(1, i * 70, f64::from(loss))).collect();
            let keep = Keep::last(last).or(Keep::best("loss", Mode::Min, best)).or(Keep::every_steps(every));
            let first = select(&keep, &run, &[], 0);
            let left: Vec<_> = run.iter().filter(|c| first.contains_key(&c.id)).cloned().collect();
            prop_assert_eq!(&select(&keep, &left, &[], 0), &first);
            prop_assert!(first.len() >= run.len().min(last.max(1)));
            let best_loss = losses.iter().min().copied().map(f64::from);
            prop_assert!(left.iter().any(|c| c.state.as_ref().map(|state| state.metrics["loss"]) == best_loss));
        }
    }
}
