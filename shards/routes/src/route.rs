//! One route: its waiting tickets, its connections, its back-off.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::limits::{BACK_OFF_MAX, BACK_OFF_MIN, Limits};
use crate::site::{Host, Site};
use crate::sources::Turns;

/// What a connection does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// Send this.
    Send(T),
    /// Nothing to send: wait for work, at most [`Limits::idle`].
    Wait,
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
}

#[derive(Debug)]
pub(crate) struct Route<T> {
    pub(crate) site: Site,
    pub(crate) hosts: Arc<[Host]>,
    pub(crate) ready: VecDeque<T>,
    /// Connections that are being opened.
    pub(crate) opening: usize,
    /// Connections that carry a message or wait for one.
    pub(crate) open: usize,
    /// Of these, waiting.
    pub(crate) idle: usize,
    pub(crate) failures: u32,
    /// Not to be tried before, and why.
    pub(crate) pause: Option<(Instant, Arc<str>)>,
    /// Whose turn it is among its sources.
    pub(crate) turns: Turns,
    /// Connections that were begun: each begins with another one of the best hosts.
    pub(crate) begun: usize,
    /// In the queue of routes that want a connection.
    pub(crate) in_turn: bool,
}

impl<T> Route<T> {
    pub(crate) fn new(site: Site, hosts: Arc<[Host]>) -> Self {
        Self {
            site,
            hosts,
            ready: VecDeque::new(),
            opening: 0,
            open: 0,
            idle: 0,
            failures: 0,
            pause: None,
            turns: Turns::default(),
            begun: 0,
            in_turn: false,
        }
    }

    /// Whether one more connection would help: there are more tickets than connections that will take one.
    ///
    /// A pause holds further connections back only while one works: with none left, whoever has tickets must try.
    pub(crate) fn wants_connection(&self, limits: &Limits, now: Instant) -> bool {
        let connections = self.opening + self.open;
        let paused = connections > 0 && self.pause.as_ref().is_some_and(|(until, _)| *until > now);
        !paused && connections < limits.connections_per_route && self.ready.len() > self.opening + self.idle
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

    pub(crate) fn next(&mut self, carried: u64, limits: &Limits) -> Next<T> {
        if carried >= limits.messages_per_connection {
            return Next::Close;
        }
        self.ready.pop_front().map_or(Next::Wait, Next::Send)
    }

    /// Counts a failure and pauses the route, longer each time. Other connections that still work end the pause.
    pub(crate) fn fail(&mut self, now: Instant, reason: &str) {
        let pause = (BACK_OFF_MIN * (1 << self.failures.min(8))).min(BACK_OFF_MAX);
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
