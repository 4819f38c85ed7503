//! Every bound of the queue, with the reason for it.

use std::time::Duration;

use ringpost_io::BLOCK_BYTES;

/// Default size of a segment. Large enough that recycling is rare, small enough that one is pre-written in 0.1 s.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// A segment made while somebody waits for it, the first one above all: pre-written in some 10 ms.
pub const STARTER_BYTES: u64 = 8 << 20;
/// Segments larger than this could not be addressed by the 32 bits of an index entry.
pub const SEGMENT_BYTES_MAX: u64 = 2 << 30;
/// The smallest segment that makes sense, for simulated disks.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// Default number of segments kept ready.
pub const SPARE_SEGMENTS: usize = 2;
/// Free segments beyond this many times the wanted spares are given back to the file system.
pub const FREE_SEGMENTS_FACTOR: usize = 4;
/// Segments of a slice; with 64 MiB each some 4 TiB. Also bounds the open descriptors.
pub const SLOTS_MAX: u16 = 60_000;
/// Default bytes in one batch. Far above what arrives during one write, far below what makes a write's latency grow.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Room in a batch that only states use, so that a flood of mail cannot keep results from being written.
pub const STATES_SHARE: usize = 8;
/// A batch buffer that grew beyond this is given back when it is no longer needed.
pub const BUFFER_KEPT_BYTES: usize = 512 << 10;
/// Longest chunk record; longer pieces are divided.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Texts above this are written as chunks ahead of their message even if they come in one piece.
pub const INLINE_TEXT_BYTES_MAX: usize = 1 << 20;
/// Bytes of a reply that are kept: an SMTP reply line is at most 512 (RFC 5321 §4.5.3.1.5).
pub const REPLY_BYTES_MAX: usize = 500;
/// A state that says that the sender was told repeats the last reply. While attempts end as fast as that is read back, it is
/// tried so often, and then done without the reply.
pub const NOTE_TRIES: usize = 3;
/// Default time until a lazy state record is flushed by itself.
pub const STATE_DELAY: Duration = Duration::from_millis(50);
/// Default free bytes of the file system that mail may not use: they are for states, and for the neighbours.
pub const RESERVE_BYTES: u64 = 128 << 20;
/// Default bytes written between two checkpoints: what a start must replay, some 0.1 s.
pub const CHECKPOINT_BYTES: u64 = 128 << 20;
/// A checkpoint costs as much as its size, so at least this many times its size is written between two.
pub const CHECKPOINT_FACTOR: u64 = 4;
/// Segments without anything live that only wait for a checkpoint before one is written for them.
pub const BLOCKED_SEGMENTS_MAX: usize = 4;
/// Bytes in one block of a checkpoint; between two others have their turn.
pub const CHECKPOINT_BLOCK_BYTES: usize = 128 << 10;
/// Messages that lie side by side are read back together, in reads of so many bytes: a disk gives them in the time of three
/// small ones, and a read of the ring is no larger.
pub const RUN_BYTES: u32 = 256 << 10;
/// Bytes between two messages that are read rather than skipped: the end of a batch, and states.
pub const RUN_GAP_BYTES: u32 = 16 << 10;
/// Bytes read at once when segments are replayed.
pub const WINDOW_BYTES: usize = 1 << 20;
/// Segments that are not compacted because they are young: their mail is about to leave by itself.
pub const YOUNG_SEGMENTS: u64 = 2;
/// Bytes in use per live byte above which segments are compacted …
pub const AMPLIFICATION_MAX: u64 = 2;
/// … beyond this many segments, which even an empty queue has.
pub const SLACK_SEGMENTS: u64 = 4;
/// Only segments with less than this share live are compacted: the others cost more than they give.
pub const COMPACT_BELOW_PERCENT: u64 = 60;
/// Pause before a disk that failed is tried again; doubles up to [`PROBE_MAX`].
pub const PROBE: Duration = Duration::from_secs(1);
/// The longest such pause: a disk that is back must not be left alone for long, and a probe costs two small writes.
pub const PROBE_MAX: Duration = Duration::from_secs(4);
/// Pause before a segment that could not be made is tried again.
pub const MAKE_AGAIN: Duration = Duration::from_secs(1);
/// Waits between attempts; the last one repeats (RFC 5321 §4.5.4.1 asks for at least 30 minutes in the long run).
pub const RETRY_WAITS: [Duration; 7] = [
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(3600),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(4 * 3600),
];
/// Per cent by which a wait varies.
pub const JITTER_PERCENT: u32 = 10;
/// Mail that could not be delivered for this long is given up (RFC 5321 §4.5.4.1: at least 4–5 days).
pub const EXPIRY: Duration = Duration::from_secs(4 * 24 * 3600);
/// Memory of a deferred envelope of a message with one recipient, all included (S124).
pub const ENVELOPE_MEMORY_BYTES_MAX: usize = 200;

const _: () = assert!(BATCH_BYTES_MAX as u64 + 2 * BLOCK_BYTES as u64 <= STARTER_BYTES, "a batch must fit any segment");
const _: () = assert!(SEGMENT_BYTES_MAX < u32::MAX as u64);
const _: () = assert!(CHUNK_BYTES_MAX + 3 * BLOCK_BYTES < BATCH_BYTES_MAX, "a chunk must fit a batch");
const _: () = assert!(SLOTS_MAX < u16::MAX - 2, "the highest numbers mean something else");
