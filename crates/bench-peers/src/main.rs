//! tensorkeep beside other tensor formats: one process, one run, warm page cache, the same work for everybody.
//!
//! `cargo run --release -p bench-peers -- --workload s,m,l,n [--quick] [--json FILE] [--dir FOLDER] [--check]`

mod measure;
mod systems;
mod verdict;
#[path = "../../../benches/common/weights.rs"]
mod weights;

use measure::Row;
use std::path::PathBuf;
use std::process::ExitCode;
use systems::Outcome;

const USAGE: &str = "\
usage: bench-peers --workload s,m,l,n [--quick] [--json FILE] [--dir FOLDER] [--check]

  s  LeNet-5 and Adam, 0.74 MB
  m  ResNet-50 and momentum, 204 MB
  l  GPT-2 of medium width with 8 layers, and Adam, 1.84 GB (with --quick 1 layer, 0.78 GB)
  n  100,000 tensors of 64 floats, 25.6 MB

  --quick   3 rounds instead of 5 to 51
  --json    writes the rows to a file
  --dir     where the files go (target/bench-peers); the disk under it is what saving measures
  --check   ends with 1 when a target is missed";

struct Arguments {
    workloads: Vec<String>,
    quick: bool,
    check: bool,
    json: Option<PathBuf>,
    dir: PathBuf,
}

impl Arguments {
    fn parse(mut from: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut parsed = Self {
            workloads: Vec::new(),
            quick: false,
            check: false,
            json: None,
            dir: "target/bench-peers".into(),
        };
        while let Some(argument) = from.next() {
            let mut value = || from.next().ok_or(format!("{argument} needs a value\n\n{USAGE}"));
            match argument.as_str() {
                "--workload" => parsed.workloads = value()?.split(',').map(str::to_owned).collect(),
                "--json" => parsed.json = Some(value()?.into()),
                "--dir" => parsed.dir = value()?.into(),
                "--quick" => parsed.quick = true,
                "--check" => parsed.check = true,
                _ => return Err(format!("unknown argument {argument}\n\n{USAGE}").into()),
            }
        }
        if parsed.workloads.is_empty() {
            return Err(USAGE.into());
        }
        Ok(parsed)
    }
}

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every target was met, or nobody asked.
fn run(arguments: &Arguments) -> Outcome<bool> {
    std::fs::create_dir_all(&arguments.dir)?;
    let mut rows = Vec::new();
    for workload in &arguments.workloads {
        let (mut model, rounds) = match workload.as_str() {
            "s" => (weights::lenet(), 51),
            "m" => (weights::resnet50(), 9),
            "l" => (weights::gpt2(if arguments.quick { 1 } else { 8 }), 5),
            "n" => (weights::many(100_000), 9),
            _ => return Err(format!("unknown workload {workload}\n\n{USAGE}").into()),
        };
        // ztensor's canonical form wants ascending names; the others do not mind.
        model.sort_by(|one, other| one.name.cmp(&other.name));
        let rounds = if arguments.quick { 3 } else { rounds };
        let found = measure::run(workload, &model, &systems::all(), rounds, &arguments.dir)?;
        print(workload, &found, weights::payload(&model), model.len(), rounds);
        rows.extend(found);
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&rows)? + "\n")?;
    }
    let verdicts = verdict::on(&rows);
    verdicts.iter().for_each(|verdict| println!("{verdict}"));
    Ok(!arguments.check || verdicts.iter().all(verdict::Verdict::is_met))
}

fn print(workload: &str, rows: &[Row], payload: u64, tensors: usize, rounds: usize) {
    println!(
        "workload {workload}: {tensors} tensors, {:.2} MB, median of {rounds} rounds",
        payload as f64 / 1e6
    );
    println!(
        "  {:<15} {:<23} {:>11} {:>11} {:>11} {:>10} {:>10}",
        "op", "system", "median ms", "min", "max", "GB/s", "peak MB"
    );
    for row in rows {
        if row.op == "size" {
            println!("  {:<15} {:<23} {:>+10.3} %", row.op, row.system, verdict::overhead(row, payload));
            continue;
        }
        let ms = |seconds: f64| format!("{:.3}", seconds * 1e3);
        let speed = if row.bytes == 0 {
            String::new()
        } else {
            format!("{:.2}", row.bytes as f64 / row.seconds.median / 1e9)
        };
        println!(
            "  {:<15} {:<23} {:>11} {:>11} {:>11} {:>10} {:>10.1}",
            row.op,
            row.system,
            ms(row.seconds.median),
            ms(row.seconds.min),
            ms(row.seconds.max),
            speed,
            row.peak_rss as f64 / 1e6
        );
    }
    println!();
}
