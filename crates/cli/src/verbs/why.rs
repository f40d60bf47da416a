//! `why RUN@step`: why a checkpoint is kept or when it goes, and why a resume would or would not
//! choose it.

use crate::answer::{Answer, Text};
use crate::exit::Exit;
use crate::kept::kept;
use crate::target::Target;
use crate::{Done, output, progress};
use serde_json::{Value as Json, json};
use std::ffi::OsStr;
use std::time::Duration;
use tensorkeep::store::{AutoInterval, CheckpointMeta};
use tensorkeep::{CheckpointId, CheckpointInfo, Keep, Reader, Result};

/// Why a checkpoint is there, how long it stays, and whether a resume chooses it.
pub struct Reasons {
    id: CheckpointId,
    /// None for a checkpoint that is not in the listing.
    here: Option<CheckpointInfo>,
    keep: Option<Keep>,
    why: Vec<String>,
    fate: String,
    resume: String,
    /// Of a run that cannot be resumed.
    exit: Exit,
}

pub fn run(target: &OsStr) -> Result<Reasons> {
    let (_, reader, id) = Target::parse(target)?.in_run()?;
    let infos = reader.list()?;
    let (keep, kept) = kept(&reader, &infos)?;
    let why: Vec<String> = kept.get(&id).into_iter().flatten().cloned().collect();
    let fate = fate(keep.as_ref(), &why, infos.iter().filter(|info| info.id > id).count());
    let (resume, exit) = resume(&reader, &infos, id);
    let here = infos.into_iter().find(|info| info.id == id);
    Ok(Reasons { id, here, keep, why, fate, resume, exit })
}

impl Reasons {
    fn state(&self) -> Option<&CheckpointMeta> {
        self.here.as_ref()?.state.as_ref().ok()
    }
}

impl Answer for Reasons {
    fn schema(&self) -> &'static str {
        "why"
    }

    fn json(&self) -> Json {
        let state = self.state();
        json!({
            "name": self.id.to_string(),
            "saved_because": state.map(|state| &state.why),
            "saved_at": state.map(|state| state.saved_at),
            "policy": self.keep.as_ref().map(Keep::to_string),
            "kept_because": self.why,
            "fate": self.fate,
            "resume": self.resume,
            "pinned": self.here.as_ref().is_some_and(|info| info.pinned),
            "auto": state.and_then(|state| state.auto.as_ref()).map(auto_in_json),
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        let CheckpointId { attempt, step, .. } = self.id;
        let mut lines = Vec::new();
        if let Some(state) = self.state() {
            let why = if state.why.is_empty() { "asked for" } else { &state.why };
            lines.push(format!("saved: {}, {why}", output::ago(state.saved_at)));
            let saved_as = state.saved_as.iter();
            lines.extend(
                saved_as.map(|other| format!("was saved as {other}: its file was copied or renamed")),
            );
            lines.extend(state.resumed_from.iter().map(|from| format!("its attempt resumed from {from}")));
        }
        if let Some(Err(error)) = self.here.as_ref().map(|info| &info.state) {
            lines.push(format!("unreadable: {error}"));
        }
        lines.extend([self.fate.clone(), self.resume.clone()]);
        lines.extend(self.state().and_then(|state| state.auto.as_ref()).into_iter().flat_map(auto));
        let head = output::bold(&format!("{} (attempt {attempt}, step {step})", self.id));
        let lines = lines.iter().map(|line| output::clean(line));
        Ok(Text::of(std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")))
    }

    fn end(self: Box<Self>) -> Done {
        Ok(self.exit)
    }
}

/// The interval that decides itself: its terms, the one that counts first, and what is lost by it.
fn auto(auto: &AutoInterval) -> Vec<String> {
    let seconds = |seconds: f64| output::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let [stall, durable, failures] = [auto.stall, auto.durable, auto.between_failures].map(output::duration);
    let [young, in_flight, budget] = auto.terms().map(seconds);
    vec![
        format!(
            "saves every {} by itself, towards the largest of {young}, {in_flight}, {budget}",
            output::duration(auto.interval)
        ),
        format!(
            "  {young}: \u{221a}(2\u{b7}S\u{b7}M), with a stall S of {stall}, and M, {failures} between failures"
        ),
        format!(
            "  {in_flight}: 1.1\u{b7}P / {} in flight, with P, {durable} until it is durable",
            auto.in_flight
        ),
        format!("  {budget}: S / 3.5 %, the most that saving may cost"),
        format!("expected waste: {:.2} % of the time", 100.0 * auto.expected_waste()),
    ]
}

fn auto_in_json(auto: &AutoInterval) -> Json {
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    json!({
        "interval_us": us(auto.interval), "stall_us": us(auto.stall), "durable_us": us(auto.durable),
        "between_failures_us": us(auto.between_failures), "in_flight": auto.in_flight,
        "expected_waste": auto.expected_waste(),
    })
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

/// What a resume would do about it, and the exit code of its failure.
fn resume(reader: &Reader, infos: &[CheckpointInfo], id: CheckpointId) -> (String, Exit) {
    let _reading = progress::reading("verifying", output::total(infos.iter().map(|info| info.byte_len)));
    let (mut wrong, mut exits) = (Vec::new(), Vec::new());
    for info in infos.iter().rev() {
        let verified = reader.checkpoint_by_id(info.id).and_then(|checkpoint| checkpoint.verify().map(drop));
        match verified {
            Ok(()) => return (chosen(info.id, id, &wrong.join("; ")), Exit::Ok),
            Err(error) => {
                exits.push(Exit::from(&error));
                wrong.push(format!("{}: {error}", info.id));
            }
        }
    }
    let words = format!("resume: fails, none verifies: {}", wrong.join("; "));
    (words, Exit::worst(exits).unwrap_or(Exit::NotFound))
}

/// In words, that a resume chooses this one, and what is wrong with newer ones.
fn chosen(chosen: CheckpointId, asked: CheckpointId, wrong: &str) -> String {
    match (chosen == asked, wrong) {
        (true, "") => "resume: chooses it, the newest that verifies".to_owned(),
        (true, wrong) => format!("resume: chooses it; newer ones do not verify: {wrong}"),
        (false, "") => format!("resume: chooses {chosen}, which is newer"),
        (false, wrong) => format!("resume: chooses {chosen}; passed over: {wrong}"),
    }
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
