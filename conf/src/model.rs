//! The checked configuration: what the administrator wants, in types that cannot say anything wrong.
//!
//! A `Config` is immutable and shared by all shards; a session keeps the one it began with (style.md §4, *A reload*).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ringpost_address::Domain;

use crate::format::Format;
use crate::limits;
use crate::rules::{Condition, Dest, Negation, Origin, Test};

/// Everything a server needs to know. Made by [`crate::load`], or by [`Config::quickstart`].
#[derive(Debug)]
pub struct Config {
    /// Where to listen, in file order; names are not resolved yet.
    pub listeners: Vec<Listener>,
    /// What may be done with a recipient. [`crate::Decision::Action`] is an index into this.
    pub actions: Vec<Action>,
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
}

/// One `listen on` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where; names and groups are resolved by the supervisor.
    pub place: Where,
    /// `inet4` or `inet6`, or both.
    pub family: Family,
    /// The port, `--port-offset` included.
    pub port: u16,
    /// The name in the greeting and in `Received:`; by default [`Names::server`].
    pub hostname: String,
    /// The tag of its sessions; empty if none.
    pub tag: String,
    /// Largest message in bytes; by default [`Smtp::message_bytes_max`].
    pub message_bytes_max: u64,
    /// The line that says so.
    pub line: Line,
}

/// What `listen on` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// `all`: one wildcard socket for each family.
    All,
    /// `egress`: the addresses of the interfaces with a default route.
    Egress,
    /// One address.
    Address(IpAddr),
    /// An interface, an interface group or a host name, in this order (`lo0` is the loopback interface everywhere).
    Name(String),
}

/// Which address families a listener uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Both.
    #[default]
    Both,
    /// `inet4`.
    V4,
    /// `inet6`.
    V6,
}

/// A named action.
#[derive(Clone, Debug)]
pub struct Action {
    /// Its name, for logs.
    pub name: String,
    /// What it does.
    pub kind: ActionKind,
    /// How long a message may stay queued; by default [`Queue::ttl`].
    pub ttl: Duration,
    /// The line that declares it.
    pub line: Line,
}

/// What an action does.
#[derive(Clone, Debug)]
pub enum ActionKind {
    /// Send it on.
    Relay(Relay),
    /// Deliver into a Maildir.
    Maildir(Maildir),
    /// Accept, record, deliver nowhere.
    Discard,
}

/// `relay`.
#[derive(Clone, Debug, Default)]
pub struct Relay {
    /// Smart hosts, cycled. Empty: by the MX records of the recipient's domain.
    pub hosts: Vec<RelayHost>,
    /// The name to say in EHLO; by default [`Names::server`].
    pub helo: Option<String>,
    /// Source addresses, cycled, of the destination's family. Empty: the system chooses.
    pub sources: Vec<IpAddr>,
}

impl Relay {
    /// Whether an address of this family may be used as a destination: with `src`, only where there is a source for it.
    pub fn reaches(&self, destination: IpAddr) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|s| s.is_ipv4() == destination.is_ipv4())
    }
}

/// A relay URL, `[scheme://][label@]host[:port]` (grammar §4.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayHost {
    /// What the channel must be.
    pub scheme: Scheme,
    /// Whose addresses to use.
    pub host: Host,
    /// Port, `--port-offset` included.
    pub port: u16,
}

/// The channel that a relay URL asks for. The schemes that guarantee TLS, and LMTP, are errors at load for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `smtp://`: STARTTLS if offered, else plain. This version has no TLS yet, and speaks plainly.
    Opportunistic,
    /// `smtp+notls://`: plain only.
    Plain,
}

/// The host of a relay URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name; its A and AAAA records, never its MX.
    Name(Domain),
    /// `mx:NAME`: the MX records of this name.
    Mx(Domain),
}

/// `maildir PATH`.
#[derive(Clone, Debug)]
pub struct Maildir {
    /// The directory, with `%{…}`; `--root` is in front already.
    pub path: Format,
}

/// One `match` line.
#[derive(Debug)]
pub struct Match {
    /// Where the message comes from; absent in the file means `from local`.
    pub from: (Negation, Origin),
    /// Where it goes; absent in the file means `for local`.
    pub dest: (Negation, Dest),
    /// Further conditions; all are required.
    pub conditions: Vec<Condition>,
    /// What follows.
    pub outcome: Outcome,
    /// The line that says so.
    pub line: Line,
}

impl Match {
    /// `match from any for any action …`, made and not written.
    pub fn everything(action: usize, line: Line) -> Self {
        let plain = Negation::Plain;
        Self {
            from: (plain, Origin::Any),
            dest: (plain, Dest::Any),
            conditions: Vec::new(),
            outcome: Outcome::Action(action),
            line,
        }
    }

    /// Whether some condition is of this kind.
    pub(crate) fn has_test(&self, kind: impl Fn(&Test) -> bool) -> bool {
        self.conditions.iter().any(|c| kind(&c.test))
    }
}

/// What a matching line leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Index into [`Config::actions`].
    Action(usize),
    /// Refuse with this reply.
    Reject(Reply),
}

/// A reply that the file gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 4xx or 5xx.
    pub code: u16,
    /// Enhanced status (RFC 3463), of the same class as the code.
    pub status: String,
    /// The rest of the line.
    pub text: String,
}

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

/// Where quick-start listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quickstart {
    /// SMTP.
    pub listen: Vec<SocketAddr>,
    /// The page.
    pub page: Option<SocketAddr>,
}

impl Default for Quickstart {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::LOCALHOST, 2525).into(), (Ipv6Addr::LOCALHOST, 2525).into()],
            page: Some((Ipv4Addr::LOCALHOST, 8025).into()),
        }
    }
}

impl Config {
    /// The server without a configuration (issue 3): mail for anyone from anyone who can connect goes to `STATE/Maildir`; there
    /// is no relay action, so nothing can leave the machine. Limits that only get in the way of a load test on loopback are wide.
    pub fn quickstart(state: &Path, listen: &Quickstart) -> Self {
        let smtp = Smtp { mails_max: u32::MAX, sessions_per_source_max: limits::SESSIONS, ..Smtp::default() };
        let listeners = listen.listen.iter().map(|at| Listener {
            place: Where::Address(at.ip()),
            family: Family::Both,
            port: at.port(),
            hostname: "localhost".into(),
            tag: String::new(),
            message_bytes_max: smtp.message_bytes_max,
            line: Line::built_in(),
        });
        let maildir = Maildir { path: Format::literal(state.join("Maildir").to_string_lossy().into_owned()) };
        Self {
            listeners: listeners.collect(),
            actions: vec![Action {
                name: "maildir".into(),
                kind: ActionKind::Maildir(maildir),
                ttl: limits::QUEUE_TTL,
                line: Line::built_in(),
            }],
            matches: vec![Match::everything(0, Line::built_in())],
            smtp,
            queue: Queue::default(),
            bounce: Bounce::default(),
            shards: Shards::default(),
            store: Store { path: state.to_path_buf(), ..Store::default() },
            http: listen.page.map(|listen| Http { listen }),
            control: Control { socket: state.join("control.sock") },
            names: Names { server: "localhost".into(), addresses: Vec::new() },
            port_offset: 0,
        }
    }

    /// The port at which the hosts of MX records are reached: 25, moved by `--port-offset`.
    pub fn mx_port(&self) -> u16 {
        const SMTP_PORT: u16 = 25;
        SMTP_PORT.saturating_add(self.port_offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decision, Facts};

    #[test]
    fn quickstart_takes_everything_and_relays_nothing() {
        fn shared<T: Send + Sync>(_: &T) {}
        let config = Config::quickstart(Path::new("/tmp/state"), &Quickstart::default());
        shared(&config);
        let facts = Facts { recipient: "anyone@anywhere.example", ..Facts::default() };
        assert!(matches!(config.decide(&facts), Decision::Action(0)));
        assert!(config.actions.iter().all(|a| !matches!(a.kind, ActionKind::Relay(_))));
        let ActionKind::Maildir(maildir) = &config.actions[0].kind else { panic!() };
        assert_eq!(maildir.path.expand_path(&Default::default()).unwrap(), Path::new("/tmp/state/Maildir"));
    }
}
