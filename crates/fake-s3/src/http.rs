//! HTTP/1.1, as much as an S3 client needs: reads requests and writes responses on one connection.
//! It trusts its client: this is a test's server.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

/// A request, read whole.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// Decoded, without the query.
    pub path: String,
    pub query: BTreeMap<String, String>,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    /// The next request of a connection; None when it was closed. A client that sends `Expect:
    /// 100-continue` is answered on `to`: boto3 would wait a second for that.
    pub fn read(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Self { method: method.to_owned(), path: decode(path), ..Self::default() };
        request.query = query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        if request.header("expect").is_some_and(|expected| expected.eq_ignore_ascii_case("100-continue")) {
            to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        request.body = Vec::with_capacity(length);
        if from.take(length as u64).read_to_end(&mut request.body)? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(request))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }
}

fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (decode(key), decode(&value.replace('+', " ")))
}

/// Percent-decoding.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => (out.push(byte), at += 3),
            None => (out.push(bytes[at]), at += 1),
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A response.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

/// A response's bytes, shared with the store: ranges of large objects are not copied.
#[derive(Clone, Debug, Default)]
pub enum Body {
    #[default]
    None,
    Text(String),
    Part(std::sync::Arc<Vec<u8>>, std::ops::Range<usize>),
}

impl Body {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Text(text) => text.as_bytes(),
            Self::Part(bytes, range) => &bytes[range.clone()],
        }
    }
}

impl Body {
    /// Flips a bit of the first byte.
    pub fn flip(&mut self) {
        let mut bytes = self.bytes().to_vec();
        if let Some(first) = bytes.first_mut() {
            *first ^= 1;
        }
        *self = Self::of(bytes);
    }

    /// Keeps the first half.
    pub fn shorten(&mut self) {
        let bytes = self.bytes();
        *self = Self::of(bytes[..bytes.len() / 2].to_vec());
    }

    fn of(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self::Part(std::sync::Arc::new(bytes), 0..len)
    }
}

impl Response {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn xml(status: u16, text: String) -> Self {
        Self { body: Body::Text(text), ..Self::new(status) }.header("Content-Type", "application/xml")
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} x\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if self.status != 204
            && self.status != 304
            && !self.headers.iter().any(|(name, _)| name == "Content-Length")
        {
            head += &format!("Content-Length: {}\r\n", self.body.bytes().len());
        }
        head += "\r\n";
        head
    }

    /// Writes it, its body only by half.
    pub fn write_half(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(self.head().as_bytes())?;
        let body = self.body.bytes();
        to.write_all(&body[..body.len() / 2])
    }

    /// Writes it; with a pause, in small pieces with pauses between.
    pub fn write(&self, to: &mut impl Write, head_only: bool, pause: Option<Duration>) -> io::Result<()> {
        let head = self.head();
        let body = if head_only { &[] } else { self.body.bytes() };
        let Some(pause) = pause else {
            if body.len() < 16 << 10 {
                // One packet: a reply in two waits for an acknowledgement.
                return to.write_all(&[head.as_bytes(), body].concat());
            }
            to.write_all(head.as_bytes())?;
            return to.write_all(body);
        };
        to.write_all(head.as_bytes())?;
        for piece in body.chunks(body.len().div_ceil(20).max(1)) {
            std::thread::sleep(pause);
            to.write_all(piece)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expect_continue_is_answered_before_the_body_is_read() {
        let head = "PUT /bucket/key HTTP/1.1\r\nContent-Length: 4\r\n";
        for (expect, told) in [("Expect: 100-Continue\r\n", "HTTP/1.1 100 Continue\r\n\r\n"), ("", "")] {
            let (bytes, mut to) = (format!("{head}{expect}\r\nbody"), Vec::new());
            let request = Request::read(&mut bytes.as_bytes(), &mut to).unwrap().unwrap();
            assert_eq!((request.path.as_str(), &request.body[..]), ("/bucket/key", &b"body"[..]));
            assert_eq!(to, told.as_bytes());
        }
    }
}
