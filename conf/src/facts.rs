//! What is known about a session and a recipient when the rules are asked, and what they say.

use std::net::IpAddr;

use crate::model::TableId;
use crate::tables::ServiceKind;

/// Facts of one decision. Everything is borrowed; nothing needs to be normalised.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The client's address; `None` for the local socket.
    pub source: Option<IpAddr>,
    /// The message counts as this host's own whatever `source` says: it comes from expansion, or is a bounce. Loopback, the
    /// host's own addresses and the socket are local anyway.
    pub local: bool,
    /// The name that the DNS has for the client's address.
    pub reverse_name: ReverseName<'a>,
    /// What the client said in HELO or EHLO.
    pub helo: &'a str,
    /// The listener's tag, empty if none.
    pub tag: &'a str,
    /// Whether the session is encrypted.
    pub tls: bool,
    /// The names in the client's certificate, if it showed one that is valid: what rules say of one of them holds.
    pub certificate: Option<&'a [String]>,
    /// Who authenticated.
    pub authenticated: Option<&'a str>,
    /// The reverse-path without brackets; empty for the null sender.
    pub sender: &'a str,
    /// The forward-path without brackets.
    pub recipient: &'a str,
    /// The time in milliseconds since the epoch, where there is an `srs key`: its addresses are good for a while.
    pub now_ms: u64,
}

/// What the DNS says of the client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReverseName<'a> {
    /// Nobody has asked yet.
    #[default]
    NotAsked,
    /// The name.
    Known(&'a str),
    /// There is none, or the client came by the socket.
    None,
    /// The DNS did not answer.
    Failed,
}

/// What the rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<'c> {
    /// Index into [`crate::Config::actions`].
    Action(usize),
    /// A `reject` line matched.
    Reject {
        /// 4xx or 5xx.
        code: u16,
        /// Enhanced status (RFC 3463).
        status: &'c str,
        /// Text of the reply.
        text: &'c str,
    },
    /// No line matched. Refused: 550 5.1.1 if the domain is known, else 550 5.7.1 (grammar §6.1).
    NoMatch {
        /// Whether some line names the recipient's domain in its `for`.
        domain_is_known: bool,
    },
    /// A lookup failed, and the line that it is for might have decided: 451 4.3.0.
    Unknown,
    /// These must be looked up first; then the same question again.
    Needs(Vec<Lookup>),
}

/// What a decision needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// The answer of a table to a question. Whoever asks it goes through the derived keys ([`crate::tables::Keys`]).
    Table {
        /// Which.
        table: TableId,
        /// For what.
        service: ServiceKind,
        /// The question, not normalised.
        key: String,
    },
    /// The client's [`Facts::reverse_name`].
    ReverseName,
}
