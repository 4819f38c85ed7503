//! Every bound of the load tools, with its reason.

use std::time::Duration;

/// Smallest message, in bytes: our headers take about 330 with long domains, and a body line must fit.
pub const MESSAGE_BYTES_MIN: u64 = 512;
/// Largest message that the source makes and the sink keeps, in bytes: more than any site accepts.
pub const MESSAGE_BYTES_MAX: u64 = 128 << 20;
/// Text that bodies are cut from, beyond the largest body, in bytes: so many different places to begin.
pub const TEXT_SPARE_BYTES: usize = 64 << 10;
/// Longest reply or command line, in bytes, twice what RFC 5321 §4.5.3.1 allows with extensions.
pub const LINE_BYTES_MAX: usize = 4096;
/// Bytes taken from a socket at once: several pipelined messages of 4 KiB.
pub const READ_BYTES: usize = 256 << 10;
/// Events taken from epoll at once: beyond it fairness suffers more than the system call costs.
pub const EVENTS_MAX: usize = 512;
/// Connections of one source: descriptors of one process and ports of one address end near here.
pub const CONNECTIONS_MAX: u32 = 30_000;
/// Recipients of one message: ten times what RFC 5321 §4.5.3.1.8 obliges a server to take.
pub const RECIPIENTS_MAX: u32 = 1000;
/// Domains of recipients, whose commands are made beforehand.
pub const DOMAINS_MAX: u32 = 100_000;
/// Kinds of refusal (step and code) that a summary lists.
pub const REFUSALS_MAX: usize = 64;
/// Waits before a lost connection is tried again, first and longest.
pub const RECONNECT_MIN: Duration = Duration::from_millis(10);
/// See [`RECONNECT_MIN`]: a server that restarts is found within a second.
pub const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// How often the bar on a terminal moves.
pub const BAR_EVERY: Duration = Duration::from_millis(200);
/// How often a plain line is printed when stderr is not a terminal.
pub const LINE_EVERY: Duration = Duration::from_secs(5);
/// Pending connections of the sink's socket (the kernel may lower it to `somaxconn`).
pub const BACKLOG: i32 = 4096;
/// Message buffer that an idle sink connection keeps, in bytes.
pub const KEPT_BYTES: usize = 64 << 10;
/// Bytes of a write of the disk probe: a block, and a small commit.
pub const PROBE_BYTES: usize = 4096;
/// File that the disk probe overwrites, in bytes: larger than what a disk merges, small enough to be made at once.
pub const PROBE_FILE_BYTES: u64 = 32 << 20;
const _: () = assert!(PROBE_FILE_BYTES.is_multiple_of(PROBE_BYTES as u64));
/// Sessions that a client of ours keeps to take them up again: each connection's place has its own, which needs its last.
pub const SESSIONS_KEPT: usize = 8;
/// Kinds of failure that a count of handshakes lists.
pub const FAILURES_MAX: usize = 16;
