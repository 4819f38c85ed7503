//! Builds what a service wants of entries: sets, lists and mappings, each entry checked.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use ringpost_address::{FoldedAddress, canonical_ip, is_domain_name, parse_ip, parse_literal, split_address};

use super::super::Reading;
use super::Declared;
use super::backend::cannot_answer;
use super::problem::Problems;
use crate::load::Options;
use crate::model::{Host, Names, RelayHost};
use crate::parse::ast::{Entries, Entry, Targ, TargKind};
use crate::parse::schema::Shape;
use crate::report::{Report, did_you_mean};
use crate::source_text::{SourceTexts, Span, narrow};
use crate::tables::file::{self, Columns};
use crate::tables::{
    AddressPattern, AliasTarget, Certificate, Credentials, DkimKey, DomainSet, HostName, List, Mapped, Part, Patterns,
    Pem, RelayUrlError, ServiceKind, SourceAddresses, UserName, UserRecord, Value, is_known_scheme,
};

/// Entries, wherever they are.
pub(super) enum Body {
    Entries(Rc<Entries>),
    /// Number of a text.
    Data(u32),
    LocalNames,
    Broken,
}

impl Body {
    pub(super) fn of(targ: &Targ) -> Self {
        match &targ.what {
            TargKind::Literal(entries) => Self::Entries(entries.clone()),
            TargKind::Word(word) => {
                let entry = Entry { key: word.clone(), values: Vec::new() };
                Self::Entries(Rc::new(Entries { list: vec![entry], span: word.span }))
            }
            TargKind::Table(_) => Self::Broken,
        }
    }

    /// Each key, its place, and whether there is a value.
    pub(super) fn each_key(&self, texts: &SourceTexts, act: &mut impl FnMut(&str, Span, bool)) {
        match self {
            Self::Entries(entries) => {
                entries.list.iter().for_each(|e| act(&e.key.text, e.key.span, !e.values.is_empty()));
            }
            Self::Data(file) => {
                let text = texts.text(*file);
                file::list(text).for_each(|(range, more)| act(&text[range.clone()], data_span(*file, &range), more));
            }
            Self::LocalNames | Self::Broken => {}
        }
    }

    /// Each key with its values.
    fn each_row(&self, texts: &SourceTexts, columns: Columns, act: &mut impl FnMut((&str, Span), &[(&str, Span)])) {
        match self {
            Self::Entries(entries) => {
                for entry in &entries.list {
                    let values: Vec<_> = entry.values.iter().map(|v| (&*v.text, v.span)).collect();
                    act((&entry.key.text, entry.key.span), &values);
                }
            }
            Self::Data(file) => {
                let text = texts.text(*file);
                for row in file::mapping(text, columns) {
                    let place = |range: &std::ops::Range<usize>| (&text[range.clone()], data_span(*file, range));
                    let values: Vec<_> = row.values.iter().map(place).collect();
                    act(place(&row.key), &values);
                }
            }
            Self::LocalNames | Self::Broken => {}
        }
    }
}

fn data_span(file: u32, range: &std::ops::Range<usize>) -> Span {
    Span { file, start: narrow(range.start), end: narrow(range.end) }
}

/// One use of some entries.
pub(super) struct Builder<'a> {
    pub(super) targ: &'a Targ,
    pub(super) table: Option<&'a Declared>,
    pub(super) regex: bool,
}

impl Builder<'_> {
    /// What the service wants; `None` if there was an error, which was told.
    pub(super) fn build(&self, body: &Body, reading: &mut Reading<'_>) -> Option<Part> {
        match body {
            Body::Broken => return None,
            Body::LocalNames => return self.local_names(reading),
            _ => {}
        }
        if self.regex {
            return self.patterns(body, reading);
        }
        if self.targ.used.shape != Shape::List
            && let Some(report) = self.not_a_mapping(body, reading)
        {
            reading.report(report);
            return None;
        }
        let mut problems =
            Problems { targ: self.targ, table: self.table, texts: &reading.texts, found: Vec::new(), failed: false };
        let part = self.part(body, reading.options, &mut problems);
        let Problems { found, failed, .. } = problems;
        reading.reports.extend(found);
        if failed { None } else { part }
    }

    fn part(&self, body: &Body, options: &Options, problems: &mut Problems<'_>) -> Option<Part> {
        let used = self.targ.used;
        Some(match (used.service, used.shape) {
            (ServiceKind::Domain, _) => Part::Domains(Arc::new(domains(body, problems))),
            (ServiceKind::NetAddr, _) => Part::Networks(Arc::new(list(body, problems))),
            (ServiceKind::SourceAddr, _) => Part::Sources(Arc::new(list::<SourceAddresses>(body, problems).0)),
            (ServiceKind::MailAddr, _) => Part::Addresses(Arc::new(list(body, problems))),
            (ServiceKind::String, _) => Part::Words(Arc::new(list(body, problems))),
            (ServiceKind::RelayHost, Shape::List) => Part::RelayHosts(Arc::new(relay_hosts(body, options, problems))),
            (ServiceKind::RelayHost, _) => Part::Routes(shared(routes(body, options, problems))),
            (ServiceKind::Alias, _) => Part::Aliases(shared(aliases(body, problems))),
            (ServiceKind::Credentials, shape) => {
                Part::Credentials(shared(credentials(body, shape == Shape::Logins, problems)))
            }
            (ServiceKind::UserInfo, _) => {
                Part::Users(shared(one_value::<UserRecord>(body, problems, |key| Some(key.to_lowercase()))))
            }
            (ServiceKind::AddrName, _) => Part::HostNames(shared(one_value::<HostName>(body, problems, address_key))),
            (ServiceKind::MailAddrMap, _) => Part::AddressesOf(shared(addresses_of(body, problems))),
            (ServiceKind::Cert, Shape::Subjects) => {
                Part::Subjects(shared(one_value::<UserName>(body, problems, subject_key)))
            }
            (ServiceKind::Cert, _) => Part::Certificates(shared(certificates(body, problems))),
            (ServiceKind::Dkim, _) => Part::Dkim(shared(one_value::<DkimKey>(body, problems, domain_key))),
            (ServiceKind::Auth | ServiceKind::Regex, _) => return None,
        })
    }

    /// E0401: entries without values where values are needed. In a file the line is what is wrong, else the table.
    fn not_a_mapping(&self, body: &Body, reading: &Reading<'_>) -> Option<Report> {
        let keyword = self.targ.keyword.value;
        let (mut without, mut rows) = (None, 0);
        body.each_row(&reading.texts, columns(self.targ.used.service), &mut |(key, span), values| {
            rows += 1;
            if values.is_empty() && without.is_none() {
                without = Some((key.to_owned(), span));
            }
        });
        let (key, span) = without?;
        let write = format!("write its entries as `{key} => …`");
        let (what, place, help) = match (&self.targ.what, self.table, body) {
            (TargKind::Table(name), Some(_), Body::Data(_)) => {
                let needed = format!("needed by `{keyword}` at {}", reading.texts.at(self.targ.keyword.span));
                (format!("<{name}> is a list here"), span, format!("{needed}; write its lines as `{key} …`"))
            }
            (TargKind::Table(name), Some(table), _) => {
                let declared = format!("declared at {}; {write}", reading.texts.at(table.name_span));
                (format!("<{name}> is a list"), self.targ.span, declared)
            }
            (TargKind::Word(_), ..) => {
                (format!("`{key}` is a word"), self.targ.span, format!("write `{{ {key} => … }}`"))
            }
            _ if rows == 1 => (format!("`{{ {key} }}` is a list"), self.targ.span, write),
            _ => (format!("`{{ {key}, … }}` is a list"), self.targ.span, write),
        };
        Some(Report::new("E0401", place, format!("{what}; `{keyword}` needs a mapping")).help(help))
    }

    /// `<localnames>`: `localhost`, the server name, address literals of this host.
    fn local_names(&self, reading: &mut Reading<'_>) -> Option<Part> {
        if self.targ.used.service != ServiceKind::Domain || self.regex {
            reading.report(cannot_answer("localnames", self.targ).help("it answers domain lookups"));
            return None;
        }
        Some(Part::Domains(Arc::new(local_names(&reading.names))))
    }

    fn patterns(&self, body: &Body, reading: &mut Reading<'_>) -> Option<Part> {
        let mut found: Vec<(String, Span)> = Vec::new();
        match body {
            Body::Data(file) => {
                let text = reading.texts.text(*file);
                let one = |range: std::ops::Range<usize>| (text[range.clone()].to_owned(), data_span(*file, &range));
                found.extend(file::lines(text).map(one));
            }
            _ => body.each_key(&reading.texts, &mut |key, span, _| found.push((key.to_owned(), span))),
        }
        match Patterns::new(found.iter().map(|(text, _)| text.as_str())) {
            Ok(patterns) => Some(Part::Patterns(Arc::new(patterns))),
            Err(whole) => {
                let mut told = false;
                for (text, span) in &found {
                    if let Err(why) = Patterns::check(text) {
                        told = true;
                        reading.report(Report::new("E0508", *span, format!("bad regular expression: {why}")));
                    }
                }
                if !told {
                    reading.report(Report::new("E0508", self.targ.span, format!("bad regular expression: {whole}")));
                }
                None
            }
        }
    }
}

/// How the lines of a mapping for this service are read.
fn columns(service: ServiceKind) -> Columns {
    match service {
        ServiceKind::Alias => Columns::Alias,
        ServiceKind::Credentials => Columns::Record,
        ServiceKind::UserInfo => Columns::WholeRecord,
        _ => Columns::Words,
    }
}

fn local_names(names: &Names) -> DomainSet {
    let mut set = DomainSet::default();
    set.insert("localhost");
    set.insert(&names.server);
    for address in &names.addresses {
        set.insert(&match address {
            IpAddr::V4(address) => format!("[{address}]"),
            IpAddr::V6(address) => format!("[IPv6:{address}]"),
        });
    }
    set
}

// ---- lists

fn list<T: List>(body: &Body, problems: &mut Problems<'_>) -> T {
    let mut set = T::default();
    body.each_key(problems.texts, &mut |key, span, _| {
        if !set.add(key) {
            problems.not(key, span, T::WHAT, T::HOW);
        }
    });
    set
}

/// In a mapping, keys with an `@` are addresses, whose values something else wants; the others are domains (D9).
fn domains(body: &Body, problems: &mut Problems<'_>) -> DomainSet {
    let mut set = DomainSet::default();
    body.each_key(problems.texts, &mut |key, span, has_value| {
        let is_address = has_value && key.contains('@');
        if !is_address && !set.add(key) {
            problems.not(key, span, DomainSet::WHAT, DomainSet::HOW);
        }
    });
    set
}

fn relay_hosts(body: &Body, options: &Options, problems: &mut Problems<'_>) -> Vec<RelayHost> {
    let mut hosts = Vec::new();
    body.each_key(problems.texts, &mut |url, span, _| hosts.extend(relay_host(url, span, options, problems)));
    hosts
}

/// One URL; `None` if something is wrong with it, and that was told.
fn relay_host(url: &str, span: Span, options: &Options, problems: &mut Problems<'_>) -> Option<RelayHost> {
    let not_url = || Report::new("E0504", span, format!("not a relay URL: `{url}`"));
    let report = match RelayHost::parse(url) {
        Ok(host) => match host.moved(options.port_offset) {
            Some(mut host) => {
                if let Host::Socket(path) = &mut host.host {
                    *path = options.place(std::path::Path::new(""), &path.to_string_lossy());
                }
                return Some(host);
            }
            None => not_url().help("with --port-offset its port is above 65535"),
        },
        Err(RelayUrlError::Form(help)) => not_url().maybe_help(help.map(str::to_owned)),
        Err(RelayUrlError::Scheme(scheme)) => {
            let help = did_you_mean(&scheme, RelayHost::schemes());
            Report::new("E0504", span, format!("unknown relay scheme `{scheme}`")).maybe_help(help)
        }
        Err(RelayUrlError::Label) => {
            let message = "credentials need a scheme that guarantees encryption";
            Report::new("E0605", span, message).help("write `smtp+tls://` or `smtps://`")
        }
    };
    problems.error(report);
    None
}

// ---- mappings

/// All entries are in it.
fn shared<V>(mut mapped: Mapped<V>) -> Arc<Mapped<V>> {
    mapped.shrink();
    Arc::new(mapped)
}

/// A mapping whose keys have one value each.
fn one_value<V: Value>(body: &Body, problems: &mut Problems<'_>, key_of: impl Fn(&str) -> Option<String>) -> Mapped<V> {
    let mut mapped = Mapped::default();
    let columns = columns(problems.targ.used.service);
    body.each_row(problems.texts, columns, &mut |(key, key_span), values| {
        let Some((text, span)) = single(key, values, problems) else { return };
        let Some(folded) = key_of(key) else {
            return problems.not(key, key_span, "an address", None);
        };
        match V::parse(text) {
            Ok(value) => insert(&mut mapped, &folded, value, key, key_span, problems),
            Err(error) => problems.not(text, span, error.what, error.how),
        }
    });
    mapped
}

/// E0405 for a second value.
fn single<'v>(key: &str, values: &[(&'v str, Span)], problems: &mut Problems<'_>) -> Option<(&'v str, Span)> {
    if let Some((second, span)) = values.get(1) {
        let report = Report::new("E0405", *span, format!("one value expected for `{key}`"));
        problems.error(report.help(format!("to begin another entry, write `KEY => {second}`")));
        return None;
    }
    values.first().copied()
}

/// The first entry of a key counts.
fn insert<V>(mapped: &mut Mapped<V>, key: &str, value: V, shown: &str, span: Span, problems: &mut Problems<'_>) {
    if mapped.get(key).is_some() {
        let report = Report::new("W0810", span, format!("`{shown}` has no effect"));
        return problems.warning(report.help("there is an entry with the same key before it"));
    }
    mapped.insert(key, value);
}

fn address_key(key: &str) -> Option<String> {
    parse_ip(key).map(|ip| canonical_ip(ip).to_string())
}

fn domain_key(key: &str) -> Option<String> {
    let name = key.to_lowercase();
    let bare = name.strip_prefix("*.").unwrap_or(&name);
    (name == "*" || is_domain_name(bare) || parse_literal(bare).is_some()).then_some(name)
}

fn aliases(body: &Body, problems: &mut Problems<'_>) -> Mapped<Vec<AliasTarget>> {
    let mut mapped = Mapped::default();
    body.each_row(problems.texts, Columns::Alias, &mut |(key, key_span), values| {
        let Some(folded) = alias_key(key) else {
            let how = Some("a user, user@domain, @domain or @");
            return problems.not(key, key_span, "a user or an address", how);
        };
        let mut targets = Vec::with_capacity(values.len());
        for (text, span) in values {
            match AliasTarget::parse(text) {
                Ok(target) => targets.push(target),
                Err(error) => problems.not(text, *span, error.what, error.how),
            }
        }
        insert(&mut mapped, &folded, targets, key, key_span, problems);
    });
    mapped
}

fn alias_key(key: &str) -> Option<String> {
    let is_domain = |domain: &str| is_domain_name(domain) || parse_literal(domain).is_some();
    let good = match split_address(key) {
        Some(("", "")) => true,
        Some((_, domain)) => is_domain(domain),
        None => !key.is_empty() && !key.contains(char::is_whitespace),
    };
    good.then(|| FoldedAddress::new(key).as_str().to_owned())
}

/// Of a relay, `user:password`; of a listener, a hash.
fn credentials(body: &Body, are_logins: bool, problems: &mut Problems<'_>) -> Mapped<Credentials> {
    let mut mapped = Mapped::default();
    body.each_row(problems.texts, Columns::Record, &mut |(key, key_span), values| {
        let Some((text, span)) = single(key, values, problems) else { return };
        let record = Credentials::parse(text);
        let value = match record {
            Ok(value) if !are_logins || value.user.is_some() => value,
            // What is wrong with it may be the password.
            _ if are_logins => return problems.not("…", span, "user:password", Some("a relay logs in with both")),
            _ => return problems.not("…", span, "a password hash or user:hash", None),
        };
        if !are_logins && !is_known_scheme(value.secret.reveal()) {
            let shown = value.user.as_deref().unwrap_or(key);
            let message = format!("`{shown}:…` is not a password hash: nobody can authenticate with it");
            problems.warning(Report::new("W0807", span, message));
        }
        insert(&mut mapped, key, value, key, key_span, problems);
    });
    mapped
}

fn addresses_of(body: &Body, problems: &mut Problems<'_>) -> Mapped<Vec<AddressPattern>> {
    let mut mapped = Mapped::default();
    body.each_row(problems.texts, Columns::Words, &mut |(key, key_span), values| {
        let mut patterns = Vec::with_capacity(values.len());
        for (text, span) in values {
            match AddressPattern::parse(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => problems.not(text, *span, error.what, error.how),
            }
        }
        insert(&mut mapped, key, patterns, key, key_span, problems);
    });
    mapped
}

fn routes(body: &Body, options: &Options, problems: &mut Problems<'_>) -> Mapped<RelayHost> {
    let mut mapped = Mapped::default();
    body.each_row(problems.texts, Columns::Words, &mut |(key, key_span), values| {
        let Some((url, span)) = single(key, values, problems) else { return };
        let Some(folded) = domain_key(key) else {
            return problems.not(key, key_span, DomainSet::WHAT, DomainSet::HOW);
        };
        if let Some(host) = relay_host(url, span, options, problems) {
            insert(&mut mapped, &folded, host, key, key_span, problems);
        }
    });
    mapped
}

/// A name in a certificate, or its hash, which people copy with colons between the digits.
fn subject_key(key: &str) -> Option<String> {
    let key = key.to_ascii_lowercase();
    Some(match key.strip_prefix("sha256:") {
        Some(digits) => format!("sha256:{}", digits.replace(':', "")),
        None => key,
    })
}

fn certificates(body: &Body, problems: &mut Problems<'_>) -> Mapped<Certificate> {
    let mut mapped = Mapped::default();
    body.each_row(problems.texts, Columns::Words, &mut |(key, key_span), values| {
        let Some(folded) = domain_key(key) else {
            return problems.not(key, key_span, DomainSet::WHAT, DomainSet::HOW);
        };
        let &[(chain, chain_span), (private, private_span)] = values else {
            let how = Some("name => chain, key");
            return problems.not(key, key_span, "an entry with a chain and a key", how);
        };
        for (text, span) in [(chain, chain_span), (private, private_span)] {
            if let Err(error) = Pem::parse(text) {
                problems.not("…", span, error.what, error.how);
            }
        }
        if let Ok(certificate) = Certificate::parse(chain, private) {
            insert(&mut mapped, &folded, certificate, key, key_span, problems);
        }
    });
    mapped
}
