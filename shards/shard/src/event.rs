//! What a shard tells the log: one event, one line of `key=value`, stable names.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringpost_conf::Rate;
use ringpost_io::Peer;
use ringpost_queue::MessageId;
use ringpost_routes::{Change, PolicyKind};
use ringpost_smtp::client::RemoteReply;
use ringpost_tls::{Secured, Shown};

use crate::letter::{Delays, Link, Security};
use crate::returned::Returned;

/// What the certificate of a server proves.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    /// An authority that is trusted vouches for it.
    Authority,
    /// It is one that DNSSEC vouches for (RFC 7672).
    Dane,
    /// Nothing, and why; nothing was demanded.
    Nothing(&'a str),
}

/// One event. Borrowed: who keeps it writes it down.
#[derive(Debug)]
pub enum Event<'a> {
    /// A client has connected.
    Connected {
        /// Session.
        session: u64,
        /// Peer.
        from: Origin,
    },
    /// A client was turned away or broke the rules so often that the session was closed.
    Refused {
        /// Session.
        session: u64,
        /// Peer.
        from: Origin,
        /// Why.
        why: &'a str,
    },
    /// A client's connection is encrypted now.
    Encrypted {
        /// Session.
        session: u64,
        /// Peer.
        from: Origin,
        /// With what.
        secured: &'a Secured,
    },
    /// A client has logged in.
    LoggedIn {
        /// Session.
        session: u64,
        /// Peer.
        from: Origin,
        /// Who it is.
        user: &'a str,
    },
    /// A client's TLS handshake has failed, and its connection is over.
    HandshakeFailed {
        /// Session.
        session: u64,
        /// Peer.
        from: Origin,
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
        /// What its certificate proves.
        proof: Proof<'a>,
    },
    /// We have logged in at another server.
    LoggedInAt {
        /// The server.
        remote: &'a str,
        /// Whose credentials were used.
        label: &'a str,
        /// How.
        mechanism: &'a str,
    },
    /// A host that mail is sent to was of no use.
    Outbound {
        /// Its name.
        host: &'a str,
        /// Its address.
        address: SocketAddr,
        /// Ours, if it is known.
        source: Option<IpAddr>,
        /// The mail site.
        route: &'a str,
        /// What was awaited.
        stage: &'static str,
        /// What the host said, or why nothing came.
        why: &'a str,
        /// The host is left alone for this time.
        pause: Option<Duration>,
        /// What is done now.
        next: &'a str,
        /// How many of the kind had no line.
        more: u64,
    },
    /// A reply has changed how much a site is given.
    Paced {
        /// The mail site.
        route: &'a str,
        /// From what to what.
        pace: Pace,
        /// The reply.
        reply: &'a str,
    },
    /// What came of a connection to a server that its domain has a policy about (RFC 8460).
    Held {
        /// Whose policy.
        domain: &'a str,
        /// Which.
        kind: PolicyKind,
        /// The server.
        host: &'a str,
        /// Its address and ours, if it was reached.
        addresses: Option<(IpAddr, IpAddr)>,
        /// What was wrong, in the words of RFC 8460 §4.3.
        failure: Option<&'a str>,
    },
    /// What became of one delivery.
    Delivery {
        /// Whether it leaves this host.
        course: Course,
        /// Message.
        id: MessageId,
        /// Whom it is for.
        recipient: &'a str,
        /// The forward-path that has led to it.
        original: &'a str,
        /// How it ended.
        result: Result,
        /// Which way: the remote host, `maildir`, `discard`.
        via: &'a str,
        /// The connection that it went by, if it went to another server.
        link: Option<Link>,
        /// Since it was received.
        age: Duration,
        /// The parts of the last attempt.
        delays: Delays,
        /// What its refusal means, in a word (grammar §4.7).
        class: Option<&'a str>,
        /// What the other side said, if it did.
        reply: Option<&'a RemoteReply>,
    },
    /// What a message says that has come back about one that has left here.
    Returned(&'a Returned<'a>),
    /// A report of a stranger's message that was not made: its sender, or those like him, have had too many.
    Withheld {
        /// The message.
        id: MessageId,
        /// Whom it would have gone to.
        sender: &'a str,
        /// Whom it would have been about.
        recipient: &'a str,
        /// How many others.
        more: usize,
        /// What has become of them (RFC 3464 §2.3.3).
        action: &'a str,
        /// The limit, as the configuration has it.
        limit: &'a str,
        /// What it is.
        rate: Rate,
    },
    /// Something an administrator should look at.
    Warning(&'a str),
}

/// What a reply has changed for its site.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// What its route may do.
    Changed(Change),
    /// It has no mail for so long.
    Suspended {
        /// How long.
        time: Duration,
        /// Messages that waited at its route, and wait at home now.
        tickets: usize,
    },
    /// A source address is not used for it for so long.
    SourceRetired {
        /// The address.
        source: IpAddr,
        /// How long.
        time: Duration,
    },
}

impl Display for Pace {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(Change::Rate { from, to }) => write!(f, "rate={from:.3}/s->{to:.3}/s"),
            Self::Changed(Change::Connections { from, to }) => write!(f, "connections={from}->{to}"),
            Self::Changed(Change::Rest(time)) => write!(f, "rest={}s", time.as_secs()),
            Self::Suspended { time, tickets } => write!(f, "suspended={}s deferred={tickets}", time.as_secs()),
            Self::SourceRetired { source, time } => write!(f, "src={source} retired={}s", time.as_secs()),
        }
    }
}

/// Where a delivery goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// To another server.
    Relay,
    /// It ends here: in a mailbox, a program, a mail store, or nowhere.
    Local,
}

impl Course {
    /// The first word of its lines.
    fn word(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Local => "local",
        }
    }
}

/// Where a client comes from: a host of the net, or a user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Its address.
    Host(IpAddr),
    /// The user's number; the kernel vouches for it.
    User(u32),
}

impl Origin {
    pub(crate) fn of(peer: Peer) -> Self {
        match peer {
            Peer::Address(address) => Self::Host(address.ip()),
            Peer::Process(process) => Self::User(process.uid),
        }
    }

    /// The address, unless it is the local socket.
    pub(crate) fn address(self) -> Option<IpAddr> {
        match self {
            Self::Host(address) => Some(address),
            Self::User(_) => None,
        }
    }

    /// Whether many clients may be behind it.
    pub(crate) fn is_many(self) -> bool {
        match self {
            Self::Host(address) => address.is_loopback(),
            Self::User(uid) => uid == 0,
        }
    }
}

impl Display for Origin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(address) => write!(f, "{address}"),
            Self::User(uid) => write!(f, "socket uid={uid}"),
        }
    }
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
            Event::Connected { session, from } => write!(f, "smtp   s={session:016x} connected from={from}"),
            Event::Refused { session, from, why } => {
                write!(f, "smtp   s={session:016x} refused from={from} why=\"{why}\"")
            }
            Event::Encrypted { session, from, secured } => {
                let Secured { version, cipher, server_name, resumed, client, .. } = secured;
                write!(f, "smtp   s={session:016x} tls from={from} version={version} cipher={cipher}")?;
                if let Some(name) = server_name {
                    write!(f, " sni={name}")?;
                }
                write!(f, " resumed={}", if *resumed { "yes" } else { "no" })?;
                match client {
                    Shown::NotAsked | Shown::Nothing => f.write_str(" verify=none"),
                    Shown::Good(subject) => write!(f, " peer={} verify=ok", subject.called()),
                    Shown::Bad { subject, why } => {
                        let (peer, why) = (subject.called(), why.replace('"', "'"));
                        write!(f, " peer={peer} verify=failed reason=\"{why}\"")
                    }
                }
            }
            Event::LoggedIn { session, from, user } => {
                write!(f, "smtp   s={session:016x} login from={from} user=\"{}\"", user.escape_debug())
            }
            Event::HandshakeFailed { session, from, why } => {
                write!(f, "smtp   s={session:016x} tls-failed from={from} why=\"{why}\"")
            }
            Event::RecipientRefused { session, sender, recipient, reply } => {
                write!(f, "smtp   s={session:016x} refused from=<{sender}> to=<{recipient}> reply=\"{reply}\"")
            }
            Event::Queued { id, session, sender, recipients, bytes, commit } => write!(
                f,
                "queue  id={id} s={session:016x} from=<{sender}> nrcpt={recipients} size={bytes} commit={:.2}ms",
                commit.as_secs_f64() * 1000.0
            ),
            Event::Delivery { course, id, recipient, original, result, via, link, age, delays, class, reply } => {
                let before = age.saturating_sub(delays.wait + delays.connect + delays.talk);
                write!(f, "{}  id={id} to=<{recipient}>", course.word())?;
                if original != recipient {
                    write!(f, " orig=<{original}>")?;
                }
                write!(f, " result={result:?} relay={via}")?;
                if let Some(Link { source, security, .. }) = link {
                    write!(f, " src={source}")?;
                    if let Some(Security { version, verified }) = security {
                        write!(f, " tls={version}/{}", if *verified { "verified" } else { "unverified" })?;
                    }
                }
                write!(
                    f,
                    " delay={:.3} delays={:.3}/{:.3}/{:.3}/{:.3}",
                    age.as_secs_f64(),
                    before.as_secs_f64(),
                    delays.wait.as_secs_f64(),
                    delays.connect.as_secs_f64(),
                    delays.talk.as_secs_f64(),
                )?;
                let Some(reply) = reply else { return Ok(()) };
                if let Some(class) = class {
                    write!(f, " class={class}")?;
                }
                let (severity, subject, detail) = reply.status_or_default();
                write!(f, " dsn={severity}.{subject}.{detail} stat=\"{reply}\"")
            }
            Event::Secured { remote, version, cipher, proof } => {
                write!(f, "tls    to={remote} version={version} cipher={cipher} verify=")?;
                match proof {
                    Proof::Authority => f.write_str("ok"),
                    Proof::Dane => f.write_str("dane"),
                    Proof::Nothing(why) => write!(f, "failed reason=\"{}\"", why.replace('"', "'")),
                }
            }
            Event::LoggedInAt { remote, label, mechanism } => {
                write!(f, "login  to={remote} label={} mechanism={mechanism}", label.escape_debug())
            }
            Event::Outbound { host, address, source, route, stage, why, pause, next, more } => {
                let (ip, port) = (address.ip(), address.port());
                write!(f, "smtp-out: host={host} address={ip} port={port}")?;
                if let Some(source) = source {
                    write!(f, " src={source}")?;
                }
                write!(f, " route={route} stage={stage} why=\"{}\"", why.replace('"', "'"))?;
                if let Some(pause) = pause {
                    write!(f, " pause={}s", pause.as_secs())?;
                }
                if *more > 0 {
                    write!(f, " more={more}")?;
                }
                write!(f, " next=\"{next}\"")
            }
            Event::Paced { route, pace, reply } => {
                write!(f, "pace   route={route} {pace} reply=\"{}\"", reply.replace('"', "'"))
            }
            Event::Held { domain, kind, host, failure, .. } => {
                let (kind, what) = (if *kind == PolicyKind::Dane { "tlsa" } else { "sts" }, failure.unwrap_or("ok"));
                write!(f, "tls    to={host} domain={domain} policy={kind} result={what}")
            }
            Event::Returned(returned) => write!(f, "{returned}"),
            Event::Withheld { id, sender, recipient, more, action, limit, rate } => {
                write!(f, "bounce id={id} to=<{sender}> withheld limit={limit} rate={rate} rcpt=<{recipient}>")?;
                if *more > 0 {
                    write!(f, " more={more}")?;
                }
                write!(f, " action={action}")
            }
            Event::Warning(text) => write!(f, "warn   {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reply_has_changed_is_told_with_the_reply() {
        let reply = "451 4.7.0 slow \"down\"";
        let line = |pace| Event::Paced { route: "mx:25", pace, reply }.to_string();
        let (minute, source) = (Duration::from_secs(60), [192, 0, 2, 1].into());
        for (pace, says) in [
            (Pace::Changed(Change::Rate { from: 120.0, to: 102.0 }), "rate=120.000/s->102.000/s"),
            (Pace::Changed(Change::Connections { from: 11, to: 9 }), "connections=11->9"),
            (Pace::Changed(Change::Rest(minute)), "rest=60s"),
            (Pace::Suspended { time: minute, tickets: 7 }, "suspended=60s deferred=7"),
            (Pace::SourceRetired { source, time: minute }, "src=192.0.2.1 retired=60s"),
        ] {
            assert_eq!(line(pace), format!("pace   route=mx:25 {says} reply=\"451 4.7.0 slow 'down'\""));
        }
    }

    #[test]
    fn a_report_that_is_not_made_is_told_with_its_limit() {
        let rate = Rate { count: 100, per: Duration::from_secs(3600) };
        let event = |more| Event::Withheld {
            id: MessageId(7),
            sender: "a@b.example",
            recipient: "c@d.example",
            more,
            action: "failed",
            limit: "per-sender",
            rate,
        };
        let line =
            "bounce id=0000000000000007 to=<a@b.example> withheld limit=per-sender rate=100/h rcpt=<c@d.example>";
        assert_eq!(event(0).to_string(), format!("{line} action=failed"));
        assert_eq!(event(2).to_string(), format!("{line} more=2 action=failed"));
    }

    #[test]
    fn deliveries_say_whether_they_leave_this_host() {
        let reply = RemoteReply::local(250, (2, 0, 0), "ok");
        let second = Duration::from_secs(1);
        let line = |course, original, via, link| {
            let delays = Delays { wait: second, connect: Duration::ZERO, talk: second };
            let (id, recipient, reply) = (MessageId(7), "b@d.example", Some(&reply));
            let (result, age, class) = (Result::Ok, 3 * second, None);
            Event::Delivery { course, id, recipient, original, result, via, link, age, delays, class, reply }
                .to_string()
        };
        let times = "delay=3.000 delays=1.000/1.000/0.000/1.000 dsn=2.0.0 stat=\"250 2.0.0 ok\"";
        assert_eq!(
            line(
                Course::Relay,
                "b@d.example",
                "mx.d.example[192.0.2.1]:25",
                Some(Link {
                    source: [192, 0, 2, 9].into(),
                    security: Some(Security { version: "TLS1.3", verified: true }),
                    reports: false,
                })
            ),
            format!(
                "relay  id=0000000000000007 to=<b@d.example> result=Ok relay=mx.d.example[192.0.2.1]:25 src=192.0.2.9 \
                 tls=TLS1.3/verified {times}"
            )
        );
        assert_eq!(
            line(Course::Local, "list@d.example", "maildir", None),
            format!(
                "local  id=0000000000000007 to=<b@d.example> orig=<list@d.example> result=Ok relay=maildir {times}"
            )
        );
    }
}
