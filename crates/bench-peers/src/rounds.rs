//! Running a workload: every operation by every system, each in a process of its own, round by
//! round, each round starting with another system, so that whatever the machine does meanwhile is
//! shared by all. Owns: the order, and the rows.

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

/// What to run.
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

    /// Measures one workload. The second list says what could not be measured.
    ///
    /// # Errors
    /// What keeps all of it from being measured.
    pub fn run(&self, workload: Workload) -> Outcome<(Vec<Row>, Vec<String>, Values)> {
        let manifest = self.dir.join(format!("{}.values.json", workload.name()));
        let values = Values::share(workload.model(self.quick, self.tensors), manifest)?;
        let suits = |peer: &Peer| self.wants(peer) && peer.workloads.contains(workload.name());
        let peers: Vec<Peer> = self.peers()?.into_iter().filter(suits).collect();
        let (mut rows, mut skipped) = (Vec::new(), Vec::new());
        for op in Op::ALL.into_iter().filter(|op| op.suits(workload) && self.groups.contains(&op.group())) {
            let mut able: Vec<&Peer> = peers.iter().filter(|peer| peer.ops.contains(&op)).collect();
            if matches!(op.group(), Group::Load | Group::Cold) {
                able.retain(|peer| self.have_file(peer, workload, &values, &mut skipped));
            }
            let effort = op.effort(workload, self.quick);
            rows.extend(self.rounds(op, workload, &able, effort, &values, &mut skipped));
        }
        peers.iter().for_each(|peer| self.clean(workload, peer));
        Ok((rows, skipped, values))
    }

    fn rounds(
        &self,
        op: Op,
        workload: Workload,
        peers: &[&Peer],
        effort: Effort,
        values: &Values,
        skipped: &mut Vec<String>,
    ) -> Vec<Row> {
        let mut replies: Vec<Vec<Reply>> = vec![Vec::new(); peers.len()];
        let (mut failed, mut sizes) = (vec![false; peers.len()], vec![None; peers.len()]);
        for round in 0..effort.rounds {
            for turn in 0..peers.len() {
                let turn = (turn + round) % peers.len();
                if failed[turn] || (round > 0 && peers[turn].once) {
                    continue;
                }
                let task = self.task(op, workload, peers[turn], values, effort);
                let settled = if op == Op::LoadCold { memory::settle(&task.file) } else { Ok(()) };
                std::thread::sleep(op.rest(workload, self.quick));
                match settled.and_then(|()| task.run(&peers[turn].program)) {
                    Ok(reply) => {
                        replies[turn].push(reply);
                        sizes[turn] = length(&task.file).ok();
                    }
                    Err(error) => {
                        failed[turn] = true;
                        skipped.push(format!("{}: {error}", workload.name()));
                    }
                }
                if !self.loads() {
                    self.clean(workload, peers[turn]);
                }
            }
        }
        let payload = if op.moves_payload() { values.payload } else { 0 };
        let measured = peers.iter().zip(replies);
        let mut rows: Vec<Row> =
            measured.flat_map(|(peer, replies)| rows_of(workload, peer, &replies, payload)).collect();
        // Rows of several names stand together by name, as those of one do.
        let names: Vec<String> = rows.iter().map(|row| row.op.clone()).collect();
        rows.sort_by_key(|row| names.iter().position(|name| *name == row.op));
        if op == Op::SaveDurable {
            let saved = peers.iter().zip(sizes).filter(|(peer, _)| peer.extension != "raw");
            rows.extend(saved.filter_map(|(peer, len)| Some(size_row(workload, peer, len?))));
        }
        rows
    }

    fn task(&self, op: Op, workload: Workload, peer: &Peer, values: &Values, effort: Effort) -> Task {
        Task {
            op,
            system: peer.name.clone(),
            values: values.manifest().to_owned(),
            file: self.file(workload, peer),
            warm: effort.warm,
            times: effort.times,
            expected_sum: values.sum,
        }
    }

    fn file(&self, workload: Workload, peer: &Peer) -> PathBuf {
        self.dir.join(format!("{}.{}", workload.name(), peer.extension))
    }

    /// Makes the file that a system loads, if saving was not measured before it.
    fn have_file(&self, peer: &Peer, workload: Workload, values: &Values, skipped: &mut Vec<String>) -> bool {
        if self.file(workload, peer).exists() {
            return true;
        }
        // Also one that is not to be measured may make the file.
        let all = self.peers().unwrap_or_default();
        let saves = |other: &&Peer| other.extension == peer.extension && other.ops.contains(&Op::SaveDurable);
        let Some(saver) = all.iter().find(saves) else { return false };
        let once = Effort { rounds: 1, warm: 0, times: 1 };
        let saved = self.task(Op::SaveDurable, workload, saver, values, once).run(&saver.program);
        saved.map_err(|error| skipped.push(format!("{}: {error}", workload.name()))).is_ok()
    }

    /// Whether files are read after they were saved. Else each goes at once: all of them together
    /// are many times the state.
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

/// One row for each name in the replies, in the order in which they come.
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
