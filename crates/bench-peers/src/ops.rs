//! The measured operations, their names in the rows, the repetitions of each, and [`Call`]: one
//! operation of one system, ready to be timed.

use crate::Outcome;
use crate::workloads::Workload;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// An operation that several systems support.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// From memory to a file that survives a power cut.
    SaveDurable,
    /// As in its documentation, durable or not.
    SaveAsCalled,
    /// The breakdown of a durable save's time; one row for each stage.
    SaveStages,
    /// The stall until the trainer may change the state: a copy is made.
    Stage,
    /// The stall to hand over shared state.
    SaveAsync,
    /// The extra time of a closure during a save, where the closure takes longer than the save.
    SaveDuring,
    /// A trainer's step, alone and beside a save in the background; one row for each.
    StepTime,
    /// Opening, and visiting every name and shape.
    Open,
    /// Mapping, and reading every byte in a loop of one's own: two passes for a system that
    /// verifies.
    TouchAll,
    /// Mapping, and reading every byte once: verifying does just that.
    TouchOnce,
    /// Into freshly allocated memory.
    LoadFresh,
    /// Into existing, warm memory: a resume.
    LoadInto,
    /// A private writable mapping, one write to every tensor.
    MapCopy,
    /// All bytes in memory, from a file that is not in the page cache.
    LoadCold,
    /// One tensor from the middle, after opening.
    OneTensor,
}

/// Operations that are requested together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Save,
    Stall,
    Load,
    Cold,
}

impl Group {
    pub const ALL: [Self; 4] = [Self::Save, Self::Stall, Self::Load, Self::Cold];

    pub fn name(self) -> &'static str {
        match self {
            Self::Save => "save",
            Self::Stall => "stall",
            Self::Load => "load",
            Self::Cold => "cold",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.name() == name)
    }
}

/// Repetitions of an operation: the number of processes, and in each the number of timed and of
/// warm-up calls.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    pub warm: usize,
    pub times: usize,
}

impl Op {
    /// In the order of measurement: saving creates the files that the others read.
    pub const ALL: [Self; 15] = [
        Self::SaveDurable,
        Self::SaveAsCalled,
        Self::SaveStages,
        Self::Stage,
        Self::SaveAsync,
        Self::SaveDuring,
        Self::StepTime,
        Self::Open,
        Self::TouchAll,
        Self::TouchOnce,
        Self::LoadFresh,
        Self::LoadInto,
        Self::MapCopy,
        Self::LoadCold,
        Self::OneTensor,
    ];

    /// The name in the rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::SaveDurable => "save_durable",
            Self::SaveAsCalled => "save_as_called",
            Self::SaveStages => "save_stages",
            Self::Stage => "stage",
            Self::SaveAsync => "save_async",
            Self::SaveDuring => "save_during",
            Self::StepTime => "step_time",
            Self::Open => "open",
            Self::TouchAll => "touch_all",
            Self::TouchOnce => "touch_once",
            Self::LoadFresh => "load_fresh",
            Self::LoadInto => "load_into",
            Self::MapCopy => "map_copy",
            Self::LoadCold => "load_cold",
            Self::OneTensor => "one_tensor",
        }
    }

    pub fn group(self) -> Group {
        match self {
            Self::SaveDurable | Self::SaveAsCalled | Self::SaveStages => Group::Save,
            Self::Stage | Self::SaveAsync | Self::SaveDuring | Self::StepTime => Group::Stall,
            Self::LoadCold => Group::Cold,
            _ => Group::Load,
        }
    }

    /// Whether all of the payload is processed, so that its bytes over the time are a speed.
    pub fn moves_payload(self) -> bool {
        !matches!(
            self,
            Self::Open
                | Self::OneTensor
                | Self::StepTime
                | Self::SaveDuring
                | Self::SaveAsync
                | Self::SaveStages
        )
    }

    /// Whether it is meaningful for a workload: microseconds are no stall, and a payload that fits
    /// in a cache is not read cold.
    pub fn suits(self, workload: Workload) -> bool {
        let large = matches!(workload, Workload::Medium | Workload::Large);
        match self {
            Self::StepTime | Self::SaveDuring => large,
            Self::OneTensor => workload == Workload::Numerous,
            Self::LoadCold => workload != Workload::Small,
            _ => true,
        }
    }

    /// The repetitions for this workload. A save of gigabytes takes seconds, one of a LeNet a
    /// millisecond.
    pub fn effort(self, workload: Workload, quick: bool) -> Effort {
        let large = Effort { rounds: 3, warm: 1, times: 2 };
        let full = match (workload, self) {
            (Workload::Large, Self::SaveDurable | Self::LoadCold) => Effort { rounds: 5, warm: 0, times: 1 },
            (Workload::Large, Self::SaveAsCalled | Self::SaveStages) => {
                Effort { rounds: 3, warm: 0, times: 1 }
            }
            (Workload::Large, Self::Open) => Effort { rounds: 3, warm: 2, times: 11 },
            (Workload::Large, _) => large,
            (Workload::Medium, _) => Effort { rounds: 3, warm: 1, times: 5 },
            (Workload::Numerous, Self::OneTensor) => Effort { rounds: 3, warm: 3, times: 31 },
            (Workload::Numerous, _) => Effort { rounds: 3, warm: 1, times: 5 },
            (Workload::Small, _) => Effort { rounds: 5, warm: 3, times: 31 },
        };
        if quick { Effort { rounds: 1, warm: full.warm.min(1), times: full.times.min(3) } } else { full }
    }

    /// The pause for the disk before the operation. Disks of clouds are metered: the bandwidth of
    /// one system is subtracted from the next one's.
    pub fn rest(self, workload: Workload, quick: bool) -> Duration {
        Duration::from_secs(match (workload, self.group()) {
            _ if quick => 0,
            (Workload::Large, Group::Save) => 6,
            (Workload::Large, Group::Cold) => 12,
            (Workload::Medium, Group::Save | Group::Cold) => 1,
            _ => 0,
        })
    }
}

/// The result of a measured call, to be compared with the expected one.
pub enum Found {
    /// Nothing to compare: a save's output is checked when it is loaded.
    Nothing,
    /// Elements of all tensors that were listed.
    Elements(u64),
    /// The [`sum`](crate::workloads::sum) of the bytes read.
    Sum(u64),
    /// Memory was filled in these seconds, and has this sum.
    Loaded { seconds: f64, sum: u64 },
    /// Measured by the call itself, in seconds, perhaps several times by name.
    Times(Vec<(String, f64)>),
}

impl Found {
    /// Times `load` alone: summing and freeing the loaded memory come after.
    pub fn loaded<T>(load: impl FnOnce() -> Outcome<T>, sum: impl FnOnce(&T) -> u64) -> Outcome<Self> {
        let start = Instant::now();
        let memory = load()?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Self::Loaded { seconds, sum: sum(&memory) })
    }
}

type Step<T> = Box<dyn FnMut() -> Outcome<T>>;

/// One operation of one system, ready to be timed.
pub struct Call {
    /// Not timed.
    pub before: Step<()>,
    pub measured: Step<Found>,
    /// Not timed.
    pub after: Step<()>,
}

impl Call {
    pub fn new(measured: impl FnMut() -> Outcome<Found> + 'static) -> Self {
        Self { before: Box::new(|| Ok(())), measured: Box::new(measured), after: Box::new(|| Ok(())) }
    }

    /// Done before each time.
    pub fn before(self, before: impl FnMut() -> Outcome<()> + 'static) -> Self {
        Self { before: Box::new(before), ..self }
    }

    /// Done after each time.
    pub fn after(self, after: impl FnMut() -> Outcome<()> + 'static) -> Self {
        Self { after: Box::new(after), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_measured_somewhere_and_quick_is_less() {
        for op in Op::ALL {
            assert!(Workload::ALL.into_iter().any(|workload| op.suits(workload)), "{op:?}");
            for workload in Workload::ALL {
                let (full, quick) = (op.effort(workload, false), op.effort(workload, true));
                assert!(quick.rounds * quick.times <= full.rounds * full.times && quick.times > 0);
            }
        }
    }
}
