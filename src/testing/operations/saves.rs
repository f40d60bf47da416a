//! Saving, in the foreground and the background, and metrics: each with its required result.

use super::decode::{Kind, Operation};
use super::model::{Known, LOSS};
use super::world::{Answer, Effect, Judged, World, must, sane, words};
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::{Progress, Snapshot};
use crate::store::{CheckpointId, PendingSave, Saved, Store};

impl World {
    pub fn save(&mut self, writer: usize, operation: Operation) -> Judged<Effect> {
        let (tag, now, is_fenced) = (self.fresh_tag(), self.now(), self.is_fenced(writer));
        let (has_tiers, is_tampered) = (self.has_tiers(), self.is_tampered);
        let handle = &mut self.writers[writer];
        let is_ordered = operation.b < 248;
        let ahead = 1 + u64::from(operation.b % 7);
        let step = if is_ordered { handle.step + ahead } else { handle.step.saturating_sub(ahead - 1) };
        let loss = (!operation.a.is_multiple_of(4)).then(|| f64::from(operation.a / 8) / 4.0);
        let (id, epoch) = (CheckpointId { attempt: handle.attempt, step }, step / 4);
        let values = [tag; 4];
        let snapshot = snapshot(&values, step, epoch, loss).map_err(words)?;
        let saved = match operation.kind {
            Kind::Stage => stage(&handle.store, &snapshot)?,
            _ => handle.store.save(&snapshot).map(|saved| is_complete(&saved)),
        };
        let resumed = handle.resumed;
        let known = Known { tag, whole: true, loss, epoch, saved_at: now, resumed_from: resumed };
        let answer = match saved {
            Ok(is_complete) => {
                must(!is_fenced, || format!("{id} is saved by a writer that is fenced"))?;
                must(handle.has_begun, || format!("{id} is saved before anything was resumed"))?;
                let is_later = handle.saved.is_none_or(|saved| step > saved);
                must(is_later, || format!("{id} is saved after {:?}", handle.saved))?;
                (handle.saved, handle.step) = (Some(step), step);
                let observed = handle.observed.take();
                // The checkpoint is ranked by the snapshot's own metric.
                let losses = [handle.best, loss.or(observed)].into_iter().flatten();
                handle.best = losses.filter(|loss| loss.is_finite()).min_by(f64::total_cmp);
                if is_complete && !handle.life.is_over() { Answer::Whole } else { Answer::Saved }
            }
            Err(_) if handle.life.is_over() => Answer::Unknown,
            Err(error) => {
                handle.has_failed = true;
                let is_out_of_order = !handle.has_begun || handle.saved.is_some_and(|saved| step <= saved);
                sane(&error)?;
                must(is_expected(&error, has_tiers, is_fenced, is_out_of_order), || {
                    format!("saving {id}: {error:?}")
                })?;
                // If the attempt that follows on the writer's own was removed, a newer writer is
                // noticed only after the commit.
                if is_tampered && error.kind() == ErrorKind::Fenced {
                    Answer::Unknown
                } else {
                    Answer::Failed
                }
            }
        };
        Ok(Effect::Saved { id, known, answer, resumed })
    }

    pub fn observe(&mut self, writer: usize, operation: Operation) -> Judged<Effect> {
        const STRANGE: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        let strange = STRANGE.get(usize::from(operation.b % 8));
        let loss = strange.copied().unwrap_or(f64::from(operation.a / 8) / 4.0);
        let is_predicted = !self.has_rotted && !self.has_tiers() && !self.is_tampered;
        let handle = &mut self.writers[writer];
        handle.store.observe(LOSS, loss);
        handle.observed = Some(loss);
        // A step that was saved is not due again, even if it was lost since.
        let newest = handle.saved.map_or(handle.step, |saved| saved.max(handle.step));
        let due = handle.store.due(&Progress::new(newest + 1));
        let is_best = loss.is_finite() && handle.best.is_none_or(|best| loss < best);
        must(!is_predicted || handle.has_failed || due.is_some() == is_best, || {
            format!("a loss of {loss} after {:?} is due: {due:?}", handle.best)
        })?;
        Ok(Effect::Nothing)
    }
}

fn snapshot(values: &[u32; 4], step: u64, epoch: u64, loss: Option<f64>) -> Result<Snapshot<'_>> {
    let mut snapshot = Snapshot::new().tensor("w", &values[..])?.progress(Progress::new(step).epoch(epoch));
    if let Some(loss) = loss {
        snapshot = snapshot.metric(LOSS, loss)?;
    }
    Ok(snapshot)
}

/// Whether a save may fail with this error.
fn is_expected(error: &Error, has_tiers: bool, is_fenced: bool, is_out_of_order: bool) -> bool {
    match error.kind() {
        ErrorKind::Fenced => is_fenced || has_tiers,
        ErrorKind::Invalid | ErrorKind::AlreadyExists => is_out_of_order || has_tiers,
        ErrorKind::NotPromoted => has_tiers,
        _ => false,
    }
}

/// Whether rotation did everything.
fn is_complete(saved: &Saved) -> bool {
    saved.rotation_error.is_none() && saved.not_deleted.is_empty()
}

/// A background save, waited for. The next call returns its error, once.
fn stage(store: &Store, snapshot: &Snapshot<'_>) -> Judged<Result<bool>> {
    let pending: PendingSave = match store.stage(snapshot) {
        Ok(Some(pending)) => pending,
        Ok(None) => return Err("there is a place, and nothing was saved".to_owned()),
        Err(error) => return Ok(Err(error)),
    };
    // Taken here, so that no later call has to return it.
    if let Some(earlier) = pending.earlier_error() {
        sane(&earlier)?;
    }
    let outcome = pending.wait();
    must(pending.outcome().is_some(), || "what was waited for has no outcome".to_owned())?;
    match outcome {
        Ok(saved) => Ok(Ok(is_complete(&saved))),
        Err(_) => match store.wait() {
            Ok(()) => Err("the error of a save in the background was told to nobody".to_owned()),
            Err(error) => Ok(Err(error)),
        },
    }
}

/// A metric that cannot be ranked is refused when it is set.
pub(super) fn bad_metric(operation: Operation) -> Judged<Effect> {
    const BAD: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let refused = Snapshot::new().metric(LOSS, BAD[usize::from(operation.a) % BAD.len()]).map(drop);
    let is_refused = refused.is_err_and(|error| error.kind() == ErrorKind::Invalid);
    must(is_refused, || "a metric that cannot be ranked was taken".to_owned())?;
    Ok(Effect::Nothing)
}
