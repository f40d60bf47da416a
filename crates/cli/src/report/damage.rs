//! Damage: which bytes are bad, and how much was verified to find no more.

use super::looked::Damaged;
use super::run::Run;
use super::words::{code, count, escape, int, section, shorten};
use crate::output;
use serde_json::{Value as Json, json};

/// Damaged checkpoints that are shown one by one.
const SHOWN: usize = 20;
/// Errors of each, in words, and marks on its strip.
const ERRORS: usize = 6;
const MARKS: usize = 200;

pub fn damage(run: &Run) -> String {
    let all: Vec<&Damaged> = run.looked.all_damaged().collect();
    let read = run.looked.verified.len() + run.looked.damaged.len();
    let first = match (all.len(), read) {
        (0, 0) => "Nothing was verified: made with --quick.".to_owned(),
        (0, read) => {
            let rest = run.infos.len().saturating_sub(read);
            let others = match rest {
                0 => String::new(),
                rest => format!(" The other {} were opened by their index only.", int(rest as u64)),
            };
            format!("None in the {} that were read whole.{others}", int(read as u64))
        }
        (bad, read) => {
            let aside = match run.looked.set_aside.len() {
                0 => String::new(),
                many => format!(", {} set aside by a resume before", int(many as u64)),
            };
            let bad = bad - run.looked.set_aside.len();
            let way = match (bad, run.looked.resume) {
                (0, _) | (_, None) => "",
                (_, Some(resume)) if run.looked.damaged.keys().all(|id| *id < resume) => {
                    "; not in the way of a resume"
                }
                _ => "",
            };
            format!(
                "{} of the {} that were read whole damaged{way}{aside}.",
                int(bad as u64),
                int(read as u64)
            )
        }
    };
    let mut body: String =
        all.iter().take(SHOWN).enumerate().map(|(at, one)| article(at, one, run)).collect();
    if all.len() > SHOWN {
        body.push_str(&format!("<p class=\"muted\">And {} more.</p>", all.len() - SHOWN));
    }
    body.push_str(&read_whole(run, read));
    section("damage", "Damage", &first, &body)
}

/// Which ones were read, by step.
fn read_whole(run: &Run, read: usize) -> String {
    let steps: Vec<String> = run.looked.verified.iter().rev().take(40).map(|id| int(id.step)).collect();
    if steps.is_empty() {
        return String::new();
    }
    let more = if run.looked.verified.len() > steps.len() { ", …" } else { "" };
    let rest = run.infos.len().saturating_sub(read);
    let others = match rest {
        0 => String::new(),
        rest => {
            let bytes: u64 = output::total(run.infos.iter().map(|info| info.byte_len));
            format!(
                " The other {} were opened by their index only: damage inside their data would not be seen here. {} reads all {}.",
                int(rest as u64),
                code(&format!("tensorkeep report {} --verify-all", run.options.title)),
                output::size(bytes)
            )
        }
    };
    format!("<p class=\"muted small\">Verified, every byte: {}{more}.{others}</p>", steps.join(", "))
}

fn article(at: usize, one: &Damaged, run: &Run) -> String {
    let title = match one.id {
        Some(id) => format!("<a href=\"#c{}\">Step {}</a>", id.step, int(id.step)),
        None => "Set aside".to_owned(),
    };
    let mut what = one.why();
    if let Some(first) = what.get(..1) {
        what = format!("{}{}", first.to_uppercase(), &what[1..]);
    }
    let rest = match one.intact {
        Some((intact, all)) if intact > 0 => {
            let place = one.id.map_or_else(
                || format!("{}/{}", run.options.title, one.key),
                |id| format!("{}@{id}", run.options.title),
            );
            format!(
                " {} of {} are intact; {} takes them out.",
                int(intact),
                count(all, "tensor"),
                code(&format!("tensorkeep salvage {place} -o rescued.tkeep"))
            )
        }
        _ => String::new(),
    };
    let errors: String = one
        .errors
        .iter()
        .take(ERRORS)
        .map(|error| format!("<li>{}</li>", escape(&shorten(&error.to_string(), 400))))
        .collect();
    let more = match one.errors.len().saturating_sub(ERRORS) {
        0 => String::new(),
        more => format!("<li>and {more} more</li>"),
    };
    let strip = match one.len {
        0 => String::new(),
        _ => format!(
            "<figure data-damage=\"{at}\" data-label=\"the file of {}, damage in red\"></figure>",
            escape(&one.key)
        ),
    };
    format!(
        "<article><h3>{title} <span class=\"muted\">· {}</span></h3><p><span class=\"bad\">{what}.</span>{rest}</p>{strip}\
         <ul class=\"small muted\">{errors}{more}</ul></article>\n",
        escape(&shorten(&one.key, 200))
    )
}

/// The strips' data, in the order of the articles.
pub fn json(run: &Run) -> Json {
    let one = |one: &Damaged| {
        let bytes = one.errors.iter().filter_map(tensorkeep::Error::byte).filter(|byte| *byte < one.len);
        json!({
            "size": one.len, "parts": one.parts,
            "at": bytes.take(MARKS).collect::<Vec<u64>>(),
        })
    };
    run.looked.all_damaged().take(SHOWN).map(one).collect()
}
