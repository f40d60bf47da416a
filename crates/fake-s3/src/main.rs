//! `fake-s3 PORT [FOLDER]`: the server as a process of its own, which can be killed. Prints `ready
//! ENDPOINT` when it is. With a folder, acknowledged objects survive.

use fake_s3::{Objects, Server};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().and_then(|port| port.parse().ok()).unwrap_or(0);
    let objects = arguments
        .next()
        .map_or_else(|| Ok(Objects::in_memory()), |folder| Objects::in_folder(Path::new(&folder)));
    let server = objects.and_then(|objects| Server::start_at(port, objects));
    match server {
        Ok(server) => {
            println!("ready {}", server.endpoint());
            let _ = std::io::stdout().flush();
            loop {
                std::thread::park();
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
