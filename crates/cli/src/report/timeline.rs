//! What happened: attempts, their checkpoints, where each resumed; and the metrics over steps.

use super::data::Run;
use super::svg::{Scale, curve};
use super::{escape, section};
use std::collections::{BTreeMap, BTreeSet};
use tensorkeep::Name;

/// Height of one attempt's lane.
const LANE: f64 = 30.0;
/// Lanes drawn: a run that was killed a thousand times is shown by its last.
const LANES: usize = 40;

pub fn timeline(run: &Run) -> String {
    let mut numbers: BTreeSet<u32> = run.attempts.iter().map(|attempt| attempt.number).collect();
    numbers.extend(run.infos.iter().map(|info| info.name.attempt));
    if numbers.is_empty() {
        return section("timeline", "What happened", "<p class=\"dim\">Nothing yet.</p>");
    }
    let left_out = numbers.len().saturating_sub(LANES);
    let numbers: Vec<u32> = numbers.into_iter().skip(left_out).collect();
    let origins = origins(run);
    let there: BTreeSet<Name> = run.infos.iter().map(|info| info.name).collect();
    let steps = there.iter().map(|name| name.step).chain(origins.values().map(|name| name.step)).chain([0]);
    let x = Scale::new(steps.map(|step| step as f64), 150.0, 1060.0);
    let height = LANE * numbers.len() as f64 + 28.0;
    let mut svg = format!("<svg viewBox=\"0 0 1100 {height}\" width=\"100%\" role=\"img\">");
    for (lane, &attempt) in numbers.iter().enumerate() {
        let y = LANE * lane as f64 + 18.0;
        let above = numbers.get(lane.wrapping_sub(1)).copied();
        svg.push_str(&lane_svg(run, attempt, y, x, origins.get(&attempt).copied(), above, &there, lane + 1 == numbers.len()));
    }
    let end = x.ends().1;
    svg.push_str(&format!("<text class=\"dim\" x=\"150\" y=\"{0}\">step 0</text><text class=\"dim\" x=\"1060\" y=\"{0}\" text-anchor=\"end\">step {end}</text></svg>", height - 4.0));
    let legend = "<p class=\"dim\">● kept &nbsp; <span style=\"color:var(--good)\">●</span> pinned &nbsp; <span style=\"color:var(--bad)\">●</span> cannot be read &nbsp; ○ resumed from, deleted since \
                  &nbsp; ✕ the attempt ended: killed or stopped</p>";
    let more = if left_out > 0 { format!("<p class=\"dim\">{left_out} earlier attempts are not drawn.</p>") } else { String::new() };
    section("timeline", "What happened", &format!("{svg}{legend}{more}"))
}

/// Where each attempt resumed, as its checkpoints say.
fn origins(run: &Run) -> BTreeMap<u32, Name> {
    let of = |(name, state): (Name, &tensorkeep::State)| {
        Some((name.attempt, state.resumed_from.as_ref()?.parse().ok()?))
    };
    run.states().filter_map(of).collect()
}

#[expect(clippy::too_many_arguments, reason = "one picture's lane, called once")]
fn lane_svg(
    run: &Run,
    attempt: u32,
    y: f64,
    x: Scale,
    origin: Option<Name>,
    above: Option<u32>,
    there: &BTreeSet<Name>,
    last: bool,
) -> String {
    let of_attempt: Vec<_> = run.infos.iter().filter(|info| info.name.attempt == attempt).collect();
    let start = x.at(origin.map_or(0, |name| name.step) as f64);
    let end = of_attempt.iter().map(|info| x.at(info.name.step as f64)).fold(start, f64::max);
    let who = run.attempts.iter().find(|info| info.number == attempt);
    let who = who.map_or(String::new(), |who| format!("attempt {attempt}: process {} on {}, began {} s after 1970", who.pid, who.host, who.started_at));
    let mut svg = format!(
        "<g><title>{}</title><text x=\"0\" y=\"{:.1}\">attempt {attempt}</text><path class=\"axis\" stroke-width=\"3\" d=\"M{start:.1} {y}H{end:.1}\"/></g>",
        escape(&who),
        y + 4.0
    );
    if let Some(origin) = origin {
        if above.is_some() {
            svg.push_str(&format!("<path class=\"axis\" stroke-dasharray=\"3 3\" d=\"M{start:.1} {:.1}V{y}\"/>", y - LANE));
        }
        if !there.contains(&origin) {
            svg.push_str(&format!("<circle cx=\"{start:.1}\" cy=\"{y}\" r=\"4\" fill=\"var(--card)\" stroke=\"var(--dim)\"><title>resumed from {origin}, deleted since</title></circle>"));
        }
    }
    for info in &of_attempt {
        let fill = match (&info.state, info.pinned) {
            (Err(_), _) => "var(--bad)",
            (_, true) => "var(--good)",
            _ => "var(--accent)",
        };
        let why = run.kept.get(&info.name).map(|why| why.iter().cloned().collect::<Vec<_>>().join(", "));
        let what = match &info.state {
            Ok(state) => format!("{}: {} — kept: {}", info.name, state.why, why.unwrap_or_default()),
            Err(error) => format!("{}: {error}", info.name),
        };
        svg.push_str(&format!("<circle cx=\"{:.1}\" cy=\"{y}\" r=\"4.5\" fill=\"{fill}\"><title>{}</title></circle>", x.at(info.name.step as f64), escape(&what)));
    }
    if !last {
        svg.push_str(&format!("<text x=\"{:.1}\" y=\"{:.1}\" style=\"fill:var(--bad)\">✕<title>ended: killed or stopped</title></text>", end + 9.0, y + 4.0));
    }
    svg
}

/// Metrics drawn.
const CHARTS: usize = 24;

pub fn metrics(run: &Run) -> String {
    let mut curves: BTreeMap<&str, Vec<(u32, u64, f64)>> = BTreeMap::new();
    for (name, state) in run.states() {
        for (metric, &value) in &state.metrics {
            curves.entry(metric).or_default().push((name.attempt, name.step, value));
        }
    }
    if curves.is_empty() {
        return section("metrics", "Metrics", "<p class=\"dim\">The checkpoints have no metrics.</p>");
    }
    let policy = run.keep.as_ref().map(ToString::to_string).unwrap_or_default();
    let charts: String = curves
        .iter()
        .take(CHARTS)
        .map(|(metric, points)| curve(metric, points, &best(metric, &policy, points)))
        .collect();
    section("metrics", "Metrics", &format!("<div class=\"charts\">{charts}</div>"))
}

/// The best, where the policy says which way is better; else the lowest and the highest.
fn best(metric: &str, policy: &str, points: &[(u32, u64, f64)]) -> Vec<(usize, &'static str)> {
    // Of equal ones the newer, as retention has it.
    let by = |better: fn(f64, f64) -> bool| {
        (1..points.len()).fold(0, |best, i| if better(points[best].2, points[i].2) { best } else { i })
    };
    let (low, high) = (by(|a, b| a < b), by(|a, b| a > b));
    if policy.contains(&format!("best {metric} (min)")) {
        return vec![(low, "best")];
    }
    if policy.contains(&format!("best {metric} (max)")) {
        return vec![(high, "best")];
    }
    if low == high { vec![] } else { vec![(low, "lowest"), (high, "highest")] }
}
