//! Protocols that are wrong on purpose: each does one thing that a hurried author does. The store
//! is the real one; its mistake is an object that it is not shown, or a request that is not carried
//! out. A model that lets one of these pass proves nothing of the right one.

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum WrongProtocol {
    /// The commit of a checkpoint replaces an existing object.
    CommitReplaces,
    /// Taking an attempt number is not create-once: the last process to write it has it, and so has
    /// the first.
    AttemptsAreShared,
    /// There is no check for a newer attempt before the commit.
    NoCheckBeforeCommit,
    /// There is no check for a newer attempt after the commit.
    NoCheckAfterCommit,
    /// The old checkpoints are deleted before the new one is committed.
    DeleteBeforeCommit,
    /// The name is taken by an empty object while the content is being written.
    ReserveKey,
    /// Every process gets the lock.
    LockForEverybody,
    /// Checkpoints to be deleted are not marked.
    NoMark,
    /// The pins are listed before the mark, and not again after it.
    PinsListedOnce,
    /// Setting a pin does not look for marks.
    PinIgnoresMarks,
    /// Going back and resuming do not look for marks.
    MarksIgnoredByResume,
    /// The checkpoint that a writer resumes from is not marked.
    ResumeLeavesNoMark,
    /// A process that gets the lock takes all marks of deletion back, as if the lock proved that
    /// their makers are dead.
    LockClearsMarks,
    /// There is no check for a newer attempt between mark and deletion.
    RotationWithoutAttemptCheck,
    /// The same in the remote tier.
    RemoteRotationWithoutGuard,
    /// A deletion does not stop the promotion of its checkpoint.
    PromotionIgnoresDelete,
    /// An attempt counts as newest by its number alone, not by its writer.
    AttemptComparedByNumberOnly,
    /// A deleter assumes that a checkpoint that opens is whole.
    GcTrustsUnverified,
    /// A stale listing is believed, without a check for the objects that the process wrote.
    StaleListingsBelieved,
    /// The names of shards have a step, and no attempt.
    ShardsOfAllAttempts,
    /// A rank says that its shard is durable before it is.
    ShardsAfterTheReceipt,
    /// The shards of a checkpoint are deleted before its manifest.
    ShardsDeletedFirst,
    /// Each rank chooses the checkpoint that it resumes from.
    RanksChoose,
    /// A job resumes from a checkpoint that it listed before it had an attempt.
    ListedBeforeAttempt,
    /// A rank takes its own shard for the save.
    OwnShardIsOk,
    /// A save that may have been committed counts as saved.
    UnknownIsOk,
    /// A save that may have been committed counts as failed, and its shards are deleted.
    UnknownIsFailed,
    /// Shards without a checkpoint are deleted when a job opens the run.
    SweepsAtOpen,
    /// The name of a checkpoint whose shards are swept is not hidden.
    SweptNotHidden,
    /// A name stays hidden only until the next commit.
    HiddenForAWhile,
}

impl WrongProtocol {
    /// Every mistake.
    pub const ALL: [Self; 30] = [
        Self::CommitReplaces,
        Self::AttemptsAreShared,
        Self::NoCheckBeforeCommit,
        Self::NoCheckAfterCommit,
        Self::DeleteBeforeCommit,
        Self::ReserveKey,
        Self::LockForEverybody,
        Self::NoMark,
        Self::PinsListedOnce,
        Self::PinIgnoresMarks,
        Self::MarksIgnoredByResume,
        Self::ResumeLeavesNoMark,
        Self::LockClearsMarks,
        Self::RotationWithoutAttemptCheck,
        Self::RemoteRotationWithoutGuard,
        Self::PromotionIgnoresDelete,
        Self::AttemptComparedByNumberOnly,
        Self::GcTrustsUnverified,
        Self::StaleListingsBelieved,
        Self::ShardsOfAllAttempts,
        Self::ShardsAfterTheReceipt,
        Self::ShardsDeletedFirst,
        Self::RanksChoose,
        Self::ListedBeforeAttempt,
        Self::OwnShardIsOk,
        Self::UnknownIsOk,
        Self::UnknownIsFailed,
        Self::SweepsAtOpen,
        Self::SweptNotHidden,
        Self::HiddenForAWhile,
    ];
}
