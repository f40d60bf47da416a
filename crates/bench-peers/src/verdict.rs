//! The targets for the figures, and the text for a target that was met or missed. A verdict never
//! fails a run: machines differ, and a target is a ratio within one run where possible.

use crate::row::{Found, Row};
use std::fmt;

/// One target, and the figure for it.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    what: String,
    found: f64,
    bound: Bound,
    unit: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Verdict {
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtLeast(target) => self.found >= target,
            Bound::AtMost(target) => self.found <= target,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_met() { "met   " } else { "MISSED" };
        let (words, target) = match self.bound {
            Bound::AtLeast(target) => ("at least", target),
            Bound::AtMost(target) => ("at most", target),
        };
        let (found, unit) = (self.found, self.unit);
        write!(f, "{verdict}  {}: {found:.2}{unit}, target {words} {target}{unit}", self.what)
    }
}

const OURS: &str = "tensorkeep";
const READ: &str = "tensorkeep, read";
const TIMES: &str = "×";

/// The rows that verdicts are based on.
struct Rows<'f>(&'f Found);

impl Rows<'_> {
    fn row(&self, workload: &str, op: &str, system: &str) -> Option<&Row> {
        self.0.row(workload, op, system)
    }

    fn median(&self, workload: &str, op: &str, system: &str) -> Option<f64> {
        Some(self.row(workload, op, system)?.seconds.median)
    }

    /// The fastest of the raw paths.
    fn best_raw(&self, workload: &str, op: &str) -> Option<f64> {
        let raw = |row: &&Row| row.workload == workload && row.op == op && row.system.starts_with("raw");
        self.0.rows.iter().filter(raw).map(|row| row.seconds.median).min_by(f64::total_cmp)
    }

    /// Our speed as a multiple of `peer`'s.
    fn faster(&self, workload: &str, op: &str, peer: &str) -> Option<f64> {
        Some(self.median(workload, op, peer)? / self.median(workload, op, OURS)?)
    }
}

/// The verdicts on all measured figures; missing ones have none.
pub fn on(found: &Found) -> Vec<Verdict> {
    let rows = Rows(found);
    let mut verdicts = Vec::new();
    let mut say = |what: &str, found: Option<f64>, bound: Bound, unit: &'static str| {
        verdicts.extend(found.map(|found| Verdict { what: what.to_owned(), found, bound, unit }));
    };
    saves(&rows, &mut say);
    stalls(&rows, &mut say);
    loads(&rows, &mut say);
    curves(&rows, &mut say);
    verdicts
}

type Say<'s> = dyn FnMut(&str, Option<f64>, Bound, &'static str) + 's;

fn saves(rows: &Rows<'_>, say: &mut Say<'_>) {
    let save = "save_durable";
    let ours = |workload| rows.median(workload, save, OURS);
    let share = rows.best_raw("l", save).zip(ours("l")).map(|(raw, ours)| 100.0 * raw / ours);
    say("save (l): share of the best raw path's speed", share, Bound::AtLeast(85.0), " %");
    for (peer, target) in [("safetensors", 1.5), ("torch.save", 3.0), ("Orbax", 4.0), ("DCP", 4.0)] {
        let what = format!("save (l): times as fast as {peer}, made equally durable");
        say(&what, rows.faster("l", save, peer), Bound::AtLeast(target), TIMES);
    }
    let bare = rows.median("s", save, "raw: write + fsync");
    let over = ours("s").zip(bare).map(|(ours, bare)| ours / bare);
    say("save (s): beside write + fsync + rename + fsync of the folder", over, Bound::AtMost(1.5), TIMES);
    say(
        "save (n): times as fast as burn-pack",
        rows.faster("n", save, "burn-pack"),
        Bound::AtLeast(2.0),
        TIMES,
    );
    let peak = rows.row("l", save, OURS).map(|row| row.peak_rss as f64 / (1 << 20) as f64);
    say("save (l): memory beyond the state", peak, Bound::AtMost(64.0 + 2.0), " MiB");
    let size = rows.row("s", "size", OURS).zip(rows.row("s", save, OURS));
    let beyond = size.map(|(size, save)| (size.bytes as f64 / save.bytes as f64 - 1.0) * 100.0);
    say("file (s): beyond its values", beyond, Bound::AtMost(3.0), " %");
}

fn stalls(rows: &Rows<'_>, say: &mut Say<'_>) {
    let copy = rows.median("l", "stage", "raw: memcpy, 2 threads");
    let beside =
        |op, factor: f64| rows.median("l", op, OURS).zip(copy).map(|(ours, copy)| factor * ours / copy);
    say("staged stall (l): beside a copy by two threads", beside("stage", 1.0), Bound::AtMost(1.3), TIMES);
    let during = beside("save_during", 100.0);
    say("save_during (l): stall, of a copy by two threads", during, Bound::AtMost(5.0), " %");
    for system in [OURS, "tensorkeep, nice'd"] {
        for cores in [1, 2] {
            let step = |what: &str| rows.median("l", &format!("step {what}, {cores} busy"), system);
            let longer =
                step("beside a save").zip(step("alone")).map(|(with, alone)| 100.0 * (with / alone - 1.0));
            let what = format!("step with {cores} busy beside a save (l), {system}: longer");
            say(&what, longer, Bound::AtMost(15.0), " %");
        }
    }
}

fn loads(rows: &Rows<'_>, say: &mut Say<'_>) {
    let open = |workload, factor| rows.median(workload, "open", OURS).map(|seconds| seconds * factor);
    say("open (s)", open("s", 1e6), Bound::AtMost(40.0), " µs");
    say("open (n)", open("n", 1e3), Bound::AtMost(5.0), " ms");
    for peer in ["burn-pack", "safetensors", "ztensor"] {
        let what = format!("open (n): times as fast as {peer}");
        say(&what, rows.faster("n", "open", peer), Bound::AtLeast(20.0), TIMES);
    }
    let once = rows.faster("l", "touch_once", "raw: mmap");
    say("every byte of (l) verified: beside touching it unverified", once, Bound::AtLeast(0.8), TIMES);
    let twice = rows.faster("l", "touch_all", "raw: mmap");
    say(
        "every byte of (l) verified, then read: beside reading it unverified",
        twice,
        Bound::AtLeast(0.8),
        TIMES,
    );
    let plain = rows.median("l", "load_fresh", "raw: read, fresh Vec");
    let into = plain.zip(rows.median("l", "load_into", READ)).map(|(plain, into)| plain / into);
    say(
        "load (l) by reading into memory that is there: beside a read into a fresh Vec",
        into,
        Bound::AtLeast(3.0),
        TIMES,
    );
    let ours = [OURS, READ].iter().filter_map(|ours| rows.median("l", "load_cold", ours));
    let cold = ours.min_by(f64::total_cmp).zip(rows.best_raw("l", "load_cold")).map(|(ours, raw)| ours / raw);
    say("load (l) cold: beside the best raw path", cold, Bound::AtMost(1.1), TIMES);
    let one = rows.median("n", "one_tensor", OURS).map(|seconds| seconds * 1e6);
    say("one tensor of (n)", one, Bound::AtMost(50.0), " µs");
}

fn curves(rows: &Rows<'_>, say: &mut Say<'_>) {
    let points = |curve: &str, op: &str| -> Vec<(f64, &Row)> {
        let on = rows.0.rows.iter().filter(|row| row.workload == curve && row.op == op);
        on.filter_map(|row| Some((row.x?, row))).collect()
    };
    let each = |curve: &str, op: &str, at: f64| {
        points(curve, op).iter().find(|(x, _)| *x == at).map(|(x, row)| row.seconds.median / x)
    };
    let growth =
        |curve, op, from, to| each(curve, op, to).zip(each(curve, op, from)).map(|(to, from)| to / from);
    for op in ["save_durable", "load_into"] {
        let what = format!("{op}: a byte of 1 GB beside a byte of 64 MB");
        say(&what, growth("bytes", op, 64e6, 1024e6), Bound::AtMost(1.5), TIMES);
    }
    for op in ["save_durable", "open"] {
        let what = format!("{op}: one of 1,000,000 tensors beside one of 10,000");
        say(&what, growth("tensors", op, 1e4, 1e6), Bound::AtMost(1.5), TIMES);
    }
    let million =
        points("tensors", "open").iter().find(|(x, _)| *x == 1e6).map(|(_, row)| row.seconds.median * 1e3);
    say("open 1,000,000 tensors", million, Bound::AtMost(25.0), " ms");
    for op in ["list", "save + rotation"] {
        let what = format!("{op}: one of 10,000 checkpoints beside one of 1,000");
        say(&what, growth("checkpoints", op, 1e3, 1e4), Bound::AtMost(1.5), TIMES);
    }
    let sparse = points("sparse", "open").into_iter().find(|(x, _)| *x >= 100e9);
    let memory = sparse.map(|(_, row)| row.peak_rss as f64 / row.bytes.max(1) as f64);
    say("open a sparse file of 100 GB: memory, of its index's bytes", memory, Bound::AtMost(1.5), TIMES);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Seconds;

    fn row(workload: &str, op: &str, system: &str, median: f64) -> Row {
        Row {
            workload: workload.to_owned(),
            op: op.to_owned(),
            system: system.to_owned(),
            seconds: Seconds { median, min: median, max: median },
            bytes: 0,
            peak_rss: 0,
            x: None,
        }
    }

    fn words(rows: Vec<Row>) -> Vec<String> {
        on(&Found { rows, ..Found::default() }).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn missing_figures_have_no_verdict() {
        assert_eq!(words(vec![]), Vec::<String>::new());
        assert_eq!(
            words(vec![row("l", "stage", OURS, 0.2)]),
            Vec::<String>::new(),
            "there is nothing beside it"
        );
    }

    #[test]
    fn a_target_is_met_exactly_at_its_bound_and_missed_beyond() {
        let open = |seconds| words(vec![row("s", "open", OURS, seconds)]);
        assert_eq!(open(40e-6), ["met     open (s): 40.00 µs, target at most 40 µs"]);
        assert_eq!(open(41e-6), ["MISSED  open (s): 41.00 µs, target at most 40 µs"]);
        let faster =
            |peer| words(vec![row("l", "save_durable", OURS, 1.0), row("l", "save_durable", "DCP", peer)]);
        let said = |peer| faster(peer).into_iter().find(|line| line.contains("DCP")).unwrap();
        assert!(said(4.0).starts_with("met ") && said(4.0).contains("4.00×"), "{}", said(4.0));
        assert!(said(3.9).starts_with("MISSED"), "{}", said(3.9));
    }

    #[test]
    fn the_raw_path_of_the_verdict_is_the_fastest_one() {
        let rows = vec![
            row("l", "save_durable", OURS, 1.0),
            row("l", "save_durable", "raw: write + fsync", 2.0),
            row("l", "save_durable", "raw: O_DIRECT, 2 threads", 0.8),
        ];
        let share = words(rows).into_iter().find(|line| line.contains("share")).unwrap();
        assert!(share.starts_with("MISSED") && share.contains("80.00 %"), "{share}");
    }

    #[test]
    fn curves_are_judged_by_the_cost_of_one() {
        let point = |x: f64, median| Row { x: Some(x), ..row("tensors", "open", OURS, median) };
        let said = words(vec![point(1e4, 1e-3), point(1e6, 20e-3)]);
        assert!(said[0].contains("0.20×") && said[0].starts_with("met"), "{said:?}");
        assert!(said[1].contains("20.00 ms") && said[1].starts_with("met"), "{said:?}");
    }
}
