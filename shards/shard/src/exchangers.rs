//! Which of the mail exchangers that the DNS names mail may go to. Whoever owns a domain can name any host: this server itself,
//! so that mail would go round in circles (RFC 5321 §5.1), or one of the administrator's inner network, which takes from this
//! server what it takes from nobody outside. Hosts that the administrator has named are never judged here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringpost_address::Network;
use ringpost_conf::{Config, Where};
use ringpost_smtp::client::RemoteReply;

use crate::ask::{Exchanger, MxAnswer};
use crate::letter::Outcome;

/// What is known of where this server stands.
pub(crate) struct Ground<'a> {
    /// Where it listens, and which addresses it has.
    pub(crate) config: &'a Config,
    /// Its name.
    pub(crate) hostname: &'a str,
    /// Networks that are not public in which exchangers may be; `None`: they may be anywhere.
    pub(crate) inner: Option<&'a [Network]>,
}

/// Why mail may go to none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// The best is this server.
    Own,
    /// None has a public address; the first and one of its addresses.
    Inner {
        /// Its name.
        host: String,
        /// Its address.
        address: IpAddr,
    },
}

impl Unfit {
    /// Mail has failed for good: the DNS will say the same tomorrow.
    pub(crate) fn outcome(&self) -> Outcome {
        let (status, text) = match self {
            Self::Own => (
                (5, 4, 6),
                "the best mail exchanger of the domain is this server, which has no mailbox for it".to_owned(),
            ),
            Self::Inner { host, address } => {
                ((5, 1, 2), format!("the domain's mail exchanger {host}[{address}] has no public address"))
            }
        };
        Outcome::Permanent(RemoteReply::local(550, status, &text))
    }
}

impl Ground<'_> {
    /// The exchangers that mail may go to at this port: those that are better than this server, at addresses where an
    /// exchanger may be. Other answers stay what they are. While the DNS keeps one back, nothing is final.
    pub(crate) fn sift(&self, answer: MxAnswer, port: u16) -> Result<MxAnswer, Unfit> {
        let MxAnswer::Hosts { hosts, ttl, missing } = answer else { return Ok(answer) };
        match (self.fit(hosts, port), missing) {
            (Ok(hosts), missing) => Ok(MxAnswer::Hosts { hosts, ttl, missing }),
            (Err(_), Some(why)) => Ok(MxAnswer::Temporary(why)),
            (Err(unfit), None) => Err(unfit),
        }
    }

    fn fit(&self, mut hosts: Vec<Exchanger>, port: u16) -> Result<Vec<Exchanger>, Unfit> {
        let is_own = |host: &Exchanger| {
            host.name.eq_ignore_ascii_case(self.hostname)
                || host.addresses.iter().any(|address| self.is_own(*address, port))
        };
        // What points to ourselves, and all that is not better, would come back to us.
        if let Some(own) = hosts.iter().filter(|host| is_own(host)).map(|host| host.preference).min() {
            hosts.retain(|host| host.preference < own);
            if hosts.is_empty() {
                return Err(Unfit::Own);
            }
        }
        self.without_inner(hosts)
    }

    fn without_inner(&self, mut hosts: Vec<Exchanger>) -> Result<Vec<Exchanger>, Unfit> {
        let Some(inner) = self.inner else { return Ok(hosts) };
        let may = |address: &IpAddr| is_reachable(*address, inner);
        let mut first = None;
        for host in &mut hosts {
            let name = &host.name;
            host.addresses.retain(|address| {
                let may = may(address);
                if !may && first.is_none() {
                    first = Some(Unfit::Inner { host: name.clone(), address: *address });
                }
                may
            });
        }
        match first {
            Some(unfit) if hosts.iter().all(|host| host.addresses.is_empty()) => Err(unfit),
            _ => Ok(hosts),
        }
    }

    /// Whether this server listens there.
    fn is_own(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        let is_loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)].contains(&address);
        // A connection to no address goes to this machine.
        let is_near = is_loopback || address.is_unspecified();
        let is_host = self.config.names.addresses.contains(&address);
        let at = self.config.listeners.iter().filter(|listener| listener.port == port);
        at.map(|listener| &listener.place).any(|place| match place {
            Where::Address(own) if own.is_unspecified() => is_near || is_host,
            Where::Address(own) => *own == address,
            Where::All => is_near || is_host,
            Where::Egress => is_host,
            Where::Name(name) if matches!(&**name, "lo" | "lo0" | "localhost") => is_near,
            Where::Name(_) => is_near || is_host,
            Where::Socket => false,
        })
    }
}

/// Whether a server that a stranger has named may be asked at this address: at one that everybody can reach, or in one of these
/// networks.
pub fn is_reachable(address: IpAddr, inner: &[Network]) -> bool {
    is_public(address) || inner.iter().any(|network| network.contains(address))
}

/// Whether an address is one that everybody can reach, by the registries of RFC 6890.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_ipv4(address),
        IpAddr::V6(address) => {
            let [first, second, .., before, last] = address.segments();
            let inside = Ipv4Addr::from((u32::from(before) << 16) | u32::from(last));
            match (first, second) {
                // What a translator makes of an IPv4 address (RFC 6052 §2.1).
                (0x64, 0xff9b) => is_public_ipv4(inside),
                // 6to4 has it in front (RFC 3056 §2).
                (0x2002, _) => {
                    is_public_ipv4(Ipv4Addr::from((u32::from(second) << 16) | u32::from(address.segments()[2])))
                }
                // Documentation, benchmarks.
                (0x2001, 0xdb8 | 0x2) => false,
                // What is given out for everybody is in 2000::/3 (RFC 4291 §2.4).
                _ => first & 0xe000 == 0x2000,
            }
        }
    }
}

fn is_public_ipv4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_shared = first == 100 && second & 0xc0 == 64;
    let is_assigned = (first, second, third) == (192, 0, 0);
    let is_benchmark = first == 198 && second & 0xfe == 18;
    let is_near = address.is_loopback() || address.is_private() || address.is_link_local();
    // 224/4 are groups; 240/4 is nobody's, the last of it everybody's here.
    !(first == 0 || first >= 224 || is_near || is_shared || is_assigned || is_benchmark || address.is_documentation())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use ringpost_conf::{Memory, Options, load};

    use super::*;
    use crate::ask::Dane;

    fn host(preference: u16, name: &str, addresses: &[&str]) -> Exchanger {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        Exchanger { preference, name: name.into(), addresses, dane: Dane::Insecure("not asked") }
    }

    fn answer(hosts: Vec<Exchanger>) -> MxAnswer {
        MxAnswer::Hosts { hosts, ttl: Duration::from_secs(1), missing: None }
    }

    fn config(listeners: &str) -> Config {
        let files = Memory::default().with("c", format!("{listeners}action a relay\nmatch for any action a\n"));
        let options = Options { addresses: vec!["192.0.2.7".parse().expect("an address")], ..Options::default() };
        load(&files, Path::new("c"), &options).unwrap_or_else(|reports| panic!("{reports}")).0
    }

    #[test]
    fn this_server_and_all_that_is_not_better_are_left_out_by_name_and_by_address() {
        let config = config("listen on 0.0.0.0\nlisten on 198.51.100.4 port 26\n");
        let ground = Ground { config: &config, hostname: "us.test", inner: None };
        let sift = |hosts| ground.sift(answer(hosts), 25);
        let far = || host(10, "mx1.test", &["203.0.113.1"]);
        for own in [
            host(20, "US.test", &["203.0.113.9"]),
            host(20, "mx.test", &["203.0.113.9", "192.0.2.7"]),
            host(20, "mx.test", &["127.0.0.1"]),
            host(20, "mx.test", &["::ffff:127.0.0.1"]),
            host(20, "mx.test", &["0.0.0.0"]),
        ] {
            assert_eq!(sift(vec![own.clone()]), Err(Unfit::Own), "{own:?}");
            let equal = host(20, "equal.test", &["203.0.113.2"]);
            let spare = host(30, "spare.test", &["203.0.113.3"]);
            assert_eq!(sift(vec![equal, own, spare, far()]), Ok(answer(vec![far()])));
        }
        let other = vec![host(10, "mx.test", &["198.51.100.4"])];
        assert_eq!(sift(other.clone()), Ok(answer(other.clone())), "it listens there at another port");
        assert_eq!(ground.sift(answer(other), 26), Err(Unfit::Own));
        assert_eq!(ground.sift(MxAnswer::NullMx, 25), Ok(MxAnswer::NullMx));
        // The better one may be there in a minute.
        let MxAnswer::Hosts { hosts, ttl, .. } = answer(vec![host(20, "us.test", &["203.0.113.9"])]) else {
            unreachable!()
        };
        let without_one = MxAnswer::Hosts { hosts, ttl, missing: Some("mx1.test: SERVFAIL".into()) };
        assert_eq!(ground.sift(without_one, 25), Ok(MxAnswer::Temporary("mx1.test: SERVFAIL".into())));
        let Outcome::Permanent(reply) = Unfit::Own.outcome() else { panic!("for good") };
        assert_eq!(reply.to_string().get(..9), Some("550 5.4.6"));
    }

    #[test]
    fn exchangers_of_inner_networks_are_left_out_unless_they_are_allowed() {
        let config = config("listen on lo0\n");
        let ten = [Network::parse("10.1.0.0/16").expect("a network")];
        let sift = |inner, hosts| Ground { config: &config, hostname: "us.test", inner }.sift(answer(hosts), 25);
        let inner = || vec![host(10, "in.test", &["10.1.2.3"]), host(20, "home.test", &["192.168.1.1"])];
        assert_eq!(sift(None, inner()), Ok(answer(inner())));
        let unfit = Unfit::Inner { host: "in.test".into(), address: [10, 1, 2, 3].into() };
        assert_eq!(sift(Some(&[]), inner()), Err(unfit.clone()));
        assert_eq!(
            sift(Some(&ten), inner()),
            Ok(answer(vec![host(10, "in.test", &["10.1.2.3"]), host(20, "home.test", &[])])),
        );
        let mixed = vec![host(10, "in.test", &["10.1.2.3", "93.184.216.34"])];
        assert_eq!(sift(Some(&[]), mixed), Ok(answer(vec![host(10, "in.test", &["93.184.216.34"])])));
        let Outcome::Permanent(reply) = unfit.outcome() else { panic!("for good") };
        assert_eq!(reply.to_string(), "550 5.1.2 the domain's mail exchanger in.test[10.1.2.3] has no public address");
    }

    #[test]
    fn public_addresses_are_told_from_all_others() {
        let is = |text: &str| is_public(text.parse().expect("an address"));
        let public = ["93.184.216.34", "100.128.0.1", "172.32.0.1", "2606:2800:220::1", "64:ff9b::5db8:d822"];
        assert_eq!(public.map(is), [true; 5]);
        let others = [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.9.9.9",
            "169.254.0.1",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
        ];
        let wrong: Vec<&str> = others.into_iter().filter(|text| is(text)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}
