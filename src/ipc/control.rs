//! Administrators and the engine, over the control socket: a line of JSON asks, lines of JSON answer, the last of which
//! is `done` or `error`.

use ringpost_perf::Snapshot;
use ringpost_shard::{ListedEnvelope, ShownMessage};
use serde::{Deserialize, Serialize};

/// What an administrator asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Figures.
    Stats,
    /// Every envelope in the queue.
    List,
    /// One message.
    Show {
        /// Its identifier.
        id: u64,
    },
    /// All that is deferred is to be tried now.
    Retry,
    /// Read the configuration again.
    Reload,
    /// Stop.
    Stop,
}

/// A line of an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Figures.
    Stats(Box<Snapshot>),
    /// An envelope of the list.
    Envelope(ListedEnvelope),
    /// A message.
    Message(ShownMessage),
    /// That was all; what was done, if there is something to say.
    Done(String),
    /// It was not done, and why.
    Error(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_readable_lines() {
        let text = serde_json::to_string(&Request::Show { id: 7 }).unwrap();
        assert_eq!(text, r#"{"show":{"id":7}}"#);
        assert_eq!(serde_json::from_str::<Request>(r#""stats""#).unwrap(), Request::Stats);
        assert!(serde_json::from_str::<Request>(r#""shutdown""#).is_err());
    }
}
