//! The facts about a run that its verdict is made of.

/// The state of the run's newest attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Now {
    Running,
    /// Closed by the program, at the end where that is known.
    Finished,
    /// Closed by the program before the end.
    Closed,
    /// Stopped by a signal, saved.
    Stopped,
    /// Ended without closing, or silent for three intervals between saves.
    Died,
    /// Neither the history nor the lock shows it.
    Unknown,
}

impl Now {
    /// The name of the state in the page's data.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Closed => "closed",
            Self::Stopped => "stopped",
            Self::Died => "died",
            Self::Unknown => "unknown",
        }
    }

    /// The class of its dot, and its words.
    pub fn shown(&self) -> (&'static str, &'static str) {
        match self {
            Self::Running => ("run", "running"),
            Self::Finished => ("done", "finished"),
            Self::Closed => ("stop", "closed"),
            Self::Stopped => ("stop", "stopped by a signal, saved"),
            Self::Died => ("bad", "died"),
            Self::Unknown => ("", "not known whether it runs"),
        }
    }
}

/// A checkpoint that cannot be used, and why: HTML.
#[derive(Clone, Debug, PartialEq)]
pub struct Unusable {
    pub step: u64,
    pub why: String,
}

/// NaN in the checkpoint that a resume would open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NotFinite {
    /// The oldest kept checkpoint from which on all that were looked at have it.
    pub since: u64,
    /// The newest before it that was looked at and is finite.
    pub last_finite: Option<u64>,
    /// Saves until rotation deletes that one; None where it stays.
    pub saves_left: Option<u64>,
    /// Why it stays.
    pub stays_because: String,
    pub is_pinned: bool,
}

/// A metric whose newest values are no numbers, while the weights still are.
#[derive(Clone, Debug, PartialEq)]
pub struct Diverged {
    pub metric: String,
    /// NaN or an infinity.
    pub value: f64,
    pub since: u64,
    /// The newest kept checkpoint from before.
    pub before: Option<u64>,
}

/// A metric's best value.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    pub metric: String,
    pub value: f64,
    pub step: u64,
    /// Whether the checkpoint of that step is kept.
    pub is_kept: bool,
    /// The best value of a kept checkpoint and its step, where that is another: values are logged
    /// between saves, too.
    pub saved: Option<(f64, u64)>,
    /// The newest value.
    pub newest: f64,
}

/// The facts of the sentences.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// As the user would type it.
    pub run: String,
    pub now: Now,
    pub kept: u64,
    /// The newest step that is known of, saved or not.
    pub reached: u64,
    pub total: Option<u64>,
    pub newest: Option<u64>,
    /// The step that a resume goes on from: verified, unless nothing was.
    pub resume: Option<u64>,
    /// Nothing was verified, because that was asked for.
    pub is_quick: bool,
    /// Newer than that.
    pub unusable: Vec<Unusable>,
    pub not_finite: Option<NotFinite>,
    pub diverged: Option<Diverged>,
    pub best: Option<Best>,
    /// Of a run whose every checkpoint is damaged: (intact, all) tensors of the least damaged one.
    pub least_damaged: Option<(u64, u64, u64)>,
    /// The start of a run that has saved nothing: HTML.
    pub begun: String,
}
