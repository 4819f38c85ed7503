//! What a shard knows of where mail goes, for whoever asks: the hosts and how they do, the sites with what waits for them, the
//! routes with their sources and what holds them up. Read off the routes, the breaker, the connections and the stock, as what
//! a message waits for is ([`crate::reason`]); nothing is written down for it.

mod rows;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

use ringpost_io::Runtime;
use ringpost_routes::{Absence, Health, Helo, Host, Place, RouteId, Shape, Speech, Surveyed};

pub use self::rows::{HostRow, HostState, LeftOut, Limit, RelayRow, RouteRow};
use crate::reason;
use crate::shard::{Shard, World};

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Hosts, by address.
    pub hosts: Vec<HostRow>,
    /// Sites; those of other shards may have the same names.
    pub relays: Vec<RelayRow>,
    /// Routes, a row for each of their sources.
    pub routes: Vec<RouteRow>,
}

/// Open connections, counted as they are asked for.
#[derive(Default)]
struct Connections {
    to: HashMap<Place, usize>,
    from: HashMap<(RouteId, Option<IpAddr>), usize>,
    of: HashMap<RouteId, usize>,
    in_flight: HashMap<RouteId, usize>,
}

/// What a shard knows. Others have their turns meanwhile, so what ends or begins then may be missing.
pub(crate) async fn overview<W: World>(shard: &Rc<Shard<W>>) -> Overview {
    let mut connections = Connections::default();
    for (_, carrier) in shard.carriers.borrow().iter() {
        if let Some(place) = &carrier.place {
            *connections.to.entry(place.clone()).or_default() += 1;
        }
        *connections.from.entry((carrier.route, carrier.source)).or_default() += 1;
        *connections.of.entry(carrier.route).or_default() += 1;
        *connections.in_flight.entry(carrier.route).or_default() += usize::from(carrier.message.is_some());
    }
    let (mut all, mut places) = (Overview::default(), BTreeMap::new());
    let mut from = Some(0);
    while let Some(begin) = from {
        let (found, next) = shard.routes.borrow_mut().survey(begin, shard.runtime.now());
        for route in &found {
            all.relays.push(relay(route, &connections));
            all.routes.extend(rows(shard, route, &connections));
            hosts(shard, route, &connections, &mut places);
        }
        from = next;
        shard.runtime.yield_now().await;
    }
    // What waits at home is often for a route of another shard, which knows its limits.
    let at_home = shard.stock.waiting().into_iter();
    all.relays.extend(at_home.map(|(site, waiting)| RelayRow { waiting, ..RelayRow::new(&site, &Shape::default()) }));
    all.hosts = places.into_values().collect();
    all
}

fn relay(route: &Surveyed, connections: &Connections) -> RelayRow {
    let Surveyed { id, site, shape, standing, .. } = route;
    RelayRow {
        routes: 1,
        waiting: standing.tickets,
        in_flight: connections.in_flight.get(id).copied().unwrap_or_default(),
        connections: standing.opening + standing.open,
        ..RelayRow::new(site, shape)
    }
}

fn rows<W: World>(shard: &Shard<W>, route: &Surveyed, connections: &Connections) -> Vec<RouteRow> {
    let Surveyed { id, site, standing, absent, .. } = route;
    let held = reason::held(shard, site, standing.clone());
    let row = |source: Option<IpAddr>| {
        let out = absent.iter().find(|(address, ..)| Some(*address) == source);
        let open = match source {
            None => connections.of.get(id),
            Some(_) => connections.from.get(&(*id, source)),
        };
        RouteRow {
            source,
            relay: site.name.clone(),
            helo: match &site.helo {
                Helo::Name(name) => name.clone(),
                Helo::BySource { action } => format!("<of the source, by {action}>"),
            },
            login: site.login.clone(),
            terms: site.terms.clone(),
            shaping: site.shape.clone(),
            connections: open.copied().unwrap_or_default(),
            opening: standing.opening,
            waiting: standing.tickets,
            held: held.clone(),
            left_out: out.map(|(_, until, why)| LeftOut {
                why: match why {
                    Absence::NotHere => "this machine does not have the address".to_owned(),
                    Absence::Refused => "the hosts refuse it, and take another".to_owned(),
                    Absence::Retired => "a reply has asked for another (switch-source)".to_owned(),
                    Absence::WarmUp(Some(cap)) => format!("warming up, all of {} sent", reason::shown(*cap)),
                    Absence::WarmUp(None) => "warming up, and what it may send cannot be known now".to_owned(),
                },
                until_ms: reason::at_ms(shard, *until),
            }),
            shard: shard.me(),
        }
    };
    match site.sources.is_empty() {
        true => vec![row(None)],
        false => site.sources.iter().map(|source| row(Some(*source))).collect(),
    }
}

/// Hosts of a route that are not in `places` yet.
fn hosts<W: World>(
    shard: &Shard<W>,
    route: &Surveyed,
    connections: &Connections,
    places: &mut BTreeMap<Place, HostRow>,
) {
    let now = shard.runtime.now();
    // Local sockets have no address, and nobody leaves them alone.
    let by_address = route.hosts.iter().filter(|host| !matches!(host.speech, Speech::LmtpAt(_)));
    for (host, address) in by_address.flat_map(|host| host.addresses.iter().map(move |address| (host, *address))) {
        let place = host.place(address, &route.site.terms);
        if places.contains_key(&place) {
            continue;
        }
        let health = shard.breaker.borrow().health(&place, now);
        let open = connections.to.get(&place).copied().unwrap_or_default();
        let row = host_row(shard, host, &place, health, open);
        places.insert(place, row);
    }
}

fn host_row<W: World>(shard: &Shard<W>, host: &Host, place: &Place, health: Option<Health>, open: usize) -> HostRow {
    let now = shard.runtime.now();
    let state = match &health {
        Some(Health { broken_until: Some(until), .. }) if *until > now => HostState::Paused,
        Some(Health { broken_until: Some(_), .. }) => HostState::Probing,
        Some(Health { failures: 1.., .. }) => HostState::Failing,
        Some(Health { works: true, .. }) => HostState::Ok,
        _ if open > 0 => HostState::Ok,
        _ => HostState::Untried,
    };
    let until = health.as_ref().and_then(|health| health.broken_until).filter(|until| *until > now);
    let since = health.as_ref().and_then(|health| health.since);
    let outdone = health.as_ref().and_then(|health| health.outdone_until);
    HostRow {
        host: host.name.clone(),
        address: place.address,
        demands: place.demands.trim().to_owned(),
        state,
        until_ms: until.map(|until| reason::at_ms(shard, until)),
        connections: open,
        opening: health.as_ref().map_or(0, |health| health.trying as usize),
        failures: health.as_ref().map_or(0, |health| health.failures),
        fault: health.filter(|health| health.failures > 0).map(|health| health.why.to_string()),
        since_ms: since.map(|since| reason::at_ms(shard, since)),
        outdone_until_ms: outdone.map(|until| reason::at_ms(shard, until)),
        shard: shard.me(),
    }
}
