//! `serve` as its clients meet it.

use super::Run;
use serde_json::Value as Json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server of a run, which ends with this.
pub struct Served {
    server: Child,
    /// What it said first, as JSON.
    pub line: String,
    address: String,
}

impl Served {
    pub fn new(run: &str) -> Self {
        let mut server = Command::new(env!("CARGO_BIN_EXE_tensorkeep"))
            .args(["serve", run, "--port", "0", "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Json = serde_json::from_str(&line).unwrap();
        let address = told["url"].as_str().unwrap().trim_matches(|c| "htp:/".contains(c)).to_owned();
        Self { server, line, address }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(&self.address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    }

    fn request(&self, path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address)
    }

    /// The answer to a request, which asks for the connection to end with it.
    fn get(&self, path: &str) -> String {
        let (mut client, mut answer) = (self.connect(), String::new());
        let request = self.request(path).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        client.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = (self.server.kill(), self.server.wait());
    }
}

#[test]
fn pages_are_served_and_nothing_else() {
    let run = Run::new("serving");
    let served = Served::new(&run.path("run"));
    let page = served.get("/");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("</html>"), "{}", &page[..200]);
    assert!(served.get("/mark").contains("0001-0000000200 2 1"), "news are short");
    assert!(served.get("/run/../etc").starts_with("HTTP/1.1 404 "));
    for (request, status) in [
        ("POST / HTTP/1.1\r\nHost: HERE\r\nContent-Length: 3\r\n\r\nabc", 405),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        ("GET / HTTP/1.1\r\n\r\n", 403),
        ("GET / HTTP/1.1\r\nHost: HERE\r\nHost: HERE\r\n\r\n", 403),
        ("\r\n\r\nhello\r\n\r\n", 400),
    ] {
        let (mut client, mut answer) = (served.connect(), String::new());
        client.write_all(request.replace("HERE", &served.address).as_bytes()).unwrap();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
}

#[test]
fn clients_that_do_not_read_hold_up_nobody_else() {
    let run = Run::new("serving-stalled");
    let served = Served::new(&run.path("run"));
    let stalled: Vec<TcpStream> = (0..16)
        .map(|_| {
            let mut client = served.connect();
            client.write_all(served.request("/").repeat(200).as_bytes()).unwrap();
            client
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let started = Instant::now();
    assert!(served.get("/mark").starts_with("HTTP/1.1 200 "));
    assert!(served.get("/").contains("</html>"));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    drop(stalled);
}
