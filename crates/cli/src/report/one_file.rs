//! The page of one file, ours or of another format: its modules, and one tensor at a time.

use super::page::{self, Kind};
use super::tensors::Tensors;
use super::verdict::{Sign, icon};
use super::words::{self, Fact, code, count, escape, int, section, shorten};
use crate::opened::{Meta, Opened};
use crate::output;
use crate::records;
use crate::stats::Stats;
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use tensorkeep::{Result, Value};

/// Records and metadata listed.
const LISTED: usize = 300;

/// The result of verifying the bytes.
enum Bytes {
    Verified,
    /// How many places are bad, and the first, in words.
    Damaged(usize, String),
    /// The format has no checksums.
    Unknown,
}

/// The page of an open file. `format` is the name of its format.
///
/// # Errors
/// Errors of reading that do not concern a single tensor.
pub fn html(opened: &Opened, format: &str, title: &str) -> Result<String> {
    let tensors = Tensors::of(opened, true)?;
    let bytes = match opened {
        Opened::Own(checkpoint) => match checkpoint.inspect().verify_all()?.damage.as_slice() {
            [] => Bytes::Verified,
            [first, rest @ ..] => Bytes::Damaged(1 + rest.len(), first.to_string()),
        },
        Opened::Foreign(_) => Bytes::Unknown,
    };
    let name = title.rsplit('/').next().unwrap_or(title);
    let mut body = head(opened, &tensors, format, title, name);
    body.push_str("<main>");
    body.push_str(&verdict(&tensors, &bytes, format, title, &losses(opened)));
    body.push_str(&section(
        "net",
        "Modules",
        "In the order of names; modules that repeat with the same names and shapes are drawn once.",
        "<div class=\"net\"><div class=\"left\"></div><div class=\"det\"></div></div>",
    ));
    body.push_str(&section("tensors", "Where the bytes are", &total(&tensors), ""));
    body.push_str(&told(opened));
    body.push_str("</main>\n");
    let at: Vec<Option<u64>> = tensors.all.iter().map(|(meta, _)| meta.offset).collect();
    let data = json!({
        "schema": "tensorkeep.report.v2", "kind": "file", "generated": output::now(), "name": output::clean(name),
        "tensors": tensors.columns(&output::clean(name)), "at": at,
    });
    Ok(page::page(name, "flat", &body, &data, Kind::File))
}

fn total(tensors: &Tensors) -> String {
    let bytes: u64 = output::total(
        tensors.all.iter().filter(|(meta, _)| meta.alias_of.is_none()).map(|(meta, _)| meta.byte_len),
    );
    format!("{}, {}.", count(tensors.all.len() as u64, "tensor"), output::size(bytes))
}

fn head(opened: &Opened, tensors: &Tensors, format: &str, title: &str, name: &str) -> String {
    let mut by_dtype: BTreeMap<String, u64> = BTreeMap::new();
    let own = || tensors.all.iter().map(|(meta, _)| meta).filter(|meta| meta.alias_of.is_none());
    own().for_each(|meta| *by_dtype.entry(meta.dtype_text()).or_default() += meta.byte_len);
    let all: u64 = by_dtype.values().sum();
    let mut dtypes: Vec<(String, u64)> = by_dtype.into_iter().collect();
    dtypes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let share = |bytes: u64| 100.0 * bytes as f64 / all.max(1) as f64;
    let dtypes: Vec<String> = match dtypes.as_slice() {
        [(only, _)] => vec![only.clone()],
        several => {
            several.iter().take(4).map(|(name, bytes)| format!("{name} {:.1} %", share(*bytes))).collect()
        }
    };
    let aliases = tensors.all.len() - own().count();
    let tied = if aliases > 0 { format!(", {aliases} of them tied") } else { String::new() };
    let facts = [
        ("size", output::size(opened.byte_len())),
        ("parameters", int(tensors.parameters())),
        ("tensors", format!("{}{tied}", int(tensors.all.len() as u64))),
        ("dtypes", dtypes.join(", ")),
    ];
    let line: String = facts
        .iter()
        .map(|(what, value)| format!("<div><dt>{what}</dt><dd>{}</dd></div>", escape(value)))
        .collect();
    let kind = match opened {
        Opened::Own(_) => format!("{format} checkpoint"),
        Opened::Foreign(_) => format!("{format}, not a tensorkeep file"),
    };
    format!(
        "<header class=\"head\"><h1>{}</h1><span class=\"muted under\">{}</span><span class=\"sp\"></span></header>\n\
         <dl class=\"facts-line\">{line}<div><dt>path</dt><dd>{}</dd></div></dl>\n",
        escape(&shorten(name, 120)),
        escape(&kind),
        code(&shorten(title, 300))
    )
}

/// What was lost in reading it, in words.
fn losses(opened: &Opened) -> Vec<String> {
    let Opened::Foreign(foreign) = opened else { return vec![] };
    let lost = foreign.notes().iter().filter(|note| note.loss);
    lost.map(|note| format!("{}: {}", note.name, note.what)).collect()
}

fn verdict(tensors: &Tensors, bytes: &Bytes, format: &str, title: &str, losses: &[String]) -> String {
    let bad: Vec<_> = tensors
        .all
        .iter()
        .filter_map(|(meta, stats)| Some((meta, stats.as_ref()?)))
        .filter(|(_, stats)| stats.bad() > 0)
        .collect();
    let unread = tensors
        .all
        .iter()
        .filter(|(meta, stats)| stats.is_none() && meta.alias_of.is_none() && meta.byte_len > 0)
        .count();
    let parameters = match tensors.parameters() {
        many @ 1_000_000.. => format!("{:.1} M parameters", many as f64 / 1e6),
        few => count(few, "parameter"),
    };
    let holds = format!("{parameters} in {}", count(tensors.all.len() as u64, "tensor"));
    let finite = finite(&bad, unread);
    let (sign, then) = state_of(bytes, bad.is_empty() && losses.is_empty(), format, title);
    let mut facts = if unread > 0 {
        vec![Fact::new(
            "Not read",
            count(unread as u64, "tensor"),
            "damaged, or of a kind whose values are not known",
        )]
    } else {
        vec![]
    };
    if let Some(first) = losses.first() {
        let more = if losses.len() > 1 { format!("; and {} more", losses.len() - 1) } else { String::new() };
        let things = count(losses.len() as u64, "thing");
        facts.push(Fact::new("Not in here", things, format!("{}{more}", shorten(first, 300))));
    }
    format!(
        "<section id=\"verdict\"><h2 class=\"vh\">Verdict</h2><p class=\"say\">{}<span>{holds}; {finite}.</span></p><div class=\"do muted\">{then}</div>{}</section>\n",
        icon(sign),
        words::facts(&facts)
    )
}

/// Whether the values are finite, in words. `bad` are tensors with some that are not.
fn finite(bad: &[(&Meta, &Stats)], unread: usize) -> String {
    match bad {
        [] if unread == 0 => "every value is finite".to_owned(),
        [] => format!("no NaN in those that could be read; {} could not", count(unread as u64, "tensor")),
        [(meta, stats), rest @ ..] => {
            let more = if rest.is_empty() {
                String::new()
            } else {
                format!(" and {} more", count(rest.len() as u64, "tensor"))
            };
            format!(
                "{} of {} values of {} are not finite{more}",
                int(stats.bad()),
                int(stats.count),
                escape(&shorten(&meta.name, 100))
            )
        }
    }
}

/// Whether the bytes are those once written, and what to do.
fn state_of(bytes: &Bytes, is_good: bool, format: &str, title: &str) -> (Sign, String) {
    match bytes {
        Bytes::Verified if is_good => (Sign::Ok, "Every byte is as it was written.".to_owned()),
        Bytes::Verified => (Sign::Warn, "Every byte is as it was written.".to_owned()),
        Bytes::Damaged(places, first) => (
            Sign::Bad,
            format!(
                "Damaged in {}: {}. {} takes out what is intact.",
                count(*places as u64, "place"),
                escape(&shorten(first, 300)),
                code(&format!("tensorkeep salvage {title} -o rescued.tkeep"))
            ),
        ),
        Bytes::Unknown => (
            if is_good { Sign::Ok } else { Sign::Warn },
            format!(
                "{} has no checksums: that the bytes are those once written cannot be told. To keep it with checksums: {}.",
                escape(format),
                code(&format!("tensorkeep import {title} -o {title}.tkeep"))
            ),
        ),
    }
}

/// Records and metadata, a line for each leaf; without places of tensors, and without the library's
/// own records that no person reads.
fn told(opened: &Opened) -> String {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let tensors: HashSet<String> = opened.tensors().into_iter().map(|meta| meta.name).collect();
    let for_people = |(name, _): &(String, _)| !records::BOOKKEEPING.contains(&name.as_str());
    for (name, value) in opened.records().into_iter().filter(for_people) {
        match value {
            Ok(value) => {
                if let Some(left) = records::without_places(&value, &name, &|path| tensors.contains(path)) {
                    leaves(&name, &left, &mut rows);
                }
            }
            Err(error) => rows.push((String::new(), vec![escape(&name), escape(&error.to_string())])),
        }
        if rows.len() >= LISTED {
            break;
        }
    }
    if rows.is_empty() {
        return section("meta", "Metadata", "The file says nothing about itself.", "");
    }
    let more = if rows.len() > LISTED {
        "The first of them are listed."
    } else {
        "What the file says about itself."
    };
    rows.truncate(LISTED);
    section("meta", "Metadata", more, &words::table("meta", &["key", "value"], &[], &rows))
}

fn leaves(path: &str, value: &Value, rows: &mut Vec<(String, Vec<String>)>) {
    match value {
        Value::Map(map) if !map.is_empty() && rows.len() < LISTED => {
            map.iter().for_each(|(key, value)| leaves(&format!("{path}.{key}"), value, rows));
        }
        value if rows.len() <= LISTED => {
            let shown = shorten(&value.to_string(), 300);
            rows.push((String::new(), vec![escape(&shorten(path, 120)), code(&shown)]));
        }
        _ => {}
    }
}
