//! Evaluation of the `match` lines (grammar §6.1): the first that holds decides, and without one the recipient is refused.
//!
//! On the hot path of RCPT: with tables in memory nothing is allocated for addresses of legal length, and each table costs a
//! few hash probes. A condition is true, false or unknown; a table that fails never makes a line match, and never lets the
//! next line decide.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use ringpost_address::{Folded, FoldedAddress, canonical_ip, parse_literal};

use crate::facts::{Decision, Facts, Lookup, ReverseName};
use crate::model::{Config, Match, Names, Outcome, TableId};
use crate::tables::{AddressSet, Answer, DomainSet, Patterns, ServiceKind, SourceSet, WordSet};

/// Whether a condition is turned round by `!`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negation {
    /// As it stands.
    Plain,
    /// `!`.
    Negated,
}

impl Negation {
    /// Turns true and false round; what is unknown stays so.
    pub fn apply(self, truth: Truth) -> Truth {
        match (self, truth) {
            (Self::Negated, Truth::True) => Truth::False,
            (Self::Negated, Truth::False) => Truth::True,
            (_, truth) => truth,
        }
    }
}

/// What is known of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// A lookup failed.
    Unknown,
    /// A lookup is still to be made.
    Pending,
}

impl Truth {
    fn of(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }

    fn of_answer<T>(answer: &Answer<T>) -> Self {
        match answer {
            Answer::Found(_) => Self::True,
            Answer::NotFound => Self::False,
            Answer::Failed => Self::Unknown,
            Answer::Pending => Self::Pending,
        }
    }

    /// Of a whole line: one false is enough against it, whatever else is unknown.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::False, _) | (_, Self::False) => Self::False,
            (Self::Pending, _) | (_, Self::Pending) => Self::Pending,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::True, Self::True) => Self::True,
        }
    }

    /// Either is enough.
    fn or(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::True => Self::True,
            first => match (first, other()) {
                (_, Self::True) => Self::True,
                (Self::Pending, _) | (_, Self::Pending) => Self::Pending,
                (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
                _ => Self::False,
            },
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
    /// `rdns`: a name, or any name at all.
    ReverseName(Option<Among<DomainSet>>),
    /// `auth`: a user, or any user.
    Authenticated(Option<Among<WordSet>>),
    /// `mail-from`: whoever says so, from anywhere.
    Sender(Among<AddressSet>),
    /// `cert`: a subject, or any valid certificate.
    Certificate(Option<Among<WordSet>>),
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
    /// `tls`.
    Tls,
    /// `auth`: a user, or any user.
    Authenticated(Option<Among<WordSet>>),
    /// `cert`: a subject, or any valid certificate.
    Certificate(Option<Among<WordSet>>),
}

/// Where a condition looks.
#[derive(Debug, PartialEq)]
pub enum Among<T> {
    /// Entries of the service, in memory.
    Table(Arc<T>),
    /// `regex`.
    Regex(Arc<Patterns>),
    /// A table that must be asked.
    Remote {
        /// Which.
        table: TableId,
        /// For what.
        service: ServiceKind,
    },
}

impl<T> Among<T> {
    fn is_remote(&self) -> bool {
        matches!(self, Self::Remote { .. })
    }
}

impl<T> Clone for Among<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Table(set) => Self::Table(set.clone()),
            Self::Regex(patterns) => Self::Regex(patterns.clone()),
            Self::Remote { table, service } => Self::Remote { table: *table, service: *service },
        }
    }
}

/// Who answers for remote tables: a shard's cache in production. The value does not matter to a condition.
pub trait LookUp {
    /// What the table says to this question.
    fn look(&mut self, table: TableId, service: ServiceKind, key: &str) -> Answer<()>;
}

impl<T, F: FnMut(TableId, ServiceKind, &str) -> Answer<T>> LookUp for F {
    fn look(&mut self, table: TableId, service: ServiceKind, key: &str) -> Answer<()> {
        self(table, service, key).map(|_| ())
    }
}

impl Config {
    /// What to do with a recipient, for configurations without remote tables; cheap enough for every RCPT. A remote table
    /// counts as failed here.
    pub fn decide(&self, facts: &Facts<'_>) -> Decision<'_> {
        self.decide_with(facts, &mut |_: TableId, _: ServiceKind, _: &str| Answer::<()>::Failed)
    }

    /// What to do with a recipient. `look` answers for remote tables; where it says [`Answer::Pending`], the decision may be
    /// [`Decision::Needs`]: look those up, and ask again with the same facts.
    pub fn decide_with(&self, facts: &Facts<'_>, look: &mut impl LookUp) -> Decision<'_> {
        let case = Case::new(self, facts);
        for line in &self.matches {
            let mut needs = Vec::new();
            match case.weigh(line, look, &mut needs) {
                Truth::False => {}
                Truth::Unknown => return Decision::Unknown,
                Truth::Pending => return Decision::Needs(needs),
                Truth::True => {
                    return match &line.outcome {
                        Outcome::Action(action) => Decision::Action(*action),
                        Outcome::Reject(reply) => {
                            Decision::Reject { code: reply.code, status: &reply.status, text: &reply.text }
                        }
                    };
                }
            }
        }
        Decision::NoMatch { domain_is_known: self.matches.iter().any(|line| case.names_domain(line, look)) }
    }
}

impl Config {
    /// Whether a line that takes mail names the client by something that it cannot make up: its address, its name in the DNS, a
    /// user or a certificate. What would have to be asked counts as named; what the client says of itself does not.
    pub fn names_client(&self, facts: &Facts<'_>) -> bool {
        let case = Case::new(self, facts);
        let mut nobody = |_: TableId, _: ServiceKind, _: &str| Answer::<()>::Pending;
        let mut needs = Vec::new();
        let mut asking = Asking { look: &mut nobody, needs: &mut needs };
        self.matches.iter().any(|line| {
            let (negation, from) = &line.from;
            let says = *negation == Negation::Plain && !matches!(from, Origin::Any | Origin::Sender(_));
            says && matches!(line.outcome, Outcome::Action(_)) && case.comes_from(from, &mut asking) != Truth::False
        })
    }
}

/// What is known of each part of a line, for `ringpost explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighed {
    /// Of the whole line.
    pub line: Truth,
    /// Of its `from`.
    pub from: Truth,
    /// Of its `for`.
    pub dest: Truth,
    /// Of its further conditions, in order.
    pub conditions: Vec<Truth>,
    /// What must be looked up to know more.
    pub needs: Vec<Lookup>,
}

impl Config {
    /// Looks at every condition of a line, also where one of them is enough to decide.
    pub fn weigh(&self, line: &Match, facts: &Facts<'_>, look: &mut impl LookUp) -> Weighed {
        let case = Case::new(self, facts);
        let mut needs = Vec::new();
        let mut asking = Asking { look, needs: &mut needs };
        let from = line.from.0.apply(case.comes_from(&line.from.1, &mut asking));
        let dest = line.dest.0.apply(case.goes_to(&line.dest.1, &mut asking));
        let each = line.conditions.iter();
        let conditions: Vec<Truth> = each.map(|c| c.negation.apply(case.holds(&c.test, &mut asking))).collect();
        let whole = conditions.iter().fold(from.and(dest), |so_far, truth| so_far.and(*truth));
        Weighed { line: whole, from, dest, conditions, needs }
    }
}

/// Which conditions are looked at: those that cost nothing first, so that a line that they rule out asks nobody.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Near,
    Remote,
}

/// One decision: the facts, and what is derived from them once, when first asked for.
struct Case<'c, 'f> {
    names: &'c Names,
    delimiter: char,
    facts: &'f Facts<'f>,
    recipient: FoldedAddress,
    sender: OnceCell<FoldedAddress>,
}

/// Asks, and remembers what is not known yet.
struct Asking<'l, L> {
    look: &'l mut L,
    needs: &'l mut Vec<Lookup>,
}

impl<L: LookUp> Asking<'_, L> {
    fn table(&mut self, table: TableId, service: ServiceKind, key: &str) -> Truth {
        let truth = Truth::of_answer(&self.look.look(table, service, key));
        if truth == Truth::Pending {
            self.needs.push(Lookup::Table { table, service, key: key.to_owned() });
        }
        truth
    }
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

    /// Whether all conditions of a line hold.
    fn weigh(&self, line: &Match, look: &mut impl LookUp, needs: &mut Vec<Lookup>) -> Truth {
        let mut asking = Asking { look, needs };
        let near = self.weigh_some(line, Pass::Near, &mut asking);
        if near == Truth::False { Truth::False } else { near.and(self.weigh_some(line, Pass::Remote, &mut asking)) }
    }

    fn weigh_some<L: LookUp>(&self, line: &Match, pass: Pass, asking: &mut Asking<'_, L>) -> Truth {
        let mut truth = Truth::True;
        if pass_of(origin_is_remote(&line.from.1)) == pass {
            truth = line.from.0.apply(self.comes_from(&line.from.1, asking));
        }
        if truth != Truth::False && pass_of(dest_is_remote(&line.dest.1)) == pass {
            truth = truth.and(line.dest.0.apply(self.goes_to(&line.dest.1, asking)));
        }
        for condition in line.conditions.iter().filter(|c| pass_of(test_is_remote(&c.test)) == pass) {
            if truth == Truth::False {
                break;
            }
            truth = truth.and(condition.negation.apply(self.holds(&condition.test, asking)));
        }
        truth
    }

    fn comes_from<L: LookUp>(&self, from: &Origin, asking: &mut Asking<'_, L>) -> Truth {
        match from {
            Origin::Any => Truth::True,
            Origin::Local => Truth::of(self.is_local_source()),
            Origin::Socket => Truth::of(self.facts.source.is_none()),
            Origin::Source(among) => self.is_source(among, asking),
            Origin::ReverseName(among) => self.has_reverse_name(among.as_ref(), asking),
            Origin::Authenticated(among) => word(self.facts.authenticated, among.as_ref(), asking),
            Origin::Sender(among) => self.is_sender(among, asking),
            Origin::Certificate(among) => self.has_certificate(among.as_ref(), asking),
        }
    }

    /// Whether one of the names in the certificate is among these.
    fn has_certificate<L: LookUp>(&self, among: Option<&Among<WordSet>>, asking: &mut Asking<'_, L>) -> Truth {
        let Some(names) = self.facts.certificate else { return Truth::False };
        if among.is_none() {
            return Truth::True;
        }
        names.iter().fold(Truth::False, |truth, name| truth.or(|| word(Some(name), among, asking)))
    }

    fn is_source<L: LookUp>(&self, among: &Among<SourceSet>, asking: &mut Asking<'_, L>) -> Truth {
        match (among, self.facts.source) {
            (Among::Table(set), Some(ip)) => Truth::of(set.contains(ip, || self.is_local_source())),
            (Among::Table(set), None) => Truth::of(set.names_local()),
            (Among::Regex(patterns), source) => {
                Truth::of(source.is_some_and(|ip| patterns.find(&canonical_ip(ip).to_string())))
            }
            (Among::Remote { table, service }, source) => {
                let by_address =
                    source.map_or(Truth::False, |ip| asking.table(*table, *service, &canonical_ip(ip).to_string()));
                by_address.or(|| match self.is_local_source() {
                    true => asking.table(*table, *service, "local"),
                    false => Truth::False,
                })
            }
        }
    }

    fn is_local_source(&self) -> bool {
        self.facts.local || self.facts.source.is_none_or(|ip| self.is_own(ip))
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        let ip = canonical_ip(ip);
        ip.is_loopback() || self.names.addresses.contains(&ip)
    }

    fn has_reverse_name<L: LookUp>(&self, among: Option<&Among<DomainSet>>, asking: &mut Asking<'_, L>) -> Truth {
        match self.facts.reverse_name {
            _ if self.facts.source.is_none() => Truth::False,
            ReverseName::NotAsked => {
                asking.needs.push(Lookup::ReverseName);
                Truth::Pending
            }
            ReverseName::Failed => Truth::Unknown,
            ReverseName::None => Truth::False,
            ReverseName::Known(name) => among.map_or(Truth::True, |among| domain(name, among, asking)),
        }
    }

    fn goes_to<L: LookUp>(&self, dest: &Dest, asking: &mut Asking<'_, L>) -> Truth {
        match dest {
            Dest::Any => Truth::True,
            Dest::Local => Truth::of(self.is_local_domain(self.recipient.domain())),
            // A recipient without a domain can only be `postmaster`, which is in no list of domains.
            Dest::Domain(Among::Remote { .. }) if self.recipient.domain().is_empty() => Truth::False,
            Dest::Domain(Among::Table(set)) => Truth::of(set.contains(self.recipient.domain())),
            Dest::Domain(Among::Regex(patterns)) => Truth::of(patterns.find(self.recipient.domain())),
            Dest::Domain(Among::Remote { table, service }) => asking.table(*table, *service, self.recipient.domain()),
            Dest::Recipient(among) => self.is_recipient(among, asking),
        }
    }

    /// A recipient without a domain can only be `postmaster` (RFC 5321 §4.5.1), which is ours.
    fn is_local_domain(&self, domain: &str) -> bool {
        domain.is_empty()
            || domain == "localhost"
            || domain == self.names.server
            || (domain.starts_with('[') && parse_literal(domain).is_some_and(|ip| self.is_own(ip)))
    }

    fn holds<L: LookUp>(&self, test: &Test, asking: &mut Asking<'_, L>) -> Truth {
        match test {
            Test::Helo(among) => domain(self.facts.helo, among, asking),
            Test::Sender(among) => self.is_sender(among, asking),
            Test::Recipient(among) => self.is_recipient(among, asking),
            Test::Tag(among) => word(Some(self.facts.tag), Some(among), asking),
            Test::Tls => Truth::of(self.facts.tls),
            Test::Authenticated(among) => word(self.facts.authenticated, among.as_ref(), asking),
            Test::Certificate(among) => self.has_certificate(among.as_ref(), asking),
        }
    }

    fn is_sender<L: LookUp>(&self, among: &Among<AddressSet>, asking: &mut Asking<'_, L>) -> Truth {
        match among {
            Among::Table(set) => {
                let sender = self.sender.get_or_init(|| FoldedAddress::new(self.facts.sender));
                Truth::of(set.contains(sender, self.delimiter))
            }
            Among::Regex(patterns) => Truth::of(patterns.find(self.facts.sender)),
            Among::Remote { table, service } => asking.table(*table, *service, self.facts.sender),
        }
    }

    fn is_recipient<L: LookUp>(&self, among: &Among<AddressSet>, asking: &mut Asking<'_, L>) -> Truth {
        match among {
            Among::Table(set) => Truth::of(set.contains(&self.recipient, self.delimiter)),
            Among::Regex(patterns) => Truth::of(patterns.find(self.recipient.as_str())),
            Among::Remote { table, service } => asking.table(*table, *service, self.facts.recipient),
        }
    }

    /// Whether the line's `for` says something about this very domain: then it is the user that is unknown, not the domain.
    /// Asked when all is decided, so a table that has no answer at hand is not waited for.
    fn names_domain(&self, line: &Match, look: &mut impl LookUp) -> bool {
        let (negation, dest) = &line.dest;
        *negation == Negation::Plain
            && matches!(dest, Dest::Local | Dest::Domain(_))
            && self.goes_to(dest, &mut Asking { look, needs: &mut Vec::new() }) == Truth::True
    }
}

fn domain<L: LookUp>(name: &str, among: &Among<DomainSet>, asking: &mut Asking<'_, L>) -> Truth {
    match among {
        Among::Table(set) => Truth::of(set.contains(Folded::new(name).as_str())),
        Among::Regex(patterns) => Truth::of(patterns.find(name)),
        Among::Remote { .. } if name.is_empty() => Truth::False,
        Among::Remote { table, service } => asking.table(*table, *service, name),
    }
}

/// Whether there is such a thing, and, where words are given, whether it is among them.
fn word<L: LookUp>(have: Option<&str>, among: Option<&Among<WordSet>>, asking: &mut Asking<'_, L>) -> Truth {
    let Some(have) = have else { return Truth::False };
    match among {
        None => Truth::True,
        Some(Among::Table(set)) => Truth::of(set.contains(have)),
        Some(Among::Regex(patterns)) => Truth::of(patterns.find(have)),
        Some(Among::Remote { .. }) if have.is_empty() => Truth::False,
        Some(Among::Remote { table, service }) => asking.table(*table, *service, have),
    }
}

fn pass_of(is_remote: bool) -> Pass {
    if is_remote { Pass::Remote } else { Pass::Near }
}

fn origin_is_remote(from: &Origin) -> bool {
    match from {
        Origin::Any | Origin::Local | Origin::Socket => false,
        Origin::Source(among) => among.is_remote(),
        // The name itself is looked up.
        Origin::ReverseName(_) => true,
        Origin::Authenticated(among) | Origin::Certificate(among) => among.as_ref().is_some_and(Among::is_remote),
        Origin::Sender(among) => among.is_remote(),
    }
}

fn dest_is_remote(dest: &Dest) -> bool {
    match dest {
        Dest::Any | Dest::Local => false,
        Dest::Domain(among) => among.is_remote(),
        Dest::Recipient(among) => among.is_remote(),
    }
}

fn test_is_remote(test: &Test) -> bool {
    match test {
        Test::Tls => false,
        Test::Helo(among) => among.is_remote(),
        Test::Sender(among) | Test::Recipient(among) => among.is_remote(),
        Test::Tag(among) => among.is_remote(),
        Test::Authenticated(among) | Test::Certificate(among) => among.as_ref().is_some_and(Among::is_remote),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kleene() {
        use Truth::{False, Pending, True, Unknown};
        assert_eq!((Unknown.and(False), Unknown.and(True), Pending.and(Unknown)), (False, Unknown, Pending));
        assert_eq!((Unknown.or(|| True), Unknown.or(|| False), False.or(|| False)), (True, Unknown, False));
        let not = |truth| Negation::Negated.apply(truth);
        assert_eq!([True, False, Unknown, Pending].map(not), [False, True, Unknown, Pending]);
    }

    /// Two lines: from a remote list of networks for any, action 0; from any for a remote list of domains, action 1.
    fn config() -> Config {
        let mut config = Config::quickstart(std::path::Path::new("/s"), &crate::Quickstart::default());
        let line = crate::Line::built_in();
        let (mut first, mut second) = (Match::everything(0, line.clone()), Match::everything(1, line));
        first.from.1 = Origin::Source(Among::Remote { table: TableId(0), service: ServiceKind::NetAddr });
        first.conditions.push(Condition {
            negation: Negation::Negated,
            test: Test::Tag(Among::Table(Arc::new(WordSet::default()))),
        });
        second.dest.1 = Dest::Domain(Among::Remote { table: TableId(1), service: ServiceKind::Domain });
        config.matches = vec![first, second];
        config
    }

    fn facts() -> Facts<'static> {
        Facts { source: Some([192, 0, 2, 1].into()), recipient: "a@X.example", ..Facts::default() }
    }

    #[test]
    fn remote_tables_are_asked_and_waited_for() {
        let config = config();
        let needs = config.decide_with(&facts(), &mut |_: TableId, _: ServiceKind, _: &str| Answer::<()>::Pending);
        let (table, service) = (TableId(0), ServiceKind::NetAddr);
        assert_eq!(needs, Decision::Needs(vec![Lookup::Table { table, service, key: "192.0.2.1".into() }]));
        let decision = config.decide_with(&facts(), &mut |table: TableId, _: ServiceKind, key: &str| match table.0 {
            0 => Answer::NotFound,
            _ => {
                if key == "x.example" {
                    Answer::Found(())
                } else {
                    Answer::Failed
                }
            }
        });
        assert_eq!(decision, Decision::Action(1));
        let nothing = |_: TableId, _: ServiceKind, _: &str| Answer::<()>::NotFound;
        assert_eq!(config.decide_with(&facts(), &mut { nothing }), Decision::NoMatch { domain_is_known: false });
        // `local` is an entry like any other, for those who are.
        let own = Facts { local: true, ..facts() };
        let local =
            |_: TableId, _: ServiceKind, key: &str| if key == "local" { Answer::Found(()) } else { Answer::NotFound };
        assert_eq!(config.decide_with(&own, &mut { local }), Decision::Action(0));
    }

    #[test]
    fn a_failing_table_neither_matches_nor_lets_the_next_line_decide() {
        let mut config = config();
        let fails = |table: TableId, _: ServiceKind, _: &str| match table.0 {
            0 => Answer::Failed,
            _ => Answer::Found(()),
        };
        assert_eq!(config.decide_with(&facts(), &mut { fails }), Decision::Unknown);
        assert_eq!(config.decide(&facts()), Decision::Unknown);
        // A line that another condition rules out is skipped, and its table not asked.
        config.matches[0].conditions[0].negation = Negation::Plain;
        let mut asked = Vec::new();
        let mut look = |table: TableId, service: ServiceKind, key: &str| {
            asked.push(table);
            fails(table, service, key)
        };
        assert_eq!(config.decide_with(&facts(), &mut look), Decision::Action(1));
        assert_eq!(asked, [TableId(1)]);
        let weighed = config.weigh(&config.matches[0], &facts(), &mut { fails });
        assert_eq!(
            (weighed.line, weighed.from, weighed.conditions),
            (Truth::False, Truth::Unknown, vec![Truth::False])
        );
    }

    #[test]
    fn a_reverse_name_is_looked_up_when_a_line_asks_for_it() {
        let mut config = config();
        config.matches.remove(0);
        config.matches[0].dest.1 = Dest::Any;
        config.matches[0].from = (Negation::Plain, Origin::ReverseName(None));
        assert_eq!(config.decide(&facts()), Decision::Needs(vec![Lookup::ReverseName]));
        let with = |reverse_name| config.decide(&Facts { reverse_name, ..facts() });
        assert_eq!(with(ReverseName::Known("h.example")), Decision::Action(1));
        assert_eq!(with(ReverseName::None), Decision::NoMatch { domain_is_known: false });
        assert_eq!(with(ReverseName::Failed), Decision::Unknown);
    }
}
