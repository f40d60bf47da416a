//! Saving and loading over loopback, beside the `object_store` crate with the same bytes (a plain
//! multipart put, and ranges fetched in parallel), and beside Python (`peer.py`: safetensors with
//! boto3, and with s3fs) where `PYTHON` names an interpreter that has them. One server, one run, in
//! turns; medians.
//!
//! Balanced, the default here, is timed on these values, too, whose low bits are noise as those of
//! real weights are. On loopback it can only lose: it saves bandwidth, of which loopback has
//! plenty.
//!
//! ```text
//! PYTHON=python3 cargo bench -p tensorkeep-object-store --bench wire [MEBIBYTES]
//! ```

#[path = "../tests/common/mod.rs"]
mod common;

use bytes::Bytes;
use fake_s3::Server;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;
use tensorkeep::{Checkpoint, Codec, Progress, Snapshot, Store, StoreOptions, WriteOptions};
use tensorkeep_object_store::{ObjectStoreEngine, object_store};

const ROUNDS: u64 = 7;
const PART: usize = 8 << 20;
const IN_FLIGHT: usize = 8;

fn main() {
    let mebibytes = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(192_usize);
    let server = common::server();
    let s3 = common::store(&server, 10);
    let tensors: Vec<Vec<f32>> = (0..16).map(|seed| noise(mebibytes << 16, seed)).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let runs = [("raw", Codec::Raw), ("balanced", Codec::Balanced)].map(|(name, codec)| {
        let engine = ObjectStoreEngine::new(Arc::clone(&s3), name).expect("an engine");
        let write = WriteOptions::new().codec(codec);
        (name, Store::open(engine, StoreOptions::new().write(write)).expect("a store"))
    });
    let raw = WriteOptions::new().codec(Codec::Raw);
    let file = Bytes::from(snapshot(&tensors, 0).to_bytes(&raw).expect("its bytes"));
    let mut peers: Vec<Peer> =
        ["boto3", "s3fs"].iter().filter_map(|way| Peer::start(way, &server, mebibytes)).collect();

    let mut rows = Rows::default();
    let path = Path::from("plain");
    for round in 1..=ROUNDS {
        for (name, store) in &runs {
            let name = format!("tensorkeep, {name}");
            rows.add(
                "save",
                &name,
                seconds(|| drop(store.save(&snapshot(&tensors, round)).expect("a save"))),
            );
            rows.add(
                "load",
                &name,
                seconds(|| load(&store.latest().expect("listing").expect("a checkpoint"))),
            );
            if round > 1 {
                store.delete(round - 1).expect("deleting");
            }
        }
        rows.add("save", PLAIN_PUT, seconds(|| runtime.block_on(plain_put(&*s3, &path, &file))));
        rows.add("load", PLAIN_GET, seconds(|| runtime.block_on(plain_get(&s3, &path, file.len() as u64))));
        runtime.block_on(s3.delete(&path)).expect("deleting");
        for peer in &mut peers {
            let name = format!("safetensors and {}", peer.way);
            rows.add("save", &name, peer.seconds("save"));
            rows.add("load", &name, peer.seconds("load"));
        }
    }
    println!("{} MB, {ROUNDS} rounds, medians", file.len() / 1_000_000);
    rows.print(file.len());
}

const PLAIN_PUT: &str = "plain multipart put";
const PLAIN_GET: &str = "parallel range gets";

/// Seconds of every round, by operation and system, in order of first appearance.
#[derive(Default)]
struct Rows(Vec<(&'static str, String, Vec<f64>)>);

impl Rows {
    fn add(&mut self, op: &'static str, system: &str, seconds: f64) {
        match self.0.iter_mut().find(|row| row.0 == op && row.1 == system) {
            Some(row) => row.2.push(seconds),
            None => self.0.push((op, system.to_owned(), vec![seconds])),
        }
    }

    /// Speeds, and the ratio to tensorkeep's raw one.
    fn print(mut self, bytes: usize) {
        let speed = |seconds: &mut Vec<f64>| {
            seconds.sort_by(f64::total_cmp);
            bytes as f64 / seconds[seconds.len() / 2] / 1e6
        };
        self.0.sort_by_key(|row| row.0);
        let mut ours = 0.0;
        for (op, system, seconds) in &mut self.0 {
            let speed = speed(seconds);
            ours = if system == "tensorkeep, raw" { speed } else { ours };
            println!("{op}: {system:<24} {speed:6.0} MB/s; tensorkeep, raw: {:.2} x", ours / speed);
        }
    }
}

/// One of the Python systems, in a process of its own that waits for its turns.
struct Peer {
    way: &'static str,
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start(way: &'static str, server: &Server, mebibytes: usize) -> Option<Self> {
        let Ok(python) = std::env::var("PYTHON") else {
            println!("without {way}: PYTHON names no interpreter");
            return None;
        };
        let mut process = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peer.py"))
            .args([way.to_owned(), server.endpoint(), server.bucket().to_owned(), mebibytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("an interpreter");
        let commands = process.stdin.take().expect("its input");
        let answers = BufReader::new(process.stdout.take().expect("its output"));
        let mut peer = Self { way, process, commands, answers };
        match peer.answer().as_str() {
            "ready" => Some(peer),
            why => {
                println!("without {way}: {why}");
                None
            }
        }
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        line.trim().to_owned()
    }

    fn seconds(&mut self, command: &str) -> f64 {
        writeln!(self.commands, "{command}").and_then(|()| self.commands.flush()).expect("a command");
        self.answer().parse().expect("seconds")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill().and_then(|()| self.process.wait().map(drop));
    }
}

fn noise(count: usize, seed: u64) -> Vec<f32> {
    (0..count as u64 / 4)
        .map(|i| ((i ^ seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32)
        .collect()
}

fn snapshot(tensors: &[Vec<f32>], step: u64) -> Snapshot<'_> {
    let mut snapshot = Snapshot::new();
    for (number, tensor) in tensors.iter().enumerate() {
        snapshot = snapshot.tensor(format!("layer.{number:02}.weight"), &tensor[..]).expect("a tensor");
    }
    snapshot = snapshot.progress(Progress::new(step));
    snapshot
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// All tensors, every byte verified.
fn load(checkpoint: &Checkpoint) {
    let loaded: Vec<_> = checkpoint.names().map(|name| checkpoint.tensor(name).expect("a tensor")).collect();
    assert_eq!(loaded.len(), 16);
}

async fn plain_put(store: &dyn ObjectStore, path: &Path, file: &Bytes) {
    let upload = store.put_multipart(path).await.expect("an upload");
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
    for part in file.chunks(PART) {
        upload.wait_for_capacity(IN_FLIGHT).await.expect("a part");
        // Copied, as everything from a live tensor must be.
        upload.write(part);
    }
    upload.finish().await.expect("completing");
}

async fn plain_get(store: &Arc<dyn ObjectStore>, path: &Path, len: u64) {
    let ranges = (0..len).step_by(PART).map(|start| start..(start + PART as u64).min(len));
    let requests = ranges.map(|range| async move { store.get_range(path, range).await });
    let parts: Vec<Bytes> = stream::iter(requests).buffered(IN_FLIGHT).try_collect().await.expect("ranges");
    // Into one buffer, as tensors are.
    let all = parts.concat();
    assert_eq!(all.len() as u64, len);
}
