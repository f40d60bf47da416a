//! Models that are split into several GGUF files: lists the parts, by the keys and the name of one
//! of them, and checks that all exist.

use super::Part;
use crate::budget::Budget;
use crate::engine::local;
use crate::error::{Error, ErrorKind, Result};
use crate::format::value::Value;
use std::path::{Path, PathBuf};

/// Keys that describe a part; removed from the whole, of which they are not true.
const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";
/// Most missing parts that a message names.
const NAMED: usize = 3;

/// `model-00002-of-00005.gguf`: the second of five.
struct Name {
    prefix: String,
    number: u64,
    count: u64,
}

impl Name {
    fn of(path: &Path) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| (text.len() == 5).then(|| text.parse().ok())?;
        Some(Self { prefix: prefix.to_owned(), number: digits(number)?, count: digits(count)? })
    }

    /// The file name of another part, counted from 1.
    fn part(&self, number: u64) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.prefix, self.count)
    }
}

/// All parts, in order, of the model to which `first`, opened at `path`, belongs; only `first` if
/// it is whole.
///
/// # Errors
/// `NotFound` when a part is missing, `Damaged` when one belongs to another model.
pub fn parts(path: &Path, first: Part, budget: &Budget) -> Result<Vec<Part>> {
    let name = Name::of(path);
    let count = match (first.pairs.get(COUNT).and_then(integer), &name) {
        (Some(count), _) => count,
        // Tools other than llama.cpp's mark parts only by the name.
        (None, Some(name)) => name.count,
        (None, None) => 1,
    };
    if count <= 1 {
        return Ok(vec![first]);
    }
    let number = first.pairs.get(NUMBER).and_then(integer).map(|number| number.saturating_add(1));
    let fits = |name: &Name| name.count == count && number.is_none_or(|number| number == name.number);
    let Some(name) = name.filter(fits) else {
        let number = number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("the file is part {number} of {count} of a model"),
        )
        .expected(format!("a name that says so, such as model-00001-of-{count:05}.gguf"))
        .help("give all parts the names that they had, in one folder"));
    };
    let files = present(path, &name)?;
    let mut first = Some(first);
    let mut parts = Vec::new();
    for (number, file) in (1..).zip(files) {
        let part = match first.take_if(|_| number == name.number) {
            Some(first) => first,
            None => open(&file, budget)?,
        };
        check(&part, &name, number).map_err(|error| error.in_object(file.display()))?;
        parts.push(part);
    }
    check_total(&parts)?;
    Ok(parts.into_iter().map(without_claims).collect())
}

/// The files of all parts, which must exist.
fn present(path: &Path, name: &Name) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut missing = Vec::new();
    for number in 1..=name.count {
        let leaf = name.part(number);
        let file = path.with_file_name(&leaf);
        if number == name.number || file.is_file() {
            files.push(file);
        } else if missing.len() < NAMED {
            missing.push(leaf);
        } else {
            missing.push("…".to_owned());
            break;
        }
    }
    if missing.is_empty() {
        return Ok(files);
    }
    let what =
        format!("the file is part {} of {} of a model, and parts are missing", name.number, name.count);
    Err(Error::new(ErrorKind::NotFound, what)
        .expected(format!("{} beside it", missing.join(", ")))
        .help("put all parts into one folder and open any of them"))
}

fn open(file: &Path, budget: &Budget) -> Result<Part> {
    let open = || {
        let blob = local::open_file(file)?;
        budget.add_file(blob.len());
        Part::read(&blob, budget)
    };
    open().map_err(|error: Error| error.in_object(file.display()))
}

/// Checks that a part's keys agree with its name.
fn check(part: &Part, name: &Name, number: u64) -> Result<()> {
    let says = |key, expected: u64| part.pairs.get(key).and_then(integer).is_none_or(|says| says == expected);
    if says(COUNT, name.count) && says(NUMBER, number - 1) {
        return Ok(());
    }
    let shown = |key| part.pairs.get(key).map_or_else(|| "nothing".to_owned(), Value::to_string);
    Err(Error::damaged("a part of another model, or another part")
        .expected(format!("{NUMBER} {} and {COUNT} {}", number - 1, name.count))
        .found(format!("{} and {}", shown(NUMBER), shown(COUNT))))
}

/// Checks the total number of tensors against the one that each part claims.
fn check_total(parts: &[Part]) -> Result<()> {
    let total: usize = parts.iter().map(|part| part.tensors.len()).sum();
    let says = parts.iter().filter_map(|part| part.pairs.get(TENSORS).and_then(integer));
    match says.into_iter().find(|&says| says != total as u64) {
        Some(says) => {
            Err(Error::damaged("tensors in all parts together").expected(format!("{says}")).found(total))
        }
        None => Ok(()),
    }
}

/// Removes the keys that mark a part.
fn without_claims(mut part: Part) -> Part {
    for key in [NUMBER, COUNT, TENSORS] {
        part.pairs.remove(key);
    }
    part
}

fn integer(value: &Value) -> Option<u64> {
    match value {
        Value::Int(value) => u64::try_from(*value).ok(),
        Value::UInt(value) => Some(*value),
        _ => None,
    }
}
