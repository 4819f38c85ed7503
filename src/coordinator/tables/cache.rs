//! Answers that are kept: bounded in number and bytes, the oldest half is forgotten at once. Pure: it is told the time.

use std::collections::HashMap;
use std::time::Instant;

use super::limits::{CACHE_BYTES, CACHE_ENTRIES, CACHE_ENTRY_BYTES};
use super::service::Service;

/// What is asked of one table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// The kind of answer; services do not mix.
    pub service: Service,
    /// The key; empty where all is asked for.
    pub key: String,
}

/// An answer and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// `None`: there is no such entry.
    pub value: Option<String>,
    /// When the backend said so.
    pub at: Instant,
}

/// Two halves: new answers go to the young one. When that is full the old one is dropped and the young one grows old, so
/// that nothing has to be sorted or swept; what is asked for stays young.
#[derive(Debug, Default)]
pub struct Cache {
    young: Half,
    old: Half,
}

#[derive(Debug, Default)]
struct Half {
    answers: HashMap<Question, Kept>,
    bytes: usize,
}

impl Half {
    fn insert(&mut self, question: Question, kept: Kept) {
        self.remove(&question);
        self.bytes += size(&question, &kept);
        self.answers.insert(question, kept);
    }

    fn remove(&mut self, question: &Question) -> Option<(Question, Kept)> {
        let found = self.answers.remove_entry(question)?;
        self.bytes -= size(&found.0, &found.1);
        Some(found)
    }
}

fn size(question: &Question, kept: &Kept) -> usize {
    CACHE_ENTRY_BYTES + question.key.len() + kept.value.as_ref().map_or(0, String::len)
}

impl Cache {
    /// What is known, however old.
    pub fn get(&mut self, question: &Question) -> Option<&Kept> {
        if let Some((question, kept)) = self.old.remove(question) {
            self.put(question, kept);
        }
        self.young.answers.get(question)
    }

    /// Keeps an answer instead of what was known before.
    pub fn insert(&mut self, question: Question, value: Option<String>, at: Instant) {
        self.old.remove(&question);
        self.put(question, Kept { value, at });
    }

    fn put(&mut self, question: Question, kept: Kept) {
        if self.young.answers.len() >= CACHE_ENTRIES / 2 || self.young.bytes + size(&question, &kept) > CACHE_BYTES / 2
        {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(question, kept);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many answers there are.
    pub fn len(&self) -> usize {
        self.young.answers.len() + self.old.answers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(key: impl Into<String>) -> Question {
        Question { service: Service::Alias, key: key.into() }
    }

    #[test]
    fn what_is_used_stays_and_nothing_grows() {
        let now = Instant::now();
        let mut cache = Cache::default();
        cache.insert(question("used"), Some("x".into()), now);
        for number in 0..3 * CACHE_ENTRIES {
            cache.insert(question(number.to_string()), None, now);
            assert!(cache.get(&question("used")).is_some(), "after {number}");
            assert!(cache.len() <= CACHE_ENTRIES);
        }
        assert!(cache.get(&question("0")).is_none());
    }

    #[test]
    fn bytes_are_bounded_and_counted_right() {
        let now = Instant::now();
        let mut cache = Cache::default();
        let large = "x".repeat(60_000);
        for number in 0..1000 {
            cache.insert(question(format!("k{}", number % 500)), Some(large.clone()), now);
            assert!(cache.young.bytes + cache.old.bytes <= CACHE_BYTES);
        }
        for half in [&cache.young, &cache.old] {
            assert_eq!(half.bytes, half.answers.iter().map(|(q, k)| size(q, k)).sum::<usize>());
        }
        cache.clear();
        assert_eq!((cache.len(), cache.young.bytes), (0, 0));
    }

    #[test]
    fn services_do_not_mix_and_the_newest_counts() {
        let now = Instant::now();
        let mut cache = Cache::default();
        cache.insert(question("a"), Some("1".into()), now);
        cache.insert(question("a"), Some("2".into()), now);
        assert_eq!(cache.get(&question("a")).unwrap().value.as_deref(), Some("2"));
        assert!(cache.get(&Question { service: Service::Domain, key: "a".into() }).is_none());
        assert_eq!(cache.len(), 1);
    }
}
