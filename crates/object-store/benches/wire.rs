//! Saving and loading over loopback, beside what the `object_store` crate does with the same bytes (a plain multipart
//! put, and ranges fetched in parallel), and beside Python's way (`peer.py`: safetensors and boto3) where `PYTHON` names
//! an interpreter that has both. One server, one run, taking turns; medians.
//!
//! ```text
//! PYTHON=python3 cargo bench -p tensorkeep-object-store --bench wire [MEBIBYTES]
//! ```

use bytes::Bytes;
use fake_s3::{Objects, Server};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;
use tensorkeep::{Checkpoint, Codec, Progress, Settings, Snapshot, Store, WriteOptions};
use tensorkeep_object_store::{ObjectStoreEngine, object_store};

const ROUNDS: u64 = 7;
const PART: usize = 8 << 20;
const IN_FLIGHT: usize = 8;

fn main() {
    let mebibytes = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(192_usize);
    let server = Server::start(Objects::in_memory()).expect("a server on loopback");
    let s3 = AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(server.bucket())
        .with_access_key_id("key")
        .with_secret_access_key("secret")
        .with_disable_bulk_delete(true);
    let s3: Arc<dyn ObjectStore> = Arc::new(s3.build().expect("a client"));
    let tensors: Vec<Vec<f32>> = (0..16).map(|seed| noise(mebibytes << 16, seed)).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let engine = ObjectStoreEngine::new(Arc::clone(&s3), "run").expect("an engine");
    // As it is in memory, so that all move the same bytes.
    let raw = WriteOptions::new().codec(Codec::Raw);
    let store = Store::open(engine, Settings::new().write(raw.clone())).expect("a store");
    let file = Bytes::from(snapshot(&tensors, 0).to_bytes(&raw).expect("its bytes"));
    let mut peer = Peer::start(&server, mebibytes);

    let mut times: [Vec<f64>; 6] = Default::default();
    for round in 1..=ROUNDS {
        let path = Path::from("plain");
        times[0].push(seconds(|| drop(store.save(&snapshot(&tensors, round)).expect("a save"))));
        times[1].push(seconds(|| runtime.block_on(plain_put(&*s3, &path, &file))));
        times[2].push(seconds(|| load(&store.latest().expect("listing").expect("a checkpoint"))));
        times[3].push(seconds(|| runtime.block_on(plain_get(&s3, &path, file.len() as u64))));
        if let Some(peer) = &mut peer {
            times[4].push(peer.seconds("save"));
            times[5].push(peer.seconds("load"));
        }
        runtime.block_on(s3.delete(&path)).expect("deleting");
        if round > 1 {
            store.delete(round - 1).expect("deleting");
        }
    }
    let [save, put, load, get, python_save, python_load] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).map_or(f64::NAN, |median| file.len() as f64 / median / 1e6)
    });
    println!("{} MB, {ROUNDS} rounds, medians", file.len() / 1_000_000);
    println!("save: tensorkeep {save:6.0} MB/s, plain multipart put  {put:6.0} MB/s: {:.2} x", save / put);
    println!("load: tensorkeep {load:6.0} MB/s, parallel range gets  {get:6.0} MB/s: {:.2} x", load / get);
    if peer.is_some() {
        let words = "safetensors and boto3";
        println!(
            "save: tensorkeep {save:6.0} MB/s, {words} {python_save:6.0} MB/s: {:.2} x",
            save / python_save
        );
        println!(
            "load: tensorkeep {load:6.0} MB/s, {words} {python_load:6.0} MB/s: {:.2} x",
            load / python_load
        );
    }
}

/// Python's way, in a process of its own that waits for its turns.
struct Peer {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start(server: &Server, mebibytes: usize) -> Option<Self> {
        let Ok(python) = std::env::var("PYTHON") else {
            println!("without Python's way: PYTHON names no interpreter");
            return None;
        };
        let mut process = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peer.py"))
            .args([server.endpoint(), server.bucket().to_owned(), mebibytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("an interpreter");
        let commands = process.stdin.take().expect("its input");
        let mut peer =
            Self { answers: BufReader::new(process.stdout.take().expect("its output")), process, commands };
        assert_eq!(peer.answer(), "ready", "does it have boto3, numpy and safetensors?");
        Some(peer)
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
        snapshot.tensor(format!("layer.{number:02}.weight"), &tensor[..]).expect("a tensor");
    }
    snapshot.progress(Progress::new(step));
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
        // Copied, as everything that comes from a live tensor must be.
        upload.write(part);
    }
    upload.finish().await.expect("completing");
}

async fn plain_get(store: &Arc<dyn ObjectStore>, path: &Path, len: u64) {
    let ranges = (0..len).step_by(PART).map(|start| start..(start + PART as u64).min(len));
    let requests = ranges.map(|range| async move { store.get_range(path, range).await });
    let parts: Vec<Bytes> = stream::iter(requests).buffered(IN_FLIGHT).try_collect().await.expect("ranges");
    // Into one place, as tensors are.
    let all = parts.concat();
    assert_eq!(all.len() as u64, len);
}
