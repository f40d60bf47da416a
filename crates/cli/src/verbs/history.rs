//! `history RUN`: metrics, and one tensor's numbers, from checkpoint to checkpoint.

use crate::args::History;
use crate::compare::{self, Tolerance};
use crate::exit::Exit;
use crate::opened::Opened;
use crate::place::Place;
use crate::stats::Stats;
use crate::{Done, output, stats};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use tensorkeep::{Error, ErrorKind, Name, Reader, Result};

/// A tensor in one checkpoint.
struct Point {
    stats: Option<Stats>,
    /// Relative to the checkpoint before.
    change: Option<f64>,
}

pub fn run(args: &History, json: bool) -> Done {
    let place = Place::new(&args.run);
    let reader = place.reader()?;
    let infos = reader.list()?;
    if infos.is_empty() {
        place.check_exists(&reader)?;
    }
    let states: Vec<_> =
        infos.iter().filter_map(|info| Some((info.name, info.state.as_ref().ok()?))).collect();
    let mut metrics: BTreeSet<&str> =
        states.iter().flat_map(|(_, state)| state.metrics.keys().map(String::as_str)).collect();
    if let Some(only) = &args.metric {
        if !metrics.contains(only.as_str()) {
            let known: Vec<&str> = metrics.into_iter().collect();
            let error = Error::new(ErrorKind::NotFound, format!("no checkpoint has the metric {only:?}"));
            return Err(error.in_object(&args.run).expected(format!("one of {known:?}")));
        }
        metrics.retain(|metric| metric == only);
    }
    let names: Vec<Name> = states.iter().map(|(name, _)| *name).collect();
    let points = match &args.tensor {
        Some(tensor) => points(&reader, &names, tensor)?,
        None => BTreeMap::new(),
    };
    if json {
        let checkpoints: Vec<_> = states
            .iter()
            .map(|(name, state)| {
                let values: BTreeMap<_, _> = state.metrics.iter().filter(|(name, _)| metrics.contains(name.as_str())).collect();
                json!({ "name": name.to_string(), "step": name.step, "attempt": name.attempt, "metrics": values,
                    "tensor": points.get(name).map(point_as_json) })
            })
            .collect();
        output::print_json(
            "history",
            json!({ "run": args.run, "tensor": args.tensor, "checkpoints": checkpoints }),
        )?;
        return Ok(Exit::Ok);
    }
    let mut header = vec!["step", "attempt"];
    header.extend(&metrics);
    header.extend(args.tensor.iter().flat_map(|_| ["mean", "std", "norm", "NaN/Inf", "change"]));
    let rows =
        states.iter().map(|(name, state)| {
            let mut row = vec![name.step.to_string(), name.attempt.to_string()];
            row.extend(metrics.iter().map(|metric| {
                state.metrics.get(*metric).map_or("-".to_owned(), |value| output::number(*value))
            }));
            row.extend(points.get(name).into_iter().flat_map(point_as_row));
            row
        });
    let right: Vec<usize> = (0..header.len()).collect();
    let mut text = output::table(
        &header
            .iter()
            .map(|title| output::clean(title))
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
        &right,
        rows,
    );
    for metric in &metrics {
        let values: Vec<f64> =
            states.iter().filter_map(|(_, state)| state.metrics.get(*metric).copied()).collect();
        let from = values.len().saturating_sub(80);
        text.push_str(&format!("\n{} {}", output::clean(metric), output::sparkline_of(&values[from..])));
    }
    output::print(text)?;
    Ok(Exit::Ok)
}

fn points(reader: &Reader, names: &[Name], tensor: &str) -> Result<BTreeMap<Name, Point>> {
    let (mut points, mut before): (_, Option<Opened>) = (BTreeMap::new(), None);
    let mut missing = None;
    for &name in names {
        let checkpoint = match reader.open_name(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened?,
        };
        let opened = Opened::Own(checkpoint);
        let pattern = Some(tensor);
        let metas: Vec<_> = opened.tensors(None).into_iter().filter(|meta| meta.name == tensor).collect();
        if metas.is_empty() {
            missing = opened.tensor(tensor).err();
            continue;
        }
        let stats = stats::of(&opened, &metas)?.pop().flatten();
        let exact = Tolerance { rtol: 0.0, atol: 0.0 };
        let change = match &before {
            Some(before) => {
                let verdicts = compare::all(before, &opened, pattern, exact)?;
                let verdict = verdicts.get(tensor);
                verdict.map(|verdict| verdict.distance().map_or(0.0, compare::Distance::relative))
            }
            None => None,
        };
        points.insert(name, Point { stats, change });
        before = Some(opened);
    }
    match missing.filter(|_| points.is_empty()) {
        Some(error) => Err(error),
        None => Ok(points),
    }
}

fn point_as_row(point: &Point) -> Vec<String> {
    let change = point.change.map_or("-".to_owned(), output::number);
    let Some(stats) = &point.stats else { return vec![] };
    let [mean, std, norm] = [stats.mean, stats.std(), stats.norm()].map(output::number);
    vec![mean, std, norm, stats.bad().to_string(), change]
}

fn point_as_json(point: &Point) -> serde_json::Value {
    json!({
        "mean": point.stats.as_ref().map(|stats| output::json_number(stats.mean)),
        "std": point.stats.as_ref().map(|stats| output::json_number(stats.std())),
        "norm": point.stats.as_ref().map(|stats| output::json_number(stats.norm())),
        "bad": point.stats.as_ref().map(Stats::bad),
        "change": point.change.map(output::json_number),
    })
}
