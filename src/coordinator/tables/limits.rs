//! Every bound of lookups (grammar §7.3), with its reason. What happens at each is said where it is used.

use std::time::Duration;

/// How long an answer that was found is believed.
pub const CACHE: Duration = Duration::from_secs(60);
/// How long "there is no such entry" is believed.
pub const NEGATIVE: Duration = Duration::from_secs(10);
/// How old an answer may be that is given while the backend fails.
pub const STALE: Duration = Duration::from_secs(3600);
/// How long one lookup may take, waiting for its turn included.
pub const TIMEOUT: Duration = Duration::from_secs(3);
/// Connections, or threads, of one table.
pub const POOL: usize = 4;
/// Lookups that wait for their turn at one table.
pub const WAITING: usize = 1000;
/// Lookups that one multiplexed connection carries at the same time: enough for every session that a second brings, and
/// little enough that a server which stops answering holds few.
pub const MULTIPLEXED: usize = 256;
/// Lookups of one command line under way at the same time.
pub const DIRECT: usize = 64;
/// Failures in a row after which a backend is left alone for a while.
pub const FAILURES: u32 = 5;
/// The first such while; it doubles.
pub const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Answers that are kept of one table.
pub const CACHE_ENTRIES: usize = 32 * 1024;
/// Memory of those answers.
pub const CACHE_BYTES: usize = 16 << 20;
/// What an answer costs beside its text: two strings, a time, a place in a map.
pub const CACHE_ENTRY_BYTES: usize = 128;
/// A key; addresses are at most 254 bytes (RFC 5321 §4.5.3.1.3), a user and a password together may be longer.
pub const KEY_BYTES: usize = 4096;
/// A value; a chain of certificates with its key is the largest.
pub const VALUE_BYTES: usize = 64 * 1024;
/// Rows or values that make one answer: expansion stops at as many (grammar §6.2).
pub const ROWS: usize = 1000;
/// A backend's configuration file.
pub const SETTINGS_BYTES: u64 = 1 << 20;
/// Between two log lines about bad entries of one table; those in between are counted.
pub const ENTRY_LOG: Duration = Duration::from_secs(10);
/// Steps of SQLite's machine between two looks at the clock: some microseconds.
pub const SQLITE_STEPS: i32 = 1000;
/// Services that a helper may register: there are fifteen.
pub const HELPER_SERVICES: usize = 64;
/// Keys that a helper is told or may register: more lines than these are data, not a configuration.
pub const HELPER_OPTIONS: usize = 256;
/// A line that a helper writes: its answer is a value.
pub const HELPER_LINE_BYTES: usize = VALUE_BYTES + 1024;
/// How long a helper may take to say which services it has.
pub const HELPER_START: Duration = Duration::from_secs(10);
/// How long a helper may take to end after its input was closed; then it is killed.
pub const HELPER_END: Duration = Duration::from_secs(1);
/// How often its end is looked for meanwhile.
pub const HELPER_LOOK: Duration = Duration::from_millis(5);
/// Of a line that a helper writes to its standard error, this much is logged.
pub const HELPER_COMPLAINT_BYTES: usize = 500;
/// An answer of an LDAP server: entries of [`ROWS`] values would not be larger.
pub const LDAP_MESSAGE_BYTES: usize = 1 << 20;
/// How deep the parts of an LDAP answer may nest; an entry has four levels, controls a few more.
pub const LDAP_DEPTH: usize = 16;

const _: () = assert!(HELPER_LINE_BYTES > VALUE_BYTES, "the longest value must fit a helper's line");
const _: () = assert!(CACHE_BYTES / 2 > KEY_BYTES + VALUE_BYTES + CACHE_ENTRY_BYTES, "half a cache holds an answer");
