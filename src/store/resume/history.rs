//! What an opened run goes on with: the curves of the checkpoint that it resumes from, and the
//! lives of all attempts before it. What cannot be read is no reason not to train on: it is for
//! people.

use crate::checkpoint::Checkpoint;
use crate::snapshot::Progress;
use crate::store::core::Core;
use crate::store::history::{History, Life};
use crate::store::lives::{complete, of_checkpoints};
use crate::store::look::Board;
use crate::store::naming::CheckpointId;
use crate::store::record::{SAVE, SaveRecord};
use crate::store::tiers::Tier;

/// What else of the run tells of its attempts.
pub(in crate::store) struct Behind {
    /// The run's newest checkpoint, of a rollback.
    pub newest: Option<CheckpointId>,
    /// The attempts of each tier that was asked.
    pub boards: Vec<(Tier, Board)>,
}

impl Core {
    /// The curves of a checkpoint, and the lives of all attempts. A rollback keeps the lives behind
    /// it, too.
    pub(in crate::store) fn history_behind(
        &self,
        checkpoint: &Checkpoint,
        id: CheckpointId,
        behind: &Behind,
    ) -> History {
        let carried = checkpoint.inspect().history().ok().flatten();
        let mut history = carried.unwrap_or_else(|| {
            let mut older = self.reader.candidates().unwrap_or_default();
            older.retain(|candidate| candidate.id <= id);
            of_checkpoints(&older)
        });
        let read = |newest| self.reader.checkpoint_by_id(newest).ok()?.inspect().history().ok()?;
        if let Some(newest) = behind.newest.filter(|newest| *newest != id).and_then(read) {
            (history.lives, history.lives_left_out) = (newest.lives, newest.lives_left_out);
        }
        history.lives = self.complete_lives(history.lives, &behind.boards);
        history
    }

    /// Goes on with the history of a checkpoint, and with the interval that it has.
    pub(in crate::store) fn go_on_with_history(
        &self,
        (checkpoint, id, progress): (&Checkpoint, CheckpointId, Progress),
        history: History,
    ) {
        let save: Option<SaveRecord> = checkpoint.optional_record(SAVE).ok().flatten();
        let mut schedule = self.lock_schedule();
        schedule.log.resume(id, progress, history, checkpoint.inspect().byte_len());
        schedule.resume_auto(save.and_then(|save| save.auto));
    }

    /// Begins without a curve.
    pub(in crate::store) fn begin_history(&self, lives: Vec<Life>) {
        self.lock_schedule().log.start_over(lives);
    }

    /// As [`Store::start_over`](crate::Store::start_over).
    pub(in crate::store) fn start_over(&self) {
        let newest = self.reader.newest_history().ok().flatten().unwrap_or_default();
        let boards = Board::read(self.reader.engine()).map(|board| vec![(Tier::Local, board)]);
        self.begin_history(self.complete_lives(newest.lives, &boards.unwrap_or_default()));
        self.begin();
    }

    /// The lives of the attempts before this one.
    pub(in crate::store) fn complete_lives(
        &self,
        mut lives: Vec<Life>,
        boards: &[(Tier, Board)],
    ) -> Vec<Life> {
        let own = (self.attempt.number, &self.writer);
        for (tier, board) in boards {
            match self.remote.as_ref().filter(|_| *tier == Tier::Remote) {
                Some(remote) => lives = remote.complete_lives(lives, board, own),
                None => complete(self.reader.engine(), board, Some(own), &mut lives),
            }
        }
        lives.retain(|life| life.attempt < self.attempt.number);
        lives
    }
}
