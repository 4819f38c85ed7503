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
/// One of so many recipients is a user with a program.
pub const PROGRAM_ONE_IN: u64 = 8;
/// A program is ended after this time, as by the supervisor.
pub const PROGRAM: Duration = Duration::from_secs(300);
/// Whoever asks the DNS waits so long, as the coordinator does.
pub const NO_ANSWER: Duration = Duration::from_secs(30);
/// One of so many messages of the engine's own host is held for later (RFC 4865) …
pub const HELD_ONE_IN: u64 = 2;
/// … for at most this time.
pub const HELD: Duration = Duration::from_secs(600);
/// By how much the clock on the wall is wrong at most, either way.
pub const CLOCK_WRONG: Duration = Duration::from_secs(2 * 3600);
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
/// When nothing has gone wrong for so long, no message waits longer than this for what ends by itself: all that has hung is
/// given up by then (ten minutes for the reply to a message's end, RFC 5321 §4.5.3.2.6).
pub const STALLED: Duration = Duration::from_secs(900);
/// The queue is looked at this often while nothing else happens.
pub const LOOK: Duration = Duration::from_secs(20);
/// A shard has so long to say what its mail waits for.
pub const LOOK_ANSWER: Duration = Duration::from_secs(10);
/// A receiver that has fallen silent is gone after this time.
pub const SILENT: Duration = Duration::from_secs(1200);
/// Messages in the queue that a provider has not taken yet: enough for it never to be without, though some of them were
/// refused and wait for their time.
pub const BACKLOG: u64 = 4_000;
/// Clients that keep them there: enough for the fastest provider over the slowest network, and for all shards to have some.
pub const PROVIDER_CLIENTS: usize = 30;
/// A client gives up waiting for a reply after this.
pub const CLIENT_PATIENCE: Duration = Duration::from_secs(400);
