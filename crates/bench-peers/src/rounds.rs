//! Runs a workload: every operation by every system, each in a process of its own, round by round,
//! each round starting with another system, so that all systems share the machine's slow moments.
//! The rows are made here.

use crate::child::{Reply, Task};
use crate::ops::{Effort, Group, Op};
use crate::peer::Peer;
use crate::python::Python;
use crate::row::Row;
use crate::statistics::Seconds;
use crate::workloads::{Values, Workload};
use crate::{Outcome, memory, systems};
use std::fs;
use std::path::{Path, PathBuf};

/// The selection to run.
pub struct Plan {
    pub groups: Vec<Group>,
    /// Empty for all; else the names must contain one of these.
    pub systems: Vec<String>,
    pub quick: bool,
    /// Tensors of the numerous workload.
    pub tensors: usize,
    pub dir: PathBuf,
    pub python: Option<Python>,
}

impl Plan {
    fn peers(&self) -> Outcome<Vec<Peer>> {
        let program = vec![std::env::current_exe()?];
        let own = systems::all().into_iter().map(|system| Peer {
            name: system.name().to_owned(),
            extension: system.extension().to_owned(),
            ops: system.ops().to_vec(),
            workloads: system.workloads().to_owned(),
            once: false,
            program: program.clone(),
        });
        let mut peers: Vec<Peer> = own.collect();
        peers.extend(self.python.iter().flat_map(Python::peers));
        Ok(peers)
    }

    fn wants(&self, peer: &Peer) -> bool {
        self.systems.is_empty() || self.systems.iter().any(|part| peer.name.contains(part))
    }

    /// Measures one workload. The second list explains what could not be measured.
    ///
    /// # Errors
    /// Those that prevent every measurement.
    pub fn run(&self, workload: Workload) -> Outcome<(Vec<Row>, Vec<String>, Values)> {
        let manifest = self.dir.join(format!("{}.values.json", workload.name()));
        let values = Values::share(workload.model(self.quick, self.tensors), manifest)?;
        let suits = |peer: &Peer| self.wants(peer) && peer.workloads.contains(workload.name());
        let peers: Vec<Peer> = self.peers()?.into_iter().filter(suits).collect();
        let mut rows = Vec::new();
        let mut skipped = Vec::new();
        for op in Op::ALL.into_iter().filter(|op| op.suits(workload) && self.groups.contains(&op.group())) {
            let case = Case { op, workload, effort: op.effort(workload, self.quick), values: &values };
            let mut able: Vec<&Peer> = peers.iter().filter(|peer| peer.ops.contains(&op)).collect();
            if matches!(op.group(), Group::Load | Group::Cold) {
                able.retain(|peer| self.have_file(&case, peer, &mut skipped));
            }
            rows.extend(self.rounds(&case, &able, &mut skipped));
        }
        for peer in &peers {
            self.clean(workload, peer);
        }
        Ok((rows, skipped, values))
    }

    fn rounds(&self, case: &Case<'_>, peers: &[&Peer], skipped: &mut Vec<String>) -> Vec<Row> {
        let mut results: Vec<Results> = peers.iter().map(|_| Results::default()).collect();
        for round in 0..case.effort.rounds {
            for turn in 0..peers.len() {
                let turn = (turn + round) % peers.len();
                let (peer, results) = (peers[turn], &mut results[turn]);
                if results.failed || (round > 0 && peer.once) {
                    continue;
                }
                match self.one(case, peer) {
                    Ok((reply, size)) => {
                        results.replies.push(reply);
                        results.size = size;
                    }
                    Err(error) => {
                        results.failed = true;
                        skipped.push(format!("{}: {error}", case.workload.name()));
                    }
                }
                if !self.loads() {
                    self.clean(case.workload, peer);
                }
            }
        }
        rows_of_all(case, peers, &results)
    }

    /// One process of one system, and the length of its file.
    fn one(&self, case: &Case<'_>, peer: &Peer) -> Outcome<(Reply, Option<u64>)> {
        let task = self.task(case, peer);
        let settled = if case.op == Op::LoadCold { memory::settle(&task.file) } else { Ok(()) };
        std::thread::sleep(case.op.rest(case.workload, self.quick));
        settled?;
        let reply = task.run(&peer.program)?;
        Ok((reply, length(&task.file).ok()))
    }

    fn task(&self, case: &Case<'_>, peer: &Peer) -> Task {
        Task {
            op: case.op,
            system: peer.name.clone(),
            values: case.values.manifest().to_owned(),
            file: self.file(case.workload, peer),
            warm: case.effort.warm,
            times: case.effort.times,
            expected_sum: case.values.sum,
        }
    }

    fn file(&self, workload: Workload, peer: &Peer) -> PathBuf {
        self.dir.join(format!("{}.{}", workload.name(), peer.extension))
    }

    /// Makes the file that a system loads, if saving was not measured before it.
    fn have_file(&self, case: &Case<'_>, peer: &Peer, skipped: &mut Vec<String>) -> bool {
        if self.file(case.workload, peer).exists() {
            return true;
        }
        // A system that is not selected may create the file, too.
        let all = self.peers().unwrap_or_default();
        let saves = |other: &&Peer| other.extension == peer.extension && other.ops.contains(&Op::SaveDurable);
        let Some(saver) = all.iter().find(saves) else { return false };
        let once = Effort { rounds: 1, warm: 0, times: 1 };
        let saving = Case { op: Op::SaveDurable, effort: once, ..*case };
        let saved = self.task(&saving, saver).run(&saver.program);
        saved.map_err(|error| skipped.push(format!("{}: {error}", case.workload.name()))).is_ok()
    }

    /// Whether files are read after they were saved. Else each is deleted at once: all of them
    /// together are many times the state.
    fn loads(&self) -> bool {
        self.groups.iter().any(|group| matches!(group, Group::Load | Group::Cold))
    }

    fn clean(&self, workload: Workload, peer: &Peer) {
        let file = self.file(workload, peer);
        for path in [file.with_extension("run"), file.with_extension("unpublished"), file] {
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

/// An operation on a workload, to be measured with several systems.
struct Case<'v> {
    op: Op,
    workload: Workload,
    effort: Effort,
    values: &'v Values,
}

/// The results of one system.
#[derive(Default)]
struct Results {
    replies: Vec<Reply>,
    failed: bool,
    size: Option<u64>,
}

fn rows_of_all(case: &Case<'_>, peers: &[&Peer], results: &[Results]) -> Vec<Row> {
    let payload = if case.op.moves_payload() { case.values.payload } else { 0 };
    let mut rows = Vec::new();
    for (peer, results) in peers.iter().zip(results) {
        rows.extend(rows_of(case.workload, peer, &results.replies, payload));
    }
    // Rows with several names are grouped by name, as those with one are.
    let names: Vec<String> = rows.iter().map(|row| row.op.clone()).collect();
    rows.sort_by_key(|row| names.iter().position(|name| *name == row.op));
    if case.op == Op::SaveDurable {
        for (peer, results) in peers.iter().zip(results).filter(|(peer, _)| peer.extension != "raw") {
            rows.extend(results.size.map(|len| size_row(case.workload, peer, len)));
        }
    }
    rows
}

fn size_row(workload: Workload, peer: &Peer, bytes: u64) -> Row {
    Row {
        workload: workload.name().to_owned(),
        op: "size".to_owned(),
        system: peer.name.clone(),
        seconds: Seconds::default(),
        bytes,
        peak_rss: 0,
        x: None,
    }
}

/// Of a file, or of all files in a folder.
fn length(path: &Path) -> Outcome<u64> {
    if !path.is_dir() {
        return Ok(fs::metadata(path)?.len());
    }
    fs::read_dir(path)?.map(|entry| length(&entry?.path())).sum()
}

/// One row for each name in the replies, in their order.
fn rows_of(workload: Workload, peer: &Peer, replies: &[Reply], bytes: u64) -> Vec<Row> {
    let mut names: Vec<&str> = Vec::new();
    let all = || replies.iter().flat_map(|reply| &reply.seconds);
    for (name, _) in all() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let peak_rss = replies.iter().map(|reply| reply.peak_rss).max().unwrap_or(0);
    let row = |name: &str| {
        let seconds = all().filter(|(of, _)| of == name).map(|(_, seconds)| *seconds).collect();
        Some(Row {
            workload: workload.name().to_owned(),
            op: name.to_owned(),
            system: peer.name.clone(),
            seconds: Seconds::of(seconds)?,
            bytes,
            peak_rss,
            x: None,
        })
    };
    names.into_iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_all_rounds_become_one_row_for_each_name() {
        let peer = Peer {
            name: "p".into(),
            extension: "e".into(),
            ops: vec![],
            workloads: "s".into(),
            once: false,
            program: vec![],
        };
        let reply = |seconds: &[(&str, f64)], peak_rss| Reply {
            seconds: seconds.iter().map(|(name, seconds)| ((*name).to_owned(), *seconds)).collect(),
            peak_rss,
        };
        let replies = [reply(&[("b", 3.0), ("a", 10.0)], 5), reply(&[("b", 1.0), ("b", 2.0)], 7)];
        let rows = rows_of(Workload::Small, &peer, &replies, 100);
        assert_eq!(rows.iter().map(|row| row.op.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(rows[0].seconds, Seconds { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!((rows[0].peak_rss, rows[0].bytes, rows[1].seconds.median), (7, 100, 10.0));
    }
}
