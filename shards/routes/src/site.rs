//! The identity of a mail site: who shares mail exchangers shares a route.

use std::net::{IpAddr, SocketAddr};

/// When a connection to a host is encrypted (grammar §4.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encryption {
    /// Where the host offers it.
    #[default]
    IfOffered,
    /// Never.
    Never,
    /// By STARTTLS, or not a word of mail is said.
    StartTls,
    /// From the first byte.
    Implicit,
    /// By STARTTLS or, where that is not to be had, from the first byte at this port.
    StartTlsOrImplicit {
        /// Of the second try.
        port: u16,
    },
}

/// What the connection to a host must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    /// When it is encrypted.
    pub encryption: Encryption,
    /// The host's certificate must be valid for its name.
    pub verify: bool,
}

impl Channel {
    /// What stands in front of a host's name in the name of its site, so that no mail that must be encrypted shares a
    /// connection with other mail.
    fn mark(self) -> &'static str {
        match (self.encryption, self.verify) {
            (Encryption::IfOffered, _) => "",
            (Encryption::Never, _) => "smtp+notls://",
            (Encryption::StartTls, true) => "smtp+tls://",
            (Encryption::StartTls, false) => "smtp+tls,no-verify://",
            (Encryption::Implicit, true) => "smtps://",
            (Encryption::Implicit, false) => "smtps,no-verify://",
            (Encryption::StartTlsOrImplicit { .. }, true) => "ssl://",
            (Encryption::StartTlsOrImplicit { .. }, false) => "ssl,no-verify://",
        }
    }
}

/// A host of a site with its addresses, in the order to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Preference, lower first (RFC 5321 §5.1).
    pub preference: u16,
    /// Name, for logs and bounces.
    pub name: String,
    /// Where it may be reached.
    pub addresses: Vec<SocketAddr>,
    /// What the connection must be.
    pub channel: Channel,
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
            .map(|host| {
                let port = host.addresses.first().map_or(25, SocketAddr::port);
                format!("{}{}:{port}", host.channel.mark(), host.name)
            })
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
        let addresses = vec!["192.0.2.1:25".parse().expect("an address")];
        Host { preference, name: name.into(), addresses, channel: Channel::default() }
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
    fn mail_that_must_be_encrypted_shares_no_connection_with_other_mail() {
        use Encryption::{IfOffered, Implicit, Never, StartTls, StartTlsOrImplicit};
        let mut sites = std::collections::BTreeSet::new();
        for encryption in [Never, StartTls, Implicit, StartTlsOrImplicit { port: 465 }] {
            for verify in [true, false] {
                let host = Host { channel: Channel { encryption, verify }, ..host(1, "mx.p") };
                sites.insert(Site::new(&[host], &[], us()).name);
            }
        }
        assert_eq!(sites.len(), 7, "{sites:?}: clear text knows no certificates");
        let clear = Site::new(&[host(1, "mx.p")], &[], us()).name;
        assert_eq!((clear.as_str(), sites.contains(&clear)), ("mx.p:25", false));
        assert_eq!(Channel::default().encryption, IfOffered);
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
