//! The engine on the crate's own store in memory: the contract, and the promises of a store,
//! unchanged.

use std::sync::Arc;
use tensorkeep::testing::{conformance, store_suite};
use tensorkeep_object_store::ObjectStoreEngine;

fn engine() -> Arc<dyn tensorkeep::engine::Engine> {
    Arc::new(ObjectStoreEngine::from_url("memory://runs/lenet").unwrap())
}

#[test]
fn the_engine_keeps_the_contract() {
    conformance::run(engine).unwrap();
}

#[test]
fn a_store_on_it_keeps_its_promises() {
    store_suite::run(engine);
}

#[test]
fn it_works_inside_another_runtime_and_can_be_dropped_there() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = engine();
        let mut upload = engine.create("object", None).unwrap();
        upload.append(b"bytes").unwrap();
        upload.commit([1; 16]).unwrap();
        assert_eq!(engine.open("object").unwrap().len(), 5);
    });
}
