//! Runs to make pages of: a small transformer that trains, is killed, goes on, and turns to NaN.

use std::path::PathBuf;
use tensorkeep::engine::Local;
use tensorkeep::{Keep, Mode, Progress, Reader, Snapshot, Store, StoreOptions};
use tensorkeep_cli::report::{self, Options};

/// What the run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub attempts: u64,
    pub saves: u64,
    /// Steps between two saves.
    pub every: u64,
    pub layers: usize,
    /// The last save with NaN is the newest, the first has this step.
    pub nan_from: Option<u64>,
    pub keep: Keep,
}

impl Plan {
    /// 6 attempts, 60 saves of which 20 or so are kept, 600 steps.
    pub fn usual() -> Self {
        let keep = Keep::last(8).or(Keep::best("val_accuracy", Mode::Max, 2)).or(Keep::every_steps(50));
        Self { attempts: 6, saves: 60, every: 10, layers: 6, nan_from: None, keep }
    }
}

/// A run in a folder of its own, deleted in the end.
pub struct Made(pub PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Made {
    pub fn new(plan: &Plan) -> Self {
        let nonce = u128::from_le_bytes(tensorkeep::engine::fresh_nonce());
        let folder = std::env::temp_dir().join(format!("tensorkeep-browser-{nonce:032x}/rte-ft"));
        std::fs::create_dir_all(&folder).unwrap();
        let made = Self(folder);
        let of_each = plan.saves / plan.attempts;
        let mut step = 0;
        for attempt in 0..plan.attempts {
            let options = StoreOptions::new().keep(plan.keep.clone());
            let store = Store::open(Local::create(&made.0).unwrap(), options).unwrap();
            if let Some(name) = store.resume().unwrap().id {
                step = name.step;
            }
            for _ in 0..of_each {
                for _ in 0..plan.every {
                    step += 1;
                    log(&store, step, plan);
                }
                store.save(&state(step, plan)).unwrap();
            }
            match attempt % 3 {
                // Killed: a few steps are lost, and no end is told.
                0 => (1..4).for_each(|more| log(&store, step + more, plan)),
                _ => store.close().unwrap(),
            }
        }
        made
    }

    pub fn page_with(&self, options: &Options) -> String {
        report::html(&Reader::new(Local::open(&self.0).unwrap()), options).unwrap()
    }

    pub fn page(&self) -> String {
        self.page_with(&Options::titled("runs/rte-ft"))
    }

    /// Writes a page beside the run, as a URL.
    pub fn write(&self, html: &str) -> String {
        let path = self.0.with_extension("html");
        std::fs::write(&path, html).unwrap();
        format!("file://{}", path.display())
    }

    /// Flips a bit in the middle of a checkpoint.
    pub fn damage(&self, name: &str) {
        test_support::flip_byte_on_disk(&self.0.join(name), 4096 + 5);
    }

    pub fn names(&self) -> Vec<String> {
        let reader = Reader::new(Local::open(&self.0).unwrap());
        reader.ids().unwrap().iter().map(|name| format!("{name}.tkeep")).collect()
    }
}

fn noise(step: u64, salt: u64) -> f64 {
    let mixed = (step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ salt.wrapping_mul(0x1234_5678_9abc_def1));
    (mixed >> 40) as f64 / f64::from(1 << 24) - 0.5
}

fn log(store: &Store, step: u64, plan: &Plan) {
    let progress = Progress::new(step).epoch(step / 100);
    let x = step as f64 / (plan.saves * plan.every) as f64;
    let is_nan = plan.nan_from.is_some_and(|from| step + 3 >= from);
    let loss = if is_nan { f64::NAN } else { 0.7 * (-3.0 * x).exp() + 0.1 + 0.06 * noise(step, 1) };
    let mut values = vec![
        ("loss", loss),
        ("lr", 3e-5 * (1.0 - x)),
        ("grad_norm", 1.0 + noise(step, 2).abs() * if step.is_multiple_of(97) { 60.0 } else { 1.0 }),
    ];
    if step.is_multiple_of(10) {
        let peak = 1.0 - (x - 0.7).powi(2);
        values.push(("val_accuracy", 0.93 * peak));
        values.push(("val_loss", 0.25 + (x - 0.7).powi(2)));
    }
    store.log(&progress, values);
}

fn state(step: u64, plan: &Plan) -> Snapshot<'static> {
    let is_nan = plan.nan_from.is_some_and(|from| step >= from);
    let mut snapshot = Snapshot::new().progress(Progress::new(step).epoch(step / 100));
    for (key, value) in
        [("command", "python finetune.py --task rte"), ("git", "8f3c1e2"), ("total_steps", "1000")]
    {
        snapshot = snapshot.metadata(key, value).unwrap();
    }
    for layer in 0..plan.layers {
        for (part, len) in [("attn.qkv", 96), ("mlp.up", 128), ("mlp.gate", 128), ("norm", 16)] {
            let mut weights: Vec<f32> = (0..len)
                .map(|i| {
                    (noise(i, layer as u64 * 7 + 3) + noise(step, i + 5) * 0.001 * step as f64 / 10.0) as f32
                })
                .collect();
            if is_nan && layer == 4 && part == "mlp.gate" {
                weights[3] = f32::NAN;
            }
            let moments: Vec<f32> = weights.iter().map(|w| w * 0.01).collect();
            snapshot = snapshot.tensor(format!("model/layers.{layer}.{part}.weight"), weights).unwrap();
            snapshot =
                snapshot.tensor(format!("optimizer/exp_avg/layers.{layer}.{part}.weight"), moments).unwrap();
        }
    }
    let embed: Vec<f32> = (0..2048).map(|i| if i % 5 == 0 { 0.0 } else { noise(i, 11) as f32 }).collect();
    snapshot
        .tensor("model/embed.weight", embed)
        .unwrap()
        .record("optimizer", &std::collections::BTreeMap::from([("lr", 3e-5 * (1.0 - step as f64 / 1e3))]))
        .unwrap()
        .record("rng", &[step, step * 7])
        .unwrap()
}
