//! The checked configuration: what the administrator wants, in types that cannot say anything wrong.
//!
//! A `Config` is immutable and shared by all shards; a session keeps the one it began with (style.md §4, *A reload*).

mod action;
mod listener;
mod quickstart;
mod relay;
mod rule;
mod settings;
mod table;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

pub use action::{Action, ActionKind, Lmtp, LocalOptions, Maildir, Mapping, Mda};
pub use listener::{Family, Listener, Where};
pub use quickstart::Quickstart;
pub use relay::{Host, Relay, RelayHost, RelayTls, Scheme};
pub use rule::{Match, Outcome, Reply};
pub use settings::{Bounce, Commit, Control, Http, Queue, Reserve, Shards, Smtp, Store};
pub use table::{Backend, Keyed, Table, TableId, TableOptions};

/// Everything a server needs to know. Made by [`crate::load`], or by [`Config::quickstart`].
#[derive(Debug)]
pub struct Config {
    /// Where to listen, in file order; names are not resolved yet.
    pub listeners: Vec<Listener>,
    /// What may be done with a recipient. [`crate::Decision::Action`] is an index into this.
    pub actions: Vec<Action>,
    /// Declared tables, and built-in ones that are used. [`TableId`] is an index into this.
    pub tables: Vec<Table>,
    /// The rules, in file order. The first that matches decides.
    pub matches: Vec<Match>,
    /// SMTP settings and limits.
    pub smtp: Smtp,
    /// Settings of the queue.
    pub queue: Queue,
    /// Delay warnings to senders.
    pub bounce: Bounce,
    /// How many shards, and on which cores.
    pub shards: Shards,
    /// Settings of the journal.
    pub store: Store,
    /// The page, if there is one.
    pub http: Option<Http>,
    /// The control socket.
    pub control: Control,
    /// What this host is called.
    pub names: Names,
    /// `--port-offset`: for ports that no line of the file says, such as [`Config::mx_port`]. All others are moved already.
    pub port_offset: u16,
    /// `--root`: absolute paths that come out of tables and user records are below it. Those of the file are already.
    pub root: Option<PathBuf>,
    /// What the file asks for and this version cannot do yet. A server must not start with any of it: what it would leave out
    /// may be what keeps strangers away.
    pub not_yet: Vec<(Line, String)>,
}

/// What this host is called, for `for local` and `from local`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The server name: the `mailname` file beside the configuration, else what the caller said. Lower case.
    pub server: String,
    /// Addresses of this host, beside the loopback ones.
    pub addresses: Vec<IpAddr>,
}

/// A line of a configuration file, for logs and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// Origin 1; 0 if no line says so.
    pub number: u32,
}

impl Line {
    /// For what the program says by itself.
    pub fn built_in() -> Self {
        Self { file: "built in".into(), number: 0 }
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.number)
    }
}
