//! A file system in an image, to be cut and mounted again. Owns: the image, the loop device, the mount, and their end.

use crate::shutdown::{Flush, shut_down};
use crate::{Fs, Options, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Why this cannot run here, if it cannot.
pub fn why_not(fs: Fs) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("mounting needs root".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("there are no loop devices".to_owned());
    }
    let needed = if fs == Fs::Btrfs { &["btrfs", "xfs"][..] } else { &[fs.name()] };
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

/// How the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The file system is shut down under the living process.
    Shutdown(Flush),
    /// The image is cloned at one moment; the process and its file system are thrown away.
    Clone,
}

impl Cut {
    pub fn name(self) -> &'static str {
        match self {
            Self::Shutdown(Flush::All) => "shutdown, everything flushed",
            Self::Shutdown(Flush::Journal) => "shutdown, journal flushed",
            Self::Shutdown(Flush::Nothing) => "shutdown, nothing flushed",
            Self::Clone => "clone of the image",
        }
    }
}

/// One file system, mounted.
pub struct Disk {
    fs: Fs,
    mount_options: String,
    image: PathBuf,
    device: Option<String>,
    mounted: bool,
    /// Where the file system is seen.
    pub mount_point: PathBuf,
    /// For images that are cloned: a file system that can, below.
    outer: Option<Box<Disk>>,
    folder: PathBuf,
}

impl Disk {
    /// A new image in a new folder, formatted and mounted.
    pub fn create(options: &Options, seed: u64) -> Result<Self> {
        let shm = Path::new("/dev/shm");
        let temp = std::env::temp_dir();
        let scratch = options.scratch.as_deref().unwrap_or(if shm.is_dir() { shm } else { &temp });
        let folder = scratch.join(format!("powercut-{}-{seed:x}", std::process::id()));
        std::fs::create_dir(&folder)?;
        // Btrfs has no shutdown: its image is cloned, on a file system that shares blocks.
        if options.fs == Fs::Btrfs {
            let outer =
                Self::make(Fs::Xfs, 1500, "", folder.clone(), folder.join("outer.img"), "outer", None)?;
            let image = outer.mount_point.join("disk.img");
            let outer = Some(Box::new(outer));
            return Self::make(options.fs, 256, &options.mount_options, folder, image, "disk", outer);
        }
        let mib = if options.fs == Fs::Xfs { 320 } else { 64 };
        let image = folder.join("disk.img");
        Self::make(options.fs, mib, &options.mount_options, folder, image, "disk", None)
    }

    fn make(
        fs: Fs,
        mib: u64,
        mount_options: &str,
        folder: PathBuf,
        image: PathBuf,
        name: &str,
        outer: Option<Box<Self>>,
    ) -> Result<Self> {
        let mount_point = folder.join(name);
        std::fs::create_dir(&mount_point)?;
        let mount_options = mount_options.to_owned();
        let mut disk =
            Self { fs, mount_options, image, device: None, mounted: false, mount_point, outer, folder };
        File::create(&disk.image)?.set_len(mib << 20)?;
        disk.format()?;
        disk.up()?;
        Ok(disk)
    }

    fn format(&self) -> Result<()> {
        let force = if self.fs == Fs::Ext4 { "-F" } else { "-f" };
        let mkfs = format!("mkfs.{}", self.fs.name());
        run(Command::new(mkfs).args(["-q", force]).arg(&self.image)).map(drop)
    }

    fn up(&mut self) -> Result<()> {
        if self.device.is_none() {
            let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&self.image))?;
            self.device = Some(device.trim().to_owned());
        }
        let options = CString::new(self.mount_options.as_str())?;
        let device = self.device.as_deref().unwrap_or_default();
        let (fs, flags) = (self.fs.name(), MountFlags::empty());
        mount(device, &self.mount_point, fs, flags, Some(options.as_c_str()))
            .map_err(|error| format!("mount of {device} ({fs}, {:?}): {error}", self.mount_options))?;
        self.mounted = true;
        Ok(())
    }

    fn down(&mut self) -> Result<()> {
        for _ in 0..400 {
            match unmount(&self.mount_point, UnmountFlags::empty()) {
                Ok(()) => {
                    self.mounted = false;
                    return Ok(());
                }
                Err(rustix::io::Errno::BUSY) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(format!("unmount: {error}").into()),
            }
        }
        Err("unmount: busy for two seconds".into())
    }

    fn detach(&mut self) -> Result<()> {
        match self.device.take() {
            Some(device) => run(Command::new("losetup").args(["-d", &device])).map(drop),
            None => Ok(()),
        }
    }

    /// The power goes. What the process does afterwards is in vain.
    pub fn cut(&self, cut: Cut) -> Result<()> {
        match cut {
            Cut::Shutdown(flush) => shut_down(&File::open(&self.mount_point)?, flush)?,
            Cut::Clone => {
                let clone = File::create(self.clone_path())?;
                rustix::fs::ioctl_ficlone(&clone, &File::open(&self.image)?)?;
            }
        }
        Ok(())
    }

    fn clone_path(&self) -> PathBuf {
        self.image.with_extension("cut")
    }

    /// The power is back: mounted again, which replays the journal. No process may be left on it.
    pub fn restart(&mut self, cut: Cut) -> Result<()> {
        self.down()?;
        if cut == Cut::Clone {
            self.detach()?;
            std::fs::rename(self.clone_path(), &self.image)?;
        }
        self.up()
    }

    /// Begins again with an empty file system.
    pub fn reset(&mut self) -> Result<()> {
        self.down()?;
        self.detach()?;
        self.format()?;
        self.up()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Inner before outer; what cannot be undone is said, so that somebody can.
        let undone = if self.mounted { self.down() } else { Ok(()) }.and_then(|()| self.detach());
        if let Err(error) = undone {
            eprintln!("powercut: {} stays: {error}", self.folder.display());
            return;
        }
        let is_inner = self.outer.take().is_some();
        if is_inner || self.fs != Fs::Xfs || self.image.ends_with("disk.img") {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}
