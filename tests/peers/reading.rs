//! Corrupt data that peers return.

use crate::{holding, save};
use std::sync::Arc;
use tensorkeep::engine::{Engine, Memory};
use tensorkeep::{Checkpoint, Codec, ErrorKind, Snapshot, Store, StoreOptions, Value, WriteOptions};
use test_support::build::{Container, dtype_id};
use test_support::{TempFolder, Zoo, open};

const FIRST: &str = "0001-0000000001.tkeep";
const SECOND: &str = "0001-0000000002.tkeep";

/// The bytes of a run of two checkpoints.
fn two_checkpoints() -> [Vec<u8>; 2] {
    let memory = Memory::new();
    let store = Store::open(memory.clone(), StoreOptions::new()).unwrap();
    for step in [1, 2] {
        save(&store, step, 0.5).unwrap();
    }
    [FIRST, SECOND].map(|key| memory.open(key).unwrap().as_bytes().unwrap().to_vec())
}

/// Positions that follow from a seed.
fn positions(seed: u64, below: usize) -> impl Iterator<Item = usize> {
    (0..).scan(seed, move |state, _: u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((*state >> 16) as usize % below)
    })
}

fn values(checkpoint: &Checkpoint) -> tensorkeep::Result<Vec<Vec<u8>>> {
    let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    names.iter().map(|name| Ok(checkpoint.tensor(name)?.bytes().to_vec())).collect()
}

/// torch, DCP, safetensors, GGUF, HDF5: 200 of 200 flipped bits are returned as data. Here: each is
/// an error or changes nothing, read, mapped, compressed, and through resume.
#[test]
fn p3_no_flipped_bit_is_returned_as_data() {
    let zoo = Zoo::new();
    let mut noticed = 0;
    for codec in [Codec::Raw, Codec::Balanced] {
        let right = zoo.snapshot().to_bytes(&WriteOptions::new().codec(codec)).unwrap();
        let expected = values(&open(&right, true).unwrap()).unwrap();
        for (flip, bit) in positions(3, right.len() * 8).take(200).enumerate() {
            let mut flipped = right.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match open(&flipped, flip % 2 == 0).and_then(|checkpoint| values(&checkpoint)) {
                Ok(values) => assert!(values == expected, "bit {bit} came through"),
                Err(error) => noticed += usize::from(error.kind() == ErrorKind::Damaged),
            }
        }
    }
    assert!(noticed > 300, "only {noticed} of 400 flips were noticed: too many hit nothing");
    let [first, second] = two_checkpoints();
    for bit in positions(4, second.len() * 8).take(200) {
        let mut flipped = second.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let store = Store::open(holding(&[(FIRST, &first), (SECOND, &flipped)]), StoreOptions::new());
        let resumed = store.unwrap().resume().unwrap();
        let step = resumed.next_step();
        assert_eq!(step + resumed.skipped.len() as u64, 2, "bit {bit}");
        let a = resumed.checkpoint.unwrap().tensor("a").unwrap().elements::<f32>().unwrap().to_vec();
        assert_eq!(a, vec![step as f32; 1000], "bit {bit}");
    }
}

/// Orbax: 40 of 40 flipped bits are restored silently, and a newest checkpoint that is damaged
/// raises although older ones are whole. Here: resume falls back past it, sets it aside, and
/// reports which, why and where it is.
#[test]
fn p4_resume_goes_back_past_damage_and_says_so() {
    let [first, second] = two_checkpoints();
    for position in positions(5, 4000).take(40) {
        let mut flipped = second.clone();
        flipped[4096 + position] ^= 1; // the 4,000 bytes of tensor "a"
        let engine = holding(&[(FIRST, &first), (SECOND, &flipped)]);
        let resumed = Store::open(Arc::clone(&engine), StoreOptions::new()).unwrap().resume().unwrap();
        let [skipped] = &resumed.skipped[..] else { panic!("{:?}", resumed.skipped) };
        assert_eq!((resumed.next_step(), skipped.id.step), (1, 2));
        assert_eq!((skipped.error.kind(), skipped.error.tensor()), (ErrorKind::Damaged, Some("a")));
        assert!(skipped.set_aside.as_ref().unwrap().as_ref().unwrap().contains("damaged/"), "{skipped:?}");
        assert_eq!(engine.list("damaged").unwrap().len(), 1, "moved, not deleted");
    }
}

/// safetensors, in a build with overflow checks: a header of 600 bytes with huge shapes panics.
/// Here: shapes are multiplied with checks, in our files and in theirs.
#[test]
fn p16_huge_shapes_are_refused_without_a_panic() {
    if cfg!(debug_assertions) {
        let overflows = std::panic::catch_unwind(|| std::hint::black_box(u64::MAX) + std::hint::black_box(1));
        assert!(overflows.is_err(), "this build would not notice an overflow");
    }
    for shape in [&[u64::MAX][..], &[1 << 32, 1 << 32], &[u64::MAX, 2, 0], &[1 << 63, 2], &[3; 64]] {
        for byte_len in [0, 8, u64::MAX] {
            let mut container = Container::new();
            container.unreadable("huge", dtype_id("f64"), shape, byte_len, &[]);
            let bytes = container.finish();
            let outcome = open(&bytes, true).and_then(|checkpoint| values(&checkpoint));
            // Zero elements in a huge shape are a valid tensor.
            assert!(outcome.is_err() || shape.contains(&0), "{shape:?}, {byte_len}");
        }
    }
}

#[cfg(feature = "convert")]
#[test]
fn p16_huge_shapes_in_a_header_are_refused_without_a_panic() {
    let folder = TempFolder::new("p16");
    let path = folder.path().join("huge.safetensors");
    for shape in ["18446744073709551615", "4294967296,4294967296", "9223372036854775807,2,2"] {
        let entry = format!(r#""dtype":"F64","shape":[{shape}],"data_offsets":[0,8]"#);
        let tensors: Vec<String> = (0..6).map(|number| format!(r#""t{number}":{{{entry}}}"#)).collect();
        let header = format!("{{{}}}", tensors.join(","));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes().chain([0; 8]));
        std::fs::write(&path, bytes).unwrap();
        tensorkeep::convert::Foreign::open(&path).map(drop).unwrap_err();
    }
}

#[cfg(feature = "convert")]
mod foreign {
    use std::io::Write;
    use tensorkeep::convert::Foreign;
    use test_support::TempFolder;

    /// DCP's `.metadata`, torch: a pickle, and a crafted file runs a command of the shell when it
    /// is loaded. Here: our own files hold no code, and of a foreign pickle nothing is ever called.
    #[test]
    fn p14_loading_runs_no_code() {
        let folder = TempFolder::new("p14");
        let (marker, path) = (folder.path().join("ran"), folder.path().join("evil.pt"));
        let command = format!("touch {}", marker.display());
        for module in ["posix\nsystem", "os\nsystem", "builtins\neval", "torch._utils\n_rebuild_tensor_v2"] {
            let mut pickle = format!("\x02c{module}\nX").into_bytes();
            pickle.insert(0, 0x80);
            pickle.extend((command.len() as u32).to_le_bytes());
            pickle.extend(command.bytes().chain(*b"\x85R."));
            let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
            let stored =
                zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            archive.start_file("a/data.pkl", stored).unwrap();
            archive.write_all(&pickle).unwrap();
            archive.finish().unwrap();
            if let Ok(foreign) = Foreign::open(&path) {
                assert!(foreign.tensors().is_empty() && !foreign.notes().is_empty(), "{module}");
            }
            assert!(!marker.exists(), "{module} was called");
        }
    }
}

/// torch's zip: a CRC-32 of every member is written, and never compared. Here: each byte's checksum
/// is compared, by default.
#[test]
fn p21_checksums_are_compared_and_not_only_written() {
    let [_, right] = two_checkpoints();
    for byte in (4096..8096).step_by(97) {
        let mut flipped = right.clone();
        flipped[byte] ^= 0x40;
        for mapped in [true, false] {
            let error = open(&flipped, mapped).unwrap().tensor("a").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "byte {byte}");
        }
    }
}

/// The name, first byte and length of every stored member of a zip archive.
#[cfg(feature = "convert")]
fn stored_members(path: &std::path::Path) -> Vec<(String, usize, usize)> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let count = archive.len();
    let member = |number| {
        let file = archive.by_index(number).unwrap();
        assert_eq!(file.compression(), zip::CompressionMethod::Stored);
        (file.name().unwrap().into_owned(), file.data_start().unwrap() as usize, file.size() as usize)
    };
    (0..count).map(member).collect()
}

/// The same for files of torch and NumPy, and for an archive larger than the read buffer: each
/// flipped byte of an array is an error that names file and member, read whole, read in pieces, and
/// imported.
#[cfg(feature = "convert")]
#[test]
fn p21_checksums_of_foreign_zip_archives_are_compared() {
    let folder = TempFolder::new("p21");
    let made = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/convert");
    let large = folder.path().join("large.npz");
    let values: Vec<f64> = (0..300_000).map(f64::from).collect();
    let snapshot = Snapshot::new().tensor("values", &values).unwrap();
    let checkpoint = open(&snapshot.to_bytes(&WriteOptions::new()).unwrap(), true).unwrap();
    tensorkeep::convert::export(&checkpoint, &large, tensorkeep::convert::Format::Npz).unwrap();
    let (pt, npz) = (made.join("state_dict.pt"), made.join("stored.npz"));
    assert!(flips_noticed(&pt, &folder.path().join("a.pt"), "state_dict/data/", 5) > 15);
    assert!(flips_noticed(&large, &folder.path().join("b.npz"), "", 300_007) > 7);
    // So small that the whole member is read, and compared, with its header.
    assert_eq!(flips_noticed(&npz, &folder.path().join("c.npz"), "", 50), 0);
}

/// Flips each `stride`th byte of an archive's arrays: reading fails. Returns how often the error
/// had both expected and found.
#[cfg(feature = "convert")]
fn flips_noticed(right: &std::path::Path, path: &std::path::Path, arrays: &str, stride: usize) -> usize {
    use tensorkeep::convert::Foreign;
    let (bytes, mut noticed) = (std::fs::read(right).unwrap(), 0);
    for (member, start, len) in stored_members(right).iter().filter(|member| member.0.starts_with(arrays)) {
        for byte in (*start..start + len).rev().step_by(stride) {
            let mut flipped = bytes.clone();
            flipped[byte] ^= 0x40;
            std::fs::write(path, flipped).unwrap();
            let foreign = match Foreign::open(path) {
                Ok(foreign) => foreign,
                Err(error) => {
                    assert!(error.kind() == ErrorKind::Damaged, "{member}, byte {byte}: {error:?}");
                    continue;
                }
            };
            let names: Vec<&str> = foreign.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
            let whole: Vec<_> = names.iter().filter_map(|name| foreign.tensor(name).err()).collect();
            let again = Foreign::open(path).unwrap();
            let visited = |name: &&str| {
                again
                    .visit_chunks_with(
                        name,
                        0..1,
                        &mut tensorkeep::inspect::Scratch::default(),
                        |_, _| Ok(()),
                    )
                    .err()
            };
            let pieces: Vec<_> = names.iter().filter_map(visited).collect();
            assert!(!whole.is_empty() && whole.len() == pieces.len(), "{member}, byte {byte} came through");
            for error in whole.iter().chain(&pieces) {
                let text = format!("{error:?}");
                assert_eq!(error.kind(), ErrorKind::Damaged, "{text}");
                assert!(text.contains(member) && text.contains(&path.display().to_string()), "{text}");
                noticed += usize::from(text.contains("expected ") && text.contains(", found "));
            }
            again.snapshot().unwrap().to_bytes(&WriteOptions::new()).unwrap_err();
        }
    }
    noticed
}

/// rmp-serde by itself: 1,024 nested lists overflow a stack of 2 MiB, and trailing bytes and
/// duplicate keys pass. Here: the bytes are checked first, without recursion.
#[test]
fn p22_depth_bombs_and_duplicate_keys_are_refused() {
    let mut bomb = vec![0x91; 1 << 20];
    bomb.push(0xC0);
    let duplicate = [&[0x82][..], b"\xA1a\x01", b"\xA1a\x02"].concat();
    let trailing = vec![0x01, 0x02];
    for (what, bytes) in [("a depth bomb", bomb), ("duplicate keys", duplicate), ("trailing bytes", trailing)]
    {
        let mut container = Container::new();
        container.record("hostile", &bytes, serde_json::Value::Null);
        let file = container.finish();
        // On a thread with a small stack, as the peer's was.
        let small = std::thread::Builder::new().stack_size(512 << 10);
        let kinds = small.spawn(move || {
            let checkpoint = open(&file, true).unwrap();
            [
                checkpoint.inspect().record_value("hostile").map(drop).unwrap_err().kind(),
                checkpoint.record::<Value>("hostile").map(drop).unwrap_err().kind(),
            ]
        });
        assert_eq!(kinds.unwrap().join().unwrap(), [ErrorKind::Damaged; 2], "{what}");
    }
}
