//! Names in the simulated world: each domain has some of the receivers as its mail exchangers. And a table: whoever writes to
//! a list reaches its members, who are made of the list's name, so that the judge knows them without asking. A few users
//! have programs that take their mail.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringpost_conf::expand::Told;
use ringpost_conf::tables::ServiceKind;
use ringpost_io::Runtime;
use ringpost_shard::{Ask, Dane, Exchanger, MxAnswer, NameAnswer, Said};

use crate::limits::{DOMAINS, NO_ANSWER, RECEIVERS};
use crate::promises::Ledger;

/// Address of a receiver, port 25.
pub(crate) fn receiver_address(number: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 2, number as u8 + 1).into()
}

/// The engine's.
pub(crate) const ENGINE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
/// A machine without a mail server.
pub(crate) const NOBODY_LISTENS: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 1);
/// Nothing ever comes back from there.
pub(crate) const NOBODY_IS: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 2);

/// Name of a domain. The last is the clients' own, which takes the bounces.
pub(crate) fn domain(number: usize) -> String {
    format!("d{number}.sim")
}

/// The domain of users with programs.
pub(crate) const PROGRAMS: &str = "programs.sim";

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

/// How names and tables do: one of so many questions, 0 for none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mood {
    /// SERVFAIL, and a table that cannot be asked.
    pub(crate) fails_one_in: u64,
    /// No answer at all until whoever asks has waited long enough.
    pub(crate) silent_one_in: u64,
    /// An answer that is not the usual one.
    pub(crate) odd_one_in: u64,
}

/// What answers the shards' questions.
pub(crate) struct Names<R: Runtime> {
    pub(crate) runtime: R,
    pub(crate) mood: Rc<Cell<Mood>>,
    pub(crate) ledger: Rc<RefCell<Ledger>>,
}

impl<R: Runtime> Names<R> {
    fn one_in(&self, chance: u64) -> bool {
        chance > 0 && self.runtime.random_u64().is_multiple_of(chance)
    }

    /// Waits as long as an answer takes. `Err`: there is none, and why.
    async fn answers(&self, usual_ms: u64) -> Result<(), &'static str> {
        let mood = self.mood.get();
        if self.one_in(mood.silent_one_in) {
            self.runtime.sleep(NO_ANSWER).await;
            return Err("no answer");
        }
        self.runtime.sleep(Duration::from_micros(200 + self.runtime.random_u64() % (usual_ms * 1000))).await;
        if self.one_in(mood.fails_one_in) { Err("SERVFAIL") } else { Ok(()) }
    }

    /// What a domain's exchangers are now and then, for as long as that is believed.
    async fn odd(&self, name: &str, first: usize) -> MxAnswer {
        let draw = self.runtime.random_u64();
        let ttl = Duration::from_secs(draw / 64 % 90);
        let hosts = |hosts: Vec<Exchanger>| MxAnswer::Hosts { hosts, ttl, missing: None };
        match draw % 8 {
            // The site has moved.
            0 => hosts(vec![host(5, (first + 2) % RECEIVERS)]),
            // The first choice points to where nobody listens, or nobody is.
            1 => hosts(vec![nowhere(5, NOBODY_LISTENS), host(20, first)]),
            2 => hosts(vec![nowhere(5, NOBODY_IS), host(20, first)]),
            3 => hosts(vec![nowhere(5, NOBODY_IS)]),
            // To the engine itself, of which RFC 5321 §5.1 says what is to be done.
            4 => hosts(vec![nowhere(30, ENGINE), host(20, first)]),
            // A host of which the address cannot be had now.
            5 => MxAnswer::Hosts { hosts: vec![host(20, first)], ttl, missing: Some("mx.sim: SERVFAIL".into()) },
            // A chain of aliases (RFC 1034 §3.6.2): each takes its time, and beyond a length it is an error.
            6 => {
                let links = draw / 8 % 16;
                self.runtime.sleep(Duration::from_millis(links * 200)).await;
                match links > 8 {
                    true => MxAnswer::Temporary("too many aliases".into()),
                    false => hosts(vec![host(10, first)]),
                }
            }
            // Empty: no such name, or a null MX (RFC 7505). Somebody's slip, but for the server it is the truth.
            _ => {
                self.ledger.borrow_mut().denied(name);
                if draw & 8 == 0 { MxAnswer::NoSuchDomain } else { MxAnswer::NullMx }
            }
        }
    }
}

fn host(preference: u16, receiver: usize) -> Exchanger {
    Exchanger {
        preference,
        name: format!("mx{receiver}.sim"),
        addresses: vec![receiver_address(receiver)],
        dane: Dane::Absent,
    }
}

fn nowhere(preference: u16, address: Ipv4Addr) -> Exchanger {
    Exchanger { preference, name: "nowhere.sim".into(), addresses: vec![address.into()], dane: Dane::Absent }
}

impl<R: Runtime> Ask for Names<R> {
    async fn exchangers(&self, name: &str, _: Option<u16>) -> MxAnswer {
        if let Err(why) = self.answers(20).await {
            return MxAnswer::Temporary(why.into());
        }
        let Some(number) = (0..=DOMAINS).find(|number| domain(*number) == name) else { return MxAnswer::NoSuchDomain };
        // Domains 0 and 1 share a site, the others have a first and a second choice.
        let first = if number < 2 { 0 } else { number % RECEIVERS };
        if self.one_in(self.mood.get().odd_one_in) {
            return self.odd(name, first).await;
        }
        let hosts = vec![host(20, (first + 1) % RECEIVERS), host(10, first)];
        MxAnswer::Hosts { hosts, ttl: Duration::from_secs(60), missing: None }
    }

    async fn addresses(&self, name: &str, _: Option<u16>) -> MxAnswer {
        if let Err(why) = self.answers(20).await {
            return MxAnswer::Temporary(why.into());
        }
        let Some(found) = (0..RECEIVERS).map(|number| host(0, number)).find(|host| host.name == name) else {
            return MxAnswer::NoSuchDomain;
        };
        MxAnswer::Hosts { hosts: vec![found], ttl: Duration::from_secs(60), missing: None }
    }

    async fn client_name(&self, _address: std::net::IpAddr) -> NameAnswer {
        NameAnswer::None
    }

    async fn look_up(&self, table: &str, _service: ServiceKind, keys: Vec<String>) -> Said {
        if self.answers(50).await.is_err() {
            return Said::Failed("the database is busy".into());
        }
        match keys.first() {
            Some(key) if table == MEMBERS && key.ends_with(LISTS) => {
                Said::Found { text: members(key).join(", "), age: Duration::ZERO }
            }
            _ => Said::NotFound { age: Duration::ZERO },
        }
    }

    // Those to whose programs mail is delivered.
    async fn user(&self, name: &str) -> Said {
        match name.strip_prefix('u').and_then(|number| number.parse::<u32>().ok()) {
            Some(number) => {
                let text = format!("{name}:{}:100:/home/{name}", 1000 + number);
                Said::Found { text, age: Duration::ZERO }
            }
            None => Said::NotFound { age: Duration::ZERO },
        }
    }

    async fn list(&self, _path: &Path) -> Told {
        Told::NotFound
    }
}
