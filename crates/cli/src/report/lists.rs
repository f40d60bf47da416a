//! Attempts and checkpoints as tables of plain HTML, which the page's scripts take over.

use super::run::Run;
use super::story::End;
use super::words::{self, escape, int};
use crate::opened;
use crate::output;

/// Newest rows that are written as HTML; of more, the scripts have the data.
const ROWS: usize = 200;

/// The attempts, folded.
pub fn attempts(run: &Run) -> String {
    let known = |number: Option<u64>| number.map_or_else(|| "–".to_owned(), int);
    let date = |time: Option<u64>| time.map_or_else(|| "–".to_owned(), words::date);
    let rows: Vec<(String, Vec<String>)> = run
        .story
        .attempts
        .iter()
        .map(|attempt| {
            let end = match attempt.end {
                End::Killed => "<span class=\"bad\">killed</span>",
                End::Stopped => "stopped by a signal",
                End::Closed => "closed",
                End::Running => "running",
                End::Unknown => "not known",
            };
            let cells = vec![
                attempt.number.to_string(),
                escape(&attempt.host),
                date(attempt.start),
                date(attempt.stop),
                known(attempt.resumed_from),
                known(attempt.is_placed.then_some(attempt.last)),
                known(attempt.saves),
                end.to_owned(),
                known(attempt.lost),
            ];
            (String::new(), cells)
        })
        .collect();
    let header = [
        "attempt",
        "host",
        "started",
        "last seen",
        "resumed from",
        "last step",
        "saves",
        "how it ended",
        "repeated",
    ];
    let table = words::table("", &header, &[0, 4, 5, 6, 8], &rows);
    format!(
        "<details class=\"alt\" id=\"attempts\"><summary>Attempts as a table</summary>{table}</details>\n"
    )
}

/// The checkpoints, newest first.
pub fn checkpoints(run: &Run) -> String {
    let rows: Vec<(String, Vec<String>)> =
        run.infos.iter().rev().take(ROWS).map(|info| (anchor(run, info.id), row(run, info))).collect();
    let header = ["step", "state", "attempt", "saved", "metrics", "size", "kept because"];
    let first = match &run.keep {
        Some(keep) => format!("Kept by: {}; and pins.", escape(&keep.to_string())),
        None => "The run does not say its retention policy.".to_owned(),
    };
    let beyond = match run.infos.len().saturating_sub(ROWS) {
        0 => String::new(),
        more => format!(
            "<p class=\"muted beyond\">{} older ones are shown by the page’s script.</p>",
            int(more as u64)
        ),
    };
    let table = words::table("ck", &header, &[0, 2, 5], &rows);
    words::section("checkpoints", "Checkpoints", &first, &format!("{table}{beyond}"))
}

/// A row's id: its step, and its attempt where several have that step.
fn anchor(run: &Run, id: tensorkeep::CheckpointId) -> String {
    let twins = run.infos.iter().filter(|info| info.id.step == id.step).count();
    if twins > 1 { format!("c{}-{}", id.step, id.attempt) } else { format!("c{}", id.step) }
}

fn row(run: &Run, info: &tensorkeep::CheckpointInfo) -> Vec<String> {
    let kept = run.kept.get(&info.id).map(|why| why.iter().cloned().collect::<Vec<_>>().join(", "));
    let (saved, metrics) = match &info.state {
        Ok(state) => (words::ago(state.saved_at), crate::metrics::in_words(state)),
        Err(_) => ("–".to_owned(), String::new()),
    };
    vec![
        format!("<b>{}</b>", int(info.id.step)),
        state(run, info),
        info.id.attempt.to_string(),
        saved,
        escape(&words::shorten(&metrics, 200)),
        output::size(info.byte_len),
        escape(&kept.unwrap_or_else(|| "goes with the next save".to_owned())),
    ]
}

/// The state of a checkpoint; only a verified one is called well.
fn state(run: &Run, info: &tensorkeep::CheckpointInfo) -> String {
    if let Err(error) = &info.state {
        let word = if opened::is_of_one(error) { error.kind().as_str() } else { "cannot be read" };
        return format!("<span class=\"bad\">{}</span>", escape(word));
    }
    if run.is_damaged(info) {
        return "<span class=\"bad\">damaged</span>".to_owned();
    }
    let verified = run.looked.verified.contains(&info.id);
    match (run.has_nan(info.id), verified) {
        (Some(true), true) => "<span class=\"bad\">NaN</span>, verified".to_owned(),
        (Some(true), false) => "<span class=\"bad\">NaN</span>, index only".to_owned(),
        (_, true) => "<span class=\"good\">verified</span>".to_owned(),
        (_, false) => "<span class=\"muted\">index only</span>".to_owned(),
    }
}
