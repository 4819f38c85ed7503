//! Which address a connection leaves from: those of a route in turn, or as their pool says, without those that this machine does
//! not have now, and without those that the route's hosts refuse.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::allowance::{Allowance, SYSTEM};
use crate::breaker::Patience;
use crate::leases::{self, Key, Leases, Left, Spent};
use crate::limits::{Rate, SOURCE_PAUSE, SOURCE_STEPS, Shape};
use crate::pool::{Pick, Pool, fnv};
use crate::route::Wish;
use crate::site::{Host, Site};
use crate::warmup::Schedule;

/// Where to send from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The system chooses.
    System,
    /// From this address.
    Address(IpAddr),
    /// There is no source of the destination's family, or all of them have enough to do: it is not to be tried.
    Nowhere,
}

/// Why a source of a route is left out for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// This machine does not have the address.
    NotHere,
    /// The route's hosts refuse it, and take another one.
    Refused,
    /// A reply has asked for another one (`switch-source`).
    Retired,
    /// It is warming up, and has sent as many as this to the site; `None`: how many it may send cannot be known now.
    WarmUp(Option<Rate>),
}

/// A source in use by a connection, from before it is opened until this is dropped.
#[derive(Debug)]
pub struct Hold {
    _shard: Rc<()>,
    _route: Rc<()>,
    _rival: Option<Rc<()>>,
}

/// What a shard knows of the addresses that it sends from, whatever the route.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    /// Those that could not be used a short time ago, with the end of their pause.
    unusable: BTreeMap<IpAddr, Instant>,
    /// Those in use, as often as there are others who have it.
    holds: BTreeMap<IpAddr, Rc<()>>,
    /// What those that warm up may send.
    pub(crate) leases: Leases,
}

impl Addresses {
    pub(crate) fn mark(&mut self, address: IpAddr, now: Instant) {
        self.unusable.retain(|_, until| *until > now);
        self.unusable.insert(address, now + SOURCE_PAUSE);
    }

    fn until(&self, address: IpAddr, now: Instant) -> Option<Instant> {
        self.unusable.get(&address).copied().filter(|until| *until > now)
    }

    /// A connection of a route leaves from there.
    pub(crate) fn hold(&mut self, address: IpAddr, allowance: &mut Allowance) -> Hold {
        self.holds.retain(|_, holds| Rc::strong_count(holds) > 1);
        let _shard = self.holds.entry(address).or_default().clone();
        Hold { _shard, _route: allowance.hold(address), _rival: None }
    }

    /// A second attempt at a connection of a route leaves from there.
    pub(crate) fn hold_beside(&mut self, address: IpAddr, allowance: &mut Allowance) -> Hold {
        Hold { _rival: Some(allowance.rival()), ..self.hold(address, allowance) }
    }

    /// Connections that leave from there.
    fn held(&self, address: IpAddr) -> usize {
        self.holds.get(&address).map_or(0, |holds| Rc::strong_count(holds) - 1)
    }
}

/// Whose turn it is among the sources of a route, and which of them its hosts refuse.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// So many turns are left out at first: many routes of one connection each would all begin with the same source.
    skipped: usize,
    /// What each source that has had a turn is owed, in units of a weight.
    owed: BTreeMap<IpAddr, i64>,
    refused: BTreeMap<IpAddr, Refusals>,
    /// What each of them may do.
    pub(crate) allowance: Allowance,
    /// Not to be used until then, whoever would take them: a reply has asked for it.
    retired: BTreeMap<IpAddr, Instant>,
    /// How those of them warm up of which their pool says nothing.
    warmup: Option<Arc<Schedule>>,
    /// Some of them warm up.
    warms: bool,
    /// The site's name, under which that is counted.
    site: Arc<str>,
}

/// What the hosts of a route think of a source.
#[derive(Clone, Copy, Debug)]
struct Refusals {
    /// In a row, while another source was taken.
    count: u32,
    /// Left out until then, if there are others.
    until: Option<Instant>,
}

impl Turns {
    /// Of the route of a site with this shape.
    pub(crate) fn new(site: &Site, shape: &Shape) -> Self {
        let skipped = if site.sources.len() < 2 { 0 } else { fnv(site.name.bytes()) as usize };
        let mut turns = Self { skipped, ..Self::default() };
        turns.reshape(site, shape);
        turns
    }

    /// Another shape is in force.
    pub(crate) fn reshape(&mut self, site: &Site, shape: &Shape) {
        self.allowance.reshape(shape);
        self.warmup.clone_from(&shape.warmup);
        let of_pool = site.pool.as_deref().is_some_and(|pool| pool.members.iter().any(|one| one.warmup.is_some()));
        self.warms = self.warmup.is_some() || of_pool;
        if self.warms && self.site.is_empty() {
            self.site = site.name.as_str().into();
        }
    }

    /// Whether what leaves from here is counted for a warm-up.
    pub(crate) fn warms(&self) -> bool {
        self.warms
    }

    /// By what a source warms up, and where that is counted; `None`: it need not.
    pub(crate) fn warmth<'a>(&'a self, site: &'a Site, source: IpAddr) -> Option<(Key, &'a Arc<Schedule>)> {
        if !self.warms {
            return None;
        }
        let of_pool = site.pool.as_deref().and_then(|pool| pool.warmup(source));
        let schedule = of_pool.or(self.warmup.as_ref())?;
        Some((leases::key(&self.site, schedule, source), schedule))
    }

    /// What the warm-up of a source leaves it.
    fn left(&self, site: &Site, source: IpAddr, addresses: &Addresses, now: Instant) -> Left {
        self.warmth(site, source).map_or(Left::Free, |(key, _)| addresses.leases.left(&key, now))
    }

    /// The same for this route, for `waiting` messages of its; if it is not known, it is asked for.
    pub(crate) fn want(
        &self,
        site: &Site,
        source: IpAddr,
        (route, waiting): (usize, usize),
        addresses: &mut Addresses,
        now: Instant,
    ) -> Left {
        let Some((key, schedule)) = self.warmth(site, source) else { return Left::Free };
        addresses.leases.want(&key, schedule, (route, waiting), now)
    }

    /// The source that may send again first, if none of those may now that there are for `hosts`: all warm up, and have sent
    /// what they may.
    pub(crate) fn spent(
        &self,
        (site, hosts): (&Site, &[Host]),
        addresses: &Addresses,
        now: Instant,
    ) -> Option<(IpAddr, Spent)> {
        if !self.warms {
            return None;
        }
        let system = site.sources.is_empty().then_some(SYSTEM);
        let here = |source: &IpAddr| reaches(hosts, source.is_ipv4()) && addresses.until(*source, now).is_none();
        let all = system.into_iter().chain(site.sources.iter().copied().filter(here));
        let mut first = None;
        for source in all {
            let Left::Spent(spent) = self.left(site, source, addresses, now) else { return None };
            if first.is_none_or(|(_, least): (_, Spent)| spent.until < least.until) {
                first = Some((source, spent));
            }
        }
        first
    }

    /// The next source for a destination of this family, none of `tried`.
    pub(crate) fn next(
        &mut self,
        site: &Site,
        is_ipv4: bool,
        tried: &[IpAddr],
        addresses: &Addresses,
        now: Instant,
    ) -> Origin {
        if site.sources.is_empty() {
            return if tried.is_empty() { Origin::System } else { Origin::Nowhere };
        }
        let able = self.able(site, is_ipv4, tried, addresses, now);
        let is_spent = |source: IpAddr| matches!(self.left(site, source, addresses, now), Left::Spent(_));
        let others = || site.sources.iter().copied().filter(|source| !tried.contains(source));
        if self.warms && able.iter().copied().all(is_spent) && others().any(|source| !is_spent(source)) {
            // Those of the other family may.
            return Origin::Nowhere;
        }
        let has_lease = |source| self.left(site, source, addresses, now) != Left::Unknown;
        let mut free: Vec<IpAddr> = able.iter().copied().filter(|source| has_lease(*source)).collect();
        free.retain(|source| self.allowance.is_free(*source, now));
        if free.is_empty() {
            // Somebody else has taken the token, and there will be another one.
            free = able.into_iter().filter(|source| self.allowance.room(*source) > 0).collect();
        }
        if free.is_empty() {
            return Origin::Nowhere;
        }
        Origin::Address(match site.pool.as_deref() {
            Some(pool) if pool.pick == Pick::LeastUsed => self.turn(site, &least_used(pool, &free, addresses)),
            _ => self.turn(site, &free),
        })
    }

    /// The sources that mail may leave from now to a destination of this family, none of `tried`: one, where mail keeps to it. If
    /// none can be used, the one whose pause ends first: a machine that has lost all of them must notice when they are back.
    fn able(&self, site: &Site, is_ipv4: bool, tried: &[IpAddr], addresses: &Addresses, now: Instant) -> Vec<IpAddr> {
        let all = site.sources.iter().copied().filter(|source| source.is_ipv4() == is_ipv4);
        let all: Vec<IpAddr> = all.filter(|source| !tried.contains(source)).collect();
        let is_spent = |source: IpAddr| matches!(self.left(site, source, addresses, now), Left::Spent(_));
        let all = match all.iter().copied().filter(|source| !is_spent(*source)).collect::<Vec<_>>() {
            // A connection that was begun a moment ago finds that out itself.
            none if none.is_empty() => all,
            some => some,
        };
        let out_until = |source: IpAddr| {
            let refused = self.refused.get(&source).and_then(|refused| refused.until).filter(|until| *until > now);
            let retired = self.retired.get(&source).copied().filter(|until| *until > now);
            addresses.until(source, now).max(refused).max(retired)
        };
        let usable: Vec<IpAddr> = all.iter().copied().filter(|source| out_until(*source).is_none()).collect();
        if usable.is_empty() {
            return all.into_iter().min_by_key(|source| out_until(*source)).into_iter().collect();
        }
        match site.pool.as_deref() {
            Some(pool) if matches!(pool.pick, Pick::StickySender | Pick::StickyDomain) => {
                vec![kept(site, pool, &usable)]
            }
            _ => usable,
        }
    }

    /// Whether the limits of sources and their warm-ups allow a connection more to one of `hosts`: beside the route's
    /// `connections`, of which `takers` will take a message each. `waiting`: the route, and how many messages wait there.
    pub(crate) fn wish(
        &mut self,
        (site, hosts): (&Site, &[Host]),
        counts: (usize, usize),
        waiting: (usize, usize),
        addresses: &mut Addresses,
        now: Instant,
    ) -> Wish {
        if !self.allowance.is_limited() && !self.warms {
            return Wish::Now;
        }
        let mut sources = if site.sources.is_empty() { vec![SYSTEM] } else { Vec::new() };
        for is_ipv4 in [true, false] {
            if reaches(hosts, is_ipv4) {
                sources.extend(self.able(site, is_ipv4, &[], addresses, now));
            }
        }
        if sources.is_empty() {
            // Nobody can be reached from here, and the attempt will say so.
            return Wish::Now;
        }
        let left = |source| (source, self.want(site, source, waiting, addresses, now));
        let sources: Vec<(IpAddr, Left)> = sources.into_iter().map(left).collect();
        self.allowance.wish(&sources, counts, now)
    }

    /// Smooth weighted round robin, as nginx has it: of weights 3 and 1, the first, the first, the second, the first.
    fn turn(&mut self, site: &Site, sources: &[IpAddr]) -> IpAddr {
        let weight = |source: IpAddr| site.pool.as_deref().map_or(1, |pool| i64::from(pool.weight(source)));
        if let [only] = sources {
            return *only;
        }
        let total: i64 = sources.iter().map(|source| weight(*source)).sum();
        let skipped = std::mem::take(&mut self.skipped) % SOURCE_STEPS.min(total as usize);
        let mut chosen = sources[0];
        for _ in 0..=skipped {
            for source in sources {
                *self.owed.entry(*source).or_default() += weight(*source);
            }
            chosen = sources[0];
            for source in sources {
                if self.owed[source] > self.owed[&chosen] {
                    chosen = *source;
                }
            }
            *self.owed.entry(chosen).or_default() -= total;
        }
        chosen
    }

    /// A host has taken `good` and refused the others just before. Those that were refused too often are left out.
    /// Returns them.
    pub(crate) fn judge(&mut self, good: IpAddr, refused: &[IpAddr], patience: Patience, now: Instant) -> Vec<IpAddr> {
        self.refused.remove(&good);
        let mut out = Vec::new();
        for source in refused {
            let record = self.refused.entry(*source).or_insert(Refusals { count: 0, until: None });
            record.count += 1;
            if record.count >= patience.failures && record.until.is_none_or(|until| until <= now) {
                record.until = Some(now + patience.pause);
                out.push(*source);
            }
        }
        out
    }

    /// A source is left out until then, if there are others.
    pub(crate) fn retire(&mut self, source: IpAddr, until: Instant) {
        self.retired.insert(source, until);
    }

    /// Whether any was; their times may be over.
    pub(crate) fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Whether a source is left out for that.
    pub(crate) fn is_retired(&self, source: IpAddr, now: Instant) -> bool {
        self.retired.get(&source).is_some_and(|until| *until > now)
    }

    /// Until when a source is left out, and why; `None`: it has its turns.
    pub(crate) fn absence(
        &self,
        site: &Site,
        source: IpAddr,
        addresses: &Addresses,
        now: Instant,
    ) -> Option<(Instant, Absence)> {
        let refused = self.refused.get(&source).and_then(|refused| refused.until).filter(|until| *until > now);
        let retired = self.retired.get(&source).copied().filter(|until| *until > now);
        let not_here = addresses.until(source, now).map(|until| (until, Absence::NotHere));
        let unwanted = refused.map(|until| (until, Absence::Refused));
        let spent = match self.left(site, source, addresses, now) {
            Left::Spent(Spent { cap, until }) => Some((until, Absence::WarmUp(cap))),
            _ => None,
        };
        not_here.or(unwanted).or(retired.map(|until| (until, Absence::Retired))).or(spent)
    }

    /// All is forgotten that was refused.
    pub(crate) fn forgive(&mut self) {
        self.refused.clear();
        self.retired.clear();
    }
}

/// Whether one of these hosts has an address of this family.
fn reaches(hosts: &[Host], is_ipv4: bool) -> bool {
    hosts.iter().flat_map(|host| &host.addresses).any(|address| address.is_ipv4() == is_ipv4)
}

/// Where mail keeps to a source: there, or, while that cannot be used, at another one that is always the same for it. Which, is
/// another question for each site, so that no address gets all that another one has lost.
fn kept(site: &Site, pool: &Pool, usable: &[IpAddr]) -> IpAddr {
    let theirs = usable.iter().find(|source| site.pinned.contains(source)).copied();
    let key = || Pool::key(&format!("{:?} {}", site.pinned, site.name));
    theirs.or_else(|| pool.chosen(key(), usable.iter().copied())).unwrap_or(usable[0])
}

/// Those that have the fewest connections for their weight.
fn least_used(pool: &Pool, usable: &[IpAddr], addresses: &Addresses) -> Vec<IpAddr> {
    let load = |source: IpAddr| (addresses.held(source) as u128, u128::from(pool.weight(source)));
    let is_less = |a: IpAddr, b: IpAddr| load(a).0 * load(b).1 < load(b).0 * load(a).1;
    let least = usable.iter().copied().reduce(|least, one| if is_less(one, least) { one } else { least });
    usable.iter().copied().filter(|one| least.is_some_and(|least| !is_less(least, *one))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pool::tests::pool;
    use crate::site::Helo;

    fn site(sources: &[&str]) -> Site {
        let sources: Vec<IpAddr> = sources.iter().map(|source| source.parse().expect("an address")).collect();
        Site::new(&[], &sources, Helo::Name("us".into()))
    }

    fn of_pool(pick: Pick, members: &[(&str, u32)]) -> Site {
        let sources: Vec<&str> = members.iter().map(|(address, _)| *address).collect();
        site(&sources).of_pool(pool(pick, members).into(), Vec::new())
    }

    fn next(turns: &mut Turns, site: &Site, addresses: &Addresses, now: Instant) -> String {
        match turns.next(site, true, &[], addresses, now) {
            Origin::Address(address) => address.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn s43_addresses_of_the_destinations_family_take_turns() {
        let (mut turns, addresses, now) = (Turns::default(), Addresses::default(), Instant::now());
        let site = site(&["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
        let said: Vec<String> = (0..4).map(|_| next(&mut turns, &site, &addresses, now)).collect();
        assert_eq!(said, ["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2"]);
        let six = turns.next(&site, false, &[], &addresses, now);
        assert_eq!(six, Origin::Address("2001:db8::1".parse().expect("an address")));
    }

    #[test]
    fn a_pools_addresses_take_turns_by_weight() {
        let (mut turns, addresses, now) = (Turns::default(), Addresses::default(), Instant::now());
        let site = of_pool(Pick::Cycle, &[("192.0.2.1", 3), ("192.0.2.2", 1), ("2001:db8::1", 9)]);
        let said: Vec<String> = (0..8).map(|_| next(&mut turns, &site, &addresses, now)).collect();
        let round = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.1"];
        assert_eq!(said, [round, round].concat());
    }

    #[test]
    fn routes_begin_with_different_sources() {
        let (addresses, now) = (Addresses::default(), Instant::now());
        let mut firsts = BTreeMap::<String, usize>::new();
        for number in 0..400 {
            let site = of_pool(Pick::Cycle, &[("192.0.2.1", 3), ("192.0.2.2", 1)]);
            let site = Site { name: format!("mx.d{number}.example:25"), ..site };
            *firsts.entry(next(&mut Turns::new(&site, &Shape::default()), &site, &addresses, now)).or_default() += 1;
        }
        assert!(firsts["192.0.2.2"].abs_diff(100) < 40, "{firsts:?}");
    }

    #[test]
    fn the_least_used_is_the_one_with_the_fewest_connections_for_its_weight() {
        let (mut turns, mut addresses, now) = (Turns::default(), Addresses::default(), Instant::now());
        let site = of_pool(Pick::LeastUsed, &[("192.0.2.1", 1), ("192.0.2.2", 1), ("192.0.2.3", 2)]);
        let mut open = Vec::new();
        for _ in 0..12 {
            let source = next(&mut turns, &site, &addresses, now);
            open.push((source.clone(), addresses.hold(source.parse().expect("an address"), &mut turns.allowance)));
        }
        let has = |open: &[(String, Hold)], one: &str| open.iter().filter(|(source, _)| source == one).count();
        assert_eq!(["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|one| has(&open, one)), [3, 3, 6]);
        open.retain(|(source, _)| source != "192.0.2.2");
        assert_eq!(next(&mut turns, &site, &addresses, now), "192.0.2.2", "its connections have ended");
        // Another route sees the same connections.
        assert_eq!(next(&mut Turns::default(), &site, &addresses, now), "192.0.2.2");
    }

    #[test]
    fn mail_keeps_to_its_source_and_goes_elsewhere_only_while_that_cannot_be_used() {
        let (mut turns, mut addresses, now) = (Turns::default(), Addresses::default(), Instant::now());
        let all = [("192.0.2.1", 1), ("192.0.2.2", 1), ("192.0.2.3", 1), ("2001:db8::1", 1), ("2001:db8::2", 1)];
        let site = of_pool(Pick::StickySender, &all);
        let pool = site.pool.clone().expect("one");
        let pinned = pool.pinned(7);
        assert!(pinned.len() == 2 && pinned[0].is_ipv4() && pinned[1].is_ipv6(), "{pinned:?}");
        let site = Site { pinned: pinned.clone(), ..site };
        let said: Vec<String> = (0..3).map(|_| next(&mut turns, &site, &addresses, now)).collect();
        assert_eq!(said, [0; 3].map(|_| pinned[0].to_string()));
        assert_eq!(turns.next(&site, false, &[], &addresses, now), Origin::Address(pinned[1]));
        addresses.mark(pinned[0], now);
        let said: Vec<String> = (0..3).map(|_| next(&mut turns, &site, &addresses, now)).collect();
        assert!(said[0] != pinned[0].to_string() && said.iter().all(|one| *one == said[0]), "{said:?}");
        let elsewhere: std::collections::BTreeSet<String> = (0..50)
            .map(|number| Site { name: format!("mx{number}.example:25"), ..site.clone() })
            .map(|site| next(&mut turns, &site, &addresses, now))
            .collect();
        assert!(elsewhere.len() == 2 && !elsewhere.contains(&pinned[0].to_string()), "{elsewhere:?}");
        let later = now + SOURCE_PAUSE;
        assert_eq!(next(&mut turns, &site, &addresses, later), pinned[0].to_string());
    }

    #[test]
    fn a_family_without_a_source_is_not_tried_and_no_sources_leave_it_to_the_system() {
        let (mut turns, addresses, now) = (Turns::default(), Addresses::default(), Instant::now());
        assert_eq!(turns.next(&site(&["192.0.2.1"]), false, &[], &addresses, now), Origin::Nowhere);
        assert_eq!(turns.next(&site(&[]), false, &[], &addresses, now), Origin::System);
    }

    #[test]
    fn an_address_that_cannot_be_used_is_left_out_for_a_while() {
        let (mut turns, mut addresses, now) = (Turns::default(), Addresses::default(), Instant::now());
        let site = site(&["192.0.2.1", "192.0.2.2"]);
        addresses.mark([192, 0, 2, 1].into(), now);
        let later = now + SOURCE_PAUSE - Duration::from_secs(1);
        assert_eq!(next(&mut turns, &site, &addresses, later), "192.0.2.2");
        assert_eq!(next(&mut turns, &site, &addresses, later), "192.0.2.2");
        addresses.mark([192, 0, 2, 2].into(), later);
        assert_eq!(next(&mut turns, &site, &addresses, later), "192.0.2.1", "its pause ends first");
        let after = now + SOURCE_PAUSE;
        assert_eq!(next(&mut turns, &site, &addresses, after), "192.0.2.1");
    }

    #[test]
    fn s78_a_source_that_is_refused_where_another_is_taken_is_left_out_for_a_while() {
        let (mut turns, addresses, now) = (Turns::default(), Addresses::default(), Instant::now());
        let (site, patience) = (site(&["192.0.2.1", "192.0.2.2"]), Patience::default());
        let (bad, good): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let refused = [bad];
        assert_eq!(turns.next(&site, true, &[bad], &addresses, now), Origin::Address(good));
        for _ in 1..patience.failures {
            assert!(turns.judge(good, &refused, patience, now).is_empty());
        }
        assert_eq!(turns.judge(good, &refused, patience, now), [bad]);
        assert_eq!(turns.absence(&site, bad, &addresses, now), Some((now + patience.pause, Absence::Refused)));
        assert_eq!(turns.absence(&site, good, &addresses, now), None);
        let said: Vec<String> = (0..3).map(|_| next(&mut turns, &site, &addresses, now)).collect();
        assert_eq!(said, ["192.0.2.2"; 3]);
        assert_eq!(turns.next(&site, true, &[good], &addresses, now), Origin::Address(bad), "better than nothing");
        assert_eq!(turns.next(&site, true, &[good, bad], &addresses, now), Origin::Nowhere);
        let later = now + patience.pause;
        let said: Vec<String> = (0..2).map(|_| next(&mut turns, &site, &addresses, later)).collect();
        assert!(said.contains(&bad.to_string()), "{said:?}");
        turns.judge(bad, &[], patience, later);
        assert!(turns.refused.is_empty(), "it was taken");
    }
}
