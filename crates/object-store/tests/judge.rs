//! The engine against a server that others wrote: `TENSORKEEP_JUDGE_URL` names an empty place, such as
//! `s3://bucket/judge`, and the usual variables its endpoint and credentials. Without it nothing is judged. `judge.sh`
//! starts moto's server and calls this.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tensorkeep::engine::Engine;
use tensorkeep::testing::{conformance, store_suite};
use tensorkeep_object_store::ObjectStoreEngine;

const URL: &str = "TENSORKEEP_JUDGE_URL";

/// Engines each in an empty place of their own; None when there is no judge.
fn places() -> Option<impl FnMut() -> Arc<dyn Engine>> {
    static PLACE: AtomicU32 = AtomicU32::new(0);
    let url = std::env::var(URL).ok()?;
    let run = std::process::id();
    Some(move || -> Arc<dyn Engine> {
        let place = PLACE.fetch_add(1, Ordering::Relaxed);
        Arc::new(ObjectStoreEngine::from_url(&format!("{url}/{run}-{place}")).unwrap())
    })
}

#[test]
fn the_engine_keeps_the_contract_on_the_judges_server() {
    match places() {
        Some(places) => conformance::run(places).unwrap(),
        None => eprintln!("skipped: {URL} is not set"),
    }
}

#[test]
fn a_store_keeps_its_promises_on_the_judges_server() {
    match places() {
        Some(places) => store_suite::run(places),
        None => eprintln!("skipped: {URL} is not set"),
    }
}
