//! What an expansion asks for, and what it is told.

use std::path::PathBuf;

use super::User;
use crate::facts::Lookup;

/// Something that an expansion must know before it can go on. Whoever drives it may ask for several at once, in any order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// A table, or the client's name. For K_ALIAS the answer is the list of values, for K_USERINFO the record; else it counts
    /// only that there is one.
    Lookup(Lookup),
    /// The system's record of a user, as K_USERINFO has it: `name:uid:gid:home`.
    User(String),
    /// The text of `.forward` in the home of a user, read as that user.
    Forward(User),
    /// The text of a file that `:include:` names.
    Include {
        /// Absolute; `--root` is in front already.
        path: PathBuf,
        /// Whose rights are needed: of the user whose `.forward` names it. `None`: the server's own.
        user: Option<User>,
    },
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The text of what was found.
    Found(String),
    /// It is not there.
    NotFound,
    /// It is there, but others may have written it: its owner can mend that.
    Unsafe(String),
    /// Nobody knows; and why, for the log. Temporary, whatever is decided with it.
    Failed(String),
}
