//! K_REGEX: regular expressions in linear time, unanchored, case-insensitive.

use regex::{RegexSet, RegexSetBuilder};

use crate::limits::REGEX_BYTES_MAX;

/// A compiled list of expressions.
#[derive(Clone, Debug)]
pub struct Patterns(RegexSet);

impl Patterns {
    /// Compiles all of them together. The error is about the set as a whole; [`Patterns::check`] finds the culprit.
    pub fn new<'a>(expressions: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        builder(expressions).build().map(Self).map_err(|error| explain(&error))
    }

    /// Whether one expression is good by itself.
    pub fn check(expression: &str) -> Result<(), String> {
        builder([expression]).build().map(|_| ()).map_err(|error| explain(&error))
    }

    /// Whether some expression matches somewhere in `text`.
    pub fn find(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        self.0.patterns() == other.0.patterns()
    }
}

fn builder<'a>(expressions: impl IntoIterator<Item = &'a str>) -> RegexSetBuilder {
    let mut builder = RegexSetBuilder::new(expressions);
    builder.case_insensitive(true).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX);
    builder
}

/// The last line of the library's drawing says what is wrong; the report draws the place itself.
fn explain(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "too large when compiled".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let p = Patterns::new(["^abuse\\+.*@example\\.com$", "dyn"]).unwrap();
        assert!(p.find("Abuse+x@example.com") && p.find("host-DYNamic.example"));
        assert!(!p.find("abuse@example.com"));
        assert_eq!(Patterns::check("a(b"), Err("unclosed group".to_owned()));
        assert!(Patterns::check(r"(a)\1").is_err());
        assert_eq!(Patterns::check("((a{500}){500}){500}"), Err("too large when compiled".to_owned()));
    }
}
