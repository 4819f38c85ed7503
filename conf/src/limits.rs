//! Bounds of the configuration language and the built-in values of its settings.

use std::time::Duration;

/// Longest word (grammar §2).
pub const WORD_BYTES_MAX: usize = 8 * 1024;
/// Largest configuration file (grammar §2).
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Largest data file of a table: some tens of millions of entries. Beyond it, a keyed backend is the better answer.
pub const DATA_FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Includes nest so deep (grammar §2).
pub const INCLUDE_DEPTH_MAX: usize = 16;
/// Tokens of one statement, after macros: a macro that doubles another, twenty times over, must not eat the memory.
pub const STATEMENT_TOKENS_MAX: usize = 4 * 1024 * 1024;
/// Tokens of a whole file, after macros.
pub const FILE_TOKENS_MAX: usize = 32 * 1024 * 1024;
/// Macros may name macros defined before them, so deep.
pub const MACRO_DEPTH_MAX: usize = 16;
/// Problems that are printed; the rest is counted (grammar §9.1).
pub const REPORTS_SHOWN_MAX: usize = 100;
/// Problems that are kept, so that a file of nonsense does not fill the memory.
pub const REPORTS_KEPT_MAX: usize = 1_000;
/// Of a line, so many bytes before and behind a problem are shown; nobody reads more, and drawing it takes time.
pub const EXCERPT_BYTES_MAX: usize = 4 * 1024;
/// The longest that a limit is set for on a running server: a year. Such a server is restarted before.
pub const OVERRIDE_TIME_MAX: Duration = Duration::from_secs(52 * 7 * 86_400);
/// Names that a wrong one is compared with, for *did you mean*.
pub const NAMES_COMPARED_MAX: usize = 2_000;
/// Statements of a configuration, includes and all; an old rule is up to three. What has more belongs into tables.
pub const STATEMENTS_MAX: usize = 100_000;
/// Actions: an envelope in the queue has two bytes for its action.
pub const ACTIONS_MAX: usize = u16::MAX as usize;
/// Memory of one compiled set of regular expressions, in bytes.
pub const REGEX_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A path or command made from a format is at most so long (grammar §8), in bytes.
pub const FORMATTED_BYTES_MAX: usize = 1024;
/// `bounce warn-interval` takes so many (grammar §4.7).
pub const WARN_INTERVALS_MAX: usize = 16;
/// Longest reply text that `reject` may give: with code and status it must fit one line of RFC 5321 §4.5.3.1.5.
pub const REPLY_TEXT_BYTES_MAX: usize = 480;

/// `smtp max-message-size` (grammar §4.9).
pub const MESSAGE_BYTES: u64 = 35 * 1024 * 1024;
/// `smtp limit max-mails`, messages in a connection.
pub const MAILS: u32 = 100;
/// `smtp limit max-rcpt`, recipients of a message.
pub const RECIPIENTS: u32 = 1_000;
/// `smtp limit max-sessions`: what a small machine holds at 12 KiB each (issue 3, item 7), with room.
pub const SESSIONS: u32 = 20_000;
/// `smtp limit max-sessions-per-source`.
pub const SESSIONS_PER_SOURCE: u32 = 50;
/// `smtp limit max-errors` in a connection.
pub const ERRORS: u32 = 20;
/// `smtp limit max-line`, bytes of a command line.
pub const LINE_BYTES: u32 = 2_048;
/// `smtp limit max-depth` of expansion.
pub const EXPANSION_DEPTH: u32 = 10;
/// `smtp limit max-nodes` of expansion.
pub const EXPANSION_NODES: u32 = 1_000;
/// Beyond this many nodes no setting goes: each may be an envelope, and they are written together.
pub const EXPANSION_NODES_MAX: u32 = 10_000;
/// `smtp limit max-received`: a message with more `Received:` lines loops.
pub const RECEIVED: u32 = 50;
/// `smtp limit timeout`, for a command (RFC 5321 §4.5.3.2.7).
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// `smtp limit data-timeout`, for the next piece of a body.
pub const DATA_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// `queue ttl`.
pub const QUEUE_TTL: Duration = Duration::from_secs(4 * 24 * 3600);
/// `bounce warn-interval`.
pub const WARN_INTERVAL: Duration = Duration::from_secs(4 * 3600);
/// `bounce limit`: so many reports of strangers' mail in this time …
pub const BOUNCES_PER: Duration = Duration::from_secs(3600);
/// … to one address: a list of a thousand members has fewer that are gone …
pub const BOUNCES_PER_SENDER: u32 = 100;
/// … to one domain …
pub const BOUNCES_PER_DOMAIN: u32 = 1000;
/// … and in all: three a second, which the backup of a large domain does not come to.
pub const BOUNCES: u32 = 10_000;

/// `table … cache`: so long a found answer of a remote backend is kept (grammar §7.3).
pub const TABLE_CACHE: Duration = Duration::from_secs(60);
/// `table … negative`: so long *not found* is kept.
pub const TABLE_NEGATIVE: Duration = Duration::from_secs(10);
/// `table … stale`: an answer of at most this age is served while the backend fails.
pub const TABLE_STALE: Duration = Duration::from_secs(3600);
/// `table … timeout`: a lookup that takes longer has failed.
pub const TABLE_TIMEOUT: Duration = Duration::from_secs(3);
/// `table … pool`: connections of a remote backend.
pub const TABLE_POOL: u32 = 4;

/// Relay hosts that a remote table may name at once.
pub const RELAY_HOSTS_MAX: usize = 64;
/// Source addresses that a remote table may have: they travel with each message to its route.
pub const RELAY_SOURCES_MAX: usize = 256;

/// `filter … timeout`, and that of milters and helpers (grammar §4.6).
pub const FILTER_TIMEOUT: Duration = Duration::from_secs(30);
/// `share … timeout`: a counter elsewhere is not worth a longer wait.
pub const SHARE_TIMEOUT: Duration = Duration::from_millis(500);
/// A step of `warmup` is for a day of the source address, so what it counts cannot last longer.
pub const WARMUP_STEP_MAX: Duration = Duration::from_secs(86_400);
/// `treat throttle` without a percentage.
pub const THROTTLE_PERCENT: u8 = 50;

/// `store { segment }`, bytes.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// The smallest and largest segment: it must hold a few batches, and a slice must have more than a few segments.
pub const SEGMENT_BYTES_RANGE: (u64, u64) = (1024 * 1024, 4 * 1024 * 1024 * 1024);
/// `store { spare }`, segments kept ready.
pub const SPARE_SEGMENTS: u32 = 4;
/// `store { spool-memory }`, bytes of a body that stay in memory (architecture §3).
pub const SPOOL_MEMORY_BYTES: u64 = 256 * 1024;
/// `store { state-delay }`: so long a state record may wait for a batch to join.
pub const STATE_DELAY: Duration = Duration::from_millis(50);
/// `store { reserve }`, percent of the file system that stays free.
pub const RESERVE_PERCENT: u8 = 5;
/// Where the store is unless the file says otherwise.
pub const STORE_PATH: &str = "/var/spool/ringpost";
/// Where the mailboxes of the system's users are.
pub const MAIL_SPOOL: &str = "/var/mail";
/// `srs ttl`: as long as a message may stay queued, so that its bounce still finds the way.
pub const SRS_TTL: Duration = Duration::from_secs(4 * 86_400);
/// Bytes of a reverse-path that `srs` has made (RFC 5321 §4.5.3.1.3, without the brackets); a longer one is not made.
pub const SRS_PATH_BYTES_MAX: usize = 254;
/// Where the control socket is unless the file says otherwise.
pub const CONTROL_PATH: &str = "/run/ringpost.sock";

const _: () = assert!(EXPANSION_NODES <= EXPANSION_NODES_MAX);
const _: () = assert!(ACTIONS_MAX < STATEMENTS_MAX);
const _: () = assert!(REPORTS_SHOWN_MAX <= REPORTS_KEPT_MAX);
const _: () = assert!(SEGMENT_BYTES >= SEGMENT_BYTES_RANGE.0 && SEGMENT_BYTES <= SEGMENT_BYTES_RANGE.1);
/// Sites that may have a name in metrics: each has three lines in every answer and more for what it refuses.
pub const METRICS_SITES_MAX: u32 = 2000;
/// Shortest interval of `metrics hlog`: in shorter ones there is nothing to see but the sampling itself.
pub const HLOG_EVERY_MIN: Duration = Duration::from_secs(1);
