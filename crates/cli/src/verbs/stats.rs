//! `stats TARGET`: the numbers of each tensor, those with NaN or Inf first.

use crate::args::Selected;
use crate::exit::Exit;
use crate::names::natural;
use crate::opened::Meta;
use crate::stats::Stats;
use crate::target::Target;
use crate::{Done, output, stats};
use serde_json::json;

pub fn run(args: &Selected, json: bool) -> Done {
    let opened = Target::parse(&args.target)?.look_at_all()?;
    let mut metas = opened.tensors(args.only.as_deref());
    metas.retain(|meta| meta.alias_of.is_none());
    metas.sort_by(|a, b| natural(&a.name, &b.name));
    let all = stats::of(&opened, &metas)?;
    let mut pairs: Vec<(Meta, Option<Stats>)> = metas.into_iter().zip(all).collect();
    pairs.sort_by_key(|(_, stats)| stats.as_ref().is_none_or(|stats| stats.bad() == 0));
    if json {
        let tensors: Vec<_> = pairs.iter().map(|(meta, stats)| as_json(meta, stats.as_ref())).collect();
        output::print_json("stats", json!({ "path": opened.name(), "tensors": tensors }))?;
        return Ok(Exit::Ok);
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
    let rows = pairs.iter().map(|(meta, stats)| row(meta, stats.as_ref()));
    output::print(output::table(&header, &[1, 2, 4, 5, 6, 7, 8, 9], rows))?;
    Ok(Exit::Ok)
}

fn row(meta: &Meta, stats: Option<&Stats>) -> Vec<String> {
    let mut row = vec![meta.name.clone()];
    match stats.filter(|stats| stats.count > 0) {
        Some(stats) => {
            let some = |value: f64| if stats.finite > 0 { output::number(value) } else { "-".to_owned() };
            row.push(if stats.bad() > 0 { format!("{}/{}", stats.nans, stats.infs) } else { "0".to_owned() });
            row.push(stats.first_bad.map(|index| index.to_string()).unwrap_or_default());
            row.push(output::sparkline(&stats.histogram()));
            row.extend([stats.mean, stats.std(), stats.min, stats.max, stats.norm()].map(some));
            row.push(format!("{:.1} %", 100.0 * stats.zeros as f64 / stats.count as f64));
        }
        None => row.resize(10, String::new()),
    }
    row.extend([meta.dtype_text(), meta.shape_text()]);
    row
}

/// The numbers as JSON; the schema of `stats`.
pub fn as_json(meta: &Meta, stats: Option<&Stats>) -> serde_json::Value {
    let mut object = json!({ "name": meta.name, "dtype": meta.dtype_text(), "shape": meta.shape });
    if let (Some(object), Some(stats)) = (object.as_object_mut(), stats) {
        let some =
            |value: f64| if stats.finite > 0 { output::json_number(value) } else { serde_json::Value::Null };
        let more = json!({
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
        });
        object.extend(more.as_object().cloned().unwrap_or_default());
    }
    object
}
