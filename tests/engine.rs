//! The engines against the conformance suite for engine authors.

use std::sync::Arc;
use tensorkeep::engine::{Engine, Local, Memory};
use tensorkeep::testing::conformance;

use test_support::TempFolder;

#[test]
fn the_engine_in_memory_keeps_the_contract() {
    conformance::run(|| Arc::new(Memory::new())).unwrap();
}

#[test]
fn the_local_engine_keeps_the_contract() {
    let mut folders = Vec::new();
    conformance::run(|| {
        folders.push(TempFolder::new("conformance"));
        Arc::new(Local::create(folders.last().unwrap().path()).unwrap())
    })
    .unwrap();
}

#[test]
fn an_engine_that_overwrites_is_found_out() {
    use tensorkeep::engine::{CommitError, Decorator, Nonce, Upload};
    /// Last writer wins.
    #[derive(Debug)]
    struct Overwriting(Memory);
    struct Replace(Memory, String, Vec<u8>);
    impl Decorator for Overwriting {
        type Inner = Memory;
        fn inner(&self) -> &Memory {
            &self.0
        }
        fn create(&self, key: &str, _: Option<u64>) -> tensorkeep::Result<Box<dyn Upload>> {
            tensorkeep::engine::check_key(key)?;
            Ok(Box::new(Replace(self.0.clone(), key.to_owned(), Vec::new())))
        }
    }
    impl Upload for Replace {
        fn append(&mut self, bytes: &[u8]) -> tensorkeep::Result<()> {
            self.2.extend_from_slice(bytes);
            Ok(())
        }
        fn commit(self: Box<Self>, nonce: Nonce) -> Result<(), CommitError> {
            let _ = self.0.delete(&self.1);
            let mut upload = self.0.create(&self.1, None).map_err(CommitError::NotCommitted)?;
            upload.append(&self.2).map_err(CommitError::NotCommitted)?;
            upload.commit(nonce)
        }
    }
    let error = conformance::run(|| Arc::new(Overwriting(Memory::new()))).unwrap_err();
    assert!(error.to_string().contains("a committed key is never written again"), "{error:?}");
}
