//! K_STRING: plain words.

use std::collections::HashSet;

/// A list of words, compared as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WordSet(HashSet<Box<str>>);

impl WordSet {
    /// Adds an entry; `false` if there is nothing in it.
    pub fn insert(&mut self, entry: &str) -> bool {
        !entry.is_empty() && {
            self.0.insert(entry.into());
            true
        }
    }

    /// Whether the word is in it.
    pub fn contains(&self, word: &str) -> bool {
        self.0.contains(word)
    }
}
