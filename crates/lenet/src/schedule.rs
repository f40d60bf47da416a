//! Learning-rate schedules in closed form: the rate is a function of the epoch, so resuming only
//! sets `last_epoch`.

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How the learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It does not.
    Constant,
    /// Multiplied by `gamma` every `step_size` epochs: base · gamma^⌊epoch / step_size⌋.
    /// PyTorch `torch.optim.lr_scheduler.StepLR`, `_get_closed_form_lr`.
    StepLr {
        /// Epochs between two falls; 0 counts as 1.
        step_size: u64,
        /// The factor of each fall.
        gamma: f64,
    },
    /// Along half a cosine: eta_min + (base − eta_min) · (1 + cos(π · epoch / t_max)) / 2. PyTorch
    /// `torch.optim.lr_scheduler.CosineAnnealingLR`, after Loshchilov and Hutter, "SGDR", ICLR
    /// 2017.
    Cosine {
        /// Epochs from the base rate down to `eta_min`; 0 counts as 1.
        t_max: u64,
        /// The lowest rate.
        eta_min: f64,
    },
}

/// A schedule and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scheduler {
    /// How the rate falls.
    pub schedule: Schedule,
    /// Completed epochs.
    pub last_epoch: u64,
}

impl Scheduler {
    /// Before the first epoch.
    pub fn new(schedule: Schedule) -> Self {
        Self { schedule, last_epoch: 0 }
    }

    /// The learning rate of the epoch that comes next.
    pub fn lr_at(&self, base_lr: f64) -> f64 {
        match self.schedule {
            Schedule::Constant => base_lr,
            Schedule::StepLr { step_size, gamma } => {
                base_lr * gamma.powf((self.last_epoch / step_size.max(1)) as f64)
            }
            Schedule::Cosine { t_max, eta_min } => {
                let turned = PI * self.last_epoch as f64 / t_max.max(1) as f64;
                eta_min + (base_lr - eta_min) * (1.0 + turned.cos()) / 2.0
            }
        }
    }

    /// An epoch was completed.
    pub fn step(&mut self) {
        self.last_epoch += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule, epochs: u64) -> Vec<f64> {
        (0..epochs).map(|last_epoch| Scheduler { schedule, last_epoch }.lr_at(0.1)).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        let close = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-12);
        assert!(close, "expected {expected:?}, found {found:?}");
    }

    #[test]
    fn step_lr_falls_every_step_size_epochs() {
        let found = rates(Schedule::StepLr { step_size: 2, gamma: 0.5 }, 6);
        assert_close(&found, &[0.1, 0.1, 0.05, 0.05, 0.025, 0.025]);
    }

    #[test]
    fn cosine_goes_from_the_base_rate_to_the_minimum() {
        let found = rates(Schedule::Cosine { t_max: 4, eta_min: 0.02 }, 5);
        let quarter = 0.02 + 0.08 * (1.0 + 0.5_f64.sqrt()) / 2.0;
        assert_close(&found, &[0.1, quarter, 0.06, 0.12 - quarter, 0.02]);
    }

    #[test]
    fn stepping_and_setting_last_epoch_give_the_same_rate() {
        let schedule = Schedule::Cosine { t_max: 7, eta_min: 0.0 };
        let mut stepped = Scheduler::new(schedule);
        for _ in 0..3 {
            stepped.step();
        }
        assert_eq!(stepped, Scheduler { schedule, last_epoch: 3 });
    }
}
