//! Who takes mail for a domain (RFC 5321 §5.1, null MX of RFC 7505), where a host is, and what a client is called. Asks the system's resolvers, or
//! a zone file and nobody else.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::MX;
use ringpost_shard::{Exchanger, MxAnswer, NameAnswer};

use super::zone::Zone;
use crate::limits::{CLIENT_NAMES, EXCHANGERS, LOOKUP, RESOLVER_CACHE};

/// Where names are looked up.
pub enum Names {
    /// The resolvers of `/etc/resolv.conf`, with a cache.
    Network(Box<TokioResolver>),
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
    /// From the network, as the system is set up. Must be called within the tokio runtime.
    pub fn network() -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
            builder.options_mut().cache_size = RESOLVER_CACHE;
            builder.build()
        });
        match resolver {
            Ok(resolver) => Self::Network(Box::new(resolver)),
            Err(error) => Self::Nowhere(format!("no resolver: {error}")),
        }
    }

    async fn mx(&self, domain: &str) -> Found<(u16, String)> {
        match self {
            Self::Network(resolver) => match resolver.mx_lookup(whole(domain)).await {
                Ok(lookup) => {
                    let mut records = Vec::new();
                    for record in lookup.answers() {
                        if let RData::MX(MX { preference, exchange, .. }) = &record.data {
                            records.push((*preference, plain(&exchange.to_ascii())));
                        }
                    }
                    found(records, lookup.valid_until())
                }
                Err(error) => not_found(&error),
            },
            Self::Zone(zone) => match zone.get(domain) {
                None => Found::NoName,
                Some(records) if records.fails => Found::Failed("SERVFAIL".into()),
                Some(records) => {
                    listed(records.exchangers.iter().map(|(ttl, preference, host)| (*ttl, (*preference, host.clone()))))
                }
            },
            Self::Nowhere(why) => Found::Failed(why.clone()),
        }
    }

    async fn pointers(&self, address: IpAddr) -> Found<String> {
        let name = reverse_name(address);
        match self {
            Self::Network(resolver) => match resolver.reverse_lookup(whole(&name)).await {
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

    async fn ip(&self, host: &str) -> Found<IpAddr> {
        match self {
            Self::Network(resolver) => match resolver.lookup_ip(whole(host)).await {
                Ok(lookup) => found(lookup.iter().collect(), lookup.valid_until()),
                Err(error) => not_found(&error),
            },
            Self::Zone(zone) => match zone.get(host) {
                None => Found::NoName,
                Some(records) if records.fails => Found::Failed("SERVFAIL".into()),
                Some(records) => listed(records.addresses.iter().copied()),
            },
            Self::Nowhere(why) => Found::Failed(why.clone()),
        }
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
        match names.ip(&name).await {
            Found::Records(addresses, time) if addresses.contains(&address) => {
                return NameAnswer::Known { name, ttl: ttl.min(time) };
            }
            Found::Records(..) | Found::NoRecords | Found::NoName => {}
            Found::Failed(why) => failure = Some(format!("{name}: {why}")),
        }
    }
    failure.map_or(NameAnswer::None, NameAnswer::Temporary)
}

/// Exchangers of a domain, best first, with their addresses; its own addresses if it has no MX (RFC 5321 §5.1).
pub async fn exchangers(names: &Arc<Names>, domain: &str) -> MxAnswer {
    if let Some(address) = literal(domain) {
        return single(domain, vec![address], Duration::from_secs(3600));
    }
    match tokio::time::timeout(LOOKUP, resolve_exchangers(names, domain)).await {
        Ok(answer) => answer,
        Err(_) => MxAnswer::Temporary(format!("{domain}: no answer from the resolvers")),
    }
}

/// Addresses of a host, no MX involved.
pub async fn addresses(names: &Arc<Names>, host: &str) -> MxAnswer {
    if let Some(address) = literal(host) {
        return single(host, vec![address], Duration::from_secs(3600));
    }
    match tokio::time::timeout(LOOKUP, names.ip(host)).await {
        Ok(Found::Records(addresses, ttl)) => single(host, addresses, ttl),
        Ok(Found::NoRecords | Found::NoName) => MxAnswer::NoSuchDomain,
        Ok(Found::Failed(why)) => MxAnswer::Temporary(format!("{host}: {why}")),
        Err(_) => MxAnswer::Temporary(format!("{host}: no answer from the resolvers")),
    }
}

async fn resolve_exchangers(names: &Arc<Names>, domain: &str) -> MxAnswer {
    let (mut records, ttl) = match names.mx(domain).await {
        Found::Records(records, ttl) => (records, ttl),
        Found::NoRecords => return addresses(names, domain).await,
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
                Some(address) => Found::Records(vec![address], LOOKUP),
                None => names.ip(&host).await,
            };
            (place, found)
        });
    }
    let mut found: Vec<Option<Found<IpAddr>>> = records.iter().map(|_| None).collect();
    while let Some(Ok((place, lookup))) = lookups.join_next().await {
        found[place] = Some(lookup);
    }
    gather(domain, records, found, ttl)
}

/// Hosts with addresses; those without are left out. A failed lookup matters only when nothing else is left.
fn gather(domain: &str, records: Vec<(u16, String)>, found: Vec<Option<Found<IpAddr>>>, mut ttl: Duration) -> MxAnswer {
    let (mut hosts, mut failure) = (Vec::new(), None);
    for ((preference, name), found) in records.into_iter().zip(found) {
        match found {
            Some(Found::Records(addresses, time)) => {
                ttl = ttl.min(time);
                hosts.push(Exchanger { preference, name, addresses });
            }
            Some(Found::Failed(why)) => failure = Some(format!("{name}, exchanger of {domain}: {why}")),
            Some(Found::NoRecords | Found::NoName) => {}
            None => failure = Some(format!("{name}, exchanger of {domain}: the lookup was lost")),
        }
    }
    match failure {
        _ if !hosts.is_empty() => MxAnswer::Hosts { hosts, ttl },
        Some(why) => MxAnswer::Temporary(why),
        None => MxAnswer::NoSuchDomain,
    }
}

fn single(name: &str, addresses: Vec<IpAddr>, ttl: Duration) -> MxAnswer {
    MxAnswer::Hosts { hosts: vec![Exchanger { preference: 0, name: plain(name), addresses }], ttl }
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
        other => Found::Failed(other.to_string()),
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
mod tests {
    use super::*;

    const ZONE: &str = "\
        two.test 60 MX 20 b.two.test\n\
        two.test 90 MX 10 a.two.test\n\
        two.test MX 5 gone.two.test\n\
        a.two.test 30 A 192.0.2.1\n\
        a.two.test AAAA 2001:db8::1\n\
        b.two.test 300 A 192.0.2.2\n\
        bare.test A 192.0.2.3\n\
        null.test MX 0 .\n\
        empty.test TXT x\n\
        dead.test MX 10 nowhere.test\n\
        literal.test MX 10 192.0.2.9\n";

    fn ask(domain: &str) -> MxAnswer {
        let names = Arc::new(Names::Zone(Zone::parse(ZONE).unwrap()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(exchangers(&names, domain))
    }

    fn hosts(answer: MxAnswer) -> Vec<(u16, String, usize)> {
        match answer {
            MxAnswer::Hosts { hosts, .. } => {
                hosts.into_iter().map(|host| (host.preference, host.name, host.addresses.len())).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn exchangers_come_by_preference_without_those_that_have_no_address() {
        let answer = ask("Two.test.");
        assert!(matches!(&answer, MxAnswer::Hosts { ttl, .. } if *ttl == Duration::from_secs(30)));
        assert_eq!(hosts(answer), [(10, "a.two.test".into(), 2), (20, "b.two.test".into(), 1)]);
    }

    #[test]
    fn a_domain_without_mx_is_its_own_exchanger() {
        assert_eq!(hosts(ask("bare.test")), [(0, "bare.test".into(), 1)]);
        assert_eq!(hosts(ask("[192.0.2.7]")), [(0, "[192.0.2.7]".into(), 1)]);
        assert_eq!(hosts(ask("[IPv6:2001:db8::7]")).len(), 1);
        assert_eq!(hosts(ask("literal.test")), [(10, "192.0.2.9".into(), 1)]);
    }

    #[test]
    fn null_mx_missing_names_and_failures_are_told_apart() {
        assert_eq!(ask("null.test"), MxAnswer::NullMx);
        for name in ["missing.test", "empty.test", "dead.test"] {
            assert_eq!(ask(name), MxAnswer::NoSuchDomain, "{name}");
        }
        let names = Arc::new(Names::Nowhere("no resolver".into()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(
            runtime.block_on(exchangers(&names, "two.test")),
            MxAnswer::Temporary("two.test: no resolver".into())
        );
    }

    #[test]
    fn a_client_has_the_name_that_has_his_address() {
        let zone = "\
            1.2.0.192.in-addr.arpa PTR liar.test\n\
            1.2.0.192.in-addr.arpa 20 PTR Mail.One.test.\n\
            mail.one.test A 192.0.2.1\n\
            mail.one.test AAAA 2001:db8::1\n\
            liar.test A 192.0.2.2\n\
            2.2.0.192.in-addr.arpa PTR mail.one.test\n\
            4.2.0.192.in-addr.arpa SERVFAIL\n\
            5.2.0.192.in-addr.arpa PTR broken.test\n\
            broken.test SERVFAIL\n\
            1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR mail.one.test\n";
        let names = Arc::new(Names::Zone(Zone::parse(zone).unwrap()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ask = |text: &str| runtime.block_on(client_name(&names, text.parse().unwrap()));
        let known = |seconds| NameAnswer::Known { name: "mail.one.test".into(), ttl: Duration::from_secs(seconds) };
        assert_eq!(ask("192.0.2.1"), known(20));
        assert_eq!(ask("::ffff:192.0.2.1"), known(20));
        assert_eq!(ask("2001:db8::1"), known(60));
        assert_eq!(ask("192.0.2.2"), NameAnswer::None, "the name has another address");
        assert_eq!(ask("192.0.2.3"), NameAnswer::None);
        assert_eq!(ask("192.0.2.4"), NameAnswer::Temporary("192.0.2.4: SERVFAIL".into()));
        assert_eq!(ask("192.0.2.5"), NameAnswer::Temporary("broken.test: SERVFAIL".into()));
        let nowhere = Arc::new(Names::Nowhere("no resolver".into()));
        let answer = runtime.block_on(client_name(&nowhere, [192, 0, 2, 1].into()));
        assert_eq!(answer, NameAnswer::Temporary("192.0.2.1: no resolver".into()));
    }

    #[test]
    fn a_failed_exchanger_is_not_a_missing_one() {
        let records = vec![(10, "a".to_owned()), (20, "b".to_owned())];
        let failed = || Some(Found::Failed("SERVFAIL".into()));
        let answer = gather("d", records.clone(), vec![failed(), Some(Found::NoName)], Duration::ZERO);
        assert!(matches!(answer, MxAnswer::Temporary(_)));
        let there = Some(Found::Records(vec![IpAddr::from([192, 0, 2, 1])], LOOKUP));
        assert_eq!(hosts(gather("d", records, vec![failed(), there], LOOKUP)), [(20, "b".into(), 1)]);
    }
}
