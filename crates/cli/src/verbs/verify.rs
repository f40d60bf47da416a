//! `verify TARGET`: every byte of one checkpoint, or of every checkpoint of a run. The answer no is
//! exit code 4 with everything that is damaged, not only the first.

mod one;

use crate::answer::{Answer, Text};
use crate::args;
use crate::budget::Budget;
use crate::exit::Exit;
use crate::opened::{Opened, is_of_one_file};
use crate::place::Place;
use crate::target::Target;
use crate::{Done, output, progress};
use one::{DAMAGED, Depth, Mark, Verified};
use serde_json::{Value as Json, json};
use tensorkeep::store::{Listed, Presence};
use tensorkeep::{Error, ErrorKind, Result};

/// What verifying one file, or a run's checkpoints, has found.
pub struct Verification {
    target: String,
    is_run: bool,
    depth: Depth,
    verified: Vec<Verified>,
}

/// Verifies.
///
/// # Errors
/// `NotFound`, `Io`; damage is an answer and not an error.
pub fn run(args: &args::Verify) -> Result<Verification> {
    let depth = match (args.quick, args.deep) {
        (true, _) => Depth::Quick,
        (_, true) => Depth::Deep,
        _ => Depth::Bytes,
    };
    let budget = args.budget.get();
    let target = args.target.display().to_string();
    let parsed = Target::parse(&args.target)?;
    let is_run = matches!(parsed, Target::Run(_, None));
    let verified = match parsed {
        Target::Run(place, None) => verify_run(&place, depth, args.heal_marks, budget)?,
        _ if args.heal_marks => {
            return Err(Error::new(ErrorKind::Invalid, "--heal-marks is for a whole run").in_object(target));
        }
        one => {
            let opened = one.look(budget);
            let bytes = opened.as_ref().map_or(0, Opened::byte_len);
            let _reading = (depth == Depth::Bytes).then(|| progress::reading("verifying", bytes));
            vec![Verified::of(target.clone(), opened, depth, budget)?]
        }
    };
    if verified.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, "the run has no checkpoints to verify").in_object(target));
    }
    Ok(Verification { target, is_run, depth, verified })
}

impl Verification {
    fn damaged(&self) -> usize {
        self.verified.iter().filter(|one| !one.damage.is_empty()).count()
    }

    /// The checkpoint that a resume would take, unless something else keeps it from doing so.
    fn newest_intact(&self) -> Option<&str> {
        let is_intact =
            |one: &&Verified| one.damage.is_empty() && one.report.is_some() && one.mark != Mark::Marked;
        self.verified.iter().rev().find(is_intact).map(|one| one.key.as_str())
    }

    /// The last line for a run: how many, and from where a resume would go on.
    fn summary(&self) -> String {
        let all = output::count(self.verified.len(), "checkpoint");
        let verdict = match self.damaged() {
            0 => format!("{all}, none damaged"),
            damaged => format!("{damaged} of {all} damaged"),
        };
        let how = if self.depth == Depth::Quick { ", by their indexes and records only" } else { "" };
        match self.newest_intact() {
            Some(newest) => format!("{verdict}{how}; the newest that verifies is {newest}"),
            None => format!("{verdict}{how}; none verifies"),
        }
    }
}

impl Answer for Verification {
    fn schema(&self) -> &'static str {
        "verify"
    }

    fn json(&self) -> Json {
        let checkpoints: Vec<_> = self.verified.iter().map(Verified::as_json).collect();
        let damaged = self.damaged();
        json!({
            "target": self.target, "ok": damaged == 0, "damaged": damaged, "newest_intact": self.newest_intact(),
            "checkpoints": checkpoints,
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        let text = self.verified.iter().fold(Text::default(), |text, one| {
            let lines: Vec<String> = one.as_text().lines().map(output::clean).collect();
            text.lines(lines.join("\n").replacen(DAMAGED, &output::red(DAMAGED), 1))
        });
        Ok(if self.is_run { text.summary(self.summary()) } else { text })
    }

    fn end(self: Box<Self>) -> Done {
        let errors = self.verified.iter().flat_map(|one| one.damage.iter().chain(&one.unsupported));
        // Intact, but not numbers to go on with, or not the step that its name says.
        let is_bad = |one: &Verified| !one.bad.is_empty() || one.saved_as.is_some();
        let bad = self.verified.iter().any(is_bad).then_some(Exit::No);
        Ok(Exit::worst(errors.map(Exit::from).chain(bad)).unwrap_or(Exit::Ok))
    }
}

fn verify_run(place: &Place, depth: Depth, heals: bool, budget: Budget) -> Result<Vec<Verified>> {
    let reader = place.reader_with(budget.options())?;
    let listed = reader.listed()?;
    let bytes = output::total(listed.iter().map(|listed| listed.byte_len));
    let _reading = (depth == Depth::Bytes).then(|| progress::reading("verifying", bytes));
    let mut verified = Vec::new();
    for Listed { id, is_marked, .. } in listed {
        let path = format!("{place}/{id}.tkeep");
        let verify = || {
            let opened = reader.checkpoint_by_id(id)?;
            let saved_as = one::saved_as(&opened).filter(|saved_as| *saved_as != id);
            let verified = Verified::of(path.clone(), Ok(Opened::Own(opened)), depth, budget)?;
            Ok(Verified { saved_as, ..verified })
        };
        let damaged = |error| Verified { name: path.clone(), damage: vec![error], ..Verified::default() };
        let mut one = match reader.ask_listed(id, verify) {
            Ok(Presence::There(one)) => one,
            Ok(Presence::Deleted) => continue,
            Ok(Presence::Absent(error)) => damaged(error),
            Err(error) if is_of_one_file(place, &error) => damaged(error),
            Err(error) => Verified::of(path.clone(), Err(error), depth, budget)?,
        };
        one.key = id.to_string();
        one.mark = if !is_marked {
            Mark::None
        } else if heals && one.damage.is_empty() && reader.heal(id)? {
            Mark::Healed
        } else {
            Mark::Marked
        };
        verified.push(one);
    }
    if verified.is_empty() {
        place.check_exists(&reader)?;
    }
    Ok(verified)
}
