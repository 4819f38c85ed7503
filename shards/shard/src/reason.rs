//! Why an envelope is where it is: the one list of all reasons, what each is called, and how its envelope gets free. What
//! an envelope waits for is never written down: it is read off the state of the queue, the stock, the flights and the
//! routes, so that it cannot be wrong about them. The auditor ([`crate::audit`]) holds that there always is one.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::time::Instant;

use ringpost_io::Runtime;
use ringpost_queue::{Listed, MessageId, Status};
use ringpost_routes::{Place, Rate, RouteId, Site, Slowed, Standing};
use serde::{Deserialize, Serialize};

use crate::dispatch::{self, Flight};
use crate::shard::{Shard, World};
use crate::stock::{Parked, Taken};

/// What an envelope waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Reason {
    /// An attempt has failed; the next one has its time.
    Retry,
    /// Its sender wants it held until then (RFC 4865).
    Release,
    /// It was given back without an attempt, and is taken up again shortly.
    GivenBack,
    /// It is due and the next to be taken up.
    Turn,
    /// As much is on its way from its shard as may be.
    Room {
        /// Messages on their way.
        messages: usize,
        /// As many as may be.
        most: usize,
    },
    /// The journal does not write, so nothing is tried whose outcome could not be kept.
    Disk,
    /// `scheduler backend null`.
    Null,
    /// No server runs.
    Stopped,
    /// An administrator has to release it.
    Held,
    /// It is read back from the journal.
    Reading,
    /// Tables are asked where it goes.
    Tables,
    /// The DNS is asked where it goes.
    Names,
    /// Its route has its share of the memory; it is at home, and read back when the route has room.
    Share {
        /// The site.
        site: String,
        /// Messages that the route has from its shard.
        out: usize,
        /// Envelopes that wait like this one.
        waiting: usize,
    },
    /// It is between two shards.
    Ring {
        /// The site.
        site: String,
    },
    /// Its route is left alone after a failure.
    Pause {
        /// The site.
        site: String,
        /// What has failed.
        why: String,
    },
    /// Its site has no mail now, as the configuration says of a reply.
    Suspended {
        /// The site.
        site: String,
        /// The reply.
        reply: String,
    },
    /// Its route has messages or connections held back since the site has said that it takes less.
    Slowed {
        /// The site.
        site: String,
        /// To what.
        to: String,
        /// The reply.
        reply: String,
        /// Messages that wait at the route.
        waiting: usize,
    },
    /// Its route's sources warm up, and have sent what they may to its site.
    WarmUp {
        /// The site.
        site: String,
        /// The source that may send again first; `system`: whichever the system chooses.
        source: String,
        /// As many as have been sent, as in `warmup`; `None`: how many may be sent cannot be known now.
        cap: Option<String>,
        /// Messages that wait at the route.
        waiting: usize,
    },
    /// Its route has no token of its rate now.
    Rate {
        /// The site.
        site: String,
        /// The rate, as in `shaping`.
        rate: String,
        /// Messages that wait at the route.
        waiting: usize,
    },
    /// A connection to its site is being opened.
    Connecting {
        /// The site.
        site: String,
        /// Messages that wait at the route.
        waiting: usize,
    },
    /// All connections that its site may have are in use.
    Connections {
        /// The site.
        site: String,
        /// Connections open.
        open: usize,
        /// As many as may be.
        most: usize,
        /// Messages that wait at the route.
        waiting: usize,
    },
    /// It waits at its route for a connection.
    Route {
        /// The site.
        site: String,
        /// Messages that wait at the route.
        waiting: usize,
    },
    /// It is on a connection.
    Sending {
        /// The host and its address.
        remote: String,
    },
    /// It is being delivered on this machine or to a mail store, or waits for its turn there.
    Local,
    /// It has failed for good, and the report to its sender is being queued.
    Report,
    /// Nobody has it. This is an error of this program; the auditor sets it free.
    Stranded,
}

impl Reason {
    /// What an administrator does to end the waiting; `None`: it ends by itself, or not by a command.
    pub fn release(&self) -> Option<&'static str> {
        match self {
            Self::Retry | Self::GivenBack | Self::Pause { .. } | Self::Suspended { .. } => Some("ringpost queue retry"),
            Self::Null => Some("take `scheduler backend null` out of the configuration, then: ringpost reload"),
            Self::Stopped => Some("ringpost serve"),
            Self::Disk => Some("see to the disk of the state directory; the log says what it refused"),
            _ => None,
        }
    }
}

impl Display for Reason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry => f.write_str("the next attempt after a temporary failure"),
            Self::Release => f.write_str("the time until which its sender wants it held (FUTURERELEASE)"),
            Self::GivenBack => f.write_str("being taken up again: it was given back without an attempt"),
            Self::Turn => f.write_str("being taken up: it is due"),
            Self::Room { messages, most } => {
                write!(f, "room: {messages} messages of its shard are on their way, of at most {most}")
            }
            Self::Disk => f.write_str("the disk: the journal cannot be written now"),
            Self::Null => f.write_str("nothing: the configuration says `scheduler backend null`"),
            Self::Stopped => f.write_str("the server: none runs with this state directory"),
            Self::Held => f.write_str("an administrator, who has to release it"),
            Self::Reading => f.write_str("being read back from the journal"),
            Self::Tables => f.write_str("the answer of a table that says where it goes"),
            Self::Names => f.write_str("the DNS, to say where it goes"),
            Self::Share { site, out, waiting } => write!(
                f,
                "its route to {site} to have room: {out} messages of its shard are there, {waiting} more wait like it"
            ),
            Self::Ring { site } => write!(f, "the shard that has the route to {site}"),
            Self::Pause { site, why } => write!(f, "the end of a pause of the route to {site}: {why}"),
            Self::Suspended { site, reply } => write!(f, "the end of the suspension of {site}, which said: {reply}"),
            Self::Slowed { site, to, reply, waiting } => {
                write!(f, "its turn at {site}, which has {to} since it said: {reply}; {waiting} wait there")
            }
            Self::WarmUp { site, source, cap: Some(cap), waiting } => {
                let (count, time) = cap.split_once('/').unwrap_or((cap, "d"));
                let time = match time {
                    "d" => "today, next at 00:00 UTC".to_owned(),
                    "h" => "this hour".to_owned(),
                    "m" => "this minute".to_owned(),
                    time => format!("in {time}"),
                };
                write!(f, "the warm-up of {source}: {count} of {count} sent to {site} {time}; {waiting} wait there")
            }
            Self::WarmUp { site, source, cap: None, waiting } => write!(
                f,
                "the warm-up of {source}: how many it may send to {site} cannot be known now, the log says why; {waiting} wait there"
            ),
            Self::Rate { site, rate, waiting } => {
                write!(f, "its turn at {site}, which gets {rate}; {waiting} wait there")
            }
            Self::Connecting { site, waiting } => {
                write!(f, "a connection to {site} that is being opened; {waiting} wait there")
            }
            Self::Connections { site, open, most, waiting } => {
                write!(f, "one of {open} connections to {site}, of at most {most}; {waiting} wait there")
            }
            Self::Route { site, waiting } => write!(f, "a connection to {site}; {waiting} wait there"),
            Self::Sending { remote } => write!(f, "the replies of {remote}, which it is being sent to"),
            Self::Local => f.write_str("its delivery on this machine or to a mail store"),
            Self::Report => f.write_str("the report to its sender, which is being queued"),
            Self::Stranded => f.write_str("nothing that is known: an error of this program"),
        }
    }
}

/// A reason with its times, in milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// What it waits for.
    #[serde(flatten)]
    pub reason: Reason,
    /// Since when, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// When it ends by itself, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

impl Blocked {
    pub(crate) fn by(reason: Reason) -> Self {
        Self { reason, since_ms: None, until_ms: None }
    }

    pub(crate) fn since(self, since_ms: u64) -> Self {
        Self { since_ms: Some(since_ms), ..self }
    }

    pub(crate) fn until(self, until_ms: u64) -> Self {
        Self { until_ms: Some(until_ms), ..self }
    }
}

/// How far an envelope in flight has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It was dispatched.
    Begun,
    /// Tables are asked.
    Tables,
    /// The DNS is asked.
    Names,
    /// Its ticket is with the owner of its route.
    Route(Taken),
    /// It is being delivered here.
    Local,
    /// Its result is known.
    Over,
}

/// The route of an envelope whose ticket is out: its owner knows more.
pub type Onward = Option<(usize, Site)>;

/// Marks how far envelopes of a message have come. Of none that is not in the air.
pub(crate) fn mark<W: World>(
    shard: &Shard<W>,
    id: MessageId,
    indexes: impl Iterator<Item = u16>,
    progress: Progress,
    since: Option<Instant>,
) {
    let flights = shard.flights.borrow();
    let Some(flight) = flights.get(&id.0) else { return };
    indexes.filter_map(|index| flight.envelope(index)).for_each(|envelope| envelope.progress.set((progress, since)));
}

/// What an envelope of this shard's queue waits for, and where its ticket is. `release_ms`: its message is not to be tried before.
pub(crate) fn of<W: World>(
    shard: &Shard<W>,
    listed: &Listed,
    release_ms: Option<u64>,
    parked: &Parked,
) -> (Blocked, Onward) {
    let here = |reason| (Blocked::by(reason), None);
    match listed.state {
        Status::Held => here(Reason::Held),
        Status::Waiting => (waiting(shard, listed, release_ms), None),
        Status::InFlight if listed.parked => match parked.get(&(listed.id, listed.index)) {
            Some(Some((site, out, waiting))) => {
                let reason = Reason::Share { site: site.name.clone(), out: *out, waiting: *waiting };
                (Blocked::by(reason), Some((site.owner(shard.peers()), site.clone())))
            }
            Some(None) => here(no_room(shard)),
            None => here(Reason::Stranded),
        },
        Status::InFlight => flying(shard, listed),
        // What has ended waits for nothing, and is not listed.
        Status::Delivered | Status::Failed | Status::Expired => here(Reason::Turn),
    }
}

fn waiting<W: World>(shard: &Shard<W>, listed: &Listed, release_ms: Option<u64>) -> Blocked {
    let now_ms = shard.runtime.unix_ms();
    if let Some(at_ms) = release_ms.filter(|at_ms| *at_ms > now_ms) {
        return Blocked::by(Reason::Release).until(at_ms);
    }
    if !shard.queue.fires() {
        return Blocked::by(Reason::Null);
    }
    if listed.due_ms > now_ms {
        let (suspended, sleepers) = (shard.suspended.borrow(), shard.sleepers.borrow());
        let now = shard.runtime.now();
        if let Some((site, suspension)) = suspended.of(&sleepers, (listed.id, listed.index), now) {
            let reason = Reason::Suspended { site: site.name.clone(), reply: suspension.reply.to_string() };
            let since_ms = now_ms.saturating_sub((now - suspension.since).as_millis() as u64);
            return Blocked::by(reason).since(since_ms).until(listed.due_ms);
        }
        let reason = if listed.attempts > 0 { Reason::Retry } else { Reason::GivenBack };
        return Blocked::by(reason).until(listed.due_ms);
    }
    if !shard.queue.is_writing() {
        return Blocked::by(Reason::Disk).since(listed.due_ms);
    }
    let reason = if dispatch::room(shard) == 0 { no_room(shard) } else { Reason::Turn };
    Blocked::by(reason).since(listed.due_ms)
}

fn no_room<W: World>(shard: &Shard<W>) -> Reason {
    Reason::Room { messages: dispatch::in_air(shard).messages, most: shard.stock.bounds().messages }
}

fn flying<W: World>(shard: &Shard<W>, listed: &Listed) -> (Blocked, Onward) {
    let flights = shard.flights.borrow();
    let flight = flights.get(&listed.id.0);
    let progress = flight.and_then(|flight| Some((flight, flight.envelope(listed.index)?.progress.get())));
    let at = |since: Instant| {
        let ago = shard.runtime.now().saturating_duration_since(since);
        shard.runtime.unix_ms().saturating_sub(ago.as_millis() as u64)
    };
    let of =
        |reason, flight: &Flight, since: Option<Instant>| Blocked::by(reason).since(at(since.unwrap_or(flight.began)));
    match progress {
        Some((flight, (Progress::Begun, since))) => (of(Reason::Turn, flight, since), None),
        Some((flight, (Progress::Tables, since))) => (of(Reason::Tables, flight, since), None),
        Some((flight, (Progress::Names, since))) => (of(Reason::Names, flight, since), None),
        Some((flight, (Progress::Local, since))) => (of(Reason::Local, flight, since), None),
        Some((flight, (Progress::Route(taken), since))) => {
            let site = shard.stock.site(taken);
            let name = site.as_ref().map_or_else(String::new, |site| site.name.clone());
            let onward = site.map(|site| (site.owner(shard.peers()), site));
            (of(Reason::Ring { site: name }, flight, since), onward)
        }
        Some((_, (Progress::Over, _))) | None => {
            let reason = if shard.reporting.borrow().contains(&(listed.id.0, listed.index)) {
                Reason::Report
            } else if shard.reading.borrow().contains(&listed.id.0) {
                Reason::Reading
            } else {
                Reason::Stranded
            };
            (Blocked::by(reason), None)
        }
    }
}

/// What a message waits for that is with a route of this shard; `None`: it is not here now.
pub(crate) fn at_route<W: World>(shard: &Shard<W>, message: u64, site: &Site) -> Option<Blocked> {
    let now = shard.runtime.now();
    let carriers = shard.carriers.borrow();
    let carrier = carriers.iter().find(|(_, carrier)| matches!(carrier.message, Some((of, _)) if of == message));
    if let Some((_, carrier)) = carrier {
        let since = carrier.message.map_or(now, |(_, since)| since);
        return Some(Blocked::by(Reason::Sending { remote: carrier.remote.clone() }).since(at_ms(shard, since)));
    }
    let standing = shard.routes.borrow_mut().standing(site, now)?;
    held(shard, site, standing)
}

/// A moment in milliseconds since the epoch.
pub(crate) fn at_ms<W: World>(shard: &Shard<W>, at: Instant) -> u64 {
    let (now, now_ms) = (shard.runtime.now(), shard.runtime.unix_ms());
    match at.checked_duration_since(now) {
        Some(left) => now_ms + left.as_millis() as u64,
        None => now_ms.saturating_sub((now - at).as_millis() as u64),
    }
}

/// What the messages wait for that are with a route of this shard; `None`: nothing holds it up, and none wait.
pub(crate) fn held<W: World>(shard: &Shard<W>, site: &Site, standing: Standing) -> Option<Blocked> {
    let now = shard.runtime.now();
    let Standing { opening, open, most, tickets, pause, slowed, rate, spent } = standing;
    let (name, waiting) = (site.name.clone(), tickets);
    if let Some((until, why)) = pause.filter(|(until, _)| *until > now) {
        let reason = Reason::Pause { site: name, why: why.to_string() };
        return Some(Blocked::by(reason).until(at_ms(shard, until)));
    }
    if let Some((source, spent)) = spent.filter(|_| tickets > 0) {
        let source = if source.is_unspecified() { "system".to_owned() } else { source.to_string() };
        let reason = Reason::WarmUp { site: name, source, cap: spent.cap.map(shown), waiting };
        return Some(Blocked::by(reason).until(at_ms(shard, spent.until)));
    }
    if let Some(slowed) = slowed.filter(|_| tickets > 0) {
        let reason = Reason::Slowed { site: name, to: to(&slowed), reply: slowed.reply.to_string(), waiting };
        return Some(Blocked::by(reason).since(at_ms(shard, slowed.since)));
    }
    if let Some((rate, next)) = rate.filter(|_| tickets > 0) {
        let rate = shown(rate);
        return Some(Blocked::by(Reason::Rate { site: name, rate, waiting }).until(at_ms(shard, next)));
    }
    (tickets > 0)
        .then(|| match opening + open {
            all if all >= most => Reason::Connections { site: name, open: all, most, waiting },
            _ if opening > 0 => Reason::Connecting { site: name, waiting },
            _ => Reason::Route { site: name, waiting },
        })
        .map(Blocked::by)
}

/// A rate as configurations have it.
pub(crate) fn shown(rate: Rate) -> String {
    ringpost_conf::Rate { count: rate.count, per: rate.per }.to_string()
}

/// What a route was slowed down to.
fn to(slowed: &Slowed) -> String {
    let rate = slowed.rate.map(|rate| format!("{rate:.3} messages a second"));
    let connections = slowed.connections.map(|count| format!("{count} connections"));
    rate.into_iter().chain(connections).collect::<Vec<_>>().join(" and ")
}

/// A connection that carries messages, for whoever asks where one is.
pub(crate) struct Carrier {
    pub(crate) remote: String,
    pub(crate) route: RouteId,
    /// The address that it is to, and what is demanded there; `None`: a local socket.
    pub(crate) place: Option<Place>,
    /// The address that it leaves from.
    pub(crate) source: Option<IpAddr>,
    /// The message that it carries now, and since when.
    pub(crate) message: Option<(u64, Instant)>,
}

/// Which envelopes an administrator means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// All of one message, by its identifier.
    Id(MessageId),
    /// Those of a sender, `from=ADDRESS`; the null sender is `from=`.
    Sender(String),
    /// Those for an address.
    Recipient(String),
    /// Those for a domain, `example.org` or `@example.org`.
    Domain(String),
    /// `all`.
    All,
}

impl Selector {
    /// Reads one as it is written on a command line; 16 hexadecimal digits are an identifier.
    pub fn parse(text: &str) -> Self {
        if let Ok(id) = text.parse() {
            return Self::Id(id);
        }
        if let Some(sender) = text.strip_prefix("from=") {
            return Self::Sender(sender.trim_matches(['<', '>']).to_owned());
        }
        match text.trim_matches(['<', '>']) {
            "all" => Self::All,
            text => match text.rsplit_once('@') {
                Some(("", domain)) => Self::Domain(domain.to_owned()),
                Some(_) => Self::Recipient(text.to_owned()),
                None => Self::Domain(text.to_owned()),
            },
        }
    }

    /// Whether an envelope is meant. Domains and addresses are compared without regard to case.
    pub fn means(&self, id: MessageId, sender: &str, recipient: &str) -> bool {
        match self {
            Self::Id(wanted) => *wanted == id,
            Self::Sender(wanted) => wanted.eq_ignore_ascii_case(sender),
            Self::Recipient(wanted) => wanted.eq_ignore_ascii_case(recipient),
            Self::Domain(wanted) => {
                recipient.rsplit_once('@').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(wanted))
            }
            Self::All => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_mean_what_they_say() {
        let id = MessageId(0x12);
        let means = |text: &str| Selector::parse(text).means(id, "a@x.example", "b@y.example");
        assert!(
            ["0000000000000012", "all", "y.example", "@Y.example", "b@y.example", "<b@y.example>"].map(means)
                == [true; 6]
        );
        assert!(means("from=a@x.example") && means("from=<a@x.example>"));
        assert!(["0000000000000013", "x.example", "example", "a@x.example", "from="].map(means) == [false; 5]);
        assert!(Selector::parse("from=").means(id, "", "b@y.example"), "the null sender");
    }
}
