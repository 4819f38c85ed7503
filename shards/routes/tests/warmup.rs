//! Routes whose sources warm up, over several days of virtual time: what leaves from where on which day, and what the rest
//! waits for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringpost_routes::{
    Absence, Allowed, Asking, Attempt, Helo, Host, Ledger, Limits, Member, Next, Origin, Pick, Pool, Rate, RouteId,
    Routes, Schedule, Shape, Site, Waiting,
};

const DAY: Duration = Duration::from_secs(86_400);
/// Some midnight, in milliseconds since 1970.
const MIDNIGHT_MS: u64 = 20_000 * 86_400_000;

#[derive(Debug)]
struct Ticket;

impl Waiting for Ticket {
    fn sender(&self) -> u32 {
        0
    }

    fn bytes(&self) -> u64 {
        1
    }
}

/// Routes, the ledger that they ask, and a clock.
struct Days {
    routes: Routes<Ticket>,
    ledger: Ledger,
    began: Instant,
    now: Instant,
    /// What left: by day, from 1 on, site and source.
    sent: BTreeMap<(u64, String, IpAddr), u32>,
}

impl Days {
    /// From half past nine on.
    fn new() -> Self {
        let began = Instant::now();
        let (routes, now) = (Routes::new(Limits::default()), began + DAY * 19 / 48);
        Self { routes, ledger: Ledger::default(), began, now, sent: BTreeMap::new() }
    }

    fn unix_ms(&self) -> u64 {
        MIDNIGHT_MS + (self.now - self.began).as_millis() as u64
    }

    fn day(&self) -> u64 {
        (self.now - self.began).as_secs() / DAY.as_secs() + 1
    }

    /// As the shard does: asks the ledger for what the routes want to know. Returns whether it was asked.
    fn ask(&mut self) -> bool {
        let asked = self.routes.take_asked();
        for one in &asked {
            let allowed = self.ledger.ask(one, self.unix_ms());
            self.tell(one, &allowed);
        }
        !asked.is_empty()
    }

    fn tell(&mut self, asked: &Asking, allowed: &Allowed) {
        let until = match allowed {
            Allowed::Some { until_ms, .. } | Allowed::Spent { until_ms, .. } => {
                self.began + Duration::from_millis(until_ms - MIDNIGHT_MS)
            }
            Allowed::Freely | Allowed::Unknown(_) => self.now,
        };
        self.routes.allow(asked, allowed, until, self.now);
    }

    /// Carries what may be carried now, over connections that end when they have nothing to do.
    fn carry(&mut self) {
        loop {
            self.ask();
            let Some((id, site, _)) = self.routes.open_next(self.now) else {
                if self.ask() {
                    continue;
                }
                return;
            };
            // As the shard does: IPv4 here, since that is where addresses warm up; else IPv6.
            let origin = match self.routes.origin(id, true, &[], self.now) {
                Origin::Nowhere => self.routes.origin(id, false, &[], self.now),
                origin => origin,
            };
            let source = match origin {
                Origin::Address(source) => source,
                Origin::System => [0, 0, 0, 0].into(),
                Origin::Nowhere => panic!("an attempt that comes to nothing pauses the route"),
            };
            let hold = self.routes.hold(id, Some(source));
            self.routes.attempted(id, Attempt::Connected, self.now, "");
            self.talk(id, &site, source);
            drop(hold);
            self.routes.closed(id, self.now);
        }
    }

    fn talk(&mut self, id: RouteId, site: &Site, source: IpAddr) {
        let mut carried = 0;
        loop {
            let now = self.now;
            match self.routes.next_from(id, source, carried, || now) {
                Next::Send(Ticket) => {
                    carried += 1;
                    *self.sent.entry((self.day(), site.name.clone(), source)).or_default() += 1;
                }
                // What it waits for is asked of the ledger, or there is nothing.
                Next::Wait if !self.ask() => return,
                Next::Wait => {}
                Next::Later(_) | Next::Spent(_) | Next::Close => return,
            }
        }
    }

    /// Until this day begins.
    fn run_until(&mut self, day: u64) {
        while self.day() < day {
            self.carry();
            let next = self.routes.opens_at().unwrap_or(self.now + DAY);
            self.now = next.min(self.began + DAY * (day as u32 - 1));
        }
        self.carry();
    }

    fn push(&mut self, site: &Site, shape: &Shape, count: u32) {
        let host = Host {
            preference: 0,
            name: "mx".into(),
            addresses: ["198.51.100.1:25", "[2001:db8::25]:25"].map(|one| one.parse().expect("an address")).into(),
            channel: Default::default(),
            tlsa: None,
            held: None,
            speech: Default::default(),
        };
        let (hosts, shape): (Arc<[Host]>, Arc<Shape>) = (Arc::from([host]), Arc::new(shape.clone()));
        for _ in 0..count {
            self.routes.push(site, (&hosts, &shape), Ticket, self.now).expect("taken");
        }
    }

    /// What left on a day, to a site and from a source.
    fn on(&self, day: u64, site: &str, source: IpAddr) -> u32 {
        self.sent.get(&(day, site.to_owned(), source)).copied().unwrap_or_default()
    }
}

fn a_day(caps: &[u32]) -> Arc<Schedule> {
    let steps = caps.iter().map(|count| Rate { count: *count, per: DAY }).collect();
    Arc::new(Schedule { name: "slow".into(), steps })
}

fn site(name: &str) -> Site {
    Site { name: name.into(), ..Site::new(&[], &[], Helo::Name("us".into())) }
}

const NEW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const OLD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const SYSTEM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// Leaves from these, of which the first warms up.
fn of_pool(name: &str, pick: Pick, addresses: &[IpAddr], warmup: &Arc<Schedule>) -> Site {
    let member = |address: &IpAddr| Member {
        address: *address,
        helo: None,
        weight: 1,
        warmup: (*address == NEW).then(|| warmup.clone()),
    };
    let pool = Pool { name: "p".into(), pick, members: addresses.iter().map(member).collect() };
    let sources = addresses.to_vec();
    let pinned = if pick == Pick::StickySender { vec![NEW] } else { Vec::new() };
    Site { sources, ..site(name) }.of_pool(pool.into(), pinned)
}

#[test]
fn s78_a_new_address_sends_what_each_day_allows_and_the_rest_waits_for_midnight() {
    let mut days = Days::new();
    let (warmup, usual) = (a_day(&[50, 100, 500]), Shape::default());
    let (a, b) = (of_pool("a", Pick::Cycle, &[NEW], &warmup), of_pool("b", Pick::Cycle, &[NEW], &warmup));
    days.push(&a, &usual, 2000);
    days.push(&b, &usual, 60);
    days.carry();
    assert_eq!((days.on(1, "a", NEW), days.on(1, "b", NEW)), (50, 50), "each site has its own count");
    let standing = days.routes.standing(&a, days.now).expect("a route");
    let (source, spent) = standing.spent.expect("nothing may leave");
    let midnight = days.began + DAY;
    assert_eq!((source, spent.cap, spent.until), (NEW, Some(warmup.steps[0]), midnight));
    assert_eq!(standing.tickets, 1950);
    let absent = days.routes.survey(0, days.now).0.remove(0).absent;
    assert_eq!(absent, [(NEW, midnight, Absence::WarmUp(Some(warmup.steps[0])))]);
    days.run_until(5);
    assert_eq!((days.on(1, "a", NEW), days.on(2, "a", NEW), days.on(3, "a", NEW)), (50, 100, 500));
    assert_eq!((days.on(2, "b", NEW), days.on(4, "a", NEW)), (10, 1350), "warm: there is no cap");
    assert!(days.routes.standing(&a, days.now).is_none_or(|standing| standing.spent.is_none()));
}

#[test]
fn s78_what_a_new_address_may_not_send_leaves_from_the_others_of_its_pool() {
    for pick in [Pick::Cycle, Pick::LeastUsed, Pick::StickySender] {
        let mut days = Days::new();
        let warmup = a_day(&[5, 10]);
        let site = of_pool("a", pick, &[NEW, OLD], &warmup);
        let single = Shape { messages_per_connection: 1, ..Shape::default() };
        days.push(&site, &single, 100);
        days.carry();
        assert_eq!((days.on(1, "a", NEW), days.on(1, "a", OLD)), (5, 95), "{pick:?}");
        days.run_until(2);
        days.push(&site, &single, 100);
        days.carry();
        assert_eq!((days.on(2, "a", NEW), days.on(2, "a", OLD)), (10, 90), "{pick:?}");
        days.run_until(3);
        days.push(&site, &single, 100);
        days.carry();
        let from_new = days.on(3, "a", NEW);
        assert_eq!(from_new, if pick == Pick::StickySender { 100 } else { 50 }, "{pick:?}: all are equal now");
    }
}

#[test]
fn s78_what_a_new_address_may_not_send_leaves_from_one_of_the_other_family() {
    let mut days = Days::new();
    let other: IpAddr = "2001:db8::2".parse().expect("an address");
    let site = of_pool("a", Pick::Cycle, &[NEW, other], &a_day(&[5, 10]));
    days.push(&site, &Shape { messages_per_connection: 1, ..Shape::default() }, 100);
    days.carry();
    assert_eq!((days.on(1, "a", NEW), days.on(1, "a", other)), (5, 95));
}

#[test]
fn s78_a_shape_warms_up_whatever_address_there_is_and_a_pools_word_comes_first() {
    let mut days = Days::new();
    let shape = Shape { warmup: Some(a_day(&[3])), ..Shape::default() };
    days.push(&site("by-system"), &shape, 10);
    let slower = Arc::new(Schedule { name: "slower".into(), ..(*a_day(&[2])).clone() });
    days.push(&of_pool("by-pool", Pick::Cycle, &[NEW, OLD], &slower), &shape, 10);
    days.carry();
    assert_eq!(days.on(1, "by-system", SYSTEM), 3);
    assert_eq!((days.on(1, "by-pool", NEW), days.on(1, "by-pool", OLD)), (2, 3));
    days.run_until(2);
    assert_eq!(days.on(2, "by-system", SYSTEM), 7);
    // Another shape is in force: what waits does not wait for what was allowed before.
    let mut days = Days::new();
    days.push(&site("a"), &shape, 10);
    days.carry();
    days.push(&site("a"), &Shape::default(), 1);
    days.carry();
    assert_eq!(days.on(1, "a", SYSTEM), 11);
}

#[test]
fn what_cannot_be_known_is_asked_again_and_what_was_not_used_goes_back() {
    let mut days = Days::new();
    let site = of_pool("a", Pick::Cycle, &[NEW], &a_day(&[80]));
    days.push(&site, &Shape::default(), 3);
    assert!(days.routes.open_next(days.now).is_none(), "nobody connects who may not send");
    let asked = days.routes.take_asked();
    assert_eq!((asked.len(), asked[0].source, &*asked[0].site), (1, NEW, "a"));
    days.tell(&asked[0], &Allowed::Unknown("the disk is full".into()));
    assert!(days.routes.open_next(days.now).is_none());
    let (_, spent) = days.routes.standing(&site, days.now).and_then(|standing| standing.spent).expect("it waits");
    assert_eq!((spent.cap, days.routes.opens_at()), (None, Some(spent.until)));
    days.now = spent.until;
    days.carry();
    assert_eq!(days.on(1, "a", NEW), 3);
    // As before another configuration, and before the end: of a lease of ten, one is used.
    days.push(&site, &Shape::default(), 10);
    let asked = days.routes.take_asked().remove(0);
    let allowed = days.ledger.ask(&Asking { count: 10, ..asked.clone() }, days.unix_ms());
    days.tell(&asked, &allowed);
    let (id, ..) = days.routes.open_next(days.now).expect("it may send");
    days.routes.attempted(id, Attempt::Connected, days.now, "");
    let now = days.now;
    assert!(matches!(days.routes.next_from(id, NEW, 0, || now), Next::Send(Ticket)));
    let unused = days.routes.give_back(days.now);
    assert_eq!(unused.iter().map(|unused| unused.count).collect::<Vec<_>>(), [9]);
    let used = |ledger: &Ledger| ledger.all().flat_map(|one| one.sites.values()).map(|given| given.count).sum::<u32>();
    assert_eq!(used(&days.ledger), 13);
    let now_ms = days.unix_ms();
    unused.iter().for_each(|one| days.ledger.give_back(one, now_ms));
    assert_eq!(used(&days.ledger), 4);
}
