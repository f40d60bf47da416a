//! Malicious files and folders: bombs, pipes, links; and a mapped file that is truncated. Lies with
//! valid checksums are in `resealed.rs`, one file per rule of SPEC.md is in `corpus.rs`.
#![expect(unsafe_code, reason = "a mapping whose promise is broken on purpose")]

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use tensorkeep::engine::{Engine, Local};
use tensorkeep::{Checkpoint, ErrorKind, Keep, OpenOptions, Progress, Reader, Snapshot, Store, StoreOptions};
use test_support::build::{self, Container, Stored, dtype_id};
use test_support::counting::{Counting, peak_of};
use test_support::{TempFolder, edits, ends_in_time, reseal, save};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: usize = 1 << 20;

fn write(folder: &TempFolder, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.path().join("hostile.tkeep");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_frame_that_inflates_to_256_mib_takes_one_chunk_of_memory() {
    let bomb = zstd::bulk::compress(&vec![0; 256 * MIB], 3).unwrap();
    assert!(bomb.len() < 65536, "the frame must look as if it saved something");
    let mut container = Container::new();
    let chunk = Stored { codec: 1, filter: 0, bytes: bomb };
    container.unreadable("bomb", dtype_id("u8"), &[65536], 65536, &[chunk]);
    let folder = TempFolder::new("bomb");
    let path = write(&folder, &container.finish());
    let (outcome, peak) = peak_of(|| Checkpoint::open(&path).unwrap().tensor("bomb").map(drop));
    let error = outcome.unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("bomb")), "{error}");
    assert!(peak < 2 * MIB, "{peak} bytes were held");
}

#[test]
fn a_plane_that_inflates_to_256_mib_takes_one_chunk_of_memory() {
    let bomb = zstd::bulk::compress(&vec![0; 256 * MIB], 3).unwrap();
    let raw: Vec<u8> = (0..MIB as u32).map(|i| (i.wrapping_mul(0x9E37_79B1) >> 24) as u8).collect();
    let planes = build::float_planes(&raw, 4, |plane, _| (plane == 2).then(|| bomb.clone()));
    let mut container = Container::new();
    let chunk = Stored { codec: 4, filter: 0, bytes: planes };
    container.unreadable("bomb", dtype_id("f32"), &[MIB as u64 / 4], MIB as u64, &[chunk]);
    let folder = TempFolder::new("bomb-plane");
    let path = write(&folder, &container.finish());
    let (outcome, peak) = peak_of(|| Checkpoint::open(&path).unwrap().tensor("bomb").map(drop));
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Damaged);
    assert!(peak < 4 * MIB, "{peak} bytes were held");
}

#[test]
fn a_small_file_of_a_huge_tensor_takes_no_more_than_the_budget() {
    let chunk = Stored { codec: 2, filter: 0, bytes: vec![7] };
    let mut container = Container::new();
    container.unreadable("huge", dtype_id("u8"), &[1 << 34], 1 << 34, &vec![chunk; 1 << 14]);
    let bytes = container.finish();
    assert!(bytes.len() < MIB, "{} bytes", bytes.len());
    let folder = TempFolder::new("fill-bomb");
    let path = write(&folder, &bytes);
    let options = OpenOptions::new().budget(64 * MIB as u64);
    let (outcome, peak) = peak_of(|| {
        let checkpoint = options.open(&path).unwrap();
        checkpoint.tensor("huge").map(drop)
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert!(peak < 8 * bytes.len() + MIB, "{peak} bytes were held for a file of {}", bytes.len());
}

/// A container of one record, in one zstd frame.
fn of_record(record: &[u8]) -> Vec<u8> {
    let mut container = Container::new();
    container.tensor_in("r", "opaque", &[record.len() as u64], record, 26, |chunk| Stored {
        codec: 1,
        filter: 0,
        bytes: zstd::bulk::compress(chunk, 3).unwrap(),
    });
    std::mem::swap(&mut container.tensors, &mut container.records);
    container.finish()
}

fn list(item: &[u8], count: u32) -> Vec<u8> {
    [&[0xDD][..], &count.to_be_bytes(), &item.repeat(count as usize)].concat()
}

#[test]
fn a_record_that_unfolds_to_gigabytes_is_refused_in_its_bytes() {
    // [R102] [R138] [R142]
    let bytes = of_record(&list(&[0x90], (64 << 20) - 5));
    assert!(bytes.len() < 10_000, "{} bytes", bytes.len());
    let folder = TempFolder::new("unfolds");
    let path = write(&folder, &bytes);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let (outcome, peak) = peak_of(|| checkpoint.inspect().record_value("r").map(drop));
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    assert!(peak < 66 * MIB, "{peak} bytes were held to show it");
    // It is valid, and verifying it builds no tree.
    let (outcome, peak) = peak_of(|| checkpoint.verify().map(drop));
    outcome.unwrap();
    assert!(peak < 68 * MIB, "{peak} bytes were held to verify it");
}

#[test]
fn a_map_of_millions_of_keys_is_checked_in_about_its_bytes() {
    // [R82] [R142]
    let count = 2_000_000_u32;
    let mut record = [&[0xDF][..], &count.to_be_bytes()].concat();
    // In no order, each once: an odd factor.
    let keys = (0..count).map(|i| i.wrapping_mul(0x9E37_79B1).to_be_bytes());
    for key in keys {
        record.extend([0xCE, key[0], key[1], key[2], key[3], 0xC0]);
    }
    for twice in [false, true] {
        if twice {
            record.copy_within(5..10, 5 + 6 * 1_234_567);
        }
        let folder = TempFolder::new("keys");
        let checkpoint = Checkpoint::open(write(&folder, &of_record(&record))).unwrap();
        let (report, peak) = peak_of(|| checkpoint.inspect().verify_all().unwrap());
        let seen = report.damage.iter().any(|error| error.to_string().contains("stands twice"));
        assert_eq!((report.damage.len(), seen), (usize::from(twice), twice), "{report:?}");
        assert!(peak < 4 * record.len(), "{peak} bytes were held for {}", record.len());
    }
}

#[test]
fn a_tree_takes_no_more_than_was_reckoned_and_honest_ones_pass() {
    // [R137] [R139]
    let text = |len: u32| [&[0xDB][..], &len.to_be_bytes(), &vec![b'x'; len as usize]].concat();
    let map = [0x81, 0xA1, b'a', 0xC0];
    let float = [0xCB, 0x3F, 0xF0, 0, 0, 0, 0, 0, 0];
    let folder = TempFolder::new("trees");
    for (what, record, values, keys, maps) in [
        ("empty lists", list(&[0x90], 1 << 16), 1 << 16, 0, 0),
        ("floats", list(&float, 1 << 20), 1 << 20, 0, 0),
        ("maps of one pair", list(&map, 1 << 15), 3 << 15, 1 << 15, 1 << 15),
        ("text", text((64 << 20) - 5), 0, 0, 0),
        ("short text", list(&[0xA1, b'x'], 1 << 16), 1 << 16, 0, 0),
    ] {
        let checkpoint = Checkpoint::open(write(&folder, &of_record(&record))).unwrap();
        let unfolded = record.len() + 64 * (1 + values + keys) + 640 * maps;
        let (value, peak) = peak_of(|| checkpoint.inspect().record_value("r").unwrap());
        assert!(peak < unfolded + record.len() + MIB, "{what}: {peak} bytes held, {unfolded} reckoned");
        drop(value);
    }
}

#[test]
fn verifying_trusts_nothing_that_was_verified_before() {
    let folder = TempFolder::new("again");
    let path = folder.path().join("again.tkeep");
    let weights = vec![1.5_f32; 100_000];
    let snapshot = Snapshot::new().tensor("weight", &weights).unwrap().record("r", &7).unwrap();
    snapshot.save(&path).unwrap();
    // SAFETY: none. The promise is broken by one byte in place, as by a bad disk.
    let checkpoint = unsafe { Checkpoint::map(&path) }.unwrap();
    checkpoint.verify().unwrap();
    checkpoint.tensor("weight").unwrap();
    let offset = checkpoint.info("weight").unwrap().offset;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xA5], offset + 77).unwrap();
    let error = checkpoint.verify().unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::Damaged, Some("weight")));
    assert_eq!(checkpoint.inspect().verify_all().unwrap().damage.len(), 1);
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_pipe_where_a_file_should_be_is_refused_and_not_waited_for() {
    let folder = TempFolder::new("pipe");
    let path = folder.path().join("0001-0000000001.tkeep");
    pipe(&path);
    let error = ends_in_time("opening a pipe", {
        let path = path.clone();
        move || Checkpoint::open(path).map(drop).unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let error = ends_in_time("opening a device", || Checkpoint::open("/dev/zero").map(drop).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[test]
fn foreign_entries_with_a_checkpoints_name_are_left_alone() {
    let folder = TempFolder::new("names");
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let precious = folder.path().join("precious");
    std::fs::write(&precious, b"precious").unwrap();
    pipe(&run.join("0001-0000000001.tkeep"));
    std::os::unix::fs::symlink(&precious, run.join("0001-0000000002.tkeep")).unwrap();
    std::os::unix::fs::symlink(&precious, run.join(".tmp-link")).unwrap();
    std::os::unix::fs::symlink("/", run.join("attempts-of-others")).unwrap();
    std::fs::create_dir(run.join("0001-0000000003.tkeep")).unwrap();
    let names = ends_in_time("listing", move || {
        let store =
            Store::open(Local::create(&run).unwrap(), StoreOptions::new().keep(Keep::last(1))).unwrap();
        // A link stands for its file: this one is a checkpoint that does not verify. The link is
        // set aside.
        assert_eq!(store.resume().unwrap_err().kind(), ErrorKind::Damaged);
        store.start_over();
        save(&store, 10).unwrap();
        save(&store, 20).unwrap();
        store.list().unwrap().into_iter().map(|info| info.id.step).collect::<Vec<_>>()
    });
    assert_eq!(names, [20]);
    assert_eq!(std::fs::read(precious).unwrap(), b"precious");
}

// Unpacking an archive can create links: a lock file that is one must not empty its target.
#[test]
fn a_lock_file_that_is_a_link_is_refused() {
    let folder = TempFolder::new("lock-link");
    let (run, precious) = (folder.path().join("run"), folder.path().join("precious"));
    std::fs::create_dir(&run).unwrap();
    std::fs::write(&precious, b"precious").unwrap();
    std::os::unix::fs::symlink(&precious, run.join("LOCK")).unwrap();
    let error = Store::open(Local::create(&run).unwrap(), StoreOptions::new()).unwrap_err();
    assert_eq!(std::fs::read(precious).unwrap(), b"precious");
    assert!(error.to_string().contains("LOCK"), "{error}");
}

const CHILD: &str = "TENSORKEEP_TRUNCATED_MAP";

/// The reader of a file that is truncated meanwhile; returns at once when not started as one.
#[test]
fn child_whose_file_is_cut() {
    let Some(file) = std::env::var_os(CHILD) else { return };
    let mapped = std::env::var_os("TENSORKEEP_MAPPED").is_some();
    let path = Path::new(&file);
    let checkpoint = if mapped {
        // SAFETY: none. The promise is broken, in a process of its own, to check its documented
        // consequence.
        unsafe { Checkpoint::map(path) }.unwrap()
    } else {
        Checkpoint::open(path).unwrap()
    };
    writeln!(std::io::stderr(), "@open").unwrap();
    std::io::stdin().read_exact(&mut [0]).unwrap();
    match checkpoint.tensor("weight") {
        Err(error) if error.kind() == ErrorKind::Damaged => std::process::exit(33),
        outcome => panic!("{outcome:?}"),
    }
}

fn cut_while_open(mapped: bool) -> std::process::ExitStatus {
    let folder = TempFolder::new("cut");
    let path = folder.path().join("cut.tkeep");
    let weights = vec![1.5_f32; 100_000];
    let snapshot = Snapshot::new().tensor("weight", &weights).unwrap();
    snapshot.save(&path).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_whose_file_is_cut", "--nocapture"]).env(CHILD, &path);
    if mapped {
        command.env("TENSORKEEP_MAPPED", "1");
    }
    command.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stderr.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    child.wait().unwrap()
}

// As documented by `MmapPromise`.
#[test]
fn truncating_a_mapped_file_kills_and_a_read_one_errs() {
    const SIGBUS: i32 = 7;
    // On a network file system temporary files are not mapped.
    if Local::create(std::env::temp_dir()).unwrap().caps().map {
        assert_eq!(cut_while_open(true).signal(), Some(SIGBUS));
    }
    assert_eq!(cut_while_open(false).code(), Some(33));
}

/// What a checkpoint says of its run's history may be a lie; training goes on beside it.
#[test]
fn a_run_goes_on_from_any_history() {
    let template = edits::history_template();
    let seeds = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/history"));
    let mut resumed = 0;
    for seed in std::fs::read_dir(seeds).unwrap() {
        let seed = seed.unwrap().path();
        let run = TempFolder::new("any-history");
        let container = reseal::with_record(&template, &std::fs::read(&seed).unwrap());
        std::fs::write(run.path().join("0001-0000000001.tkeep"), container).unwrap();
        let store = Store::open(run.path(), StoreOptions::new()).unwrap();
        resumed += usize::from(store.resume().is_ok_and(|resumed| resumed.checkpoint.is_some()));
        for step in 2..=3 {
            let progress = Progress::new(step);
            store.log(&progress, [("loss", 0.5)]);
            store.save(&Snapshot::new().progress(progress)).unwrap();
        }
        store.close().unwrap();
        let history = Reader::open(run.path()).unwrap().history().unwrap();
        let last = history.metrics["loss"].last().map(|point| (point.step, point.value));
        assert_eq!(last, Some((3, 0.5)), "{}", seed.display());
    }
    assert!(resumed >= 8, "{resumed} were resumed from");
}
