//! `report TARGET... -o FILE`: a run, several runs, a folder of runs, or a file as one HTML page;
//! `-o -` is stdout.

use crate::answer::{Answer, Text};
use crate::args::Report;
use crate::budget::Budget;
use crate::output;
use crate::place::{Place, runs_in};
use crate::report::{self, Entry, Options};
use serde_json::{Value as Json, json};
use std::ffi::OsStr;
use std::path::Path;
use tensorkeep::convert::Foreign;
use tensorkeep::engine::replace_file;
use tensorkeep::{Error, ErrorKind, Reader, Result};

/// A page that was written to a file, or goes to stdout.
pub struct Page<'a> {
    output: &'a Path,
    html: String,
    /// What the reader of a foreign file says.
    warnings: Vec<String>,
}

pub fn run(args: &Report) -> Result<Page<'_>> {
    let output = args.output.output.as_path();
    let to_stdout = output::is_stdout(output);
    if !to_stdout {
        output::check_free(output, args.output.force)?;
    }
    let (html, warnings) = page(args)?;
    if !to_stdout {
        replace_file(output, Some(html.len() as u64), |upload| upload.append(html.as_bytes()))?;
    }
    Ok(Page { output, html, warnings })
}

impl Answer for Page<'_> {
    fn schema(&self) -> &'static str {
        "report"
    }

    fn json(&self) -> Json {
        json!({ "output": self.output.display().to_string(), "bytes": self.html.len() })
    }

    fn text(&self) -> Result<Text<'_>> {
        let text = Text::default().warnings(&self.warnings);
        if output::is_stdout(self.output) {
            return Ok(text.bytes(self.html.as_bytes()));
        }
        let path = output::clean(&self.output.display().to_string());
        Ok(text.lines(format_args!("{path}: {}", output::size(self.html.len() as u64))))
    }
}

/// The page, and what there is to say besides.
fn page(args: &Report) -> Result<(String, Vec<String>)> {
    let options = options(args)?;
    if let [one] = args.targets.as_slice() {
        return match file(one)? {
            Some(page) => Ok(page),
            None => of_one(one, options).map(|page| (page, vec![])),
        };
    }
    let places: Vec<Place> = args.targets.iter().map(Place::new).collect();
    let mut readers = Vec::new();
    for place in &places {
        let reader = place.reader()?;
        place.check_exists(&reader)?;
        readers.push((place.to_string(), reader));
    }
    let options = Options { title: format!("{} runs", readers.len()), ..options };
    of_several(&readers, &options).map(|page| (page, vec![]))
}

fn options(args: &Report) -> Result<Options> {
    let mut options = Options { verify_all: args.verify_all, quick: args.quick, ..Options::default() };
    if let Some(diff) = &args.diff {
        let steps = diff.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        options.diff = Some(steps.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("{diff:?} names no two steps")).expected("as 100:200")
        })?);
    }
    Ok(options)
}

/// The page of a file, if the target is one, or a folder that is opened like one.
fn file(target: &OsStr) -> Result<Option<(String, Vec<String>)>> {
    let path = Path::new(target);
    let format = if path.exists() { Foreign::sniff(path).ok().flatten() } else { None };
    if !path.is_file() && format.is_none() {
        return Ok(None);
    }
    let opened = Budget::default().open(path)?;
    let format = format.map_or("tensorkeep", |format| format.as_str());
    let page = report::of_file(&opened, format, &path.display().to_string())?;
    Ok(Some((page, opened.warnings())))
}

/// The page of a run, or of the runs in a folder.
fn of_one(target: &OsStr, options: Options) -> Result<String> {
    let place = Place::new(target);
    let reader = place.reader()?;
    if let Err(error) = place.check_exists(&reader) {
        let runs = place.folder().map(runs_in).unwrap_or_default();
        if runs.is_empty() {
            return Err(error);
        }
        return of_several(&runs, &Options { title: place.to_string(), ..options });
    }
    let free = place.folder().and_then(|folder| rustix::fs::statvfs(folder).ok());
    let free_bytes = free.map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    report::html(&reader, &Options { title: place.to_string(), free_bytes, ..options })
}

fn of_several(runs: &[(String, Reader)], options: &Options) -> Result<String> {
    let entry = |(name, reader): &'_ (String, Reader)| Entry {
        name: name.clone(),
        href: None,
        reader: reader.clone(),
    };
    let entries: Vec<Entry> = runs.iter().map(entry).collect();
    report::of_runs(&entries, options)
}
