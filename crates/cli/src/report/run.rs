//! Everything that the page says of a run, read once; and the first line of each section.

use super::Options;
use super::facts::{Best, Diverged, Facts, NotFinite, Now, Unusable};
use super::layers::Layers;
use super::looked::Looked;
use super::pairs::{self, Picks};
use super::story::{End, Story};
use super::tensors::Tensors;
use super::words::{count, escape, int};
use crate::kept::{self, Kept};
use crate::opened::Opened;
use crate::output;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use tensorkeep::history::Series;
use tensorkeep::{CheckpointId, CheckpointInfo, Keep, Mode, Reader, Result};

/// Silence of so many intervals between saves is a death.
const SILENCE: f64 = 3.0;
/// The shortest silence that is one, in seconds.
const LEAST_SILENCE: f64 = 600.0;

/// A run, as it was found.
pub struct Run {
    pub options: Options,
    pub infos: Vec<CheckpointInfo>,
    pub keep: Option<Keep>,
    pub kept: Kept,
    pub story: Story,
    pub looked: Looked,
    /// The metadata of the newest readable checkpoint.
    pub metadata: BTreeMap<String, String>,
    /// The tensors of the checkpoint that a resume opens.
    pub tensors: Option<Tensors>,
    pub layers: Option<Layers>,
    pub pairs: Json,
}

impl Run {
    /// All of it.
    ///
    /// # Errors
    /// Errors of listing and reading; `NotFound` for steps to compare that do not exist.
    pub fn read(reader: &Reader, options: &Options) -> Result<Self> {
        let mut run = Self::read_briefly(reader, options)?;
        if options.quick {
            return Ok(run);
        }
        let Some(tensors) = run.tensors.take() else { return Ok(run) };
        run.layers = Some(Layers::read(reader, &run.infos, &mut run.looked, &tensors)?);
        run.tensors = Some(tensors);
        let picks = Picks { best: run.best_kept(), last_finite: run.last_finite() };
        if let Some(tensors) = &run.tensors {
            run.pairs = pairs::compare(reader, &run.infos, &run.looked, &run.kept, &picks, tensors, options)?;
        }
        Ok(run)
    }

    /// Reads the tensors of the newest checkpoint only, and none to draw.
    ///
    /// # Errors
    /// Errors of listing and reading.
    pub fn read_briefly(reader: &Reader, options: &Options) -> Result<Self> {
        let infos = reader.list()?;
        let (keep, kept) = kept::kept(reader, &infos)?;
        let attempts = reader.attempts()?;
        let looked = Looked::at(reader, &infos, options)?;
        let opened = looked.resume.map(|resume| reader.checkpoint_by_id(resume)).transpose()?;
        let carried = opened.as_ref().and_then(|opened| opened.inspect().history().ok().flatten());
        let history = reader.history().unwrap_or_default();
        let story = Story::new(history, carried.is_some(), &attempts, &infos, keep.as_ref());
        let metadata = opened.as_ref().and_then(|opened| opened.metadata().ok()).unwrap_or_default();
        let tensors = opened.map(|opened| Tensors::of(&Opened::Own(opened), !options.quick)).transpose()?;
        let options = options.clone();
        let (layers, pairs) = (None, Json::Null);
        Ok(Self { options, infos, keep, kept, story, looked, metadata, tensors, layers, pairs })
    }

    pub fn newest_id(&self) -> Option<CheckpointId> {
        self.infos.last().map(|info| info.id)
    }

    pub fn info(&self, id: CheckpointId) -> Option<&CheckpointInfo> {
        self.infos.iter().find(|info| info.id == id)
    }

    pub fn is_damaged(&self, info: &CheckpointInfo) -> bool {
        info.state.is_err() || self.looked.damaged.contains_key(&info.id)
    }

    /// The step that training is planned to end at, where the program said so.
    pub fn total(&self) -> Option<u64> {
        ["total_steps", "max_steps", "steps"].iter().find_map(|key| self.metadata.get(*key)?.parse().ok())
    }

    /// Whether a checkpoint holds NaN; None where it was not looked for.
    pub fn has_nan(&self, id: CheckpointId) -> Option<bool> {
        let drawn = self.layers.as_ref().and_then(|layers| layers.has_nan.get(&id).copied());
        if Some(id) == self.looked.resume && !self.options.quick {
            let all = self.tensors.as_ref().is_some_and(|tensors| tensors.nans().next().is_some());
            return Some(drawn.unwrap_or(false) || all);
        }
        drawn
    }

    /// The newest that was looked at, verifies and has no NaN, where the one that a resume goes on
    /// from has.
    pub fn last_finite(&self) -> Option<CheckpointId> {
        let resume = self.looked.resume.filter(|id| self.has_nan(*id) == Some(true))?;
        let older = self.infos.iter().rev().map(|info| info.id).filter(|id| *id < resume);
        older.into_iter().find(|id| self.has_nan(*id) == Some(false))
    }

    fn not_finite(&self) -> Option<NotFinite> {
        let resume = self.looked.resume.filter(|id| self.has_nan(*id) == Some(true))?;
        let last = self.last_finite();
        let behind = |id: &CheckpointId| last.is_none_or(|last| *id > last);
        let since = self.infos.iter().map(|info| info.id).filter(behind);
        let since = since.into_iter().find(|id| self.has_nan(*id) == Some(true)).unwrap_or(resume);
        let why = last.and_then(|last| self.kept.get(&last));
        let newer = self.infos.iter().filter(|info| last.is_some_and(|last| info.id > last)).count() as u64;
        Some(NotFinite {
            since: since.step,
            last_finite: last.map(|last| last.step),
            saves_left: last.and_then(|_| saves_left(why, newer)),
            stays_because: why
                .map(|why| why.iter().cloned().collect::<Vec<_>>().join(", "))
                .unwrap_or_default(),
            is_pinned: last.and_then(|last| self.info(last)).is_some_and(|info| info.pinned),
        })
    }

    /// The metric that is no number any more for the longest time.
    fn diverged(&self) -> Option<Diverged> {
        let since = |series: &Series| {
            let tail = series.points().rev().take_while(|point| !point.value.is_finite());
            tail.last().map(|first| (first.step, first.value))
        };
        let bad = self.story.metrics.iter().filter_map(|(metric, series)| Some((metric, since(series)?)));
        // Where several went at once, a loss is named.
        let (metric, (since, value)) =
            bad.min_by_key(|(metric, (since, _))| (*since, !metric.contains("loss")))?;
        let before = self.infos.iter().rev().map(|info| info.id.step).find(|step| *step < since);
        Some(Diverged { metric: output::clean(metric), value, since, before })
    }

    /// The kept checkpoint that is best by the first metric with a direction.
    fn best_kept(&self) -> Option<CheckpointId> {
        let best = self.best()?;
        self.infos.iter().rev().find(|info| info.id.step == best.step).map(|info| info.id)
    }

    /// The best by the first metric that has a direction.
    pub fn best(&self) -> Option<Best> {
        self.bests().into_iter().next()
    }

    /// The best of each metric that has a direction: those that checkpoints are ranked by first.
    pub fn bests(&self) -> Vec<Best> {
        let mut found: Vec<Best> = Vec::new();
        for (metric, series) in &self.story.metrics {
            let Some(best) = series.best() else { continue };
            let newest = series.last().map_or(f64::NAN, |point| point.value);
            let sound = |info: &CheckpointInfo| info.id.step == best.step && !self.is_damaged(info);
            let is_kept = self.infos.iter().any(sound);
            found.push(Best {
                metric: output::clean(metric),
                value: best.value,
                step: best.step,
                is_kept,
                saved: if is_kept { None } else { self.best_saved(metric, series.mode) },
                newest,
            });
        }
        let by_accuracy = |best: &Best| {
            let series = self.story.metrics.get(&best.metric);
            (!best.is_kept, series.is_some_and(|series| series.mode == Some(Mode::Min)))
        };
        found.sort_by_key(by_accuracy);
        found
    }

    fn best_saved(&self, metric: &str, mode: Option<Mode>) -> Option<(f64, u64)> {
        let sound = self.infos.iter().filter(|info| !self.is_damaged(info));
        let values = sound.filter_map(|info| {
            let state = info.state.as_ref().ok()?;
            Some((*state.metrics.get(metric)?, info.id.step))
        });
        let is_better = |new: f64, old: f64| if mode == Some(Mode::Min) { new < old } else { new > old };
        values.reduce(|best, next| if is_better(best.0, next.0) { best } else { next })
    }

    /// Median seconds between two saves of one attempt.
    pub fn interval(&self) -> Option<f64> {
        let states = self.infos.iter().filter_map(|info| Some((info.id.attempt, info.state.as_ref().ok()?)));
        let saved: Vec<(u32, u64)> = states.map(|(attempt, state)| (attempt, state.saved_at)).collect();
        let same = saved.windows(2).filter(|two| two[0].0 == two[1].0);
        let mut gaps: Vec<u64> = same.map(|two| two[1].1.saturating_sub(two[0].1)).collect();
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).map(|gap| *gap as f64)
    }

    /// How the newest attempt is.
    pub fn now(&self) -> Now {
        let Some(last) = self.story.attempts.last() else { return Now::Unknown };
        match last.end {
            End::Running => Now::Running,
            End::Stopped => Now::Stopped,
            End::Killed => Now::Died,
            End::Closed if self.total().is_none_or(|total| last.last >= total) => Now::Finished,
            End::Closed => Now::Closed,
            End::Unknown => {
                let silent = last.stop.map(|stop| output::now().saturating_sub(stop) as f64);
                let too_long = self.interval().map(|gap| (gap * SILENCE).max(LEAST_SILENCE));
                match silent.zip(too_long) {
                    Some((silent, too_long)) if silent > too_long && self.story.has_history => Now::Died,
                    _ => Now::Unknown,
                }
            }
        }
    }

    /// The facts of the verdict.
    pub fn facts(&self) -> Facts {
        let resume = self.looked.resume;
        let newer = |info: &&CheckpointInfo| resume.is_none_or(|resume| info.id > resume);
        let unusable = self.infos.iter().rev().filter(newer).filter_map(|info| {
            let damaged = self.looked.damaged.get(&info.id)?;
            Some(Unusable { step: info.id.step, why: damaged.why() })
        });
        let least = self.looked.damaged.values().rev().filter_map(|damaged| {
            let (intact, all) = damaged.intact?;
            Some((damaged.id?.step, intact, all))
        });
        Facts {
            run: output::clean(&self.options.title),
            now: self.now(),
            kept: self.infos.len() as u64,
            reached: self.story.reached().max(self.newest_id().map_or(0, |id| id.step)),
            total: self.total(),
            newest: self.newest_id().map(|id| id.step),
            resume: resume.map(|id| id.step),
            is_quick: self.options.quick,
            unusable: unusable.collect(),
            not_finite: self.not_finite(),
            diverged: self.diverged(),
            best: self.best(),
            least_damaged: if resume.is_none() { least.max_by_key(|(_, intact, _)| *intact) } else { None },
            begun: self.begun(),
        }
    }

    /// The start of a run that has saved nothing.
    fn begun(&self) -> String {
        let Some(last) = self.story.attempts.last() else {
            return "Nobody has opened it for writing yet.".to_owned();
        };
        let started = last.start.map(|at| format!(" started {}", super::words::ago(at))).unwrap_or_default();
        let on = if last.host.is_empty() { String::new() } else { format!(" on {}", escape(&last.host)) };
        let aside = match self.looked.set_aside.len() {
            0 => String::new(),
            many => format!(" {} was found damaged and set aside.", count(many as u64, "checkpoint")),
        };
        format!("Attempt {}{started}{on}. This page can be made again at any time.{aside}", last.number)
    }

    pub fn curves_words(&self) -> Option<String> {
        let metrics = self.story.metrics.len();
        if metrics == 0 {
            return self.newest_id().map(|_| "No metric was logged or saved.".to_owned());
        }
        if !self.story.has_history {
            let kept = count(self.infos.len() as u64, "kept checkpoint");
            return Some(format!(
                "These checkpoints carry no history of logged values. Drawn: the metrics of the {kept}."
            ));
        }
        let thinned = self.story.metrics.values().any(Series::is_thinned);
        let thinned = if thinned { " Thinned; lowest and highest are kept." } else { "" };
        let left_out = match self.story.left_out.0 {
            0 => String::new(),
            more => format!(" {} had no room in the history.", count(more, "further metric")),
        };
        Some(format!(
            "Everything logged, also before checkpoints that are deleted since. What a kill lost is not in it: each attempt goes on from where it resumed.{thinned}{left_out}"
        ))
    }

    pub fn timeline_words(&self) -> Option<String> {
        let attempts = &self.story.attempts;
        if attempts.is_empty() {
            return None;
        }
        let ends = [
            (End::Killed, "killed"),
            (End::Stopped, "stopped by a signal"),
            (End::Closed, "closed"),
            (End::Running, "running"),
            (End::Unknown, "not known how it ended"),
        ];
        let tally: Vec<String> = ends
            .iter()
            .map(|(end, word)| (attempts.iter().filter(|attempt| attempt.end == *end).count(), word))
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        let saves: Option<u64> = attempts.iter().map(|attempt| attempt.saves).sum();
        let saves = saves.filter(|saves| *saves >= self.infos.len() as u64);
        let saves = saves.map(|saves| format!("{}, ", count(saves, "save"))).unwrap_or_default();
        let number = count(attempts.len() as u64, "attempt");
        Some(format!("{number}: {}. {saves}{} kept.", tally.join(", "), int(self.infos.len() as u64)))
    }

    pub fn layers_words(&self) -> Option<String> {
        let layers = self.layers.as_ref().filter(|layers| !layers.cols.is_empty())?;
        let (drawn, kept) = (layers.cols.len() as u64, self.infos.len() as u64);
        let over = if drawn == kept {
            format!("the {}", count(kept, "kept checkpoint"))
        } else {
            format!(
                "{} of the {} kept checkpoints: first, newest, each resume, the rest evenly",
                int(drawn),
                int(kept)
            )
        };
        Some(format!("The model’s tensors over {over}. Choose a tensor for its histograms."))
    }

    pub fn tensors_words(&self) -> Option<String> {
        let tensors = self.tensors.as_ref()?;
        let ties = tensors.all.iter().filter(|(meta, _)| meta.alias_of.is_some()).count();
        let ties = if ties == 0 { "none tied".to_owned() } else { format!("{ties} tied to others") };
        let bytes: u64 = output::total(tensors.all.iter().map(|(meta, _)| meta.byte_len));
        let step = self.looked.resume.map_or(0, |id| id.step);
        let all = count(tensors.all.len() as u64, "tensor");
        Some(format!("What step {} holds: {all}, {}, {ties}.", int(step), output::size(bytes)))
    }

    pub fn compare_words(&self) -> Option<String> {
        let words = "How far two kept checkpoints are apart, by module: ‖b − a‖ / ‖a‖.";
        (!self.pairs.is_null()).then(|| words.to_owned())
    }

    /// A word beside a section's name in the list of contents: HTML.
    pub fn flag(&self, section: &str) -> String {
        let flag = |tone: &str, words: &str| format!("<span class=\"flag {tone}\">{words}</span>");
        let damaged = self.looked.damaged.len() + self.looked.set_aside.len();
        let has_nan = self.layers.as_ref().is_some_and(|layers| layers.first_nan().is_some());
        match section {
            "layers" if has_nan => flag("bad", "NaN"),
            "damage" if damaged > 0 => flag("bad", &damaged.to_string()),
            _ => String::new(),
        }
    }
}

/// Saves until a checkpoint goes, that only a rule of "the last n" keeps.
fn saves_left(why: Option<&std::collections::BTreeSet<String>>, newer: u64) -> Option<u64> {
    let Some(why) = why.filter(|why| !why.is_empty()) else { return Some(0) };
    let lasts: Option<Vec<u64>> = why.iter().map(|why| why.strip_prefix("last ")?.parse().ok()).collect();
    lasts?.into_iter().max().map(|last| last.saturating_sub(newer))
}

#[cfg(test)]
mod tests {
    use super::saves_left;
    use std::collections::BTreeSet;

    #[test]
    fn what_rotation_deletes_next_is_told() {
        let why = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(saves_left(None, 3), Some(0));
        assert_eq!(saves_left(Some(&why(&["last 8"])), 5), Some(3));
        assert_eq!(saves_left(Some(&why(&["last 8", "best loss"])), 4), None);
    }
}
