//! `serve [DIR|RUN]`: the report's pages on this machine, made anew when the run has changed.
//! Read-only: it answers GET with pages and nothing else. It listens on 127.0.0.1 unless another
//! address is asked for, and refuses requests whose Host is not its own, so that no web page can
//! read it through a name that points here (DNS rebinding).

mod http;

use crate::answer::{Answer, OutputFormat, Text};
use crate::args::Serve;
use crate::place::{Place, runs_in};
use crate::report::{self, Entry, Options};
use crate::{Done, output};
use http::{Limits, Request, Response};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use tensorkeep::{Error, ErrorKind, Reader, Result};

/// What pages may do: be themselves, and ask this server. Scripts and styles are in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page's address.
struct Serving<'a> {
    url: &'a str,
    place: &'a Place,
}

impl Answer for Serving<'_> {
    fn schema(&self) -> &'static str {
        "serve"
    }

    fn json(&self) -> Json {
        json!({ "url": self.url, "run": self.place.to_string() })
    }

    fn text(&self) -> Result<Text<'_>> {
        let place = output::clean(&self.place.to_string());
        Ok(Text::of(format_args!("{place}: {}\nCtrl-C ends it", self.url)))
    }
}

pub fn run(args: &Serve, format: OutputFormat) -> Done {
    let site = Site::open(Place::new(&args.target))?;
    let address = SocketAddr::new(args.address, args.port);
    let listener = TcpListener::bind(address).map_err(|error| cannot_listen(address, &error.to_string()))?;
    let port = listener.local_addr().map_or(args.port, |address| address.port());
    let host = if args.address.is_unspecified() { "localhost".to_owned() } else { in_url(args.address) };
    let url = format!("http://{host}:{port}/");
    format.print(&Serving { url: &url, place: &site.place })?;
    let own = Own { address: args.address, port };
    http::serve(&listener, Limits::default(), |request| answer(request, &site, own))
}

fn cannot_listen(address: SocketAddr, why: &str) -> Error {
    Error::new(ErrorKind::Io, format!("cannot listen on {address}: {why}"))
        .help("another program has this port: choose one with --port, or any that is free with --port 0")
}

fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Where this server is, as requests may name it.
#[derive(Clone, Copy, Debug)]
struct Own {
    address: IpAddr,
    port: u16,
}

impl Own {
    /// Whether a Host header names this server. An unspecified address has no name of its own:
    /// then any address, but no domain, will do.
    fn is_meant(self, host: &str) -> bool {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, port.parse().ok()),
            _ => (host, Some(80)),
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let is_address = bare.parse::<IpAddr>();
        let is_own = name.eq_ignore_ascii_case("localhost")
            || is_address.is_ok_and(|address| {
                address == self.address
                    || self.address.is_unspecified()
                    || (self.address.is_loopback() && address.is_loopback())
            });
        port == Some(self.port) && is_own
    }
}

/// The served place: one run, or the runs in a folder.
struct Site {
    place: Place,
    /// The run; None where the target is a folder of runs.
    run: Option<Reader>,
    pages: Mutex<BTreeMap<String, Arc<Page>>>,
}

/// A page as it was made, and what the run was like then.
struct Page {
    mark: String,
    html: String,
}

impl Site {
    fn open(place: Place) -> Result<Self> {
        let reader = place.reader()?;
        let run = match place.check_exists(&reader) {
            Ok(()) => Some(reader),
            Err(error) => match place.folder().map(runs_in) {
                Some(runs) if !runs.is_empty() => None,
                _ => return Err(error),
            },
        };
        Ok(Self { place, run, pages: Mutex::new(BTreeMap::new()) })
    }

    /// Content type and body of a path; None where nothing is. A path that ends in `mark` asks for
    /// news.
    fn at(&self, path: &str) -> Result<Option<(&'static str, String)>> {
        let (path, is_mark) = match path.strip_suffix("mark") {
            Some(page) if page.ends_with('/') => (page, true),
            _ => (path, false),
        };
        let name = match path {
            "/" => None,
            path => match path.strip_prefix("/run/").map(|name| decoded(name.trim_end_matches('/'))) {
                Some(Some(name)) => Some(name),
                _ => return Ok(None),
            },
        };
        let Some(shown) = self.shown(name.as_deref()) else { return Ok(None) };
        let mark = shown.mark()?;
        if is_mark {
            return Ok(Some(("text/plain; charset=utf-8", mark)));
        }
        let live = format!("{}mark", if path.ends_with('/') { path.to_owned() } else { format!("{path}/") });
        let page = self.page(path, mark, || shown.html(&live))?;
        Ok(Some(("text/html; charset=utf-8", page.html.clone())))
    }

    /// Names are looked up in what the folder holds: no path leads out of it.
    fn shown(&self, name: Option<&str>) -> Option<Shown> {
        let title = self.place.to_string();
        match (name, &self.run) {
            (None, Some(reader)) => Some(Shown::Run(title, reader.clone())),
            (None, None) => Some(Shown::Runs(title, self.runs())),
            (Some(_), Some(_)) => None,
            (Some(name), None) => {
                let (found, reader) = self.runs().into_iter().find(|(found, _)| found == name)?;
                Some(Shown::Run(format!("{title}/{found}"), reader))
            }
        }
    }

    fn runs(&self) -> Vec<(String, Reader)> {
        self.place.folder().map(runs_in).unwrap_or_default()
    }

    /// The page that was made last, if nothing has changed since; one is made at a time.
    fn page(&self, path: &str, mark: String, make: impl FnOnce() -> Result<String>) -> Result<Arc<Page>> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = pages.get(path).filter(|page| page.mark == mark) {
            return Ok(Arc::clone(page));
        }
        let page = Arc::new(Page { html: make()?, mark });
        // Each page is a megabyte: few are looked at side by side.
        if pages.len() >= 16 {
            pages.clear();
        }
        pages.insert(path.to_owned(), Arc::clone(&page));
        Ok(page)
    }
}

/// What one page is of.
enum Shown {
    Run(String, Reader),
    Runs(String, Vec<(String, Reader)>),
}

impl Shown {
    /// A text that changes when the page would.
    fn mark(&self) -> Result<String> {
        let mut mark = String::new();
        let readers: Vec<&Reader> = match self {
            Self::Run(_, reader) => vec![reader],
            Self::Runs(_, runs) => runs.iter().map(|(_, reader)| reader).collect(),
        };
        for reader in readers {
            let listed = reader.listed()?;
            let newest = listed.last().map(|listed| listed.id.to_string()).unwrap_or_default();
            let (count, attempts) = (listed.len(), reader.attempts()?.len());
            let _ = writeln!(mark, "{newest} {count} {attempts} {}", reader.set_aside()?.len());
        }
        Ok(mark)
    }

    fn html(&self, live: &str) -> Result<String> {
        let options = |title: &str| Options { live: Some(live.to_owned()), ..Options::titled(title) };
        match self {
            Self::Run(title, reader) => report::html(reader, &options(title)),
            Self::Runs(title, runs) => {
                let entry = |(name, reader): &(String, Reader)| Entry {
                    name: name.clone(),
                    href: Some(format!("/run/{}", encoded(name))),
                    reader: reader.clone(),
                };
                report::of_runs(&runs.iter().map(entry).collect::<Vec<_>>(), &options(title))
            }
        }
    }
}

fn answer(request: &Request, site: &Site, own: Own) -> Response {
    let (status, kind, body) = reply(request, site, own);
    let headers = vec![
        ("Content-Type", kind),
        ("Content-Security-Policy", POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
    ];
    Response { status, headers, body }
}

fn reply(request: &Request, site: &Site, own: Own) -> (u16, &'static str, String) {
    const TEXT: &str = "text/plain; charset=utf-8";
    let is_meant = matches!(request.hosts.as_slice(), [host] if own.is_meant(host));
    if !is_meant {
        return (403, TEXT, "this server answers to its own address only\n".to_owned());
    }
    if !matches!(&*request.method, "GET" | "HEAD") {
        return (405, TEXT, "this server only shows\n".to_owned());
    }
    let path = request.target.split(['?', '#']).next().unwrap_or_default();
    if path == "/favicon.ico" {
        return (204, TEXT, String::new());
    }
    match site.at(path) {
        Ok(Some((kind, body))) => (200, kind, body),
        Ok(None) => (404, TEXT, "there is no such page; / is the first\n".to_owned()),
        Err(error) => (500, TEXT, format!("{}\n", output::clean(&error.to_string()))),
    }
}

/// A name as a part of a path: everything but letters, digits and `-._~` by its bytes.
fn encoded(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte))
            }
            byte => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}

fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |digit: Option<u8>| char::from(digit?).to_digit(16);
        bytes.push((digit(rest.next())? * 16 + digit(rest.next())?) as u8);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_name_is_answered_to() {
        let own = |address: &str| Own { address: address.parse().unwrap(), port: 7007 };
        for host in ["127.0.0.1:7007", "localhost:7007", "[::1]:7007", "LOCALHOST:7007"] {
            assert!(own("127.0.0.1").is_meant(host), "{host}");
        }
        for host in
            ["evil.example:7007", "127.0.0.1", "127.0.0.1:80", "10.0.0.1:7007", "localhost.evil:7007", ""]
        {
            assert!(!own("127.0.0.1").is_meant(host), "{host}");
        }
        assert!(own("0.0.0.0").is_meant("10.0.0.5:7007") && !own("0.0.0.0").is_meant("evil.example:7007"));
    }

    #[test]
    fn names_survive_their_way_through_a_path() {
        for name in ["rte ft", "模型", "a/b", "100%", "<x>"] {
            assert_eq!(decoded(&encoded(name)).as_deref(), Some(name));
        }
        for wrong in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
