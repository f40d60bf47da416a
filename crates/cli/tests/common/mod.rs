//! A run to make pages of: two attempts, hostile names everywhere, a NaN, many checkpoints.

use std::path::PathBuf;
use tensorkeep::engine::Local;
use tensorkeep::{Keep, Mode, Progress, Reader, Snapshot, Store, StoreOptions};
use tensorkeep_cli::report::{self, Options};

pub const HOSTILE: &str = "</script><script>alert(1)</script><img src=x onerror=\"alert(2)\">";

pub struct Run(pub PathBuf);

impl Run {
    pub fn new(checkpoints: u64) -> Self {
        Self::with(checkpoints, 20)
    }

    pub fn with(checkpoints: u64, layers: usize) -> Self {
        let nonce = u128::from_le_bytes(tensorkeep::engine::fresh_nonce());
        let folder = std::env::temp_dir().join(format!("tensorkeep-report-{nonce:032x}"));
        let keep = Keep::all().or(Keep::best("loss", Mode::Min, 1));
        for attempt in 0..2 {
            let store =
                Store::open(Local::create(&folder).unwrap(), StoreOptions::new().keep(keep.clone())).unwrap();
            store.resume().unwrap();
            for i in 1..=checkpoints / 2 {
                let step = attempt * checkpoints / 2 + i;
                // Each its own memory and length: the same memory would be one tensor with many
                // names.
                let weights: Vec<Vec<f32>> = (0..layers)
                    .map(|layer| {
                        (0..40 + layer % 200)
                            .map(|i| ((i + layer) as f32).sin() + step as f32 * 1e-3)
                            .collect()
                    })
                    .collect();
                let broken: Vec<f32> = (0..300).map(|i| if i == 77 { f32::NAN } else { i as f32 }).collect();
                let mut snapshot = Snapshot::new();
                for (layer, values) in weights.iter().enumerate() {
                    snapshot = snapshot.tensor(format!("layer.{layer}.weight"), values).unwrap();
                }
                snapshot = snapshot
                    .tensor("broken.weight", &broken)
                    .unwrap()
                    .tensor(HOSTILE, &broken[..10])
                    .unwrap();
                snapshot =
                    snapshot.record(HOSTILE, &(HOSTILE, attempt)).unwrap().metadata("k", HOSTILE).unwrap();
                snapshot = snapshot
                    .metric("loss", 1.0 / (i + attempt * 10) as f64)
                    .unwrap()
                    .metric(HOSTILE, i as f64)
                    .unwrap();
                snapshot = snapshot.progress(Progress::new(step));
                store.save(&snapshot).unwrap();
            }
        }
        Self(folder)
    }

    pub fn page(&self) -> String {
        report::html(&Reader::new(Local::open(&self.0).unwrap()), &Options::titled(HOSTILE)).unwrap()
    }

    /// Flips a bit of the newest checkpoint's first tensor.
    pub fn damage(&self, name: &str) {
        test_support::flip_byte_on_disk(&self.0.join(name), 4096 + 5);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
