//! A trainer that is stopped (SIGSTOP) while another one starts. While it lives it holds the run;
//! once it is killed the run is free; and if its lock was removed, it is fenced when it wakes up:
//! it saves nothing and deletes nothing.
//!
//! The trainer is this test's own binary, started again with an environment variable; it saves on
//! command.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use tensorkeep::engine::Local;
use tensorkeep::{ErrorKind, Keep, Result, Store, StoreOptions};
use test_support::{TempFolder, save, steps};

const CHILD: &str = "TENSORKEEP_ZOMBIE_RUN";

fn open(run: &Path) -> Result<Store> {
    let store = Store::open(Local::create(run)?, StoreOptions::new().keep(Keep::last(1)))?;
    store.resume()?;
    Ok(store)
}

/// Returns at once when not started as a trainer.
#[test]
fn child_that_is_stopped() {
    let Some(run) = std::env::var_os(CHILD) else { return };
    let say = |words: String| writeln!(std::io::stderr(), "{words}").unwrap();
    let store = open(Path::new(&run)).unwrap();
    say("@open".to_owned());
    for line in std::io::stdin().lines() {
        match save(&store, line.unwrap().parse().unwrap()) {
            Ok(_) => say("@saved".to_owned()),
            Err(error) => say(format!("@{}", error.kind().as_str())),
        }
    }
}

struct Trainer {
    process: Child,
    input: ChildStdin,
    words: BufReader<ChildStderr>,
}

impl Trainer {
    fn start(run: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_stopped", "--nocapture"])
            .env(CHILD, run)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let words = BufReader::new(process.stderr.take().unwrap());
        let mut trainer = Self { process, input, words };
        assert_eq!(trainer.word(), "@open");
        trainer
    }

    fn word(&mut self) -> String {
        let mut line = String::new();
        self.words.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn tell(&mut self, step: u64) {
        writeln!(self.input, "{step}").unwrap();
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// G9
#[test]
fn a_stopped_trainer_holds_the_run_until_it_is_killed() {
    let folder = TempFolder::new("stopped");
    let mut first = Trainer::start(folder.path());
    first.tell(10);
    assert_eq!(first.word(), "@saved");
    first.signal("-STOP");
    assert_eq!(open(folder.path()).unwrap_err().kind(), ErrorKind::Locked);
    first.signal("-KILL");
    first.process.wait().unwrap();
    let second = open(folder.path()).unwrap();
    assert_eq!(second.resume().unwrap().next_step(), 10);
    save(&second, 20).unwrap();
}

// G9 G3 G4
#[test]
fn a_zombie_whose_lock_was_taken_saves_and_deletes_nothing() {
    let folder = TempFolder::new("zombie");
    let mut zombie = Trainer::start(folder.path());
    zombie.tell(10);
    assert_eq!(zombie.word(), "@saved");
    zombie.signal("-STOP");
    // A hasty user's way to unlock a run.
    std::fs::remove_file(folder.path().join("LOCK")).unwrap();
    let second = open(folder.path()).unwrap();
    save(&second, 5).unwrap();
    let before = steps(&second);
    zombie.signal("-CONT");
    zombie.tell(20);
    assert_eq!(zombie.word(), format!("@{}", ErrorKind::Fenced.as_str()));
    assert_eq!(steps(&second), before);
    assert_eq!(second.latest().unwrap().unwrap().progress().unwrap().unwrap().step, 5, "the newer attempt's");
    save(&second, 6).unwrap();
}
