//! One route: its waiting tickets, its connections, its back-off.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::allowance::SYSTEM;
use crate::bucket::Bucket;
use crate::busy::Busy;
use crate::fair::{FairQueue, Waiting};
use crate::feedback::Feedback;
use crate::limits::{BACK_OFF_MAX, BACK_OFF_MIN, LOGIN_PAUSE_MAX, LOGIN_PAUSE_MIN, Rate, Shape};
use crate::site::{Host, Site};
use crate::sources::{Addresses, Turns};
use crate::start::Opening;

/// What a connection does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// Send this.
    Send(T),
    /// Nothing to send: wait for work, at most [`Shape::idle`].
    Wait,
    /// The rate allows nothing now: ask again after so long.
    Later(Duration),
    /// The rate of its source allows nothing now: ask again after so long. Others may have work.
    Spent(Duration),
    /// Take leave: the connection has carried its share, or the route is being closed.
    Close,
}

/// The result of trying to reach a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Greeted.
    Connected,
    /// No host could be reached, or none wanted to talk.
    Failed,
    /// A host does not take the name and the password.
    LoginRefused,
    /// Nobody is left to be tried: hosts that could be used have as many connections of the route as each may have.
    Full,
}

/// Whether a route wants a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// At once.
    Now,
    /// When its rates allow it, after so long.
    Later(Duration),
    /// Not as things are.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Route<T> {
    pub(crate) site: Site,
    pub(crate) hosts: Arc<[Host]>,
    pub(crate) shape: Arc<Shape>,
    /// Tokens for messages, if it has a rate, or has learnt one.
    rate: Option<Bucket>,
    /// What replies have said.
    pub(crate) feedback: Feedback,
    /// The pace of the tokens is what was learnt.
    is_slowed: bool,
    /// Tokens for connections, if it has a rate of them.
    open_rate: Option<Bucket>,
    /// It is looked at again then, since its rates allow no connection before.
    pub(crate) later: Option<Instant>,
    pub(crate) ready: FairQueue<T>,
    /// How fast connections may become more.
    pub(crate) start: Opening,
    /// Connections that are being opened.
    pub(crate) opening: usize,
    /// Connections that carry a message or wait for one.
    pub(crate) open: usize,
    /// Of these, greeted and not asked yet what to send.
    pub(crate) fresh: usize,
    /// Of these, waiting for work or for a token.
    pub(crate) idle: usize,
    pub(crate) failures: u32,
    /// Not to be tried before, and why.
    pub(crate) pause: Option<(Instant, Arc<str>)>,
    /// Connections that its hosts have.
    pub(crate) busy: Busy,
    /// Whose turn it is among its sources.
    pub(crate) turns: Turns,
    /// Connections that were begun: each begins with another one of the best hosts.
    pub(crate) begun: usize,
    /// In the queue of routes that want a connection.
    pub(crate) in_turn: bool,
}

impl<T: Waiting> Route<T> {
    pub(crate) fn new(site: Site, hosts: Arc<[Host]>, shape: Arc<Shape>, now: Instant) -> Self {
        let mut busy = Busy::default();
        busy.limit(shape.connections_per_host);
        Self {
            busy,
            turns: Turns::new(&site, &shape),
            site,
            hosts,
            rate: shape.rate.map(|rate| Bucket::new(rate, shape.burst, now)),
            open_rate: shape.open_rate.map(|rate| Bucket::new(rate, Some(1), now)),
            feedback: Feedback::default(),
            is_slowed: false,
            shape,
            later: None,
            ready: FairQueue::default(),
            start: Opening::default(),
            opening: 0,
            open: 0,
            fresh: 0,
            idle: 0,
            failures: 0,
            pause: None,
            begun: 0,
            in_turn: false,
        }
    }

    /// Another shape is in force; its rates begin anew.
    pub(crate) fn reshape(&mut self, shape: &Arc<Shape>, now: Instant) {
        if *shape != self.shape {
            self.is_slowed = false;
            self.rate = shape.rate.map(|rate| Bucket::new(rate, shape.burst, now));
            self.open_rate = shape.open_rate.map(|rate| Bucket::new(rate, Some(1), now));
        }
        self.busy.limit(shape.connections_per_host);
        self.turns.reshape(&self.site, shape);
        self.shape = shape.clone();
    }

    /// Has the tokens come at the pace that was learnt, or at that of the shape again.
    fn keep_pace(&mut self, now: Instant) {
        if self.feedback.is_silent() && !self.is_slowed {
            return;
        }
        let learnt = self.feedback.rate(self.shape.rate.map(Rate::a_second), now).map(Rate::of_a_second);
        self.is_slowed = learnt.is_some();
        self.rate = match (learnt.or(self.shape.rate), self.rate.take()) {
            (Some(rate), Some(mut bucket)) => {
                bucket.pace(rate, self.shape.burst, now);
                Some(bucket)
            }
            (Some(rate), None) => Some(Bucket::new(rate, self.shape.burst, now)),
            (None, _) => None,
        };
    }

    /// Whether one more connection would help this route, which has this number: there are more tickets than connections that will take one, and tokens for
    /// them.
    ///
    /// A pause holds further connections back only while one works: with none left, whoever has tickets must try.
    pub(crate) fn wants_connection(&mut self, number: usize, addresses: &mut Addresses, now: Instant) -> Wish {
        if self.feedback.suspension(now).is_some() || self.ready.is_empty() {
            return Wish::Nothing;
        }
        if let Some(rest) = self.feedback.rest(now) {
            return Wish::Later(rest);
        }
        self.keep_pace(now);
        let connections = self.opening + self.open;
        let paused = self.pause.as_ref().map(|(until, _)| until.saturating_duration_since(now));
        let paused = paused.filter(|left| connections > 0 && !left.is_zero());
        // One login shows whether the others are worth trying.
        let unproven = self.site.login.is_some() && self.open == 0 && self.opening > 0;
        let takers = self.opening + self.fresh + self.idle;
        let most = self.feedback.most(self.shape.connections, now).min(self.busy.most(&self.hosts));
        if unproven || connections >= most || self.ready.len() <= takers {
            return Wish::Nothing;
        }
        if let Some(left) = paused {
            return Wish::Later(left);
        }
        match self.start.wait(connections, now) {
            Duration::ZERO => {}
            wait => return Wish::Later(wait),
        }
        if let Some(wait) = self.busy.full_for(now) {
            return Wish::Later(wait);
        }
        if let Some(rate) = &mut self.rate
            && rate.tokens(now) <= takers
        {
            // Those that are there will ask for the next token.
            return if takers > 0 { Wish::Nothing } else { Wish::Later(rate.wait(now)) };
        }
        let waiting = (number, self.ready.len());
        match self.turns.wish((&self.site, &self.hosts), (connections, takers), waiting, addresses, now) {
            Wish::Now => {}
            other => return other,
        }
        match self.open_rate.as_mut().map_or(Duration::ZERO, |rate| rate.wait(now)) {
            Duration::ZERO => Wish::Now,
            wait => Wish::Later(wait),
        }
    }

    /// Connections that it may have: its own bound, or those of all its sources or hosts together.
    pub(crate) fn most(&self) -> usize {
        let sources = if self.site.pinned.is_empty() { &self.site.sources } else { &self.site.pinned };
        let addresses = || self.hosts.iter().flat_map(|host| &host.addresses);
        let of_use = |source: &&IpAddr| addresses().any(|address| address.is_ipv4() == source.is_ipv4());
        let count = sources.iter().filter(of_use).count().max(1);
        let of_sources = self.shape.connections_per_source.map_or(usize::MAX, |most| most.saturating_mul(count));
        let most = self.shape.connections.min(of_sources).min(self.busy.most(&self.hosts));
        if self.busy.is_full() { most.min(self.opening + self.open) } else { most }
    }

    /// A connection is being opened.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.opening += 1;
        self.start.begun(self.opening + self.open, now);
        if let Some(rate) = &mut self.open_rate {
            // Its token was there when it was asked for.
            let _ = rate.take(now);
        }
    }

    /// How long it has no token of its rate; zero if it has one, or no rate.
    pub(crate) fn token_in(&mut self, now: Instant) -> Duration {
        self.rate.as_mut().map_or(Duration::ZERO, |rate| rate.wait(now))
    }

    /// Whether time alone may let it have another connection.
    pub(crate) fn is_rated(&self) -> bool {
        self.rate.is_some() || !self.feedback.is_silent()
    }

    /// The hosts for the next connection: those of one preference take turns (RFC 5321 §5.1).
    pub(crate) fn next_hosts(&mut self) -> Arc<[Host]> {
        let turn = self.begun;
        self.begun = turn.wrapping_add(1);
        let mut hosts = self.hosts.to_vec();
        if hosts.len() < 2 {
            return self.hosts.clone();
        }
        for equal in hosts.chunk_by_mut(|a, b| a.preference == b.preference) {
            equal.rotate_left(turn % equal.len());
        }
        hosts.into()
    }

    /// `now` is asked for only where a rate wants to know.
    pub(crate) fn next(&mut self, carried: u64, now: impl Fn() -> Instant) -> Next<T> {
        if carried == 0 {
            self.fresh = self.fresh.saturating_sub(1);
        }
        if !self.feedback.is_silent() || self.is_slowed {
            let now = now();
            if self.feedback.suspension(now).is_some() {
                return Next::Close;
            }
            if let Some(rest) = self.feedback.rest(now).filter(|_| !self.ready.is_empty()) {
                return if rest <= self.shape.idle { Next::Later(rest) } else { Next::Close };
            }
            self.keep_pace(now);
        }
        // More of them than it may have: the bound is lower now than when they were opened.
        if carried >= self.shape.messages_per_connection
            || self.open > self.shape.connections.min(self.busy.most(&self.hosts))
        {
            return Next::Close;
        }
        if let Some(rate) = &mut self.rate
            && !self.ready.is_empty()
            && let Err(wait) = rate.take(now())
        {
            // A server does not wait for ever; another connection is opened in time.
            return if wait <= self.shape.idle { Next::Later(wait) } else { Next::Close };
        }
        self.ready.pop().map_or(Next::Wait, Next::Send)
    }

    /// Who a source is in its allowance.
    pub(crate) fn key_of(&self, source: IpAddr) -> IpAddr {
        if self.site.sources.is_empty() { SYSTEM } else { source }
    }

    /// What a connection does whose source must ask what its warm-up leaves it: whoever waits for work is woken by the answer.
    pub(crate) fn awaits_lease(&mut self, carried: u64) -> Next<T> {
        if carried == 0 {
            self.fresh = self.fresh.saturating_sub(1);
        }
        Next::Wait
    }

    /// What a connection does whose source has no token for so long.
    pub(crate) fn spent(&mut self, carried: u64, wait: Duration) -> Next<T> {
        if carried == 0 {
            self.fresh = self.fresh.saturating_sub(1);
        }
        // A server does not wait for ever; another connection is opened in time.
        let stays = wait <= self.shape.idle && carried < self.shape.messages_per_connection;
        if stays { Next::Spent(wait) } else { Next::Close }
    }

    /// Counts a failure and pauses the route, longer each time. Other connections that still work end the pause.
    pub(crate) fn fail(&mut self, attempt: Attempt, now: Instant, reason: &str) {
        let (min, max) = match attempt {
            Attempt::LoginRefused => (LOGIN_PAUSE_MIN, LOGIN_PAUSE_MAX),
            Attempt::Failed | Attempt::Connected | Attempt::Full => (BACK_OFF_MIN, BACK_OFF_MAX),
        };
        let pause = (min * (1 << self.failures.min(8))).min(max);
        self.failures += 1;
        self.pause = Some((now + pause, reason.into()));
    }

    pub(crate) fn succeed(&mut self) {
        self.failures = 0;
        self.pause = None;
    }

    pub(crate) fn is_unused(&self) -> bool {
        self.ready.is_empty() && self.opening + self.open == 0
    }
}
