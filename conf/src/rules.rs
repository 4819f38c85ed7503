//! Evaluation of the `match` lines (grammar §6.1): the first that holds decides, and without one the recipient is refused.
//!
//! On the hot path of RCPT: nothing is allocated for addresses of legal length, and each table costs a few hash probes.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use ringpost_address::{Folded, FoldedAddress, canonical_ip, parse_literal};

use crate::facts::{Decision, Facts};
use crate::model::{Config, Match, Names, Outcome};
use crate::tables::{AddressSet, DomainSet, Patterns, SourceSet, WordSet};

/// Whether a condition is turned round by `!`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negation {
    /// As it stands.
    Plain,
    /// `!`.
    Negated,
}

impl Negation {
    fn apply(self, holds: bool) -> bool {
        match self {
            Self::Plain => holds,
            Self::Negated => !holds,
        }
    }
}

/// `from …`.
#[derive(Clone, Debug)]
pub enum Origin {
    /// `any`.
    Any,
    /// `local`: loopback, this host's own addresses, the local socket.
    Local,
    /// `socket`.
    Socket,
    /// `src`.
    Source(Among<SourceSet>),
    /// `mail-from`: whoever says so, from anywhere.
    Sender(Among<AddressSet>),
}

/// `for …`.
#[derive(Clone, Debug)]
pub enum Dest {
    /// `any`.
    Any,
    /// `local`: `localhost`, the server name, address literals of this host.
    Local,
    /// `domain`.
    Domain(Among<DomainSet>),
    /// `rcpt-to`.
    Recipient(Among<AddressSet>),
}

/// A further condition.
#[derive(Clone, Debug)]
pub struct Condition {
    /// `!` or not.
    pub negation: Negation,
    /// What is tested.
    pub test: Test,
}

/// What a further condition tests.
#[derive(Clone, Debug)]
pub enum Test {
    /// `helo`.
    Helo(Among<DomainSet>),
    /// `mail-from`.
    Sender(Among<AddressSet>),
    /// `rcpt-to`.
    Recipient(Among<AddressSet>),
    /// `tag`.
    Tag(Among<WordSet>),
}

/// A table, or regular expressions.
#[derive(Clone, Debug)]
pub enum Among<T> {
    /// Entries of the service.
    Table(Arc<T>),
    /// `regex`.
    Regex(Arc<Patterns>),
}

impl Config {
    /// What to do with a recipient. Cheap enough for every RCPT.
    pub fn decide(&self, facts: &Facts<'_>) -> Decision<'_> {
        let case = Case::new(self, facts);
        match self.matches.iter().find(|line| case.matches(line)).map(|line| &line.outcome) {
            Some(Outcome::Action(action)) => Decision::Action(*action),
            Some(Outcome::Reject(reply)) => {
                Decision::Reject { code: reply.code, status: &reply.status, text: &reply.text }
            }
            None => Decision::NoMatch { domain_is_known: self.matches.iter().any(|line| case.names_domain(line)) },
        }
    }
}

/// One decision: the facts, and what is derived from them once, when first asked for.
struct Case<'c, 'f> {
    names: &'c Names,
    delimiter: char,
    facts: &'f Facts<'f>,
    recipient: FoldedAddress,
    sender: OnceCell<FoldedAddress>,
}

impl<'c, 'f> Case<'c, 'f> {
    fn new(config: &'c Config, facts: &'f Facts<'f>) -> Self {
        Self {
            names: &config.names,
            delimiter: config.smtp.sub_address_delimiter,
            facts,
            recipient: FoldedAddress::new(facts.recipient),
            sender: OnceCell::new(),
        }
    }

    /// All conditions hold.
    fn matches(&self, line: &Match) -> bool {
        line.from.0.apply(self.comes_from(&line.from.1))
            && line.dest.0.apply(self.goes_to(&line.dest.1))
            && line.conditions.iter().all(|c| c.negation.apply(self.holds(&c.test)))
    }

    fn comes_from(&self, from: &Origin) -> bool {
        match from {
            Origin::Any => true,
            Origin::Local => self.is_local_source(),
            Origin::Socket => self.facts.source.is_none(),
            Origin::Source(Among::Table(set)) => match self.facts.source {
                Some(ip) => set.contains(ip, || self.is_local_source()),
                None => set.names_local(),
            },
            Origin::Source(Among::Regex(patterns)) => {
                self.facts.source.is_some_and(|ip| patterns.find(&canonical_ip(ip).to_string()))
            }
            Origin::Sender(among) => self.is_sender(among),
        }
    }

    fn is_local_source(&self) -> bool {
        self.facts.local || self.facts.source.is_none_or(|ip| self.is_own(ip))
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        let ip = canonical_ip(ip);
        ip.is_loopback() || self.names.addresses.contains(&ip)
    }

    fn goes_to(&self, dest: &Dest) -> bool {
        match dest {
            Dest::Any => true,
            Dest::Local => self.is_local_domain(self.recipient.domain()),
            Dest::Domain(Among::Table(set)) => set.contains(self.recipient.domain()),
            Dest::Domain(Among::Regex(patterns)) => patterns.find(self.recipient.domain()),
            Dest::Recipient(among) => self.is_recipient(among),
        }
    }

    /// A recipient without a domain can only be `postmaster` (RFC 5321 §4.5.1), which is ours.
    fn is_local_domain(&self, domain: &str) -> bool {
        domain.is_empty()
            || domain == "localhost"
            || domain == self.names.server
            || (domain.starts_with('[') && parse_literal(domain).is_some_and(|ip| self.is_own(ip)))
    }

    fn holds(&self, test: &Test) -> bool {
        match test {
            Test::Helo(Among::Table(set)) => set.contains(Folded::new(self.facts.helo).as_str()),
            Test::Helo(Among::Regex(patterns)) => patterns.find(self.facts.helo),
            Test::Sender(among) => self.is_sender(among),
            Test::Recipient(among) => self.is_recipient(among),
            Test::Tag(Among::Table(set)) => set.contains(self.facts.tag),
            Test::Tag(Among::Regex(patterns)) => patterns.find(self.facts.tag),
        }
    }

    fn is_sender(&self, among: &Among<AddressSet>) -> bool {
        match among {
            Among::Table(set) => {
                let sender = self.sender.get_or_init(|| FoldedAddress::new(self.facts.sender));
                set.contains(sender, self.delimiter)
            }
            Among::Regex(patterns) => patterns.find(self.facts.sender),
        }
    }

    fn is_recipient(&self, among: &Among<AddressSet>) -> bool {
        match among {
            Among::Table(set) => set.contains(&self.recipient, self.delimiter),
            Among::Regex(patterns) => patterns.find(self.recipient.as_str()),
        }
    }

    /// Whether the line's `for` says something about this very domain: then it is the user that is unknown, not the domain.
    fn names_domain(&self, line: &Match) -> bool {
        let (negation, dest) = &line.dest;
        *negation == Negation::Plain && matches!(dest, Dest::Local | Dest::Domain(_)) && self.goes_to(dest)
    }
}
