//! tensorkeep's engine on object stores: S3 and what speaks like it, Google Cloud Storage, Azure, and memory, by way of
//! the [`object_store`] crate.
//!
//! ```no_run
//! use tensorkeep::{Settings, Store};
//! use tensorkeep_object_store::ObjectStoreEngine;
//!
//! let engine = ObjectStoreEngine::from_url("s3://bucket/runs/lenet")?;
//! let store = Store::open(engine, Settings::new())?;
//! # Ok::<(), tensorkeep::Error>(())
//! ```
//!
//! # What it keeps of the contract, and how
//! * **Create-only** rests on the store's conditional put (`If-None-Match: *`, on Google `ifGenerationMatch=0`), which is
//!   probed before the first write: a store that ignores it, or is not atomic, is refused.
//! * **The commit** of an object of up to 1 MiB is one conditional put. A larger one is uploaded in parts of 8 MiB to a
//!   name of its own under `objects/`, and committed by a small object that names it and has a copy of its index, so
//!   that opening is one request.
//! * **A lost reply** is told from a conflict by a nonce in the object's metadata: every error is settled by reading
//!   it back; where nobody can tell, the outcome is `Unknown` and nothing is deleted.
//! * **There is no lock**: writers are told apart by their attempts, and the older one is fenced. There is no rename:
//!   damaged checkpoints are marked.
//! * **An open object is not kept by the store**: small ones are in memory whole, a large one that is deleted while
//!   it is open gives `NotFound` and never other bytes.
//! * **Memory**: an upload holds at most ten parts of 8 MiB and a copy of the index; a reader that reads in order at
//!   most 40 MiB.
//!
//! # Retries and timeouts
//! Are the `object_store` crate's: 10 retries within 3 minutes, from 100 ms doubling to 15 s, with jitter, on 5xx, 429,
//! 408, resets and timeouts. A request may take 120 s (the crate says 30), connecting 5 s. The option `timeout` and its
//! neighbours change them, in [`ObjectStoreEngine::from_url_with`]; for anything else build the store yourself and
//! hand it to [`ObjectStoreEngine::new`]. Without credentials in the environment the machine's metadata service is asked
//! for some, which elsewhere than in a cloud can take as long as all retries.
//!
//! # What a kill leaves
//! Parts of an upload that was not completed: let the bucket's life cycle remove them
//! (`AbortIncompleteMultipartUpload`). A large object whose commit was never created: nobody sees it;
//! [`ObjectStoreEngine::sweep`] removes it.

mod ahead;
mod blob;
mod commit;
mod deadline;
mod engine;
mod error;
mod fetch;
mod listing;
mod parts;
mod pointer;
mod probe;
mod remote;
mod runtime;
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
mod strays;
mod sweep;
mod upload;
mod url;

pub use engine::ObjectStoreEngine;
pub use object_store;
pub use url::open as open_url;
