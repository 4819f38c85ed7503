//! A pool of source addresses: what each is called and how large its share is, and which of them is a sender's or a domain's.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use crate::warmup::Schedule;

/// Source addresses of one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// How one of them is chosen.
    pub pick: Pick,
    /// The addresses.
    pub members: Vec<Member>,
}

/// How an address of a pool is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pick {
    /// They take turns.
    Cycle,
    /// The one that the fewest connections of this shard leave from.
    LeastUsed,
    /// Always the same for a sender.
    StickySender,
    /// Always the same for a domain.
    StickyDomain,
}

/// An address of a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The address.
    pub address: IpAddr,
    /// The name to say in EHLO there; else that of the site.
    pub helo: Option<String>,
    /// Its share, at least 1.
    pub weight: u32,
    /// How it warms up, if it does.
    pub warmup: Option<Arc<Schedule>>,
}

/// Pools that are equal have one name; the rest need not be hashed for each ticket.
impl Hash for Pool {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Pool {
    /// What is said in EHLO at this address, if the pool says so.
    pub fn helo(&self, address: IpAddr) -> Option<&str> {
        self.member(address)?.helo.as_deref()
    }

    /// How an address warms up, if this pool says so.
    pub(crate) fn warmup(&self, address: IpAddr) -> Option<&Arc<Schedule>> {
        self.member(address)?.warmup.as_ref()
    }

    /// The share of an address; 1 if it is not of this pool.
    pub(crate) fn weight(&self, address: IpAddr) -> u32 {
        self.member(address).map_or(1, |member| member.weight.max(1))
    }

    fn member(&self, address: IpAddr) -> Option<&Member> {
        self.members.iter().find(|member| member.address == address)
    }

    /// What a sender or a domain is known by, without regard to case.
    pub fn key(text: &str) -> u64 {
        fnv(text.bytes().map(|byte| byte.to_ascii_lowercase()))
    }

    /// The addresses that mail of this key keeps to: one of each family.
    pub fn pinned(&self, key: u64) -> Vec<IpAddr> {
        let of_family =
            |is_ipv4| self.members.iter().map(|one| one.address).filter(move |one| one.is_ipv4() == is_ipv4);
        [true, false].into_iter().filter_map(|is_ipv4| self.chosen(key, of_family(is_ipv4))).collect()
    }

    /// Which of `addresses` is that of a key: the same in every process and after every restart, each by its share, and if one
    /// is missing, only its keys go elsewhere (rendezvous hashing with weights, Schindelhauer and Schomaker 2005).
    pub(crate) fn chosen(&self, key: u64, addresses: impl Iterator<Item = IpAddr>) -> Option<IpAddr> {
        let score = |address: IpAddr| f64::from(self.weight(address)) / -unit(mix(key ^ of_address(address))).ln();
        addresses.max_by(|a, b| score(*a).total_cmp(&score(*b)).then(b.cmp(a)))
    }
}

/// FNV-1a.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn of_address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => fnv(address.octets().into_iter()),
        IpAddr::V6(address) => fnv(address.octets().into_iter()),
    }
}

/// Every bit of the result depends on every bit of `hash` (the end of `SplitMix64`).
fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Between 0 and 1, neither of them.
fn unit(hash: u64) -> f64 {
    ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    pub(crate) fn pool(pick: Pick, members: &[(&str, u32)]) -> Pool {
        let member = |(address, weight): &(&str, u32)| Member {
            address: address.parse().expect("an address"),
            helo: None,
            weight: *weight,
            warmup: None,
        };
        Pool { name: "p".into(), pick, members: members.iter().map(member).collect() }
    }

    /// Who has which of a thousand senders.
    fn shares(pool: &Pool, without: Option<&str>) -> BTreeMap<usize, String> {
        let gone: Option<IpAddr> = without.map(|address| address.parse().expect("an address"));
        let all = || pool.members.iter().map(|member| member.address).filter(|address| Some(*address) != gone);
        let of = |n: usize| pool.chosen(Pool::key(&format!("user{n}@a.example")), all()).expect("one").to_string();
        (0..1000).map(|n| (n, of(n))).collect()
    }

    #[test]
    fn a_key_keeps_its_address_and_shares_go_by_weight() {
        let pool = pool(Pick::StickySender, &[("192.0.2.1", 1), ("192.0.2.2", 1), ("192.0.2.3", 2)]);
        let shares = shares(&pool, None);
        for (address, expected) in [("192.0.2.1", 250), ("192.0.2.2", 250), ("192.0.2.3", 500)] {
            let has = shares.values().filter(|of| *of == address).count();
            assert!(has.abs_diff(expected) < 60, "{address} has {has} of 1000");
        }
        assert_eq!(Pool::key("User1@A.example"), Pool::key("user1@a.example"));
        // Written down, since it must be the same in the next version, too.
        assert_eq!([0, 1, 2].map(|n| shares[&n].as_str()), ["192.0.2.3", "192.0.2.1", "192.0.2.3"]);
    }

    #[test]
    fn the_loss_of_an_address_moves_its_own_share_alone_and_to_all_others() {
        let pool = pool(Pick::StickySender, &[("192.0.2.1", 1), ("192.0.2.2", 1), ("192.0.2.3", 1)]);
        let (before, after) = (shares(&pool, None), shares(&pool, Some("192.0.2.2")));
        let mut went = BTreeMap::<&str, usize>::new();
        for (n, address) in &before {
            match address.as_str() {
                "192.0.2.2" => *went.entry(&after[n]).or_default() += 1,
                _ => assert_eq!(address, &after[n], "user{n} had no reason to move"),
            }
        }
        assert!(went.len() == 2 && went.values().all(|count| *count > 100), "{went:?}");
    }
}
