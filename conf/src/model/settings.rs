//! Settings of the server as a whole; each has a built-in value.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ringpost_address::Network;

use super::{Cipher, Classify, Keyed, Line, Rate};
use crate::limits;
use crate::tables::{Credentials, Secret};

/// `smtp …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    /// `max-message-size`, bytes: the default for listeners.
    pub message_bytes_max: u64,
    /// `sub-addr-delim`.
    pub sub_address_delimiter: char,
    /// `ciphers`: the default for listeners.
    pub ciphers: Option<Vec<&'static Cipher>>,
    /// `limit max-mails`: messages in a connection.
    pub mails_max: u32,
    /// `limit max-rcpt`: recipients of a message.
    pub recipients_max: u32,
    /// `limit max-sessions`: connections of the whole server.
    pub sessions_max: u32,
    /// `limit max-sessions-per-source`: connections from one address.
    pub sessions_per_source_max: u32,
    /// `limit max-errors`: bad commands and refused recipients in a connection.
    pub errors_max: u32,
    /// `limit max-line`: bytes of a command line, CRLF included.
    pub line_bytes_max: u32,
    /// `limit max-depth` of expansion.
    pub expansion_depth_max: u32,
    /// `limit max-nodes` of expansion.
    pub expansion_nodes_max: u32,
    /// `limit max-received`: `Received:` lines; more is a mail loop (554 5.4.6).
    pub received_max: u32,
    /// `limit timeout`: silence before a command.
    pub command_timeout: Duration,
    /// `limit data-timeout`: silence within a body.
    pub data_timeout: Duration,
}

impl Default for Smtp {
    fn default() -> Self {
        Self {
            message_bytes_max: limits::MESSAGE_BYTES,
            sub_address_delimiter: '+',
            ciphers: None,
            mails_max: limits::MAILS,
            recipients_max: limits::RECIPIENTS,
            sessions_max: limits::SESSIONS,
            sessions_per_source_max: limits::SESSIONS_PER_SOURCE,
            errors_max: limits::ERRORS,
            line_bytes_max: limits::LINE_BYTES,
            expansion_depth_max: limits::EXPANSION_DEPTH,
            expansion_nodes_max: limits::EXPANSION_NODES,
            received_max: limits::RECEIVED,
            command_timeout: limits::COMMAND_TIMEOUT,
            data_timeout: limits::DATA_TIMEOUT,
        }
    }
}

/// `queue …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// `ttl`: how long a message may stay.
    pub ttl: Duration,
    /// `backend`.
    pub backend: QueueBackend,
    /// `compression`.
    pub compression: Option<Compression>,
    /// `encryption`.
    pub encryption: Option<QueueKey>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { ttl: limits::QUEUE_TTL, backend: QueueBackend::Log, compression: None, encryption: None }
    }
}

/// Where the queue is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueBackend {
    /// The journal.
    Log,
    /// A directory for each message; `--root` is in front already.
    Fs(Option<PathBuf>),
    /// Memory: gone with the process.
    Ram,
    /// Nowhere.
    Null,
}

/// `queue compression`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// `zstd`, or no word.
    Zstd,
    /// `gzip`.
    Gzip,
}

/// Where the key of the queue comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueKey {
    /// The configuration.
    Given(Secret),
    /// Standard input, at start: `stdin`, `-` or no word.
    Stdin,
}

/// `bounce …`.
#[derive(Clone, Debug)]
pub struct Bounce {
    /// `warn-interval`: after so long in the queue the sender is told; ascending.
    pub warn_after: Vec<Duration>,
    /// `classify`, in order; tried before the built-in list.
    pub classify: Vec<Classify>,
    /// `limit`.
    pub limits: BounceLimits,
}

impl Default for Bounce {
    fn default() -> Self {
        Self { warn_after: vec![limits::WARN_INTERVAL], classify: Vec::new(), limits: BounceLimits::default() }
    }
}

/// `bounce limit`: how many reports are made of mail from strangers, over all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BounceLimits {
    /// `per-sender`: to one address.
    pub per_sender: Rate,
    /// `per-domain`: to all addresses of one domain.
    pub per_domain: Rate,
    /// `total`.
    pub total: Rate,
}

impl Default for BounceLimits {
    fn default() -> Self {
        let hourly = |count| Rate { count, per: limits::BOUNCES_PER };
        Self {
            per_sender: hourly(limits::BOUNCES_PER_SENDER),
            per_domain: hourly(limits::BOUNCES_PER_DOMAIN),
            total: hourly(limits::BOUNCES),
        }
    }
}

/// `srs …`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Srs {
    /// `key`.
    pub key: Option<Secret>,
    /// `key backup`: still good for addresses that were made with it.
    pub backup_key: Option<Secret>,
    /// `ttl`: how long an address is good.
    pub ttl: Option<Duration>,
}

/// `mta allow-exchangers`, `mta max-deferred`, `mda limit`, `scheduler …`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machinery {
    /// `mta allow-exchangers`: networks that are not public in which the mail exchangers of the DNS may be.
    pub exchangers: Option<Vec<Network>>,
    /// `mta max-deferred`.
    pub deferred_max: Option<u32>,
    /// `mda limit max-session`.
    pub deliveries_max: Option<u32>,
    /// `mda limit max-session-per-user`.
    pub deliveries_per_user_max: Option<u32>,
    /// `scheduler limit max-inflight`.
    pub in_flight_max: Option<u32>,
    /// `scheduler limit max-schedule`.
    pub schedule_max: Option<u32>,
    /// `scheduler backend null`: nothing is ever tried.
    pub never_tries: bool,
}

impl Machinery {
    /// Networks that are not public in which hosts may be that the DNS names; `None`: they may be anywhere, since nobody has
    /// said anything and the names are not `strangers`', but an administrator's own.
    pub fn inner(&self, strangers: bool) -> Option<&[Network]> {
        self.exchangers.as_deref().or_else(|| strangers.then_some(&[][..]))
    }
}

/// `metrics …`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// `hlog`: directory of interval logs; `--root` is in front already.
    pub hlog: Option<PathBuf>,
    /// `every`.
    pub hlog_every: Option<Duration>,
    /// `sites`: at most so many labels for mail sites.
    pub sites_max: Option<u32>,
}

/// `log to …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Where.
    pub to: LogTarget,
    /// `format json`.
    pub json: bool,
    /// `level`.
    pub level: Option<&'static str>,
    /// `only`: kinds of events; all, if empty.
    pub only: Vec<String>,
    /// The line that says so.
    pub line: Line,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// syslog.
    Syslog,
    /// The journal of systemd.
    Journald,
    /// Standard error.
    Stderr,
    /// A file; `--root` is in front already.
    File(PathBuf),
}

/// `shards …`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shards {
    /// How many; `None` is `auto`: one for each core, less one for the coordinator from four cores up.
    pub count: Option<u16>,
    /// `cores`: pin shards to these, in order. Empty: the engine chooses.
    pub cores: Vec<usize>,
    /// `coordinator`: pin the coordinator to this core.
    pub coordinator: Option<usize>,
    /// `memory`: arena of each shard, bytes.
    pub memory_bytes: Option<u64>,
}

/// `store { … }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// State directory; the journal is in `queue/` below it. `--root` is in front already.
    pub path: PathBuf,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Segments kept ready.
    pub spare_segments: u32,
    /// Bytes of a body that stay in memory before it goes to the journal.
    pub spool_memory_bytes: u64,
    /// How long a state record may wait for a batch to join.
    pub state_delay: Duration,
    /// What stays free on the file system.
    pub reserve: Reserve,
    /// How fsyncs are shared.
    pub commit: Commit,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: PathBuf::from(limits::STORE_PATH),
            segment_bytes: limits::SEGMENT_BYTES,
            spare_segments: limits::SPARE_SEGMENTS,
            spool_memory_bytes: limits::SPOOL_MEMORY_BYTES,
            state_delay: limits::STATE_DELAY,
            reserve: Reserve::Percent(limits::RESERVE_PERCENT),
            commit: Commit::Group,
        }
    }
}

/// `store { reserve }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Bytes.
    Bytes(u64),
    /// Percent of the file system, 0 to 100.
    Percent(u8),
}

/// `store { commit }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// All that arrives during an fsync shares the next one.
    Group,
    /// One fsync for each message; for measurements.
    Each,
}

/// `http listen on ADDRESS …`.
#[derive(Clone, Debug)]
pub struct Http {
    /// Address and port, `--port-offset` included.
    pub listen: SocketAddr,
    /// `pki`: HTTPS.
    pub pki: Option<String>,
    /// `auth`: who may see it.
    pub auth: Option<Keyed<Credentials>>,
    /// `only`: parts of it; all, if empty.
    pub only: Vec<String>,
    /// The line that says so.
    pub line: Line,
}

/// `control socket PATH …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The socket; `--root` is in front already.
    pub socket: PathBuf,
    /// `group`.
    pub group: Option<String>,
    /// `mode`.
    pub mode: Option<u32>,
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: PathBuf::from(limits::CONTROL_PATH), group: None, mode: None }
    }
}
