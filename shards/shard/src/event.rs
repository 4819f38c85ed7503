//! What a shard tells the log: one event, one line of `key=value`, stable names.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::time::Duration;

use ringpost_queue::MessageId;
use ringpost_smtp::client::RemoteReply;

use crate::letter::Delays;

/// One event. Borrowed: who keeps it writes it down.
#[derive(Debug)]
pub enum Event<'a> {
    /// A client has connected.
    Connected {
        /// Session.
        session: u64,
        /// Peer.
        from: SocketAddr,
    },
    /// A client was turned away or broke the rules so often that the session was closed.
    Refused {
        /// Session.
        session: u64,
        /// Peer.
        from: SocketAddr,
        /// Why.
        why: &'a str,
    },
    /// A recipient was refused.
    RecipientRefused {
        /// Session.
        session: u64,
        /// Reverse-path.
        sender: &'a str,
        /// Forward-path.
        recipient: &'a str,
        /// The reply.
        reply: &'a str,
    },
    /// A message is on stable storage.
    Queued {
        /// Message.
        id: MessageId,
        /// Session.
        session: u64,
        /// Reverse-path.
        sender: &'a str,
        /// Number of recipients.
        recipients: usize,
        /// Size in bytes.
        bytes: u64,
        /// Time to make it durable.
        commit: Duration,
    },
    /// A connection to another server is encrypted.
    Secured {
        /// The server.
        remote: &'a str,
        /// Version of TLS.
        version: &'a str,
        /// Cipher suite.
        cipher: &'a str,
        /// Why its certificate proves nothing, where that was not demanded.
        doubt: Option<&'a str>,
    },
    /// What became of one delivery.
    Delivery {
        /// Message.
        id: MessageId,
        /// Forward-path.
        recipient: &'a str,
        /// How it ended.
        result: Result,
        /// Which way: the remote host, `maildir`, `discard`.
        via: &'a str,
        /// Since it was received.
        age: Duration,
        /// The parts of the last attempt.
        delays: Delays,
        /// What the other side said, if it did.
        reply: Option<&'a RemoteReply>,
    },
    /// Something an administrator should look at.
    Warning(&'a str),
}

/// How a delivery attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Result {
    /// Taken by the next server or mailbox.
    Ok,
    /// Will be tried again.
    TempFail,
    /// Given up.
    PermFail,
    /// Given up after the time that the message may stay queued.
    Expired,
}

impl Display for Event<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Event::Connected { session, from } => write!(f, "smtp   s={session:016x} connected from={}", from.ip()),
            Event::Refused { session, from, why } => {
                write!(f, "smtp   s={session:016x} refused from={} why=\"{why}\"", from.ip())
            }
            Event::RecipientRefused { session, sender, recipient, reply } => {
                write!(f, "smtp   s={session:016x} refused from=<{sender}> to=<{recipient}> reply=\"{reply}\"")
            }
            Event::Queued { id, session, sender, recipients, bytes, commit } => write!(
                f,
                "queue  id={id} s={session:016x} from=<{sender}> nrcpt={recipients} size={bytes} commit={:.2}ms",
                commit.as_secs_f64() * 1000.0
            ),
            Event::Delivery { id, recipient, result, via, age, delays, reply } => {
                let before = age.saturating_sub(delays.wait + delays.connect + delays.talk);
                write!(
                    f,
                    "relay  id={id} to=<{recipient}> result={result:?} relay={via} delay={:.3} delays={:.3}/{:.3}/{:.3}/{:.3}",
                    age.as_secs_f64(),
                    before.as_secs_f64(),
                    delays.wait.as_secs_f64(),
                    delays.connect.as_secs_f64(),
                    delays.talk.as_secs_f64(),
                )?;
                reply.map_or(Ok(()), |reply| write!(f, " stat=\"{reply}\""))
            }
            Event::Secured { remote, version, cipher, doubt } => {
                write!(f, "tls    to={remote} version={version} cipher={cipher} verify=")?;
                match doubt {
                    None => f.write_str("ok"),
                    Some(why) => write!(f, "failed reason=\"{}\"", why.replace('"', "'")),
                }
            }
            Event::Warning(text) => write!(f, "warn   {text}"),
        }
    }
}
