//! The engine against third-party servers: `TENSORKEEP_JUDGE_URL` names an empty prefix, such as
//! `s3://bucket/judge`, and the usual variables its endpoint and credentials. Without it these
//! tests pass without a check. `judge.sh` starts the servers and runs the tests that fit each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tensorkeep::engine::Engine;
use tensorkeep::testing::{conformance, store_suite};
use tensorkeep::{ErrorKind, Store, StoreOptions};
use tensorkeep_object_store::ObjectStoreEngine;

const URL: &str = "TENSORKEEP_JUDGE_URL";

/// Engines each under an empty prefix of their own; None without a judge.
fn places() -> Option<impl FnMut() -> Arc<dyn Engine>> {
    static PLACE: AtomicU32 = AtomicU32::new(0);
    let Ok(url) = std::env::var(URL) else {
        eprintln!("skipped: {URL} is not set");
        return None;
    };
    let run = std::process::id();
    Some(move || -> Arc<dyn Engine> {
        let place = PLACE.fetch_add(1, Ordering::Relaxed);
        Arc::new(ObjectStoreEngine::from_url(&format!("{url}/{run}-{place}")).unwrap())
    })
}

#[test]
fn the_engine_keeps_the_contract_on_the_judges_server() {
    if let Some(places) = places() {
        conformance::run(places).unwrap();
    }
}

#[test]
fn a_store_keeps_its_promises_on_the_judges_server() {
    if let Some(places) = places() {
        store_suite::run(places);
    }
}

/// For a judge without conditional puts: run by name only.
#[test]
#[ignore = "only a server without conditional puts is refused"]
fn a_judge_without_conditional_puts_is_refused_with_a_reason() {
    if let Some(mut places) = places() {
        let engine = places();
        let error = Store::open(Arc::clone(&engine), StoreOptions::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(error.to_string().contains("overwrite each other"), "{error}");
        let why = engine.create("object", None).err().unwrap().to_string();
        assert!(why.contains("conditional put"), "{why}");
        eprintln!("refused: {why}");
    }
}
