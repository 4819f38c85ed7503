//! What is known about a session and a recipient when the rules are asked.

use std::net::IpAddr;

/// Facts of one decision. Everything is borrowed; nothing needs to be normalised.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The client's address; `None` for the local socket.
    pub source: Option<IpAddr>,
    /// The message counts as this host's own whatever `source` says: it comes from expansion, or is a bounce. Loopback, the
    /// host's own addresses and the socket are local anyway.
    pub local: bool,
    /// What the client said in HELO or EHLO.
    pub helo: &'a str,
    /// The listener's tag, empty if none.
    pub tag: &'a str,
    /// Who authenticated.
    pub authenticated: Option<&'a str>,
    /// The reverse-path without brackets; empty for the null sender.
    pub sender: &'a str,
    /// The forward-path without brackets.
    pub recipient: &'a str,
}

/// What the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}
