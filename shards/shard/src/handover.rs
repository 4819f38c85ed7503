//! What a shard hands over to the supervisor: deliveries that are another user's to make, and the reading of files that
//! are another user's to read. Plain values, and a trait for the way there: by the coordinator and a socket in the engine,
//! a table in the simulation.

use std::io;
use std::path::PathBuf;

use ringpost_conf::expand::Told;
use ringpost_smtp::Status;
use serde::{Deserialize, Serialize};

/// A user as a table or the system has it; he need not exist anywhere else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UserRecord {
    /// Login name; names the mailbox in the spool.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
    /// Home directory, absolute.
    pub home: PathBuf,
    /// His group is his only one, and nobody is asked for more.
    pub in_table: bool,
}

/// How a copy is delivered. Everything is expanded; nothing is split or interpreted any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// Appended to the user's mailbox in a spool directory.
    Mbox {
        /// `/var/mail`, or where a test has its own.
        spool: PathBuf,
    },
    /// A file of its own in a Maildir, which is made if need be.
    Maildir {
        /// The directory, absolute.
        path: PathBuf,
        /// Into its folder `.Junk`.
        junk: bool,
    },
    /// Appended to this file, as to a mailbox.
    File {
        /// Absolute.
        path: PathBuf,
    },
    /// Given to a program on its standard input; no shell comes near it.
    Program {
        /// The program, by its path or found in PATH, and what it is told.
        arguments: Vec<String>,
    },
}

impl How {
    /// A word for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mbox { .. } => "mbox",
            Self::Maildir { .. } => "maildir",
            Self::File { .. } => "file",
            Self::Program { .. } => "mda",
        }
    }
}

/// One delivery. Its text travels beside it: LF line ends, with all the fields that final delivery adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// Whose it is.
    pub user: UserRecord,
    /// How it is made.
    pub how: How,
    /// Reverse-path, empty for a bounce.
    pub sender: String,
    /// The address after expansion.
    pub recipient: String,
    /// The sub-address of it, without its delimiter; often empty.
    pub extension: String,
    /// The address of the RCPT command.
    pub original: String,
    /// Names this copy, and is the same when it is delivered again: letters, digits, `.`, `-` and `_`.
    pub copy: String,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handed {
    /// It is where it should be, and stays there when the power fails.
    Delivered {
        /// A remark for the log.
        text: String,
    },
    /// Nothing was delivered; try again later.
    Temporary {
        /// Enhanced status code.
        status: Status,
        /// What happened.
        text: String,
    },
    /// Nothing was delivered, and will not be.
    Permanent {
        /// Enhanced status code.
        status: Status,
        /// What happened.
        text: String,
        /// What the program said, as far as it is kept.
        output: String,
    },
}

impl Handed {
    /// Try again later.
    pub fn temporary(status: Status, text: impl Into<String>) -> Self {
        Self::Temporary { status, text: text.into() }
    }

    /// Never try again.
    pub fn permanent(status: Status, text: impl Into<String>) -> Self {
        Self::Permanent { status, text: text.into(), output: String::new() }
    }
}

/// What reading a user's `.forward` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forwarding {
    /// Its text.
    Text(String),
    /// There is none: the mail is for the user himself.
    NotThere,
    /// It is there, but others may have written it, or the user holds his mail back. He can mend that: 451 4.2.4.
    Unsafe(String),
    /// It could not be looked at: temporary.
    Failed(String),
}

impl From<Forwarding> for Told {
    fn from(read: Forwarding) -> Self {
        match read {
            Forwarding::Text(text) => Self::Found(text),
            Forwarding::NotThere => Self::NotFound,
            Forwarding::Unsafe(why) => Self::Unsafe(why),
            Forwarding::Failed(why) => Self::Failed(why),
        }
    }
}

/// The way to the supervisor.
#[allow(async_fn_in_trait)]
pub trait HandOver: 'static {
    /// A text on its way, in memory: writing to it waits for nothing.
    type Text: io::Write + 'static;
    /// Begins a text.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    fn text(&self) -> io::Result<Self::Text>;
    /// Has a delivery made, and waits for its end: minutes, if it is a program.
    async fn deliver(&self, handover: Handover, text: Self::Text) -> Handed;
    /// Reads the `.forward` in a user's home.
    async fn forward(&self, user: UserRecord) -> Forwarding;
    /// Reads a list that a user's `.forward` includes.
    async fn list(&self, user: UserRecord, path: PathBuf) -> Forwarding;
}
