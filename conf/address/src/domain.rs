//! Domain names: syntax, one normal form, and the wildcard `*.example.org`.

use std::fmt;
use std::sync::Arc;

use crate::limits::{DOMAIN_BYTES_MAX, LABEL_BYTES_MAX};

/// A domain name in normal form: lower case, no trailing dot. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Arc<str>);

impl Domain {
    /// Reads a name such as `mx.Example.org` or `mx.example.org.`; `None` if it is not one ([`is_domain_name`]).
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        is_domain_name(text).then(|| Self(text.to_lowercase().into()))
    }

    /// The name, lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Domain {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Whether `text` is a domain name as mail knows it (RFC 5321 §4.1.2, RFC 6531 §3.3): labels of letters, digits, inner
/// hyphens, underscores (not in the RFC, but in use) and non-ASCII letters. A lone dotted number such as `1.2.3.4` is not one.
pub fn is_domain_name(text: &str) -> bool {
    if text.is_empty() || text.len() > DOMAIN_BYTES_MAX {
        return false;
    }
    let mut last_is_number = false;
    for label in text.split('.') {
        let bytes = label.as_bytes();
        if bytes.is_empty() || bytes.len() > LABEL_BYTES_MAX || bytes[0] == b'-' || bytes[bytes.len() - 1] == b'-' {
            return false;
        }
        if !bytes.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b >= 0x80) {
            return false;
        }
        last_is_number = bytes.iter().all(u8::is_ascii_digit);
    }
    // RFC 3696 §2: a top-level label is never all digits; without this an address with a slip (`91.121.164.520`) would pass for a name.
    !last_is_number && !text.chars().any(|c| !c.is_ascii() && (c.is_control() || c.is_whitespace()))
}

/// The domains above `name`, nearest first: of `a.b.org`, `b.org` and `org`.
pub fn parents(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let (_, above) = rest.split_once('.')?;
        rest = above;
        Some(above)
    })
}

/// Whether the pattern's wildcard covers `name`. `*` covers everything; `*.example.org` any name below `example.org`, at any
/// depth, but not `example.org`; anything else only itself. ASCII case does not count.
pub fn wildcard_matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) if suffix.starts_with('.') => {
            let (name, suffix) = (name.as_bytes(), suffix.as_bytes());
            name.len() > suffix.len() && name[name.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
        }
        _ => pattern.eq_ignore_ascii_case(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_other_texts() {
        for good in ["example.org", "localhost", "a-b.c_d.org", "xn--bcher-kva.example", "bücher.example", "1.2.org"] {
            assert!(is_domain_name(good), "{good}");
        }
        let long_label = format!("{}.org", "a".repeat(64));
        let bad = ["", ".", "a..b", ".a", "a.", "-a.org", "a-.org", "a b", "1.2.3.4", "91.121.164.520", "a/b", "a@b"];
        for bad in bad.into_iter().chain([long_label.as_str(), "a\u{a0}b.org"]) {
            assert!(!is_domain_name(bad), "{bad}");
        }
    }

    #[test]
    fn one_normal_form() {
        assert_eq!(Domain::parse("MX.Example.ORG."), Domain::parse("mx.example.org"));
        assert_eq!(Domain::parse("BÜCHER.example").unwrap().as_str(), "bücher.example");
        assert_eq!(Domain::parse("no such"), None);
    }

    #[test]
    fn wildcards_match_any_depth_but_not_the_domain_itself() {
        assert!(wildcard_matches("*.poolp.org", "a.b.POOLP.org"));
        assert!(!wildcard_matches("*.poolp.org", "poolp.org"));
        assert!(!wildcard_matches("*.poolp.org", "xpoolp.org"));
        assert!(!wildcard_matches("*.poolp.org", "poolp.org.example"));
        assert!(wildcard_matches("*", "anything"));
        assert!(wildcard_matches("Poolp.org", "poolp.ORG"));
    }

    #[test]
    fn parents_go_up() {
        assert_eq!(parents("a.b.org").collect::<Vec<_>>(), ["b.org", "org"]);
        assert_eq!(parents("org").count(), 0);
    }
}
