//! HTTP for pages: one answer a connection, each on a thread of its own. A client that sends
//! slowly, or does not read what it asked for, holds up nobody else, and is let go after a while.
//! It knows nothing of runs.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// The longest head of a request.
const HEAD: usize = 16 << 10;
const HEADERS: usize = 64;

/// What one client may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients at a time; one more is told to come again.
    pub clients: usize,
    /// Until a request is there, and between two parts of an answer that a client takes.
    pub pause: Duration,
    /// Until a client has its answer.
    pub whole: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { clients: 64, pause: Duration::from_secs(10), whole: Duration::from_secs(120) }
    }
}

/// The head of a request.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// As it was sent, with its query.
    pub target: String,
    /// Every Host header.
    pub hosts: Vec<String>,
}

/// An answer; its length and the end of the connection are added.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: String,
}

/// Answers until the process ends.
pub fn serve(listener: &TcpListener, limits: Limits, answer: impl Fn(&Request) -> Response + Sync) -> ! {
    let (busy, answer) = (AtomicUsize::new(0), &answer);
    thread::scope(|scope| {
        loop {
            let Ok((stream, _)) = listener.accept() else {
                // Too many open files, or a client that went away: the next may do better.
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            if busy.fetch_add(1, Relaxed) >= limits.clients {
                let _ = refuse(&stream);
                busy.fetch_sub(1, Relaxed);
                continue;
            }
            let busy = &busy;
            let client = move || {
                // A client that went away, or was let go, is nobody to tell.
                let _ = attend(&stream, limits, answer);
                busy.fetch_sub(1, Relaxed);
            };
            if thread::Builder::new().spawn_scoped(scope, client).is_err() {
                busy.fetch_sub(1, Relaxed);
            }
        }
    })
}

/// One client, from its request to the end of its connection.
fn attend(stream: &TcpStream, limits: Limits, answer: &impl Fn(&Request) -> Response) -> io::Result<()> {
    let Some(request) = read_head(stream, Instant::now() + limits.pause)? else { return Ok(()) };
    let (response, has_body) = match request {
        Ok(request) => (answer(&request), request.method != "HEAD"),
        Err(status) => (plain(status), true),
    };
    write(stream, &response, has_body, limits)?;
    end(stream, Duration::from_secs(1))
}

/// A request, or the status that refuses it; None where the client said nothing.
fn read_head(mut stream: &TcpStream, until: Instant) -> io::Result<Option<Result<Request, u16>>> {
    let (mut head, mut part) = (Vec::new(), [0; 2048]);
    loop {
        stream.set_read_timeout(Some(left(until)?))?;
        let len = stream.read(&mut part)?;
        head.extend_from_slice(&part[..len]);
        match parse(&head) {
            Some(parsed) => return Ok(Some(parsed)),
            None if head.len() > HEAD => return Ok(Some(Err(431))),
            None if len == 0 && head.is_empty() => return Ok(None),
            None if len == 0 => return Ok(Some(Err(400))),
            None => {}
        }
    }
}

/// None where the head goes on.
fn parse(head: &[u8]) -> Option<Result<Request, u16>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Some(Err(431)),
        Err(_) => return Some(Err(400)),
    }
    let is_host = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("Host");
    let text = |header: &httparse::Header<'_>| String::from_utf8_lossy(header.value).into_owned();
    Some(Ok(Request {
        method: request.method?.to_owned(),
        target: request.path?.to_owned(),
        hosts: request.headers.iter().filter(is_host).map(text).collect(),
    }))
}

fn write(mut stream: &TcpStream, response: &Response, has_body: bool, limits: Limits) -> io::Result<()> {
    let until = Instant::now() + limits.whole;
    let mut message = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
    for (name, value) in &response.headers {
        message.push_str(&format!("{name}: {value}\r\n"));
    }
    if response.status != 204 {
        message.push_str(&format!("Content-Length: {}\r\n", response.body.len()));
    }
    message.push_str("Connection: close\r\n\r\n");
    if has_body {
        message.push_str(&response.body);
    }
    // The timeout counts for a part, so that a client that takes some is waited for.
    for part in message.as_bytes().chunks(64 << 10) {
        stream.set_write_timeout(Some(left(until)?.min(limits.pause)))?;
        stream.write_all(part)?;
    }
    Ok(())
}

/// Ends a connection so that the client gets all of its answer: closed with requests unread, it
/// would be reset.
fn end(mut stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let until = Instant::now() + patience;
    let mut rest = [0; 4096];
    loop {
        stream.set_read_timeout(Some(left(until)?))?;
        if stream.read(&mut rest)? == 0 {
            return Ok(());
        }
    }
}

/// Too many at a time. What is this short is written at once, and little time is left for a client
/// to take it: all others wait.
fn refuse(stream: &TcpStream) -> io::Result<()> {
    let none = plain(503);
    write(stream, &none, true, Limits::default())?;
    end(stream, Duration::from_millis(50))
}

fn plain(status: u16) -> Response {
    let headers = vec![("Content-Type", "text/plain; charset=utf-8")];
    Response { status, headers, body: format!("{}\n", reason(status)) }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        503 => "Service Unavailable",
        431 => "Request Header Fields Too Large",
        _ => "Internal Server Error",
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    /// A server of one large page.
    fn server(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let page = |request: &Request| Response {
            status: 200,
            headers: vec![],
            body: if request.target == "/" { "x".repeat(64 << 20) } else { request.hosts.join(",") },
        };
        thread::spawn(move || serve(&listener, limits, page));
        address
    }

    fn ask(address: SocketAddr, text: &str) -> String {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_client_that_does_not_read_is_let_go() {
        let pause = Duration::from_millis(300);
        let address = server(Limits { clients: 2, pause, ..Limits::default() });
        let stalled: Vec<TcpStream> = (0..2)
            .map(|_| {
                let mut client = TcpStream::connect(address).unwrap();
                client.write_all(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50)).unwrap();
                client
            })
            .collect();
        thread::sleep(pause / 3);
        assert!(ask(address, "GET /b HTTP/1.1\r\nHost: b\r\n\r\n").starts_with("HTTP/1.1 503 "));
        thread::sleep(4 * pause);
        let answer = ask(address, "GET /b HTTP/1.1\r\nhost: b\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nb"), "{answer}");
        drop(stalled);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let pause = Duration::from_millis(300);
        let address = server(Limits { pause, ..Limits::default() });
        assert!(ask(address, "\u{1} / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400 "));
        let long = format!("GET / HTTP/1.1\r\nx: {}\r\n", "x".repeat(2 * HEAD));
        assert!(ask(address, &long).starts_with("HTTP/1.1 431 "));
        assert_eq!(ask(address, "GET / HT"), "", "it never ends");
        let head = ask(address, "HEAD /b HTTP/1.1\r\nHost: b\r\n\r\n");
        assert!(head.contains("Content-Length: 1\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }
}
