//! The ranks of a layout, by position: a progression, or any list of different ranks.

use crate::error::{Error, Result};
use std::collections::BTreeSet;

/// Ranks of a job at most; SPEC.md has the same number.
pub const RANKS: u32 = 1 << 20;

/// The rank at each position of a layout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Positions(Ranks);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Ranks {
    Progression { count: u32, first: u32, step: u32 },
    Members(Box<[u32]>),
}

impl Positions {
    /// The ranks `0..count`.
    ///
    /// # Errors
    /// `Invalid` for none, or for more than a job may have.
    pub fn first(count: u32) -> Result<Self> {
        Self::progression(count, 0, 1)
    }

    /// `count` ranks from `first` on, each `step` above the one before.
    ///
    /// # Errors
    /// `Invalid` for none, for a step of 0, and for ranks beyond the limit.
    pub fn progression(count: u32, first: u32, step: u32) -> Result<Self> {
        let last = u64::from(first) + u64::from(count.saturating_sub(1)) * u64::from(step);
        if count >= 1 && step >= 1 && last < u64::from(RANKS) {
            return Ok(Self(Ranks::Progression { count, first, step }));
        }
        Err(Error::invalid("a layout's ranks")
            .expected(format!("at least one, a step of at least 1, and ranks below {RANKS}"))
            .found(format!("{count} ranks from {first} in steps of {step}")))
    }

    /// Any ranks, as a permuted mesh has them.
    ///
    /// # Errors
    /// `Invalid` for none, for a rank that comes twice, and for ranks beyond the limit.
    pub fn members(ranks: &[u32]) -> Result<Self> {
        let mut seen = BTreeSet::new();
        match ranks.iter().find(|&&rank| rank >= RANKS || !seen.insert(rank)) {
            None if !ranks.is_empty() => Ok(Self(Ranks::Members(ranks.into()))),
            wrong => Err(Error::invalid("a layout's ranks")
                .expected(format!("different ranks below {RANKS}, at least one"))
                .found(wrong.map_or("none".to_owned(), |rank| format!("rank {rank}")))),
        }
    }

    /// These ranks, ascending: a progression where they are one of consecutive ranks.
    ///
    /// # Errors
    /// As [`Positions::members`].
    pub(crate) fn among(ranks: &[u32]) -> Result<Self> {
        let is_next = |pair: &[u32]| pair[0].checked_add(1) == Some(pair[1]);
        match ranks {
            [first, ..] if ranks.windows(2).all(is_next) => {
                // OK to cast: different ranks below the limit, which is checked.
                Self::progression(ranks.len() as u32, *first, 1)
            }
            _ => Self::members(ranks),
        }
    }

    /// Number of positions, at least 1.
    pub fn count(&self) -> u32 {
        match &self.0 {
            Ranks::Progression { count, .. } => *count,
            // OK to cast: different ranks below the limit.
            Ranks::Members(ranks) => ranks.len() as u32,
        }
    }

    /// The rank at a position below [`Positions::count`].
    pub fn rank(&self, position: u32) -> u32 {
        match &self.0 {
            Ranks::Progression { first, step, .. } => first + position * step,
            Ranks::Members(ranks) => ranks.get(position as usize).copied().unwrap_or(u32::MAX),
        }
    }

    /// The position of a rank, if it has one.
    pub fn of(&self, rank: u32) -> Option<u32> {
        match &self.0 {
            Ranks::Progression { count, first, step } => {
                let distance = rank.checked_sub(*first)?;
                (distance.is_multiple_of(*step) && distance / step < *count).then_some(distance / step)
            }
            Ranks::Members(ranks) => ranks.iter().position(|&member| member == rank).map(|at| at as u32),
        }
    }

    /// First rank and step, where they are a progression.
    pub(crate) fn as_progression(&self) -> Option<(u32, u32)> {
        match self.0 {
            Ranks::Progression { first, step, .. } => Some((first, step)),
            Ranks::Members(_) => None,
        }
    }

    /// All ranks, by position.
    pub fn ranks(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.count()).map(|position| self.rank(position))
    }
}
