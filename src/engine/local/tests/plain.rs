//! Plain files: what a save to a path replaces, and what it refuses to replace.

use super::*;

#[test]
fn a_plain_save_goes_to_the_file_that_a_link_means() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new("replace-links");
    let (here, there) = (folder.0.join("here"), folder.0.join("there"));
    for folder in [&here, &there] {
        std::fs::create_dir(folder).unwrap();
    }
    std::fs::write(there.join("file"), b"old").unwrap();
    symlink("../there/file", here.join("link")).unwrap();
    symlink("link", here.join("link-to-link")).unwrap();
    symlink(there.join("new"), here.join("dangling")).unwrap();
    symlink("circle", here.join("circle")).unwrap();
    symlink("../there", here.join("folder")).unwrap();
    let replace =
        |name: &str, byte: u8| replace_file(&here.join(name), None, |upload| upload.append(&[byte; 9]));
    replace("link-to-link", 1).unwrap();
    assert_eq!(std::fs::read(there.join("file")).unwrap(), [1; 9]);
    replace("dangling", 2).unwrap();
    assert_eq!(std::fs::read(there.join("new")).unwrap(), [2; 9]);
    for link in ["link", "link-to-link", "dangling"] {
        assert!(here.join(link).symlink_metadata().unwrap().is_symlink(), "{link} is no link any more");
    }
    for (refused, why) in [("circle", "circle"), ("folder", "folder"), ("", "folder")] {
        let error = replace(refused, 3).unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(why), "{error}");
    }
    assert_eq!(replace_file(Path::new(""), None, |_| Ok(())).unwrap_err().kind(), ErrorKind::Invalid);
    let names = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
    assert_eq!((names(&here), names(&there)), (5, 2), "something was left");
}

#[test]
fn a_plain_save_replaces_no_device_no_pipe_and_no_socket() {
    let folder = Folder::new("replace-devices");
    let mut names = no_objects(&folder.0).to_vec();
    let device = rustix::fs::makedev(1, 3);
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.0.join("device"),
        rustix::fs::FileType::CharacterDevice,
        0o600.into(),
        device,
    );
    // Only root may.
    names.extend(made.is_ok().then_some("device"));
    for name in names {
        let path = folder.0.join(name);
        let before = path.symlink_metadata().unwrap().file_type();
        let error = replace_file(&path, None, |upload| upload.append(b"x")).unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid, "{name}: {error}");
        assert_eq!(path.symlink_metadata().unwrap().file_type(), before, "{name} was replaced");
    }
}

#[test]
fn a_plain_save_whose_file_was_taken_for_dead_writes_another() {
    let folder = Folder::new("taken");
    let path = folder.0.join("lenet.tkeep");
    let temp = folder.0.join(format!("{PLAIN_TEMP_PREFIX}lenet.tkeep"));
    // Between the creation and the hold, which are both calls of the file system, another save
    // unlinks the name.
    let faults = Faults::new();
    let taken = temp.clone();
    faults.before("flock", move || std::fs::remove_file(&taken).unwrap());
    let vfs = FailingVfs::new(&faults);
    replace::replace_on(&vfs, &path, None, |upload| upload.append(&[7; 1000])).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), [7; 1000]);
    assert_eq!(folder.names(), ["lenet.tkeep"]);
}

// [R121]
#[test]
fn a_plain_save_is_atomic_whatever_call_fails() {
    for step in 0.. {
        let folder = Folder::new("replace");
        let path = folder.0.join("lenet.tkeep");
        std::fs::write(&path, b"old").unwrap();
        let faults = Faults::new();
        faults.fail_after(step, 1, Fault::Errno(EIO));
        let result = replace::replace_on(&FailingVfs::new(&faults), &path, Some(300_000), |upload| {
            upload.append(&[7; 300_000])
        });
        faults.heal();
        let failed = faults.take_calls().get(step).map(|call| call.name);
        let now = std::fs::read(&path).unwrap();
        assert!(now == b"old" || now == [7; 300_000], "{failed:?} left a mixture");
        match result {
            Ok(()) => assert_eq!(now, [7; 300_000], "{failed:?}"),
            Err(error) if error.kind() == ErrorKind::Unknown => assert_eq!(now, [7; 300_000], "{failed:?}"),
            Err(_) => assert_eq!(now, b"old", "{failed:?}"),
        }
        assert_eq!(folder.names(), ["lenet.tkeep"], "{failed:?} left something behind");
        if failed.is_none() {
            break;
        }
    }
}

// [R115]
#[test]
fn a_plain_save_whose_fsync_failed_writes_another_file() {
    let folder = Folder::new("replace-fsync");
    let path = folder.0.join("lenet.tkeep");
    let faults = Faults::new();
    faults.fail_named("fsync", 0, 1, Fault::Errno(EIO));
    replace::replace_on(&FailingVfs::new(&faults), &path, None, |upload| upload.append(&[7; 1000])).unwrap();
    let mut names: Vec<&str> = faults.take_calls().iter().map(|call| call.name).collect();
    names.retain(|name| ["create", "write", "fsync"].contains(name));
    let behind = names.iter().position(|name| *name == "fsync").unwrap() + 1;
    let next = names[behind..].iter().position(|name| *name == "fsync").unwrap();
    let between = &names[behind..behind + next];
    assert!(between.contains(&"create") && between.contains(&"write"), "the same file again: {names:?}");
    assert_eq!((std::fs::read(&path).unwrap(), folder.names().len()), (vec![7; 1000], 1));
}

#[test]
fn leftovers_of_a_killed_plain_save_go_with_the_next_one() {
    let folder = Folder::new("killed-replace");
    let path = folder.0.join("lenet.tkeep");
    let [left, other] =
        ["lenet", "other"].map(|name| folder.0.join(format!("{PLAIN_TEMP_PREFIX}{name}.tkeep")));
    for file in [&left, &other] {
        std::fs::write(file, b"half").unwrap();
    }
    let replace = |byte: u8| replace_file(&path, None, |upload| upload.append(&[byte; 1000]));
    replace(1).unwrap();
    assert_eq!(folder.names(), [".tmp-~other.tkeep", "lenet.tkeep"], "another path's is left alone");
    // A live writer's file is left alone, too, and does no harm.
    let live = std::fs::File::create(&left).unwrap();
    live.lock().unwrap();
    replace(2).unwrap();
    drop(Local::create(&folder.0).unwrap().lock("a store in the same folder").unwrap());
    assert_eq!((left.exists(), std::fs::read(&path).unwrap()), (true, vec![2; 1000]));
    assert!(!other.exists(), "a dead one's is swept");
    drop(live);
    replace(3).unwrap();
    assert!(!left.exists());
}

#[test]
fn concurrent_plain_saves_to_one_path_do_not_interfere() {
    let folder = Folder::new("racing-replace");
    let path = folder.0.join("lenet.tkeep");
    std::thread::scope(|scope| {
        for byte in 0..4_u8 {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..50 {
                    replace_file(path, None, |upload| upload.append(&[byte; 5000])).unwrap();
                    let now = std::fs::read(path).unwrap();
                    assert!(now.len() == 5000 && now.iter().all(|&there| there == now[0]));
                }
            });
        }
    });
    assert_eq!(folder.names(), ["lenet.tkeep"]);
}
