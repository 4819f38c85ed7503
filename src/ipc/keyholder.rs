//! Supervisor and keyholder. Keys, and the engine's requests to sign, come with TLS.

use serde::{Deserialize, Serialize};

/// From the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToKeyholder {
    /// First letter.
    Start {
        /// Process number of the supervisor, with which the keyholder ends.
        parent: u32,
    },
    /// Are you there?
    Ping(u64),
}

/// From the keyholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromKeyholder {
    /// It has given up all that it does not need.
    Ready,
    /// The number of the question.
    Pong(u64),
}
