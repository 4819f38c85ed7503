//! The checked configuration: what the administrator wants, in types that cannot say anything wrong.
//!
//! A `Config` is immutable and shared by all shards; a session keeps the one it began with (style.md §4, *A reload*).

mod action;
mod encryption;
mod filter;
mod listener;
mod quickstart;
mod relay;
mod rule;
mod settings;
mod shaping;
mod table;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::not_yet::NotYet;

pub use action::{Action, ActionKind, Lmtp, LocalOptions, Maildir, Mapping, Mda};
pub use encryption::{Cipher, TlsVersion};
pub use filter::{Filter, FilterCondition, FilterDecision, FilterKind, FilterTest, OnFailure, Phase, Proc, Program};
pub use listener::{
    Authentication, Ca, CertificateAuth, Family, LOCAL_TAG, ListedPair, Listener, ListenerTls, PasswordAuth, Pki,
    PkiSource, Proxies, Senders, TlsMode, Users, Where,
};
pub use quickstart::Quickstart;
pub use relay::{Host, Relay, RelayHost, RelayTls, Scheme};
pub use rule::{Match, Outcome, Reply};
pub use settings::{
    Bounce, BounceLimits, Commit, Compression, Control, Http, Log, LogTarget, Machinery, Metrics, Queue, QueueBackend,
    QueueKey, Reserve, Shards, Smtp, Srs, Store,
};
pub use shaping::{
    Classify, OnReply, Pool, PoolSource, RateAction, RateKey, RateLimit, Reaction, Retry, Select, Shape, ShapeSelector,
    Shaping, Share, Signer, SignerKeys, Treat, Warmup,
};
pub use table::{Backend, Keyed, Table, TableId, TableOptions};

pub use crate::values::Rate;

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
    /// Keys and certificates.
    pub pkis: Vec<Pki>,
    /// Authorities.
    pub cas: Vec<Ca>,
    /// Filters.
    pub filters: Vec<Filter>,
    /// Programs that filters name.
    pub procs: Vec<Proc>,
    /// Shapes, in file order.
    pub shapings: Vec<Shaping>,
    /// Warm-up of source addresses.
    pub warmups: Vec<Warmup>,
    /// Pools of source addresses.
    pub pools: Vec<Pool>,
    /// DKIM signers.
    pub signers: Vec<Signer>,
    /// Rate limits.
    pub rate_limits: Vec<RateLimit>,
    /// Servers that count for several machines.
    pub shares: Vec<Share>,
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
    /// `srs`.
    pub srs: Srs,
    /// `mta`, `mda` and `scheduler`.
    pub machinery: Machinery,
    /// `metrics`.
    pub metrics: Metrics,
    /// `log`; empty: syslog for a daemon, else standard error.
    pub logs: Vec<Log>,
    /// `admd`: the name in `Authentication-Results:`.
    pub admd: Option<String>,
    /// `profile`.
    pub profile: Option<&'static str>,
    /// What this host is called.
    pub names: Names,
    /// `--port-offset`: for ports that no line of the file says, such as [`Config::mx_port`]. All others are moved already.
    pub port_offset: u16,
    /// `--root`: absolute paths that come out of tables and user records are below it. Those of the file are already.
    pub root: Option<PathBuf>,
    /// Where settings are given, by the words that begin them (`queue ttl`, `smtp limit`).
    pub setting_lines: BTreeMap<&'static str, Line>,
    /// What the file asks for and this version cannot do yet. A server must not start with any of it: what it would leave out
    /// may be what keeps strangers away.
    pub not_yet: Vec<NotYet>,
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
    /// From 1; 0 if no line says so.
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
