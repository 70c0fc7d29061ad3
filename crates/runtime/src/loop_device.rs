//! Loop devices: a file as a block device, for volumes in block mode.
//!
//! Nothing is remembered: which device a file has is what the kernel says (`/sys/block/loop*/loop/backing_file`), so a new server
//! goes on with the devices of an old one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::sys;

/// `linux/loop.h`
const LOOP_SET_FD: u64 = 0x4c00;
const LOOP_CLR_FD: u64 = 0x4c01;
const LOOP_SET_CAPACITY: u64 = 0x4c07;
const LOOP_CTL_GET_FREE: u64 = 0x4c82;
/// `linux/major.h`
const LOOP_MAJOR: u32 = 7;
/// How often somebody else may take the free device before us.
const RACES_MAX: usize = 16;

/// Makes a file a block device, at least `bytes` large, and answers the device. A file that is one already stays it, and grows.
pub fn attach(image: &Path, bytes: u64) -> io::Result<PathBuf> {
    let image = image.canonicalize()?;
    let file = OpenOptions::new().read(true).write(true).open(&image)?;
    let grows = file.metadata()?.len() < bytes;
    if grows {
        file.set_len(bytes)?;
    }
    if let Some(device) = find(&image)? {
        if grows {
            sys::ioctl_number(open(&device)?.as_fd(), LOOP_SET_CAPACITY, 0)?;
        }
        return Ok(device);
    }
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..RACES_MAX {
        let number = sys::ioctl_number(control.as_fd(), LOOP_CTL_GET_FREE, 0)?;
        let number = u32::try_from(number).map_err(|_| ErrorKind::InvalidData)?;
        let device = PathBuf::from(format!("/dev/loop{number}"));
        if !device.exists() {
            let mode = Mode::from_raw_mode(0o600);
            match mknodat(CWD, &device, FileType::BlockDevice, mode, makedev(LOOP_MAJOR, number)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match sys::ioctl_number(open(&device)?.as_fd(), LOOP_SET_FD, file.as_raw_fd() as u64) {
            Ok(_) => return Ok(device),
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no loop device could be had"))
}

/// Frees the device of a file. Nothing to do is no error; while somebody has the device open, the kernel frees it afterwards.
pub fn detach(image: &Path) -> io::Result<()> {
    let Ok(image) = image.canonicalize() else { return Ok(()) };
    let Some(device) = find(&image)? else { return Ok(()) };
    match sys::ioctl_number(open(&device)?.as_fd(), LOOP_CLR_FD, 0) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::NXIO.raw_os_error()) => Err(error),
        _ => Ok(()),
    }
}

fn open(device: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(device)
}

/// The device whose content is in a file.
fn find(image: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let name = entry.file_name();
        let named = name.to_str().filter(|n| n.starts_with("loop"));
        let Some(name) = named else { continue };
        // A device that is free has no such file.
        let Ok(backing) = fs::read(entry.path().join("loop/backing_file")) else { continue };
        let backing = backing.strip_suffix(b"\n").unwrap_or(&backing);
        if backing == image.as_os_str().as_encoded_bytes() {
            return Ok(Some(Path::new("/dev").join(name)));
        }
    }
    Ok(None)
}
