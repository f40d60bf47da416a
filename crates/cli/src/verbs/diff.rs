//! `diff A B`: tensors and records of two checkpoints. Exit code 1 when a tensor differs beyond the tolerance or is on one
//! side only; records, which differ between any two steps, are shown and do not count.

use crate::args::Diff;
use crate::compare::{self, Tolerance, Verdict};
use crate::exit::Exit;
use crate::names::natural;
use crate::records::{self, Change};
use crate::target::Target;
use crate::{Done, output};
use serde_json::json;
use std::collections::BTreeMap;

pub fn run(args: &Diff, json: bool) -> Done {
    let (left, right) =
        (Target::parse(&args.left)?.look_at_all()?, Target::parse(&args.right)?.look_at_all()?);
    let tolerance = Tolerance { rtol: args.rtol, atol: args.atol };
    let verdicts = compare::all(&left, &right, args.only.as_deref(), tolerance)?;
    let changes = records::changes(&left.readable_records()?, &right.readable_records()?);
    let same = verdicts.values().all(Verdict::is_same);
    if json {
        let document = json!({
            "left": left.name(),
            "right": right.name(),
            "same": same,
            "counts": counts(&verdicts),
            "tensors": verdicts.iter().map(|(name, verdict)| as_json(name, verdict)).collect::<Vec<_>>(),
            "records": changes.iter().map(change_as_json).collect::<Vec<_>>(),
        });
        output::print_json("diff", document)?;
    } else {
        left.warnings().iter().chain(&right.warnings()).for_each(output::warn);
        print(&verdicts, &changes, args.all)?;
    }
    Ok(if same { Exit::Ok } else { Exit::No })
}

/// How many of each.
pub fn counts(verdicts: &BTreeMap<String, Verdict>) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    verdicts.values().for_each(|verdict| *counts.entry(verdict.word()).or_default() += 1);
    counts
}

fn print(
    verdicts: &BTreeMap<String, Verdict>,
    changes: &[Change],
    all: bool,
) -> Result<(), tensorkeep::Error> {
    let counts: Vec<String> =
        counts(verdicts).iter().map(|(word, count)| format!("{count} {word}")).collect();
    let mut text = if counts.is_empty() { "no tensors".to_owned() } else { counts.join(", ") };
    let mut shown: Vec<_> =
        verdicts.iter().filter(|(_, verdict)| all || !matches!(verdict, Verdict::Equal)).collect();
    shown.sort_by(|(a, _), (b, _)| natural(a, b));
    if !shown.is_empty() {
        let header = ["tensor", "verdict", "max |d|", "at", "relative L2", "cosine", "ulp"];
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

fn row(name: &str, verdict: &Verdict) -> Vec<String> {
    let mut row = vec![name.to_owned(), verdict.word().to_owned()];
    match verdict {
        Verdict::Incompatible(what) => row.push(what.clone()),
        verdict => {
            if let Some(distance) = verdict.distance() {
                row.extend([output::number(distance.max), distance.max_at.to_string()]);
                row.extend([distance.relative(), distance.cosine()].map(output::number));
                row.push(distance.ulp.to_string());
            }
        }
    }
    row
}

fn as_json(name: &str, verdict: &Verdict) -> serde_json::Value {
    let mut object = json!({ "name": name, "verdict": verdict.word() });
    let more = match (verdict, verdict.distance()) {
        (Verdict::Incompatible(what), _) => json!({ "what": what }),
        (_, Some(distance)) => json!({
            "max": output::json_number(distance.max),
            "max_at": distance.max_at,
            "relative_l2": output::json_number(distance.relative()),
            "cosine": output::json_number(distance.cosine()),
            "ulp": distance.ulp,
            "beyond_tolerance": distance.far,
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
