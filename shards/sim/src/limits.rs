//! Bounds and measures of a simulated run.

use std::time::Duration;

/// Shards of the simulated engine.
pub const SHARDS: usize = 3;
/// Clients that submit at the same time.
pub const CLIENTS: usize = 6;
/// Receiving hosts.
pub const RECEIVERS: usize = 4;
/// Domains that the recipients are in; some share their hosts, so that sites are shared, too.
pub const DOMAINS: usize = 6;
/// One of so many recipients is a list.
pub const LIST_ONE_IN: u64 = 5;
/// How long the members of a list are kept by a shard.
pub const MEMBERS_CACHE: Duration = Duration::from_secs(10);
/// Messages of a run; one more is not submitted. Enough to fill and recycle several of the small segments.
pub const MESSAGES_MAX: u64 = 3_000;
/// Size of a segment: small, so that recycling, relocation and checkpoints happen in seconds.
pub const SEGMENT_BYTES: u64 = 1 << 20;
/// A body's usual size, in bytes, at most.
pub const SMALL_BODY_BYTES: u64 = 6 * 1024;
/// Now and then one of up to this size, beyond `spool-memory` of the simulated configuration.
pub const LARGE_BODY_BYTES: u64 = 200 * 1024;
/// A delivery that was answered at most this long before a crash may not have its state on disk (50 ms of delay, a slow
/// write, a batch before it), so its repetition is excused.
pub const STATE_GRACE: Duration = Duration::from_secs(2);
/// A slice that stopped accepting for a failing disk looks at it again within this long after it is good (a probe every 4 s,
/// and the time for a fresh segment); until then no state is written.
pub const DISK_RECOVERY: Duration = Duration::from_secs(8);
/// Virtual time that the queue gets to become empty after the last crash and fault: several retries.
pub const SETTLE: Duration = Duration::from_secs(12 * 3600);
/// How much later than its time a message may be given up (promise 6).
pub const EXPIRY_GRACE: Duration = Duration::from_secs(60);
/// A client gives up waiting for a reply after this.
pub const CLIENT_PATIENCE: Duration = Duration::from_secs(400);
