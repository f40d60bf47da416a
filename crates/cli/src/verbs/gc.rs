//! `gc RUN`: deletes what a policy does not protect, under the writer's lock. What stays is read
//! and verified before, and a terminal is asked. With `--dry-run` it says what would go, and takes
//! no lock.

use super::orphans;
use crate::answer::{Answer, Text};
use crate::args::Gc;
use crate::exit::Exit;
use crate::place::Place;
use crate::{Done, output, progress, units};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};
use tensorkeep::{
    CheckpointId, CheckpointInfo, Error, ErrorKind, Keep, Mode, Reader, Result, store::Collected,
    store::Collection,
};

/// Deletes, or with `--dry-run` only plans to; asks before where `asks` says so.
///
/// # Errors
/// `NotFound`, `Locked`, and what the run's storage says.
pub fn run(args: &Gc, asks: bool) -> Result<Box<dyn Answer + '_>> {
    if let Some(age) = &args.orphans {
        return Ok(Box::new(orphans::run(args, units::age(age)?, asks)?));
    }
    let place = Place::new(&args.run);
    let reader = Reader::new(place.open()?);
    if reader.ids()?.is_empty() {
        // Before a lock file is left in a folder that is none of a run's.
        place.check_exists(&reader)?;
    }
    // Taken before listing, so that the listing still holds when something is deleted.
    let _lock = if args.dry_run { None } else { reader.lock_for("tensorkeep gc")? };
    let infos = reader.list()?;
    let keep = match policy(args)? {
        Some(keep) => keep,
        None => recorded(&place, &infos).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "the run does not say its policy")
                .in_object(args.run.display())
                .help("give one: --keep-last 3 --keep-best val_loss:min")
        })?,
    };
    let (plan, verified) =
        planned(|verify| reader.plan_deletion(&keep, output::now(), |info| !args.no_verify && verify(info)))?;
    let policy = keep.to_string();
    let mut deletion =
        Deletion { args, policy, verified, plan, is_declined: false, collected: Collected::default() };
    if asks && !args.dry_run && !deletion.plan.going.is_empty() {
        output::print(deletion.in_words("would delete").join("\n"))?;
        deletion.is_declined = !output::confirmed()?;
    }
    if !args.dry_run && !deletion.is_declined {
        deletion.collected = deletion.plan.delete()?;
    }
    Ok(Box::new(deletion))
}

/// How much was read to verify what stays.
#[derive(Default)]
struct Verified {
    checkpoints: usize,
    bytes: u64,
    took: Duration,
}

/// Makes a plan, and counts what it reads.
fn planned(
    plan: impl FnOnce(&mut dyn FnMut(&CheckpointInfo) -> bool) -> Result<Collection>,
) -> Result<(Collection, Verified)> {
    let started = Instant::now();
    let bar = progress::bar("verifying", 0);
    let mut verified = Verified::default();
    let planned = plan(&mut |info| {
        bar.inc_length(info.byte_len);
        bar.set_position(verified.bytes);
        verified.checkpoints += 1;
        verified.bytes += info.byte_len;
        true
    });
    bar.finish_and_clear();
    verified.took = started.elapsed();
    Ok((planned?, verified))
}

/// A deletion: planned, carried out, or declined by the user.
struct Deletion<'a> {
    args: &'a Gc,
    policy: String,
    verified: Verified,
    plan: Collection,
    is_declined: bool,
    collected: Collected,
}

impl Deletion<'_> {
    /// The checkpoints that were deleted, or would be.
    fn going(&self) -> Vec<&CheckpointInfo> {
        let is_gone = |info: &&CheckpointInfo| self.args.dry_run || self.collected.deleted.contains(&info.id);
        self.plan.going.iter().filter(is_gone).collect()
    }

    fn in_words(&self, verb: &str) -> Vec<String> {
        let plan = &self.plan;
        let going = if verb == "deleted" { self.going() } else { plan.going.iter().collect() };
        let mut lines = vec![format!("policy: {}", output::clean(&self.policy))];
        if self.verified.checkpoints > 0 {
            let Verified { checkpoints, bytes, took } = self.verified;
            let checkpoints = output::count(checkpoints, "checkpoint");
            let (bytes, took) = (output::size(bytes), output::duration(took));
            lines.push(format!("verified {checkpoints}, {bytes}, in {took}"));
        }
        lines.extend(plan.damaged.iter().map(|(id, error)| {
            format!(
                "{} {id}, which stays and counts for nothing: {}",
                output::red("DAMAGED"),
                output::clean(&error.to_string())
            )
        }));
        lines.extend(plan.kept.iter().map(|(id, why)| {
            format!("keeps {id}: {}", output::clean(&why.iter().cloned().collect::<Vec<_>>().join(", ")))
        }));
        lines.extend(self.collected.spared.iter().map(|id| format!("keeps {id}: pinned meanwhile")));
        lines
            .extend(going.iter().map(|info| format!("{verb} {} ({})", info.id, output::size(info.byte_len))));
        let (bytes, all) =
            (output::total(going.iter().map(|info| info.byte_len)), plan.kept.len() + plan.going.len());
        lines.push(format!("{verb} {} of {all}, {}", going.len(), output::size(bytes)));
        lines
    }
}

impl Answer for Deletion<'_> {
    fn schema(&self) -> &'static str {
        "gc"
    }

    fn json(&self) -> Json {
        let going = self.going();
        let texts = |ids: &[CheckpointId]| ids.iter().map(CheckpointId::to_string).collect::<Vec<_>>();
        let told = |(id, error): &(CheckpointId, Error)| json!({ "name": id.to_string(), "error": error.to_string() });
        let kept = self.plan.kept.iter().map(|(id, why)| (id.to_string(), json!(why)));
        json!({
            "run": self.args.run.to_string_lossy(),
            "policy": self.policy,
            "dry_run": self.args.dry_run,
            "deleted": going.iter().map(|info| info.id.to_string()).collect::<Vec<_>>(),
            "spared": texts(&self.collected.spared),
            "not_deleted": self.collected.not_deleted.iter().map(told).collect::<Vec<_>>(),
            "damaged": self.plan.damaged.iter().map(told).collect::<Vec<_>>(),
            "kept": kept.collect::<serde_json::Map<_, _>>(),
            "bytes": output::total(going.iter().map(|info| info.byte_len)),
            "verified": {
                "checkpoints": self.verified.checkpoints,
                "bytes": self.verified.bytes,
                "seconds": self.verified.took.as_secs_f64(),
            },
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        if self.is_declined {
            return Ok(Text::of("nothing was deleted"));
        }
        let verb = if self.args.dry_run { "would delete" } else { "deleted" };
        Ok(Text::of(self.in_words(verb).join("\n")))
    }

    fn end(self: Box<Self>) -> Done {
        if let Some((_, error)) = self.collected.not_deleted.into_iter().next() {
            return Err(error);
        }
        let is_intact = self.plan.damaged.is_empty() || self.is_declined;
        Ok(if is_intact { Exit::Ok } else { Exit::Damaged })
    }
}

/// The policy that the newest checkpoint recorded. One of a run in two tiers has one for each: at a
/// URL it is the remote tier's; a folder may be either, and there what one of them keeps stays.
fn recorded(place: &Place, infos: &[CheckpointInfo]) -> Option<Keep> {
    let newest = infos.iter().rev().find_map(|info| info.state.as_ref().ok())?;
    match (newest.keep.clone()?, newest.keep_remote.clone()) {
        (keep, None) => Some(keep),
        (_, Some(remote)) if place.is_url() => Some(remote),
        (keep, Some(remote)) => Some(keep.or(remote)),
    }
}

/// The policy that the flags say; None without any.
fn policy(args: &Gc) -> Result<Option<Keep>> {
    let mut keep: Option<Keep> = args.keep_last.map(Keep::last);
    let mut and = |next: Keep| keep = Some(keep.take().map_or(next.clone(), |keep| keep.or(next)));
    for best in &args.keep_best {
        let (metric, mode, count) = parse_best(best)?;
        and(Keep::default().or(Keep::best(metric, mode, count)));
    }
    args.keep_every_steps.into_iter().for_each(|steps| and(Keep::default().or(Keep::every_steps(steps))));
    args.keep_every_epochs.into_iter().for_each(|epochs| and(Keep::default().or(Keep::every_epochs(epochs))));
    if let Some(age) = &args.keep_younger_than {
        and(Keep::default().or(Keep::younger_than(*age)));
    }
    if let Some(size) = args.keep_within {
        and(Keep::newest_within_bytes(size));
    }
    Ok(keep)
}

fn parse_best(text: &str) -> Result<(String, Mode, usize)> {
    let wrong =
        || Error::new(ErrorKind::Invalid, format!("{text:?} names no best")).expected("METRIC:min|max[:N]");
    let (rest, count) = match text.rsplit_once(':') {
        Some((rest, count)) if count.parse::<usize>().is_ok() => (rest, count.parse().unwrap_or(1)),
        _ => (text, 1),
    };
    match rest.rsplit_once(':') {
        Some((metric, "min")) => Ok((metric.to_owned(), Mode::Min, count)),
        Some((metric, "max")) => Ok((metric.to_owned(), Mode::Max, count)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_nonsense_is_refused() {
        assert_eq!(parse_best("val:loss:min:3").unwrap(), ("val:loss".to_owned(), Mode::Min, 3));
        assert_eq!(parse_best("acc:max").unwrap(), ("acc".to_owned(), Mode::Max, 1));
        assert!(parse_best("loss").is_err());
    }
}
