//! Names in the simulated world: each domain has some of the receivers as its mail exchangers. And a table: whoever writes to
//! a list reaches its members, who are made of the list's name, so that the judge knows them without asking.
//! There are no other users, hence nobody to hand deliveries to.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ringpost_conf::expand::Told;
use ringpost_conf::tables::ServiceKind;
use ringpost_io::Runtime;
use ringpost_shard::{
    Ask, Dane, Exchanger, Forwarding, HandOver, Handed, Handover, MxAnswer, NameAnswer, Said, UserRecord,
};

use crate::limits::{DOMAINS, RECEIVERS};

/// Address of a receiver, port 25.
pub(crate) fn receiver_address(number: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 2, number as u8 + 1).into()
}

/// Name of a domain. The last is the clients' own, which takes the bounces.
pub(crate) fn domain(number: usize) -> String {
    format!("d{number}.sim")
}

/// The domain of lists.
pub(crate) const LISTS: &str = "lists.sim";
/// The table with their members.
pub(crate) const MEMBERS: &str = "members";

/// A recipient of a message that stands for others.
pub(crate) fn list(number: u64, index: u64) -> String {
    format!("l{number}x{index}@{LISTS}")
}

/// Whom a recipient stands for: those of a list, one of whom is on every list of its message; anybody else for himself.
pub(crate) fn members(recipient: &str) -> Vec<String> {
    let name = recipient.strip_suffix(LISTS).and_then(|rest| rest.strip_prefix('l')?.strip_suffix('@'));
    let Some((number, index)) = name.and_then(|name| name.split_once('x')) else { return vec![recipient.to_owned()] };
    let (domains, seed) = (DOMAINS as u64, number.parse::<u64>().unwrap_or(0));
    let at = |offset: u64| domain(((seed + offset) % domains) as usize);
    let mut members = vec![format!("c{number}@{}", at(0))];
    let own = seed % 3;
    members.extend((0..own).map(|which| format!("m{number}x{index}x{which}@{}", at(which + 1))));
    members
}

/// What answers the shards' questions.
pub(crate) struct Names<R: Runtime> {
    pub(crate) runtime: R,
    /// One of so many questions fails; 0: none.
    pub(crate) fails_one_in: Rc<Cell<u64>>,
}

impl<R: Runtime> Ask for Names<R> {
    async fn exchangers(&self, name: &str, _: Option<u16>) -> MxAnswer {
        self.runtime.sleep(Duration::from_micros(200 + self.runtime.random_u64() % 20_000)).await;
        let one_in = self.fails_one_in.get();
        if one_in > 0 && self.runtime.random_u64().is_multiple_of(one_in) {
            return MxAnswer::Temporary("SERVFAIL".into());
        }
        let Some(number) = (0..=DOMAINS).find(|number| domain(*number) == name) else { return MxAnswer::NoSuchDomain };
        // Domains 0 and 1 share a site, the others have a first and a second choice.
        let first = if number < 2 { 0 } else { number % RECEIVERS };
        let host = |preference, receiver: usize| Exchanger {
            preference,
            name: format!("mx{receiver}.sim"),
            addresses: vec![receiver_address(receiver)],
            dane: Dane::Absent,
        };
        MxAnswer::Hosts {
            hosts: vec![host(20, (first + 1) % RECEIVERS), host(10, first)],
            ttl: Duration::from_secs(60),
            missing: None,
        }
    }

    async fn addresses(&self, host: &str, tlsa_port: Option<u16>) -> MxAnswer {
        self.exchangers(host, tlsa_port).await
    }

    async fn client_name(&self, _address: std::net::IpAddr) -> NameAnswer {
        NameAnswer::None
    }

    async fn look_up(&self, table: &str, _service: ServiceKind, keys: Vec<String>) -> Said {
        self.runtime.sleep(Duration::from_micros(100 + self.runtime.random_u64() % 50_000)).await;
        let one_in = self.fails_one_in.get();
        if one_in > 0 && self.runtime.random_u64().is_multiple_of(one_in) {
            return Said::Failed("the database is busy".into());
        }
        match keys.first() {
            Some(key) if table == MEMBERS && key.ends_with(LISTS) => {
                Said::Found { text: members(key).join(", "), age: Duration::ZERO }
            }
            _ => Said::NotFound { age: Duration::ZERO },
        }
    }

    // Nobody lives in this world: all mail leaves it.
    async fn user(&self, _name: &str) -> Said {
        Said::NotFound { age: Duration::ZERO }
    }

    async fn list(&self, _path: &Path) -> Told {
        Told::NotFound
    }
}

/// No supervisor.
pub(crate) struct Nobody;

impl HandOver for Nobody {
    type Text = Vec<u8>;

    fn text(&self) -> std::io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    async fn deliver(&self, _handover: Handover, _text: Vec<u8>) -> Handed {
        Handed::temporary((4, 3, 0), "no supervisor in this world")
    }

    async fn forward(&self, _user: UserRecord) -> Forwarding {
        Forwarding::NotThere
    }

    async fn list(&self, _user: UserRecord, _path: PathBuf) -> Forwarding {
        Forwarding::NotThere
    }
}
