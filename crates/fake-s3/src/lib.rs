//! An S3 server for tests, on loopback, without signatures. Conditional puts are atomic; multipart
//! uploads, ranges, listings and copies work as S3's. It fails on demand, before or after it has
//! applied a request, and can be killed and restarted at any moment.
//!
//! ```
//! use fake_s3::{Fault, Server};
//! let server = Server::start(fake_s3::Objects::in_memory()).unwrap();
//! server.faults().fail_after(0, 1, Fault::SlowDown);
//! println!("{}", server.endpoint());
//! ```

mod faults;
mod http;
mod line;
mod objects;
mod s3;
mod server;
mod throttle;

pub use faults::{Call, Fault, Faults};
pub use objects::Objects;
pub use server::Server;
