//! tensorkeep beside other tensor formats and beside the machine's limits, in one run. README.md
//! describes the measurements and their method; this file runs them in order.

mod arguments;
mod child;
mod curves;
mod machine;
mod memory;
mod ops;
mod peer;
mod python;
mod raw;
mod report;
mod rounds;
mod row;
mod statistics;
mod system;
mod systems;
mod verdict;
#[path = "../../../benches/common/weights.rs"]
mod weights;
mod workloads;

use arguments::Arguments;
use machine::Machine;
use python::Python;
use report::table;
use row::Found;
use std::error::Error;
use std::process::ExitCode;

/// A system's error.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let outcome = if arguments.next_if(|first| first == child::CHILD).is_some() {
        child::answer(&arguments.next().unwrap_or_default())
    } else {
        Arguments::parse(arguments).and_then(|arguments| run(&arguments))
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Outcome<()> {
    std::fs::create_dir_all(&arguments.dir)?;
    let (python, absent) = Python::find(arguments.python.clone());
    let mut found = Found { machine: Machine::here(&arguments.dir), skipped: absent, ..Found::default() };
    println!("{}\n", found.machine.describe());
    for earlier in &arguments.with {
        let earlier = Found::read(earlier)?;
        if earlier.machine != found.machine {
            return Err(format!("rows of another machine: {}", earlier.machine.describe()).into());
        }
        found.add(earlier.rows);
    }
    let plan = arguments.plan(python);
    for &workload in &arguments.workloads {
        let (rows, skipped, values) = plan.run(workload)?;
        table::print(workload, &rows, &values);
        found.add(rows);
        found.skipped.extend(skipped);
    }
    if arguments.curves {
        let rows = curves::run(&arguments.dir, arguments.quick)?;
        table::print_curves(&rows);
        found.add(rows);
    }
    for verdict in verdict::on(&found) {
        println!("{verdict}");
    }
    for words in &found.skipped {
        println!("not measured  {words}");
    }
    if let Some(path) = &arguments.json {
        found.write(path)?;
    }
    if let Some(path) = &arguments.report {
        std::fs::write(path, report::html::page(&found)?)?;
    }
    Ok(())
}
