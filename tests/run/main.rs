//! A run and concurrent processes that delete, pin, resume or replace it: which writer is fenced,
//! which checkpoints stay, and that no intact one is deleted while the remaining ones are damaged.
//! Concurrent actions are made to happen at one call of the engine.

mod absence;
mod damage;
mod deletion;
mod doubt;
mod hooked;
mod identity;
mod marks;
mod restarts;
mod tiers;

use std::sync::Arc;
use tensorkeep::engine::{Engine, Memory};
use tensorkeep::{Keep, Result, Saved, Store, StoreOptions};
use test_support::{get, put, save_elements};

fn open(engine: impl Engine + 'static, keep: Keep) -> Store {
    Store::open(engine, StoreOptions::new().keep(keep)).unwrap()
}

fn resumed(engine: impl Engine + 'static, keep: Keep) -> Store {
    let store = open(engine, keep);
    store.resume().unwrap();
    store
}

fn save(store: &Store, step: u64) -> Result<Saved> {
    save_elements(store, step, 4096)
}

fn save_all(store: &Store, steps: impl IntoIterator<Item = u64>) {
    for step in steps {
        save(store, step).unwrap();
    }
}

/// Flips one bit of the weights of attempt 1's checkpoint at `step`: header, index and footer stay
/// whole.
fn rot(engine: &Memory, step: u64) {
    let key = format!("0001-{step:010}.tkeep");
    let mut bytes = get(engine, &key);
    bytes[4096 + 100] ^= 1;
    put(engine, &key, &bytes);
}

fn shared(engine: &Memory) -> Arc<dyn Engine> {
    Arc::new(engine.clone())
}
