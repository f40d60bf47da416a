//! `stats TARGET`: the numbers of each tensor, those with NaN or Inf first. A tensor that cannot be
//! read, and an alias, are lines of their own.

use crate::answer::{Answer, Text};
use crate::args;
use crate::exit::Exit;
use crate::names::natural;
use crate::opened::{Meta, Opened};
use crate::output::Cell;
use crate::stats::Stats;
use crate::target::Target;
use crate::{Done, output, stats};
use serde_json::{Value as Json, json};
use tensorkeep::{Error, Result};

/// A tensor and its numbers; None for bytes whose meaning is unknown, and for aliases.
type Found = (Meta, Result<Option<Stats>>);

/// The numbers of all tensors that were asked for, those that need attention first.
pub struct Numbers {
    opened: Opened,
    found: Vec<Found>,
}

/// Computes the numbers.
///
/// # Errors
/// As opening it, and `NotFound` for a pattern that nothing matches. The exit code is that of the
/// worst tensor.
pub fn run(args: &args::Stats) -> Result<Numbers> {
    let args = &args.selected;
    let budget = args.budget.get();
    let opened = Target::parse(&args.target)?.look_at_all(budget)?;
    let mut metas = opened.wanted(args.only.as_deref())?;
    metas.sort_by(|a, b| natural(&a.name, &b.name));
    let (aliases, metas): (Vec<Meta>, Vec<Meta>) =
        metas.into_iter().partition(|meta| meta.alias_of.is_some());
    budget.check(&opened, &metas)?;
    let all = stats::of(&opened, &metas)?;
    let mut found: Vec<Found> = metas.into_iter().zip(all).collect();
    found.extend(aliases.into_iter().map(|meta| (meta, Ok(None))));
    // Stable: within each sort they stay in the order of their names.
    found.sort_by_key(|(_, stats)| match stats {
        Err(_) => 0,
        Ok(Some(stats)) if stats.bad() > 0 => 1,
        Ok(_) => 2,
    });
    Ok(Numbers { opened, found })
}

const HEADER: [&str; 12] = [
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

impl Answer for Numbers {
    fn schema(&self) -> &'static str {
        "stats"
    }

    fn json(&self) -> Json {
        let tensors: Vec<_> = self.found.iter().map(|(meta, stats)| as_json(meta, stats.as_ref())).collect();
        json!({ "path": self.opened.name(), "tensors": tensors })
    }

    fn text(&self) -> Result<Text<'_>> {
        let (right, least) = ([1, 2, 4, 5, 6, 7, 8, 9], [11, 2, 9, 10, 3, 6, 7, 4, 8, 5]);
        let rows = self.found.iter().map(|(meta, stats)| row(meta, stats.as_ref()));
        Ok(Text::default()
            .warnings(self.opened.warnings())
            .lines(output::table_by_worth(&HEADER, &right, &least, rows))
            .summary(summary(&self.found))
            .warnings(self.found.iter().filter_map(|(_, stats)| stats.as_ref().err())))
    }

    fn end(self: Box<Self>) -> Done {
        let errors = self.found.iter().filter_map(|(_, stats)| stats.as_ref().err());
        Ok(Exit::worst(errors.map(Exit::from)).unwrap_or(Exit::Ok))
    }
}

/// The last line: whether all that was read is finite.
fn summary(found: &[Found]) -> String {
    let unread = found.iter().filter(|(_, stats)| stats.is_err()).count();
    let bad = found.iter().filter(|(_, stats)| matches!(stats, Ok(Some(stats)) if stats.bad() > 0)).count();
    let all = output::count(found.len(), "tensor");
    let finite = match bad {
        0 => format!("{all}, no NaN and no infinity"),
        bad => format!("{bad} of {all} with NaN or infinities"),
    };
    if unread > 0 { format!("{finite}; {unread} cannot be read") } else { finite }
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
pub fn as_json(meta: &Meta, stats: Result<&Option<Stats>, &Error>) -> Json {
    let mut object = json!({
        "name": meta.name, "dtype": meta.dtype_text(), "shape": meta.shape, "alias_of": meta.alias_of,
    });
    let more = match stats {
        Ok(None) => json!({}),
        Ok(Some(stats)) => numbers_as_json(stats),
        Err(error) => json!({ "error": output::error_in_json(error) }),
    };
    if let (Some(object), Json::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

/// An integer: as other numbers where f64 has it, else by its digits.
fn exact_number(number: i128) -> Json {
    const EXACT: i128 = 1 << 53;
    if number.abs() <= EXACT {
        return output::json_number(number as f64);
    }
    i64::try_from(number).map_or_else(|_| u64::try_from(number).unwrap_or(u64::MAX).into(), Json::from)
}

fn numbers_as_json(stats: &Stats) -> Json {
    let some = |value: f64| if stats.finite > 0 { output::json_number(value) } else { Json::Null };
    let [min, max] = match stats.exact {
        Some(exact) => exact.map(exact_number),
        None => [some(stats.min), some(stats.max)],
    };
    json!({
        "count": stats.count,
        "min": min,
        "max": max,
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
