//! Two tiers over the wire: promoted to an S3 server that fails and dies, from a trainer that is
//! killed, and resumed where the local disk is lost. The killed trainer is this test's own binary,
//! started again with environment variables.

mod common;

use common::{RUN, assert_is, by_url, engine, save, server, store};
use fake_s3::{Fault, Server};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tensorkeep::engine::{Engine, Local, Memory};
use tensorkeep::{ErrorKind, Keep, Result, Store, StoreOptions, Tier};
use tensorkeep_object_store::ObjectStoreEngine;

/// Uploaded in parts.
const LARGE: usize = 9_000_000;

fn open(local: &Memory, remote: &Arc<dyn Engine>) -> Store {
    let settings = StoreOptions::new().keep(Keep::last(1)).keep_remote(Keep::last(3));
    Store::open_tiered(local.clone(), Arc::clone(remote), settings).unwrap()
}

#[test]
fn a_new_machine_resumes_from_the_store_after_a_lost_disk() {
    let server = server();
    let remote = engine(&server, 3);
    let store = open(&Memory::new(), &remote);
    for step in 1..=4 {
        save(&store, step, LARGE).unwrap();
    }
    store.close().unwrap();
    let new = Memory::new();
    let store = open(&new, &remote);
    let resumed = store.resume().unwrap();
    assert_eq!((resumed.next_step(), resumed.tier, store.attempt()), (4, Some(Tier::Remote), 2));
    assert_is(&resumed.checkpoint.unwrap(), 4, LARGE);
    assert_is(&store.latest().unwrap().unwrap(), 4, LARGE);
    assert_eq!(server.objects().unfinished_uploads(), 0);
}

#[test]
fn a_black_hole_does_not_delay_a_run_with_a_local_copy() {
    let server = server();
    let url = format!("s3://bucket/{RUN}");
    let remote: Arc<dyn Engine> = Arc::new(by_url(&server, &url, Duration::from_secs(6)));
    let local = Memory::new();
    let store = open(&local, &remote);
    save(&store, 1, 1000).unwrap();
    store.close().unwrap();
    server.faults().fail_after(0, usize::MAX, Fault::Hang);
    let began = Instant::now();
    let store = open(&local, &remote);
    assert_eq!(store.resume().unwrap().next_step(), 1);
    assert!(began.elapsed() < Duration::from_secs(5), "opening took {:?}", began.elapsed());
    let began = Instant::now();
    save(&store, 2, 1000).unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "saving took {:?}", began.elapsed());
    server.faults().heal();
    while store.wait_for(Tier::Remote).is_err() {}
    store.close().unwrap();
}

/// Promotes one checkpoint while request number `at` fails. False when there is no such request.
fn promote_with_fault(at: usize, fault: Fault, retries: usize) -> bool {
    let mut server = server();
    let remote = engine(&server, retries);
    let local = Memory::new();
    let store = open(&local, &remote);
    save(&store, 1, 1000).unwrap();
    store.wait_for(Tier::Remote).unwrap();
    server.faults().take_calls();
    server.faults().fail_after(at, 1, fault);
    save(&store, 2, LARGE).unwrap();
    let reviving = matches!(fault, Fault::KilledBefore | Fault::KilledAfter);
    let outcome = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.wait_for(Tier::Remote));
        while reviving && !waiting.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
            if server.is_dead() {
                server.restart().unwrap();
            }
        }
        waiting.join().unwrap()
    });
    server.faults().heal();
    let failed = server.faults().take_calls().get(at).cloned();
    let what = format!("{fault:?} at request {at} {failed:?}, {retries} retries");
    if let Err(error) = outcome {
        assert_eq!(error.kind(), ErrorKind::NotPromoted, "{what}: {error:?}");
        store.wait_for(Tier::Remote).unwrap_or_else(|error| panic!("{what}: the next try fails: {error:?}"));
    }
    store.close().unwrap();
    let resumed = open(&Memory::new(), &remote).resume().unwrap();
    assert!(resumed.next_step() == 2 && resumed.skipped.is_empty(), "{what}: {resumed:?}");
    assert_is(&resumed.checkpoint.unwrap(), 2, LARGE);
    failed.is_some()
}

fn every_request_of_a_promotion(faults: &[Fault], retries: usize) {
    for &fault in faults {
        let mut at = 0;
        while promote_with_fault(at, fault, retries) {
            at += 1;
        }
        println!("{fault:?}, {retries} retries: {at} requests, no promise broken");
        assert!(at > 8, "only {at} requests were seen");
    }
}

#[test]
fn the_server_dies_at_every_request_of_a_promotion() {
    every_request_of_a_promotion(&[Fault::KilledBefore, Fault::KilledAfter], 10);
}

#[test]
fn every_fault_at_every_request_of_a_promotion() {
    every_request_of_a_promotion(
        &[Fault::SlowDown, Fault::ErrorAfter, Fault::ResetAfter, Fault::ResetBefore],
        0,
    );
}

#[test]
fn a_promotion_and_a_copy_take_bounded_memory() {
    // A reader of 64 MB whose upload takes a few pieces at a time: only a window and the parts in
    // flight are held.
    let server = server();
    let remote: Arc<dyn Engine> = Arc::new(ObjectStoreEngine::new(store(&server, 3), RUN).unwrap());
    let store = open(&Memory::new(), &remote);
    save(&store, 1, 64 << 20).unwrap();
    let mut largest = 0;
    let copy = Memory::new();
    let to = tensorkeep::Reader::new(copy.clone());
    store.wait_for(Tier::Remote).unwrap();
    let from = store.remote_reader().unwrap();
    let name = from.ids().unwrap()[0];
    from.copy_to(name, &to, |bytes| largest = largest.max(bytes)).unwrap();
    assert!(largest <= 4 << 20, "a piece of {largest} bytes");
    assert_is(&to.checkpoint_by_id(name).unwrap(), 1, 64 << 20);
}

const CHILD: &str = "TENSORKEEP_TIERS_CHILD";
const KILLS: u64 = 12;
const CHILD_LEN: usize = 9_000_000;

fn say(event: &str, step: u64) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "child: {event} {step}").and_then(|()| out.flush());
}

fn train(endpoint: &str, disk: &Path) -> Result<()> {
    let options = [
        ("endpoint", endpoint),
        ("allow_http", "true"),
        ("region", "us-east-1"),
        ("access_key_id", "key"),
        ("secret_access_key", "secret"),
    ];
    let remote = ObjectStoreEngine::from_url_with(&format!("s3://bucket/{RUN}"), options)?;
    let settings = StoreOptions::new().keep(Keep::last(2)).keep_remote(Keep::last(2));
    let store = Store::open_tiered(Local::create(disk)?, remote, settings)?;
    let resumed = store.resume()?;
    if let Some(checkpoint) = &resumed.checkpoint {
        assert_is(checkpoint, resumed.next_step(), CHILD_LEN);
    }
    assert!(resumed.skipped.is_empty(), "{:?}", resumed.skipped);
    say("resumed", resumed.next_step());
    for step in resumed.next_step() + 1..u64::MAX {
        save(&store, step, CHILD_LEN)?;
        say("saved", step);
        if step % 3 == 0 {
            store.wait_for(Tier::Remote)?;
            say("promoted", step);
        }
    }
    Ok(())
}

/// Not a test by itself: the trainer that the one below kills.
#[test]
fn child() {
    if let Ok(child) = std::env::var(CHILD) {
        let (endpoint, disk) = child.split_once(' ').unwrap();
        train(endpoint, Path::new(disk)).unwrap();
    }
}

struct Disks(PathBuf, u64);

impl Disks {
    fn current(&self) -> PathBuf {
        self.0.join(self.1.to_string())
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Kills the trainer a moment after some event; returns the last steps that it reported: resumed,
/// saved, promoted.
fn live(server: &Server, disk: &Path, after: u64, delay: Duration) -> [u64; 3] {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format!("{} {}", server.endpoint(), disk.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut told, mut events, mut killed) = ([0; 3], 0, false);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((_, said)) = line.split_once("child: ") else { continue };
        let (event, step) = said.split_once(' ').unwrap();
        let number = ["resumed", "saved", "promoted"].iter().position(|known| *known == event).unwrap();
        told[number] = step.parse().unwrap();
        events += 1;
        if events == after && !killed {
            std::thread::sleep(delay);
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the trainer ended by itself after {events} events");
    told
}

#[test]
fn kills_during_promotion_and_a_lost_disk_lose_nothing() {
    let server = server();
    let folder = std::env::temp_dir().join(format!("tensorkeep-tiers-{}", std::process::id()));
    let mut disks = Disks(folder, 0);
    let (mut saved, mut promoted, mut lost) = (0, 0, 0);
    for life in 0..KILLS {
        let seed = (life + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let told = live(&server, &disks.current(), 2 + seed % 5, Duration::from_micros(seed % 40_000));
        let must = if lost == life && life > 0 { promoted } else { saved };
        assert!(told[0] >= must, "life {life}: resumed at {}, {must} was promised", told[0]);
        saved = told[0].max(told[1]);
        promoted = promoted.max(told[2]);
        if life % 3 == 2 {
            // The machine is lost with its disk.
            disks.1 += 1;
            lost = life + 1;
        }
    }
    println!("{KILLS} kills, {} disks lost: {saved} steps saved, {promoted} promoted", disks.1);
    assert!(promoted >= 3, "nothing was promoted before a kill");
}
