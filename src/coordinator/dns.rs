//! Who takes mail for a domain (RFC 5321 §5.1, null MX of RFC 7505), where a host is, and what a client is called. Asks the system's resolvers, or
//! a zone file and nobody else.

mod texts;
mod tlsa;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::MX;
use ringpost_shard::{Dane, Exchanger, MxAnswer, NameAnswer};

pub use self::texts::{Texts, texts};
use self::tlsa::tlsa;
use super::network::{Network, Say, is_secure};
use super::zone::Zone;
use crate::limits::{CLIENT_NAMES, EXCHANGERS, HOST_ADDRESSES, LOOKUP};

/// Where names are looked up.
pub enum Names {
    /// The resolvers of `/etc/resolv.conf`, with a cache.
    Network(Box<Network>),
    /// A file.
    Zone(Zone),
    /// Nowhere, and why.
    Nowhere(String),
}

/// What a lookup gave. "Not there" and "could not be asked" are never the same.
enum Found<T> {
    Records(Vec<T>, Duration),
    /// The name exists, and has no such record.
    NoRecords,
    NoName,
    Failed(String),
}

impl Names {
    /// From this file, or from the network, as the file or the system says. Must be called within the tokio runtime.
    pub fn new(zone: Option<Zone>, say: Say) -> Self {
        let network = match &zone {
            None => Network::system(say),
            Some(zone) => match zone.server() {
                Some((server, anchors)) => Network::at(server, anchors, say),
                None => return Self::Zone(zone.clone()),
            },
        };
        match network {
            Ok(network) => Self::Network(Box::new(network)),
            Err(why) => Self::Nowhere(format!("no resolver: {why}")),
        }
    }

    /// The resolver whose answers are validated, if there is one and its word is wanted.
    async fn vouching(&self, tlsa_port: Option<u16>) -> Option<&TokioResolver> {
        match (self, tlsa_port) {
            (Self::Network(network), Some(_)) => network.vouching().await,
            _ => None,
        }
    }

    /// With whether DNSSEC vouches for it.
    async fn mx(&self, domain: &str, vouching: Option<&TokioResolver>) -> (Found<(u16, String)>, bool) {
        let found = match self {
            Self::Network(network) => match vouching.unwrap_or(&network.plain).mx_lookup(whole(domain)).await {
                Ok(lookup) => {
                    let secure = vouching.is_some() && is_secure(lookup.answers());
                    let mut records = Vec::new();
                    for record in lookup.answers() {
                        if let RData::MX(MX { preference, exchange, .. }) = &record.data {
                            records.push((*preference, plain(&exchange.to_ascii())));
                        }
                    }
                    return (found(records, lookup.valid_until()), secure);
                }
                Err(error) => return (not_found(&error), vouching.is_some() && is_secure_denial(&error)),
            },
            Self::Zone(zone) => match zone.get(domain) {
                None => Found::NoName,
                Some(records) if records.fails => Found::Failed("SERVFAIL".into()),
                Some(records) => {
                    listed(records.exchangers.iter().map(|(ttl, preference, host)| (*ttl, (*preference, host.clone()))))
                }
            },
            Self::Nowhere(why) => Found::Failed(why.clone()),
        };
        (found, false)
    }

    async fn pointers(&self, address: IpAddr) -> Found<String> {
        let name = reverse_name(address);
        match self {
            Self::Network(network) => match network.plain.reverse_lookup(whole(&name)).await {
                Ok(lookup) => {
                    let hosts = lookup.answers().iter().filter_map(|record| match &record.data {
                        RData::PTR(host) => Some(plain(&host.to_ascii())),
                        _ => None,
                    });
                    found(hosts.collect(), lookup.valid_until())
                }
                Err(error) => not_found(&error),
            },
            Self::Zone(zone) => match zone.get(&name) {
                None => Found::NoName,
                Some(records) if records.fails => Found::Failed("SERVFAIL".into()),
                Some(records) => listed(records.pointers.iter().cloned()),
            },
            Self::Nowhere(why) => Found::Failed(why.clone()),
        }
    }

    /// With whether DNSSEC vouches for it.
    async fn ip(&self, host: &str, vouching: Option<&TokioResolver>) -> (Found<IpAddr>, bool) {
        let found = match self {
            Self::Network(network) => match vouching.unwrap_or(&network.plain).lookup_ip(whole(host)).await {
                Ok(lookup) => {
                    let secure = vouching.is_some() && is_secure(lookup.as_lookup().answers());
                    return (found(lookup.iter().collect(), lookup.valid_until()), secure);
                }
                Err(error) => not_found(&error),
            },
            Self::Zone(zone) => match zone.get(host) {
                None => Found::NoName,
                Some(records) if records.fails => Found::Failed("SERVFAIL".into()),
                Some(records) => listed(records.addresses.iter().copied()),
            },
            Self::Nowhere(why) => Found::Failed(why.clone()),
        };
        (found, false)
    }
}

/// Where the name of an address is.
pub fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev().map(|octet| format!("{:x}.{:x}.", octet & 15, octet >> 4));
            format!("{}ip6.arpa", nibbles.collect::<String>())
        }
    }
}

/// The name of a client: the first of those that the DNS has for his address which has this address, too. Anybody can call
/// his own address what he likes; only who owns the name can say the second.
pub async fn client_name(names: &Arc<Names>, address: IpAddr) -> NameAnswer {
    let address = address.to_canonical();
    match tokio::time::timeout(LOOKUP, confirmed_name(names, address)).await {
        Ok(answer) => answer,
        Err(_) => NameAnswer::Temporary(format!("{address}: no answer from the resolvers")),
    }
}

async fn confirmed_name(names: &Arc<Names>, address: IpAddr) -> NameAnswer {
    let (hosts, ttl) = match names.pointers(address).await {
        Found::Records(hosts, ttl) => (hosts, ttl),
        Found::NoRecords | Found::NoName => return NameAnswer::None,
        Found::Failed(why) => return NameAnswer::Temporary(format!("{address}: {why}")),
    };
    let mut failure = None;
    for name in hosts.into_iter().take(CLIENT_NAMES) {
        match names.ip(&name, None).await.0 {
            Found::Records(addresses, time) if addresses.contains(&address) => {
                return NameAnswer::Known { name, ttl: ttl.min(time) };
            }
            Found::Records(..) | Found::NoRecords | Found::NoName => {}
            Found::Failed(why) => failure = Some(format!("{name}: {why}")),
        }
    }
    failure.map_or(NameAnswer::None, NameAnswer::Temporary)
}

/// Exchangers of a domain, best first, with their addresses; its own addresses if it has no MX (RFC 5321 §5.1). With what
/// DNSSEC says of them for `tlsa_port`.
pub async fn exchangers(names: &Arc<Names>, domain: &str, tlsa_port: Option<u16>) -> MxAnswer {
    if let Some(address) = literal(domain) {
        return single(domain, vec![address], Duration::from_secs(3600));
    }
    match tokio::time::timeout(LOOKUP, resolve_exchangers(names, domain, tlsa_port)).await {
        Ok(answer) => answer,
        Err(_) => MxAnswer::Temporary(format!("{domain}: no answer from the resolvers")),
    }
}

/// Addresses of a host, no MX involved. With what DNSSEC says of it for `tlsa_port`.
pub async fn addresses(names: &Arc<Names>, host: &str, tlsa_port: Option<u16>) -> MxAnswer {
    if let Some(address) = literal(host) {
        return single(host, vec![address], Duration::from_secs(3600));
    }
    match tokio::time::timeout(LOOKUP, known_host(names, host, tlsa_port)).await {
        Ok(answer) => answer,
        Err(_) => MxAnswer::Temporary(format!("{host}: no answer from the resolvers")),
    }
}

async fn known_host(names: &Arc<Names>, host: &str, tlsa_port: Option<u16>) -> MxAnswer {
    match vouched_host(names, host, tlsa_port).await {
        (Found::Records(addresses, ttl), dane) => {
            let host = Exchanger { preference: 0, name: plain(host), addresses, dane };
            MxAnswer::Hosts { hosts: vec![host], ttl, missing: None }
        }
        (Found::NoRecords | Found::NoName, _) => MxAnswer::NoSuchDomain,
        (Found::Failed(why), _) => MxAnswer::Temporary(format!("{host}: {why}")),
    }
}

/// What DNSSEC did not vouch for.
const NO_WORD: Dane = Dane::Insecure("anything: the resolvers do not pass on what it needs");

/// Addresses of a host, whose name is known to be meant, and what DNSSEC says of it.
async fn vouched_host(names: &Names, host: &str, tlsa_port: Option<u16>) -> (Found<IpAddr>, Dane) {
    let vouching = names.vouching(tlsa_port).await;
    let (mut found, is_secure) = names.ip(host, vouching).await;
    if let Found::Records(addresses, _) = &mut found {
        bound(addresses);
    }
    match (found, vouching, tlsa_port) {
        (Found::Records(addresses, time), Some(resolver), Some(port)) if is_secure => {
            let (dane, ttl) = tlsa(resolver, host, port).await;
            (Found::Records(addresses, time.min(ttl)), dane)
        }
        (found, Some(_), _) => (found, Dane::Insecure("the addresses of its host")),
        (found, None, _) => (found, NO_WORD),
    }
}

/// A stranger's DNS says how many addresses a host has, and they are kept for as long as it says.
fn bound(addresses: &mut Vec<IpAddr>) {
    let mut count = [0; 2];
    addresses.retain(|address| {
        let of_family = &mut count[usize::from(address.is_ipv4())];
        *of_family += 1;
        *of_family <= HOST_ADDRESSES
    });
    addresses.shrink_to_fit();
}

async fn resolve_exchangers(names: &Arc<Names>, domain: &str, tlsa_port: Option<u16>) -> MxAnswer {
    let vouching = names.vouching(tlsa_port).await;
    let (found, is_secure) = names.mx(domain, vouching).await;
    // RFC 7672 §2.2.1: what is said of a host counts only if it is known that he is meant.
    let tlsa_port = tlsa_port.filter(|_| is_secure);
    let (mut records, ttl) = match found {
        Found::Records(records, ttl) => (records, ttl),
        Found::NoRecords => {
            let answer = known_host(names, domain, tlsa_port).await;
            return if vouching.is_some() && !is_secure { insecure(answer) } else { answer };
        }
        Found::NoName => return MxAnswer::NoSuchDomain,
        Found::Failed(why) => return MxAnswer::Temporary(format!("{domain}: {why}")),
    };
    // RFC 7505 §3: the null MX stands alone; beside others it means nothing.
    if records.iter().all(|(_, host)| host.is_empty()) {
        return MxAnswer::NullMx;
    }
    records.retain(|(_, host)| !host.is_empty());
    records.sort();
    records.truncate(EXCHANGERS);
    let mut lookups = tokio::task::JoinSet::new();
    for (place, (_, host)) in records.iter().enumerate() {
        let (names, host) = (names.clone(), host.clone());
        lookups.spawn(async move {
            let found = match literal(&host) {
                Some(address) => (Found::Records(vec![address], LOOKUP), Dane::Insecure("an address")),
                None => vouched_host(&names, &host, tlsa_port).await,
            };
            (place, found)
        });
    }
    let mut found: Vec<Option<(Found<IpAddr>, Dane)>> = records.iter().map(|_| None).collect();
    while let Some(Ok((place, lookup))) = lookups.join_next().await {
        found[place] = Some(lookup);
    }
    let answer = gather(domain, records, found, ttl);
    if vouching.is_some() && !is_secure { insecure(answer) } else { answer }
}

/// An answer that others may have made.
fn insecure(answer: MxAnswer) -> MxAnswer {
    match answer {
        MxAnswer::Hosts { mut hosts, ttl, missing } => {
            hosts.iter_mut().for_each(|host| host.dane = Dane::Insecure("the MX records of its domain"));
            MxAnswer::Hosts { hosts, ttl, missing }
        }
        answer => answer,
    }
}

/// Hosts with addresses; those without are left out. A failed lookup matters only when nothing else is left.
fn gather(
    domain: &str,
    records: Vec<(u16, String)>,
    found: Vec<Option<(Found<IpAddr>, Dane)>>,
    mut ttl: Duration,
) -> MxAnswer {
    let (mut hosts, mut failure) = (Vec::new(), None);
    for ((preference, name), found) in records.into_iter().zip(found) {
        match found {
            Some((Found::Records(addresses, time), dane)) => {
                ttl = ttl.min(time);
                hosts.push(Exchanger { preference, name, addresses, dane });
            }
            Some((Found::Failed(why), _)) => failure = Some(format!("{name}, exchanger of {domain}: {why}")),
            Some((Found::NoRecords | Found::NoName, _)) => {}
            None => failure = Some(format!("{name}, exchanger of {domain}: the lookup was lost")),
        }
    }
    match failure {
        missing if !hosts.is_empty() => MxAnswer::Hosts { hosts, ttl, missing },
        Some(why) => MxAnswer::Temporary(why),
        None => MxAnswer::NoSuchDomain,
    }
}

fn single(name: &str, addresses: Vec<IpAddr>, ttl: Duration) -> MxAnswer {
    let dane = Dane::Insecure("an address");
    MxAnswer::Hosts { hosts: vec![Exchanger { preference: 0, name: plain(name), addresses, dane }], ttl, missing: None }
}

/// `[192.0.2.1]`, `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3), and bare addresses, as URLs of relays have them.
fn literal(name: &str) -> Option<IpAddr> {
    let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let inner = match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => &inner[5..],
        _ => inner,
    };
    inner.parse().ok()
}

/// With its final dot, so that no search list is tried.
fn whole(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn found<T>(records: Vec<T>, valid_until: Instant) -> Found<T> {
    if records.is_empty() {
        return Found::NoRecords;
    }
    Found::Records(records, valid_until.saturating_duration_since(Instant::now()))
}

fn not_found<T>(error: &NetError) -> Found<T> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Found::NoName,
            ResponseCode::NoError => Found::NoRecords,
            other => Found::Failed(other.to_string()),
        },
        // What is said not to be there by somebody who need not sign it.
        NetError::Dns(DnsError::Nsec { response, proof, .. }) if !proof.is_bogus() => match response.response_code {
            ResponseCode::NXDomain => Found::NoName,
            _ => Found::NoRecords,
        },
        NetError::Dns(DnsError::DnssecBogus) => Found::Failed("DNSSEC says that the answer is forged".to_owned()),
        other => Found::Failed(other.to_string()),
    }
}

/// Whether DNSSEC vouches for it that there is nothing.
fn is_secure_denial(error: &NetError) -> bool {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.authorities.as_deref().is_some_and(is_secure),
        _ => false,
    }
}

fn listed<T>(records: impl Iterator<Item = (Duration, T)>) -> Found<T> {
    let (mut ttl, mut all) = (Duration::MAX, Vec::new());
    for (time, record) in records {
        ttl = ttl.min(time);
        all.push(record);
    }
    if all.is_empty() { Found::NoRecords } else { Found::Records(all, ttl) }
}

#[cfg(test)]
mod tests;
