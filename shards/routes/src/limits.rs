//! Every bound of the routes, with its reason.

use std::sync::Arc;
use std::time::Duration;

use crate::breaker::Patience;
use crate::warmup::Schedule;

/// So many in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long; never zero.
    pub per: Duration,
}

/// What one route may do: its shape (grammar §4.13). The defaults are the field's (Postfix: 20 connections, KumoMTA: 32).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Connections.
    pub connections: usize,
    /// Messages on one connection before it is closed, so that a site can balance its servers.
    pub messages_per_connection: u64,
    /// How long a connection with nothing to send is kept for the next message.
    pub idle: Duration,
    /// New connections.
    pub open_rate: Option<Rate>,
    /// Messages.
    pub rate: Option<Rate>,
    /// Connections to one host, whichever of its addresses they are to.
    pub connections_per_host: Option<usize>,
    /// Connections from one source address.
    pub connections_per_source: Option<usize>,
    /// Messages from one source address.
    pub rate_per_source: Option<Rate>,
    /// Messages at once after a rest; if it does not say, what the rate gives in [`BURST_TIME`].
    pub burst: Option<u32>,
    /// Recipients in one transaction; if it does not say, what any server must take.
    pub recipients: Option<usize>,
    /// So long is waited for a connection, if it says so.
    pub connect_timeout: Option<Duration>,
    /// So long is waited for a reply, if it says so.
    pub reply_timeout: Option<Duration>,
    /// Only addresses of this family: IPv4 if true.
    pub only_ipv4: Option<bool>,
    /// How much is borne of its hosts.
    pub patience: Patience,
    /// How its sources warm up, if they do; a pool's own word about an address comes first.
    pub warmup: Option<Arc<Schedule>>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            connections: 20,
            messages_per_connection: 1_000,
            idle: Duration::from_secs(5),
            open_rate: None,
            rate: None,
            connections_per_host: None,
            connections_per_source: None,
            rate_per_source: None,
            burst: None,
            recipients: None,
            connect_timeout: None,
            reply_timeout: None,
            only_ipv4: None,
            patience: Patience::default(),
            warmup: None,
        }
    }
}

/// What one shard may do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all routes of a shard: descriptors and ports end somewhere above.
    pub connections: usize,
    /// Tickets of one route that wait at its owner; further ones go home. Each home lets out a share of its memory only, so
    /// that many are from dozens of them.
    pub tickets_per_route: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 4_000, tickets_per_route: 200_000 }
    }
}

/// What a rate gives in this time may go at once: a timer that is late by less than that loses nothing.
pub const BURST_TIME: Duration = Duration::from_millis(50);
/// First pause of a route that could not be reached; doubled each time.
pub const BACK_OFF_MIN: Duration = Duration::from_secs(5);
/// Longest pause. Short of the shortest retry, so that a message never finds the pause of its own first attempt.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(50);
const _: () = assert!(BACK_OFF_MAX.as_secs() < 54, "the first retry is after 1 min ± 10%");
/// First pause of a route whose login was refused; doubled each time. Servers lock an account after a few wrong passwords
/// within some minutes.
pub const LOGIN_PAUSE_MIN: Duration = Duration::from_secs(300);
/// Longest such pause.
pub const LOGIN_PAUSE_MAX: Duration = Duration::from_secs(3600);
/// How long a source address is left out that this machine did not have when it was to be used.
pub const SOURCE_PAUSE: Duration = Duration::from_secs(60);
/// Turns that a new route leaves out at most, so that routes begin with different sources: beyond it, weights are large enough
/// to be uneven for so long.
pub const SOURCE_STEPS: usize = 256;
/// KiB that a sender may move in its turn at a route, and what each message counts as at least: one message a turn of those
/// that most are.
pub const TURN_KIB: u32 = 16;
/// A message counts as no more than this: who sends one of 50 MB need not wait for thousands of others, and the next one is
/// found within as many rounds as this has turns.
pub const TURN_KIB_MAX: u32 = 256;
const _: () = assert!(TURN_KIB_MAX.is_multiple_of(TURN_KIB));
/// Lines of a class of priorities at a route (some 150 bytes each); with more senders than this, some share one.
pub const LINES_MAX: usize = 128;
/// A route that waits for its rates looks again after this time at the latest: what it waits for may come earlier.
pub const LATER_MAX: Duration = Duration::from_secs(60);
/// Of so many turns at a route a class of priorities has at least one while more urgent mail waits (RFC 6710).
pub const CLASS_TURNS: usize = 16;
/// Tickets whose deadlines are looked at together (some 50 µs); a route's are looked at at once.
pub const SWEPT_TICKETS: usize = 2_000;
/// Routes that are shown in one turn (some 50 µs), each with its hosts.
pub const SURVEYED_ROUTES: usize = 32;
/// Attempts in a row that must fail before a host is left alone: one may be chance, and each costs up to half a minute.
pub const HOST_FAILURES: u32 = 3;
/// How long a host is then left alone; twice as long each time that it is found not to be back.
pub const HOST_PAUSE: Duration = Duration::from_secs(60);
/// Longest such pause: one attempt in ten minutes costs nothing, and a host that is back is used again soon.
pub const HOST_PAUSE_MAX: Duration = Duration::from_secs(600);
/// How long a host is known to work that has worked: any number of connections may then be opened to it at once.
pub const HOST_PROVEN: Duration = Duration::from_secs(60);
/// How long the family is remembered of which a host's address was quicker, before the other one is tried first again: networks
/// are mended within minutes, and finding out costs a connection a quarter of a second (RFC 8305 §8 leaves it open; RFC 6555
/// §4.2 has these ten minutes).
pub const OUTDONE_FOR: Duration = Duration::from_secs(600);
/// Hosts of which a shard knows how they do (some 200 bytes each); beyond it, the older half is forgotten.
pub const HOSTS_KEPT_MAX: usize = 20_000;
/// Routes kept without work or connections, for their back-off and their hosts; the oldest are forgotten beyond it.
pub const IDLE_ROUTES_MAX: usize = 10_000;
/// Of them those whose sites are suspended are kept, up to as many again; so many are looked at for each that is new.
pub const SPARED_AT_ONCE: usize = 8;
/// Answers that a decision about a rate needs: of fewer, one may be chance. If all are refused, the site rests.
pub const ANSWERS_MIN: u32 = 10;
/// A rate is lowered at most to this part of what it was: ten answers just after a rest, or just before, say little of how
/// much less a site takes, and from far below it is a long way up …
pub const KEPT_AT_LEAST: f64 = 0.4;
/// … and at least to this one: what a site takes is then missed by half of the rest on average.
pub const KEPT_AT_MOST: f64 = 0.85;
/// A site that takes less than this part rests, too: what was offered until then is beyond what it takes in ten seconds and a fifth
/// more.
pub const REST_BELOW: f64 = 0.6;
/// The same of connections, which are few and whole: of ten, nine are left.
pub const CONNECTIONS_KEPT: f64 = 0.9;
/// And rises again by this part a minute: who is at the bound asks for more than a site takes once in some hundred messages.
pub const RISE_A_MINUTE: f64 = 0.1;
/// Connections that a route begins with to a site of which nothing is known (Postfix: 5); one more for each message that is taken.
pub const START_CONNECTIONS: usize = 5;
/// And one more after this time without, so that some that hang hold up nobody: twenty take a quarter of a minute.
pub const START_PATIENCE: Duration = Duration::from_secs(1);
/// So long a site is new to a route, and again when it has had nothing for so long: what is taken at first is what it has let save
/// up.
pub const START_TIME: Duration = Duration::from_secs(10);
/// One of so many refused is a reason to slow down at a new site: less may be by chance, and is not much more than it takes.
pub const START_REFUSED: u64 = 20;
/// What a site takes in this time it is thought to have let save up: of what it has taken at first, so much is not its rate.
pub const SAVED_UP: Duration = Duration::from_secs(2);
/// The rate that was found so is doubled in this time, until it is refused: it may be far too low, and must not be too high soon.
pub const DOUBLED_IN: Duration = Duration::from_secs(40);
/// And is forgotten when it was not refused for so long: nobody has asked for as much.
pub const DOUBLED_FOR: Duration = Duration::from_secs(600);
/// A route of which nothing is known is not taken for a slower one than that: messages a second.
pub const RATE_UNMEASURED: f64 = 10.0;
/// However often it is lowered, no rate is below one message a minute.
pub const RATE_MIN: f64 = 1.0 / 60.0;
/// A bound is forgotten when nothing has lowered it for this time: providers' own memories are that long.
pub const PRESSED_FOR: Duration = Duration::from_secs(3600);
/// No site is suspended for longer: mail does not wait in a queue for months.
pub const SUSPENDED_MAX: Duration = Duration::from_secs(30 * 86_400);
/// A shard is allowed this part of a step of a warm-up at once: of what it has, all is lost for the day when it is killed.
pub const LEASES_A_STEP: u32 = 8;
/// So long a shard believes that an address has warmed up at a site.
pub const LEASE_FREE: Duration = Duration::from_secs(3600);
/// After this time a warm-up of which nothing could be known is asked for again.
pub const LEASE_AGAIN: Duration = Duration::from_secs(5);
/// Addresses whose warm-up is remembered, by schedule (some 200 bytes each); beyond it, the one is forgotten that was not used
/// for longest.
pub const WARMING_ADDRESSES: usize = 4_096;
/// Sites that addresses which warm up may send to in a day, each counted once for each of them (some 150 bytes each).
pub const WARMING_SITES: usize = 100_000;
