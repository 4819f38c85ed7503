//! All routes of a shard: who may open a connection next. Routes that want one take turns, so that a route with a
//! million tickets does not delay one with a single ticket. Within a route its senders do ([`crate::FairQueue`]).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::allowance::SYSTEM;
use crate::breaker::Patience;
use crate::busy::HostHold;
use crate::fair::Waiting;
use crate::feedback::{Slowed, Suspension};
use crate::leases::{Left, Spent};
use crate::limits::{IDLE_ROUTES_MAX, LATER_MAX, Limits, Rate, SPARED_AT_ONCE, SURVEYED_ROUTES, SWEPT_TICKETS, Shape};
use crate::route::{Attempt, Next, Route, Wish};
use crate::site::{Host, Site};
use crate::sources::{Absence, Addresses, Hold, Origin};
use crate::warmup::{Allowed, Asking};

/// A route of this shard; valid while it has work or connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteId(pub(crate) usize);

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
    /// The configuration says so of a reply of the site's.
    Suspended(Suspension),
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

/// How a route stands, for whoever asks what its tickets wait for.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Connections being opened.
    pub opening: usize,
    /// Connections open.
    pub open: usize,
    /// Connections that it may have.
    pub most: usize,
    /// Tickets waiting.
    pub tickets: usize,
    /// Not to be tried before, and why.
    pub pause: Option<(Instant, Arc<str>)>,
    /// What the site has said holds it back.
    pub slowed: Option<Slowed>,
    /// Its rate, and when the next message may go, if that is not now.
    pub rate: Option<(Rate, Instant)>,
    /// All of its sources warm up and have sent what they may: the one that may send again first.
    pub spent: Option<(IpAddr, Spent)>,
}

/// A route, for whoever asks what routes there are.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// It itself.
    pub id: RouteId,
    /// Whom it is to, and how.
    pub site: Site,
    /// The hosts of the site.
    pub hosts: Arc<[Host]>,
    /// What it may do.
    pub shape: Arc<Shape>,
    /// How it stands.
    pub standing: Standing,
    /// Sources that have no turn now: until when, and why.
    pub absent: Vec<(IpAddr, Instant, Absence)>,
}

/// The routes of one shard.
#[derive(Debug)]
pub struct Routes<T> {
    limits: Limits,
    routes: Slab<Route<T>>,
    by_site: HashMap<Site, usize>,
    turn: VecDeque<usize>,
    /// Routes whose rates allow a connection at a time to come.
    later: BTreeSet<(Instant, usize)>,
    /// Routes without work, oldest first; may hold some that have work again.
    unused: VecDeque<usize>,
    connections: usize,
    tickets: usize,
    addresses: Addresses,
}

impl<T: Waiting> Routes<T> {
    /// No routes yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            routes: Slab::new(),
            by_site: HashMap::new(),
            turn: VecDeque::new(),
            later: BTreeSet::new(),
            unused: VecDeque::new(),
            connections: 0,
            tickets: 0,
            addresses: Addresses::default(),
        }
    }

    /// The shape of a route.
    pub fn shape(&self, id: RouteId) -> Arc<Shape> {
        self.routes[id.0].shape.clone()
    }

    /// The shape of the route of a site, if there is one.
    pub fn shape_at(&self, site: &Site) -> Option<Arc<Shape>> {
        self.by_site.get(site).map(|index| self.routes[*index].shape.clone())
    }

    /// Gives a ticket to the route of `site`. `hosts` and `shape` replace what the route knew, being newer.
    ///
    /// # Errors
    /// The ticket comes back with the reason.
    pub fn push(
        &mut self,
        site: &Site,
        (hosts, shape): (&Arc<[Host]>, &Arc<Shape>),
        ticket: T,
        now: Instant,
    ) -> Result<RouteId, (T, Refused)> {
        let index = match self.by_site.get(site) {
            Some(index) => *index,
            None => {
                let index = self.routes.insert(Route::new(site.clone(), hosts.clone(), shape.clone(), now));
                self.by_site.insert(site.clone(), index);
                index
            }
        };
        let route = &mut self.routes[index];
        if let Some(suspension) = route.feedback.suspension(now) {
            return Err((ticket, Refused::Suspended(suspension.clone())));
        }
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
            route.busy.look_again();
        }
        if !Arc::ptr_eq(&route.shape, shape) {
            route.reshape(shape, now);
        }
        route.ready.push(ticket);
        self.tickets += 1;
        self.want(index, now);
        Ok(RouteId(index))
    }

    /// The next route that should open a connection; it counts as opening from now on. Answer with [`Routes::attempted`].
    pub fn open_next(&mut self, now: Instant) -> Option<(RouteId, Site, Arc<[Host]>)> {
        while let Some((at, index)) = self.later.first().copied().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, index));
            self.routes[index].later = None;
            self.want(index, now);
            self.retire(index);
        }
        while self.connections < self.limits.connections {
            let index = self.turn.pop_front()?;
            let route = &mut self.routes[index];
            route.in_turn = false;
            if route.wants_connection(index, &mut self.addresses, now) != Wish::Now {
                self.want(index, now);
                continue;
            }
            route.begin(now);
            self.connections += 1;
            let found = (RouteId(index), route.site.clone(), route.next_hosts());
            self.want(index, now);
            return Some(found);
        }
        None
    }

    /// When [`Routes::open_next`] will find another route whose rates allow a connection.
    pub fn opens_at(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Where the next connection of a route to a destination of this family leaves from: not from one of `tried`, which the
    /// destination has refused.
    pub fn origin(&mut self, id: RouteId, is_ipv4: bool, tried: &[IpAddr], now: Instant) -> Origin {
        let route = &mut self.routes[id.0];
        route.turns.next(&route.site, is_ipv4, tried, &self.addresses, now)
    }

    /// A connection of a route leaves from `source`, or from where the system chooses; to be kept as long as it does.
    pub fn hold(&mut self, id: RouteId, source: Option<IpAddr>) -> Hold {
        self.addresses.hold(source.unwrap_or(SYSTEM), &mut self.routes[id.0].turns.allowance)
    }

    /// Whether a host may have one more connection of a route.
    pub fn has_room_at(&self, id: RouteId, host: &str) -> bool {
        self.routes[id.0].busy.has_room(host)
    }

    /// A connection of a route goes to this host; to be kept as long as it does. Nothing, where nobody counts them.
    pub fn hold_host(&mut self, id: RouteId, host: &str) -> Option<HostHold> {
        self.routes[id.0].busy.hold(host)
    }

    /// A second attempt at the same connection leaves from `source`, to another address of its host: both attempts take room at
    /// their sources, and together they are one connection.
    pub fn hold_beside(&mut self, id: RouteId, source: IpAddr) -> Hold {
        self.addresses.hold_beside(source, &mut self.routes[id.0].turns.allowance)
    }

    /// Whether there is a source for a destination of this family beside `tried`. Always none where the system chooses.
    pub fn has_other_source(&self, id: RouteId, is_ipv4: bool, tried: &[IpAddr]) -> bool {
        let mut sources = self.routes[id.0].site.sources.iter();
        sources.any(|source| source.is_ipv4() == is_ipv4 && !tried.contains(source))
    }

    /// A host of the route has greeted a connection from `good`, having refused those from others just before. Returns the
    /// sources that the route leaves out from now on.
    pub fn judge_sources(
        &mut self,
        id: RouteId,
        good: IpAddr,
        refused: &[IpAddr],
        patience: Patience,
        now: Instant,
    ) -> Vec<IpAddr> {
        self.routes[id.0].turns.judge(good, refused, patience, now)
    }

    /// This machine does not have the address now: routes leave it out for [`SOURCE_PAUSE`](crate::limits::SOURCE_PAUSE).
    pub fn mark_unusable(&mut self, source: IpAddr, now: Instant) {
        self.addresses.mark(source, now);
    }

    /// What came of opening. After `Failed` with no other connection left, all waiting tickets come back.
    pub fn attempted(&mut self, id: RouteId, attempt: Attempt, now: Instant, reason: &str) -> Vec<T> {
        let route = &mut self.routes[id.0];
        route.opening -= 1;
        let was_full = route.busy.look_again();
        if attempt == Attempt::Full {
            self.connections -= 1;
            if route.open + route.opening > 0 {
                route.busy.found_full(now);
            }
            self.want(id.0, now);
            return Vec::new();
        }
        if attempt == Attempt::Connected {
            route.open += 1;
            route.fresh += 1;
            route.succeed();
            if was_full || route.site.login.is_some() || route.turns.allowance.is_limited() {
                // Others have waited for this, or for what an attempt beside it has given back.
                self.want(id.0, now);
            }
            return Vec::new();
        }
        self.connections -= 1;
        route.fail(attempt, now, reason);
        if route.open + route.opening > 0 {
            // The site takes no more for now, but those that it has go on, and after a pause there may be more.
            self.want(id.0, now);
            return Vec::new();
        }
        let back: Vec<T> = route.ready.drain().collect();
        self.tickets -= back.len();
        self.retire(id.0);
        back
    }

    /// What a connection from `source` does next, as [`Routes::next`] has it, if its source may send a message now.
    pub fn next_from(&mut self, id: RouteId, source: IpAddr, carried: u64, now: impl Fn() -> Instant) -> Next<T> {
        let route = &mut self.routes[id.0];
        let warms = route.turns.warms();
        if !route.turns.allowance.is_rated() && !warms {
            return self.next(id, carried, now);
        }
        let source = route.key_of(source);
        let waiting = route.ready.len();
        if warms && waiting > 0 {
            match route.turns.want(&route.site, source, (id.0, waiting), &mut self.addresses, now()) {
                Left::Free | Left::Some(_) => {}
                Left::Unknown => return route.awaits_lease(carried),
                Left::Spent(spent) => return route.spent(carried, spent.until.saturating_duration_since(now())),
            }
        }
        match route.turns.allowance.wait(source, now()) {
            Duration::ZERO => {}
            wait if waiting > 0 => return route.spent(carried, wait),
            _ => {}
        }
        let next = self.next(id, carried, &now);
        if matches!(next, Next::Send(_)) {
            let route = &mut self.routes[id.0];
            route.turns.allowance.take(source, now());
            if let Some((key, _)) = route.turns.warmth(&route.site, source) {
                self.addresses.leases.take(&key);
            }
            // Other sources may have tokens.
            self.want(id.0, now());
        }
        next
    }

    /// What the ledger of warm-ups is to be asked for; say what it has said by [`Routes::allow`].
    pub fn take_asked(&mut self) -> Vec<Asking> {
        self.addresses.leases.take_asked()
    }

    /// Whether it is to be asked for something.
    pub fn has_asked(&self) -> bool {
        self.addresses.leases.has_asked()
    }

    /// The ledger has said this, which holds until `until`. Returns the routes that have waited for it: their idle connections
    /// are to ask what is next, and some of them may want one.
    pub fn allow(&mut self, asked: &Asking, allowed: &Allowed, until: Instant, now: Instant) -> Vec<RouteId> {
        let waiting = self.addresses.leases.answered(asked, allowed, until, now);
        // Who has no work any more may be gone, or another one.
        let routes = waiting.into_iter().filter(|index| self.routes.contains(*index)).collect::<Vec<_>>();
        routes.iter().for_each(|index| self.want(*index, now));
        routes.into_iter().map(RouteId).collect()
    }

    /// What was allowed counts no longer: it is given back, and asked for anew where it is needed.
    pub fn give_back(&mut self, now: Instant) -> Vec<Asking> {
        self.addresses.leases.give_back(now)
    }

    /// Forgets what was allowed for a time that is over.
    pub fn tidy(&mut self, now: Instant) {
        self.addresses.leases.tidy(now);
    }

    /// A connection begins to wait for a token of its source. The route may want one from another source
    /// ([`Routes::is_wanted`]).
    pub fn spent(&mut self, id: RouteId, source: IpAddr, now: Instant) {
        let route = &mut self.routes[id.0];
        route.turns.allowance.wait_begins(route.key_of(source));
        self.want(id.0, now);
    }

    /// It no longer waits.
    pub fn refreshed(&mut self, id: RouteId, source: IpAddr) {
        let route = &mut self.routes[id.0];
        route.turns.allowance.wait_ends(route.key_of(source));
    }

    /// What the connection does next, having carried `carried` messages.
    ///
    /// `now` is asked for only where a rate wants to know. After `Send`, a route with a rate may want another connection
    /// ([`Routes::is_wanted`]).
    pub fn next(&mut self, id: RouteId, carried: u64, now: impl Fn() -> Instant) -> Next<T> {
        let route = &mut self.routes[id.0];
        let next = route.next(carried, &now);
        if matches!(next, Next::Send(_)) {
            self.tickets -= 1;
            if route.is_rated() {
                // Tokens may have come while all its connections were busy.
                self.want(id.0, now());
            }
        }
        next
    }

    /// Whether some route waits for its turn to open a connection, or for the time to, or the ledger is to be asked for one.
    pub fn is_wanted(&self) -> bool {
        !self.turn.is_empty() || !self.later.is_empty() || self.has_asked()
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
        let route = &mut self.routes[id.0];
        route.open -= 1;
        route.start.closed(route.opening + route.open);
        route.busy.look_again();
        self.connections -= 1;
        self.want(id.0, now);
        self.retire(id.0);
    }

    /// Ends the pauses of routes whose hosts want a login: the credentials may be others now.
    pub fn resume_logins(&mut self) {
        let wanting = self.routes.iter_mut().filter(|(_, route)| route.site.login.is_some());
        wanting.for_each(|(_, route)| route.succeed());
    }

    /// Ends all pauses and suspensions: an administrator knows that the sites are back.
    pub fn resume_all(&mut self) {
        for (_, route) in &mut self.routes {
            route.succeed();
            route.feedback.resume();
            route.turns.forgive();
        }
    }

    /// When a route that rests may be tried again.
    pub fn paused_until(&self, id: RouteId, now: Instant) -> Option<Instant> {
        let pause = self.routes.get(id.0)?.pause.as_ref();
        pause.map(|(until, _)| *until).filter(|until| *until > now)
    }

    /// How the route of a site stands; `None`: there is none.
    pub fn standing(&mut self, site: &Site, now: Instant) -> Option<Standing> {
        Some(standing(&mut self.routes[*self.by_site.get(site)?], &self.addresses, now))
    }

    /// A ticket that waits at the route, the first.
    pub fn first(&self, id: RouteId) -> Option<&T> {
        self.routes[id.0].ready.iter().next()
    }

    /// All tickets that wait at the route.
    pub(crate) fn take_all(&mut self, id: RouteId) -> Vec<T> {
        let route = &mut self.routes[id.0];
        let all: Vec<T> = route.ready.drain().collect();
        self.tickets -= all.len();
        self.retire(id.0);
        all
    }

    pub(crate) fn route(&mut self, id: RouteId) -> &mut Route<T> {
        &mut self.routes[id.0]
    }

    pub(crate) fn look(&self, id: RouteId) -> &Route<T> {
        &self.routes[id.0]
    }

    /// The routes from the `from`th on, some [`SURVEYED_ROUTES`](crate::limits::SURVEYED_ROUTES) of them, and where to go on;
    /// `None`: that was the last one.
    pub fn survey(&mut self, from: usize, now: Instant) -> (Vec<Surveyed>, Option<usize>) {
        let to = (from + SURVEYED_ROUTES).min(self.routes.capacity());
        let mut found = Vec::new();
        for index in from..to {
            let Some(route) = self.routes.get_mut(index) else { continue };
            let absent = route.site.sources.iter().filter_map(|source| {
                let (until, why) = route.turns.absence(&route.site, *source, &self.addresses, now)?;
                Some((*source, until, why))
            });
            let absent = absent.collect();
            found.push(Surveyed {
                id: RouteId(index),
                site: route.site.clone(),
                hosts: route.hosts.clone(),
                shape: route.shape.clone(),
                standing: standing(route, &self.addresses, now),
                absent,
            });
        }
        (found, (to < self.routes.capacity()).then_some(to))
    }

    /// Takes out tickets that are late, of routes from the `from`th on until some
    /// [`SWEPT_TICKETS`](crate::limits::SWEPT_TICKETS) were looked at, and says where to go on; `None`: that was the last route.
    pub fn take_late(&mut self, from: usize, is_late: impl Fn(&T) -> bool) -> (Vec<T>, Option<usize>) {
        let (mut late, mut seen) = (Vec::new(), 0);
        for index in from..self.routes.capacity() {
            if seen >= SWEPT_TICKETS {
                return (late, Some(index));
            }
            seen += 1;
            let Some(route) = self.routes.get_mut(index) else { continue };
            seen += route.ready.len();
            let its = route.ready.take(&is_late);
            if !its.is_empty() {
                self.tickets -= its.len();
                late.extend(its);
                self.retire(index);
            }
        }
        (late, None)
    }

    /// All tickets that wait, for a shard that stops.
    pub fn drain(&mut self) -> Vec<T> {
        let back: Vec<T> = self.routes.iter_mut().flat_map(|(_, route)| route.ready.drain()).collect();
        self.tickets = 0;
        back
    }

    /// Sums.
    pub fn totals(&self) -> Totals {
        Totals { routes: self.routes.len(), connections: self.connections, tickets: self.tickets }
    }

    pub(crate) fn want(&mut self, index: usize, now: Instant) {
        let route = &mut self.routes[index];
        if route.in_turn {
            return;
        }
        match route.wants_connection(index, &mut self.addresses, now) {
            Wish::Now => {
                route.in_turn = true;
                self.turn.push_back(index);
            }
            Wish::Later(wait) => {
                // Whatever it waits for may come earlier: another source, another shape, an administrator.
                let at = now + wait.min(LATER_MAX);
                if route.later.is_some_and(|armed| armed <= at) {
                    return;
                }
                if let Some(armed) = route.later.replace(at) {
                    self.later.remove(&(armed, index));
                }
                self.later.insert((at, index));
            }
            Wish::Nothing => {}
        }
    }

    /// Forgets the routes that have been without work for longest, beyond the bound.
    fn retire(&mut self, index: usize) {
        if !self.routes[index].is_unused() {
            return;
        }
        self.unused.push_back(index);
        let mut spared = 0;
        while self.unused.len() > IDLE_ROUTES_MAX && spared < SPARED_AT_ONCE {
            let Some(oldest) = self.unused.pop_front() else { return };
            // What a site has asked for is not forgotten with the routes that only have no work.
            let is_suspended = self.routes.get(oldest).is_some_and(|route| route.feedback.was_suspended());
            if is_suspended && self.unused.len() < 2 * IDLE_ROUTES_MAX {
                self.unused.push_back(oldest);
                spared += 1;
                continue;
            }
            let again = self.unused.contains(&oldest);
            let gone = self
                .routes
                .get(oldest)
                .is_some_and(|route| route.is_unused() && !route.in_turn && route.later.is_none());
            if gone && !again {
                let route = self.routes.remove(oldest);
                self.by_site.remove(&route.site);
            }
        }
    }
}

fn standing<T: Waiting>(route: &mut Route<T>, addresses: &Addresses, now: Instant) -> Standing {
    let most = route.feedback.most(route.most(), now);
    let slowed = route.feedback.slowed(route.shape.rate.map(Rate::a_second), route.shape.connections, now);
    let spent = route.turns.spent((&route.site, &route.hosts), addresses, now);
    let Route { opening, open, pause, .. } = route;
    let (opening, open, pause, tickets) = (*opening, *open, pause.clone(), route.ready.len());
    let refused = |reply: &Arc<str>| format!("it has refused all of its last messages: {reply}").into();
    let rest = route.feedback.resting(now).map(|(until, reply)| (until, refused(reply)));
    let pause = pause.filter(|(until, _)| *until > now).or(rest);
    let wait = route.token_in(now);
    let next = now.checked_add(wait).filter(|_| !wait.is_zero());
    let rate = route.shape.rate.and_then(|rate| Some((rate, next?)));
    Standing { opening, open, most, tickets, pause, slowed, rate, spent }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of one sender.
    impl Waiting for u32 {
        fn sender(&self) -> u32 {
            0
        }

        fn bytes(&self) -> u64 {
            1
        }
    }

    fn hosts() -> Arc<[Host]> {
        Arc::from(vec![Host {
            preference: 0,
            name: "mx".into(),
            addresses: vec!["192.0.2.1:25".parse().expect("address")],
            channel: Default::default(),
            tlsa: None,
            held: None,
            speech: Default::default(),
        }])
    }

    fn usual() -> Arc<Shape> {
        Arc::default()
    }

    fn site(name: &str) -> Site {
        let helo = crate::site::Helo::Name("us".into());
        Site { name: name.into(), ..Site::new(&[], &[], helo) }
    }

    fn shaped(routes: &mut Routes<u32>, name: &str, count: u32, shape: Shape, now: Instant) -> RouteId {
        let (hosts, shape) = (hosts(), Arc::new(shape));
        let ids = (0..count).map(|n| routes.push(&site(name), (&hosts, &shape), n, now).expect("taken"));
        ids.last().expect("some")
    }

    fn push(routes: &mut Routes<u32>, name: &str, count: u32) -> RouteId {
        let now = Instant::now();
        let ids: Vec<RouteId> =
            (0..count).map(|n| routes.push(&site(name), (&hosts(), &usual()), n, now).expect("taken")).collect();
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
        let mut routes = Routes::new(Limits::default());
        let three = Shape { connections: 3, ..Shape::default() };
        let id = shaped(&mut routes, "a", 2, three.clone(), now);
        assert!(routes.open_next(now).is_some() && routes.open_next(now).is_some());
        assert!(routes.open_next(now).is_none(), "two tickets need two connections");
        shaped(&mut routes, "a", 9, three, now);
        assert!(routes.open_next(now).is_some());
        assert!(routes.open_next(now).is_none(), "three is the limit");
        assert!(routes.attempted(id, Attempt::Connected, now, "").is_empty());
        assert_eq!(routes.next(id, 0, || now), Next::Send(0));
        assert_eq!(routes.next(id, 1000, || now), Next::Close, "a connection carries its share");
        assert_eq!(routes.totals(), Totals { routes: 1, connections: 3, tickets: 10 });
    }

    #[test]
    fn a_lower_limit_closes_the_connections_that_are_too_many_when_they_ask_for_work() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits::default());
        let id = shaped(&mut routes, "a", 9, Shape { connections: 3, ..Shape::default() }, now);
        for _ in 0..3 {
            routes.open_next(now).expect("three are allowed");
            assert!(routes.attempted(id, Attempt::Connected, now, "").is_empty());
        }
        assert!(matches!(routes.next(id, 0, || now), Next::Send(_)));
        shaped(&mut routes, "a", 1, Shape { connections: 1, ..Shape::default() }, now);
        assert_eq!(routes.next(id, 1, || now), Next::Close, "three are two too many");
        routes.closed(id, now);
        assert_eq!(routes.next(id, 0, || now), Next::Close);
        routes.closed(id, now);
        assert!(matches!(routes.next(id, 0, || now), Next::Send(_)), "one may go on");
        assert!(routes.open_next(now).is_none(), "and no other is opened");
    }

    #[test]
    fn hosts_of_one_preference_take_turns() {
        let now = Instant::now();
        let host = |preference, name: &str| Host {
            preference,
            name: name.into(),
            addresses: vec![],
            channel: Default::default(),
            tlsa: None,
            held: None,
            speech: Default::default(),
        };
        let hosts: Arc<[Host]> = vec![host(10, "a"), host(10, "b"), host(20, "c")].into();
        let mut routes = Routes::new(Limits::default());
        for n in 0..3 {
            routes.push(&site("x"), (&hosts, &usual()), n, now).expect("taken");
        }
        let order =
            |found: (RouteId, Site, Arc<[Host]>)| found.2.iter().map(|host| host.name.clone()).collect::<String>();
        let orders: Vec<String> = (0..3).map(|_| order(routes.open_next(now).expect("wanted"))).collect();
        assert_eq!(orders, ["abc", "bac", "abc"]);
    }

    #[test]
    fn a_route_that_waits_for_long_is_looked_at_before_and_earlier_when_something_nearer_comes() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits::default());
        let paced = |count, per| Shape { rate: Some(Rate { count, per }), burst: Some(1), ..Shape::default() };
        let id = shaped(&mut routes, "a", 2, paced(1, Duration::from_secs(86_400)), now);
        assert!(routes.open_next(now).is_some());
        routes.attempted(id, Attempt::Connected, now, "");
        assert_eq!(routes.next(id, 0, || now), Next::Send(0));
        assert_eq!(routes.opens_at(), Some(now + LATER_MAX));
        let day = Duration::from_secs(86_400);
        let rate = routes.standing(&site("a"), now).and_then(|standing| standing.rate);
        assert_eq!(rate, Some((Rate { count: 1, per: day }, now + day)));
        // A site that rests is tried again before the next token comes.
        let resting = now + crate::limits::BACK_OFF_MIN;
        (0..10).for_each(|_| {
            let _ = routes.refused(id, "451 4.7.0 slow down", now, now);
        });
        push(&mut routes, "a", 1);
        assert_eq!(routes.opens_at(), Some(resting));
        let rate = routes.standing(&site("a"), now).and_then(|standing| standing.rate);
        assert!(rate.is_none(), "the shape of the last ticket has none: {rate:?}");
        let pause = routes.standing(&site("a"), now).and_then(|standing| standing.pause).expect("it rests");
        assert!(pause.0 == resting && pause.1.ends_with("451 4.7.0 slow down"), "{pause:?}");
        // The shape of that ticket has no rate.
        assert!(routes.open_next(resting).is_some());
    }

    #[test]
    fn s84_six_connections_go_to_three_equal_hosts_two_each() {
        let now = Instant::now();
        let host = |name: &str| Host { name: name.into(), ..hosts()[0].clone() };
        let three: Arc<[Host]> = vec![host("a"), host("b"), host("c")].into();
        let mut routes = Routes::new(Limits::default());
        let six = Arc::new(Shape { connections: 6, ..Shape::default() });
        let id = (0..30).map(|n| routes.push(&site("x"), (&three, &six), n, now).expect("taken")).last().expect("some");
        let mut first = Vec::new();
        for _ in 0..2 {
            first.extend(std::iter::from_fn(|| routes.open_next(now)).map(|(_, _, hosts)| hosts[0].name.clone()));
            routes.taken(id, now, now);
        }
        first.sort();
        assert_eq!(first, ["a", "a", "b", "b", "c", "c"]);
    }

    fn from_two() -> Site {
        Site { sources: vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()], ..site("two") }
    }

    /// Opens connections as long as the route wants some, and says where they leave from.
    fn opened(routes: &mut Routes<u32>, now: Instant) -> Vec<(IpAddr, Hold)> {
        let mut all = Vec::new();
        while let Some((id, ..)) = routes.open_next(now) {
            let Origin::Address(source) = routes.origin(id, true, &[], now) else { panic!("there is a free source") };
            all.push((source, routes.hold(id, Some(source))));
            assert!(routes.attempted(id, Attempt::Connected, now, "").is_empty());
        }
        all
    }

    #[test]
    fn each_source_has_so_many_connections_and_one_that_has_ended_is_replaced_from_there() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits::default());
        let shape = Arc::new(Shape { connections_per_source: Some(2), ..Shape::default() });
        let push = |routes: &mut Routes<u32>, n| routes.push(&from_two(), (&hosts(), &shape), n, now).expect("taken");
        let id = (0..9).map(|n| push(&mut routes, n)).last().expect("nine");
        let mut open = opened(&mut routes, now);
        let (one, two) = (from_two().sources[0], from_two().sources[1]);
        let count = |open: &[(IpAddr, Hold)], of| open.iter().filter(|(source, _)| *source == of).count();
        assert_eq!((count(&open, one), count(&open, two)), (2, 2));
        assert_eq!(routes.standing(&from_two(), now).map(|standing| standing.most), Some(4));
        let at = open.iter().position(|(source, _)| *source == two).expect("one");
        drop(open.swap_remove(at));
        routes.closed(id, now);
        assert_eq!(opened(&mut routes, now)[0].0, two);
        // Where the system chooses, it is one source.
        let single = (0..9).map(|n| routes.push(&site("one"), (&hosts(), &shape), n, now).expect("taken"));
        let single = single.last().expect("nine");
        for _ in 0..2 {
            assert_eq!(routes.open_next(now).map(|(id, ..)| id), Some(single));
        }
        assert!(routes.open_next(now).is_none());
        // Nobody holds an attempt back that has no source at all: it must fail, or its mail would wait for ever.
        let six = Site { sources: vec!["2001:db8::1".parse().expect("an address")], ..site("six") };
        let id = routes.push(&six, (&hosts(), &shape), 1, now).expect("taken");
        assert_eq!(routes.open_next(now).map(|(id, ..)| id), Some(id));
        assert_eq!(routes.origin(id, true, &[], now), Origin::Nowhere);
    }

    #[test]
    fn a_source_without_a_token_leaves_the_work_to_another_one() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits::default());
        let shape = Arc::new(Shape { rate_per_source: a_second(1), ..Shape::default() });
        let push = |routes: &mut Routes<u32>, n| routes.push(&from_two(), (&hosts(), &shape), n, now).expect("taken");
        let id = push(&mut routes, 0);
        let (first, _hold) = opened(&mut routes, now).remove(0);
        assert_eq!(routes.next_from(id, first, 0, || now), Next::Send(0));
        assert_eq!(routes.next_from(id, first, 1, || now), Next::Wait);
        routes.idle(id);
        push(&mut routes, 1);
        assert!(routes.open_next(now).is_none(), "somebody waits for work");
        routes.busy(id);
        let second = std::time::Duration::from_secs(1);
        assert_eq!(routes.next_from(id, first, 1, || now), Next::Spent(second));
        routes.spent(id, first, now);
        let (other, _other_hold) = opened(&mut routes, now).remove(0);
        assert_ne!(other, first);
        assert_eq!(routes.next_from(id, other, 0, || now), Next::Send(1));
        push(&mut routes, 2);
        assert!(opened(&mut routes, now).is_empty(), "neither of them has a token");
        routes.refreshed(id, first);
        assert_eq!(routes.next_from(id, first, 1, || now + second), Next::Send(2));
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
        let (_, why) = routes.push(&site("a"), (&hosts(), &usual()), 9, now).expect_err("paused");
        assert!(matches!(why, Refused::Paused { until, .. } if until > now), "{why:?}");
        routes.resume_all();
        routes.push(&site("a"), (&hosts(), &usual()), 9, now).expect("an administrator has asked for it");
        let later = now + crate::limits::BACK_OFF_MAX;
        routes.push(&site("a"), (&hosts(), &usual()), 9, later).expect("tried again");
        assert!(routes.open_next(now).is_some());
    }

    #[test]
    fn a_login_is_tried_once_before_others_follow_and_its_refusal_is_a_long_pause() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits::default());
        let site = site("a").logging_in("out".into());
        let id = (0..5).map(|n| routes.push(&site, (&hosts(), &usual()), n, now).expect("taken")).last().expect("five");
        routes.open_next(now).expect("wanted");
        assert!(routes.open_next(now).is_none(), "a wrong password must not be said twenty times");
        assert_eq!(routes.attempted(id, Attempt::LoginRefused, now, "535").len(), 5);
        let soon = now + crate::limits::BACK_OFF_MAX;
        assert!(
            routes.push(&site, (&hosts(), &usual()), 9, soon).is_err(),
            "accounts are locked by those who try too often"
        );
        routes.resume_logins();
        for n in 0..5 {
            routes.push(&site, (&hosts(), &usual()), n, soon).expect("new credentials");
        }
        routes.open_next(soon).expect("wanted");
        routes.attempted(id, Attempt::Connected, soon, "");
        let more = std::iter::from_fn(|| routes.open_next(soon)).count();
        assert_eq!(more, 4, "it works: others follow, one for each ticket that this one does not take");
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
        assert!(routes.push(&site("a"), (&hosts(), &usual()), 9, now).is_ok());
        assert!(routes.open_next(now).is_none(), "not at once again");
        routes.closed(id, now);
        assert!(routes.open_next(now).is_some(), "with no connection left, tickets do not wait for ever");
    }

    fn a_second(count: u32) -> Option<crate::limits::Rate> {
        Some(crate::limits::Rate { count, per: std::time::Duration::from_secs(1) })
    }

    #[test]
    fn a_rate_is_waited_for_exactly_and_holds_up_nobody_else() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits::default());
        let shape = Shape { rate: a_second(10), burst: Some(1), ..Shape::default() };
        let id = shaped(&mut routes, "slow", 50, shape, now);
        push(&mut routes, "other", 1);
        let opened: Vec<String> = std::iter::from_fn(|| routes.open_next(now)).map(|found| found.1.name).collect();
        assert_eq!(opened, ["slow", "other"], "one token, one connection");
        routes.attempted(id, Attempt::Connected, now, "");
        assert_eq!(routes.next(id, 0, || now), Next::Send(0));
        let Next::Later(wait) = routes.next(id, 1, || now) else { panic!("the token is gone") };
        assert_eq!(wait, std::time::Duration::from_millis(100));
        routes.idle(id);
        routes.busy(id);
        assert_eq!(routes.next(id, 1, || now + wait), Next::Send(1));
    }

    #[test]
    fn busy_connections_get_help_when_there_are_tokens_again() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits::default());
        let shape = Shape { rate: a_second(10), burst: Some(1), ..Shape::default() };
        let id = shaped(&mut routes, "a", 50, shape, now);
        routes.open_next(now).expect("wanted");
        routes.attempted(id, Attempt::Connected, now, "");
        assert_eq!(routes.next(id, 0, || now), Next::Send(0));
        let at = routes.opens_at().expect("its transaction may take long");
        assert_eq!(at, now + std::time::Duration::from_millis(100));
        assert!(routes.open_next(now).is_none());
        assert!(routes.open_next(at).is_some());
        assert!(routes.open_next(at).is_none(), "there is one token");
    }

    #[test]
    fn a_wait_longer_than_a_server_has_patience_closes_the_connection_and_opens_one_in_time() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits::default());
        let minute = crate::limits::Rate { count: 1, per: std::time::Duration::from_secs(60) };
        let id = shaped(&mut routes, "a", 5, Shape { rate: Some(minute), ..Shape::default() }, now);
        routes.open_next(now).expect("wanted");
        routes.attempted(id, Attempt::Connected, now, "");
        assert_eq!(routes.next(id, 0, || now), Next::Send(0));
        assert_eq!(routes.next(id, 1, || now), Next::Close);
        routes.closed(id, now);
        assert!(routes.open_next(now).is_none());
        let at = routes.opens_at().expect("a time");
        assert_eq!(at, now + minute.per);
        assert!(routes.open_next(at).is_some());
    }

    #[test]
    fn connections_are_opened_at_their_rate() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits::default());
        shaped(&mut routes, "a", 9, Shape { open_rate: a_second(2), ..Shape::default() }, now);
        let (mut at, mut opened) = (now, 0);
        while at < now + std::time::Duration::from_secs(2) {
            opened += std::iter::from_fn(|| routes.open_next(at)).count();
            at = routes.opens_at().expect("more tickets than connections");
        }
        assert_eq!(opened, 4);
    }

    #[test]
    fn a_new_shape_counts_from_the_next_ticket_on() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits::default());
        let id = push(&mut routes, "a", 9);
        shaped(&mut routes, "a", 1, Shape { connections: 2, messages_per_connection: 1, ..Shape::default() }, now);
        assert_eq!(std::iter::from_fn(|| routes.open_next(now)).count(), 2);
        assert_eq!(routes.next(id, 1, || now), Next::Close);
    }

    #[test]
    fn s81_a_survey_sees_every_route_once_in_steps_and_the_sources_that_are_left_out() {
        let now = Instant::now();
        let mut routes = Routes::new(Limits::default());
        let names: BTreeSet<String> = (0..2 * SURVEYED_ROUTES + 1).map(|n| format!("site{n}")).collect();
        for name in &names {
            push(&mut routes, name, 2);
        }
        let away: IpAddr = [192, 0, 2, 1].into();
        let of_sources = Site { sources: vec![away], ..site("site0") };
        routes.push(&of_sources, (&hosts(), &usual()), 9, now).expect("taken");
        routes.mark_unusable(away, now);
        let (mut seen, mut from) = (Vec::new(), Some(0));
        while let Some(begin) = from {
            let (found, next) = routes.survey(begin, now);
            assert!(found.len() <= SURVEYED_ROUTES);
            seen.extend(found);
            from = next;
        }
        assert_eq!(seen.len(), names.len() + 1);
        let (with, without): (Vec<&Surveyed>, Vec<_>) = seen.iter().partition(|one| !one.site.sources.is_empty());
        assert!(without.iter().all(|one| one.standing.tickets == 2 && one.absent.is_empty()));
        assert_eq!(without.iter().map(|one| one.site.name.clone()).collect::<BTreeSet<_>>(), names);
        assert_eq!(with[0].absent, [(away, now + crate::limits::SOURCE_PAUSE, Absence::NotHere)]);
    }
}
