//! What a store at a URL can do. Works with objects that are no checkpoints and that are deleted
//! again.

use super::Finding;
use crate::place::Place;
use std::time::{Duration, Instant};
use tensorkeep::Result;
use tensorkeep::engine::{Engine, fresh_nonce};

/// Small commits measured; the median is told.
const COMMITS: usize = 5;
/// Bytes read and written for the speeds.
const SPEED_BYTES: usize = 32 << 20;

/// # Errors
/// What the store says, such as wrong credentials; that it cannot be written to safely is a
/// finding.
pub(super) fn findings(place: &Place) -> Result<Vec<Finding>> {
    let engine = &*place.open()?;
    // Fails where the store cannot be reached at all.
    engine.list("")?;
    let caps = engine.caps();
    let mut findings = vec![Finding::yes(
        "conditional put: of two writers one is refused, also in a race",
        caps.create_only,
    )];
    if !caps.create_only {
        let reason = engine.create(&key(), None).err().map_or_else(String::new, |error| error.to_string());
        findings.push(Finding { what: "why not", answer: reason, fine: false });
        return Ok(findings);
    }
    let mut commits = Vec::new();
    for _ in 0..COMMITS {
        commits.push(commit_and_delete(engine, b"doctor", |_| Ok(()))?.0);
    }
    commits.sort();
    let commit = commits[COMMITS / 2];
    let answer = format!("{:.1} ms", commit.as_secs_f64() * 1e3);
    findings.push(Finding { what: "a small commit", answer, fine: commit < Duration::from_secs(2) });
    // Not all the same, for what compresses on the way.
    let bytes: Vec<u8> =
        (0..SPEED_BYTES as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let (write, read) =
        commit_and_delete(engine, &bytes, |key| engine.open(key)?.read_at(0, &mut vec![0; SPEED_BYTES]))?;
    let speed = |what, took: Duration| {
        let answer = format!("{:.0} MB/s", SPEED_BYTES as f64 / took.as_secs_f64() / 1e6);
        Finding { what, answer, fine: true }
    };
    findings.extend([speed("write", write), speed("read", read)]);
    findings.extend(strays(place)?);
    Ok(findings)
}

/// Keys that other programs left under the run by a slip: harmless, and hard to see otherwise.
#[cfg(feature = "object-store")]
fn strays(place: &Place) -> Result<Option<Finding>> {
    const TOLD: usize = 3;
    let strays = crate::place::object_store(&place.to_string())?.strays()?;
    let first: Vec<String> = strays.iter().take(TOLD).map(|key| format!("{key:?}")).collect();
    let more = if strays.len() > TOLD { ", …" } else { "" };
    let answer = match strays.len() {
        0 => "none".to_owned(),
        count => format!("{count}, which are left out of listings: {}{more}", first.join(", ")),
    };
    Ok(Some(Finding { what: "keys with empty segments, dots or control characters", answer, fine: true }))
}

#[cfg(not(feature = "object-store"))]
fn strays(_: &Place) -> Result<Option<Finding>> {
    Ok(None)
}

fn key() -> String {
    format!("doctor-{:032x}", u128::from_le_bytes(fresh_nonce()))
}

/// How long writing took, and what is done with it before it is deleted.
fn commit_and_delete(
    engine: &dyn Engine,
    bytes: &[u8],
    then: impl FnOnce(&str) -> Result<()>,
) -> Result<(Duration, Duration)> {
    let (key, start) = (key(), Instant::now());
    let mut upload = engine.create(&key, Some(bytes.len() as u64))?;
    upload.append(bytes)?;
    upload.commit(fresh_nonce())?;
    let (committed, start) = (start.elapsed(), Instant::now());
    let done = then(&key);
    let took = start.elapsed();
    engine.delete(&key)?;
    done.map(|()| (committed, took))
}
