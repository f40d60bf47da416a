//! How far training is.

use serde::{Deserialize, Serialize};

/// The state of training: *completed* optimizer updates and *completed* epochs.
///
/// ```
/// use tensorkeep::Progress;
///
/// let steps_per_epoch = 50;
/// for step in 0..100 {
///     // train, then:
///     let completed = step + 1;
///     let progress = Progress::new(completed).epoch(completed / steps_per_epoch);
/// #   let _ = progress;
/// }
/// assert_eq!(Progress::new(100).epoch(2), Progress { step: 100, epoch: 2 });
/// ```
///
/// A checkpoint is named by its step, so count steps even if saves are by epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Completed optimizer updates. The next step, counted from 0, has this number.
    pub step: u64,
    /// Completed epochs.
    pub epoch: u64,
}

impl Progress {
    /// After `step` completed updates.
    pub fn new(step: u64) -> Self {
        Self { step, epoch: 0 }
    }

    /// Sets the number of completed epochs.
    pub fn epoch(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }
}
