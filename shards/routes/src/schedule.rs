//! All routes of a shard: who may open a connection next. Routes that want one take turns, so that a route with a
//! million tickets does not delay one with a single ticket.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use crate::limits::{IDLE_ROUTES_MAX, Limits};
use crate::route::{Attempt, Next, Route};
use crate::site::{Host, Site};
use crate::sources::{Origin, Unusable};

/// A route of this shard; valid while it has work or connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteId(usize);

/// Why a ticket was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The route has enough to do; not the ticket's fault.
    Busy,
    /// The site could not be reached a short time ago.
    Paused {
        /// Not to be tried before.
        until: Instant,
        /// Why it could not.
        why: Arc<str>,
    },
}

/// Sums over all routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Routes known.
    pub routes: usize,
    /// Connections being opened or open.
    pub connections: usize,
    /// Tickets waiting.
    pub tickets: usize,
}

/// The routes of one shard.
#[derive(Debug)]
pub struct Routes<T> {
    limits: Limits,
    routes: Slab<Route<T>>,
    by_site: HashMap<Site, usize>,
    turn: VecDeque<usize>,
    /// Routes without work, oldest first; may hold some that have work again.
    unused: VecDeque<usize>,
    connections: usize,
    tickets: usize,
    unusable: Unusable,
}

impl<T> Routes<T> {
    /// No routes yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            routes: Slab::new(),
            by_site: HashMap::new(),
            turn: VecDeque::new(),
            unused: VecDeque::new(),
            connections: 0,
            tickets: 0,
            unusable: Unusable::default(),
        }
    }

    /// The bounds in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Gives a ticket to the route of `site`. `hosts` replace what the route knew, being the newer answer.
    ///
    /// # Errors
    /// The ticket comes back with the reason.
    pub fn push(&mut self, site: &Site, hosts: &Arc<[Host]>, ticket: T, now: Instant) -> Result<RouteId, (T, Refused)> {
        let index = match self.by_site.get(site) {
            Some(index) => *index,
            None => {
                let index = self.routes.insert(Route::new(site.clone(), hosts.clone()));
                self.by_site.insert(site.clone(), index);
                index
            }
        };
        let route = &mut self.routes[index];
        if let Some((until, reason)) = &route.pause
            && *until > now
            && route.open == 0
        {
            return Err((ticket, Refused::Paused { until: *until, why: reason.clone() }));
        }
        if route.ready.len() >= self.limits.tickets_per_route {
            return Err((ticket, Refused::Busy));
        }
        if !Arc::ptr_eq(&route.hosts, hosts) {
            route.hosts = hosts.clone();
        }
        route.ready.push_back(ticket);
        self.tickets += 1;
        self.want(index, now);
        Ok(RouteId(index))
    }

    /// The next route that should open a connection; it counts as opening from now on. Answer with [`Routes::attempted`].
    pub fn open_next(&mut self, now: Instant) -> Option<(RouteId, Site, Arc<[Host]>)> {
        while self.connections < self.limits.connections {
            let index = self.turn.pop_front()?;
            let route = &mut self.routes[index];
            route.in_turn = false;
            if !route.wants_connection(&self.limits, now) {
                continue;
            }
            route.opening += 1;
            self.connections += 1;
            let found = (RouteId(index), route.site.clone(), route.next_hosts());
            self.want(index, now);
            return Some(found);
        }
        None
    }

    /// Where the next connection of a route to a destination of this family leaves from.
    pub fn origin(&mut self, id: RouteId, is_ipv4: bool, now: Instant) -> Origin {
        let route = &mut self.routes[id.0];
        route.turns.next(&route.site, is_ipv4, &self.unusable, now)
    }

    /// This machine does not have the address now: routes leave it out for [`SOURCE_PAUSE`](crate::limits::SOURCE_PAUSE).
    pub fn mark_unusable(&mut self, source: std::net::IpAddr, now: Instant) {
        self.unusable.mark(source, now);
    }

    /// What came of opening. After `Failed` with no other connection left, all waiting tickets come back.
    pub fn attempted(&mut self, id: RouteId, attempt: Attempt, now: Instant, reason: &str) -> Vec<T> {
        let route = &mut self.routes[id.0];
        route.opening -= 1;
        if attempt == Attempt::Connected {
            route.open += 1;
            route.succeed();
            return Vec::new();
        }
        self.connections -= 1;
        if route.open > 0 {
            // The site takes no more connections, but those that it has go on.
            route.fail(now, reason);
            return Vec::new();
        }
        route.fail(now, reason);
        let back: Vec<T> = if route.opening == 0 { route.ready.drain(..).collect() } else { Vec::new() };
        self.tickets -= back.len();
        self.retire(id.0);
        back
    }

    /// What the connection does next, having carried `carried` messages.
    pub fn next(&mut self, id: RouteId, carried: u64) -> Next<T> {
        let next = self.routes[id.0].next(carried, &self.limits);
        self.tickets -= usize::from(matches!(next, Next::Send(_)));
        next
    }

    /// A connection begins to wait for work.
    pub fn idle(&mut self, id: RouteId) {
        self.routes[id.0].idle += 1;
    }

    /// It no longer waits.
    pub fn busy(&mut self, id: RouteId) {
        self.routes[id.0].idle -= 1;
    }

    /// Whether the route has a ticket for a waiting connection.
    pub fn has_work(&self, id: RouteId) -> bool {
        !self.routes[id.0].ready.is_empty()
    }

    /// A connection that was open has ended.
    pub fn closed(&mut self, id: RouteId, now: Instant) {
        self.routes[id.0].open -= 1;
        self.connections -= 1;
        self.want(id.0, now);
        self.retire(id.0);
    }

    /// Ends all pauses: an administrator knows that the sites are back.
    pub fn resume_all(&mut self) {
        self.routes.iter_mut().for_each(|(_, route)| route.succeed());
    }

    /// All tickets that wait, for a shard that stops.
    pub fn drain(&mut self) -> Vec<T> {
        let back: Vec<T> = self.routes.iter_mut().flat_map(|(_, route)| route.ready.drain(..)).collect();
        self.tickets = 0;
        back
    }

    /// Sums.
    pub fn totals(&self) -> Totals {
        Totals { routes: self.routes.len(), connections: self.connections, tickets: self.tickets }
    }

    fn want(&mut self, index: usize, now: Instant) {
        let route = &mut self.routes[index];
        if !route.in_turn && route.wants_connection(&self.limits, now) {
            route.in_turn = true;
            self.turn.push_back(index);
        }
    }

    /// Forgets the routes that have been without work for longest, beyond the bound.
    fn retire(&mut self, index: usize) {
        if !self.routes[index].is_unused() {
            return;
        }
        self.unused.push_back(index);
        while self.unused.len() > IDLE_ROUTES_MAX {
            let Some(oldest) = self.unused.pop_front() else { return };
            let again = self.unused.contains(&oldest);
            let gone = self.routes.get(oldest).is_some_and(|route| route.is_unused() && !route.in_turn);
            if gone && !again {
                let route = self.routes.remove(oldest);
                self.by_site.remove(&route.site);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Arc<[Host]> {
        Arc::from(vec![Host {
            preference: 0,
            name: "mx".into(),
            addresses: vec!["192.0.2.1:25".parse().expect("address")],
            channel: Default::default(),
        }])
    }

    fn site(name: &str) -> Site {
        Site { name: name.into(), sources: vec![], helo: crate::site::Helo::Name("us".into()) }
    }

    fn push(routes: &mut Routes<u32>, name: &str, count: u32) -> RouteId {
        let now = Instant::now();
        let ids: Vec<RouteId> =
            (0..count).map(|n| routes.push(&site(name), &hosts(), n, now).expect("taken")).collect();
        ids[0]
    }

    #[test]
    fn a_crowded_route_does_not_delay_a_single_ticket() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits::default());
        push(&mut routes, "crowd", 1000);
        push(&mut routes, "single", 1);
        let opened: Vec<String> = (0..3).map(|_| routes.open_next(now).expect("wanted").1.name).collect();
        assert_eq!(opened, ["crowd", "single", "crowd"]);
    }

    #[test]
    fn connections_are_opened_only_while_they_help_and_up_to_the_limit() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits { connections_per_route: 3, ..Limits::default() });
        let id = push(&mut routes, "a", 2);
        assert!(routes.open_next(now).is_some() && routes.open_next(now).is_some());
        assert!(routes.open_next(now).is_none(), "two tickets need two connections");
        push(&mut routes, "a", 9);
        assert!(routes.open_next(now).is_some());
        assert!(routes.open_next(now).is_none(), "three is the limit");
        assert!(routes.attempted(id, Attempt::Connected, now, "").is_empty());
        assert_eq!(routes.next(id, 0), Next::Send(0));
        assert_eq!(routes.next(id, 1000), Next::Close, "a connection carries its share");
        assert_eq!(routes.totals(), Totals { routes: 1, connections: 3, tickets: 10 });
    }

    #[test]
    fn hosts_of_one_preference_take_turns() {
        let now = Instant::now();
        let host = |preference, name: &str| Host {
            preference,
            name: name.into(),
            addresses: vec![],
            channel: Default::default(),
        };
        let hosts: Arc<[Host]> = vec![host(10, "a"), host(10, "b"), host(20, "c")].into();
        let mut routes = Routes::new(Limits::default());
        for n in 0..3 {
            routes.push(&site("x"), &hosts, n, now).expect("taken");
        }
        let order =
            |found: (RouteId, Site, Arc<[Host]>)| found.2.iter().map(|host| host.name.clone()).collect::<String>();
        let orders: Vec<String> = (0..3).map(|_| order(routes.open_next(now).expect("wanted"))).collect();
        assert_eq!(orders, ["abc", "bac", "abc"]);
    }

    #[test]
    fn a_site_that_cannot_be_reached_gives_its_tickets_back_and_pauses() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits::default());
        let id = push(&mut routes, "a", 5);
        routes.open_next(now).expect("wanted");
        routes.open_next(now).expect("wanted");
        assert!(routes.attempted(id, Attempt::Failed, now, "refused").is_empty(), "another attempt is on its way");
        assert_eq!(routes.attempted(id, Attempt::Failed, now, "refused").len(), 5);
        let (_, why) = routes.push(&site("a"), &hosts(), 9, now).expect_err("paused");
        assert!(matches!(why, Refused::Paused { until, .. } if until > now), "{why:?}");
        routes.resume_all();
        routes.push(&site("a"), &hosts(), 9, now).expect("an administrator has asked for it");
        let later = now + crate::limits::BACK_OFF_MAX;
        routes.push(&site("a"), &hosts(), 9, later).expect("tried again");
        assert!(routes.open_next(now).is_some());
    }

    #[test]
    fn a_failed_extra_connection_leaves_the_tickets_to_the_ones_that_work() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits::default());
        let id = push(&mut routes, "a", 5);
        routes.open_next(now).expect("wanted");
        routes.open_next(now).expect("wanted");
        routes.attempted(id, Attempt::Connected, now, "");
        assert!(routes.attempted(id, Attempt::Failed, now, "too many connections").is_empty());
        assert!(routes.push(&site("a"), &hosts(), 9, now).is_ok());
        assert!(routes.open_next(now).is_none(), "not at once again");
        routes.closed(id, now);
        assert!(routes.open_next(now).is_some(), "with no connection left, tickets do not wait for ever");
    }
}
