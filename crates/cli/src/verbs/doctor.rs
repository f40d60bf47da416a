//! `doctor RUN`: what the file system under a folder can do, or the store at a URL, and what
//! durability costs there. Works in a folder of its own inside it, which is gone afterwards.

mod network;

use crate::answer::{Answer, Text};
use crate::exit::Exit;
use crate::place::Place;
use crate::{Done, output};
use rustix::fs::{Advice, fadvise, statfs};
use serde_json::{Value as Json, json};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tensorkeep::engine::{Engine, Local, fresh_nonce, network_file_system};
use tensorkeep::{Checkpoint, Error, ErrorKind, Result, Snapshot};

/// Syncs measured; the median is told.
const SYNCS: usize = 15;
/// Bytes read and written for the speeds.
const SPEED_BYTES: usize = 64 << 20;

const TMPFS: u32 = 0x0102_1994;

/// Local kinds by their magic number, from `linux/magic.h` and the file systems' own headers.
const LOCAL: [(u32, &str); 7] = [
    (0xEF53, "ext2, ext3 or ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (TMPFS, "tmpfs: nothing survives a power cut"),
    (0x794C_7630, "overlayfs"),
    (0x2FC1_2FC1, "zfs"),
    (0xF2F5_2010, "f2fs"),
];

/// The name of a kind, and whether other machines can change files behind this one's back.
fn kind(magic: u32) -> (String, bool) {
    if let Some(name) = network_file_system(magic) {
        return (name.to_owned(), true);
    }
    let known = LOCAL.iter().find(|(known, _)| *known == magic).map(|(_, name)| (*name).to_owned());
    (known.unwrap_or_else(|| format!("unknown ({magic:#x})")), false)
}

/// Removed with what is in it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One finding: what, the answer, and whether it is fine.
struct Finding {
    what: &'static str,
    answer: String,
    fine: bool,
}

impl Finding {
    fn yes(what: &'static str, answer: bool) -> Self {
        Self { what, answer: if answer { "yes" } else { "no" }.to_owned(), fine: answer }
    }
}

/// All that was found out about a folder or a URL.
pub struct Diagnosis<'a> {
    target: &'a str,
    findings: Vec<Finding>,
}

pub fn run(target: &str) -> Result<Diagnosis<'_>> {
    let place = Place::new(target);
    let findings = match place.folder() {
        Some(folder) => of_folder(folder)?,
        None => network::findings(&place)?,
    };
    Ok(Diagnosis { target, findings })
}

impl Diagnosis<'_> {
    fn is_fine(&self) -> bool {
        self.findings.iter().all(|finding| finding.fine)
    }

    /// The last line: whether runs can be kept there.
    fn verdict(&self) -> String {
        let wrong = self.findings.iter().filter(|finding| !finding.fine);
        let wrong: Vec<&str> = wrong.map(|finding| finding.what).collect();
        match wrong.as_slice() {
            [] => format!("{}: fine for runs", self.target),
            wrong => format!("{}: look at {} before you keep runs here", self.target, wrong.join(", ")),
        }
    }
}

impl Answer for Diagnosis<'_> {
    fn schema(&self) -> &'static str {
        "doctor"
    }

    fn json(&self) -> Json {
        let of = |finding: &Finding| json!({ "what": finding.what, "answer": finding.answer, "fine": finding.fine });
        let findings: Vec<Json> = self.findings.iter().map(of).collect();
        json!({ "dir": self.target, "fine": self.is_fine(), "findings": findings })
    }

    fn text(&self) -> Result<Text<'_>> {
        let rows = self.findings.iter().map(|finding| {
            let mark = if finding.fine { "" } else { "← look here" };
            vec![finding.what.to_owned(), finding.answer.clone(), mark.to_owned()]
        });
        Ok(Text::of(output::table(&["what", "answer", ""], &[], rows)).summary(self.verdict()))
    }

    fn end(self: Box<Self>) -> Done {
        Ok(if self.is_fine() { Exit::Ok } else { Exit::No })
    }
}

fn of_folder(dir: &Path) -> Result<Vec<Finding>> {
    if !dir.is_dir() {
        return Err(Error::new(ErrorKind::NotFound, "no such folder").in_object(dir.display()));
    }
    let scratch =
        Scratch(dir.join(format!(".tensorkeep-doctor-{:032x}", u128::from_le_bytes(fresh_nonce()))));
    fs::create_dir(&scratch.0)
        .map_err(|error| Error::io("creating a folder", error).in_object(dir.display()))?;
    findings(dir, &scratch.0).map_err(|error| error.in_object(dir.display()))
}

fn findings(dir: &Path, scratch: &Path) -> Result<Vec<Finding>> {
    let mut findings = file_system(dir)?;
    let engine = Local::create(scratch)?;
    let caps = engine.caps();
    findings.push(Finding::yes("a name is never published twice (renameat2 or link)", caps.create_only));
    findings.push(Finding::yes("rename", fs_works(scratch, |a, b| fs::rename(a, b))));
    findings.push(Finding::yes("hard link", fs_works(scratch, |a, b| fs::hard_link(a, b))));
    findings.push(Finding::yes("locks exclude each other", locks(scratch)?));
    findings.push(Finding::yes("files can be mapped", caps.map));
    findings.extend(syncs(scratch).map_err(|error| Error::io("measuring fsync", error))?);
    findings.extend(speeds(scratch).map_err(|error| Error::io("measuring speeds", error))?);
    findings.extend(loads(scratch)?);
    Ok(findings)
}

fn file_system(dir: &Path) -> Result<Vec<Finding>> {
    let stat = statfs(dir).map_err(|error| Error::io("asking for the kind of file system", error.into()))?;
    // OK to cast: the field's type differs between targets, its value is a u32.
    let magic = stat.f_type as u32;
    let (kind, network) = kind(magic);
    let volatile = magic == TMPFS;
    let (free, all) = (stat.f_bavail * stat.f_bsize as u64, stat.f_blocks * stat.f_bsize as u64);
    let space = format!("{} of {}", output::size(free), output::size(all));
    let enough = free > all / 20;
    let inodes = format!("{} of {}", stat.f_ffree, stat.f_files);
    Ok(vec![
        Finding { what: "file system", answer: kind, fine: !volatile },
        Finding {
            what: "shared over a network",
            answer: if network { "yes: open for reading, do not map" } else { "no" }.to_owned(),
            fine: !network,
        },
        Finding { what: "free space", answer: space, fine: enough },
        Finding { what: "free inodes", answer: inodes, fine: stat.f_files == 0 || stat.f_ffree > 1000 },
    ])
}

fn fs_works(scratch: &Path, call: impl Fn(&Path, &Path) -> std::io::Result<()>) -> bool {
    let (a, b) = (scratch.join("a"), scratch.join("b"));
    let worked =
        fs::write(&a, b"x").is_ok() && call(&a, &b).is_ok() && fs::read(&b).is_ok_and(|bytes| bytes == b"x");
    let _ = (fs::remove_file(&a), fs::remove_file(&b));
    worked
}

fn locks(scratch: &Path) -> Result<bool> {
    let (one, two) = (Local::open(scratch)?, Local::open(scratch)?);
    let held = one.lock("doctor")?;
    let excluded = two.lock("doctor").is_err_and(|error| error.kind() == ErrorKind::Locked);
    drop(held);
    Ok(excluded && two.lock("doctor").is_ok())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn syncs(scratch: &Path) -> std::io::Result<Vec<Finding>> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    let folder = File::open(scratch)?;
    for i in 0..SYNCS {
        let path = scratch.join(format!("sync-{i}"));
        let mut file = File::create(&path)?;
        file.write_all(&[7; 4096])?;
        let start = Instant::now();
        file.sync_all()?;
        files.push(start.elapsed());
        let start = Instant::now();
        folder.sync_all()?;
        folders.push(start.elapsed());
        fs::remove_file(&path)?;
    }
    let cost = |what, times| {
        let median: Duration = median(times);
        let answer = format!("{:.2} ms (median of {SYNCS})", median.as_secs_f64() * 1e3);
        // A disk needs microseconds at the very least; less means that nobody waits for one.
        Finding { what, answer, fine: median < Duration::from_millis(200) }
    };
    Ok(vec![cost("fsync of a new 4 KiB file", files), cost("fsync of the folder", folders)])
}

fn speed(what: &'static str, time: Duration) -> Finding {
    let answer = format!("{}/s", output::size((SPEED_BYTES as f64 / time.as_secs_f64()) as u64));
    Finding { what, answer, fine: true }
}

/// A checkpoint as a trainer saves and loads it: read, and mapped.
#[expect(unsafe_code, reason = "mapping is what is measured, of a file that only this function knows of")]
fn loads(scratch: &Path) -> Result<Vec<Finding>> {
    let path = scratch.join("load.tkeep");
    let values = vec![0.5_f32; SPEED_BYTES / size_of::<f32>()];
    let snapshot = Snapshot::new().tensor("t", &values)?;
    let start = Instant::now();
    snapshot.save(&path)?;
    let saved = start.elapsed();
    // The fastest of three: the first touch of fresh memory is another thing to measure.
    let fastest = |load: &dyn Fn() -> Result<()>| -> Result<Duration> {
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            load()?;
            best = best.min(start.elapsed());
        }
        Ok(best)
    };
    let read = fastest(&|| Checkpoint::open(&path)?.tensor("t").map(drop))?;
    // SAFETY: the file lies in a folder that was made for this, under a name that nobody was told;
    // it is not changed.
    let mapped = fastest(&|| unsafe { Checkpoint::map(&path) }?.tensor("t").map(drop))?;
    Ok(vec![
        speed("save a checkpoint durably, 64 MiB", saved),
        speed("load it by reading, verified, cached", read),
        speed("load it by mapping, verified, cached", mapped),
    ])
}

fn speeds(scratch: &Path) -> std::io::Result<Vec<Finding>> {
    let path = scratch.join("speed");
    let data: Vec<u8> = (0..SPEED_BYTES).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let start = Instant::now();
    let mut file = File::create(&path)?;
    file.write_all(&data)?;
    file.sync_all()?;
    let written = start.elapsed();
    let mut buffer = data;
    let mut read = |cold: bool| -> std::io::Result<Duration> {
        let mut file = File::open(&path)?;
        if cold {
            // Advice only: where it is not taken, the cold figure is a warm one.
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
        let start = Instant::now();
        file.read_exact(&mut buffer)?;
        Ok(start.elapsed())
    };
    let (cold, warm) = (read(true)?, read(false)?);
    Ok(vec![
        speed("write and fsync, 64 MiB", written),
        speed("read, cold", cold),
        speed("read, cached", warm),
    ])
}
