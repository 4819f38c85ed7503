//! The bounds of this crate.

use std::time::Duration;

/// Size and alignment, in bytes, of every place and length given to [`File`](crate::File): one block of the disk.
pub const BLOCK_BYTES: usize = 4096;

/// What one read takes from a socket at most, in bytes: the size of the scratch buffer that all connections of a shard
/// share, so that an idle one pins none.
pub const READ_BYTES_MAX: usize = 64 * 1024;

/// Entries of an executor's ring: so much may be asked for before the kernel is entered. A full ring only delays.
pub const RING_DEPTH: u32 = 256;

/// Completions that wait there to be taken in. The kernel keeps more than fit.
pub const COMPLETIONS_DEPTH: u32 = 4096;

/// Most memory, in bytes, that one executor registers with the kernel for disk buffers: a batch of 1 MiB, a few reads and
/// what the buddy allocator rounds up.
pub const IO_MEMORY_BYTES_MAX: usize = 4 << 20;

/// Least of it, in bytes: glommio takes no less.
pub const IO_MEMORY_BYTES_MIN: usize = 64 << 10;

/// How long to wait before a local socket is tried again whose server lets too many wait: the kernel tells nobody when
/// there is room.
pub const UNIX_CONNECT_PAUSE: Duration = Duration::from_millis(10);

/// How long a task computes before [`Runtime::yield_now`](crate::Runtime::yield_now) lets the others and the disk in.
pub const TURN: Duration = Duration::from_micros(500);

/// Letters in a shard's inbox: a sender beyond it waits.
pub const MESH_LETTERS_MAX: usize = 1024;

/// A new file is written in pieces of so many bytes: a commit that comes meanwhile waits for one of them, which takes about as
/// long as the commit itself. With 1 MiB it was a millisecond, and the 99th percentile of all commits.
pub const PREWRITE_BYTES: usize = 128 << 10;

/// A read from a file is done in pieces of so many bytes: they fit the registered memory beside a batch that is written.
pub const READ_PIECE_BYTES: usize = 256 << 10;

/// Threads beside each executor for what blocks: that is mostly an fsync, and those that run at the same time share what the
/// disk does for them.
pub const BLOCKING_THREADS: usize = 16;

/// Descriptors in one letter between processes; the kernel's own bound is 253 (SCM_MAX_FD).
pub const DESCRIPTORS_MAX: usize = 128;

/// Room for a user's record at the first try; the system says when it needs more.
pub const PASSWD_BUFFER_BYTES_FIRST: usize = 1024;
/// The largest record that is read: beyond it something is wrong with the directory it comes from.
pub const PASSWD_BUFFER_BYTES_MAX: usize = 1 << 20;
/// The largest record of a group that is read: the names of tens of thousands of members.
pub const GROUP_BUFFER_BYTES_MAX: usize = 4 << 20;
/// Messages of a PAM module at once (PAM_MAX_NUM_MSG).
#[cfg(feature = "pam")]
pub const PAM_MESSAGES_MAX: usize = 32;
/// Groups of one user; the kernel takes 65,536, people have some tens.
pub const GROUPS_MAX: usize = 1024;

const _: () = assert!(READ_PIECE_BYTES.is_multiple_of(BLOCK_BYTES) && PREWRITE_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(IO_MEMORY_BYTES_MIN <= IO_MEMORY_BYTES_MAX);
