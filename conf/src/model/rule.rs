//! The lines that decide: `match`, and what follows from one.

use super::Line;
use crate::rules::{Condition, Dest, Negation, Origin, Test};

/// One `match` line.
#[derive(Debug)]
pub struct Match {
    /// Where the message comes from; absent in the file means `from local`.
    pub from: (Negation, Origin),
    /// Where it goes; absent in the file means `for local`.
    pub dest: (Negation, Dest),
    /// Further conditions; all are required.
    pub conditions: Vec<Condition>,
    /// What follows.
    pub outcome: Outcome,
    /// The line that says so.
    pub line: Line,
}

impl Match {
    /// `match from any for any action …`, made and not written.
    pub fn everything(action: usize, line: Line) -> Self {
        let plain = Negation::Plain;
        Self {
            from: (plain, Origin::Any),
            dest: (plain, Dest::Any),
            conditions: Vec::new(),
            outcome: Outcome::Action(action),
            line,
        }
    }

    /// Whether some condition is of this kind.
    pub(crate) fn has_test(&self, kind: impl Fn(&Test) -> bool) -> bool {
        self.conditions.iter().any(|c| kind(&c.test))
    }
}

/// What a matching line leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Index into [`Config::actions`].
    Action(usize),
    /// Refuse with this reply.
    Reject(Reply),
}

/// A reply that the file gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 4xx or 5xx.
    pub code: u16,
    /// Enhanced status (RFC 3463), of the same class as the code.
    pub status: String,
    /// The rest of the line.
    pub text: String,
}
