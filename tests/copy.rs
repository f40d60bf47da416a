//! Copying a checkpoint: the same bytes arrive, read or mapped, and no damaged byte passes.

use tensorkeep::engine::{CommitError, Decorator, Engine, Memory, Nonce, Upload};
use tensorkeep::{
    CheckpointId, Codec, ErrorKind, Progress, Reader, Result, Snapshot, Store, StoreOptions, WriteOptions,
    store::CopyOutcome,
};
use test_support::{Zoo, open};

/// Collects the appended bytes and the offset of the tail.
#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    tail: usize,
}

impl Upload for Taken {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
    fn append_with_crc(&mut self, bytes: &[u8], crc32: u32) -> Result<()> {
        assert_eq!(crc32fast::hash(bytes), crc32, "an engine would combine a wrong checksum");
        self.append(bytes)
    }
    fn begin_tail(&mut self) {
        self.tail = self.bytes.len();
    }
    fn commit(self: Box<Self>, _: Nonce) -> Result<(), CommitError> {
        Ok(())
    }
}

fn containers() -> Vec<Vec<u8>> {
    let zoo = Zoo::new();
    let values: Vec<u64> = (0..40_000).collect();
    let mut many = Snapshot::new();
    for (number, values) in values.chunks(20).enumerate() {
        many = many.tensor(format!("layer.{number}"), values).unwrap();
    }
    [
        zoo.snapshot().to_bytes(&WriteOptions::new().codec(Codec::Raw)),
        zoo.snapshot().to_bytes(&WriteOptions::new().codec(Codec::Balanced).chunk_log2(16)),
        many.to_bytes(&WriteOptions::new()),
        Snapshot::new().to_bytes(&WriteOptions::new()),
    ]
    .map(Result::unwrap)
    .into()
}

#[test]
fn the_same_bytes_arrive_and_the_engine_learns_the_tail() {
    for bytes in containers() {
        for mapped in [false, true] {
            let (mut taken, mut moved) = (Taken::default(), 0);
            open(&bytes, mapped).unwrap().inspect().copy_into(&mut taken, |piece| moved += piece).unwrap();
            assert!(taken.bytes == bytes);
            assert!(moved > 0 && moved < bytes.len() as u64, "header and footer are not told");
            assert!(taken.tail > 0 && bytes.len() - taken.tail >= 200, "the tail begins at {}", taken.tail);
        }
    }
}

#[test]
fn no_damaged_byte_passes() {
    let bytes = &containers()[1];
    let mut refused = 0;
    for at in (0..bytes.len()).step_by(97) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let mut taken = Taken::default();
        let copied =
            open(&flipped, false).and_then(|checkpoint| checkpoint.inspect().copy_into(&mut taken, |_| ()));
        assert!(copied.is_err(), "byte {at} passed");
        refused += 1;
    }
    assert!(refused > 1000);
}

fn save(engine: &Memory, value: f32) -> CheckpointId {
    let store = Store::open(engine.clone(), StoreOptions::new()).unwrap();
    let weights = [value; 3000];
    let snapshot = Snapshot::new().tensor("weights", &weights[..]).unwrap().progress(Progress::new(1));
    store.save(&snapshot).unwrap().id
}

#[test]
fn a_copy_is_made_once_and_never_over_something_else() {
    let (from, to, other) = (Memory::new(), Memory::new(), Memory::new());
    let name = save(&from, 1.0);
    let (from, target) = (Reader::new(from), Reader::new(to.clone()));
    let len = from.checkpoint_by_id(name).unwrap().inspect().byte_len();
    assert_eq!(from.copy_to(name, &target, |_| ()).unwrap(), CopyOutcome::Written(len));
    assert_eq!(from.copy_to(name, &target, |_| ()).unwrap(), CopyOutcome::AlreadyThere);
    save(&other, 2.0);
    let error = from.copy_to(name, &Reader::new(other.clone()), |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("0001-0000000001.tkeep"), "{error}");
    let theirs = Reader::new(other).checkpoint_by_id(name).unwrap();
    assert_eq!(theirs.tensor("weights").unwrap().elements::<f32>().unwrap()[0], 2.0);
    // An object without a checkpoint under a checkpoint's name is not a copy either.
    let junk = Memory::new();
    let mut upload = junk.create("0001-0000000001.tkeep", None).unwrap();
    upload.append(b"junk").unwrap();
    upload.commit([1; 16]).unwrap();
    let error = from.copy_to(name, &Reader::new(junk), |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
}

/// Memory that publishes other bytes than it was given.
#[derive(Debug)]
struct Swapping {
    inner: Memory,
    instead: Vec<u8>,
}

impl Decorator for Swapping {
    type Inner = Memory;

    fn inner(&self) -> &Memory {
        &self.inner
    }

    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        let mut upload = Engine::create(&self.inner, key, size_hint)?;
        upload.append(&self.instead)?;
        Ok(Box::new(Swapped(upload)))
    }
}

struct Swapped(Box<dyn Upload>);

impl Upload for Swapped {
    fn append(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn commit(self: Box<Self>, nonce: Nonce) -> Result<(), CommitError> {
        self.0.commit(nonce)
    }
}

#[test]
fn a_copy_that_arrives_changed_is_refused() {
    let (from, other) = (Memory::new(), Memory::new());
    let (name, theirs) = (save(&from, 1.0), save(&other, 2.0));
    let mut whole = Taken::default();
    Reader::new(other).checkpoint_by_id(theirs).unwrap().inspect().copy_into(&mut whole, |_| ()).unwrap();
    let cut = whole.bytes[..whole.bytes.len() - 1].to_vec();
    let from = Reader::new(from);
    for (what, instead) in [("another checkpoint", whole.bytes), ("a file cut short", cut)] {
        let target = Reader::new(Swapping { inner: Memory::new(), instead });
        let error = from.copy_to(name, &target, |_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{what}");
        assert!(error.to_string().contains("does not read back"), "{what}: {error}");
    }
}
