//! Operations as bytes, from a fuzzer, a seed or a file. Every input is valid.

use super::model::Policy;
use crate::clock::script::Random;

/// Bytes of one operation. An input begins with this many bytes for the place, followed by
/// operations.
pub(super) const STRIDE: usize = 4;

/// Where a run lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In memory, with a lock.
    Memory,
    /// In memory, without lock and rename, as on an object store.
    Lockless,
    /// In a folder.
    Local,
    /// In memory, and in a remote tier with a lock.
    Tiers,
    /// In memory, and in a remote tier without lock and rename.
    LocklessTiers,
}

impl Place {
    fn decode(byte: u8) -> Self {
        match byte % 16 {
            0..6 => Self::Memory,
            6..11 => Self::Lockless,
            11 => Self::Local,
            12 => Self::Tiers,
            _ => Self::LocklessTiers,
        }
    }
}

/// The beginning of an input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub place: Place,
    /// One for each tier.
    pub policies: [Policy; 2],
}

/// The kind of an operation. Numbers choose among existing checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Save,
    Stage,
    SaveBadMetric,
    Observe,
    Resume,
    ResumeAt,
    StartOver,
    Pin,
    Unpin,
    Delete,
    Open,
    Close,
    Collect,
    Copy,
    Read,
    Kill,
    Flip,
    Lose,
    DamageRun,
    DamageAttempt,
    LeaveMark,
    HalfUpload,
    Clock,
    TakeImage,
    Replace,
    Disconnect,
}

/// How often each kind is drawn.
const WEIGHTS: [(Kind, u8); 26] = [
    (Kind::Save, 70),
    (Kind::Stage, 4),
    (Kind::SaveBadMetric, 3),
    (Kind::Observe, 6),
    (Kind::Resume, 14),
    (Kind::ResumeAt, 12),
    (Kind::StartOver, 3),
    (Kind::Pin, 14),
    (Kind::Unpin, 6),
    (Kind::Delete, 14),
    (Kind::Open, 22),
    (Kind::Close, 4),
    (Kind::Collect, 10),
    (Kind::Copy, 6),
    (Kind::Read, 6),
    (Kind::Kill, 14),
    (Kind::Flip, 12),
    (Kind::Lose, 4),
    (Kind::DamageRun, 2),
    (Kind::DamageAttempt, 3),
    (Kind::LeaveMark, 6),
    (Kind::HalfUpload, 2),
    (Kind::Clock, 8),
    (Kind::TakeImage, 3),
    (Kind::Replace, 3),
    (Kind::Disconnect, 5),
];

impl Kind {
    fn decode(byte: u8) -> Self {
        let mut left = byte;
        for (kind, weight) in WEIGHTS {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return kind,
            }
        }
        Self::Save
    }
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub kind: Kind,
    pub a: u8,
    pub b: u8,
    flags: u8,
}

impl Operation {
    /// By the older one of two writers.
    pub fn is_zombies(self) -> bool {
        self.flags & 3 == 3
    }

    /// The promotion that it causes runs beside the next operation.
    pub fn is_unsettled(self) -> bool {
        self.flags & 0x0c == 0x0c
    }

    /// By a writer, not by a tool or by an event of the storage.
    pub fn is_by_a_writer(self) -> bool {
        use Kind::*;
        !matches!(
            self.kind,
            Collect
                | Copy
                | Flip
                | Lose
                | DamageRun
                | DamageAttempt
                | LeaveMark
                | HalfUpload
                | Clock
                | TakeImage
                | Replace
                | Disconnect
        )
    }

    /// In the remote tier, if it may be in either.
    pub fn is_remote(self) -> bool {
        self.flags & 0x10 != 0
    }

    /// How many requests the storage answers with "not there" during it, wrongly: at most as many
    /// as are repeated.
    pub fn lies(self) -> u64 {
        use Kind::*;
        match self.kind {
            Save | Resume | Open | Read if self.flags & 0xe0 == 0x40 => 1 + u64::from(self.flags & 3) % 3,
            _ => 0,
        }
    }

    /// A rarer form of the operation.
    pub fn is_odd(self) -> bool {
        self.flags & 0xe0 == 0xe0
    }
}

/// Decodes an input.
pub(super) fn decode(bytes: &[u8]) -> (Header, Vec<Operation>) {
    let at = |index: usize| bytes.get(index).copied().unwrap_or_default();
    let policies = [at(1), at(2)].map(Policy::decode);
    let header = Header { place: Place::decode(at(0)), policies };
    let operations = bytes.get(STRIDE..).unwrap_or_default().chunks_exact(STRIDE).map(|bytes| Operation {
        kind: Kind::decode(bytes[0]),
        a: bytes[1],
        b: bytes[2],
        flags: bytes[3],
    });
    (header, operations.collect())
}

/// An input of this many operations that follows from a seed.
pub(super) fn from_seed(seed: u64, operations: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let bytes = std::iter::repeat_with(|| random.next().to_le_bytes()).flatten();
    bytes.take((operations + 1) * STRIDE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_drawn_and_the_weights_fill_a_byte() {
        let sum: usize = WEIGHTS.iter().map(|(_, weight)| usize::from(*weight)).sum();
        assert_eq!(sum, 256);
        for (kind, _) in WEIGHTS {
            assert!((0..=u8::MAX).any(|byte| Kind::decode(byte) == kind), "{kind:?}");
        }
    }
}
