//! `stats TARGET`: the numbers of each tensor, those with NaN or Inf first. A tensor that cannot be
//! read, and one that is another's further name, are lines of their own.

use crate::args;
use crate::exit::Exit;
use crate::names::natural;
use crate::opened::Meta;
use crate::output::Cell;
use crate::stats::Stats;
use crate::target::Target;
use crate::{Done, output, stats};
use serde_json::json;
use tensorkeep::Error;

/// A tensor and what there is to say of it; None for bytes whose meaning is unknown, and for
/// further names.
type Found = (Meta, Result<Option<Stats>, Error>);

/// Shows the numbers.
///
/// # Errors
/// As opening it, and `NotFound` for a pattern that nothing matches. The exit code is that of the
/// worst tensor.
pub fn run(args: &args::Stats, json: bool) -> Done {
    let args = &args.selected;
    let budget = args.budget.get();
    let opened = Target::parse(&args.target)?.look_at_all(budget)?;
    let mut metas = opened.wanted(args.only.as_deref())?;
    metas.sort_by(|a, b| natural(&a.name, &b.name));
    let (ties, metas): (Vec<Meta>, Vec<Meta>) = metas.into_iter().partition(|meta| meta.alias_of.is_some());
    budget.check(&opened, &metas)?;
    let all = stats::of(&opened, &metas)?;
    let mut found: Vec<Found> = metas.into_iter().zip(all).collect();
    let exit = Exit::worst(found.iter().filter_map(|(_, stats)| Some(stats.as_ref().err()?.into())));
    found.extend(ties.into_iter().map(|meta| (meta, Ok(None))));
    // Stable: within each sort they stay in the order of their names.
    found.sort_by_key(|(_, stats)| match stats {
        Err(_) => 0,
        Ok(Some(stats)) if stats.bad() > 0 => 1,
        Ok(_) => 2,
    });
    let exit = exit.unwrap_or(Exit::Ok);
    if json {
        let tensors: Vec<_> = found.iter().map(|(meta, stats)| as_json(meta, stats.as_ref())).collect();
        output::print_json("stats", json!({ "path": opened.name(), "tensors": tensors }))?;
        return Ok(exit);
    }
    opened.warnings().iter().for_each(output::warn);
    // What matters most comes first: a narrow terminal cuts the ends of lines.
    let header = [
        "tensor",
        "NaN/Inf",
        "first",
        "histogram",
        "mean",
        "std",
        "min",
        "max",
        "norm",
        "zeros",
        "dtype",
        "shape",
    ];
    let rows = found.iter().map(|(meta, stats)| row(meta, stats.as_ref()));
    output::print(output::table(&header, &[1, 2, 4, 5, 6, 7, 8, 9], rows))?;
    found.iter().filter_map(|(_, stats)| stats.as_ref().err()).for_each(output::warn);
    Ok(exit)
}

fn row(meta: &Meta, stats: Result<&Option<Stats>, &Error>) -> Vec<Cell> {
    let mut row: Vec<Cell> = vec![meta.name.clone().into()];
    match (stats, &meta.alias_of) {
        (Err(error), _) => row.push(Cell::red(error.kind().as_str())),
        (_, Some(other)) => {
            row.extend(["", "", ""].map(Cell::from).into_iter().chain([format!("= {other}").into()]))
        }
        (Ok(Some(stats)), None) if stats.count > 0 => {
            let some = |value: f64| if stats.finite > 0 { output::number(value) } else { "-".to_owned() };
            row.push(match stats.bad() {
                0 => "0".into(),
                _ => Cell::red(format!("{}/{}", stats.nans, stats.infs)),
            });
            row.push(stats.first_bad.map(|index| index.to_string()).unwrap_or_default().into());
            row.push(output::sparkline(&stats.histogram()).into());
            let numbers = [stats.mean, stats.std(), stats.min, stats.max, stats.norm()];
            row.extend(numbers.map(some).map(Cell::from));
            row.push(format!("{:.1} %", 100.0 * stats.zeros as f64 / stats.count as f64).into());
        }
        _ => {}
    }
    row.resize(10, "".into());
    row.extend([meta.dtype_text(), meta.shape_text()].map(Cell::from));
    row
}

/// The numbers as JSON; the schema of `stats`.
pub fn as_json(meta: &Meta, stats: Result<&Option<Stats>, &Error>) -> serde_json::Value {
    let mut object = json!({
        "name": meta.name, "dtype": meta.dtype_text(), "shape": meta.shape, "alias_of": meta.alias_of,
    });
    let more = match stats {
        Ok(None) => json!({}),
        Ok(Some(stats)) => numbers_as_json(stats),
        Err(error) => json!({ "error": output::error_in_json(error) }),
    };
    if let (Some(object), serde_json::Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

fn numbers_as_json(stats: &Stats) -> serde_json::Value {
    let some =
        |value: f64| if stats.finite > 0 { output::json_number(value) } else { serde_json::Value::Null };
    json!({
        "count": stats.count,
        "min": some(stats.min),
        "max": some(stats.max),
        "mean": some(stats.mean),
        "std": some(stats.std()),
        "norm": some(stats.norm()),
        "zeros": stats.zeros,
        "nans": stats.nans,
        "infs": stats.infs,
        "first_bad": stats.first_bad,
        "histogram": stats.histogram(),
    })
}
