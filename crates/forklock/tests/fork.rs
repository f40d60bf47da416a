//! Real forks: a child that lives on keeps nothing locked, and a child cannot unlock what its
//! parent holds.
#![expect(unsafe_code, reason = "forks")]

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tensorkeep_forklock::NotInherited;

/// Each test forks, and the children inherit the files that the others have open.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("forklock-{name}-{}", std::process::id()))
}

fn locked(path: &PathBuf) -> NotInherited {
    let file = NotInherited::new(File::options().create(true).append(true).open(path).unwrap()).unwrap();
    file.try_lock().unwrap();
    file
}

fn is_free(path: &PathBuf) -> bool {
    File::open(path).unwrap().try_lock().is_ok()
}

/// A child that runs `live` and then waits until it is released.
struct Child {
    pid: i32,
    says: std::io::PipeReader,
    waits: Option<std::io::PipeWriter>,
}

fn fork(live: impl FnOnce() -> bool) -> Child {
    let (mut wait, waits) = std::io::pipe().unwrap();
    let (says, mut say) = std::io::pipe().unwrap();
    // SAFETY: the child makes system calls on inherited values, and exits without running anything
    // of the parent's.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        drop(waits);
        let _ = say.write_all(&[u8::from(live())]);
        let _ = wait.read(&mut [0]);
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    Child { pid, says, waits: Some(waits) }
}

impl Child {
    fn said(&mut self) -> bool {
        let mut word = [0];
        self.says.read_exact(&mut word).unwrap();
        word == [1]
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.waits = None;
        // SAFETY: waits for the child that was made above.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
    }
}

#[test]
fn a_child_that_lives_on_keeps_nothing_locked() {
    let _alone = alone();
    let path = path("lives-on");
    let files: Vec<NotInherited> = (0..20).map(|i| locked(&path.with_extension(i.to_string()))).collect();
    let mut child = fork(|| true);
    assert!(child.said());
    for i in 0..20 {
        assert!(!is_free(&path.with_extension(i.to_string())), "the parent's own lock went with the fork");
    }
    // Closed, not unlocked: as when the process dies.
    drop(files);
    for i in 0..20 {
        assert!(is_free(&path.with_extension(i.to_string())), "the child keeps it");
        std::fs::remove_file(path.with_extension(i.to_string())).unwrap();
    }
}

#[test]
fn a_childs_changes_to_its_copy_do_not_affect_the_parent() {
    let _alone = alone();
    let path = path("copy");
    let file = locked(&path);
    let mut child = fork(|| {
        let read = (&*file).read(&mut [0; 8]);
        let unlocked = file.unlock();
        matches!(read, Ok(0) | Err(_)) && unlocked.is_ok()
    });
    assert!(child.said(), "the child's descriptor is not an open, empty one");
    assert!(!is_free(&path), "the child unlocked its parent's file");
    drop(child);
    assert!(!is_free(&path), "the child's end unlocked its parent's file");
    drop(file);
    assert!(is_free(&path));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn places_are_used_again_and_other_files_are_left_alone() {
    let _alone = alone();
    let path = path("again");
    for _ in 0..3 {
        drop([locked(&path.with_extension("a")), locked(&path.with_extension("b"))]);
    }
    // It may have got the number of a locked file.
    std::fs::write(&path, b"plain").unwrap();
    let mut plain = File::open(&path).unwrap();
    let mut child = fork(|| {
        let mut bytes = Vec::new();
        plain.read_to_end(&mut bytes).is_ok() && bytes == b"plain"
    });
    assert!(child.said(), "another file was taken for a locked one");
    drop(child);
    for path in [path.with_extension("a"), path.with_extension("b"), path] {
        std::fs::remove_file(path).unwrap();
    }
}
