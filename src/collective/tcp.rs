//! Ranks that are connected by TCP: rank 0 listens, and each of the others has one connection with
//! it. Needs nothing but sockets; a rank of 1,024 and more needs as many descriptors.

use super::frame::{self, Kind};
use super::{Collective, another_call, check_world, failed_before, failure, lost, nothing_to_broadcast};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::RANKS;
use crate::sync::lock;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A job's ranks, connected by TCP.
pub struct Tcp {
    rank: u32,
    world: u32,
    state: Mutex<State>,
}

struct State {
    /// On rank 0 those of ranks 1, 2, …; on another rank that of rank 0.
    streams: Vec<TcpStream>,
    /// Calls so far.
    calls: u64,
    /// The words of the first failure.
    broken: Option<String>,
}

/// Between two attempts to connect, or to see whether somebody has.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes of a hello at most, and the time that a stranger gets for one.
const HELLO: u64 = 1024;
const HELLO_TIME: Duration = Duration::from_secs(2);
/// What a failure is given to reach the others.
const FAREWELL: Duration = Duration::from_millis(200);

impl Tcp {
    /// Rank 0 of a job: waits on `listener` until all others have come. `job` tells this start of
    /// the job from every other: who says another one is turned away.
    ///
    /// # Errors
    /// `Io` when ranks are missing at the deadline, which it names; `Invalid` for a world of 0.
    pub fn listen(listener: &TcpListener, world: u32, job: &str, deadline: Instant) -> Result<Self> {
        check_world(0, world, RANKS)?;
        let mut streams: Vec<Option<TcpStream>> = (1..world).map(|_| None).collect();
        listener.set_nonblocking(true).map_err(|error| Error::io("listening for ranks", error))?;
        while streams.iter().any(Option::is_none) {
            match listener.accept() {
                Ok((stream, _)) => {
                    if let Some((rank, stream)) = greeted(stream, world, job, &streams, deadline) {
                        streams[rank as usize - 1] = Some(stream);
                    }
                }
                Err(_) if frame::left(deadline).is_ok() => std::thread::sleep(PAUSE),
                Err(_) => {
                    let missing = (1..world).zip(&streams).filter(|(_, stream)| stream.is_none());
                    return Err(lost(&missing.map(|(rank, _)| rank).collect::<Vec<_>>(), "joining the job"));
                }
            }
        }
        let mut streams: Vec<TcpStream> = streams.into_iter().flatten().collect();
        for (stream, rank) in streams.iter_mut().zip(1..) {
            let welcome = frame::send(stream, Kind::Welcome, 0, &[], deadline);
            welcome.map_err(|error| lost(&[rank], "joining the job").because(error))?;
        }
        Ok(Self::over(0, world, streams))
    }

    /// Another rank of a job, whose rank 0 listens at `address`. Tries until the deadline.
    ///
    /// # Errors
    /// `Io` when rank 0 is not there by the deadline; `Fenced` when it turned this one away.
    pub fn connect(address: SocketAddr, rank: u32, world: u32, job: &str, deadline: Instant) -> Result<Self> {
        check_world(rank, world, RANKS)?;
        if rank == 0 {
            return Err(Error::invalid("rank 0 listens, and does not connect"));
        }
        let hello = [&rank.to_le_bytes()[..], &world.to_le_bytes(), job.as_bytes()].concat();
        loop {
            let late = |error: io::Error| lost(&[0], "joining the job").because(error);
            let left = frame::left(deadline).map_err(late)?;
            let joined = TcpStream::connect_timeout(&address, left).and_then(|mut stream| {
                stream.set_nodelay(true)?;
                frame::send(&mut stream, Kind::Hello, 0, &hello, deadline)?;
                let welcome = frame::receive(&mut stream, HELLO, deadline)?;
                Ok((stream, welcome))
            });
            match joined {
                Ok((stream, welcome)) if welcome.kind == Kind::Welcome as u8 => {
                    return Ok(Self::over(rank, world, vec![stream]));
                }
                Ok((_, refusal)) => {
                    let words = String::from_utf8_lossy(&refusal.bytes).into_owned();
                    return Err(Error::new(ErrorKind::Fenced, "rank 0 turned this rank away").found(words));
                }
                Err(error) if frame::left(deadline).is_err() => return Err(late(error)),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    fn over(rank: u32, world: u32, streams: Vec<TcpStream>) -> Self {
        Self { rank, world, state: Mutex::new(State { streams, calls: 0, broken: None }) }
    }

    /// Runs one call; a failure is told to the others, and ends all later calls.
    fn call<T>(&self, act: impl FnOnce(&mut State, u64) -> Result<T>) -> Result<T> {
        let mut state = lock(&self.state);
        if let Some(words) = &state.broken {
            return Err(failed_before(words));
        }
        let call = state.calls;
        state.calls += 1;
        let result = act(&mut state, call);
        if let Err(error) = &result {
            let words = error.to_string();
            let by = Instant::now() + FAREWELL;
            for stream in &mut state.streams {
                // A rank that does not read it sees the connection end.
                let _ = frame::send(stream, Kind::Failure, call, words.as_bytes(), by);
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
            state.broken = Some(words);
        }
        result
    }
}

impl Collective for Tcp {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn world(&self) -> u32 {
        self.world
    }

    fn gather(&self, bytes: &[u8], deadline: Instant) -> Result<Option<Vec<Vec<u8>>>> {
        self.call(|state, call| {
            if self.rank > 0 {
                state.send_to_root(Kind::Gather, call, bytes, deadline)?;
                return Ok(None);
            }
            let mut all = vec![bytes.to_vec()];
            let mut missing = Vec::new();
            for (stream, rank) in state.streams.iter_mut().zip(1..) {
                // Once one is late, the others are asked whether they are there already.
                let deadline = deadline.max(Instant::now() + Duration::from_millis(1));
                match frame::receive(stream, u64::MAX, deadline) {
                    Ok(found) => all.push(expect(found, Kind::Gather, call, rank)?),
                    Err(_) => missing.push(rank),
                }
            }
            if missing.is_empty() { Ok(Some(all)) } else { Err(lost(&missing, "at this call")) }
        })
    }

    fn broadcast(&self, bytes: Option<&[u8]>, deadline: Instant) -> Result<Vec<u8>> {
        self.call(|state, call| match (self.rank, bytes) {
            (0, Some(bytes)) => {
                let send = |(stream, rank): (&mut TcpStream, u32)| {
                    frame::send(stream, Kind::Broadcast, call, bytes, deadline).err().map(|_| rank)
                };
                let missing: Vec<u32> = state.streams.iter_mut().zip(1..).filter_map(send).collect();
                if missing.is_empty() { Ok(bytes.to_vec()) } else { Err(lost(&missing, "at this call")) }
            }
            (1.., None) => {
                let found = state.receive_from_root(deadline)?;
                expect(found, Kind::Broadcast, call, 0)
            }
            _ => Err(nothing_to_broadcast()),
        })
    }

    fn split(&self, deadline: Instant) -> Result<Arc<dyn Collective>> {
        let second = if self.rank == 0 { self.listen_again(deadline) } else { self.connect_again(deadline) };
        Ok(Arc::new(second?))
    }
}

impl Tcp {
    /// Where rank 0 listens for the second connections, and who they are of.
    fn listen_again(&self, deadline: Instant) -> Result<Tcp> {
        let failed = |error: io::Error| Error::io("listening for ranks", error);
        let here =
            lock(&self.state).streams.first().map(TcpStream::local_addr).transpose().map_err(failed)?;
        let ip = here.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip());
        let listener = TcpListener::bind((ip, 0)).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let job = format!("second {:?}", fresh());
        let message = [&port.to_le_bytes()[..], job.as_bytes()].concat();
        self.broadcast(Some(&message), deadline)?;
        Self::listen(&listener, self.world, &job, deadline)
    }

    fn connect_again(&self, deadline: Instant) -> Result<Tcp> {
        let message = self.broadcast(None, deadline)?;
        let (port, job) = message.split_first_chunk::<2>().ok_or_else(nothing_to_broadcast)?;
        let root = lock(&self.state).root()?.peer_addr();
        let mut address = root.map_err(|error| lost(&[0], "joining the job").because(error))?;
        address.set_port(u16::from_le_bytes(*port));
        Self::connect(address, self.rank, self.world, &String::from_utf8_lossy(job), deadline)
    }
}

/// Tells one second connection from every other.
fn fresh() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

impl State {
    fn root(&mut self) -> Result<&mut TcpStream> {
        self.streams.first_mut().ok_or_else(|| Error::invalid("a rank without a connection"))
    }

    fn send_to_root(&mut self, kind: Kind, call: u64, bytes: &[u8], deadline: Instant) -> Result<()> {
        let stream = self.root()?;
        frame::send(stream, kind, call, bytes, deadline).map_err(|error| {
            // It may have said why.
            match frame::receive(stream, u64::MAX, Instant::now() + FAREWELL) {
                Ok(found) if found.kind == Kind::Failure as u8 => failure(&found.bytes),
                _ => lost(&[0], "at this call").because(error),
            }
        })
    }

    fn receive_from_root(&mut self, deadline: Instant) -> Result<frame::Frame> {
        let stream = self.root()?;
        frame::receive(stream, u64::MAX, deadline).map_err(|error| lost(&[0], "at this call").because(error))
    }
}

/// The bytes of a frame, if its sender is at the same call.
fn expect(found: frame::Frame, kind: Kind, call: u64, rank: u32) -> Result<Vec<u8>> {
    if found.kind == Kind::Failure as u8 {
        return Err(failure(&found.bytes));
    }
    if (found.kind, found.call) == (kind as u8, call) {
        return Ok(found.bytes);
    }
    let name = |kind: u8| if kind == Kind::Gather as u8 { "a gather" } else { "a broadcast" };
    Err(another_call(rank).expected(format!("call {call}, {}", name(kind as u8))).found(format!(
        "call {}, {}",
        found.call,
        name(found.kind)
    )))
}

/// The rank of a connection that says hello as it should; another one is told why not, and closed.
fn greeted(
    mut stream: TcpStream,
    world: u32,
    job: &str,
    there: &[Option<TcpStream>],
    deadline: Instant,
) -> Option<(u32, TcpStream)> {
    stream.set_nonblocking(false).and_then(|()| stream.set_nodelay(true)).ok()?;
    let by = deadline.min(Instant::now() + HELLO_TIME);
    let hello = frame::receive(&mut stream, HELLO, by).ok()?;
    let (rank, rest) = hello.bytes.split_first_chunk::<4>()?;
    let (their_world, their_job) = rest.split_first_chunk::<4>()?;
    let (rank, their_world) = (u32::from_le_bytes(*rank), u32::from_le_bytes(*their_world));
    let refusal = if hello.kind != Kind::Hello as u8 || their_job != job.as_bytes() {
        "another start of the job".to_owned()
    } else if their_world != world || rank == 0 || rank >= world {
        format!("rank {rank} of {their_world}, in a job of {world}")
    } else if there[rank as usize - 1].is_some() {
        format!("another process plays rank {rank}")
    } else {
        return Some((rank, stream));
    };
    let _ = frame::send(&mut stream, Kind::Failure, 0, refusal.as_bytes(), by);
    None
}
