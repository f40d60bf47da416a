//! Ranks as threads, connected by TCP, over one engine whose calls a test may watch and change.

use std::fmt;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tensorkeep::engine::{Blob, Caps, Decorator, Engine, Lock, Memory, Upload};
use tensorkeep::ranks::Tcp;
use tensorkeep::{Error, ErrorKind, Result};

/// Runs `act` as each rank of a job; returns what each returned, or that it panicked.
pub fn job_that_may_die<T: Send>(world: u32, act: impl Fn(Tcp) -> T + Sync) -> Vec<thread::Result<T>> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let by = Instant::now() + Duration::from_secs(60);
    thread::scope(|scope| {
        let (act, listener) = (&act, &listener);
        let join = move |rank| match rank {
            0 => Tcp::listen(listener, world, "job", by).unwrap(),
            _ => Tcp::connect(address, rank, world, "job", by).unwrap(),
        };
        let threads: Vec<_> = (0..world).map(|rank| scope.spawn(move || act(join(rank)))).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    })
}

/// As [`job_that_may_die`], of ranks that do not.
pub fn job<T: Send>(world: u32, act: impl Fn(Tcp) -> T + Sync) -> Vec<T> {
    let died = |outcome: thread::Result<T>| outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    job_that_may_die(world, act).into_iter().map(died).collect()
}

/// What is called before a call of the engine: its name and key; an error is the call's.
type Hook = dyn Fn(&str, &str) -> Result<()> + Send + Sync;

/// Memory whose calls are logged and may fail. Clones are the same.
#[derive(Clone)]
pub struct Hooked {
    memory: Memory,
    hook: Arc<Mutex<Arc<Hook>>>,
    log: Arc<Mutex<Vec<String>>>,
    locks: bool,
}

impl Hooked {
    pub fn new() -> Self {
        let hook: Arc<Hook> = Arc::new(|_, _| Ok(()));
        Self { memory: Memory::new(), hook: Arc::new(Mutex::new(hook)), log: Arc::default(), locks: true }
    }

    /// The same objects as storage without locks has them.
    pub fn without_locks(&self) -> Self {
        Self { locks: false, ..self.clone() }
    }

    /// From now on `hook` is called before each call.
    pub fn hook(&self, hook: impl Fn(&str, &str) -> Result<()> + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Arc::new(hook);
    }

    /// The calls since the log was taken last.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// Keys of all objects under these folders.
    pub fn keys(&self, folders: &[&str]) -> Vec<String> {
        let listed = self.memory.list_each(folders).unwrap();
        let mut keys: Vec<String> = listed.into_iter().flatten().map(|entry| entry.key).collect();
        keys.sort();
        keys
    }

    /// An object's bytes.
    pub fn bytes(&self, key: &str) -> Vec<u8> {
        let blob = Engine::open(&self.memory, key).unwrap();
        let mut bytes = vec![0; blob.len() as usize];
        blob.read_at(0, &mut bytes).unwrap();
        bytes
    }

    /// Creates an object, past the hook.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let mut upload = Engine::create(&self.memory, key, None).unwrap();
        upload.append(bytes).unwrap();
        upload.commit(tensorkeep::engine::fresh_nonce()).unwrap();
    }

    /// Puts other bytes in an object's place.
    pub fn replace(&self, key: &str, bytes: &[u8]) {
        Engine::delete(&self.memory, key).unwrap();
        self.put(key, bytes);
    }

    /// Length of a checkpoint's own object.
    pub fn len_of(&self, id: &impl fmt::Display) -> u64 {
        Engine::open(&self.memory, &format!("{id}.tkeep")).unwrap().len()
    }

    /// Keys of all shards.
    pub fn shards(&self) -> Vec<String> {
        let folders: Vec<String> = (0..16).map(|digit| format!("shards/{digit:x}")).collect();
        self.keys(&folders.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn before(&self, call: &str, key: &str) -> Result<()> {
        self.log.lock().unwrap().push(format!("{call} {key}"));
        let hook = Arc::clone(&self.hook.lock().unwrap());
        hook(call, key)
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl Decorator for Hooked {
    type Inner = Memory;

    fn inner(&self) -> &Memory {
        &self.memory
    }

    fn create(&self, key: &str, size_hint: Option<u64>) -> Result<Box<dyn Upload>> {
        self.before("create", key)?;
        Engine::create(&self.memory, key, size_hint)
    }

    fn open(&self, key: &str) -> Result<Arc<dyn Blob>> {
        self.before("open", key)?;
        Engine::open(&self.memory, key)
    }

    fn list(&self, folder: &str) -> Result<Vec<tensorkeep::engine::Entry>> {
        self.before("list", folder)?;
        Engine::list(&self.memory, folder)
    }

    fn delete(&self, key: &str) -> Result<()> {
        self.before("delete", key)?;
        Engine::delete(&self.memory, key)
    }

    fn mark(&self, key: &str) -> Result<()> {
        self.before("mark", key)?;
        Engine::mark(&self.memory, key)
    }

    fn unmark(&self, key: &str) -> Result<()> {
        self.before("unmark", key)?;
        Engine::unmark(&self.memory, key)
    }

    fn lock(&self, holder: &str) -> Result<Box<dyn Lock>> {
        if self.locks {
            return Engine::lock(&self.memory, holder);
        }
        Err(Error::new(ErrorKind::Unsupported, "no locks here"))
    }

    fn caps(&self) -> Caps {
        let mut caps = Engine::caps(&self.memory);
        caps.lock = self.locks;
        caps
    }
}
