//! `diff A B`: tensors and records of two checkpoints. Exit code 1 when a tensor differs beyond the
//! tolerance or is on one side only; records, which differ between any two steps, are shown and do
//! not count. What cannot be read on one side is a line of its own, and the exit code says it.

use crate::args::Diff;
use crate::compare::{self, Distance, Tolerance, Verdict};
use crate::exit::Exit;
use crate::names::natural;
use crate::opened::Opened;
use crate::output::Cell;
use crate::records::{self, Change};
use crate::target::Target;
use crate::{Done, output};
use serde_json::json;
use std::collections::BTreeMap;
use tensorkeep::{Error, Result, Value};

pub fn run(args: &Diff, json: bool) -> Done {
    let budget = args.budget.get();
    let look = |target| Target::parse(target)?.look_at_all(budget);
    let (left, right) = (look(&args.left)?, look(&args.right)?);
    let only = args.only.as_deref();
    for side in [&left, &right] {
        budget.check(side, &side.wanted(only).unwrap_or_default())?;
    }
    let tolerance = Tolerance { rtol: args.rtol, atol: args.atol };
    let verdicts = compare::all(&left, &right, only, tolerance)?;
    let (ours, theirs) = (Records::of(&left), Records::of(&right));
    let changes = records::changes(&ours.readable, &theirs.readable);
    let unreadable: Vec<&Error> = ours.unreadable.iter().chain(&theirs.unreadable).collect();
    let same = verdicts.values().all(Verdict::is_same);
    if json {
        let document = json!({
            "left": left.name(),
            "right": right.name(),
            "same": same,
            "counts": counts(&verdicts),
            "tensors": verdicts.iter().map(|(name, verdict)| as_json(name, verdict)).collect::<Vec<_>>(),
            "records": changes.iter().map(change_as_json).collect::<Vec<_>>(),
            "records_unreadable": unreadable.iter().map(|error| output::error_in_json(error)).collect::<Vec<_>>(),
        });
        output::print_json("diff", document)?;
    } else {
        left.warnings().iter().chain(&right.warnings()).for_each(output::warn);
        print(&verdicts, &changes, args.all)?;
        verdicts.values().filter_map(Verdict::error).chain(unreadable.iter().copied()).for_each(output::warn);
    }
    let errors = verdicts.values().filter_map(Verdict::error).chain(unreadable);
    let worst = Exit::worst(errors.map(Exit::from));
    Ok(worst.unwrap_or(if same { Exit::Ok } else { Exit::No }))
}

/// One side's records, and why some cannot be read.
struct Records {
    readable: Vec<(String, Value)>,
    unreadable: Vec<Error>,
}

impl Records {
    fn of(opened: &Opened) -> Self {
        let (mut readable, mut unreadable) = (Vec::new(), Vec::new());
        for (name, record) in opened.records() {
            match record {
                Ok(value) => readable.push((name, value)),
                Err(error) => unreadable.push(error),
            }
        }
        Self { readable, unreadable }
    }
}

/// How many of each.
pub fn counts(verdicts: &BTreeMap<String, Verdict>) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    verdicts.values().for_each(|verdict| *counts.entry(verdict.word()).or_default() += 1);
    counts
}

fn print(verdicts: &BTreeMap<String, Verdict>, changes: &[Change], all: bool) -> Result<()> {
    let counts: Vec<String> =
        counts(verdicts).iter().map(|(word, count)| format!("{count} {word}")).collect();
    let mut text = if counts.is_empty() { "no tensors".to_owned() } else { counts.join(", ") };
    let mut shown: Vec<_> =
        verdicts.iter().filter(|(_, verdict)| all || !matches!(verdict, Verdict::Equal)).collect();
    shown.sort_by(|(a, _), (b, _)| natural(a, b));
    if !shown.is_empty() {
        let header = ["tensor", "verdict", "max |d|", "at", "relative L2", "cosine", "ulp", ""];
        let rows = shown.into_iter().map(|(name, verdict)| row(name, verdict));
        text.push_str("\n\n");
        text.push_str(&output::table(&header, &[2, 3, 4, 5, 6], rows));
    }
    if !changes.is_empty() {
        let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "-".to_owned());
        let rows =
            changes.iter().map(|change| vec![change.path.clone(), side(&change.left), side(&change.right)]);
        text.push_str("\n\n");
        text.push_str(&output::table(&["record", "left", "right"], &[], rows));
    }
    output::print(text)
}

fn row(name: &str, verdict: &Verdict) -> Vec<Cell> {
    let word = match verdict {
        Verdict::Unreadable(_) => Cell::red(verdict.word()),
        _ => verdict.word().into(),
    };
    let mut row: Vec<Cell> = vec![name.into(), word];
    if let Verdict::Incompatible(what) = verdict {
        row.push(what.as_str().into());
    }
    if let Some(distance) = verdict.distance() {
        row.push(largest(distance).into());
        row.push(distance.max_at.to_string().into());
        row.extend([distance.relative(), distance.cosine()].map(output::number).map(Cell::from));
        row.push(distance.ulp.to_string().into());
        row.extend(distance.widened.as_deref().map(Cell::from));
    }
    row
}

/// The largest difference: of integers to the last digit.
fn largest(distance: &Distance) -> String {
    distance.whole.map_or_else(|| output::number(distance.max()), |whole| whole.to_string())
}

fn as_json(name: &str, verdict: &Verdict) -> serde_json::Value {
    let mut object = json!({ "name": name, "verdict": verdict.word() });
    let more = match (verdict, verdict.distance()) {
        (Verdict::Incompatible(what), _) => json!({ "what": what }),
        (Verdict::Unreadable(error), _) => json!({ "error": output::error_in_json(error) }),
        (_, Some(distance)) => json!({
            "max": distance.whole.map_or_else(|| output::json_number(distance.max()), Into::into),
            "max_at": distance.max_at,
            "relative_l2": output::json_number(distance.relative()),
            "cosine": output::json_number(distance.cosine()),
            "ulp": distance.ulp,
            "beyond_tolerance": distance.far,
            "widened": distance.widened,
        }),
        _ => json!({}),
    };
    if let (Some(object), serde_json::Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

pub fn change_as_json(change: &Change) -> serde_json::Value {
    json!({ "path": change.path, "left": change.left, "right": change.right })
}
