//! Several runs on one page: their curves over each other, and one table. Of each, the newest
//! checkpoint is verified and looked at for NaN; older ones only where the newest is damaged.

use super::Options;
use super::facts::{Diverged, Facts, Now};
use super::pack;
use super::page::{self, Kind};
use super::run::Run;
use super::verdict::{self, Sign, icon};
use super::words::{self, Fact, count, escape, int, num, section, shorten};
use crate::output;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use tensorkeep::history::{Point, Series};
use tensorkeep::{Mode, Reader, Result};

/// Metrics to choose from, and points of each curve.
const METRICS: usize = 12;
const POINTS: usize = 300;
/// Facts under the verdict.
const FACTS: usize = 8;

/// A run to be shown: its name, the address of its own page, and its reader.
pub struct Entry {
    pub name: String,
    pub href: Option<String>,
    pub reader: Reader,
}

/// One row.
struct Row {
    name: String,
    href: Option<String>,
    run: Run,
    facts: Facts,
}

/// The page.
///
/// # Errors
/// Errors of listing and reading.
pub fn html(entries: &[Entry], options: &Options) -> Result<String> {
    let mut rows = Vec::new();
    for entry in entries {
        let own = Options { title: entry.name.clone(), ..Options::default() };
        let run = Run::read_briefly(&entry.reader, &own)?;
        let facts = run.facts();
        let name = output::clean(&shorten(&entry.name, 120));
        rows.push(Row { name, href: entry.href.clone(), run, facts });
    }
    let title = options.title.trim_end_matches('/');
    let running = rows.iter().filter(|row| row.facts.now == Now::Running).count();
    let bytes: u64 = rows.iter().flat_map(|row| &row.run.infos).map(|info| info.byte_len).sum();
    let mut body = format!(
        "<header class=\"head\"><h1>{}</h1><span class=\"muted under\">{} · {running} running · {}</span><span class=\"sp\"></span></header>\n<main>",
        escape(&shorten(title, 120)),
        count(rows.len() as u64, "run"),
        output::size(bytes)
    );
    let metrics = metrics(&rows);
    body.push_str(&verdict(&rows, metrics.first().map(String::as_str)));
    if !metrics.is_empty() {
        let first = "The runs ticked in the list, each over its own steps. Up to eight at once.";
        body.push_str(&section("overlay", "Curves", first, ""));
    }
    body.push_str(&section(
        "runs",
        "Runs",
        "Settings are columns only where the runs differ.",
        &table(&rows),
    ));
    body.push_str("</main>\n");
    let data = json!({
        "schema": "tensorkeep.report.v2", "kind": "runs", "generated": output::now(), "live": options.live,
        "metrics": metrics, "runs": rows.iter().map(|row| as_json(row, &metrics)).collect::<Vec<_>>(),
    });
    Ok(page::page(title, "flat", &body, &data, Kind::Runs))
}

/// Names of metrics, those that most runs have first, and of those the ones with a direction.
fn metrics(rows: &[Row]) -> Vec<String> {
    let mut counts: BTreeMap<&String, (usize, bool)> = BTreeMap::new();
    for (name, series) in rows.iter().flat_map(|row| &row.run.story.metrics) {
        let entry = counts.entry(name).or_default();
        *entry = (entry.0 + 1, entry.1 | series.mode.is_some());
    }
    let mut names: Vec<(&String, (usize, bool))> = counts.into_iter().collect();
    names.sort_by_key(|(name, (count, has_mode))| (!has_mode, std::cmp::Reverse(*count), (*name).clone()));
    names.into_iter().take(METRICS).map(|(name, _)| output::clean(name)).collect()
}

/// The best run by the first metric with a direction, and the problems of all runs.
fn verdict(rows: &[Row], metric: Option<&str>) -> String {
    let best = rows.iter().filter_map(|row| Some((row, row.run.story.metrics.get(metric?)?)));
    let best: Vec<(&Row, &Series, Point)> =
        best.filter_map(|(row, series)| Some((row, series, series.best()?))).collect();
    let value = |(_, series, point): &&(&Row, &Series, Point)| match series.mode {
        Some(Mode::Min) => -point.value,
        _ => point.value,
    };
    let best = best.iter().max_by(|a, b| value(a).total_cmp(&value(b)));
    let worst = rows.iter().map(|row| verdict::of(&row.facts).sign);
    let is_bad = worst.clone().any(|sign| sign == Sign::Bad);
    let sign = if is_bad {
        Sign::Bad
    } else if worst.clone().any(|sign| sign == Sign::Warn) {
        Sign::Warn
    } else {
        Sign::Ok
    };
    let troubles =
        rows.iter().filter(|row| matches!(verdict::of(&row.facts).sign, Sign::Warn | Sign::Bad)).count();
    let say = match best {
        Some((row, _, point)) => format!(
            "{} is best, {} {} at step {}.",
            escape(&row.name),
            escape(metric.unwrap_or_default()),
            num(point.value),
            int(point.step)
        ),
        None => format!("{}; no metric has a direction to rank them by.", count(rows.len() as u64, "run")),
    };
    let trouble = match troubles {
        0 => String::new(),
        1 => " 1 needs a look.".to_owned(),
        many => format!(" {many} need a look."),
    };
    let facts: Vec<Fact> = rows.iter().filter_map(trouble_of).take(FACTS).collect();
    format!(
        "<section id=\"verdict\" aria-live=\"polite\"><h2 class=\"vh\">Verdict</h2><p class=\"say\">{}<span>{say}{trouble}</span></p>{}</section>\n",
        icon(sign),
        words::facts(&facts)
    )
}

/// A run's problem, as a fact.
fn trouble_of(row: &Row) -> Option<Fact> {
    let (verdict, word) = word(row);
    let what = match verdict {
        "nan" => "NaN",
        "damaged" => "Damaged",
        "bad" => "Cannot be resumed",
        _ if row.facts.now == Now::Died => return Some(Fact::new("Died", &row.name, word).tone("warn")),
        _ => return None,
    };
    Some(Fact::new(what, &row.name, word).tone("bad"))
}

/// The checkpoint that a resume of it opens, in a few words.
fn word(row: &Row) -> (&'static str, String) {
    let facts = &row.facts;
    let Some(newest) = facts.newest else { return ("none", "nothing saved yet".to_owned()) };
    let Some(resume) = facts.resume else { return ("bad", "none verifies".to_owned()) };
    match &facts.not_finite {
        Some(nan) => {
            let last =
                nan.last_finite.map_or_else(String::new, |last| format!("; last finite {}", int(last)));
            ("nan", format!("{}, NaN since {}{last}", int(resume), int(nan.since)))
        }
        None if resume != newest => ("damaged", format!("{}; newest damaged", int(resume))),
        None => match &facts.diverged {
            Some(Diverged { metric, value, since, .. }) => {
                ("nan", format!("{}, {metric} {value} since {}", int(resume), int(*since)))
            }
            None => ("ok", "newest, verified".to_owned()),
        },
    }
}

fn table(rows: &[Row]) -> String {
    let row = |row: &Row| {
        let name = match &row.href {
            Some(href) => format!("<a href=\"{}\">{}</a>", escape(href), escape(&row.name)),
            None => format!("<b>{}</b>", escape(&row.name)),
        };
        let best = row
            .run
            .best()
            .map(|best| format!("{} {} at {}", escape(&best.metric), num(best.value), int(best.step)));
        let seen = row.run.story.attempts.last().and_then(|attempt| attempt.stop);
        let cells = vec![
            name,
            best.unwrap_or_else(|| "–".to_owned()),
            row.facts.now.shown().1.to_owned(),
            escape(&word(row).1),
            int(row.facts.reached),
            int(row.run.infos.len() as u64),
            seen.map_or_else(|| "–".to_owned(), words::ago),
        ];
        (String::new(), cells)
    };
    let rows: Vec<(String, Vec<String>)> = rows.iter().map(row).collect();
    words::table(
        "rt",
        &["run", "best", "state", "resumes from", "step", "kept", "last seen"],
        &[4, 5, 6],
        &rows,
    )
}

fn as_json(row: &Row, metrics: &[String]) -> Json {
    let attempts = &row.run.story.attempts;
    let start = attempts.iter().find_map(|attempt| attempt.start);
    let (verdict, word) = word(row);
    let best = row.run.best().map(|best| (best.metric, super::pack::number(best.value), best.step));
    let settings: BTreeMap<String, String> = row
        .run
        .metadata
        .iter()
        .filter(|(key, text)| key.len() <= 40 && text.len() <= 40 && !key.starts_with("git"))
        .map(|(key, text)| (output::clean(key), output::clean(text)))
        .collect();
    let mut series = Map::new();
    for (name, curve) in &row.run.story.metrics {
        let name = output::clean(name);
        if metrics.contains(&name) {
            series.insert(name, one_curve(curve, start));
        }
    }
    json!({
        "name": row.name, "href": row.href, "state": row.facts.now.key(), "verdict": verdict, "word": word,
        "step": row.facts.reached, "total": row.facts.total, "start": start,
        "seen": attempts.last().and_then(|attempt| attempt.stop).unwrap_or(0),
        "attempts": attempts.len(),
        "killed": attempts.iter().filter(|attempt| attempt.end == super::story::End::Killed).count(),
        "kept": row.run.infos.len(), "bytes": row.run.infos.iter().map(|info| info.byte_len).sum::<u64>(),
        "best": best, "settings": settings, "series": series,
    })
}

fn one_curve(series: &Series, start: Option<u64>) -> Json {
    let finite: Vec<Point> = series.points().filter(|point| point.value.is_finite()).collect();
    let points = super::story::thin(&finite, POINTS);
    let start = start.map_or_else(|| points.first().map_or(0.0, |point| point.time), |start| start as f64);
    json!({
        "dir": output::direction(series.mode),
        "steps": pack::varint(points.iter().map(|point| point.step)),
        "v": pack::f32s(points.iter().map(|point| point.value)),
        "t": pack::varint(points.iter().map(|point| ((point.time - start) * 1e3).max(0.0) as u64)),
    })
}
