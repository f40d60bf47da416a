//! The command line.

use crate::Outcome;
use crate::ops::Group;
use crate::python::Python;
use crate::rounds::Plan;
use crate::workloads::{NUMEROUS, Workload};
use std::path::PathBuf;

const USAGE: &str = "\
usage: bench-peers --workload s,m,l,n [--curves] [--quick] [--json FILE] [--report FILE.html]

  s  LeNet-5 and Adam, 0.74 MB
  m  ResNet-50 and momentum, 204 MB
  l  GPT-2 of medium width with 8 layers, and Adam, 1.84 GB (with --quick 1 layer, 0.78 GB)
  n  100,000 tensors of 64 floats, 25.6 MB

  --ops save,stall,load,cold   only these groups of operations
  --systems A,B                only systems whose names contain one of these
  --curves                     what a byte, a tensor and a checkpoint cost the more of them there are
  --quick                      one round and few repetitions; curves end early
  --tensors N                  so many in n
  --json FILE                  writes the rows to a file
  --with FILE                  takes the rows of an earlier run of the same machine into verdict and report
  --report FILE.html           rows, verdict and curves as a page
  --dir FOLDER                 where files go (target/bench-peers); the disk under it is what saving measures
  --python PROGRAM             the interpreter for Python's peers (python3)";

pub struct Arguments {
    pub workloads: Vec<Workload>,
    pub groups: Vec<Group>,
    pub systems: Vec<String>,
    pub curves: bool,
    pub quick: bool,
    pub tensors: usize,
    pub json: Option<PathBuf>,
    pub with: Vec<PathBuf>,
    pub report: Option<PathBuf>,
    pub dir: PathBuf,
    pub python: PathBuf,
}

impl Arguments {
    /// # Errors
    /// A usage error, with the usage.
    pub fn parse(mut from: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut parsed = Self {
            workloads: Vec::new(),
            groups: Group::ALL.to_vec(),
            systems: Vec::new(),
            curves: false,
            quick: false,
            tensors: NUMEROUS,
            json: None,
            with: Vec::new(),
            report: None,
            dir: "target/bench-peers".into(),
            python: "python3".into(),
        };
        while let Some(argument) = from.next() {
            let mut value = || from.next().ok_or(format!("{argument} needs a value\n\n{USAGE}"));
            match argument.as_str() {
                "--workload" => parsed.workloads = each(&value()?, "workload", Workload::parse)?,
                "--ops" => parsed.groups = each(&value()?, "group of operations", Group::parse)?,
                "--systems" => parsed.systems = value()?.split(',').map(str::to_owned).collect(),
                "--json" => parsed.json = Some(value()?.into()),
                "--with" => parsed.with.push(value()?.into()),
                "--report" => parsed.report = Some(value()?.into()),
                "--dir" => parsed.dir = value()?.into(),
                "--python" => parsed.python = value()?.into(),
                "--curves" => parsed.curves = true,
                "--quick" => parsed.quick = true,
                "--tensors" => parsed.tensors = count(&value()?)?,
                _ => return Err(format!("unknown argument {argument}\n\n{USAGE}").into()),
            }
        }
        if parsed.workloads.is_empty() && !parsed.curves && parsed.with.is_empty() {
            return Err(USAGE.into());
        }
        Ok(parsed)
    }

    pub fn plan(&self, python: Option<Python>) -> Plan {
        let (groups, systems) = (self.groups.clone(), self.systems.clone());
        Plan { groups, systems, quick: self.quick, tensors: self.tensors, dir: self.dir.clone(), python }
    }
}

fn count(number: &str) -> Outcome<usize> {
    let parsed = number.parse().ok().filter(|&count| count > 0);
    parsed.ok_or(format!("{number} is no number of tensors\n\n{USAGE}").into())
}

fn each<T>(list: &str, what: &str, parse: impl Fn(&str) -> Option<T>) -> Outcome<Vec<T>> {
    let one = |name: &str| parse(name).ok_or(format!("unknown {what} {name}\n\n{USAGE}").into());
    list.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Outcome<Arguments> {
        Arguments::parse(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_documented_command_lines_are_understood() {
        let all = parse("--workload s,m,l,n --quick --json rows.json").unwrap();
        assert_eq!((all.workloads, all.groups.len(), all.quick), (Workload::ALL.to_vec(), 4, true));
        let part = parse("--workload l --ops save,cold --with a.json --with b.json").unwrap();
        assert_eq!((part.groups, part.with.len()), (vec![Group::Save, Group::Cold], 2));
        for wrong in
            ["", "--quick", "--workload x", "--workload s --ops x", "--json", "--workload n --tensors 0", "s"]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
