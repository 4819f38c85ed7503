//! K_MAILADDR: `user@domain`, `@domain`, `user`, `*.` in the domain, `@`, `<>`.

use std::collections::HashSet;

use ringpost_address::{Folded, FoldedAddress, is_domain_name, parents, parse_literal, split_address, strip_extension};

use super::DomainSet;

/// A list of address patterns. A lookup costs a few probes for each label of the domain, however many entries there are.
#[derive(Clone, Debug, Default)]
pub struct AddressSet {
    /// `user@domain`.
    full: HashSet<Box<str>>,
    /// `user@example.org` for `user@*.example.org`.
    full_below: HashSet<Box<str>>,
    /// `user` of any domain.
    users: HashSet<Box<str>>,
    /// `@domain`.
    domains: DomainSet,
    /// `@`.
    everyone: bool,
    /// `<>`.
    null: bool,
}

impl AddressSet {
    /// Adds an entry; `false` if it is not an address pattern. Upper and lower case are the same.
    pub fn insert(&mut self, entry: &str) -> bool {
        match entry {
            "<>" => self.null = true,
            "@" => self.everyone = true,
            _ => match split_address(entry) {
                None => return insert_user(&mut self.users, entry),
                Some(("", domain)) => return self.domains.insert(domain),
                Some((local, domain)) => return self.insert_full(local, domain),
            },
        }
        true
    }

    fn insert_full(&mut self, local: &str, domain: &str) -> bool {
        let (set, domain) = match domain.strip_prefix("*.") {
            Some(suffix) => (&mut self.full_below, suffix),
            None => (&mut self.full, domain),
        };
        let good = is_user(local) && (is_domain_name(domain) || parse_literal(domain).is_some());
        if good {
            set.insert(Folded::joined(&[local, "@", domain]).as_str().into());
        }
        good
    }

    /// Whether an address is covered, by the keys of grammar §7.2: itself, without its sub-address, `@domain` and the
    /// wildcards above it, the local part alone, `@`. The null sender is covered by `<>` only.
    pub fn contains(&self, address: &FoldedAddress, delimiter: char) -> bool {
        if address.is_empty() {
            return self.null;
        }
        let (local, domain) = (address.local(), address.domain());
        let plain = strip_extension(local, delimiter);
        self.everyone
            || self.domains.contains(domain)
            || self.names(local, address.as_str(), domain)
            || plain.is_some_and(|plain| self.names(plain, Folded::joined(&[plain, "@", domain]).as_str(), domain))
    }

    fn names(&self, local: &str, whole: &str, domain: &str) -> bool {
        self.users.contains(local)
            || self.full.contains(whole)
            || (!self.full_below.is_empty()
                && parents(domain).any(|above| self.full_below.contains(Folded::joined(&[local, "@", above]).as_str())))
    }
}

fn insert_user(users: &mut HashSet<Box<str>>, entry: &str) -> bool {
    let good = is_user(entry);
    if good {
        users.insert(Folded::new(entry).as_str().into());
    }
    good
}

/// Tables list local parts without quotes.
fn is_user(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "\"<>@".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(entries: &[&str]) -> AddressSet {
        let mut set = AddressSet::default();
        for entry in entries {
            assert!(set.insert(entry), "{entry}");
        }
        set
    }

    #[track_caller]
    fn check(set: &AddressSet, inside: &[&str], outside: &[&str]) {
        for address in inside {
            assert!(set.contains(&FoldedAddress::new(address), '+'), "{address}");
        }
        for address in outside {
            assert!(!set.contains(&FoldedAddress::new(address), '+'), "{address}");
        }
    }

    #[test]
    fn lookups() {
        let some = set(&["Gilles@poolp.org", "@example.org", "@*.example.org", "root", "bob@*.example.net"]);
        check(
            &some,
            &[
                "gilles@POOLP.org",
                "gilles+list@poolp.org",
                "\"gilles\"@poolp.org",
                "x@example.org",
                "x@a.b.example.org",
                "root@anywhere.example",
                "root+x@anywhere.example",
                "postmaster@example.org",
                "bob@a.example.net",
                "bob+1@a.b.example.net",
            ],
            &["eric@poolp.org", "", "x@example.org.example", "bob@example.net", "rooty@x.example"],
        );
        check(&set(&["<>"]), &[""], &["a@b.org"]);
        check(&set(&["@"]), &["a@b.org", "postmaster"], &[""]);
    }

    #[test]
    fn bad_entries() {
        for bad in ["gilles@", "", "a b", "a@b c", "@a@b", "a@b@c", "<a@b.org>", "@-x"] {
            assert!(!AddressSet::default().insert(bad), "{bad}");
        }
    }
}
