//! Signals of launchers and users: a requested stop ends no loop before a save has answered it, two
//! deliveries are one request, and an application's own signal handling is restored when the store
//! is closed.
//!
//! Each test that sends signals is a process of its own: this test's binary, started again for that
//! one test.

use rustix::process::{Pid, Signal as Kill, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::low_level::raise;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tensorkeep::engine::{Local, Memory};
use tensorkeep::{
    Dtype, Every, LazyTensor, Progress, Reader, SaveReason, Snapshot, Store, StoreOptions, Tensor,
    store::Signal, tensor::Buffer,
};
use test_support::Gated;
use test_support::TempFolder;

const TEST: &str = "TENSORKEEP_SIGNALS_TEST";
const RUN: &str = "TENSORKEEP_SIGNALS_RUN";

fn is_child(test: &str) -> bool {
    std::env::var(TEST).is_ok_and(|name| name == test)
}

/// A command that runs one test of this binary, on the main thread.
fn command(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--test-threads=1", "--nocapture"]).env(TEST, test);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Runs `act` in a process of its own, which must succeed.
fn alone(test: &str, act: impl FnOnce()) {
    if is_child(test) {
        return act();
    }
    let output = command(test).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{:?}: {said}", output.status);
}

/// A child that trains.
struct Trainer {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Trainer {
    /// Started, and training.
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("training") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "the child never trained");
        }
        Self { child, output }
    }

    fn send(&self, signal: Kill) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its exit status, and its output.
    fn end(mut self) -> (ExitStatus, String) {
        drop(self.child.stdin.take());
        let (started, mut said) = (Instant::now(), String::new());
        while self.runs() {
            if started.elapsed() > Duration::from_secs(30) {
                self.child.kill().unwrap();
                panic!("the child never stopped");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.output.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }
}

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// A state that takes this long to save.
fn snapshot(step: u64, milliseconds: u64) -> Snapshot<'static> {
    let slow = LazyTensor::new(Dtype::U8, &[1], move || {
        pause(milliseconds);
        Tensor::owned(Dtype::U8, &[1], Buffer::copy_of(&[1])?)
    });

    Snapshot::new().tensor("slow", slow).unwrap().progress(Progress::new(step))
}

fn on_signal(engine: impl tensorkeep::engine::Engine + 'static) -> Store {
    Store::open(engine, StoreOptions::new().save(Every::steps(1_000_000).or_on_signal())).unwrap()
}

fn due(store: &Store, step: u64) -> Option<SaveReason> {
    store.due(&Progress::new(step))
}

/// The loop of the README, with saves that take this long.
fn train(milliseconds: u64) {
    let run = std::env::var(RUN).unwrap();
    let store = on_signal(Local::create(&run).unwrap());
    let mut step = store.resume().unwrap().next_step();
    // Before the first call there is nothing to save.
    assert_eq!(due(&store, step), None);
    println!("training");
    while !store.should_stop() {
        step += 1;
        pause(1);
        if due(&store, step).is_some() {
            store.save(&snapshot(step, milliseconds)).unwrap();
        }
    }
    println!("stopped at {step}.");
    // After the store is closed, a signal has its default effect.
    std::io::stdin().read_line(&mut String::new()).unwrap();
    store.close().unwrap();
}

fn trainer(test: &str, run: &TempFolder) -> Trainer {
    let mut command = command(test);
    command.env(RUN, run.path());
    Trainer::start(command)
}

/// Trains, is stopped by `ask`, and has saved the step that it stopped at.
fn stops_in_order(test: &str, ask: impl Fn(&Trainer)) {
    if is_child(test) {
        return train(20);
    }
    let run = TempFolder::new(test);
    for life in 0..20 {
        let trainer = trainer(test, &run);
        pause(life % 5);
        ask(&trainer);
        let (status, said) = trainer.end();
        assert!(status.success(), "life {life}: {status:?} {said}");
        let lives = Reader::open(run.path()).unwrap().history().unwrap().lives;
        // Of two signals that wait, the kernel delivers the one with the lower number first.
        let end = lives.last().map(|life| life.end.to_string()).unwrap_or_default();
        assert!(["stopped by SIGTERM", "stopped by SIGINT"].contains(&&*end), "life {life}: {end}");
        let store = Store::open(Local::create(run.path()).unwrap(), StoreOptions::new()).unwrap();
        let saved = store.latest().unwrap().expect("nothing was saved").progress().unwrap().unwrap().step;
        assert!(said.contains(&format!("stopped at {saved}.")), "life {life}: saved {saved}, {said}");
    }
}

#[test]
fn a_stop_that_is_also_forwarded_is_one_request() {
    stops_in_order("a_stop_that_is_also_forwarded_is_one_request", |trainer| {
        trainer.send(Kill::TERM);
        pause(1);
        trainer.send(Kill::TERM);
    });
}

#[test]
fn a_stop_that_is_repeated_many_times_is_one_request() {
    stops_in_order("a_stop_that_is_repeated_many_times_is_one_request", |trainer| {
        for i in 0..10 {
            trainer.send(Kill::TERM);
            if i == 0 {
                trainer.send(Kill::INT);
            }
            pause(1);
        }
    });
}

#[test]
fn a_launcher_may_repeat_a_stop_while_the_save_is_made() {
    const TEST: &str = "a_launcher_may_repeat_a_stop_while_the_save_is_made";
    if is_child(TEST) {
        return train(1500);
    }
    let run = TempFolder::new(TEST);
    let trainer = trainer(TEST, &run);
    for _ in 0..3 {
        trainer.send(Kill::TERM);
        pause(400);
    }
    let (status, said) = trainer.end();
    assert!(status.success() && said.contains("stopped at"), "{status:?} {said}");
}

#[test]
fn ctrl_c_pressed_again_ends_at_once() {
    const TEST: &str = "ctrl_c_pressed_again_ends_at_once";
    if is_child(TEST) {
        // Also where tests run in the background, and SIGINT is ignored.
        signal_hook::flag::register(SIGINT, Arc::default()).unwrap();
        return train(20_000);
    }
    let run = TempFolder::new(TEST);
    let mut trainer = trainer(TEST, &run);
    trainer.send(Kill::INT);
    pause(2);
    trainer.send(Kill::INT);
    pause(400);
    assert!(trainer.runs(), "the group's and the forwarder's are one");
    let pressed = Instant::now();
    trainer.send(Kill::INT);
    assert_eq!(trainer.end().0.code(), Some(130));
    assert!(pressed.elapsed() < Duration::from_secs(10), "it waited for the save");
}

#[test]
fn no_stop_falls_between_due_and_should_stop() {
    alone("no_stop_falls_between_due_and_should_stop", || {
        let store = on_signal(Memory::new());
        assert_eq!(due(&store, 701), None);
        raise(SIGTERM).unwrap();
        assert!(!store.should_stop(), "step 701 would be lost");
        assert_eq!(due(&store, 702), Some(SaveReason::Signal));
        assert!(!store.should_stop());
        store.save(&snapshot(702, 0)).unwrap();
        assert!(store.should_stop());
        assert_eq!(due(&store, 703), None, "it was answered");
    });
}

#[test]
fn a_save_that_fails_answers_no_stop() {
    alone("a_save_that_fails_answers_no_stop", || {
        let engine = Gated::default();
        let store = on_signal(engine.clone());
        engine.set(|gate| gate.fails = true);
        due(&store, 1);
        raise(SIGTERM).unwrap();
        assert_eq!(due(&store, 2), Some(SaveReason::Signal));
        store.save(&snapshot(2, 0)).unwrap_err();
        assert!(!store.should_stop());
        assert_eq!(due(&store, 3), Some(SaveReason::Signal));
        let pending = store.stage(&snapshot(3, 0)).unwrap().unwrap();
        pending.wait().unwrap_err();
        assert!(!store.should_stop());
        assert_eq!(due(&store, 4), Some(SaveReason::Again));
        engine.set(|gate| (gate.fails, gate.closed) = (false, true));
        store.stage(&snapshot(4, 0)).unwrap().unwrap();
        assert!(store.should_stop(), "it was handed over, and closing waits for it");
        engine.set(|gate| gate.closed = false);
        assert!(store.wait().is_err(), "step 3 failed");
        store.close().unwrap();
    });
}

#[test]
fn a_stop_with_nothing_left_to_save_is_answered() {
    alone("a_stop_with_nothing_left_to_save_is_answered", || {
        let store = on_signal(Memory::new());
        assert_eq!(due(&store, 0), None);
        raise(SIGTERM).unwrap();
        assert!(!store.should_stop());
        assert_eq!((due(&store, 0), store.should_stop()), (None, true), "nothing was trained");
        let store = on_signal(Memory::new());
        due(&store, 5);
        store.save(&snapshot(5, 0)).unwrap();
        raise(SIGTERM).unwrap();
        assert!(!store.should_stop(), "the next step may be under way");
        assert_eq!((due(&store, 5), store.should_stop()), (None, true));
    });
}

#[test]
fn a_stop_during_the_save_of_all_there_is_is_answered() {
    alone("a_stop_during_the_save_of_all_there_is_is_answered", || {
        let store = on_signal(Memory::new());
        due(&store, 5);
        let stop = |step| {
            let stop = LazyTensor::new(Dtype::U8, &[1], || {
                raise(SIGTERM).unwrap();
                Tensor::owned(Dtype::U8, &[1], Buffer::copy_of(&[1])?)
            });

            Snapshot::new().tensor("stop", stop).unwrap().progress(Progress::new(step))
        };
        store.save(&stop(5)).unwrap();
        assert!(store.should_stop());
        let store = on_signal(Memory::new());
        due(&store, 7);
        store.save(&stop(6)).unwrap();
        assert!(!store.should_stop(), "step 7 is not saved");
    });
}

#[test]
fn a_loop_that_saves_behind_its_end_stops_at_once() {
    alone("a_loop_that_saves_behind_its_end_stops_at_once", || {
        let store = on_signal(Memory::new());
        assert!(!store.should_stop());
        raise(SIGTERM).unwrap();
        assert!(store.should_stop(), "it never asks whether a save is due");
    });
}

#[test]
fn two_stores_answer_for_themselves() {
    alone("two_stores_answer_for_themselves", || {
        let stores = [on_signal(Memory::new()), on_signal(Memory::new())];
        for store in &stores {
            due(store, 1);
        }
        raise(SIGTERM).unwrap();
        stores[0].save(&snapshot(1, 0)).unwrap();
        assert_eq!([0, 1].map(|i| stores[i].should_stop()), [true, false]);
        let [first, second] = stores;
        drop(first);
        raise(SIGTERM).unwrap();
        assert_eq!(due(&second, 1), Some(SaveReason::Signal));
    });
}

#[test]
fn other_signals_ask_on_request() {
    alone("other_signals_ask_on_request", || {
        signal_hook::flag::register(SIGHUP, Arc::default()).unwrap();
        let every = Every::stop_on([Signal::Hup]).or(Every::save_on([Signal::Usr2, Signal::Hup]));
        let store = Store::open(Memory::new(), StoreOptions::new().save(every)).unwrap();
        raise(SIGUSR2).unwrap();
        assert_eq!(due(&store, 1), Some(SaveReason::Signal));
        store.save(&snapshot(1, 0)).unwrap();
        assert!(!store.should_stop() && due(&store, 2).is_none());
        raise(SIGHUP).unwrap();
        assert_eq!(due(&store, 2), Some(SaveReason::Signal));
        store.save(&snapshot(2, 0)).unwrap();
        assert!(store.should_stop());
    });
}

fn handler(signal: i32) -> Arc<AtomicBool> {
    let called = Arc::default();
    signal_hook::flag::register(signal, Arc::clone(&called)).unwrap();
    called
}

#[test]
fn handlers_of_the_application_outlive_the_store() {
    alone("handlers_of_the_application_outlive_the_store", || {
        let before = handler(SIGTERM);
        for _ in 0..3 {
            drop(on_signal(Memory::new()));
        }
        raise(SIGTERM).unwrap();
        assert!(before.swap(false, Ordering::SeqCst));
        let store = on_signal(Memory::new());
        raise(SIGTERM).unwrap();
        assert!(before.load(Ordering::SeqCst) && store.should_stop(), "both hear it while the store lives");
    });
}

/// The signals that this process ignores and catches, from /proc.
#[cfg(target_os = "linux")]
fn ignored_and_caught() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let lines = status.lines().filter(|line| line.starts_with("SigIgn") || line.starts_with("SigCgt"));
    lines.map(str::to_owned).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn no_handler_is_left_when_the_last_store_is_gone() {
    alone("no_handler_is_left_when_the_last_store_is_gone", || {
        let before = ignored_and_caught();
        let stores = [on_signal(Memory::new()), on_signal(Memory::new())];
        assert_ne!(ignored_and_caught(), before);
        drop(stores);
        assert_eq!(ignored_and_caught(), before);
    });
}

#[test]
fn a_handler_registered_beside_the_store_outlives_it() {
    alone("a_handler_registered_beside_the_store_outlives_it", || {
        let store = on_signal(Memory::new());
        let beside = handler(SIGTERM);
        raise(SIGTERM).unwrap();
        assert!(beside.swap(false, Ordering::SeqCst) && store.should_stop());
        drop(store);
        raise(SIGTERM).unwrap();
        assert!(beside.swap(false, Ordering::SeqCst));
        let store = on_signal(Memory::new());
        assert!(!store.should_stop(), "that was before it was opened");
        raise(SIGTERM).unwrap();
        assert!(beside.load(Ordering::SeqCst) && store.should_stop());
    });
}

/// Runs this test in a shell that ignores a signal, which its children inherit.
fn ignoring(test: &str, signal: &str) -> Command {
    let mut shell = Command::new("sh");
    let exe = std::env::current_exe().unwrap();
    shell.args(["-c", &format!("trap '' {signal}; exec \"$@\""), "sh"]).arg(exe);
    shell.args(["--exact", test, "--test-threads=1", "--nocapture"]).env(TEST, test);
    shell
}

#[test]
fn a_signal_that_was_ignored_is_ignored_again() {
    const TEST: &str = "a_signal_that_was_ignored_is_ignored_again";
    if is_child(TEST) {
        let store = on_signal(Memory::new());
        raise(SIGTERM).unwrap();
        assert!(store.should_stop());
        drop(store);
        raise(SIGTERM).unwrap();
        return;
    }
    let status = ignoring(TEST, "TERM").status().unwrap();
    assert!(status.success(), "{status:?}");
}

#[test]
fn nohup_and_background_jobs_stay_deaf() {
    const TEST: &str = "nohup_and_background_jobs_stay_deaf";
    if is_child(TEST) {
        let every = Every::stop_on([Signal::Hup, Signal::Int]);
        let store = Store::open(Memory::new(), StoreOptions::new().save(every)).unwrap();
        raise(SIGHUP).unwrap();
        raise(SIGINT).unwrap();
        assert!(!store.should_stop());
        return;
    }
    let status = ignoring(TEST, "HUP INT").status().unwrap();
    assert!(status.success(), "{status:?}");
}

#[test]
fn without_a_store_a_signal_ends_the_process_again() {
    const TEST: &str = "without_a_store_a_signal_ends_the_process_again";
    if is_child(TEST) {
        drop(on_signal(Memory::new()));
        raise(SIGTERM).unwrap();
        return;
    }
    let status = command(TEST).output().unwrap().status;
    assert_eq!(status.signal(), Some(SIGTERM), "{status:?}");
}

#[test]
#[expect(unsafe_code, reason = "fork has no safe form")]
fn a_forked_child_is_ended_by_a_signal_as_before() {
    alone("a_forked_child_is_ended_by_a_signal_as_before", || {
        let store = on_signal(Memory::new());
        // SAFETY: the child sleeps, is signalled, and ends without returning.
        let child = unsafe { libc::fork() };
        if child == 0 {
            pause(20_000);
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) };
        }
        let child = Pid::from_raw(child).unwrap();
        kill_process(child, Kill::TERM).unwrap();
        let (_, status) =
            rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.terminating_signal(), Some(SIGTERM));
        assert!(!store.should_stop(), "the parent was not asked");
    });
}
