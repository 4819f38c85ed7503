//! What a shard asks the coordinator, as a trait: the engine answers from DNS, tables and the system, the simulation from a
//! table. The shard keeps answers for their TTL, so a busy route asks once a minute, not once a message.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringpost_conf::expand::Told;
use ringpost_conf::tables::ServiceKind;
use ringpost_routes::{Allowed, Asking};
use ringpost_smtp::client::{Challenge, Signed};
use ringpost_smtp::limits::SCRAM_NONCE_BYTES;
use ringpost_tls::{Channel, Failure, Flight, Rejected};

use crate::limits;
use crate::login::{Login, Verdict};
use crate::vouch::Care;

/// A mail exchanger and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanger {
    /// MX preference, lower first (RFC 5321 §5.1).
    pub preference: u16,
    /// Host name, lower case, without a final dot.
    pub name: String,
    /// Addresses, IPv6 and IPv4 as the resolver gave them.
    pub addresses: Vec<IpAddr>,
    /// What DNSSEC says of its certificate, if that was asked for.
    pub dane: Dane,
}

/// What DNSSEC says of a host's certificate (RFC 7672 §2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dane {
    /// It does not vouch for this, so that whatever else there is does not count.
    Insecure(&'static str),
    /// It vouches for the host's names and that it has no TLSA records.
    Absent,
    /// RDATA of its TLSA records (RFC 6698 §2.1), at least one.
    Records(Arc<[Box<[u8]>]>),
    /// What it says cannot be known now, or is forged.
    Failed(String),
}

/// What a domain demands of whoever sends it mail (MTA-STS, RFC 8461 §3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether to obey it.
    pub mode: Mode,
    /// Its exchangers; `*.` in front stands for one label.
    pub patterns: Vec<String>,
}

/// Whether a policy is to be obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Enforce,
    /// Not yet: what would have come of it is told to the domain (RFC 8460).
    Testing,
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
        /// Why another one's addresses could not be had now, if there is such a one.
        missing: Option<String>,
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
    /// Mail exchangers of a domain, with the fall-back to its own addresses; with what DNSSEC says of them for `tlsa_port`.
    async fn exchangers(&self, domain: &str, tlsa_port: Option<u16>) -> MxAnswer;
    /// Addresses of a host, no MX involved; with what DNSSEC says of it for `tlsa_port`.
    async fn addresses(&self, host: &str, tlsa_port: Option<u16>) -> MxAnswer;
    /// Whether names are everybody's, as those of the DNS are, so that whoever owns a domain may name any host at all.
    fn names_are_strangers(&self) -> bool {
        false
    }
    /// What a domain demands of whoever sends it mail, as far as that is known.
    async fn policy(&self, domain: &str) -> Option<Policy> {
        let _ = domain;
        None
    }
    /// What the client at an address is called.
    async fn client_name(&self, address: IpAddr) -> NameAnswer;
    /// What a table says to the first of these keys that is there, in their order.
    async fn look_up(&self, table: &str, service: ServiceKind, keys: Vec<String>) -> Said;
    /// The system's record of a user: `name:uid:gid:home`.
    async fn user(&self, name: &str) -> Said;
    /// A list in a file of its own, read as the server's own user.
    async fn list(&self, path: &Path) -> Told;
    /// Returns when all is known of the certificate for a name that can be known of it now: it then lies on its shelf.
    async fn find_certificate(&self, shelf: &str, name: &str) {
        let _ = (shelf, name);
    }
    /// Messages that a source address which warms up may send to a site, of those that all shards may.
    async fn allow(&self, asking: Asking) -> Allowed {
        drop(asking);
        Allowed::Unknown("nobody keeps an account of it here".to_owned())
    }
    /// What was allowed and is not used; returns when somebody else may have it.
    async fn give_back(&self, unused: Vec<Asking>) {
        drop(unused);
    }
    /// Whether a handshake that begins now will have its signature in time.
    fn can_sign(&self) -> bool {
        false
    }
    /// Takes the step of a handshake that needs the private key, where waiting for it keeps nobody.
    async fn sign(&self, flight: Flight) -> Result<Channel, Rejected> {
        drop(flight);
        Err(Rejected::silently(Failure::key("there are no private keys here")))
    }
    /// Bytes that nobody can foresee, for a login at another server; `None`: nobody can [prove](Ask::prove) anything.
    fn nonce(&self) -> Option<[u8; SCRAM_NONCE_BYTES]> {
        None
    }
    /// Computes what another server wants as a proof of a password, where it keeps nobody that this takes as long as the server
    /// likes.
    async fn prove(&self, challenge: Challenge) -> Result<Signed, String> {
        drop(challenge);
        Err("nobody proves passwords here".to_owned())
    }
    /// Judges a login, where it keeps nobody that a password is slow to check on purpose.
    async fn judge(&self, login: Login) -> Verdict {
        drop(login);
        Verdict::Failed
    }
}

/// A question: MX of a domain, those of a name that an administrator has given, or addresses of a host; with the port that
/// the answer will be used with, and who must vouch for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Question {
    Exchangers(String, u16, Care),
    RelayExchangers(String, u16, Care),
    Addresses(String, u16, Care),
    /// Mail exchangers of a domain that are better than this one of them: what a backup relays to.
    Better {
        domain: String,
        port: u16,
        care: Care,
        than: String,
    },
    /// A local socket, which needs no answer.
    Socket(PathBuf),
}

impl Question {
    /// The name that is asked for, the port, and who must vouch for the answer.
    pub(crate) fn parts(&self) -> (Cow<'_, str>, u16, Care) {
        match self {
            Self::Exchangers(name, port, care)
            | Self::RelayExchangers(name, port, care)
            | Self::Addresses(name, port, care)
            | Self::Better { domain: name, port, care, .. } => (name.into(), *port, *care),
            Self::Socket(path) => (path.display().to_string().into(), 0, Care::Nobody),
        }
    }

    /// The same, with somebody else who must vouch for the answer.
    pub(crate) fn vouched_by(&self, by: Care) -> Self {
        let mut question = self.clone();
        match &mut question {
            Self::Exchangers(_, _, care)
            | Self::RelayExchangers(_, _, care)
            | Self::Addresses(_, _, care)
            | Self::Better { care, .. } => *care = by,
            Self::Socket(_) => {}
        }
        question
    }
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

    /// Nothing is believed any more.
    pub(crate) fn forget(&self) {
        self.kept.borrow_mut().clear();
        self.order.borrow_mut().clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s97_answers_are_believed_for_their_time_and_the_oldest_make_room() {
        let (cache, now, ttl) = (Cache::<usize, &str>::new(), Instant::now(), Duration::from_secs(30));
        cache.keep(now, 0, Rc::new("there"), ttl);
        cache.keep(now, 1, Rc::new("nobody"), ttl / 2);
        let get = |after: Duration, question| cache.get(now + after, &question).map(|answer| *answer);
        assert_eq!((get(ttl / 3, 0), get(ttl / 3, 1)), (Some("there"), Some("nobody")));
        assert_eq!((get(ttl / 2, 0), get(ttl / 2, 1)), (Some("there"), None));
        assert_eq!(get(ttl, 0), None);
        cache.keep(now + ttl, 0, Rc::new("again"), ttl);
        assert_eq!(get(ttl, 0), Some("again"));
        (2..=limits::DNS_CACHE).for_each(|question| cache.keep(now + ttl, question, Rc::new("more"), ttl));
        assert_eq!((get(ttl, 0), get(ttl, limits::DNS_CACHE)), (None, Some("more")), "it was the oldest question");
        assert_eq!(cache.kept.borrow().len(), limits::DNS_CACHE);
        cache.forget();
        assert_eq!(get(ttl, 2), None);
    }
}
