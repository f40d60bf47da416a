//! What happened: attempts, their checkpoints, where each resumed; and the metrics over steps.

use super::data::Run;
use super::svg::{Scale, curve};
use super::{escape, section};
use std::collections::{BTreeMap, BTreeSet};
use tensorkeep::CheckpointId;

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
    let there: BTreeSet<CheckpointId> = run.infos.iter().map(|info| info.name).collect();
    let steps = there.iter().map(|name| name.step).chain(origins.values().map(|name| name.step)).chain([0]);
    let x = Scale::new(steps.map(|step| step as f64), 150.0, 1060.0);
    let height = LANE * numbers.len() as f64 + 28.0;
    let mut svg = format!("<svg viewBox=\"0 0 1100 {height}\" width=\"100%\" role=\"img\">");
    let picture =
        Picture { run, x, origins, there, lanes: numbers, comparable: super::pairs::names(&run.pairs) };
    (0..picture.lanes.len()).for_each(|lane| svg.push_str(&picture.link(lane)));
    (0..picture.lanes.len()).for_each(|lane| svg.push_str(&picture.lane(lane)));
    let end = x.ends().1;
    svg.push_str(&format!(
        "<text class=\"dim\" x=\"150\" y=\"{0}\">step 0</text><text class=\"dim\" x=\"1060\" y=\"{0}\" text-anchor=\"end\">step {end}</text></svg>",
        height - 4.0
    ));
    let more = match left_out {
        0 => String::new(),
        left_out => format!("<p class=\"dim\">{left_out} earlier attempts are not drawn.</p>"),
    };
    section("timeline", "What happened", &format!("<div class=\"wide\">{svg}</div>{LEGEND}{more}"))
}

const LEGEND: &str = "<p class=\"dim\"><span style=\"color:var(--accent)\">●</span> kept &nbsp; <span style=\"color:var(--good)\">●</span> pinned &nbsp; \
    <span style=\"color:var(--bad)\">●</span> damaged &nbsp; ○ resumed from, deleted since &nbsp; \
    <span style=\"color:var(--bad)\">✕</span> the attempt ended: killed or stopped</p>";

/// Where each attempt resumed, as its checkpoints say.
fn origins(run: &Run) -> BTreeMap<u32, CheckpointId> {
    let of = |(name, state): (CheckpointId, &tensorkeep::store::CheckpointMeta)| {
        Some((name.attempt, state.resumed_from.as_ref()?.parse().ok()?))
    };
    run.states().filter_map(of).collect()
}

/// Lanes, one for each attempt, over steps.
struct Picture<'r> {
    run: &'r Run,
    x: Scale,
    origins: BTreeMap<u32, CheckpointId>,
    there: BTreeSet<CheckpointId>,
    lanes: Vec<u32>,
    /// What can be picked for comparing.
    comparable: Vec<CheckpointId>,
}

impl Picture<'_> {
    fn y(lane: usize) -> f64 {
        LANE * lane as f64 + 18.0
    }

    fn step(&self, step: u64) -> f64 {
        self.x.at(step as f64)
    }

    /// From the checkpoint that was resumed from down to the lane that went on from it.
    fn link(&self, lane: usize) -> String {
        let Some(origin) = self.origins.get(&self.lanes[lane]) else { return String::new() };
        let Some(from) = self.lanes.iter().position(|&attempt| attempt == origin.attempt) else {
            return String::new();
        };
        let (x, top, bottom) = (self.step(origin.step), Self::y(from), Self::y(lane));
        format!(
            "<path fill=\"none\" stroke=\"var(--dim)\" stroke-dasharray=\"2 3\" d=\"M{x:.1} {top}V{bottom}\"/>"
        )
    }

    fn lane(&self, lane: usize) -> String {
        let (attempt, y) = (self.lanes[lane], Self::y(lane));
        let of_attempt: Vec<_> = self.run.infos.iter().filter(|info| info.name.attempt == attempt).collect();
        // Resumed from and deleted since: that they were there is known from who resumed.
        let gone: BTreeSet<CheckpointId> = self
            .origins
            .values()
            .filter(|name| name.attempt == attempt && !self.there.contains(name))
            .copied()
            .collect();
        let steps = of_attempt.iter().map(|info| info.name.step).chain(gone.iter().map(|name| name.step));
        let end = steps
            .map(|step| self.step(step))
            .fold(None, |most: Option<f64>, x| Some(most.map_or(x, |most| most.max(x))));
        let mut svg = format!(
            "<g><title>{}</title><text x=\"0\" y=\"{:.1}\">attempt {attempt}</text></g>",
            escape(&self.who(attempt)),
            y + 4.0
        );
        let Some(end) = end else {
            svg.push_str(&format!(
                "<text class=\"dim\" x=\"150\" y=\"{:.1}\">nothing that it saved is left</text>",
                y + 4.0
            ));
            return svg;
        };
        let start = self.step(self.origins.get(&attempt).map_or(0, |name| name.step));
        svg.push_str(&format!("<path stroke=\"var(--line)\" stroke-width=\"4\" stroke-linecap=\"round\" d=\"M{start:.1} {y}H{end:.1}\"/>"));
        gone.iter().for_each(|name| {
            let x = self.step(name.step);
            svg.push_str(&format!("<circle cx=\"{x:.1}\" cy=\"{y}\" r=\"4.5\" fill=\"var(--card)\" stroke=\"var(--dim)\" stroke-width=\"1.5\"><title>{name}: resumed from, deleted since</title></circle>"));
        });
        of_attempt.iter().for_each(|info| svg.push_str(&self.checkpoint(info, y)));
        if lane + 1 < self.lanes.len() {
            svg.push_str(&format!("<text x=\"{:.1}\" y=\"{:.1}\" style=\"fill:var(--bad)\">✕<title>ended: killed or stopped</title></text>", end + 9.0, y + 4.0));
        }
        svg
    }

    fn who(&self, attempt: u32) -> String {
        let who = self.run.attempts.iter().find(|info| info.number == attempt);
        who.map_or(String::new(), |who| {
            let began = crate::output::date(who.started_at);
            format!("attempt {attempt}: process {} on {}, began {began}", who.pid, who.host)
        })
    }

    fn checkpoint(&self, info: &tensorkeep::CheckpointInfo, y: f64) -> String {
        let damaged = info.state.is_err() || self.run.is_damaged(info);
        let fill = match (damaged, info.pinned) {
            (true, _) => "var(--bad)",
            (_, true) => "var(--good)",
            _ => "var(--accent)",
        };
        let why = self.run.kept.get(&info.name).map(|why| why.iter().cloned().collect::<Vec<_>>().join(", "));
        let what = match &info.state {
            Ok(state) => format!(
                "{}: saved: {}; kept: {}",
                info.name,
                state.why,
                why.as_deref().unwrap_or("no longer")
            ),
            Err(error) => format!("{}: {error}", info.name),
        };
        let x = self.step(info.name.step);
        let pick = match self.comparable.contains(&info.name) {
            true => format!(" class=\"pick\" data-name=\"{}\"", info.name),
            false => String::new(),
        };
        format!(
            "<circle cx=\"{x:.1}\" cy=\"{y}\" r=\"5\" fill=\"{fill}\"{pick}><title>{}</title></circle>",
            escape(&what)
        )
    }
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
