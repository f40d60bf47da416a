//! A state of 100 MB of `Vec<f32>` through serde, beside the same elements as plain tensors: taking
//! it into a snapshot, saving it, and reading it back. The minimum of several runs, in
//! milliseconds.
//!
//! ```text
//! cargo bench --bench state
//! ```

use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::time::Instant;
use tensorkeep::{Checkpoint, Codec, Result, Snapshot, WriteOptions};

const LISTS: usize = 10;
const ELEMENTS: usize = 2_621_440; // 10 MiB each
const RUNS: usize = 9;

#[derive(Serialize, Deserialize)]
struct Moments {
    lr: f64,
    lists: Vec<List>,
}

#[derive(Serialize, Deserialize)]
struct List {
    name: String,
    values: Vec<f32>,
}

fn least(what: &str, mut run: impl FnMut() -> Result<()>) -> Result<()> {
    let mut least = f64::INFINITY;
    for _ in 0..RUNS {
        let start = Instant::now();
        run()?;
        least = least.min(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("{what:<40} {least:8.1} ms");
    Ok(())
}

fn plain(moments: &Moments) -> Result<Snapshot<'_>> {
    let mut lists = moments.lists.iter();
    lists
        .try_fold(Snapshot::new(), |snapshot, list| snapshot.tensor(format!("s/{}", list.name), &list.values))
}

fn main() -> Result<()> {
    let values: Vec<f32> = (0..ELEMENTS).map(|i| (i % 8191) as f32 * 1e-3).collect();
    let list = |i| List { name: format!("list{i}"), values: values.clone() };
    let moments = Moments { lr: 1e-3, lists: (0..LISTS).map(list).collect() };
    let path = std::env::temp_dir().join(format!("tensorkeep-bench-state-{}.tkeep", std::process::id()));
    let options = WriteOptions::new().codec(Codec::Raw);
    least("copy of the elements", || {
        for list in &moments.lists {
            black_box(list.values.clone());
        }
        Ok(())
    })?;
    least("take: tensor (borrows)", || plain(&moments).map(|snapshot| drop(black_box(snapshot))))?;
    least("take: state", || Snapshot::new().state("s", &moments).map(|snapshot| drop(black_box(snapshot))))?;
    least("save: tensor", || plain(&moments)?.save_with(&path, &options).map(drop))?;
    least("save: state", || Snapshot::new().state("s", &moments)?.save_with(&path, &options).map(drop))?;
    let checkpoint = Checkpoint::open(&path)?;
    least("load: tensors, copied to Vec", || {
        for i in 0..LISTS {
            let tensor = checkpoint.tensor(&format!("s/lists.{i}.values"))?;
            black_box(tensor.elements::<f32>()?.to_vec());
        }
        Ok(())
    })?;
    least("load: state", || checkpoint.state::<Moments>("s").map(|moments| drop(black_box(moments))))?;
    std::fs::remove_file(&path).ok();
    Ok(())
}
