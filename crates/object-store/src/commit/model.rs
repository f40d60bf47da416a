//! A model check of the commit protocol: a store that answers each request as a script says, and
//! all scripts up to a depth. Every outcome must be true, even after all delayed requests have been
//! applied.

use super::{Outcome, create};
use crate::deadline::Limits;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// The fate of a conditional put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// Applied and answered correctly.
    Honest,
    /// Applied, and the reply is lost.
    LostReply,
    /// Applied, no reply, and sent again by the layer below: "exists already".
    LostReplyRetried,
    /// Not applied, no reply.
    NotDone,
    /// 409: not applied, and answered "exists already".
    Busy,
    /// 403.
    Refused,
    /// No reply, and applied after the next request.
    Delayed,
    /// No reply, and applied when everything is over.
    VeryLate,
    /// Another writer was faster.
    RivalFirst,
}

const PUTS: [Put; 9] = [
    Put::Honest,
    Put::LostReply,
    Put::LostReplyRetried,
    Put::NotDone,
    Put::Busy,
    Put::Refused,
    Put::Delayed,
    Put::VeryLate,
    Put::RivalFirst,
];

/// The fate of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Honest,
    /// No reply.
    Lost,
    /// Answered with another object, as by a cache that takes one for the other.
    Neighbour,
}

#[derive(Debug, Default)]
pub(crate) struct Scripted {
    inner: InMemory,
    puts: Mutex<VecDeque<Put>>,
    reads: Mutex<VecDeque<Read>>,
    /// Requests in flight, each with the number of requests that overtake it.
    on_their_way: Mutex<Vec<(usize, Path, PutPayload, PutOptions)>>,
}

impl std::fmt::Display for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("OK because no test panics while it holds one")
}

fn no_reply() -> StoreError {
    StoreError::Generic { store: "Scripted", source: "no reply".into() }
}

fn exists(path: &Path) -> StoreError {
    StoreError::AlreadyExists { path: path.to_string(), source: "409 or 412".into() }
}

impl Scripted {
    /// A store whose first puts follow the script and whose later ones are honest.
    pub(crate) fn of(puts: &[Put]) -> Self {
        Self { puts: Mutex::new(puts.iter().copied().collect()), ..Self::default() }
    }

    /// Applies the requests that are due, or all.
    async fn arrive(&self, everything: bool) {
        let mut arrived = Vec::new();
        lock(&self.on_their_way).retain_mut(|(left, path, bytes, options)| {
            let now = everything || *left == 0;
            if now {
                arrived.push((path.clone(), bytes.clone(), options.clone()));
            }
            *left = left.saturating_sub(1);
            !now
        });
        for (path, bytes, options) in arrived {
            // Refused if an object is there by now.
            let _ = self.inner.put_opts(&path, bytes, options).await;
        }
    }
}

#[async_trait]
impl ObjectStore for Scripted {
    async fn put_opts(&self, path: &Path, bytes: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.arrive(false).await;
        let put = lock(&self.puts).pop_front().unwrap_or(Put::Honest);
        let late = |left| lock(&self.on_their_way).push((left, path.clone(), bytes.clone(), options.clone()));
        match put {
            Put::NotDone => return Err(no_reply()),
            Put::Busy => return Err(exists(path)),
            Put::Refused => {
                return Err(StoreError::PermissionDenied { path: path.to_string(), source: "403".into() });
            }
            Put::Delayed => late(1),
            Put::VeryLate => late(usize::MAX),
            Put::RivalFirst => {
                let rival = PutOptions::from(PutMode::Create);
                let _ = self.inner.put_opts(path, PutPayload::from_static(b"rival"), rival).await;
            }
            Put::Honest | Put::LostReply | Put::LostReplyRetried => {}
        }
        if matches!(put, Put::Delayed | Put::VeryLate) {
            return Err(no_reply());
        }
        let done = self.inner.put_opts(path, bytes, options).await;
        match put {
            Put::LostReply => Err(no_reply()),
            Put::LostReplyRetried => Err(exists(path)),
            _ => done,
        }
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.arrive(false).await;
        let read = lock(&self.reads).pop_front();
        match read.unwrap_or(Read::Honest) {
            Read::Honest => self.inner.get_opts(path, options).await,
            Read::Lost => Err(no_reply()),
            Read::Neighbour => {
                let neighbour = Path::from("neighbour");
                self.inner.put(&neighbour, PutPayload::from_static(b"neighbour")).await?;
                self.inner.get_opts(&neighbour, options).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Runs one script; returns the claimed outcome in a word.
async fn check(puts: &[Put], reads: &[Read]) -> &'static str {
    let store = Scripted {
        puts: Mutex::new(puts.iter().copied().collect()),
        reads: Mutex::new(reads.iter().copied().collect()),
        ..Scripted::default()
    };
    let path = Path::from("object");
    let deadline = Limits::of(Duration::from_secs(60)).patience().begin(0);
    let outcome = create(&store, &path, Bytes::from_static(b"ours"), [7; 16], &deadline).await;
    let now = bytes_at(&store.inner, &path).await;
    store.arrive(true).await;
    let later = bytes_at(&store.inner, &path).await;
    let script = format!("{puts:?} {reads:?}: {outcome:?}, now {now:?}, later {later:?}");
    match outcome {
        Outcome::Committed => {
            assert_eq!(
                (now.as_deref(), later.as_deref()),
                (Some(&b"ours"[..]), Some(&b"ours"[..])),
                "{script}"
            );
            "committed"
        }
        Outcome::Conflict => {
            assert_eq!(
                (now.as_deref(), later.as_deref()),
                (Some(&b"rival"[..]), Some(&b"rival"[..])),
                "{script}"
            );
            "conflict"
        }
        Outcome::NotCommitted(_) => {
            assert!(now.is_none() && later.is_none(), "{script}");
            "not committed"
        }
        Outcome::Unknown(_) => "unknown",
    }
}

async fn bytes_at(store: &InMemory, path: &Path) -> Option<Vec<u8>> {
    Some(store.get(path).await.ok()?.bytes().await.ok()?.to_vec())
}

/// All sequences of `options` of length `depth`.
fn sequences<T: Copy>(options: &[T], depth: usize) -> Vec<Vec<T>> {
    (0..depth).fold(vec![vec![]], |longer, _| {
        longer.iter().flat_map(|start| options.iter().map(|&next| [&start[..], &[next]].concat())).collect()
    })
}

/// Of four reads, one at most is answered with another object: a surprise is believed when two
/// answers in a row say it.
fn scripts_of_reads() -> Vec<Vec<Read>> {
    let mut scripts = sequences(&[Read::Honest, Read::Lost, Read::Neighbour], 4);
    scripts.retain(|reads| reads.iter().filter(|read| **read == Read::Neighbour).count() <= 1);
    scripts
}

#[test]
fn every_outcome_is_true_in_every_script() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut outcomes = std::collections::BTreeMap::new();
    runtime.block_on(async {
        for puts in sequences(&PUTS, 4) {
            for reads in scripts_of_reads() {
                *outcomes.entry(check(&puts, &reads).await).or_insert(0) += 1;
            }
        }
    });
    println!("{outcomes:?}");
    assert_eq!(outcomes.values().sum::<u32>(), 9_u32.pow(4) * 48);
    assert_eq!(outcomes.len(), 4, "an outcome was never seen: {outcomes:?}");
}

#[test]
fn an_outcome_is_unknown_only_when_reads_do_not_tell() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        for puts in sequences(&PUTS, 4) {
            // The fifth try is honest, and there is time for it.
            let outcome = check(&puts, &[]).await;
            assert!(outcome != "unknown" || puts.contains(&Put::Refused), "{puts:?}");
        }
    });
}
