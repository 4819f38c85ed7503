//! K_NETADDR: addresses, networks, `local`.

use std::net::IpAddr;

use ringpost_address::{Network, NetworkSet};

/// A list of networks.
#[derive(Clone, Debug, Default)]
pub struct SourceSet {
    networks: NetworkSet,
    local: bool,
}

impl SourceSet {
    /// Adds an entry; `false` if it is not an address or network.
    pub fn insert(&mut self, entry: &str) -> bool {
        if entry == "local" {
            self.local = true;
            return true;
        }
        match Network::parse(entry) {
            Some(network) => {
                self.networks.insert(network);
                true
            }
            None => false,
        }
    }

    /// Whether the entry `local` is in it.
    pub fn names_local(&self) -> bool {
        self.local
    }

    /// Whether `ip` is covered; `is_local` is asked only if the set has the entry `local`.
    pub fn contains(&self, ip: IpAddr, is_local: impl FnOnce() -> bool) -> bool {
        self.networks.contains(ip) || (self.local && is_local())
    }
}
