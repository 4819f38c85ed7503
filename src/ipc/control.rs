//! Administrators and the engine, over the control socket: a line of JSON asks, lines of JSON answer, the last of which
//! is `done` or `error`.

use std::net::{IpAddr, SocketAddr};

use ringpost_perf::Snapshot;
use ringpost_shard::{HostRow, ListedEnvelope, RelayRow, RouteRow, ShownMessage, Why};
use serde::{Deserialize, Serialize};

use crate::coordinator::overrides::LimitRow;
use crate::coordinator::tables::{self, Figures, Service, Shown};
use crate::coordinator::tlsrpt::OfDomain;
use crate::coordinator::warmup::WarmupRow;

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
    /// What envelopes wait for.
    Why {
        /// Which, as [`ringpost_shard::Selector`] reads it.
        selector: String,
    },
    /// Where mail goes.
    Overview {
        /// Which part of it.
        of: Overviewed,
        /// Only what has this in it, without regard to case.
        matching: Option<String>,
    },
    /// Source addresses that warm up, and what each may send to which site.
    Warmups {
        /// Only what has this in it, without regard to case.
        matching: Option<String>,
    },
    /// Limits are to be in force, in place of those of this selector.
    LimitSet {
        /// As [`ringpost_conf::overrides`] reads it.
        selector: String,
        /// `KEY=VALUE`.
        limits: Vec<String>,
        /// For so many milliseconds; nothing: until they are unset.
        time_ms: Option<u64>,
    },
    /// What was set for a selector is to end.
    LimitUnset {
        /// Which.
        selector: String,
    },
    /// Limits that are set.
    Limits {
        /// Those of the configuration, too.
        all: bool,
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
    /// What came of encryption today to domains that have a policy about it.
    TlsReport {
        /// Make the reports now, and begin to count anew.
        end_day: bool,
    },
    /// Where mail is taken that is made on this machine.
    Door,
    /// Stop.
    Stop,
}

/// Parts of what is known of where mail goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overviewed {
    /// Hosts, and how they do.
    Hosts,
    /// Sites, and what waits for them.
    Relays,
    /// Routes, and what holds them up.
    Routes,
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
    /// What an envelope waits for.
    Why(Box<Why>),
    /// A host that mail is sent to.
    Host(Box<HostRow>),
    /// A site that mail is sent to.
    Relay(Box<RelayRow>),
    /// A route.
    Route(Box<RouteRow>),
    /// A source address that warms up.
    Warmup(WarmupRow),
    /// Limits that are in force.
    Limit(LimitRow),
    /// What a lookup gave, of a table or of a client's name.
    Lookup(tables::Answer),
    /// How a table fares.
    Table(Box<Figures>),
    /// A table.
    Shown(Shown),
    /// What came of encryption to one domain.
    Encryption(OfDomain),
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
