//! Lists: how the entries of each service are checked (grammar §7.1: *the use decides*).

use std::net::IpAddr;

use ringpost_address::parse_ip;

use super::{AddressSet, DomainSet, SourceSet, WordSet};

/// A list of entries of one service.
pub trait List: Default + Send + Sync + 'static {
    /// What an entry is, for `` `x` is not … ``.
    const WHAT: &'static str;
    /// How an entry is written, where that helps.
    const HOW: Option<&'static str>;

    /// Adds an entry; `false` if it is not one.
    fn add(&mut self, entry: &str) -> bool;
}

impl List for DomainSet {
    const WHAT: &'static str = "a domain";
    const HOW: Option<&'static str> = Some("a name, `*.example.org` or `*`");

    fn add(&mut self, entry: &str) -> bool {
        self.insert(entry)
    }
}

impl List for AddressSet {
    const WHAT: &'static str = "an address pattern";
    const HOW: Option<&'static str> = Some("user@domain, @domain or user");

    fn add(&mut self, entry: &str) -> bool {
        self.insert(entry)
    }
}

impl List for SourceSet {
    const WHAT: &'static str = "an address or network";
    const HOW: Option<&'static str> = None;

    fn add(&mut self, entry: &str) -> bool {
        self.insert(entry)
    }
}

impl List for WordSet {
    const WHAT: &'static str = "a word";
    const HOW: Option<&'static str> = None;

    fn add(&mut self, entry: &str) -> bool {
        self.insert(entry)
    }
}

/// K_SOURCEADDR: addresses, cycled.
#[derive(Debug, Default)]
pub struct SourceAddresses(pub Vec<IpAddr>);

impl List for SourceAddresses {
    const WHAT: &'static str = "an address";
    const HOW: Option<&'static str> = None;

    fn add(&mut self, entry: &str) -> bool {
        let address = parse_ip(entry);
        self.0.extend(address);
        address.is_some()
    }
}
