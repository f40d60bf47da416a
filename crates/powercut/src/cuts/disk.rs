//! A file system in an image, to be cut and mounted again: creates and removes the image, the loop
//! device and the mount.

use super::shutdown::{Flush, shut_down};
use crate::mounting::{self, Fs};
use crate::{Options, Result};
use std::fs::File;
use std::path::PathBuf;

/// The kind of power cut.
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
    /// Where the file system is mounted.
    pub mount_point: PathBuf,
    /// For images that are cloned: the file system below, which supports clones.
    outer: Option<Box<Disk>>,
    folder: PathBuf,
}

impl Disk {
    /// A new image in a new folder, formatted and mounted.
    pub fn create(options: &Options, seed: u64) -> Result<Self> {
        let folder = mounting::new_folder(options.scratch.as_deref(), seed)?;
        let mut disk = Self::planned(options.fs, folder.clone(), "disk");
        disk.mount_options = options.mount_options.clone();
        // Btrfs has no shutdown: its image is cloned, on a file system that shares blocks.
        if options.fs == Fs::Btrfs {
            let outer = Self::planned(Fs::Xfs, folder, "outer").make(1500)?;
            disk.image = outer.mount_point.join("disk.img");
            disk.outer = Some(Box::new(outer));
        }
        disk.make(options.fs.mib())
    }

    /// An image and a mount point in a folder, which do not exist yet.
    fn planned(fs: Fs, folder: PathBuf, name: &str) -> Self {
        Self {
            fs,
            mount_options: String::new(),
            image: folder.join(format!("{name}.img")),
            device: None,
            mounted: false,
            mount_point: folder.join(name),
            outer: None,
            folder,
        }
    }

    fn make(mut self, mib: u64) -> Result<Self> {
        std::fs::create_dir(&self.mount_point)?;
        File::create(&self.image)?.set_len(mib << 20)?;
        mounting::format(self.fs, &self.image)?;
        self.up()?;
        Ok(self)
    }

    fn up(&mut self) -> Result<()> {
        if self.device.is_none() {
            self.device = Some(mounting::attach(&self.image)?);
        }
        let device = self.device.as_deref().unwrap_or_default();
        mounting::mount(device, &self.mount_point, self.fs, &self.mount_options)?;
        self.mounted = true;
        Ok(())
    }

    fn down(&mut self) -> Result<()> {
        mounting::unmount(&self.mount_point)?;
        self.mounted = false;
        Ok(())
    }

    fn detach(&mut self) -> Result<()> {
        match self.device.take() {
            Some(device) => mounting::detach(&device),
            None => Ok(()),
        }
    }

    /// Cuts the power. Later writes of the process are lost.
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

    /// Restores the power: mounts again, which replays the journal. No process may be left on it.
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
        mounting::format(self.fs, &self.image)?;
        self.up()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Inner before outer; a failed cleanup is printed, so that it can be done by hand.
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
