//! Messages between ranks: frames with a checksum on a stream, and outcomes and lists as bytes.

use crate::error::{Error, ErrorKind, Result};
use crate::format::{crc32, le};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Hello = 1,
    Welcome = 2,
    Gather = 3,
    Broadcast = 4,
    /// The sender has failed; the bytes are its words.
    Failure = 5,
}

/// A message, and the number of the call that it belongs to.
#[derive(Debug)]
pub(super) struct Frame {
    pub kind: u8,
    pub call: u64,
    pub bytes: Vec<u8>,
}

const MAGIC: [u8; 4] = *b"TKPC";
const HEAD: usize = 28;
/// Bytes of one message at most.
const MOST: u64 = 1 << 30;
/// Bytes that are read at a time: memory is not taken for what does not come.
const STEP: u64 = 1 << 20;

/// Sends a frame by the deadline.
pub(super) fn send(
    stream: &mut TcpStream,
    kind: Kind,
    call: u64,
    bytes: &[u8],
    deadline: Instant,
) -> io::Result<()> {
    if bytes.len() as u64 > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message of more than 1 GiB"));
    }
    let mut head = [0; HEAD];
    head[0..4].copy_from_slice(&MAGIC);
    head[4] = kind as u8;
    head[8..16].copy_from_slice(&call.to_le_bytes());
    head[16..24].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    head[24..28].copy_from_slice(&crc32(bytes).to_le_bytes());
    for mut rest in [&head[..], bytes] {
        while !rest.is_empty() {
            stream.set_write_timeout(Some(left(deadline)?))?;
            match stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Receives a frame of at most so many bytes by the deadline.
pub(super) fn receive(stream: &mut TcpStream, most: u64, deadline: Instant) -> io::Result<Frame> {
    let mut head = [0; HEAD];
    fill(stream, &mut head, deadline)?;
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    if head[0..4] != MAGIC {
        return Err(wrong("what came is no message of a rank"));
    }
    let len = le::u64(&head, 16..24);
    if len > most.min(MOST) {
        return Err(wrong("a message that is too long"));
    }
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        let from = bytes.len();
        // OK to cast: at most a step.
        bytes.resize(from + (len - from as u64).min(STEP) as usize, 0);
        fill(stream, &mut bytes[from..], deadline)?;
    }
    if crc32(&bytes) != le::u32(&head, 24..28) {
        return Err(wrong("a message whose checksum is wrong"));
    }
    Ok(Frame { kind: head[4], call: le::u64(&head, 8..16), bytes })
}

fn fill(stream: &mut TcpStream, mut target: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !target.is_empty() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(target) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => target = &mut target[read..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The time until the deadline; an error once it is over.
pub(super) fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// Bytes or an error, as bytes.
pub(super) fn outcome(outcome: &Result<Vec<u8>>) -> Vec<u8> {
    match outcome {
        Ok(bytes) => [&[1], &bytes[..]].concat(),
        Err(error) => [&[0], error.kind().as_str().as_bytes(), b" ", error.to_string().as_bytes()].concat(),
    }
}

/// Bytes or an error again.
pub(super) fn result(bytes: &[u8]) -> Result<Vec<u8>> {
    match bytes.split_first() {
        Some((1, bytes)) => Ok(bytes.to_vec()),
        Some((0, words)) => {
            let words = String::from_utf8_lossy(words);
            let (kind, words) = words.split_once(' ').unwrap_or(("", &words));
            let known = KINDS.into_iter().find(|known| known.as_str() == kind);
            Err(Error::new(known.unwrap_or(ErrorKind::Io), words.to_owned()))
        }
        _ => Err(Error::invalid("a message of a rank that is no outcome")),
    }
}

/// The outcome of a rank, its error with the rank's number.
pub(super) fn of_rank(rank: usize, world: u32, bytes: &[u8]) -> Result<Vec<u8>> {
    result(bytes).map_err(|error| Error::new(error.kind(), format!("rank {rank} of {world}: {error}")))
}

/// Kinds that travel; another one arrives as `Io`.
const KINDS: [ErrorKind; 17] = [
    ErrorKind::NotFound,
    ErrorKind::AlreadyExists,
    ErrorKind::Locked,
    ErrorKind::Fenced,
    ErrorKind::Damaged,
    ErrorKind::Foreign,
    ErrorKind::NewerVersion,
    ErrorKind::Unsupported,
    ErrorKind::Invalid,
    ErrorKind::Mismatch,
    ErrorKind::LimitExceeded,
    ErrorKind::NoSpace,
    ErrorKind::Io,
    ErrorKind::Unknown,
    ErrorKind::Poisoned,
    ErrorKind::NotPromoted,
    ErrorKind::Busy,
];

/// Several byte strings as one.
pub(super) fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let with_len = |item: &Vec<u8>| [&(item.len() as u64).to_le_bytes(), &item[..]].concat();
    items.iter().flat_map(with_len).collect()
}

/// Several byte strings again.
pub(super) fn items(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut items = Vec::new();
    let broken = || Error::invalid("a message of rank 0 that is no list");
    while let Some((len, rest)) = bytes.split_first_chunk::<8>() {
        let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| broken())?;
        items.push(rest.get(..len).ok_or_else(broken)?.to_vec());
        bytes = &rest[len..];
    }
    if bytes.is_empty() { Ok(items) } else { Err(broken()) }
}
