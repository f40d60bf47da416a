//! The judgement of what an operation changed: what may have come, what may be gone.

use super::model::{Known, Policy, Shelf};
use super::site::Seen;
use super::world::{Answer, Effect, Judged, World, must, tag_of};
use crate::store::CheckpointId;

impl World {
    pub fn judge(&mut self, effect: &Effect, after: &[Seen]) -> Judged {
        if let Effect::Deleted { name, is_ok: true } = effect {
            for (tier, seen) in after.iter().enumerate() {
                let tag = self.known[tier].get(name).map(|known| known.tag);
                self.deleted.extend(tag);
                must(!seen.names.contains(name), || format!("{name} is deleted, and in tier {tier}"))?;
            }
        }
        if let Effect::Saved { name, answer: Answer::Whole | Answer::Saved, .. } = effect {
            must(after[0].names.contains(name), || format!("{name} is saved, and not there"))?;
        }
        // What is new first: in the light of it the rest may go.
        let before = self.known.clone();
        for (tier, seen) in after.iter().enumerate() {
            for name in seen.names.iter().filter(|name| !before[tier].contains_key(name)) {
                let known = self.whence(effect, tier, *name, &before)?;
                self.known[tier].insert(*name, known);
                self.promoted.extend((tier == 1).then_some(*name));
            }
        }
        for tier in 0..after.len() {
            for name in before[tier].keys().filter(|name| !after[tier].names.contains(name)) {
                self.may_go(effect, tier, *name, after)?;
            }
        }
        self.judge_rest(effect, &after[0])?;
        if self.has_tiers() {
            self.see_what_was_copied_again();
        }
        let is_gone = |(name, _): &(&CheckpointId, &Known)| !after[0].names.contains(name);
        let left = self.known[0].iter().filter(is_gone).map(|(name, known)| (*name, known.clone()));
        self.left_behind.extend(left);
        if !self.is_unsettled {
            self.left_behind.clear();
        }
        for (shelf, seen) in self.known.iter_mut().zip(after) {
            shelf.retain(|name, _| seen.names.contains(name));
        }
        Ok(())
    }

    /// A damaged copy is set aside or rotated away, and the other tier's takes its name.
    fn see_what_was_copied_again(&mut self) {
        for tier in 0..self.known.len() {
            let reader = self.reader(tier);
            for (name, known) in self.known[tier].iter_mut().filter(|(_, known)| !known.whole) {
                known.whole = tag_of(&reader, *name).is_ok();
            }
        }
    }

    /// Where a checkpoint came from.
    fn whence(&self, effect: &Effect, tier: usize, name: CheckpointId, before: &[Shelf]) -> Judged<Known> {
        if let Effect::Saved { name: saved, known, answer, .. } = effect {
            // Promoted already, perhaps.
            if *saved == name && *answer != Answer::Failed {
                return Ok(known.clone());
            }
        }
        let fetches = tier == 1 || matches!(effect, Effect::Resumed);
        let other = before.get(1 - tier).filter(|_| self.has_tiers() && fetches);
        // It was on its way up when rotation took it here.
        let left_behind = self.left_behind.get(&name).filter(|_| tier == 1);
        let source = other
            .and_then(|shelf| shelf.get(&name))
            .or(left_behind)
            .filter(|known| known.whole || self.is_unsettled);
        let Some(source) = source else {
            return Err(format!("{name} is in tier {tier}, where nobody put it"));
        };
        must(!self.deleted.contains(&source.tag), || {
            format!("{name} was deleted, and is back in tier {tier}")
        })?;
        Ok(Known { whole: true, ..source.clone() })
    }

    /// Whether a checkpoint may be gone.
    fn may_go(&self, effect: &Effect, tier: usize, name: CheckpointId, after: &[Seen]) -> Judged {
        let gone = |why: &str| Err(format!("{name} is gone from tier {tier}: {why}, by {effect:?}"));
        let known = &self.known[tier][&name];
        let is_pinned = self.before[tier].pins.contains(&name) && after[tier].pins.contains(&name);
        // By a writer that is the newest still.
        let is_held = self.before[tier].held.contains(&name) && after[tier].held.contains(&name);
        match effect {
            Effect::Outside if tier == 0 => return gone("it should be there"),
            Effect::Resumed if !known.whole => return Ok(()),
            Effect::Deleted { name: deleted, .. } if *deleted == name => {
                let whole = |shelf: &Shelf| shelf.iter().any(|(other, it)| *other != name && it.whole);
                let is_last = known.whole && !self.known.iter().any(whole);
                return match () {
                    () if is_pinned => gone("it was pinned"),
                    () if is_last && !self.has_rotted => gone("it was the last"),
                    () => Ok(()),
                };
            }
            _ if is_pinned => return gone("it was pinned"),
            Effect::Collected { tier: collected, policy } if *collected == tier => {
                let shelf = whole(&self.known[tier]);
                if is_held {
                    return gone("a writer goes on from it");
                }
                if !known.whole || !policy.protects(&shelf, self.now()).contains(&name) {
                    return Ok(());
                }
                if tier == 0 {
                    return gone("the policy protects it");
                }
            }
            Effect::Saved { answer, .. } if tier == 0 && *answer == Answer::Failed => {
                return gone("nothing was saved");
            }
            Effect::Saved { resumed, .. } if tier == 0 && *resumed == Some(name) => {
                return gone("its writer resumed from it");
            }
            Effect::Saved { .. } if tier == 0 => {}
            _ if tier == 0 => return gone("nothing was to be deleted"),
            _ => {}
        }
        if is_held {
            return gone("a writer goes on from it");
        }
        let policy = self.policies[tier];
        let exact = tier == 0 && !self.has_rotted;
        if known.whole
            && (policy.is_monotone() || exact)
            && !(tier == 1 && matches!(policy, Policy::Young(_)))
        {
            let mut shelf = self.known[tier].clone();
            if tier == 1 && self.was_unsettled {
                // What came up and went again meanwhile was not seen there.
                shelf.extend(self.known[0].iter().map(|(name, known)| (*name, known.clone())));
            }
            let protected = policy.protects(&shelf, self.now());
            if protected.contains(&name) {
                return gone("the policy protects it");
            }
        }
        self.may_go_unpromoted(tier, name, known, after)
    }

    /// What the remote tier is to have does not go before it is there.
    fn may_go_unpromoted(&self, tier: usize, name: CheckpointId, known: &Known, after: &[Seen]) -> Judged {
        let policy = self.policies[1];
        if tier == 1 || self.has_lost_there || !self.has_tiers() || !known.whole || !policy.is_monotone() {
            return Ok(());
        }
        let is_there = after[1].names.contains(&name) || self.promoted.contains(&name);
        let mut all = self.known[0].clone();
        all.extend(self.known[1].iter().map(|(name, known)| (*name, known.clone())));
        let is_wanted = policy.protects(&all, self.now()).contains(&name);
        must(is_there || !is_wanted, || format!("{name} is gone from tier 0 and was never promoted"))
    }

    /// Rotation leaves nothing that no rule protects; a failed save leaves nothing at all.
    fn judge_rest(&self, effect: &Effect, after: &Seen) -> Judged {
        let Effect::Saved { answer, resumed, name: saved, .. } = effect else { return Ok(()) };
        if *answer != Answer::Whole || self.has_tiers() || self.has_rotted {
            return Ok(());
        }
        let protected = self.policies[0].protects(&self.known[0], self.now());
        for name in after.names.iter().filter(|name| !protected.contains(name)) {
            let is_spared = name == saved
                || after.pins.contains(name)
                || after.held.contains(name)
                || *resumed == Some(*name);
            must(is_spared, || format!("{name} is kept by no rule after {saved} was saved"))?;
        }
        Ok(())
    }
}

/// Those of which every byte is as it was written.
fn whole(shelf: &Shelf) -> Shelf {
    shelf.iter().filter(|(_, known)| known.whole).map(|(name, known)| (*name, known.clone())).collect()
}
