//! K_DOMAIN: names, `*`, `*.example.org`, and `*` elsewhere.

use std::collections::HashSet;

use ringpost_address::{Folded, is_domain_name, parents, parse_literal};

use super::Glob;

/// A list of domains. A lookup costs one probe for each label, however many entries there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainSet {
    exact: HashSet<Box<str>>,
    /// `example.org` for `*.example.org`.
    below: HashSet<Box<str>>,
    globs: Vec<Glob>,
    everything: bool,
}

impl DomainSet {
    /// Adds an entry; `false` if it is not a domain.
    pub fn insert(&mut self, entry: &str) -> bool {
        let folded = Folded::new(entry.strip_suffix('.').filter(|name| *name != "*").unwrap_or(entry));
        let name = folded.as_str();
        if name == "*" {
            self.everything = true;
        } else if is_domain_name(name) || parse_literal(name).is_some() {
            self.exact.insert(name.into());
        } else if let Some(suffix) = name.strip_prefix("*.").filter(|suffix| is_domain_name(suffix)) {
            self.below.insert(suffix.into());
        } else if name.contains('*') && is_domain_name(&name.replace('*', "x")) {
            self.globs.push(Glob::new(name));
        } else {
            return false;
        }
        true
    }

    /// Whether `name`, in lower case, is covered. The empty name never is: it is a recipient without a domain.
    pub fn contains(&self, name: &str) -> bool {
        !name.is_empty()
            && (self.everything
                || self.exact.contains(name)
                || (!self.below.is_empty() && parents(name).any(|above| self.below.contains(above)))
                || self.globs.iter().any(|glob| glob.matches(name)))
    }

    /// Characters of the longest pattern that covers `name`, in lower case; the name itself is longer than any other. `None`:
    /// none does.
    pub fn longest(&self, name: &str) -> Option<usize> {
        if name.is_empty() {
            return None;
        }
        let exact = self.exact.contains(name).then_some(name.len() + 2);
        let below = || parents(name).filter(|above| self.below.contains(*above)).map(|above| above.len() + 2).max();
        let globs = self.globs.iter().filter(|glob| glob.matches(name)).map(Glob::len).max();
        exact.or_else(|| below().max(globs)).or(self.everything.then_some(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups() {
        let mut set = DomainSet::default();
        for entry in ["Poolp.org", "*.poolp.org", "mx*.example.net", "[192.0.2.1]"] {
            assert!(set.insert(entry), "{entry}");
        }
        for bad in ["", "a b", "@poolp.org", "192.0.2.1", "*.", "a..b"] {
            assert!(!set.insert(bad), "{bad}");
        }
        for name in ["poolp.org", "a.b.poolp.org", "mx7.example.net", "[192.0.2.1]"] {
            assert!(set.contains(name), "{name}");
        }
        for name in ["poolp.org.example", "xpoolp.org", "org", "", "example.net"] {
            assert!(!set.contains(name), "{name}");
        }
        let mut all = DomainSet::default();
        all.insert("*");
        assert!(all.contains("x.example") && !all.contains(""));
    }
}
