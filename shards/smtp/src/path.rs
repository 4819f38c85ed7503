//! Reverse-path and forward-path (RFC 5321 §4.1.2, RFC 6531 §3.3): from bytes to an address that is one.
//!
//! An address is a slice of the command; nothing is unquoted, folded or compared here.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::limits::{DOMAIN_BYTES_MAX, LABEL_BYTES_MAX, LOCAL_PART_BYTES_MAX, PATH_BYTES_MAX};

/// What stands between the angle brackets, the source route taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path<'i> {
    /// `<>`
    Null,
    /// `<postmaster>` without a domain, in any case.
    Postmaster,
    /// `local-part@domain`; UTF-8, perhaps beyond ASCII.
    Mailbox(&'i str),
}

/// Reads a path at the start of `text`; returns it and what follows. `None`: malformed.
pub(crate) fn parse(text: &[u8]) -> Option<(Path<'_>, &[u8])> {
    let inner = text.strip_prefix(b"<")?;
    let close = closing_bracket(inner)?;
    let (inside, rest) = (&inner[..close], &inner[close + 1..]);
    if !matches!(rest.first(), None | Some(b' ')) || inside.len() > PATH_BYTES_MAX {
        return None;
    }
    if inside.is_empty() {
        return Some((Path::Null, rest));
    }
    if inside.eq_ignore_ascii_case(b"postmaster") {
        return Some((Path::Postmaster, rest));
    }
    // Bytes above 0x7F are allowed in names when they are UTF-8 (RFC 6531 §3.3).
    let mailbox = std::str::from_utf8(without_route(inside)?).ok()?;
    is_mailbox(mailbox.as_bytes()).then_some((Path::Mailbox(mailbox), rest))
}

/// The first `>` outside of a quoted string.
fn closing_bracket(text: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// A source route must be accepted and should be ignored (RFC 5321 appendix C).
fn without_route(inside: &[u8]) -> Option<&[u8]> {
    if inside.first() != Some(&b'@') {
        return Some(inside);
    }
    let colon = memchr::memchr(b':', inside)?;
    let hops = &inside[..colon];
    hops.split(|byte| *byte == b',')
        .all(|hop| hop.strip_prefix(b"@").is_some_and(is_domain))
        .then_some(&inside[colon + 1..])
}

fn is_mailbox(text: &[u8]) -> bool {
    // The last `@`: one before it can only belong to a quoted string.
    let Some(at) = memchr::memrchr(b'@', text) else { return false };
    let (local, domain) = (&text[..at], &text[at + 1..]);
    if local.is_empty() || local.len() > LOCAL_PART_BYTES_MAX || domain.len() > DOMAIN_BYTES_MAX {
        return false;
    }
    (is_dot_string(local) || is_quoted_string(local)) && (is_domain(domain) || is_address_literal(domain))
}

fn is_dot_string(local: &[u8]) -> bool {
    local.split(|byte| *byte == b'.').all(|atom| !atom.is_empty() && atom.iter().all(|byte| is_atext(*byte)))
}

fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn is_quoted_string(local: &[u8]) -> bool {
    let Some(inside) = local.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else { return false };
    let mut bytes = inside.iter();
    while let Some(byte) = bytes.next() {
        let fine = match byte {
            b'\\' => bytes.next().is_some_and(|escaped| *escaped == b' ' || escaped.is_ascii_graphic()),
            b'"' => false,
            b' ' => true,
            other => other.is_ascii_graphic() || *other >= 0x80,
        };
        if !fine {
            return false;
        }
    }
    true
}

/// Letters, digits, hyphens; also underscores, which hosts in the wild have.
fn is_domain(domain: &[u8]) -> bool {
    domain.len() <= DOMAIN_BYTES_MAX
        && domain.split(|byte| *byte == b'.').all(|label| {
            (1..=LABEL_BYTES_MAX).contains(&label.len())
                && label.first() != Some(&b'-')
                && label.last() != Some(&b'-')
                && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || *byte >= 0x80)
        })
}

/// `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3); no other tag is registered.
fn is_address_literal(domain: &[u8]) -> bool {
    let Some(inside) = domain.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")) else { return false };
    let Ok(inside) = std::str::from_utf8(inside) else { return false };
    match inside.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => address.parse::<Ipv6Addr>().is_ok(),
        _ => inside.parse::<Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_some() {
        for (text, mailbox) in [
            ("<a@b>", "a@b"),
            ("<First.Last+tag=x@mail.Example.ORG>", "First.Last+tag=x@mail.Example.ORG"),
            ("<@hop.example,@b.example:user@dest.example>", "user@dest.example"),
            ("<\"a b>@\\\" c\"@example.org>", "\"a b>@\\\" c\"@example.org"),
            ("<\"\"@example.org>", "\"\"@example.org"),
            ("<u@[192.0.2.1]>", "u@[192.0.2.1]"),
            ("<u@[IPv6:2001:db8::1]>", "u@[IPv6:2001:db8::1]"),
            ("<ü@bücher.example>", "ü@bücher.example"),
            ("<u@host_1.example>", "u@host_1.example"),
        ] {
            assert_eq!(parse(text.as_bytes()), Some((Path::Mailbox(mailbox), &b""[..])), "{text}");
        }
        assert_eq!(parse(b"<> SIZE=1"), Some((Path::Null, &b" SIZE=1"[..])));
        assert_eq!(parse(b"<PostMaster>"), Some((Path::Postmaster, &b""[..])));
    }

    #[test]
    fn addresses_that_are_none() {
        let long_local = format!("<{}@b>", "x".repeat(LOCAL_PART_BYTES_MAX + 1));
        let long_label = format!("<a@{}>", "x".repeat(LABEL_BYTES_MAX + 1));
        let long_domain = format!("<a@{}b>", "x.".repeat(128));
        for text in [
            "",
            "a@b",
            "<a@b",
            "<a@b>x",
            "<a>",
            "<@b>",
            "<a@>",
            "<a@b.>",
            "<a@.b>",
            "<.a@b>",
            "<a.@b>",
            "<a..b@c>",
            "<a b@c>",
            "<a@b c>",
            "<a@-b>",
            "<a@b->",
            "<a@b@c>",
            "<@a:b>",
            "<@a,b:c@d>",
            "<\"a@b>",
            "<\"a\"b@c>",
            "<\"a\\\"@b>",
            "<a@[1.2.3]>",
            "<a@[IPv6:1.2.3.4]>",
            "<a@[::1]>",
            "<a@[x:1]>",
            "<a@b]>",
            "<<a@b>>",
            "<(x)a@b>",
            "<a@b,c@d>",
            "< >",
            &long_local,
            &long_label,
            &long_domain,
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(b"<\xff@b>"), None);
        assert_eq!(parse(b"<a\x00@b>"), None);
    }
}
