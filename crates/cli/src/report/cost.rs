//! The cost of safety: how long saving stalled training, the steps that kills lost, and the disk.

use super::pack;
use super::run::Run;
use super::story::End;
use super::words::{self, Fact, count, int, section, span};
use crate::output;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tensorkeep::store::SaveCost;

/// Saves that are drawn: of more, those that cost most of each stretch.
const DRAWN: usize = 2_000;

/// The costs of saves, by step: each checkpoint records that of the save before it.
fn costs(run: &Run) -> Vec<SaveCost> {
    let told = run.infos.iter().filter_map(|info| info.state.as_ref().ok()?.previous.clone());
    let by_step: BTreeMap<u64, SaveCost> = told.map(|cost| (cost.step, cost)).collect();
    by_step.into_values().collect()
}

/// Steps and milliseconds.
pub fn json(run: &Run) -> Json {
    let all = costs(run);
    let stretch = all.len().div_ceil(DRAWN).max(1);
    let drawn: Vec<&SaveCost> =
        all.chunks(stretch).filter_map(|part| part.iter().max_by_key(|cost| cost.stall)).collect();
    json!({
        "steps": pack::varint(drawn.iter().map(|cost| cost.step)),
        "stall": pack::f32s(drawn.iter().map(|cost| cost.stall.as_secs_f64() * 1e3)),
    })
}

pub fn cost(run: &Run) -> String {
    let costs = costs(run);
    let mut facts = times(run, &costs);
    facts.extend(kills(run));
    let disk: u64 = output::total(run.infos.iter().map(|info| info.byte_len));
    let each = disk / (run.infos.len() as u64).max(1);
    let small =
        format!("{}, {} each, on average", count(run.infos.len() as u64, "checkpoint"), output::size(each));
    facts.push(Fact::new("On disk", output::size(disk), small));
    if let Some(free) = run.options.free_bytes {
        facts.push(Fact::new("Free", output::size(free), full(run, each, free)));
    }
    let note = if costs.is_empty() {
        "How long training stood still is known from an attempt’s second save on."
    } else {
        "What safety costs this run in time and on disk."
    };
    section("cost", "Cost", note, &words::facts(&facts))
}

/// How long the saves that are known of took, and how long training stood still for them.
fn times(run: &Run, costs: &[SaveCost]) -> Vec<Fact> {
    let Some(worst) = costs.iter().max_by_key(|cost| cost.stall) else { return vec![] };
    let sorted = |time: fn(&SaveCost) -> Duration| {
        let mut times: Vec<Duration> = costs.iter().map(time).collect();
        times.sort_unstable();
        times
    };
    let (stalls, took) = (sorted(|cost| cost.stall), sorted(|cost| cost.took));
    let at = |times: &[Duration], share: usize| times[(times.len() - 1) * share / 100];
    let trained: u64 =
        run.story.attempts.iter().filter_map(|attempt| attempt.stop?.checked_sub(attempt.start?)).sum();
    let mut facts = Vec::new();
    let mean = stalls.iter().sum::<Duration>().as_secs_f64() / stalls.len() as f64;
    let saves: Option<u64> = run.story.attempts.iter().map(|attempt| attempt.saves).sum();
    if let Some(saves) = saves.filter(|saves| trained > 0 && *saves > 0) {
        let held = mean * saves as f64;
        let value = format!("{:.3} % of training", 100.0 * held / trained as f64);
        let small = format!(
            "{} in {}; {}",
            output::duration(Duration::from_secs_f64(held)),
            span(trained),
            count(saves, "save")
        );
        facts.push(Fact::new("Held up by saving, about", value, small));
    }
    let value = format!("{}, median", output::duration(at(&stalls, 50)));
    let small = format!(
        "95 %: {}; worst: {} at step {}; durable after {}",
        output::duration(at(&stalls, 95)),
        output::duration(worst.stall),
        int(worst.step),
        output::duration(at(&took, 50))
    );
    facts.push(Fact::new(format!("One save, of {}", costs.len()), value, small));
    facts
}

fn kills(run: &Run) -> Option<Fact> {
    let attempts = &run.story.attempts;
    if attempts.len() < 2 {
        return None;
    }
    let gaps = attempts.windows(2).filter_map(|two| two[1].start?.checked_sub(two[0].stop?));
    let value = format!("nothing ran for {}", span(gaps.sum()));
    let lost: u64 = attempts.iter().filter_map(|attempt| attempt.lost).sum();
    let killed = attempts.iter().filter(|attempt| attempt.end == End::Killed).count() as u64;
    let small = match (lost, killed) {
        (0, 0) => String::new(),
        (0, killed) => format!("{}; what each did behind its last save was repeated", count(killed, "kill")),
        (lost, _) => format!("{} repeated", count(lost, "step")),
    };
    Some(Fact::new("Between attempts", value, small))
}

/// When the disk will be full, at the newest attempt's rate of saving.
fn full(run: &Run, each: u64, free: u64) -> String {
    let keeps_all = run.keep.as_ref().is_none_or(|keep| keep.to_string().contains("all"));
    if !keeps_all {
        return "old checkpoints are deleted: this run does not fill it".to_owned();
    }
    match run.interval().filter(|gap| *gap > 0.0) {
        Some(gap) => {
            let seconds = free as f64 / each.max(1) as f64 * gap;
            format!("full in {} of training", span(seconds.min(1e15) as u64))
        }
        None => String::new(),
    }
}
