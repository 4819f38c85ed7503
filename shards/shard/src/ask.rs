//! What a shard asks the coordinator, as a trait: the engine answers from DNS, tables and the system, the simulation from a
//! table. The shard keeps answers for their TTL, so a busy route asks once a minute, not once a message.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringpost_conf::expand::Told;
use ringpost_conf::tables::ServiceKind;
use ringpost_tls::{Channel, Failure, Flight, Rejected};

use crate::limits;

/// A mail exchanger and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanger {
    /// MX preference, lower first (RFC 5321 §5.1).
    pub preference: u16,
    /// Host name, lower case, without a final dot.
    pub name: String,
    /// Addresses, IPv6 and IPv4 as the resolver gave them.
    pub addresses: Vec<IpAddr>,
}

/// The answer to "who takes mail for this domain" (RFC 5321 §5.1, RFC 7505).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MxAnswer {
    /// Hosts in any order, and for how long to believe it.
    Hosts {
        /// At least one.
        hosts: Vec<Exchanger>,
        /// How long.
        ttl: Duration,
    },
    /// The domain says that it takes no mail.
    NullMx,
    /// The domain does not exist or has no address.
    NoSuchDomain,
    /// Ask again later.
    Temporary(String),
}

/// The answer to "what is this client called".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameAnswer {
    /// The name that the DNS has for his address, and that has this address, too.
    Known {
        /// Lower case, without a final dot.
        name: String,
        /// How long to believe it.
        ttl: Duration,
    },
    /// He has no name, or uses one that is not his.
    None,
    /// Ask again later.
    Temporary(String),
}

/// What a table says to a question, and how long ago: the coordinator keeps answers, too, and ages must not add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It has this.
    Found {
        /// The text of the row.
        text: String,
        /// How old the oldest part of the answer is.
        age: Duration,
    },
    /// It has nothing.
    NotFound {
        /// How old the oldest part of the answer is.
        age: Duration,
    },
    /// It could not be asked: an older answer is better than none.
    Failed(String),
    /// What it has of this key is wrong: an older answer would hide that.
    Wrong(String),
}

/// The coordinator as a shard sees it.
#[allow(async_fn_in_trait)]
pub trait Ask: 'static {
    /// Mail exchangers of a domain, with the fall-back to its own addresses.
    async fn exchangers(&self, domain: &str) -> MxAnswer;
    /// Addresses of a host, no MX involved.
    async fn addresses(&self, host: &str) -> MxAnswer;
    /// What the client at an address is called.
    async fn client_name(&self, address: IpAddr) -> NameAnswer;
    /// What a table says to the first of these keys that is there, in their order.
    async fn look_up(&self, table: &str, service: ServiceKind, keys: Vec<String>) -> Said;
    /// The system's record of a user: `name:uid:gid:home`.
    async fn user(&self, name: &str) -> Said;
    /// A list in a file of its own, read as the server's own user.
    async fn list(&self, path: &Path) -> Told;
    /// Whether a handshake that begins now will have its signature in time.
    fn can_sign(&self) -> bool {
        false
    }
    /// Takes the step of a handshake that needs the private key, where waiting for it keeps nobody.
    async fn sign(&self, flight: Flight) -> Result<Channel, Rejected> {
        drop(flight);
        Err(Rejected::silently(Failure::key("there are no private keys here")))
    }
}

/// A question: MX of a domain, those of a name that an administrator has given, or addresses of a host; with the port that
/// the answer will be used with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Question {
    Exchangers(String, u16),
    RelayExchangers(String, u16),
    Addresses(String, u16),
}

struct Kept<T> {
    answer: Rc<T>,
    until: Instant,
}

/// A shard's answers, by question, in the form in which it uses them.
pub(crate) struct Cache<Q, T> {
    kept: RefCell<HashMap<Q, Kept<T>>>,
    order: RefCell<VecDeque<Q>>,
}

impl<Q: Clone + Eq + Hash, T> Cache<Q, T> {
    pub(crate) fn new() -> Self {
        Self { kept: RefCell::default(), order: RefCell::default() }
    }

    pub(crate) fn get(&self, now: Instant, question: &Q) -> Option<Rc<T>> {
        let kept = self.kept.borrow();
        kept.get(question).filter(|kept| kept.until > now).map(|kept| kept.answer.clone())
    }

    pub(crate) fn keep(&self, now: Instant, question: Q, answer: Rc<T>, ttl: Duration) {
        let mut order = self.order.borrow_mut();
        let mut kept = self.kept.borrow_mut();
        if kept.insert(question.clone(), Kept { answer, until: now + ttl }).is_none() {
            order.push_back(question);
            if order.len() > limits::DNS_CACHE
                && let Some(oldest) = order.pop_front()
            {
                kept.remove(&oldest);
            }
        }
    }
}
