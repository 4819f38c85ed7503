//! Files in memory that nobody can change any more.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create, sendfile};

use crate::limits::KEY_BYTES;

/// A copy of a key's file; its bytes stay in the kernel.
///
/// # Errors
/// It cannot be read, or there is no memory.
pub fn copy(path: &Path) -> io::Result<OwnedFd> {
    let file = File::open(path)?;
    let memory = memfd_create("ringpost-key", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut left = KEY_BYTES as usize + 1;
    while left > 0 {
        match sendfile(&memory, &file, None, left)? {
            0 => break,
            count => left -= count.min(left),
        }
    }
    fcntl_add_seals(&memory, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(memory)
}
