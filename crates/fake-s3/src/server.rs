//! The server: accepts, answers, fails as the script says, dies and restarts. Threads and
//! connections are here.

use crate::faults::{Call, Fault, Faults};
use crate::http::{Request, Response};
use crate::line::{Line, Slow};
use crate::objects::Objects;
use crate::s3;
use std::collections::{HashMap, VecDeque};
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The only bucket.
const BUCKET: &str = "bucket";
/// The delay of the repetition by [`Fault::TwiceLate`].
const LATER: Duration = Duration::from_millis(60);
/// The age of a listing by [`Fault::StaleList`], in answers.
const REMEMBERED: usize = 3;
/// The pause between the pieces of [`Fault::Trickle`].
const TRICKLE: Duration = Duration::from_millis(10);

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    objects: Objects,
    faults: Faults,
    life: Arc<Life>,
}

/// One life of a server: the state that dies with it.
#[derive(Debug, Default)]
struct Life {
    dead: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
    ignores_conditions: bool,
    line: Line,
    /// The last answers to each listing, the oldest first.
    listings: Mutex<HashMap<String, VecDeque<Response>>>,
}

impl Server {
    /// A server on a free port of loopback.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn start(objects: Objects) -> io::Result<Self> {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0)), objects, Faults::default(), false)
    }

    /// A server on a port of loopback.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn start_at(port: u16, objects: Objects) -> io::Result<Self> {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], port)), objects, Faults::default(), false)
    }

    /// A server that ignores `If-None-Match`, as some do.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn start_without_conditions(objects: Objects) -> io::Result<Self> {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0)), objects, Faults::default(), true)
    }

    fn listen(
        address: SocketAddr,
        objects: Objects,
        faults: Faults,
        ignores_conditions: bool,
    ) -> io::Result<Self> {
        let listener = bind(address)?;
        let address = listener.local_addr()?;
        let life = Arc::new(Life { ignores_conditions, ..Life::default() });
        let server =
            Self { address, objects: objects.clone(), faults: faults.clone(), life: Arc::clone(&life) };
        std::thread::spawn(move || accept(&listener, &objects, &faults, &life));
        Ok(server)
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// The script of faults, and the record of requests.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Makes all connections of this life share a line of this many bytes a second, in both
    /// directions; 0 is unlimited.
    pub fn limit_rate(&self, bytes_per_second: u64) {
        self.life.line.limit(bytes_per_second);
    }

    /// The stored objects.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Kills it: every connection is cut, and there are no more answers.
    pub fn kill(&self) {
        self.life.kill(self.address);
    }

    /// Whether it was killed, by [`Server::kill`] or by a fault.
    pub fn is_dead(&self) -> bool {
        self.life.dead.load(Ordering::SeqCst)
    }

    /// Restarts it at the same address, with the same objects and script.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill();
        let (objects, faults) = (self.objects.clone(), self.faults.clone());
        *self = Self::listen(self.address, objects, faults, self.life.ignores_conditions)?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The previous life may hold the port for a moment.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let mut tries = 0;
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < 100 => tries += 1,
            bound => return bound,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Life {
    fn kill(&self, address: SocketAddr) {
        if self.dead.swap(true, Ordering::SeqCst) {
            return;
        }
        for connection in self.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        // Wakes the accepting thread, which then releases the port.
        let _ = TcpStream::connect_timeout(&address, Duration::from_secs(1));
    }
}

fn accept(listener: &TcpListener, objects: &Objects, faults: &Faults, life: &Arc<Life>) {
    let Ok(address) = listener.local_addr() else { return };
    for connection in listener.incoming() {
        if life.dead.load(Ordering::SeqCst) {
            return;
        }
        let Ok(connection) = connection else { continue };
        let _ = connection.set_nodelay(true);
        if let Ok(clone) = connection.try_clone() {
            life.connections.lock().unwrap_or_else(PoisonError::into_inner).push(clone);
        }
        let (objects, faults, life) = (objects.clone(), faults.clone(), Arc::clone(life));
        std::thread::spawn(move || {
            // A broken connection is for the client to notice.
            let _ = serve(&connection, &objects, &faults, &life, address);
            let _ = connection.shutdown(Shutdown::Both);
        });
    }
}

fn serve(
    connection: &TcpStream,
    objects: &Objects,
    faults: &Faults,
    life: &Life,
    address: SocketAddr,
) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 << 10, Slow { connection, line: &life.line });
    let mut writer = Slow { connection, line: &life.line };
    while let Some(mut request) = Request::read(&mut reader, &mut writer)? {
        if life.dead.load(Ordering::SeqCst) {
            return Ok(());
        }
        if life.ignores_conditions {
            request.headers.remove("if-none-match");
        }
        let head_only = request.method == "HEAD";
        let call = call(&request);
        let (waiting, delay) = faults.waits(&call);
        let fault = faults.next(call);
        std::thread::sleep(delay);
        let response = match answer(objects, life, request, fault)? {
            Answer::Response(response) => response,
            Answer::Hang => return hang(connection),
            Answer::Close => return Ok(()),
            Answer::Die => {
                life.kill(address);
                return Ok(());
            }
        };
        drop(waiting);
        response_to(&mut writer, &response, head_only, fault)?;
        if fault == Some(Fault::CutBody) {
            return Ok(());
        }
    }
    Ok(())
}

enum Answer {
    Response(Response),
    Hang,
    Close,
    Die,
}

/// Applies a request, unless its fault comes before that.
fn answer(objects: &Objects, life: &Life, request: Request, fault: Option<Fault>) -> io::Result<Answer> {
    if let Some(answer) = before(fault) {
        return Ok(answer);
    }
    let response = proxied(objects, life, request, fault)?;
    Ok(match fault {
        Some(Fault::ErrorAfter) => Answer::Response(s3::error(500, "InternalError")),
        Some(Fault::ResetAfter) => Answer::Close,
        Some(Fault::HangAfter) => Answer::Hang,
        Some(Fault::KilledAfter) => Answer::Die,
        _ => Answer::Response(response),
    })
}

/// The answer of a fault that comes before the request is applied.
fn before(fault: Option<Fault>) -> Option<Answer> {
    let (status, code) = match fault? {
        Fault::SlowDown => (503, "SlowDown"),
        Fault::Conflict => (409, "ConditionalRequestConflict"),
        Fault::ClockSkew => (403, "RequestTimeTooSkewed"),
        Fault::WrongSecret => (403, "SignatureDoesNotMatch"),
        Fault::NotFound => (404, "NoSuchKey"),
        Fault::Full => (507, "InsufficientStorage"),
        Fault::NotAPage => (200, "InternalError"),
        Fault::EndlessList => {
            let page = "<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>";
            let page = format!("<ListBucketResult>{page}</ListBucketResult>");
            return Some(Answer::Response(Response::xml(200, page)));
        }
        Fault::ResetBefore => return Some(Answer::Close),
        Fault::Hang => return Some(Answer::Hang),
        Fault::KilledBefore => return Some(Answer::Die),
        _ => return None,
    };
    Some(Answer::Response(s3::error(status, code)))
}

/// Applies a request as a proxy in front of the store may: twice, later again, or from its cache.
fn proxied(
    objects: &Objects,
    life: &Life,
    mut request: Request,
    fault: Option<Fault>,
) -> io::Result<Response> {
    let listing = request.query("list-type").map(|_| format!("{}{:?}", request.path, request.query));
    let has_body = request.method == "GET";
    match fault {
        Some(Fault::Elsewhere) if listing.is_some() => drop(request.query.remove("prefix")),
        Some(Fault::Neighbour) if has_body || request.method == "HEAD" => {
            request.path = objects.before(&request.path).unwrap_or(request.path);
        }
        _ => {}
    }
    let again = matches!(fault, Some(Fault::Twice | Fault::TwiceLate)).then(|| request.clone());
    let mut response = s3::answer(objects, BUCKET, request)?;
    match (again, fault) {
        (Some(again), Some(Fault::Twice)) => response = s3::answer(objects, BUCKET, again)?,
        (Some(again), _) => {
            let objects = objects.clone();
            std::thread::spawn(move || {
                std::thread::sleep(LATER);
                let _ = s3::answer(&objects, BUCKET, again);
            });
        }
        _ => {}
    }
    if let Some(listing) = listing {
        let mut remembered = life.listings.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = remembered.entry(listing).or_default();
        if fault == Some(Fault::StaleList)
            && let Some(stale) = earlier.front()
        {
            return Ok(stale.clone());
        }
        earlier.push_back(response.clone());
        if earlier.len() > REMEMBERED {
            earlier.pop_front();
        }
    }
    match fault {
        Some(Fault::Flip) if has_body => response.body.flip(),
        Some(Fault::Short) if has_body => response.body.shorten(),
        Some(Fault::Bare) => response.headers.retain(|(name, _)| !name.starts_with("x-amz-meta-")),
        _ => {}
    }
    Ok(response)
}

/// Keeps the connection open and silent until the client gives it up or the server dies.
fn hang(mut connection: &TcpStream) -> io::Result<()> {
    io::copy(&mut connection, &mut io::sink()).map(drop)
}

fn response_to(
    to: &mut impl Write,
    response: &Response,
    head_only: bool,
    fault: Option<Fault>,
) -> io::Result<()> {
    if fault == Some(Fault::CutBody) {
        return response.write_half(to);
    }
    response.write(to, head_only, (fault == Some(Fault::Trickle)).then_some(TRICKLE))
}

fn call(request: &Request) -> Call {
    let query: Vec<String> = request.query.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let condition = if request.headers.contains_key("if-none-match") { " create" } else { "" };
    let range = request.header("range").map(|range| format!(" {range}")).unwrap_or_default();
    format!("{} {}?{}{condition}{range}", request.method, request.path, query.join("&"))
}
