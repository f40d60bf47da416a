//! A block device that logs its requests, and fails a write on request: a file in FUSE behind a
//! loop device, which turns each block write into a write of that file and each flush into its
//! fsync. (The loop device has no FUA of its own: the kernel flushes instead.) This file creates
//! and removes the device and the file system on it.

use super::image::Image;
use crate::mounting::{self, Fs};
use crate::trainer::Word;
use crate::{Options, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
    Request, WriteFlags,
};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// The reason why there can be no such device here, if there is one.
pub fn why_not() -> Option<String> {
    match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => None,
        Err(error) => Some(format!("/dev/fuse: {error}")),
    }
}

/// The device's requests, and the trainer's messages in between, in one order.
#[derive(Clone, Debug)]
pub enum Event {
    Write {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Every write before this is kept in any case.
    Flush,
    Said(Word),
}

#[derive(Default)]
struct State {
    image: Image,
    log: Option<Vec<Event>>,
    /// Fails one write, after so many others.
    fail_after: Option<u64>,
}

type Shared = Arc<Mutex<State>>;

fn locked(shared: &Shared) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Device {
    shared: Shared,
    fs: Fs,
    mount_options: String,
    folder: PathBuf,
    session: Option<BackgroundSession>,
    loop_device: Option<String>,
    mounted: bool,
    /// Where the file system is mounted.
    pub mount_point: PathBuf,
}

impl Device {
    /// A formatted device, not mounted.
    pub fn create(options: &Options, seed: u64) -> Result<Self> {
        let folder = mounting::new_folder(options.scratch.as_deref(), seed)?;
        let mount_point = folder.join("disk");
        let mut device = Self {
            shared: Shared::default(),
            fs: options.fs,
            mount_options: options.mount_options.clone(),
            folder,
            session: None,
            loop_device: None,
            mounted: false,
            mount_point,
        };
        let (fuse, formatted) = (device.folder.join("fuse"), device.folder.join("formatted"));
        std::fs::create_dir(&device.mount_point)?;
        std::fs::create_dir(&fuse)?;
        File::create(&formatted)?.set_len(device.fs.mib() << 20)?;
        mounting::format(device.fs, &formatted)?;
        locked(&device.shared).image = Image::read(&formatted)?;
        std::fs::remove_file(&formatted)?;
        let files = Files(Arc::clone(&device.shared));
        device.session = Some(fuser::spawn_mount(files, &fuse, &Config::default())?);
        let name = mounting::attach(&fuse.join(FILE))?;
        device.loop_device = Some(name.clone());
        // FUSE splits larger requests, and where a later part fails, the loop device takes the
        // short write for a whole one (Linux 6.18): a lying drive, which is not the fault under
        // test.
        let limit = format!("/sys/block/{}/queue/max_sectors_kb", name.trim_start_matches("/dev/"));
        std::fs::write(limit, MOST_KIB)?;
        Ok(device)
    }

    pub fn image(&self) -> Image {
        locked(&self.shared).image.clone()
    }

    /// Replaces the disk in the device. Nothing may be mounted.
    pub fn load(&self, image: Image) {
        debug_assert!(!self.mounted);
        locked(&self.shared).image = image;
    }

    pub fn mount(&mut self) -> Result<()> {
        let device = self.loop_device.as_deref().unwrap_or_default();
        mounting::mount(device, &self.mount_point, self.fs, &self.mount_options)?;
        self.mounted = true;
        Ok(())
    }

    pub fn unmount(&mut self) -> Result<()> {
        mounting::unmount(&self.mount_point)?;
        self.mounted = false;
        Ok(())
    }

    /// Logs from now on, and returns the function that adds a trainer's messages to the log.
    pub fn record(&self) -> impl FnMut(Word) + Send + 'static {
        locked(&self.shared).log = Some(Vec::new());
        let shared = Arc::clone(&self.shared);
        move |word| {
            if let Some(log) = &mut locked(&shared).log {
                log.push(Event::Said(word));
            }
        }
    }

    /// Ends the log.
    pub fn recorded(&self) -> Vec<Event> {
        locked(&self.shared).log.take().unwrap_or_default()
    }

    /// Lets one write fail, after this many others.
    pub fn fail_after(&self, writes: u64) {
        locked(&self.shared).fail_after = Some(writes);
    }

    /// Ends failures. True if a write has failed.
    pub fn heal(&self) -> bool {
        locked(&self.shared).fail_after.take().is_none()
    }

    fn end(&mut self) -> Result<()> {
        if self.mounted {
            self.unmount()?;
        }
        if let Some(device) = self.loop_device.take() {
            mounting::detach(&device)?;
        }
        if let Some(session) = self.session.take() {
            // Detaching completes some time after its call.
            mounting::unmount(&self.folder.join("fuse"))?;
            session.join()?;
        }
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // A failed cleanup is printed, so that it can be done by hand.
        if let Err(error) = self.end() {
            eprintln!("powercut: {} stays: {error}", self.folder.display());
        }
    }
}

const FILE: &str = "blocks";
/// Limit of one request, in KiB.
const MOST_KIB: &str = "128";
const NUMBER: INodeNo = INodeNo(2);
/// Only the bytes change, and only the loop device reads them.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// A file system with one file.
struct Files(Shared);

impl Files {
    fn attributes(&self, number: INodeNo) -> FileAttr {
        let is_file = number == NUMBER;
        let size = if is_file { locked(&self.0).image.len() } else { 0 };
        FileAttr {
            ino: number,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file { FileType::RegularFile } else { FileType::Directory },
            perm: if is_file { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 512,
            flags: 0,
        }
    }
}

impl Filesystem for Files {
    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if Path::new(name) == Path::new(FILE) {
            reply.entry(&FOR_EVER, &self.attributes(NUMBER), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _file: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_EVER, &self.attributes(number));
    }

    fn open(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Direct I/O: the disk in the device may be replaced before the next read.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        _file: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(&locked(&self.0).image.read_at(offset, size as usize));
    }

    fn write(
        &self,
        _request: &Request,
        _number: INodeNo,
        _file: FileHandle,
        offset: u64,
        bytes: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = locked(&self.0);
        match state.fail_after {
            Some(0) => {
                state.fail_after = None;
                return reply.error(Errno::EIO);
            }
            Some(writes) => state.fail_after = Some(writes - 1),
            None => {}
        }
        if !state.image.write_at(offset, bytes) {
            return reply.error(Errno::ENOSPC);
        }
        if let Some(log) = &mut state.log {
            log.push(Event::Write { offset, bytes: bytes.to_vec() });
        }
        reply.written(bytes.len() as u32);
    }

    fn fsync(&self, _request: &Request, _number: INodeNo, _file: FileHandle, _data: bool, reply: ReplyEmpty) {
        if let Some(log) = &mut locked(&self.0).log {
            log.push(Event::Flush);
        }
        reply.ok();
    }

    fn flush(
        &self,
        _request: &Request,
        _number: INodeNo,
        _file: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fallocate(
        &self,
        _request: &Request,
        _number: INodeNo,
        _file: FileHandle,
        _offset: u64,
        _len: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        // Discards: a drive need not support them, and zeros are written instead.
        reply.error(Errno::EOPNOTSUPP);
    }
}
