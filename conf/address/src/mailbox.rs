//! Mailboxes and paths (RFC 5321 §4.1.2, RFC 6531 §3.3). Everything borrows the text that was parsed.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::domain::is_domain_name;
use crate::limits::{DOMAIN_BYTES_MAX, LOCAL_PART_BYTES_MAX, MAILBOX_BYTES_MAX};

/// Why a text is no address. The fault is its author's, and stays one: 5xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// The local part is neither a dot-string nor a quoted string.
    LocalPart,
    /// No `@domain`, or the domain is not a name.
    Domain,
    /// `[…]` is not an address literal (RFC 5321 §4.1.3).
    Literal,
    /// Longer than RFC 5321 §4.5.3.1 allows.
    TooLong,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LocalPart => "bad local part",
            Self::Domain => "bad domain",
            Self::Literal => "bad address literal",
            Self::TooLong => "address too long",
        })
    }
}

impl std::error::Error for AddressError {}

/// What stands behind the `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainPart<'a> {
    /// A domain name, as written.
    Name(&'a str),
    /// An address literal.
    Literal(IpAddr),
}

/// `local@domain`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mailbox<'a> {
    text: &'a str,
    at: usize,
    domain: DomainPart<'a>,
}

impl<'a> Mailbox<'a> {
    /// Reads `local@domain` or `local@[literal]`, without angle brackets.
    pub fn parse(text: &'a str) -> Result<Self, AddressError> {
        let at = at_sign(text).ok_or(AddressError::Domain)?;
        let (local, domain) = (&text[..at], &text[at + 1..]);
        check_local(local)?;
        if domain.len() > DOMAIN_BYTES_MAX || text.len() > MAILBOX_BYTES_MAX {
            return Err(AddressError::TooLong);
        }
        let domain = if domain.starts_with('[') {
            DomainPart::Literal(parse_literal(domain).ok_or(AddressError::Literal)?)
        } else if is_domain_name(domain) {
            DomainPart::Name(domain)
        } else {
            return Err(AddressError::Domain);
        };
        Ok(Self { text, at, domain })
    }

    /// The whole address as written.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// The local part as written, quotes included.
    pub fn local(&self) -> &'a str {
        &self.text[..self.at]
    }

    /// The domain or address literal.
    pub fn domain(&self) -> DomainPart<'a> {
        self.domain
    }

    /// What stands behind the `@`, as written.
    pub fn domain_text(&self) -> &'a str {
        &self.text[self.at + 1..]
    }
}

/// Whom `RCPT TO:<…>` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardPath<'a> {
    /// `Postmaster` without a domain (RFC 5321 §4.5.1), in any case.
    Postmaster,
    /// A mailbox.
    Mailbox(Mailbox<'a>),
}

impl<'a> ForwardPath<'a> {
    /// Reads what stands between the angle brackets. A source route is skipped (RFC 5321 §4.1.1.3).
    pub fn parse(text: &'a str) -> Result<Self, AddressError> {
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(Self::Postmaster);
        }
        Ok(Self::Mailbox(Mailbox::parse(skip_source_route(text)?)?))
    }
}

/// Whom `MAIL FROM:<…>` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReversePath<'a> {
    /// `<>`: the sender of bounces, which never bounce themselves.
    Null,
    /// A mailbox.
    Mailbox(Mailbox<'a>),
}

impl<'a> ReversePath<'a> {
    /// Reads what stands between the angle brackets; nothing there is the null sender.
    pub fn parse(text: &'a str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Ok(Self::Null);
        }
        Ok(Self::Mailbox(Mailbox::parse(skip_source_route(text)?)?))
    }
}

/// `@a,@b:user@c` is `user@c`.
fn skip_source_route(text: &str) -> Result<&str, AddressError> {
    if !text.starts_with('@') {
        return Ok(text);
    }
    let (route, mailbox) = text.split_once(':').ok_or(AddressError::LocalPart)?;
    let good = route.split(',').all(|hop| hop.strip_prefix('@').is_some_and(is_domain_name));
    if good { Ok(mailbox) } else { Err(AddressError::Domain) }
}

/// Splits at the `@` that separates local part and domain: the first outside a leading quoted string. Checks nothing else.
pub fn split_address(text: &str) -> Option<(&str, &str)> {
    at_sign(text).map(|at| (&text[..at], &text[at + 1..]))
}

fn at_sign(text: &str) -> Option<usize> {
    if !text.starts_with('"') {
        return text.find('@');
    }
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return (text.as_bytes().get(at + 1) == Some(&b'@')).then_some(at + 1),
            _ => {}
        }
    }
    None
}

fn check_local(local: &str) -> Result<(), AddressError> {
    if local.len() > LOCAL_PART_BYTES_MAX {
        return Err(AddressError::TooLong);
    }
    let good = match local.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').is_some_and(is_quoted_content),
        None => is_dot_string(local),
    };
    if good { Ok(()) } else { Err(AddressError::LocalPart) }
}

/// Dot-string of RFC 5321 with the UTF8-non-ascii of RFC 6531.
fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// qtextSMTP and quoted-pairSMTP; controls, NUL and bare quotes are out.
fn is_quoted_content(text: &str) -> bool {
    let mut escaped = false;
    for byte in text.bytes() {
        match byte {
            0..=31 | 127 => return false,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return false,
            _ => {}
        }
    }
    !escaped
}

/// Reads `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3), brackets included.
pub fn parse_literal(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => inner[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// The local part without its quoting, so that `"abuse"@x` cannot slip past a rule about `abuse@x` (RFC 5321 §4.1.2: both are
/// the same mailbox). Borrows when there is nothing to take away.
pub fn unquote_local(local: &str) -> Cow<'_, str> {
    let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Cow::Borrowed(local);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.extend(chars.next()),
            other => plain.push(other),
        }
    }
    Cow::Owned(plain)
}

/// The local part without its sub-address: of `gilles+list`, `gilles`. `None` if there is no sub-address.
/// A delimiter in front belongs to the name.
pub fn strip_extension(local: &str, delimiter: char) -> Option<&str> {
    let at = local.find(delimiter)?;
    (at > 0).then(|| &local[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes() {
        let m = Mailbox::parse("gilles+list@Example.org").unwrap();
        assert_eq!((m.local(), m.domain()), ("gilles+list", DomainPart::Name("Example.org")));
        let m = Mailbox::parse(r#""a@ \" b"@example.org"#).unwrap();
        assert_eq!((m.local(), m.domain_text()), (r#""a@ \" b""#, "example.org"));
        let m = Mailbox::parse("x@[192.0.2.1]").unwrap();
        assert_eq!(m.domain(), DomainPart::Literal("192.0.2.1".parse().unwrap()));
        let m = Mailbox::parse("x@[IPv6:2001:db8::1]").unwrap();
        assert_eq!(m.domain(), DomainPart::Literal("2001:db8::1".parse().unwrap()));
        assert!(Mailbox::parse("jürgen@bücher.example").is_ok());
    }

    #[test]
    fn not_mailboxes() {
        let cases = [
            ("", AddressError::Domain),
            ("gilles", AddressError::Domain),
            ("@example.org", AddressError::LocalPart),
            ("a..b@example.org", AddressError::LocalPart),
            (".a@example.org", AddressError::LocalPart),
            ("a b@example.org", AddressError::LocalPart),
            ("a\u{1}@example.org", AddressError::LocalPart),
            ("\"a@example.org", AddressError::Domain),
            ("\"a\"b@example.org", AddressError::Domain),
            ("a@", AddressError::Domain),
            ("a@b@c", AddressError::Domain),
            ("a@-x.org", AddressError::Domain),
            ("a@192.0.2.1", AddressError::Domain),
            ("a@[192.0.2.999]", AddressError::Literal),
            ("a@[x:1]", AddressError::Literal),
        ];
        for (text, error) in cases {
            assert_eq!(Mailbox::parse(text), Err(error), "{text}");
        }
        let long = format!("{}@example.org", "a".repeat(65));
        assert_eq!(Mailbox::parse(&long), Err(AddressError::TooLong));
    }

    #[test]
    fn paths() {
        assert_eq!(ForwardPath::parse("PostMaster"), Ok(ForwardPath::Postmaster));
        let ForwardPath::Mailbox(m) = ForwardPath::parse("@a.org,@b.org:c@d.org").unwrap() else { panic!() };
        assert_eq!(m.as_str(), "c@d.org");
        assert_eq!(ForwardPath::parse(""), Err(AddressError::Domain));
        assert_eq!(ReversePath::parse(""), Ok(ReversePath::Null));
    }

    #[test]
    fn splitting_and_quoting() {
        assert_eq!(split_address("a@b"), Some(("a", "b")));
        assert_eq!(split_address(r#""a@b"@c"#), Some((r#""a@b""#, "c")));
        assert_eq!(split_address("postmaster"), None);
        assert_eq!(unquote_local(r#""abuse""#), "abuse");
        assert_eq!(unquote_local(r#""a\"\\b""#), r#"a"\b"#);
        assert_eq!(strip_extension("gilles+list+x", '+'), Some("gilles"));
        assert_eq!(strip_extension("+list", '+'), None);
        assert_eq!(strip_extension("gilles", '+'), None);
    }
}
