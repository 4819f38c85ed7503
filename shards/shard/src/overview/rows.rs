//! The rows of an overview: what they say, which text they are about, in which order they are listed.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};

use ringpost_routes::{Rate, Shape, Site};
use serde::{Deserialize, Serialize};

use crate::reason::Blocked;

/// How a host does, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostState {
    /// It is left alone.
    Paused,
    /// Its pause is over, and one attempt finds out whether it is back.
    Probing,
    /// It has failed last, not so often that it is left alone.
    Failing,
    /// It works.
    Ok,
    /// Nothing is known of it: it was not tried yet, or all was forgiven.
    Untried,
}

/// A host at one of its addresses, as a shard knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRow {
    /// Its name.
    pub host: String,
    /// Address and port.
    pub address: SocketAddr,
    /// What is demanded of whoever answers there; mostly nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub demands: String,
    /// How it does.
    pub state: HostState,
    /// When its pause ends, in milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Connections open.
    pub connections: usize,
    /// Connections being opened.
    pub opening: usize,
    /// Attempts in a row that came to nothing.
    pub failures: u32,
    /// How the last of them did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// When the first of them was, in milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Until then an address of the host's that is of the other family is tried first, since that has answered first: in
    /// milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outdone_until_ms: Option<u64>,
    /// The shard that knows this.
    pub shard: usize,
}

/// So many in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// How many.
    pub count: u32,
    /// In how many milliseconds.
    pub per_ms: u64,
}

/// A site: hosts that share what goes to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRow {
    /// Its best hosts, with what the connection to them must be.
    pub relay: String,
    /// Shapes that are for a part of its mail alone; mostly none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub shaping: String,
    /// Routes there.
    pub routes: usize,
    /// Messages that wait at its routes, and envelopes that wait at home for room there.
    pub waiting: usize,
    /// Messages on connections.
    pub in_flight: usize,
    /// Connections open or being opened.
    pub connections: usize,
    /// Connections that one route may have.
    pub connections_max: usize,
    /// Messages that one connection may carry.
    pub messages_per_connection: u64,
    /// Messages of one route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Limit>,
    /// New connections of one route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_rate: Option<Limit>,
}

/// Why a source of a route has no turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Why.
    pub why: String,
    /// Until when, in milliseconds since the epoch.
    pub until_ms: u64,
}

/// A route from one of its sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    /// The address it leaves from; `None`: the system chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// The site: its best hosts, with what the connection must be.
    pub relay: String,
    /// The name given in EHLO; of a table, the action that names it.
    pub helo: String,
    /// The action with whose credentials it logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// What else is agreed on: authorities, certificates, ciphers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub terms: String,
    /// Shapes that are for its mail alone; mostly none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub shaping: String,
    /// Connections open from this source.
    pub connections: usize,
    /// Connections of the route being opened, from whichever source.
    pub opening: usize,
    /// Messages that wait at the route, whichever source they will leave from.
    pub waiting: usize,
    /// What they wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Blocked>,
    /// Why the source has no turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// The shard that has it.
    pub shard: usize,
}

impl Display for HostState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paused => "paused",
            Self::Probing => "probing",
            Self::Failing => "failing",
            Self::Ok => "ok",
            Self::Untried => "untried",
        })
    }
}

impl Display for Limit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, char); 4] = [(86_400_000, 'd'), (3_600_000, 'h'), (60_000, 'm'), (1_000, 's')];
        let Self { count, per_ms } = self;
        match UNITS.iter().find(|(ms, _)| per_ms % ms == 0) {
            Some((ms, unit)) if per_ms == ms => write!(f, "{count}/{unit}"),
            Some((ms, unit)) => write!(f, "{count}/{}{unit}", per_ms / ms),
            None => write!(f, "{count}/{per_ms}ms"),
        }
    }
}

impl From<Rate> for Limit {
    fn from(Rate { count, per }: Rate) -> Self {
        Self { count, per_ms: per.as_millis() as u64 }
    }
}

impl HostRow {
    /// Whether it is about this text, which is in lower case.
    pub fn is_about(&self, text: &str) -> bool {
        [&self.host, &self.address.to_string()].iter().any(|field| contains(field, text))
    }

    /// In which order they are listed: what needs somebody's attention first.
    pub fn rank(&self) -> impl Ord + use<> {
        (self.state, self.address, self.demands.clone(), self.shard)
    }
}

impl RelayRow {
    /// A site of which nothing is known yet but its limits.
    pub(super) fn new(site: &Site, shape: &Shape) -> Self {
        Self {
            relay: site.name.clone(),
            shaping: site.shape.clone(),
            routes: 0,
            waiting: 0,
            in_flight: 0,
            connections: 0,
            connections_max: shape.connections,
            messages_per_connection: shape.messages_per_connection,
            rate: shape.rate.map(Limit::from),
            open_rate: shape.open_rate.map(Limit::from),
        }
    }

    /// Rows of one site together, as far as some shard has a route there.
    pub fn merge(mut rows: Vec<Self>) -> Vec<Self> {
        rows.sort_by_key(|row| Reverse(row.routes));
        let mut all: BTreeMap<(String, String), Self> = BTreeMap::new();
        for row in rows {
            match all.get_mut(&(row.relay.clone(), row.shaping.clone())) {
                Some(sum) => sum.add(&row),
                None => drop(all.insert((row.relay.clone(), row.shaping.clone()), row)),
            }
        }
        all.into_values().filter(|row| row.routes > 0).collect()
    }

    fn add(&mut self, other: &Self) {
        self.routes += other.routes;
        self.waiting += other.waiting;
        self.in_flight += other.in_flight;
        self.connections += other.connections;
    }

    /// Whether it is about this text, which is in lower case.
    pub fn is_about(&self, text: &str) -> bool {
        [&self.relay, &self.shaping].iter().any(|field| contains(field, text))
    }

    /// In which order they are listed: the one with most to do first.
    pub fn rank(&self) -> impl Ord + use<> {
        (Reverse(self.waiting), Reverse(self.in_flight), self.relay.clone(), self.shaping.clone())
    }
}

impl RouteRow {
    /// Whether it is about this text, which is in lower case.
    pub fn is_about(&self, text: &str) -> bool {
        let source = self.source.map_or_else(String::new, |source| source.to_string());
        let login = self.login.as_deref().unwrap_or_default();
        [&*self.relay, &*source, &*self.helo, login, &*self.shaping].iter().any(|field| contains(field, text))
    }

    /// In which order they are listed: what is held up first, then the one with most to do.
    pub fn rank(&self) -> impl Ord + use<> {
        let free = self.held.is_none() && self.left_out.is_none();
        (free, Reverse(self.waiting), Reverse(self.connections), self.relay.clone(), self.source, self.helo.clone())
    }
}

fn contains(field: &str, text: &str) -> bool {
    field.to_ascii_lowercase().contains(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringpost_routes::Helo;

    use super::*;

    #[test]
    fn paces_are_written_as_configurations_have_them() {
        let pace = |count, seconds| Limit::from(Rate { count, per: Duration::from_secs(seconds) }).to_string();
        assert_eq!([pace(20, 1), pace(5, 60), pace(7, 3600), pace(50, 86_400)], ["20/s", "5/m", "7/h", "50/d"]);
        assert_eq!([pace(1, 90), pace(3, 600)], ["1/90s", "3/10m"]);
    }

    #[test]
    fn rows_of_one_site_are_added_up_and_the_busiest_comes_first() {
        let row = |relay: &str, waiting| {
            let helo = Helo::Name("us".into());
            let site = Site { name: relay.to_owned(), ..Site::new(&[], &[], helo) };
            RelayRow { routes: 1, waiting, connections: 2, ..RelayRow::new(&site, &Shape::default()) }
        };
        let at_home = RelayRow { routes: 0, connections: 0, connections_max: 0, ..row("a:25", 4) };
        let mut rows = RelayRow::merge(vec![at_home, row("a:25", 1), row("b:25", 9), row("a:25", 2)]);
        rows.sort_by_key(RelayRow::rank);
        assert!(rows.iter().all(|row| row.connections_max == Shape::default().connections), "the route's own limits");
        let seen: Vec<(&str, usize, usize, usize)> =
            rows.iter().map(|row| (&*row.relay, row.routes, row.waiting, row.connections)).collect();
        assert_eq!(seen, [("b:25", 1, 9, 2), ("a:25", 2, 7, 4)]);
    }
}
