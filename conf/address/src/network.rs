//! Addresses and networks (CIDR).

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// A network such as `10.0.0.0/8`; a lone address is the network of itself. Host bits are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

impl Network {
    /// Reads `192.0.2.1`, `10.0.0.0/8`, `2001:db8::/32`, `[2001:db8::1]` or `[fd00::]/8`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            None => parse_ip(text).map(|ip| Self(IpNet::from(ip))),
            Some((address, length)) => {
                let plain = length.len() <= 3 && length.bytes().all(|b| b.is_ascii_digit());
                let length: u8 = length.parse().ok().filter(|_| plain)?;
                IpNet::new(parse_ip(address)?, length).ok().map(|net| Self(net.trunc()))
            }
        }
    }

    /// Whether `ip` lies inside. An IPv4 address mapped into IPv6 is that IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&canonical_ip(ip))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Many networks. A lookup costs one probe for each prefix length that occurs, however many entries there are.
#[derive(Clone, Debug, Default)]
pub struct NetworkSet {
    v4: Vec<(u8, HashSet<u32>)>,
    v6: Vec<(u8, HashSet<u128>)>,
}

impl NetworkSet {
    /// Adds a network.
    pub fn insert(&mut self, network: Network) {
        match network.0 {
            IpNet::V4(net) => {
                with_length(&mut self.v4, net.prefix_len()).insert(net.network().to_bits());
            }
            IpNet::V6(net) => {
                with_length(&mut self.v6, net.prefix_len()).insert(net.network().to_bits());
            }
        }
    }

    /// Whether some network of the set contains `ip`.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match canonical_ip(ip) {
            IpAddr::V4(ip) => self.v4.iter().any(|(length, nets)| {
                let mask = u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
                nets.contains(&(ip.to_bits() & mask))
            }),
            IpAddr::V6(ip) => self.v6.iter().any(|(length, nets)| {
                let mask = u128::MAX.checked_shl(128 - u32::from(*length)).unwrap_or(0);
                nets.contains(&(ip.to_bits() & mask))
            }),
        }
    }

    /// Whether there is no network in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

fn with_length<T: Default>(sets: &mut Vec<(u8, T)>, length: u8) -> &mut T {
    let at = match sets.iter().position(|(have, _)| *have == length) {
        Some(at) => at,
        None => {
            sets.push((length, T::default()));
            sets.len() - 1
        }
    };
    &mut sets[at].1
}

/// Reads an address, IPv6 with or without brackets.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// `::ffff:192.0.2.1`, as a socket for both families reports it, is `192.0.2.1`.
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn reading() {
        for good in ["192.0.2.1", "10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "[2001:db8::1]", "[fd00::]/8", "::/0"] {
            assert!(Network::parse(good).is_some(), "{good}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "x", "[10.0.0.1]", "10.0.0.0/", "10.0.0.0/+8", "fd00::/129", "[::1"]
        {
            assert!(Network::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn containing() {
        let mut set = NetworkSet::default();
        for text in ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "[::1]"] {
            let network = Network::parse(text).unwrap();
            set.insert(network);
        }
        for inside in ["10.255.0.1", "192.0.2.7", "2001:db8:1::1", "::1", "::ffff:10.0.0.1"] {
            assert!(set.contains(ip(inside)), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "2001:db9::1", "::2"] {
            assert!(!set.contains(ip(outside)), "{outside}");
        }
        assert!(Network::parse("10.1.2.3/8").unwrap().contains(ip("10.9.9.9")));
        let mut all = NetworkSet::default();
        all.insert(Network::parse("0.0.0.0/0").unwrap());
        assert!(all.contains(ip("1.2.3.4")) && !all.contains(ip("::1")));
    }
}
