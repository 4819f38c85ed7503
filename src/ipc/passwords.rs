//! Engine and supervisor about the passwords of the system's users, which the supervisor alone may read.

use std::fmt;

use serde::{Deserialize, Serialize};

/// From the engine: has this user this password?
#[derive(Serialize, Deserialize)]
pub struct SystemLogin {
    /// Number of the answer.
    pub number: u64,
    /// The user's name.
    pub user: String,
    /// What was typed.
    pub password: String,
}

impl fmt::Debug for SystemLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemLogin {} {:?}", self.number, self.user)
    }
}

/// From the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemVerdict {
    /// Of the question.
    pub number: u64,
    /// What was found.
    pub found: Found,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// Yes.
    Right,
    /// No, or there is no such user, or nobody may log in as him.
    Wrong,
    /// It cannot be known now.
    Failed(String),
}
