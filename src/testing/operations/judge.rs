//! Judges the changes of an operation: which checkpoints may be new, and which may be gone.

use super::model::{Known, Policy, Shelf};
use super::site::Seen;
use super::world::{Answer, Effect, Judged, World, must, tag_of};
use crate::store::CheckpointId;

impl World {
    pub fn judge(&mut self, effect: &Effect, after: &[Seen]) -> Judged {
        if let Effect::Deleted { id, is_ok: true } = effect {
            for (tier, seen) in after.iter().enumerate() {
                let tag = self.known[tier].get(id).map(|known| known.tag);
                self.deleted.extend(tag);
                must(!seen.ids.contains(id), || format!("{id} is deleted, and in tier {tier}"))?;
            }
        }
        if let Effect::Saved { id, answer: Answer::Whole | Answer::Saved, .. } = effect {
            must(after[0].ids.contains(id), || format!("{id} is saved, and not there"))?;
        }
        // New checkpoints first: with them, others may go.
        let before = self.known.clone();
        for (tier, seen) in after.iter().enumerate() {
            for id in seen.ids.iter().filter(|id| !before[tier].contains_key(id)) {
                let known = self.whence(effect, tier, *id, &before)?;
                self.known[tier].insert(*id, known);
                self.promoted.extend((tier == 1).then_some(*id));
            }
        }
        for tier in 0..after.len() {
            for id in before[tier].keys().filter(|id| !after[tier].ids.contains(id)) {
                self.may_go(effect, tier, *id, after)?;
            }
        }
        self.judge_rest(effect, &after[0])?;
        if self.has_tiers() {
            self.see_what_was_copied_again();
        }
        let is_gone = |(id, _): &(&CheckpointId, &Known)| !after[0].ids.contains(id);
        let left = self.known[0].iter().filter(is_gone).map(|(id, known)| (*id, known.clone()));
        self.left_behind.extend(left);
        if !self.is_unsettled {
            self.left_behind.clear();
        }
        for (shelf, seen) in self.known.iter_mut().zip(after) {
            shelf.retain(|id, _| seen.ids.contains(id));
        }
        Ok(())
    }

    /// A damaged copy is set aside or rotated away, and the other tier's copy takes its name.
    fn see_what_was_copied_again(&mut self) {
        for tier in 0..self.known.len() {
            let reader = self.reader(tier);
            for (id, known) in self.known[tier].iter_mut().filter(|(_, known)| !known.whole) {
                known.whole = tag_of(&reader, *id).is_ok();
            }
        }
    }

    /// The origin of a new checkpoint.
    fn whence(&self, effect: &Effect, tier: usize, id: CheckpointId, before: &[Shelf]) -> Judged<Known> {
        if let Effect::Saved { id: saved, known, answer, .. } = effect {
            // Perhaps promoted already.
            if *saved == id && *answer != Answer::Failed {
                return Ok(known.clone());
            }
        }
        let fetches = tier == 1 || matches!(effect, Effect::Resumed);
        let other = before.get(1 - tier).filter(|_| self.has_tiers() && fetches);
        // It was being promoted when rotation deleted it in the local tier.
        let left_behind = self.left_behind.get(&id).filter(|_| tier == 1);
        let source = other
            .and_then(|shelf| shelf.get(&id))
            .or(left_behind)
            .filter(|known| known.whole || self.is_unsettled);
        let Some(source) = source else {
            return Err(format!("{id} is in tier {tier}, where nobody put it"));
        };
        must(!self.deleted.contains(&source.tag), || {
            format!("{id} was deleted, and is back in tier {tier}")
        })?;
        Ok(Known { whole: true, ..source.clone() })
    }

    /// Whether a checkpoint may be gone.
    fn may_go(&self, effect: &Effect, tier: usize, id: CheckpointId, after: &[Seen]) -> Judged {
        let gone = |why: &str| Err(format!("{id} is gone from tier {tier}: {why}, by {effect:?}"));
        let known = &self.known[tier][&id];
        let is_pinned = self.before[tier].pins.contains(&id) && after[tier].pins.contains(&id);
        // By the writer that is still the newest.
        let is_held = self.before[tier].held.contains(&id) && after[tier].held.contains(&id);
        match effect {
            Effect::Outside if tier == 0 => return gone("it should be there"),
            Effect::Resumed if !known.whole => return Ok(()),
            Effect::Deleted { id: deleted, .. } if *deleted == id => {
                let whole = |shelf: &Shelf| shelf.iter().any(|(other, known)| *other != id && known.whole);
                let is_last = known.whole && !self.known.iter().any(whole);
                if is_pinned {
                    return gone("it was pinned");
                }
                if is_last && !self.has_rotted {
                    return gone("it was the last");
                }
                return Ok(());
            }
            _ if is_pinned => return gone("it was pinned"),
            Effect::Collected { tier: collected, policy } if *collected == tier => {
                let shelf = whole(&self.known[tier]);
                if is_held {
                    return gone("a writer goes on from it");
                }
                if !known.whole || !policy.protects(&shelf, self.now()).contains(&id) {
                    return Ok(());
                }
                if tier == 0 {
                    return gone("the policy protects it");
                }
            }
            Effect::Saved { answer, .. } if tier == 0 && *answer == Answer::Failed => {
                return gone("nothing was saved");
            }
            Effect::Saved { resumed, .. } if tier == 0 && *resumed == Some(id) => {
                return gone("its writer resumed from it");
            }
            Effect::Saved { .. } if tier == 0 => {}
            _ if tier == 0 => return gone("nothing was to be deleted"),
            _ => {}
        }
        if is_held {
            return gone("a writer goes on from it");
        }
        if known.whole && self.is_protected(tier, id) {
            return gone("the policy protects it");
        }
        self.may_go_unpromoted(tier, id, known, after)
    }

    /// Whether a tier's policy certainly protects a checkpoint.
    fn is_protected(&self, tier: usize, id: CheckpointId) -> bool {
        let policy = self.policies[tier];
        let is_exact = tier == 0 && !self.has_rotted;
        let ages_elsewhere = tier == 1 && matches!(policy, Policy::Young(_));
        if ages_elsewhere || !(policy.is_monotone() || is_exact) {
            return false;
        }
        let mut shelf = self.known[tier].clone();
        if tier == 1 && self.was_unsettled {
            // A checkpoint that was promoted and deleted meanwhile was not seen there.
            shelf.extend(self.known[0].iter().map(|(id, known)| (*id, known.clone())));
        }
        policy.protects(&shelf, self.now()).contains(&id)
    }

    /// A checkpoint that belongs in the remote tier stays until it is there.
    fn may_go_unpromoted(&self, tier: usize, id: CheckpointId, known: &Known, after: &[Seen]) -> Judged {
        let policy = self.policies[1];
        if tier == 1 || self.has_lost_there || !self.has_tiers() || !known.whole || !policy.is_monotone() {
            return Ok(());
        }
        let is_there = after[1].ids.contains(&id) || self.promoted.contains(&id);
        let mut all = self.known[0].clone();
        all.extend(self.known[1].iter().map(|(id, known)| (*id, known.clone())));
        let is_wanted = policy.protects(&all, self.now()).contains(&id);
        must(is_there || !is_wanted, || format!("{id} is gone from tier 0 and was never promoted"))
    }

    /// Rotation leaves no checkpoint that no rule protects; a failed save leaves none at all.
    fn judge_rest(&self, effect: &Effect, after: &Seen) -> Judged {
        let Effect::Saved { answer, resumed, id: saved, .. } = effect else { return Ok(()) };
        if *answer != Answer::Whole || self.has_tiers() || self.has_rotted {
            return Ok(());
        }
        let protected = self.policies[0].protects(&self.known[0], self.now());
        for id in after.ids.iter().filter(|id| !protected.contains(id)) {
            let is_spared =
                id == saved || after.pins.contains(id) || after.held.contains(id) || *resumed == Some(*id);
            must(is_spared, || format!("{id} is kept by no rule after {saved} was saved"))?;
        }
        Ok(())
    }
}

/// The checkpoints whose every byte is as it was written.
fn whole(shelf: &Shelf) -> Shelf {
    shelf.iter().filter(|(_, known)| known.whole).map(|(id, known)| (*id, known.clone())).collect()
}
