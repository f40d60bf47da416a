//! A file system in an image, to be cut and mounted again. Owns: the image, the loop device, the
//! mount, and their end.

use super::shutdown::{Flush, shut_down};
use crate::mounting::{self, Fs};
use crate::{Options, Result};
use std::fs::File;
use std::path::PathBuf;

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
        let folder = mounting::new_folder(options.scratch.as_deref(), seed)?;
        // Btrfs has no shutdown: its image is cloned, on a file system that shares blocks.
        if options.fs == Fs::Btrfs {
            let outer =
                Self::make(Fs::Xfs, 1500, "", folder.clone(), folder.join("outer.img"), "outer", None)?;
            let image = outer.mount_point.join("disk.img");
            let outer = Some(Box::new(outer));
            return Self::make(
                options.fs,
                options.fs.mib(),
                &options.mount_options,
                folder,
                image,
                "disk",
                outer,
            );
        }
        let image = folder.join("disk.img");
        Self::make(options.fs, options.fs.mib(), &options.mount_options, folder, image, "disk", None)
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
        mounting::format(fs, &disk.image)?;
        disk.up()?;
        Ok(disk)
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
        self.device.take().map_or(Ok(()), |device| mounting::detach(&device))
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
        mounting::format(self.fs, &self.image)?;
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
