//! Descriptors that a parent handed down by number.

use std::os::fd::{FromRawFd as _, OwnedFd};

/// Closes a descriptor that this process inherited and that nothing in it owns. Harmless if it is not open.
///
/// Only for numbers that came on the command line, before anything else of this process could have been given them.
pub fn close_inherited(fd: i32) {
    if fd > 2 {
        // SAFETY: the number was inherited from the parent and named by it; no object of this process owns it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}
