//! Derived keys (grammar §7.2): wildcards and catch-alls mean the same with every backend, because each is asked for the same
//! keys, one after the other. The first that is found is the answer.

use std::borrow::Cow;

use ringpost_address::{
    Folded, Network, canonical_ip, parents, parse_ip, split_address, strip_extension, unquote_local,
};

use super::ServiceKind;

/// A key to ask for.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "made for one question, on the stack, and not kept")]
pub enum Key<'k> {
    /// As it was given.
    Given(&'k str),
    /// Made from it, in lower case.
    Made(Folded),
}

impl Key<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Given(text) => text,
            Self::Made(folded) => folded.as_str(),
        }
    }
}

/// The keys that one question becomes, in the order in which they are asked.
#[derive(Clone, Debug)]
pub struct Keys<'k> {
    kind: Kind,
    whole: &'k str,
    /// Without quotes.
    local: Cow<'k, str>,
    /// Bytes of the local part without its sub-address, if it has one.
    plain_bytes: Option<usize>,
    domain: &'k str,
    stage: u16,
    /// What is left of the domain, while the wildcards above it are asked.
    above: &'k str,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Nothing but itself.
    Exact,
    /// Itself, in lower case.
    FoldedExact,
    Domain,
    Parents,
    /// An address in whatever spelling.
    Address,
    Network,
    MailAddr,
    User,
    Virtual,
}

impl<'k> Keys<'k> {
    /// The keys of a question. `key` is an address for [`ServiceKind::MailAddr`] (empty: the null sender) and, where the use is
    /// `virtual`, for [`ServiceKind::Alias`]; a local part for `alias`. Case does not count where addresses and names are meant.
    pub fn new(service: ServiceKind, key: &'k str, delimiter: char) -> Self {
        let kind = match service {
            _ if service.minds_case() => Kind::Exact,
            ServiceKind::Alias if split_address(key).is_some() => Kind::Virtual,
            ServiceKind::Alias => Kind::User,
            // The whole list has no key.
            ServiceKind::RelayHost if key.is_empty() => Kind::Exact,
            // A certificate's mail address, or its hash: no name that is part of another.
            ServiceKind::Cert if key.contains(['@', ':']) => Kind::FoldedExact,
            ServiceKind::Domain | ServiceKind::RelayHost | ServiceKind::Cert => Kind::Domain,
            ServiceKind::Dkim => Kind::Parents,
            ServiceKind::NetAddr => Kind::Network,
            ServiceKind::MailAddr => Kind::MailAddr,
            ServiceKind::AddrName => Kind::Address,
            // What is left: user names, and lists that have no keys.
            _ => Kind::FoldedExact,
        };
        let (local, domain) = match kind {
            Kind::Domain | Kind::Parents => ("", without_last_dot(key)),
            _ => split_address(key).unwrap_or((key, "")),
        };
        let local = unquote_local(local);
        let plain_bytes = strip_extension(&local, delimiter).map(str::len);
        Self { kind, whole: key, local, plain_bytes, domain, stage: 0, above: domain }
    }

    fn virtual_key(&mut self) -> Option<Key<'k>> {
        loop {
            self.stage += 1;
            return Some(match (self.stage, self.plain()) {
                (1, _) => self.address(&self.local),
                (2, Some(plain)) => self.address(plain),
                (3, _) if is_name(&self.local) => made(&[&self.local]),
                (4, Some(plain)) if is_name(plain) => made(&[plain]),
                (5, _) => made(&["@", self.domain]),
                (6, _) => Key::Given("@"),
                (2..=4, _) => continue,
                _ => return None,
            });
        }
    }

    fn mail_addr(&mut self) -> Option<Key<'k>> {
        if self.whole.is_empty() {
            self.stage += 1;
            return (self.stage == 1).then_some(Key::Given("<>"));
        }
        loop {
            match self.stage {
                0 => {
                    self.stage = 1;
                    return Some(self.address(&self.local));
                }
                1 => {
                    self.stage = 2;
                    if let Some(plain) = self.plain() {
                        return Some(self.address(plain));
                    }
                }
                2 => {
                    self.stage = 3;
                    if !self.domain.is_empty() {
                        return Some(made(&["@", self.domain]));
                    }
                }
                3 => match self.next_above() {
                    Some(above) => return Some(made(&["@*.", above])),
                    None => self.stage = 4,
                },
                4 => {
                    self.stage = 5;
                    let name = self.plain().unwrap_or(&self.local);
                    if is_name(name) {
                        return Some(made(&[name]));
                    }
                }
                5 => {
                    self.stage = 6;
                    return Some(Key::Given("@"));
                }
                _ => return None,
            }
        }
    }

    fn domain_key(&mut self) -> Option<Key<'k>> {
        match self.stage {
            0 => {
                self.stage = 1;
                Some(made(&[self.domain]))
            }
            1 => match self.next_above() {
                Some(above) => Some(made(&["*.", above])),
                None => {
                    self.stage = 2;
                    Some(Key::Given("*"))
                }
            },
            _ => None,
        }
    }

    fn parent(&mut self) -> Option<Key<'k>> {
        if self.stage == 0 {
            self.stage = 1;
            return Some(made(&[self.domain]));
        }
        self.next_above().map(|above| made(&[above]))
    }

    /// The address itself, then every network that contains it, the narrowest first.
    fn network(&mut self) -> Option<Key<'k>> {
        let Some(ip) = parse_ip(self.whole).map(canonical_ip) else { return self.once(false) };
        let bits: u16 = if ip.is_ipv4() { 32 } else { 128 };
        let stage = self.stage;
        self.stage += 1;
        match stage {
            0 => Some(made(&[&ip.to_string()])),
            _ if stage > bits + 1 => None,
            _ => {
                let network = Network::parse(&format!("{ip}/{}", bits + 1 - stage))?;
                Some(made(&[&network.to_string()]))
            }
        }
    }

    fn next_above(&mut self) -> Option<&'k str> {
        let above = parents(self.above).next()?;
        self.above = above;
        Some(above)
    }

    fn once(&mut self, folded: bool) -> Option<Key<'k>> {
        self.stage += 1;
        let key = || if folded { made(&[self.whole]) } else { Key::Given(self.whole) };
        (self.stage == 1).then(key)
    }

    /// `local@domain`, or the local part alone where there is no domain (`postmaster`).
    fn address(&self, local: &str) -> Key<'k> {
        if self.domain.is_empty() { made(&[local]) } else { made(&[local, "@", self.domain]) }
    }

    fn plain(&self) -> Option<&str> {
        self.plain_bytes.map(|bytes| &self.local[..bytes])
    }
}

impl<'k> Iterator for Keys<'k> {
    type Item = Key<'k>;

    fn next(&mut self) -> Option<Key<'k>> {
        match self.kind {
            Kind::Exact => self.once(false),
            Kind::FoldedExact => self.once(true),
            Kind::Address => match parse_ip(self.whole) {
                Some(ip) => {
                    self.stage += 1;
                    (self.stage == 1).then(|| made(&[&canonical_ip(ip).to_string()]))
                }
                None => self.once(true),
            },
            Kind::User => {
                self.stage += 1;
                match (self.stage, self.plain()) {
                    (1, _) => is_name(&self.local).then(|| made(&[&self.local])),
                    (2, Some(plain)) => is_name(plain).then(|| made(&[plain])),
                    _ => None,
                }
            }
            Kind::Domain => self.domain_key(),
            Kind::Parents => self.parent(),
            Kind::Network => self.network(),
            Kind::MailAddr => self.mail_addr(),
            Kind::Virtual => self.virtual_key(),
        }
    }
}

/// The spelling in which a key of a backend is asked for: that of addresses and networks may vary, others stay as they are.
pub fn stored_key(key: &str) -> String {
    match (parse_ip(key), Network::parse(key).filter(|_| key.contains('/'))) {
        (Some(ip), _) => canonical_ip(ip).to_string(),
        (None, Some(network)) => network.to_string(),
        (None, None) => key.to_owned(),
    }
}

/// `example.org.` is `example.org`.
pub(super) fn without_last_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether a local part may be a key by itself. `"@b.org"@a.org` must not find what is the catch-all of `b.org`, nor `"<>"@a.org`
/// what is meant for the null sender.
fn is_name(local: &str) -> bool {
    !local.is_empty() && !local.contains(['@', '<', '>'])
}

fn made(pieces: &[&str]) -> Key<'static> {
    Key::Made(Folded::joined(pieces))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(service: ServiceKind, key: &str) -> Vec<String> {
        Keys::new(service, key, '+').map(|key| key.as_str().to_owned()).collect()
    }

    #[test]
    fn the_keys_of_the_grammar() {
        assert_eq!(keys(ServiceKind::Domain, "A.b.org"), ["a.b.org", "*.b.org", "*.org", "*"]);
        assert_eq!(keys(ServiceKind::Domain, "b.org."), ["b.org", "*.org", "*"]);
        let expected = ["u+x@a.b.org", "u@a.b.org", "@a.b.org", "@*.b.org", "@*.org", "u", "@"];
        assert_eq!(keys(ServiceKind::MailAddr, "U+x@a.b.Org"), expected);
        assert_eq!(keys(ServiceKind::MailAddr, "u@org"), ["u@org", "@org", "u", "@"]);
        assert_eq!(keys(ServiceKind::MailAddr, ""), ["<>"]);
        let expected = ["u+x@a.org", "u@a.org", "u+x", "u", "@a.org", "@"];
        assert_eq!(keys(ServiceKind::Alias, "\"U+x\"@a.org"), expected);
        assert_eq!(keys(ServiceKind::Alias, "u@a.org"), ["u@a.org", "u", "@a.org", "@"]);
        assert_eq!(keys(ServiceKind::Alias, "U+x"), ["u+x", "u"]);
        assert_eq!(keys(ServiceKind::Alias, "u"), ["u"]);
    }

    #[test]
    fn local_parts_are_no_keys_of_other_kinds() {
        assert_eq!(keys(ServiceKind::Alias, "\"@b.org\"@a.org"), ["@b.org@a.org", "@a.org", "@"]);
        assert_eq!(keys(ServiceKind::Alias, "\"u@b.org\"@a.org"), ["u@b.org@a.org", "@a.org", "@"]);
        assert_eq!(keys(ServiceKind::Alias, "\"u+x@b.org\"@a.org")[2..], ["u", "@a.org", "@"]);
        assert_eq!(keys(ServiceKind::MailAddr, "\"<>\"@org"), ["<>@org", "@org", "@"]);
        assert_eq!(keys(ServiceKind::Alias, "\"\"@a.org"), ["@a.org", "@a.org", "@"]);
    }

    #[test]
    fn other_services() {
        assert_eq!(keys(ServiceKind::Dkim, "a.b.org"), ["a.b.org", "b.org", "org"]);
        assert_eq!(
            (keys(ServiceKind::RelayHost, ""), keys(ServiceKind::SourceAddr, "")),
            (vec![String::new()], vec![String::new()])
        );
        assert_eq!(keys(ServiceKind::String, "Tag"), ["Tag"]);
        assert_eq!(keys(ServiceKind::Credentials, "Gilles@x.org"), ["Gilles@x.org"]);
        assert_eq!(keys(ServiceKind::UserInfo, "Gilles"), ["gilles"]);
        let four = keys(ServiceKind::NetAddr, "10.1.2.3");
        assert_eq!(four.len(), 34);
        assert_eq!(
            [&*four[0], &*four[1], &*four[9], &*four[33]],
            ["10.1.2.3", "10.1.2.3/32", "10.1.2.0/24", "0.0.0.0/0"]
        );
        let six = keys(ServiceKind::NetAddr, "2001:db8::1");
        assert_eq!((six.len(), &*six[0], &*six[65]), (130, "2001:db8::1", "2001:db8::/64"));
        assert_eq!(keys(ServiceKind::NetAddr, "local"), ["local"]);
        assert_eq!(keys(ServiceKind::NetAddr, "::ffff:10.1.2.3").first().map(String::as_str), Some("10.1.2.3"));
        for spelling in ["2001:db8::1", "2001:DB8:0:0::1", "[2001:db8::1]"] {
            assert_eq!(keys(ServiceKind::AddrName, spelling), ["2001:db8::1"]);
        }
        assert_eq!(keys(ServiceKind::AddrName, "192.0.2.1"), ["192.0.2.1"]);
    }
}
