//! The runs in a folder, each by its newest checkpoint that can be read.

use super::columns;
use crate::answer::{Answer, Text};
use crate::args::Ls;
use crate::place::Place;
use crate::{metrics, output};
use serde_json::{Value as Json, json};
use tensorkeep::{CheckpointId, Reader, Result, store::CheckpointMeta};

/// The runs in a folder.
pub struct Runs {
    folder: Place,
    /// Those that are asked for.
    runs: Vec<RunInfo>,
    /// How many there are.
    all: usize,
    metrics: Vec<String>,
    /// Whether metrics have a column each, because they were asked for by name.
    has_columns: bool,
}

/// One of several runs, and the state of its newest checkpoint that can be read.
struct RunInfo {
    name: String,
    checkpoints: usize,
    bytes: u64,
    newest: Option<(CheckpointId, CheckpointMeta)>,
}

impl Runs {
    /// # Errors
    /// `NotFound` for a metric that none has, and what listing says.
    pub fn of(folder: Place, runs: &[(String, Reader)], args: &Ls) -> Result<Self> {
        let info = |(name, reader): &(String, Reader)| {
            let infos = reader.list()?;
            let (checkpoints, bytes) = (infos.len(), output::total(infos.iter().map(|info| info.byte_len)));
            let newest = infos.into_iter().rev().find_map(|info| Some((info.id, info.state.ok()?)));
            Ok(RunInfo { name: name.clone(), checkpoints, bytes, newest })
        };
        let mut infos: Vec<RunInfo> = runs.iter().map(info).collect::<Result<_>>()?;
        let all = infos.len();
        let metrics = columns(infos.iter().filter_map(RunInfo::state), &args.metrics)?;
        // By name again afterwards, as all of them would be.
        if let Some(newest) = args.newest {
            let mut order: Vec<usize> = (0..all).collect();
            order.sort_by_key(|&at| std::cmp::Reverse(infos[at].saved_at()));
            order.truncate(newest);
            let mut at = 0..;
            infos.retain(|_| at.next().is_some_and(|at| order.contains(&at)));
        }
        let has_columns = !args.metrics.is_empty();
        Ok(Self { runs: infos, all, folder, metrics, has_columns })
    }
}

impl RunInfo {
    fn state(&self) -> Option<&CheckpointMeta> {
        self.newest.as_ref().map(|(_, state)| state)
    }

    /// 0 of a run in which nothing can be read.
    fn saved_at(&self) -> u64 {
        self.state().map_or(0, |state| state.saved_at)
    }

    fn as_json(&self, shown: &[String]) -> Json {
        let is_shown = |metric: &str| shown.iter().any(|shown| shown == metric);
        json!({
            "name": self.name, "checkpoints": self.checkpoints, "bytes": self.bytes,
            "saved_at": self.state().map(|state| state.saved_at),
            "newest": self.newest.as_ref().map(|(id, _)| id.to_string()),
            "metrics": self.state().map(|state| metrics::in_json(state, is_shown)),
        })
    }

    /// What every table of runs has.
    fn row(&self) -> Vec<String> {
        let (step, age) = match &self.newest {
            Some((id, state)) => (id.step.to_string(), output::age(state.saved_at, output::now())),
            None => ("-".to_owned(), "-".to_owned()),
        };
        vec![self.name.clone(), self.checkpoints.to_string(), step, age, output::size(self.bytes)]
    }

    /// The metrics in a column each.
    fn values(&self, names: &[String]) -> Vec<String> {
        let value = |name: &String| metrics::one(self.state()?, name);
        names.iter().map(|name| value(name).map_or(String::new(), output::number)).collect()
    }
}

impl Answer for Runs {
    fn schema(&self) -> &'static str {
        "runs"
    }

    fn json(&self) -> Json {
        let runs: Vec<_> = self.runs.iter().map(|run| run.as_json(&self.metrics)).collect();
        json!({ "folder": self.folder.to_string(), "runs": runs })
    }

    fn text(&self) -> Result<Text<'_>> {
        let mut header = vec!["run", "checkpoints", "newest step", "age", "size"];
        let (right, least): (Vec<usize>, Vec<usize>);
        if self.has_columns {
            header.extend(self.metrics.iter().map(String::as_str));
            (right, least) = ((1..header.len()).collect(), vec![1, 4]);
        } else {
            header.push("metrics");
            (right, least) = ((1..5).collect(), vec![1, 5, 4]);
        }
        let rows = self.runs.iter().map(|run| {
            let words = || vec![run.state().map_or(String::new(), metrics::in_words)];
            let more = if self.has_columns { run.values(&self.metrics) } else { words() };
            run.row().into_iter().chain(more).collect::<Vec<_>>()
        });
        let text = Text::of(output::table_by_worth(&header, &right, &least, rows));
        Ok(match self.runs.len() {
            shown if shown < self.all => {
                text.summary(format!("{shown} of {}, those saved last", output::count(self.all, "run")))
            }
            _ => text,
        })
    }
}
