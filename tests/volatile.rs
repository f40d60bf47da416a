//! Sources whose bytes change while they are saved: each byte is read once, and the file holds the
//! bytes read, and verifies.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use tensorkeep::engine::Memory;
use tensorkeep::{
    Checkpoint, Codec, Dtype, Error, ErrorKind, IntoTensorSource as _, LazyTensor, Progress, Snapshot, Store,
    StoreOptions, Tensor, WriteOptions, snapshot::Volatile,
};
use test_support::wave;

/// A tensor whose bytes are the number of the read, repeated.
#[derive(Default)]
struct Changing {
    reads: AtomicU64,
    ranges: Mutex<Vec<Range<usize>>>,
}

impl Changing {
    fn source(self: &Arc<Self>, len: usize) -> Volatile<'static> {
        let this = Arc::clone(self);
        Volatile::new(Dtype::U64, &[len / 8], move |offset, buffer| {
            let number = this.reads.fetch_add(1, Relaxed) + 1;
            this.ranges.lock().unwrap().push(offset..offset + buffer.len());
            for element in buffer.chunks_exact_mut(8) {
                element.copy_from_slice(&number.to_le_bytes());
            }
            Ok(())
        })
    }

    /// The ranges read since the last call; each byte once and whole elements.
    fn take_reads(&self, len: usize) -> Vec<Range<usize>> {
        let mut ranges = std::mem::take(&mut *self.ranges.lock().unwrap());
        ranges.sort_by_key(|range| range.start);
        let end = ranges.iter().fold(0, |end, range| {
            assert_eq!((range.start, range.len() % 8), (end, 0), "{ranges:?}");
            range.end
        });
        assert_eq!(end, len);
        ranges
    }
}

fn verified(bytes: &[u8]) -> Checkpoint {
    let checkpoint = Checkpoint::from_bytes(bytes).unwrap();
    checkpoint.verify().unwrap();
    checkpoint
}

#[test]
fn a_source_that_changes_is_read_once_per_chunk_and_verifies() {
    const LEN: usize = (5 << 16) + 8;
    let changing = Arc::new(Changing::default());
    let mut snapshot = Snapshot::new();
    let source = changing.source(LEN).into_source().unwrap();
    snapshot =
        snapshot.tensor("a", source.clone()).unwrap().tensor("b", source).unwrap().alias("c", "b").unwrap();
    for codec in [Codec::Raw, Codec::Balanced, Codec::Max] {
        for workers in [1, 3] {
            let options = WriteOptions::new().codec(codec).workers(workers).chunk_log2(16);
            let checkpoint = verified(&snapshot.to_bytes(&options).unwrap());
            let reads = changing.take_reads(LEN);
            assert_eq!(reads.len(), 6, "{codec:?} {workers}");
            let tensor = checkpoint.tensor("c").unwrap();
            assert_eq!(checkpoint.info("c").unwrap().alias_of, Some("a"));
            let read = reads.into_iter().map(|range| {
                let elements = &tensor.elements::<u64>().unwrap()[range.start / 8..range.end / 8];
                assert!(elements.iter().all(|element| *element == elements[0]), "one read per chunk");
                elements[0]
            });
            assert_eq!(read.collect::<BTreeSet<_>>().len(), 6);
        }
    }
}

#[test]
fn staging_copies_a_source_that_changes_once() {
    // Below and above the length that one thread copies.
    for len in [1 << 16, (9 << 20) + 24] {
        let changing = Arc::new(Changing::default());
        let store = Store::open(Memory::new(), StoreOptions::new()).unwrap();
        let mut snapshot = Snapshot::new().tensor("before", &[1_u8, 2, 3][..]).unwrap();
        snapshot =
            snapshot.tensor("changing", changing.source(len)).unwrap().alias("tied", "changing").unwrap();
        let pending = store.stage(&snapshot.progress(Progress::new(1))).unwrap().unwrap();
        let reads = changing.take_reads(len);
        assert!(reads.len() <= 2, "{reads:?}");
        pending.wait().unwrap();
        assert_eq!(*changing.ranges.lock().unwrap(), [], "read again behind stage");
        let checkpoint = store.latest().unwrap().unwrap();
        checkpoint.verify().unwrap();
        let tensor = checkpoint.tensor("tied").unwrap();
        for range in reads {
            let elements = &tensor.elements::<u64>().unwrap()[range.start / 8..range.end / 8];
            assert!(elements.iter().all(|element| *element == elements[0]));
        }
    }
}

#[test]
fn a_volatile_tensor_becomes_the_bytes_of_a_lent_one() {
    let weights = wave(100_000);
    let raw: &[u8] = bytemuck::cast_slice(&weights);
    let mut lent = Snapshot::new().tensor("w", &weights).unwrap().tensor("tied", &weights).unwrap();
    lent = lent
        .tensor("deferred", LazyTensor::new(Dtype::F32, &[3], || Tensor::from_elements(&[3], &[1.0_f32; 3])))
        .unwrap();
    lent = lent.record("r", &vec![1; 100]).unwrap();
    let mut copied = Snapshot::new();
    let fill = |offset: usize, buffer: &mut [u8]| {
        buffer.copy_from_slice(&raw[offset..][..buffer.len()]);
        Ok(())
    };
    let source = Volatile::new(Dtype::F32, &[100_000], fill).into_source().unwrap();
    assert_eq!(source.produce().unwrap().bytes(), raw);
    copied = copied.tensor("w", source).unwrap().alias("tied", "w").unwrap();
    copied = copied
        .tensor(
            "deferred",
            Volatile::new(Dtype::F32, &[3], |_, to| {
                to.copy_from_slice(bytemuck::cast_slice(&[1.0_f32; 3]));
                Ok(())
            }),
        )
        .unwrap();
    copied = copied.record("r", &vec![1; 100]).unwrap();
    for options in [WriteOptions::new(), WriteOptions::new().codec(Codec::Balanced).chunk_log2(16)] {
        let expected = lent.to_bytes(&options).unwrap();
        // The stored name of aliases is the first one, in any order of aliasing.
        assert_eq!(copied.to_bytes(&options).unwrap().len(), expected.len());
        let both = [verified(&expected), verified(&copied.to_bytes(&options).unwrap())];
        for name in ["w", "tied", "deferred"] {
            assert_eq!(both[0].tensor(name).unwrap().bytes(), both[1].tensor(name).unwrap().bytes());
        }
        lent = lent.volatile();
        assert!(lent.to_bytes(&options).unwrap() == expected, "a volatile snapshot has other bytes");
    }
}

/// Ends the thread that trains on, also when a test fails.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_thread_that_trains_on_leaves_every_file_whole() {
    const COUNT: usize = 60_000;
    let weights: Arc<Vec<AtomicU32>> = Arc::new((0..COUNT).map(|_| AtomicU32::new(0)).collect());
    let lent = Arc::clone(&weights);
    let fill = move |offset: usize, buffer: &mut [u8]| {
        for (bytes, weight) in buffer.chunks_exact_mut(4).zip(&lent[offset / 4..]) {
            bytes.copy_from_slice(&weight.load(Relaxed).to_le_bytes());
        }
        Ok(())
    };
    let snapshot = Snapshot::new().tensor("w", Volatile::new(Dtype::U32, &[COUNT], fill)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut step = 0;
            while !stop.load(Relaxed) {
                step += 1;
                for weight in weights.iter() {
                    weight.store(step, Relaxed);
                }
            }
        });
        let _stop = Stop(&stop);
        let mut seen = BTreeSet::new();
        for round in 0..200 {
            let codec = if round % 2 == 0 { Codec::Raw } else { Codec::Balanced };
            let options = WriteOptions::new().codec(codec).chunk_log2(16).workers(1 + round % 3);
            let checkpoint = verified(&snapshot.to_bytes(&options).unwrap());
            seen.extend(checkpoint.tensor("w").unwrap().elements::<u32>().unwrap().iter().copied());
        }
        assert!(seen.len() > 10, "the thread raced with nothing: {seen:?}");
    });
}

#[test]
fn the_error_of_a_source_is_that_of_save_and_stage() {
    let mut snapshot = Snapshot::new();
    let fill = |_: usize, _: &mut [u8]| Err(Error::new(ErrorKind::Invalid, "the device is gone"));
    snapshot =
        snapshot.tensor("w", Volatile::new(Dtype::F32, &[40_000], fill)).unwrap().progress(Progress::new(1));
    let store = Store::open(Memory::new(), StoreOptions::new()).unwrap();
    for error in [
        snapshot.to_bytes(&WriteOptions::new()).unwrap_err(),
        snapshot.to_bytes(&WriteOptions::new().codec(Codec::Balanced).workers(2)).unwrap_err(),
        store.stage(&snapshot).map(drop).unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Invalid, Some("w")));
        assert!(error.to_string().contains("the device is gone"), "{error}");
    }
    assert!(store.latest().unwrap().is_none());
    let overflows = Volatile::new(Dtype::F32, &[usize::MAX, 2], |_, _| Ok(()));
    assert_eq!(overflows.into_source().map(drop).unwrap_err().kind(), ErrorKind::Invalid);
}

/// Bytes that differ at every read, and are once too few.
struct Unsteady {
    looks: AtomicU64,
    few_from: u64,
    bytes: [Vec<u8>; 2],
}

impl AsRef<[u8]> for Unsteady {
    fn as_ref(&self) -> &[u8] {
        match self.looks.fetch_add(1, Relaxed) {
            look if look >= self.few_from => &self.bytes[0][..10],
            look => &self.bytes[look as usize % 2],
        }
    }
}

#[test]
fn shared_bytes_that_become_others_or_fewer_damage_no_file() {
    const LEN: usize = 3 << 16;
    let unsteady = |few_from| -> Arc<Unsteady> {
        Arc::new(Unsteady { looks: AtomicU64::new(0), few_from, bytes: [vec![1; LEN], vec![2; LEN]] })
    };
    for volatile in [false, true] {
        for codec in [Codec::Raw, Codec::Balanced] {
            let options = WriteOptions::new().codec(codec).chunk_log2(16).workers(2);
            // The tensor is created at the first read.
            for few_from in [1, 2, 3, 4, u64::MAX] {
                let tensor = Tensor::shared(Dtype::U8, &[LEN], unsteady(few_from)).unwrap();
                let mut snapshot = Snapshot::new().tensor("w", tensor).unwrap();
                if volatile {
                    snapshot = snapshot.volatile();
                }
                match snapshot.to_bytes(&options) {
                    Ok(bytes) => {
                        let checkpoint = verified(&bytes);
                        let tensor = checkpoint.tensor("w").unwrap();
                        for chunk in tensor.bytes().chunks(1 << 16) {
                            assert!(chunk.iter().all(|byte| *byte == chunk[0]));
                        }
                    }
                    Err(error) => {
                        assert!(few_from <= 3, "{error}");
                        assert_eq!((error.kind(), error.tensor()), (ErrorKind::Invalid, Some("w")));
                    }
                }
            }
        }
    }
}
