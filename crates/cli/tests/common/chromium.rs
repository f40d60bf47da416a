//! Chromium, driven by its own protocol over two pipes. By hand, because the crates for it bring an
//! async runtime or 140 others and a minute of generated code, and a page is opened, clicked,
//! photographed and printed by a dozen messages: JSON, each ended by a zero byte.

use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Names that distributions give it.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// No sandbox: it refuses to work for root, as which CI runs, and the page is ours. And no talk of
/// its own.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// One page in a browser, which ends with it.
pub struct Chromium {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    profile: PathBuf,
    session: Option<String>,
    calls: u64,
    /// Events so far, oldest first.
    pub events: Vec<Json>,
}

impl Chromium {
    /// None where there is none.
    pub fn start() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let found = NAMES
            .iter()
            .find(|name| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))?;
        let nonce = u128::from_le_bytes(tensorkeep::engine::fresh_nonce());
        let profile = std::env::temp_dir().join(format!("tensorkeep-chromium-{nonce:032x}"));
        // The browser listens on descriptor 3 and answers on 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", found])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let to = child.stdin.take().expect("a pipe");
        let from = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut browser = Self { child, to, from, profile, session: None, calls: 0, events: Vec::new() };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        Some(browser)
    }

    /// A method of the protocol, and what it returns.
    pub fn call(&mut self, method: &str, params: Json) -> Json {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let mut answer = self.next();
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].take();
            }
            self.events.push(answer);
        }
    }

    /// Waits until an event has come; those before it are remembered.
    pub fn wait_for(&mut self, method: &str) {
        let came = |event: &Json| event["method"] == method;
        while !self.events.iter().any(came) {
            let event = self.next();
            self.events.push(event);
        }
    }

    fn next(&mut self) -> Json {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes).expect("the browser answers");
        assert_eq!(bytes.pop(), Some(0), "the browser ended");
        serde_json::from_slice(&bytes).expect("JSON")
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait(), std::fs::remove_dir_all(&self.profile));
    }
}
