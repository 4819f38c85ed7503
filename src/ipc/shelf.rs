//! Certificates of tables (K_CERT): the engine asks the supervisor for one by name, who has a process of its own look it up
//! (`crate::lookup`). A key goes on as an open file, and to the keyholder alone.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::coordinator::tables::Declared;

/// What the engine wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The table.
    pub table: String,
    /// The name that a client asks for.
    pub name: String,
    /// The certificate in DER that is known of it.
    pub known: Option<Vec<u8>>,
}

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// This chain, and a key that the keyholder has.
    New {
        /// In DER, the own certificate first.
        chain: Vec<Vec<u8>>,
        /// The key's number.
        key: u32,
    },
    /// What is known.
    Same,
    /// Nothing.
    Nothing,
    /// Nobody can say now.
    Failed(String),
}

/// What the process that looks up is told, in a file alongside the number of its parent, with which it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The table.
    pub table: Declared,
    /// Absolute paths within the backend's configuration are below this directory.
    pub root: Option<PathBuf>,
    /// The keys of the name, in their order.
    pub keys: Vec<String>,
    /// As [`Wanted::known`].
    pub known: Option<Vec<u8>>,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// This chain; the key is in the file alongside.
    New(Vec<Vec<u8>>),
    /// What is known.
    Same,
    /// Nothing.
    Nothing,
    /// Nobody can say now.
    Failed(String),
}
