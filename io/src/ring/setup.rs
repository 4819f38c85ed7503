//! One flag more for the rings that glommio makes: IORING_SETUP_COOP_TASKRUN (Linux 5.19).
//!
//! Without it the kernel interrupts the shard's CPU for every completion that another CPU causes, such as a client's packet
//! on loopback. With it completions are taken in at the shard's next system call, and it makes some in every turn. glommio
//! 0.9.0 cannot be asked for the flag, so the linker is (`build.rs` of the packages that make programs, decision 3):
//! liburing's calls of its own wrapper of io_uring_setup(2) come here. A program linked without that is as good, and slower.

use std::ffi::{c_int, c_uint};

/// io_uring_setup(2).
const COOP_TASKRUN: u32 = 1 << 8;

/// The beginning of `struct io_uring_params`.
#[repr(C)]
pub struct Parameters {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
}

/// Stands in for liburing's function, which it equals but for the flag: the descriptor, or -1 and `errno`.
///
/// # Safety
/// `parameters` is the caller's own `struct io_uring_params`, of 120 bytes.
#[unsafe(export_name = "__wrap___sys_io_uring_setup")]
pub unsafe extern "C" fn io_uring_setup(entries: c_uint, parameters: *mut Parameters) -> c_int {
    // SAFETY: the caller owns the structure, of which this is a field.
    let asked = unsafe { (*parameters).flags };
    // SAFETY: as above.
    unsafe { (*parameters).flags = asked | COOP_TASKRUN };
    // SAFETY: the kernel writes no more than the structure that the caller gave.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, parameters) };
    // SAFETY: the C library's own cell of this thread.
    if ring != -1 || unsafe { *libc::__errno_location() } != libc::EINVAL {
        return ring as c_int;
    }
    // An older kernel, or a ring that does not go with the flag: as it was asked for.
    // SAFETY: as above.
    unsafe { (*parameters).flags = asked };
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, parameters) as c_int }
}
