//! The tree of an expansion: what a recipient has become, and out of what.

use std::path::PathBuf;

use ringpost_address::{Folded, FoldedAddress};

use super::{Delivery, Question, Refusal, User};
use crate::command::Command;
use crate::format::Format;
use crate::model::Reply;

/// One node. Its parent has a lower number.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) parent: Option<usize>,
    /// How many tables, files and lists there are between the recipient and it.
    pub(crate) depth: u32,
    /// The last address node: itself, or above it.
    pub(crate) address: usize,
    pub(crate) kind: Kind,
    /// What it has come to.
    pub(crate) outcome: Option<Outcome>,
}

/// What a node is (grammar §6.2).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// The rules say what happens to it.
    Address(String),
    /// An address that is relayed by this action, whatever its table says.
    Relayed { address: String, action: usize },
    /// A user of this action; the name is in lower case, and may have a sub-address.
    User { name: String, action: usize, reach: Reach },
    /// A file.
    File { path: Format, action: usize, user: Option<User> },
    /// A program.
    Pipe { command: Command, action: usize, user: Option<User> },
    /// A list in a file of its own; `--root` is in front already.
    Include { path: PathBuf, action: usize, user: Option<User> },
    /// A reply.
    Error(Reply),
}

/// How much there may be between a user and his mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Aliases, then `.forward`.
    Anything,
    /// Nothing: `\user`, or his own name in his own `.forward`.
    Mailbox,
}

/// What became of a node.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It stands for others, by this action.
    Becomes { action: usize, kinds: Vec<Kind>, step: Step },
    /// It is a delivery.
    Delivery(Box<Delivery>),
    /// It is refused; what the log should know besides.
    Refused(Refusal, Option<String>),
    /// It repeats one of its ancestors, this one.
    Repeats(usize),
}

/// What is between a node and those that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The rules: an address becomes a user.
    Rule,
    /// A table, a `.forward`, a list: this counts for the depth.
    List(&'static str),
}

/// What must be known before a node can go on.
#[derive(Debug)]
pub(crate) struct Needs(pub(crate) Vec<Question>);

impl From<Question> for Needs {
    fn from(question: Question) -> Self {
        Self(vec![question])
    }
}

impl Kind {
    /// Whether both are the same, in what counts for loops: kind, normalised value, action. Addresses are compared without
    /// their action, which only the rules know.
    pub(crate) fn repeats(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(a), Self::Address(b)) => is_same_address(a, b),
            (Self::User { name: a, action: x, .. }, Self::User { name: b, action: y, .. }) => a == b && x == y,
            (Self::Include { path: a, .. }, Self::Include { path: b, .. }) => a == b,
            _ => false,
        }
    }
}

/// Upper and lower case, and quotes, do not count.
pub(crate) fn is_same_address(a: &str, b: &str) -> bool {
    FoldedAddress::new(a).as_str() == FoldedAddress::new(b).as_str()
}

/// The user that a local part names.
pub(crate) fn user_name(local: &str) -> String {
    Folded::new(&ringpost_address::unquote_local(local)).as_str().to_owned()
}

/// As people write it.
impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) | Self::Relayed { address, .. } => write!(f, "<{address}>"),
            Self::User { name, reach: Reach::Anything, .. } => f.write_str(name),
            Self::User { name, reach: Reach::Mailbox, .. } => write!(f, "\\{name}"),
            Self::File { path, .. } => f.write_str(path.as_written()),
            Self::Pipe { command, .. } => write!(f, "|{command}"),
            Self::Include { path, .. } => write!(f, ":include:{}", path.display()),
            Self::Error(reply) => write!(f, "error:{} {} {}", reply.code, reply.status, reply.text),
        }
    }
}
