//! Lookups as values: what was answered. Nobody is asked here; the same answers serve memory, SQL, LDAP and the simulator.

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
