//! tensorkeep's engine on object stores: S3 and compatible stores, Google Cloud Storage, Azure, and
//! memory, through the [`object_store`] crate.
//!
//! ```no_run
//! use tensorkeep::{StoreOptions, Store};
//! use tensorkeep_object_store::ObjectStoreEngine;
//!
//! let engine = ObjectStoreEngine::from_url("s3://bucket/runs/lenet")?;
//! let store = Store::open(engine, StoreOptions::new())?;
//! # Ok::<(), tensorkeep::Error>(())
//! ```
//!
//! # How it fulfils the contract
//! * **Create-only** rests on the store's conditional put (`If-None-Match: *`, on Google
//!   `ifGenerationMatch=0`), which is probed before the first write: a store that ignores it, or is
//!   not atomic, is refused.
//! * **The commit** of an object of up to 1 MiB is one conditional put. A larger one is uploaded in
//!   parts of 8 MiB to a name of its own under `objects/`, and committed by a small object that
//!   names it and has a copy of its index and of the 64 KiB before it, so that opening is one
//!   request. A commit object that names another key's bytes is a copy, and damaged: its bytes are
//!   deleted with the other key.
//! * **A lost reply** is told from a conflict by a nonce in the object's metadata: every error is
//!   settled by reading it back; where that is impossible, the outcome is `Unknown` and nothing is
//!   deleted.
//! * **There is no lock**: writers are told apart by their attempts, and the older one is fenced.
//!   There is no rename: damaged checkpoints are marked.
//! * **The store does not keep open objects**: small ones are in memory whole, a large one that is
//!   deleted while it is open gives `NotFound` and never other bytes.
//! * **Memory**: an upload holds at most ten parts of 8 MiB and a copy of the index; above 80 GB
//!   the parts grow, so that 10,000 suffice, and fewer are in flight. Sequential readers share at
//!   most 32 MiB of readahead per open object, and a long read has at most eight requests of 8 MiB
//!   in flight.
//!
//! # Time
//! Every call has a deadline, three minutes unless set by [`ObjectStoreEngine::with_deadline`]. All
//! retries of all its requests are within it: on 5xx, 429, 408, resets, refused connections and
//! silence, after pauses of 100 ms that double to 15 s, with jitter. A request without an answer
//! for 30 s (a third of a shorter deadline) is cut and sent again; connecting may take 5 s. Final
//! refusals (403, 404, 507 and the like) are not retried.
//!
//! A call that moves data is limited by progress: a read lasts as long as bytes keep arriving and
//! is continued from where it broke off; a part of an upload has the deadline and its time at 100
//! kB/s, and a slow line gets fewer parts at a time. A server that accepts and never answers costs
//! each call one deadline: a part of 8 MiB 84 s more.
//!
//! The options of the `object_store` crate, such as `connect_timeout` and `timeout` (of a whole
//! request), are taken by [`ObjectStoreEngine::from_url_with`]; for anything else build the store
//! yourself and pass it to [`ObjectStoreEngine::new`]. Without credentials in the environment the
//! machine's metadata service is asked for some, for ten seconds.
//!
//! # URLs
//! The prefix is used as it is, so that other programs find the same objects under the same URL.
//! Credentials in a URL, also as a query, are refused: they would be sent and printed. Passwords in
//! an endpoint's URL are masked in all messages.
//!
//! # What a kill leaves
//! Parts of an upload that was not completed: let the bucket's life cycle remove them
//! (`AbortIncompleteMultipartUpload`). A large object whose commit was never created, and objects
//! of the probe: both are invisible; [`ObjectStoreEngine::orphans`] lists them and
//! [`ObjectStoreEngine::sweep`] removes them.

mod ahead;
mod at_key;
mod blob;
mod commit;
mod deadline;
mod engine;
mod error;
mod fetch;
mod listing;
mod open;
mod parts;
mod pointer;
mod probe;
mod remote;
mod runtime;
mod secrets;
mod settings;
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
mod strays;
mod sweep;
mod upload;
mod url;

pub use engine::ObjectStoreEngine;
pub use object_store;
pub use open::open as open_url;
