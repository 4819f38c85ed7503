//! The identity of a mail site: who shares mail exchangers shares a route.

use std::net::{IpAddr, SocketAddr};

/// A host of a site with its addresses, in the order to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Preference, lower first (RFC 5321 §5.1).
    pub preference: u16,
    /// Name, for logs and bounces.
    pub name: String,
    /// Where it may be reached.
    pub addresses: Vec<SocketAddr>,
}

/// The name to say in EHLO.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Helo {
    /// This one.
    Name(String),
    /// The one that a table has for the address that the connection leaves from.
    BySource {
        /// Reference of the action that names the table.
        action: String,
    },
}

impl Helo {
    fn as_str(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::BySource { action } => action,
        }
    }
}

/// Names a route. Equal sites share connections and limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// Best mail exchangers, or the smart hosts, with port: `mx1.example.org:25,mx2.example.org:25`.
    pub name: String,
    /// Addresses to send from, in turn, sorted; none: the system chooses.
    pub sources: Vec<IpAddr>,
    /// Name given in EHLO.
    pub helo: Helo,
}

impl Site {
    /// The site that `hosts` (any order) make: the names at the best preference, sorted. In which order a table says its
    /// `sources` makes no other site.
    pub fn new(hosts: &[Host], sources: &[IpAddr], helo: Helo) -> Self {
        let best = hosts.iter().map(|host| host.preference).min().unwrap_or(0);
        let mut names: Vec<String> = hosts
            .iter()
            .filter(|host| host.preference == best)
            .map(|host| format!("{}:{}", host.name, host.addresses.first().map_or(25, SocketAddr::port)))
            .collect();
        names.sort_unstable();
        names.dedup();
        let mut sources = sources.to_vec();
        sources.sort_unstable();
        sources.dedup();
        Self { name: names.join(","), sources, helo }
    }

    /// The shard that owns the route, of `shards`. The same in every process and after every restart (FNV-1a).
    pub fn owner(&self, shards: usize) -> usize {
        let sources: String = self.sources.iter().map(IpAddr::to_string).collect();
        let bytes = self.name.bytes().chain(sources.bytes()).chain(self.helo.as_str().bytes());
        let hash = bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        ((hash >> 32) % shards as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(preference: u16, name: &str) -> Host {
        Host { preference, name: name.into(), addresses: vec!["192.0.2.1:25".parse().expect("an address")] }
    }

    fn us() -> Helo {
        Helo::Name("us".into())
    }

    #[test]
    fn domains_of_one_provider_share_a_site_whatever_the_order_and_the_spares() {
        let a = Site::new(&[host(10, "mx1.p"), host(10, "mx2.p"), host(20, "spare-a")], &[], us());
        let b = Site::new(&[host(5, "mx2.p"), host(5, "mx1.p"), host(30, "spare-b")], &[], us());
        assert_eq!(a, b);
        assert_eq!(a.name, "mx1.p:25,mx2.p:25");
        assert_ne!(a, Site::new(&[host(10, "mx1.p")], &[], us()));
        let from = |sources: &[IpAddr]| Site::new(&[host(10, "mx1.p"), host(10, "mx2.p")], sources, us());
        let (one, two): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        assert_ne!(a, from(&[one]));
        assert_eq!(from(&[one, two]), from(&[two, one, two]));
    }

    #[test]
    fn owners_are_spread() {
        let mut count = [0; 4];
        for number in 0..1000 {
            count[Site::new(&[host(1, &format!("mx.d{number}.example"))], &[], us()).owner(4)] += 1;
        }
        assert!(count.iter().all(|of_one| (150..350).contains(of_one)), "{count:?}");
    }
}
