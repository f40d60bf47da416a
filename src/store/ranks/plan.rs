//! What the ranks hold, and who stores it. Each rank declares what its snapshot has; rank 0
//! compares digests, and asks for the declarations only where they have changed. From all of them
//! every rank computes the same job by itself.

mod merge;
mod message;

pub(super) use merge::{Agreed, Compared};
pub(super) use message::{Plan, Sources, declare};

use super::Ranks;
use crate::error::{Error, ErrorKind, Result};
use crate::format::records;
use crate::store::options::StoreOptions;
use crate::sync::lock;
use crate::writer;
use merge::merge;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How replicas are stored: rank 0's options, for all.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Settings {
    /// Whether large replicas are cut among the ranks that have them.
    pub cut: bool,
    /// Of replicas, so many bytes at least to each rank that stores any.
    pub least: u64,
    pub compare: bool,
}

impl Settings {
    pub(super) fn of(options: &StoreOptions) -> Self {
        Self {
            cut: options.cut_replicas,
            least: options.least_shard_bytes,
            compare: options.compare_replicas,
        }
    }
}

/// All declarations are one message of rank 0: a collective takes a gibibyte.
const MOST_TOLD: usize = 1000 << 20;

/// What was agreed on last.
#[derive(Default)]
pub(super) struct Agreement {
    /// On rank 0, the digest of every rank's declaration.
    digests: Vec<Vec<u8>>,
    agreed: Option<Arc<Agreed>>,
}

/// How a save begins.
#[derive(Debug)]
pub(super) struct Begun {
    pub agreed: Arc<Agreed>,
    /// What the names of its shards begin with.
    pub save: String,
    /// Which save of this attempt it is.
    pub number: u32,
}

/// Rank 0's answer to the digests.
#[derive(Serialize, Deserialize)]
struct Answer {
    save: String,
    number: u32,
    /// Ranks that are to send their declarations; none where nothing has changed.
    send: Vec<u32>,
    is_known: bool,
}

impl Ranks {
    /// Agrees on what is saved and by whom. `number` and `name` are rank 0's.
    ///
    /// # Errors
    /// What the ranks disagree on, on every rank; this rank's own failure before.
    pub(super) fn agree_on_plan(
        &self,
        call: &str,
        plan: Result<Plan>,
        name: impl FnOnce() -> (String, u32),
    ) -> Result<Begun> {
        let encoded = plan.and_then(|plan| records::encode(&plan));
        let digest = encoded.as_ref().map(|plan| writer::digest(plan).to_vec());
        let digest = digest.map_err(super::copy_of);
        let on = &*self.saving;
        let mut groups: BTreeMap<Vec<u8>, Vec<u32>> = BTreeMap::new();
        let heard = self.exchange(on, call, digest, |digests| {
            let is_known = lock(&self.agreement).digests == digests;
            for (digest, rank) in digests.iter().zip(0..) {
                groups.entry(digest.clone()).or_default().push(rank);
            }
            let send = groups.values().filter_map(|ranks| ranks.first().copied()).collect();
            lock(&self.agreement).digests = digests;
            let (save, number) = name();
            records::encode(&Answer { save, number, send, is_known })
        });
        let encoded = encoded?;
        let Answer { save, number, send, is_known } = records::decode_owned(&heard?)?;
        if is_known && let Some(agreed) = &lock(&self.agreement).agreed {
            return Ok(Begun { agreed: Arc::clone(agreed), save, number });
        }
        let own = if send.contains(&self.rank()) { encoded } else { vec![] };
        let merged =
            |plans: &[u8]| merge(&records::decode_owned::<Vec<Group>>(plans)?, self.world(), self.settings);
        let heard = self.exchange(on, call, Ok(own), |plans| {
            let group = |ranks: Vec<u32>| {
                let sender = ranks.first().map_or(0, |&rank| rank as usize);
                Ok(Group {
                    plan: records::decode_owned(plans.get(sender).map_or(&[][..], Vec::as_slice))?,
                    ranks,
                })
            };
            let groups: Result<Vec<Group>> = by_first_rank(groups).into_iter().map(group).collect();
            let all = records::encode(&groups?)?;
            if all.len() > MOST_TOLD {
                return Err(Error::new(ErrorKind::LimitExceeded, "bytes of what the ranks hold")
                    .expected(format!("at most {MOST_TOLD}"))
                    .found(all.len())
                    .help("declare tensors by layouts where their cuts are even"));
            }
            merged(&all)?;
            Ok(all)
        });
        let agreed = heard.and_then(|plans| merged(&plans)).map(Arc::new);
        let mut agreement = lock(&self.agreement);
        if agreed.is_err() {
            // What is refused is declared again, whole.
            *agreement = Agreement::default();
        }
        let agreed = agreed?;
        agreement.agreed = Some(Arc::clone(&agreed));
        Ok(Begun { agreed, save, number })
    }
}

/// The same order whatever the digests are: what is told of two ranks is told of the first ones.
fn by_first_rank(groups: BTreeMap<Vec<u8>, Vec<u32>>) -> Vec<Vec<u32>> {
    let mut groups: Vec<Vec<u32>> = groups.into_values().collect();
    groups.sort_unstable();
    groups
}

/// Ranks that declared the same.
#[derive(Serialize, Deserialize)]
pub(super) struct Group {
    pub ranks: Vec<u32>,
    pub plan: Plan,
}
