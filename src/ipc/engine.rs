//! Supervisor and engine. Each descriptor travels in a letter of its own that says what it is for.

use serde::{Deserialize, Serialize};

use crate::disk::Look;
use crate::owners::Owner;

/// From the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToEngine {
    /// The descriptor alongside is this.
    Descriptor(Purpose),
    /// All descriptors have come: begin.
    Start {
        /// Process number of the supervisor, with which the engine ends.
        parent: u32,
        /// Whom it becomes; `None`: it stays who it is.
        owner: Option<Owner>,
    },
    /// The plan that came last is to be followed from now on.
    Reload {
        /// What an administrator should know about it, a line each.
        notes: Vec<String>,
    },
    /// The plan that came last differs in the entries of these tables alone.
    TablesRead(Vec<String>),
    /// The plan that came last needs an engine that may use more: tell whoever waits for it, and stop.
    Renew(String),
    /// The configuration has errors and nothing changes.
    ReloadRefused(String),
    /// Finish what is open, make all durable, end.
    Stop,
}

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// A [`crate::plan::Plan`] in memory.
    Plan,
    /// The control socket, listening.
    Control,
    /// A socket of the page, listening.
    Page,
    /// The supervisor's lane for deliveries as other users.
    Deliveries,
    /// Its lane for reading their `.forward` files.
    Forwards,
    /// One of its lanes for looking up users of the system.
    Users,
    /// A lane to the keyholder for one of the threads that wait for signatures. More come when that is started again.
    Signing,
    /// A lane to the supervisor for certificates of tables.
    Certificates,
    /// The way to ask for passwords of the system's users.
    Passwords,
    /// One shard's socket of one listener, listening.
    Smtp {
        /// Index in the configuration's listeners.
        listener: u16,
        /// Whose.
        shard: u16,
    },
}

/// From the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromEngine {
    /// All shards accept.
    Ready(Ready),
    /// It cannot start, and why, with what to do about it.
    Failed(String),
    /// An administrator wants the configuration read again.
    WantsReload,
    /// An administrator wants this table's file read again.
    WantsTable(String),
    /// An administrator wants the server to stop.
    WantsStop,
    /// It has stopped; all is durable.
    Stopped(Summary),
}

/// What starting found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The CPU that each shard is pinned to; `None`: the scheduler decides.
    pub cpus: Vec<Option<u16>>,
    /// Messages found in the queue.
    pub messages: u64,
    /// Places in the queue that are damaged, a line each; cut.
    pub damage: Vec<String>,
    /// Bytes that each executor registers with the kernel.
    pub io_memory_bytes: u64,
    /// The queue's disk; `None` if it could not be looked at.
    pub disk: Option<Look>,
}

/// A run in two lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Messages answered with 250.
    pub received: u64,
    /// Envelopes delivered.
    pub delivered: u64,
    /// Messages left in the queue.
    pub waiting: u64,
    /// From the last byte to stable storage: median in microseconds.
    pub commit_p50_us: u64,
    /// The same, 99th percentile.
    pub commit_p99_us: u64,
}
