//! Settings of the server as a whole; each has a built-in value.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::limits;

/// `smtp …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    /// `max-message-size`, bytes: the default for listeners.
    pub message_bytes_max: u64,
    /// `sub-addr-delim`.
    pub sub_address_delimiter: char,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// `ttl`: how long a message may stay.
    pub ttl: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self { ttl: limits::QUEUE_TTL }
    }
}

/// `bounce …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounce {
    /// `warn-interval`: after so long in the queue the sender is told; ascending.
    pub warn_after: Vec<Duration>,
}

impl Default for Bounce {
    fn default() -> Self {
        Self { warn_after: vec![limits::WARN_INTERVAL] }
    }
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

/// `http listen on ADDRESS port N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http {
    /// Address and port, `--port-offset` included.
    pub listen: SocketAddr,
}

/// `control socket PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The socket; `--root` is in front already.
    pub socket: PathBuf,
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: PathBuf::from(limits::CONTROL_PATH) }
    }
}
