//! Administrators and the engine, over the control socket: a line of JSON asks, lines of JSON answer, the last of which
//! is `done` or `error`.

use std::net::{IpAddr, SocketAddr};

use ringpost_perf::Snapshot;
use ringpost_shard::{ListedEnvelope, ShownMessage};
use serde::{Deserialize, Serialize};

use crate::coordinator::tables::{self, Figures, Service, Shown};

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
    /// One lookup, through the server's caches, for a person.
    TableLookup {
        /// The table's name.
        table: String,
        /// Name of the service.
        service: String,
        /// The question.
        key: String,
    },
    /// One lookup as a shard has it: the first of these keys that is there.
    TableKeys {
        /// The table's name.
        table: String,
        /// What is asked for.
        service: Service,
        /// The keys of a question.
        keys: Vec<String>,
    },
    /// What tables there are; all of them without a name.
    TableShow {
        /// Its name.
        table: Option<String>,
    },
    /// What a client at this address is called: the name that the DNS has for it, if that name has the address, too.
    ClientName {
        /// Its address.
        address: IpAddr,
    },
    /// How a table fares; all of them without a name.
    TableFigures {
        /// Its name.
        table: Option<String>,
    },
    /// What is known of a table is forgotten.
    TableUpdate {
        /// Its name.
        table: String,
    },
    /// Read the configuration again.
    Reload,
    /// Where mail is taken that is made on this machine.
    Door,
    /// Stop.
    Stop,
}

/// Where mail is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// The server's name.
    pub hostname: String,
    /// Where it speaks SMTP.
    pub smtp: Vec<SocketAddr>,
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
    /// What a lookup gave, of a table or of a client's name.
    Lookup(tables::Answer),
    /// How a table fares.
    Table(Box<Figures>),
    /// A table.
    Shown(Shown),
    /// Where mail is taken.
    Door(Door),
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
