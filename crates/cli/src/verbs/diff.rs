//! `diff A B`: tensors and records of two checkpoints. Exit code 1 when a tensor differs beyond the
//! tolerance or is on one side only; records, which differ between any two steps, are shown and do
//! not count. What cannot be read on one side is a line of its own, and the exit code says it.

use crate::answer::{Answer, Text};
use crate::args::Diff;
use crate::compare::{self, Distance, Tolerance, Verdict};
use crate::exit::Exit;
use crate::names::{module, natural};
use crate::opened::Opened;
use crate::output::Cell;
use crate::records::{self, Change, is_bookkeeping};
use crate::target::Target;
use crate::{Done, output};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use tensorkeep::{Error, Result, Value};

/// Two checkpoints, and how far apart they are.
pub struct Comparison {
    left: Opened,
    right: Opened,
    verdicts: BTreeMap<String, Verdict>,
    changes: Vec<Change>,
    /// Why some records cannot be read.
    unreadable: Vec<Error>,
    lists_all: bool,
}

pub fn run(args: &Diff) -> Result<Comparison> {
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
    let unreadable = ours.unreadable.into_iter().chain(theirs.unreadable).collect();
    Ok(Comparison { left, right, verdicts, changes, unreadable, lists_all: args.all })
}

impl Comparison {
    fn is_same(&self) -> bool {
        self.verdicts.values().all(Verdict::is_same)
    }

    fn errors(&self) -> impl Iterator<Item = &Error> {
        self.verdicts.values().filter_map(Verdict::error).chain(&self.unreadable)
    }
}

impl Answer for Comparison {
    fn schema(&self) -> &'static str {
        "diff"
    }

    fn json(&self) -> Json {
        json!({
            "left": self.left.name(),
            "right": self.right.name(),
            "same": self.is_same(),
            "counts": counts(&self.verdicts),
            "tensors": self.verdicts.iter().map(|(name, verdict)| as_json(name, verdict)).collect::<Vec<_>>(),
            "records": self.changes.iter().map(change_as_json).collect::<Vec<_>>(),
            "records_unreadable": self.unreadable.iter().map(output::error_in_json).collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> Result<Text<'_>> {
        Ok(Text::default()
            .warnings(self.left.warnings())
            .warnings(self.right.warnings())
            .lines(tables(&self.verdicts, &self.changes, self.lists_all))
            .warnings(self.errors()))
    }

    fn end(self: Box<Self>) -> Done {
        let worst = Exit::worst(self.errors().map(Exit::from));
        Ok(worst.unwrap_or(if self.is_same() { Exit::Ok } else { Exit::No }))
    }
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

/// Differing tensors that are listed one by one; more are summed by module.
const LISTED: usize = 40;

fn tables(verdicts: &BTreeMap<String, Verdict>, changes: &[Change], all: bool) -> String {
    let mut shown: Vec<_> =
        verdicts.iter().filter(|(_, verdict)| all || !matches!(verdict, Verdict::Equal)).collect();
    // Farthest apart first: NaN, then what has no distance, then by it.
    let far = |verdict: &Verdict| match verdict.distance().map(Distance::relative) {
        Some(relative) if relative.is_nan() => f64::INFINITY,
        Some(relative) => relative,
        None => f64::MAX,
    };
    shown.sort_by(|(a, x), (b, y)| far(y).total_cmp(&far(x)).then_with(|| natural(a, b)));
    let mut parts = Vec::new();
    if !all && shown.len() > LISTED {
        parts.push(by_module(&shown));
    } else if !shown.is_empty() {
        let header = ["tensor", "verdict", "relative L2", "max |d|", "at", "cosine", "ulp", ""];
        let rows = shown.iter().map(|(name, verdict)| row(name, verdict));
        parts.push(output::table_by_worth(&header, &[2, 3, 4, 5, 6], &[6, 4, 5, 3], rows));
    }
    let is_news = |change: &&Change| all || !is_bookkeeping(&change.path);
    let news: Vec<&Change> = changes.iter().filter(is_news).collect();
    if !news.is_empty() {
        let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "-".to_owned());
        let rows =
            news.iter().map(|change| vec![change.path.clone(), side(&change.left), side(&change.right)]);
        parts.push(output::table(&["record", "left", "right"], &[], rows));
    }
    if news.len() < changes.len() {
        let count = output::count(changes.len() - news.len(), "place");
        parts.push(format!("{count} of records that every step changes; --all shows them"));
    }
    parts.push(summary(verdicts, shown.first().copied()));
    parts.join("\n\n")
}

/// The last line: how many of each, and where they are farthest apart.
fn summary(verdicts: &BTreeMap<String, Verdict>, farthest: Option<(&String, &Verdict)>) -> String {
    let counts: Vec<String> =
        counts(verdicts).iter().map(|(word, count)| format!("{count} {word}")).collect();
    let counts = if counts.is_empty() { "no tensors".to_owned() } else { counts.join(", ") };
    match farthest.and_then(|(name, verdict)| Some((name, verdict.distance()?))) {
        Some((name, distance)) => output::clean(&format!(
            "{counts}; farthest apart: {name}, relative L2 {}",
            output::number(distance.relative())
        )),
        None => counts,
    }
}

/// Modules, with the distance of all their tensors together; farthest first.
fn by_module(shown: &[(&String, &Verdict)]) -> String {
    let mut modules: BTreeMap<&str, (usize, usize, Distance)> = BTreeMap::new();
    for (name, verdict) in shown {
        let (tensors, others, sum) = modules.entry(module(name)).or_default();
        *tensors += 1;
        match verdict.distance() {
            Some(distance) => sum.merge(distance),
            None => *others += 1,
        }
    }
    let mut modules: Vec<_> = modules.into_iter().collect();
    let far = |sum: &Distance| if sum.relative().is_nan() { f64::INFINITY } else { sum.relative() };
    modules.sort_by(|(a, x), (b, y)| far(&y.2).total_cmp(&far(&x.2)).then_with(|| natural(a, b)));
    let rows = modules.iter().map(|(name, (tensors, others, sum))| {
        let note = if *others > 0 { format!("{others} not comparable") } else { String::new() };
        let numbers = [sum.relative(), sum.cosine()].map(output::number);
        let [relative, cosine] = numbers;
        vec![(*name).to_owned(), tensors.to_string(), relative, largest(sum), cosine, note]
    });
    let header = ["module", "differ", "relative L2", "max |d|", "cosine", ""];
    let table = output::table_by_worth(&header, &[1, 2, 3, 4], &[4, 3], rows);
    format!("{table}\n{} differ, summed by module; --all lists them", output::count(shown.len(), "tensor"))
}

fn row(name: &str, verdict: &Verdict) -> Vec<Cell> {
    let word = match verdict {
        Verdict::Unreadable(_) => Cell::red(verdict.word()),
        _ => verdict.word().into(),
    };
    let mut row: Vec<Cell> = vec![name.into(), word];
    if let Verdict::Incompatible(what) = verdict {
        row.extend(["", "", "", "", "", what.as_str()].map(Cell::from));
    }
    if let Some(distance) = verdict.distance() {
        row.push(output::number(distance.relative()).into());
        row.push(largest(distance).into());
        row.push(distance.max_at.to_string().into());
        row.push(output::number(distance.cosine()).into());
        row.push(distance.ulps().map_or(String::new(), |ulps| ulps.to_string()).into());
        row.extend(distance.widened.as_deref().map(Cell::from));
    }
    row
}

/// The largest difference: of integers to the last digit.
fn largest(distance: &Distance) -> String {
    distance.whole.map_or_else(|| output::number(distance.max()), |whole| whole.to_string())
}

fn as_json(name: &str, verdict: &Verdict) -> Json {
    let mut object = json!({ "name": name, "verdict": verdict.word() });
    let more = match (verdict, verdict.distance()) {
        (Verdict::Incompatible(what), _) => json!({ "what": what }),
        (Verdict::Unreadable(error), _) => json!({ "error": output::error_in_json(error) }),
        (_, Some(distance)) => json!({
            "max": distance.whole.map_or_else(|| output::json_number(distance.max()), Into::into),
            "max_at": distance.max_at,
            "relative_l2": output::json_number(distance.relative()),
            "cosine": output::json_number(distance.cosine()),
            "ulp": distance.ulps(),
            "beyond_tolerance": distance.far,
            "widened": distance.widened,
        }),
        _ => json!({}),
    };
    if let (Some(object), Json::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

pub fn change_as_json(change: &Change) -> Json {
    json!({ "path": change.path, "left": change.left, "right": change.right })
}
