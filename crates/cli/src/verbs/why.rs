//! `why RUN@step`: why a checkpoint is kept or when it goes, and why a resume would or would not
//! choose it.

use crate::exit::Exit;
use crate::target::Target;
use crate::verbs::ls;
use crate::{Done, output, parallel};
use serde_json::json;
use std::ffi::OsStr;
use tensorkeep::{CheckpointInfo, Keep, Reader, Result};

pub fn run(target: &OsStr, json: bool) -> Done {
    let (_, reader, name) = Target::parse(target)?.in_run()?;
    let infos = reader.list()?;
    let (keep, kept) = ls::kept(&reader, &infos)?;
    let here = infos.iter().find(|info| info.name == name);
    let state = here.and_then(|info| info.state.as_ref().ok());
    let why: Vec<String> = kept.get(&name).into_iter().flatten().cloned().collect();
    let fate = fate(keep.as_ref(), &why, infos.iter().filter(|info| info.name > name).count());
    let resume = resume(&reader, &infos, name)?;
    if json {
        let document = json!({
            "name": name.to_string(),
            "saved_because": state.map(|state| &state.why),
            "saved_at": state.map(|state| state.saved_at),
            "policy": keep.map(|keep| keep.to_string()),
            "kept_because": why,
            "fate": fate,
            "resume": resume,
            "pinned": here.is_some_and(|info| info.pinned),
        });
        output::print_json("why", document)?;
        return Ok(Exit::Ok);
    }
    let mut lines = vec![output::bold(&format!("{name} (attempt {}, step {})", name.attempt, name.step))];
    if let Some(state) = state {
        let why = if state.why.is_empty() { "asked for" } else { &state.why };
        lines.push(format!("saved: {}, {why}", output::ago(state.saved_at)));
        lines.extend(state.resumed_from.iter().map(|from| format!("its attempt resumed from {from}")));
    }
    if let Some(Err(error)) = here.map(|info| &info.state) {
        lines.push(format!("unreadable: {error}"));
    }
    lines.extend([fate, resume]);
    output::print(lines.iter().map(|line| output::clean(line)).collect::<Vec<_>>().join("\n"))?;
    Ok(Exit::Ok)
}

/// Why it stays, or when it goes.
fn fate(keep: Option<&Keep>, why: &[String], newer: usize) -> String {
    let Some(keep) = keep else {
        let known =
            if why.is_empty() { "none of newest, pinned, resumed from".to_owned() } else { why.join(", ") };
        return format!("kept: the run does not say its policy; whatever that is: {known}");
    };
    match why {
        [] => format!("goes with the next save: the policy ({keep}) does not protect it"),
        [only] if only == "newest" => {
            format!("kept: newest; goes when a newer one is durable (policy: {keep})")
        }
        why => {
            let goes = saves_left(why, newer).map_or(String::new(), |saves| match saves {
                1 => "; goes with the next save".to_owned(),
                saves => format!("; goes when {saves} newer ones are saved"),
            });
            format!("kept: {}{goes} (policy: {keep})", why.join(", "))
        }
    }
}

/// Saves until it goes, where only its place among the newest keeps it.
fn saves_left(why: &[String], newer: usize) -> Option<usize> {
    let place = |why: &String| match why.as_str() {
        "newest" => Some(1),
        why => why.strip_prefix("last ")?.parse::<usize>().ok(),
    };
    let last = why.iter().map(place).try_fold(0, |most, place| Some(most.max(place?)))?;
    last.checked_sub(newer).filter(|&saves| saves > 0)
}

/// What a resume would do about it.
fn resume(reader: &Reader, infos: &[CheckpointInfo], name: tensorkeep::CheckpointId) -> Result<String> {
    let _busy = parallel::busy("verifying", true);
    let mut wrong = Vec::new();
    for info in infos.iter().rev() {
        let verified =
            reader.checkpoint_by_id(info.name).and_then(|checkpoint| checkpoint.verify().map(drop));
        match verified {
            Ok(()) if info.name == name && wrong.is_empty() => {
                return Ok("resume: chooses it, the newest that verifies".to_owned());
            }
            Ok(()) if info.name == name => {
                return Ok(format!("resume: chooses it; newer ones do not verify: {}", wrong.join("; ")));
            }
            Ok(()) if wrong.is_empty() => {
                return Ok(format!("resume: chooses {}, which is newer", info.name));
            }
            Ok(()) => return Ok(format!("resume: chooses {}; passed over: {}", info.name, wrong.join("; "))),
            Err(error) => wrong.push(format!("{}: {error}", info.name)),
        }
    }
    Ok(format!("resume: fails, none verifies: {}", wrong.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_its_age_keeps_goes_after_so_many_saves() {
        let why = |why: &[&str]| why.iter().map(|why| (*why).to_owned()).collect::<Vec<_>>();
        assert_eq!(saves_left(&why(&["last 3", "newest"]), 0), Some(3));
        assert_eq!(saves_left(&why(&["last 3"]), 2), Some(1));
        assert_eq!(saves_left(&why(&["last 3", "best loss"]), 2), None);
        assert_eq!(saves_left(&why(&["pinned"]), 2), None);
    }
}
