//! What shards say to each other: tickets to the owner of a route, outcomes back home, and pieces of large bodies.
//!
//! A letter is a few words long: a ticket is boxed, bodies are shared or moved, never copied on a ring.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringpost_conf::OnReply;
use ringpost_routes::{Host, Shape, Site, Suspension, Waiting};
use ringpost_smtp::client::RemoteReply;
use ringpost_smtp::dsn::Ret;

use crate::stock::Taken;
use crate::wake;

/// One message for one route: all its recipients there share a transaction.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Shard that holds it.
    pub home: usize,
    /// Message identifier; names the slice.
    pub message: u64,
    /// Reverse-path, empty for a bounce.
    pub sender: String,
    /// Forward-paths with the index of their envelope.
    pub recipients: Vec<(u16, String)>,
    /// The route.
    pub site: Site,
    /// The hosts of the site, best first.
    pub hosts: Arc<[Host]>,
    /// What the route may do.
    pub shape: Arc<Shape>,
    /// What its shape says of replies.
    pub on_reply: Arc<[OnReply]>,
    /// Size of the message in bytes, without dot-stuffing.
    pub body_bytes: u64,
    /// The message, if it is small; else it is fetched from home.
    pub body: Option<Arc<[u8]>>,
    /// 8-bit data (RFC 6152).
    pub eightbit: bool,
    /// Internationalised addresses (RFC 6531).
    pub smtputf8: bool,
    /// Nobody may have it without TLS (RFC 8689).
    pub requires_tls: bool,
    /// How urgent it is, from -9 to 9 (RFC 6710).
    pub priority: i8,
    /// How much a report of failure is to return (RFC 3461).
    pub ret: Option<Ret>,
    /// The client's name for the transaction (RFC 3461); else empty.
    pub envid: String,
    /// What the sender wants to be told of recipients, by the index of their envelope, ascending; of many messages nothing.
    pub requests: Vec<(u16, String)>,
    /// When it became ready.
    pub ready: Instant,
    /// What conversations have taken of the time since then that ended before its message had an answer.
    pub talked: Duration,
    /// It goes home when it has waited until then, in milliseconds since the epoch, as expiry is counted: that may come
    /// sooner or later than it seemed, when the clock is set.
    pub until_ms: u64,
    /// Its part of the memory that its home lets out; comes back with the results.
    pub(crate) taken: Taken,
}

impl Waiting for Box<Ticket> {
    fn sender(&self) -> u32 {
        self.taken.sender
    }

    fn bytes(&self) -> u64 {
        self.body_bytes
    }
}

/// What became of one recipient of a ticket.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The next server took it.
    Delivered(RemoteReply),
    /// Try again by the retry schedule.
    Transient(RemoteReply),
    /// Never try again.
    Permanent(RemoteReply),
    /// Never try again: a program has refused it.
    Refused {
        /// How it ended.
        reply: RemoteReply,
        /// What it said, lines of a stranger: for the sender.
        output: String,
    },
    /// Not tried, or not to the end: its text cannot be read. It is tried again by the retry schedule, and given up at its time.
    Unreadable(RemoteReply),
    /// Not tried: the route has too much to do, or the shard stops. Not an attempt.
    Untried,
    /// Not tried: limits have changed. It is sent on its way anew at once; not an attempt.
    Recalled,
    /// Not tried: the route has its share of the memory. It waits at home; not an attempt.
    Waits,
    /// Not tried: the site could not be reached a short time ago.
    Paused {
        /// It will be tried again after this time.
        wait: Duration,
        /// What happened then.
        reply: RemoteReply,
    },
    /// Not tried: the site has no mail for a time, as the configuration says of one of its replies.
    Suspended {
        /// Since when, and until when.
        suspension: Suspension,
        /// In the form of a reply.
        reply: RemoteReply,
    },
}

impl Outcome {
    /// That the text, or what else is needed of it, cannot be read: what is said of that.
    pub(crate) fn unreadable(why: impl std::fmt::Display) -> Self {
        Self::Unreadable(RemoteReply::local(
            451,
            (4, 3, 0),
            format!("the message cannot be read on this server: {why}"),
        ))
    }

    /// Whether the site itself was at fault, and for now.
    pub(crate) fn is_about_site(&self) -> bool {
        match self {
            Self::Transient(reply) => wake::is_about_site(reply),
            Self::Paused { .. } | Self::Suspended { .. } => true,
            _ => false,
        }
    }
}

/// What became of a ticket.
#[derive(Debug)]
pub struct Results {
    /// Message of the ticket.
    pub message: u64,
    /// Envelope index and what became of it.
    pub recipients: Vec<(u16, Outcome)>,
    /// The host that took or refused it; empty if none was reached.
    pub remote: String,
    /// The site that its mail is counted with, where sites are told apart (`metrics sites`).
    pub site: Option<String>,
    /// The connection that it went by, if it went to another server.
    pub link: Option<Link>,
    /// Waiting at the route, connecting, talking.
    pub delays: Delays,
    /// What its ticket had, if there was one.
    pub(crate) taken: Option<Taken>,
}

/// A connection to another server, as the log tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Our address.
    pub source: IpAddr,
    /// How it is encrypted.
    pub security: Option<Security>,
    /// The server reports to the sender itself what it is asked to (DSN, RFC 3461).
    pub reports: bool,
}

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Security {
    /// `TLS1.3`.
    pub version: &'static str,
    /// The other side's certificate is valid for its name.
    pub verified: bool,
}

/// The three parts of a delivery's time after the home shard let it go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delays {
    /// Waiting for a connection.
    pub wait: Duration,
    /// Connecting and greeting, if it was for this message.
    pub connect: Duration,
    /// The transaction.
    pub talk: Duration,
}

/// A message from shard to shard.
#[derive(Debug)]
pub enum Letter {
    /// To the owner of a route.
    Ticket(Box<Ticket>),
    /// Back home.
    Results(Box<Results>),
    /// To every home: a site that took nothing has taken a message.
    Awake(Box<Site>),
    /// Asks home for a piece of a body.
    Fetch {
        /// Of which message.
        message: u64,
        /// From which byte.
        at: u64,
        /// At most so many bytes.
        len: u32,
        /// Number to answer to.
        question: u64,
    },
    /// The piece; `None`: it cannot be read now.
    Piece {
        /// Of which question.
        question: u64,
        /// The bytes.
        bytes: Option<Arc<Vec<u8>>>,
    },
    /// The shard has stopped, and waits for nothing of the other's.
    Over,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s127_what_travels_on_rings_is_small() {
        assert!(size_of::<Letter>() <= 64, "{}", size_of::<Letter>());
        assert!(size_of::<(usize, Letter)>() <= 128);
    }
}
