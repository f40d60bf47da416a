//! Formatting, loop devices and mounting, for every kind of disk here.

use crate::Result;
use clap::ValueEnum;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fs {
    Ext4,
    Xfs,
    Btrfs,
}

impl Fs {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Size of an image: about the least that its `mkfs` accepts.
    pub fn mib(self) -> u64 {
        match self {
            Self::Ext4 => 64,
            Self::Xfs => 320,
            Self::Btrfs => 256,
        }
    }

    /// The unit in bytes that it expects to be written atomically, at multiples of itself: its
    /// superblock, under one checksum. A drive promises this for one sector only, and after a cut
    /// through the superblock nothing can be mounted to be judged ("invalid superblock checksum.
    /// Run e2fsck?").
    pub fn atomic_bytes(self) -> u64 {
        match self {
            Self::Xfs => 512,
            Self::Ext4 => 1024,
            Self::Btrfs => 4096,
        }
    }
}

/// The reason why this cannot run here, if there is one. Cuts of Btrfs also need an XFS, which can
/// clone its image.
pub fn why_not(fs: Fs, cuts: bool) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("mounting needs root".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("there are no loop devices".to_owned());
    }
    let needed = if fs == Fs::Btrfs && cuts { &["btrfs", "xfs"][..] } else { &[fs.name()] };
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for name in needed {
        if !known.split_whitespace().any(|known| known == *name) {
            return Some(format!("the kernel has no {name}"));
        }
        let mut mkfs = Command::new(format!("mkfs.{name}"));
        if mkfs.arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            return Some(format!("there is no mkfs.{name}"));
        }
    }
    None
}

/// A new folder for images and mount points, in memory if there is room.
pub fn new_folder(scratch: Option<&Path>, seed: u64) -> Result<PathBuf> {
    let shm = Path::new("/dev/shm");
    let temp = std::env::temp_dir();
    let scratch = scratch.unwrap_or(if shm.is_dir() { shm } else { &temp });
    let folder = scratch.join(format!("powercut-{}-{seed:x}", std::process::id()));
    std::fs::create_dir(&folder)?;
    Ok(folder)
}

pub fn format(fs: Fs, image: &Path) -> Result<()> {
    let force = if fs == Fs::Ext4 { "-F" } else { "-f" };
    run(Command::new(format!("mkfs.{}", fs.name())).args(["-q", force]).arg(image)).map(drop)
}

/// Attaches a file to a loop device, and returns the device.
pub fn attach(file: &Path) -> Result<String> {
    let device = run(Command::new("losetup").args(["--find", "--show"]).arg(file))?;
    Ok(device.trim().to_owned())
}

pub fn detach(device: &str) -> Result<()> {
    run(Command::new("losetup").args(["-d", device])).map(drop)
}

pub fn mount(device: &str, point: &Path, fs: Fs, options: &str) -> Result<()> {
    let words = CString::new(options)?;
    rustix::mount::mount(device, point, fs.name(), MountFlags::empty(), Some(words.as_c_str()))
        .map_err(|error| format!("mount of {device} ({}, {options:?}): {error}", fs.name()).into())
}

pub fn unmount(point: &Path) -> Result<()> {
    for _ in 0..400 {
        match rustix::mount::unmount(point, UnmountFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::BUSY) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(format!("unmount of {}: {error}", point.display()).into()),
        }
    }
    Err(format!("unmount of {}: busy for two seconds", point.display()).into())
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}
