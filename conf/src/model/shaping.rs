//! How mail leaves: shapes, warm-up, pools, signers, rates (grammar §4.13–4.16).

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Keyed, Line, RelayTls, Reply};
use crate::rules::Among;
use crate::tables::{DkimKey, DomainSet, WordSet};
use crate::values::Rate;

/// `shaping NAME … { … }`.
#[derive(Clone, Debug)]
pub struct Shaping {
    /// Its name; `default` for the one that is for all.
    pub name: String,
    /// What it is for.
    pub selector: ShapeSelector,
    /// What it says.
    pub shape: Shape,
    /// The line that declares it.
    pub line: Line,
}

/// What a shape is for.
#[derive(Clone, Debug, PartialEq)]
pub enum ShapeSelector {
    /// Everything.
    Default,
    /// Domains of recipients.
    Domain(Among<DomainSet>),
    /// Names of MX hosts.
    Mx(Among<DomainSet>),
    /// Names of hosts.
    Host(Among<DomainSet>),
    /// Only the actions that name it.
    Relay,
}

/// What a shape says; what it leaves open, a less specific one says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// Connections to a site.
    pub connections: Option<u32>,
    /// Connections to one host.
    pub connections_per_host: Option<u32>,
    /// Connections from one source address.
    pub connections_per_source: Option<u32>,
    /// New connections.
    pub open_rate: Option<Rate>,
    /// Messages to a site, over all shards.
    pub rate: Option<Rate>,
    /// Messages from one source address.
    pub rate_per_source: Option<Rate>,
    /// Messages above the rate at once.
    pub burst: Option<u32>,
    /// Messages on one connection.
    pub messages_per_connection: Option<u32>,
    /// Recipients in one transaction.
    pub recipients: Option<u32>,
    /// So long a connection without work stays.
    pub idle: Option<Duration>,
    /// So long is waited for a connection.
    pub connect_timeout: Option<Duration>,
    /// So long is waited for a reply.
    pub reply_timeout: Option<Duration>,
    /// Failures in a row after which a host is left alone.
    pub failures: Option<u32>,
    /// So long it is left alone.
    pub pause: Option<Duration>,
    /// `inet4` or `inet6`.
    pub family: super::Family,
    /// `tls …`.
    pub tls: Option<RelayTls>,
    /// The schedule after temporary failures.
    pub retry: Option<Retry>,
    /// How long a message may stay queued.
    pub ttl: Option<Duration>,
    /// `warmup NAME`.
    pub warmup: Option<String>,
    /// What replies mean, in order: those of more specific shapes come first.
    pub on_reply: Vec<OnReply>,
}

/// `on reply …`: which replies, and what is done about them.
pub type OnReply = (Among<WordSet>, Reaction);

/// `retry { … } then D jitter P`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Waits, one after the other.
    pub waits: Vec<Duration>,
    /// All waits after those; the last of them if it does not say.
    pub then: Option<Duration>,
    /// Each wait is varied by so many percent.
    pub jitter_percent: u8,
}

/// What is done about a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// The site's rate goes down by so many percent.
    Throttle(u8),
    /// Nothing goes to the site for so long.
    Suspend(Duration),
    /// The source address is not used for the site for [`Shape::pause`], if there is another one.
    SwitchSource,
}

/// `warmup NAME { … }`: what a new source address may send, day by day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// Its name.
    pub name: String,
    /// The cap of each day.
    pub steps: Vec<Rate>,
    /// The line that declares it.
    pub line: Line,
}

/// `pool NAME { … } select …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub sources: Vec<PoolSource>,
    /// How one is chosen.
    pub select: Select,
    /// The line that declares it.
    pub line: Line,
}

/// A source address of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSource {
    /// The address.
    pub address: IpAddr,
    /// The name to say in EHLO from there, whatever `helo` and `helo-src` of the action say.
    pub helo: Option<String>,
    /// Its share; 1 unless it says otherwise.
    pub weight: u32,
    /// `warmup NAME`.
    pub warmup: Option<String>,
}

/// How a pool's address is chosen. In each way an address of weight 3 has three times the share of one of weight 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Select {
    /// One after the other.
    #[default]
    Cycle,
    /// The one with the fewest connections.
    LeastUsed,
    /// The same for all mail of a sender, by the reverse-path that it came with.
    StickySender,
    /// The same for all mail to a domain.
    StickyDomain,
}

impl Select {
    /// As it is written after `select`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cycle => "cycle",
            Self::LeastUsed => "least-used",
            Self::StickySender => "sticky-sender",
            Self::StickyDomain => "sticky-domain",
        }
    }
}

/// `dkim sign NAME …`.
#[derive(Clone, Debug)]
pub struct Signer {
    /// Its name.
    pub name: String,
    /// With which keys it signs.
    pub keys: SignerKeys,
    /// Headers to sign; empty: the built-in list.
    pub headers: Vec<String>,
    /// `identity`.
    pub identity: Option<String>,
    /// How long a signature is good.
    pub ttl: Option<Duration>,
    /// Only sessions with one of these tags.
    pub tag: Option<Among<WordSet>>,
    /// The line that declares it.
    pub line: Line,
}

/// The keys of a signer.
#[derive(Clone, Debug)]
pub enum SignerKeys {
    /// One key for some domains.
    File {
        /// The domains.
        domains: Among<DomainSet>,
        /// The selector.
        selector: String,
        /// The private key; `--root` is in front already.
        key: PathBuf,
    },
    /// By domain (K_DKIM).
    Table(Keyed<DkimKey>),
}

/// `ratelimit NAME …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Its name.
    pub name: String,
    /// What is counted.
    pub key: RateKey,
    /// How many.
    pub rate: Rate,
    /// How many at once; [`Rate::count`] unless it says otherwise.
    pub burst: u32,
    /// `share NAME`: counted with other machines.
    pub share: Option<String>,
    /// What those beyond it get.
    pub then: RateAction,
    /// The line that declares it.
    pub line: Line,
}

/// What a rate limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateKey {
    /// Clients by network: bits of an IPv4 address; of an IPv6 address, twice that and 8, at most 64.
    Source(u8),
    /// Users.
    User,
    /// Senders.
    Sender,
    /// Their domains.
    SenderDomain,
    /// Recipients.
    Recipient,
    /// Their domains.
    RecipientDomain,
    /// What clients call themselves.
    Helo,
    /// Listeners.
    Listener,
}

/// What those beyond a rate get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RateAction {
    /// 451 4.7.1.
    #[default]
    TempFail,
    /// Each reply comes so much later.
    Slow(Duration),
    /// 421, and the end.
    Disconnect,
    /// This reply.
    Reject(Reply),
}

/// `share NAME redis URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its name.
    pub name: String,
    /// The server.
    pub url: String,
    /// What its keys begin with.
    pub prefix: String,
    /// So long is waited for it.
    pub timeout: Duration,
    /// While it is away: count locally, or refuse for now.
    pub fails_temporarily: bool,
    /// The line that declares it.
    pub line: Line,
}

/// `bounce classify …`.
#[derive(Clone, Debug)]
pub struct Classify {
    /// The class.
    pub class: String,
    /// Which replies.
    pub reply: Among<WordSet>,
    /// Of which destinations; all, if it does not say.
    pub domain: Option<Among<DomainSet>>,
    /// What is done, if it says so.
    pub treat: Option<Treat>,
    /// The line that says so.
    pub line: Line,
}

/// What is done about a class of replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treat {
    /// The message failed.
    Permanent,
    /// It is tried again.
    Temporary,
    /// And the site's rate goes down by so many percent.
    Throttle(u8),
    /// And nothing goes to the site for so long.
    Suspend(Duration),
}
