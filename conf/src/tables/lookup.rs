//! Lookups as values: what was answered, and what to ask next. Nobody is asked here; the same walk serves memory, SQL, LDAP
//! and the simulator.

use super::{Key, Keys};

/// What a table says to one key. Three answers and *not yet*, never two: a failing table must not look like an empty one
/// (grammar §7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// It is there.
    Found(T),
    /// It is not there.
    NotFound,
    /// Nobody knows: temporary, whatever is decided with it.
    Failed,
    /// The question is on its way, or must be sent.
    Pending,
}

impl<T> Answer<T> {
    /// The same answer about another value.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Self::Found(value) => Answer::Found(make(value)),
            Self::NotFound => Answer::NotFound,
            Self::Failed => Answer::Failed,
            Self::Pending => Answer::Pending,
        }
    }
}

/// One question with all its derived keys.
#[derive(Clone, Debug)]
pub struct Walk<'k> {
    keys: Keys<'k>,
}

/// What a walk wants.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "made for one question, on the stack, and not kept")]
pub enum Need<'k, T> {
    /// Ask for this key, and tell [`Walk::advance`] what was said.
    Key(Key<'k>),
    /// Nothing: this is the answer to the question.
    Nothing(Answer<T>),
}

impl<'k> Walk<'k> {
    /// At the first key.
    pub fn new(keys: Keys<'k>) -> Self {
        Self { keys }
    }

    /// The next key to ask for, given what was said to the last one. Begin with [`Answer::NotFound`].
    pub fn advance<T>(&mut self, last: Answer<T>) -> Need<'k, T> {
        match last {
            Answer::NotFound => self.keys.next().map_or(Need::Nothing(Answer::NotFound), Need::Key),
            // A failure ends the walk: no later key may decide instead.
            decided => Need::Nothing(decided),
        }
    }

    /// Walks to the end with a table that answers at once.
    pub fn run<T>(mut self, mut ask: impl FnMut(&str) -> Answer<T>) -> Answer<T> {
        let mut last = Answer::NotFound;
        loop {
            match self.advance(last) {
                Need::Key(key) => last = ask(key.as_str()),
                Need::Nothing(answer) => return answer,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::ServiceKind;

    #[test]
    fn the_first_found_key_wins_and_a_failure_ends_the_walk() {
        let walk = || Walk::new(Keys::new(ServiceKind::Domain, "a.b.org", '+'));
        let found = walk().run(|key| if key == "*.org" { Answer::Found(1) } else { Answer::NotFound });
        assert_eq!(found, Answer::Found(1));
        let failed = walk().run(|key| match key {
            "*.b.org" => Answer::Failed,
            "*.org" => Answer::Found(1),
            _ => Answer::NotFound,
        });
        assert_eq!(failed, Answer::Failed);
        assert_eq!(walk().run(|_| Answer::<u8>::NotFound), Answer::NotFound);
        assert_eq!(walk().run(|_| Answer::<u8>::Pending), Answer::Pending);
    }
}
