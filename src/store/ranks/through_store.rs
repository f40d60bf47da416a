//! Ranks that are connected by nothing but the storage of their run. A message is an object that is
//! created once; a short one is in its name, so that rank 0's listing has read it.
//!
//! Messages lie in a folder of this start alone, so a process of an earlier start neither hears nor
//! is heard. A rank that was heard deletes its message; `join.rs` has how a start begins.

mod join;

use crate::collective::{
    Collective, another_call, check_world, failed_before, failure, lost, nothing_to_broadcast,
};
use crate::deadline::CallDeadline;
use crate::engine::{Engine, IntoEngine, fresh_nonce};
use crate::error::{Error, ErrorKind, NoneIf, Result};
use crate::format::crc32;
use crate::names::hex;
use crate::store::small;
use crate::sync::lock;
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

/// A job's ranks, connected by the storage of their run: for jobs without a network of their own.
///
/// Each call takes a few requests, so a store asks it for saves and not at every step: call
/// [`Store::due`](crate::Store::due) only every so many steps. At most 1,024 ranks; more of them
/// need [`Tcp`](crate::ranks::Tcp) or another [`Collective`].
///
/// ```
/// use std::time::{Duration, Instant};
/// use tensorkeep::engine::Memory;
/// use tensorkeep::ranks::{Collective, ThroughStore};
///
/// let run = Memory::new(); // a folder that all ranks share, or an object store
/// let by = Instant::now() + Duration::from_secs(20);
/// // The name is that of one start: a scheduler's job id and its restart count, for example.
/// let join = |rank| ThroughStore::join(run.clone(), rank, 2, "4711-0", by);
/// std::thread::scope(|scope| {
///     scope.spawn(|| join(1)?.gather(b"from rank 1", by));
///     let heard = join(0)?.gather(b"from rank 0", by)?.unwrap();
///     assert_eq!(heard, [b"from rank 0", b"from rank 1"]);
///     tensorkeep::Result::<()>::Ok(())
/// })?;
/// # tensorkeep::Result::<()>::Ok(())
/// ```
pub struct ThroughStore {
    engine: Arc<dyn Engine>,
    /// Of this start's messages.
    folder: String,
    rank: u32,
    world: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Calls so far.
    calls: u64,
    /// The words of the first failure.
    broken: Option<String>,
    /// Own messages that are there, with their calls.
    sent: Vec<(u64, String)>,
    /// How many of the calls were gathers; it is in each message's name, so that ranks at different
    /// calls do not take one for the other.
    gathers: u64,
    /// On rank 0: the newest call at which everybody was heard.
    gathered: Option<u64>,
}

/// Ranks of one job at most.
const MOST_RANKS: u32 = 1024;
/// Bytes that fit in a name, as hexadecimal digits.
const IN_NAME: usize = 80;
/// Bytes of one message at most.
const MOST: u64 = 1 << 30;
/// Messages that rank 0 reads at once.
const READERS: usize = 16;
/// Of so many looks, one is for a failure of another rank.
const LOOKS: u32 = 3;
/// What telling a failure may take.
const FAREWELL: Duration = Duration::from_secs(2);

impl ThroughStore {
    /// Joins a start of a job, as every rank does with its own number. `job` names this start, and
    /// no other ever: a name whose start has begun is refused.
    ///
    /// # Errors
    /// `Io` when ranks are missing at the deadline, which rank 0 names; `Fenced` when the name was
    /// used by another start, or two processes have one number; `Invalid` for a world of 0 or of
    /// more than 1,024 ranks, and for a name of other than 1 to 64 letters, digits, `-` and `_`;
    /// errors of the storage.
    pub fn join(place: impl IntoEngine, rank: u32, world: u32, job: &str, deadline: Instant) -> Result<Self> {
        check_world(rank, world, MOST_RANKS)?;
        let engine = place.into_engine()?;
        let folder = within(deadline, || join::join(&*engine, (rank, world), job, deadline))?;
        Ok(Self { engine, folder, rank, world, state: Mutex::default() })
    }

    /// Runs one call; a failure is told to the others, and ends all later calls.
    fn call<T>(&self, deadline: Instant, act: impl FnOnce(&mut State, u64) -> Result<T>) -> Result<T> {
        let mut state = lock(&self.state);
        if let Some(words) = &state.broken {
            return Err(failed_before(words));
        }
        let call = state.calls;
        state.calls += 1;
        within(deadline, || act(&mut state, call)).inspect_err(|error| {
            let words = error.to_string();
            // The first failure stays.
            let _ = within(Instant::now() + FAREWELL, || self.put(&self.key("failed"), words.as_bytes()));
            state.broken = Some(words);
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 > MOST {
            return Err(Error::invalid("length of a message")
                .expected(format!("at most {MOST}"))
                .found(bytes.len()));
        }
        let mut upload = self.engine.create(key, Some(bytes.len() as u64 + 4))?;
        upload.append(&crc32(bytes).to_le_bytes())?;
        upload.append(bytes)?;
        Ok(upload.commit(fresh_nonce())?)
    }

    fn get(&self, key: &str) -> Result<Vec<u8>> {
        let message = |content: &[u8]| -> Option<Vec<u8>> {
            let (checksum, bytes) = content.split_first_chunk::<4>()?;
            (crc32(bytes) == u32::from_le_bytes(*checksum)).then(|| bytes.to_vec())
        };
        let content = small::read(&*self.engine, key, MOST + 4, |content| message(content).is_some())?;
        message(&content)
            .ok_or_else(|| Error::damaged("checksum of a message").in_object(self.engine.describe(key)))
    }

    /// Sends a message to rank 0.
    fn send(&self, state: &mut State, call: u64, bytes: &[u8]) -> Result<()> {
        let mut name = format!("{call:010}.g{}.r{:05}", state.gathers, self.rank);
        let key = if bytes.len() <= IN_NAME {
            name.push_str(".x");
            name.push_str(&hex(bytes));
            let key = self.key(&name);
            // One whose reply was lost is there.
            let lost_reply =
                |error: &Error| matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Unknown);
            self.engine.mark(&key).none_if(lost_reply)?;
            key
        } else {
            let key = self.key(&name);
            self.put(&key, bytes)?;
            key
        };
        state.sent.push((call, key));
        Ok(())
    }

    /// Everybody's messages at a call, once all are there. On rank 0.
    fn hear_all(&self, state: &mut State, call: u64, deadline: Instant) -> Result<Vec<Vec<u8>>> {
        let mut wait = Wait::until(deadline, self.world);
        let of_call = loop {
            let mut there = BTreeMap::new();
            for entry in self.engine.list(&self.folder)? {
                if entry.key.ends_with("/failed") {
                    return Err(failure(&self.get(&entry.key)?));
                }
                let Some(message) = Message::of_key(&entry.key) else { continue };
                let is_between = message.call < call && Some(message.call) > state.gathered;
                if is_between || message.call == call && message.gathers != state.gathers {
                    return Err(another_call(message.rank).expected(call).found(message.call));
                }
                if message.call == call {
                    there.insert(message.rank, message);
                }
            }
            if there.len() as u64 + 1 == u64::from(self.world) {
                break there;
            }
            if !wait.pause() {
                let missing: Vec<u32> = (1..self.world).filter(|rank| !there.contains_key(rank)).collect();
                return Err(lost(&missing, "at this call"));
            }
        };
        state.gathered = Some(call);
        self.read_all(of_call.into_values().collect())
    }

    /// The bytes of messages, several read at once.
    fn read_all(&self, messages: Vec<Message>) -> Result<Vec<Vec<u8>>> {
        let read = |message: &Message| match &message.bytes {
            Some(bytes) => Ok(bytes.clone()),
            None => self.get(&message.key),
        };
        let share = messages.len().div_ceil(READERS).max(1);
        let deadline = CallDeadline::current();
        let read_share = |share: &[Message]| -> Result<Vec<Vec<u8>>> {
            let read_share = || share.iter().map(read).collect();
            deadline.as_ref().map_or_else(read_share, |deadline| deadline.enter(read_share))
        };
        if messages.iter().all(|message| message.bytes.is_some()) {
            return read_share(&messages);
        }
        std::thread::scope(|scope| {
            let readers: Vec<_> =
                messages.chunks(share).map(|share| scope.spawn(|| read_share(share))).collect();
            let joined =
                |reader: ScopedJoinHandle<'_, _>| reader.join().unwrap_or_else(|panic| resume_unwind(panic));
            let read: Result<Vec<Vec<Vec<u8>>>> = readers.into_iter().map(joined).collect();
            Ok(read?.concat())
        })
    }

    /// Rank 0's message at a call, once it is there.
    fn hear(&self, name: &str, deadline: Instant) -> Result<Vec<u8>> {
        let mut wait = Wait::until(later(deadline), self.world);
        let is_absent = |error: &Error| error.kind() == ErrorKind::NotFound;
        loop {
            if let Some(bytes) = self.get(&self.key(name)).none_if(is_absent)? {
                return Ok(bytes);
            }
            let is_over = !wait.pause();
            if (is_over || wait.looks.is_multiple_of(LOOKS))
                && let Some(words) = self.get(&self.key("failed")).none_if(is_absent)?
            {
                return Err(failure(&words));
            }
            if is_over {
                return Err(lost(&[0], "at this call"));
            }
        }
    }

    /// Deletes own messages of earlier calls, which everybody has read. What stays is a few small
    /// objects in a folder of their own.
    fn forget_before(&self, state: &mut State, call: u64) {
        state.sent.retain(|(sent, key)| {
            let is_read = *sent < call;
            if is_read {
                let _ = self.engine.delete(key);
            }
            !is_read
        });
    }
}

impl Collective for ThroughStore {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn world(&self) -> u32 {
        self.world
    }

    fn gather(&self, bytes: &[u8], deadline: Instant) -> Result<Option<Vec<Vec<u8>>>> {
        self.call(deadline, |state, call| {
            state.gathers += 1;
            if self.rank > 0 {
                self.send(state, call, bytes)?;
                return Ok(None);
            }
            let others = self.hear_all(state, call, deadline)?;
            // Ranks that have come to this call have heard all before it.
            self.forget_before(state, call);
            Ok(Some([vec![bytes.to_vec()], others].concat()))
        })
    }

    fn broadcast(&self, bytes: Option<&[u8]>, deadline: Instant) -> Result<Vec<u8>> {
        self.call(deadline, |state, call| match (self.rank, bytes) {
            (0, Some(bytes)) => {
                let key = self.key(&broadcast(call, state.gathers));
                self.put(&key, bytes)?;
                state.sent.push((call, key));
                Ok(bytes.to_vec())
            }
            (1.., None) => {
                let heard = self.hear(&broadcast(call, state.gathers), deadline)?;
                // Rank 0 was at every call before this one.
                self.forget_before(state, call);
                Ok(heard)
            }
            _ => Err(nothing_to_broadcast()),
        })
    }

    /// A second folder of messages: no message is needed to agree on it.
    fn split(&self, _: Instant) -> Result<Arc<dyn Collective>> {
        let Self { rank, world, .. } = *self;
        let folder = join::second(&self.folder);
        Ok(Arc::new(Self { engine: Arc::clone(&self.engine), folder, rank, world, state: Mutex::default() }))
    }
}

/// A message to rank 0 that is there.
struct Message {
    key: String,
    call: u64,
    gathers: u64,
    rank: u32,
    /// None where they are in the object.
    bytes: Option<Vec<u8>>,
}

impl Message {
    fn of_key(key: &str) -> Option<Self> {
        let mut parts = key.rsplit('/').next()?.split('.');
        let call = parts.next()?.parse().ok()?;
        let gathers = parts.next()?.strip_prefix('g')?.parse().ok()?;
        let rank = parts.next()?.strip_prefix('r')?.parse().ok()?;
        let bytes = parts.next().map(|digits| bytes_of(digits.strip_prefix('x')?));
        Some(Self {
            key: key.to_owned(),
            call,
            gathers,
            rank,
            bytes: bytes.map_or(Some(None), |bytes| bytes.map(Some))?,
        })
    }
}

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let byte = |pair: &[u8]| u8::try_from(digit(pair.first()?)? * 16 + digit(pair.get(1)?)?).ok();
    digits.as_bytes().chunks(2).map(byte).collect()
}

/// The name of rank 0's message at a call, behind so many gathers.
fn broadcast(call: u64, gathers: u64) -> String {
    format!("{call:010}.b{gathers}")
}

/// Looks with pauses between them, longer and longer ones, until a deadline.
struct Wait {
    deadline: Instant,
    pause: Duration,
    longest: Duration,
    looks: u32,
}

impl Wait {
    /// Many ranks look less often each: an object store answers some thousand reads a second.
    fn until(deadline: Instant, world: u32) -> Self {
        let longest = Duration::from_millis(250 + u64::from(world));
        Self { deadline, pause: Duration::from_millis(2), longest, looks: 0 }
    }

    /// Pauses before another look; false when the deadline is over.
    fn pause(&mut self) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        std::thread::sleep(self.pause.min(left));
        self.pause = (self.pause * 3 / 2).min(self.longest);
        self.looks += 1;
        !left.is_zero()
    }
}

/// How long the others wait for rank 0's word: it may itself wait until the deadline, and says then
/// who is missing.
fn later(deadline: Instant) -> Instant {
    deadline.checked_add(Duration::from_millis(500)).unwrap_or(deadline)
}

/// Bounds the storage's requests by the call's deadline, and by no other: a wait for ranks is none
/// for the storage. A look that begins in time may end a little later.
fn within<T>(deadline: Instant, act: impl FnOnce() -> T) -> T {
    const LAST_LOOK: Duration = Duration::from_millis(1500);
    CallDeadline::apart(deadline.saturating_duration_since(Instant::now()).saturating_add(LAST_LOOK))
        .enter(act)
}
