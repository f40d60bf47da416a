//! `gc RUN`: deletes what a policy does not protect, under the writer's lock. What stays is read
//! and verified before, and a terminal is asked. With `--dry-run` it says what would go, and takes
//! no lock.

use super::orphans;
use crate::args::Gc;
use crate::exit::Exit;
use crate::place::Place;
use crate::{Done, output, parallel, units};
use serde_json::json;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};
use tensorkeep::{
    CheckpointId, CheckpointInfo, Error, ErrorKind, Keep, Mode, Reader, Result, store::Collected,
    store::Collection,
};

pub fn run(args: &Gc, json: bool) -> Done {
    if let Some(age) = &args.orphans {
        return orphans::run(args, units::age(age)?, json);
    }
    let place = Place::new(&args.run);
    let reader = Reader::new(place.open()?);
    if reader.names()?.is_empty() {
        // Before a lock file is left in a folder that is none of a run's.
        place.check_exists(&reader)?;
    }
    // Taken before listing: what is listed is what is there when it is deleted.
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
    let mut told = Told { dry_run: args.dry_run, policy: keep.to_string(), ..Told::default() };
    let plan = told.verified(|verify| {
        reader.plan_deletion(&keep, output::now(), |info| !args.no_verify && verify(info))
    })?;
    let is_asked = !args.dry_run && !args.yes && !json && !plan.going.is_empty();
    if is_asked && io::stdin().is_terminal() {
        output::print(told.in_words(&plan, "would delete").join("\n"))?;
        if !confirmed()? {
            output::print("nothing was deleted")?;
            return Ok(Exit::Ok);
        }
    }
    if !args.dry_run {
        told.collected = plan.delete()?;
    }
    if json {
        output::print_json("gc", told.as_json(&args.run.to_string_lossy(), &plan))?;
    } else {
        output::print(
            told.in_words(&plan, if args.dry_run { "would delete" } else { "deleted" }).join("\n"),
        )?;
    }
    if let Some((_, error)) = told.collected.not_deleted.into_iter().next() {
        return Err(error);
    }
    Ok(if plan.damaged.is_empty() { Exit::Ok } else { Exit::Damaged })
}

pub(super) fn confirmed() -> Result<bool> {
    let failed = |error| Error::io("asking on the terminal", error);
    let mut answer = String::new();
    eprint!("delete them? [y/N] ");
    io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What is told of a deletion.
#[derive(Default)]
struct Told {
    dry_run: bool,
    policy: String,
    /// Checkpoints that were read, their bytes, and how long that took.
    verified: (usize, u64, Duration),
    collected: Collected,
}

impl Told {
    /// Makes a plan, and counts what it reads.
    fn verified(
        &mut self,
        plan: impl FnOnce(&mut dyn FnMut(&CheckpointInfo) -> bool) -> Result<Collection>,
    ) -> Result<Collection> {
        let started = Instant::now();
        let bar = parallel::bar("verifying", 0);
        let (count, bytes, _) = &mut self.verified;
        let planned = plan(&mut |info| {
            bar.inc_length(info.len);
            bar.set_position(*bytes);
            (*count, *bytes) = (*count + 1, *bytes + info.len);
            true
        });
        bar.finish_and_clear();
        self.verified.2 = started.elapsed();
        planned
    }

    /// What was deleted, or would be.
    fn going<'p>(&self, plan: &'p Collection) -> Vec<&'p CheckpointInfo> {
        let gone = |info: &&CheckpointInfo| self.dry_run || self.collected.deleted.contains(&info.name);
        plan.going.iter().filter(gone).collect()
    }

    fn in_words(&self, plan: &Collection, verb: &str) -> Vec<String> {
        let going = if verb == "deleted" { self.going(plan) } else { plan.going.iter().collect() };
        let mut lines = vec![format!("policy: {}", output::clean(&self.policy))];
        if let (count @ 1.., bytes, time) = self.verified {
            let checkpoints = output::count(count, "checkpoint");
            lines.push(format!(
                "verified {checkpoints}, {}, in {}",
                output::size(bytes),
                output::duration(time)
            ));
        }
        lines.extend(plan.damaged.iter().map(|(name, error)| {
            format!(
                "{} {name}, which stays and counts for nothing: {}",
                output::red("DAMAGED"),
                output::clean(&error.to_string())
            )
        }));
        lines.extend(plan.kept.iter().map(|(name, why)| {
            format!("keeps {name}: {}", output::clean(&why.iter().cloned().collect::<Vec<_>>().join(", ")))
        }));
        lines.extend(self.collected.spared.iter().map(|name| format!("keeps {name}: pinned meanwhile")));
        lines.extend(going.iter().map(|info| format!("{verb} {} ({})", info.name, output::size(info.len))));
        let (bytes, all) = (going.iter().map(|info| info.len).sum(), plan.kept.len() + plan.going.len());
        lines.push(format!("{verb} {} of {all}, {}", going.len(), output::size(bytes)));
        lines
    }

    fn as_json(&self, run: &str, plan: &Collection) -> serde_json::Value {
        let going = self.going(plan);
        let names = |names: &[CheckpointId]| names.iter().map(CheckpointId::to_string).collect::<Vec<_>>();
        let told = |(name, error): &(CheckpointId, Error)| json!({ "name": name.to_string(), "error": error.to_string() });
        let (count, bytes, time) = self.verified;
        json!({
            "run": run,
            "policy": self.policy,
            "dry_run": self.dry_run,
            "deleted": going.iter().map(|info| info.name.to_string()).collect::<Vec<_>>(),
            "spared": names(&self.collected.spared),
            "not_deleted": self.collected.not_deleted.iter().map(told).collect::<Vec<_>>(),
            "damaged": plan.damaged.iter().map(told).collect::<Vec<_>>(),
            "kept": plan.kept.iter().map(|(name, why)| (name.to_string(), json!(why))).collect::<serde_json::Map<_, _>>(),
            "bytes": going.iter().map(|info| info.len).sum::<u64>(),
            "verified": { "checkpoints": count, "bytes": bytes, "seconds": time.as_secs_f64() },
        })
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
