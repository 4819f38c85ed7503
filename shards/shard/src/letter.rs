//! What shards say to each other: tickets to the owner of a route, outcomes back home, and pieces of large bodies.
//!
//! A letter is a few words long: a ticket is boxed, bodies are shared or moved, never copied on a ring.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringpost_routes::{Host, Site};
use ringpost_smtp::client::RemoteReply;

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
    /// Size of the message in bytes, without dot-stuffing.
    pub body_bytes: u64,
    /// The message, if it is small; else it is fetched from home.
    pub body: Option<Arc<[u8]>>,
    /// 8-bit data (RFC 6152).
    pub eightbit: bool,
    /// Internationalised addresses (RFC 6531).
    pub smtputf8: bool,
    /// When it became ready.
    pub ready: Instant,
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
    /// Not tried: the route has too much to do, or the shard stops. Not an attempt.
    Untried,
    /// Not tried: the site could not be reached a short time ago.
    Paused {
        /// It will be tried again after this time.
        wait: Duration,
        /// What happened then.
        reply: RemoteReply,
    },
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
    /// The connection that it went by, if it went to another server.
    pub link: Option<Link>,
    /// Waiting at the route, connecting, talking.
    pub delays: Delays,
}

/// A connection to another server, as the log tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Our address.
    pub source: IpAddr,
    /// How it is encrypted.
    pub security: Option<Security>,
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
        bytes: Option<Vec<u8>>,
    },
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
