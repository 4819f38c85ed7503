//! Actions: what may be done with a recipient (grammar §4.4).

use std::time::Duration;

use super::{Keyed, Line, Relay};
use crate::command::Command;
use crate::format::Format;
use crate::tables::{AliasTarget, UserRecord};

/// A named action.
#[derive(Clone, Debug)]
pub struct Action {
    /// Its name, for logs.
    pub name: String,
    /// What it does.
    pub kind: ActionKind,
    /// `alias` or `virtual`: what recipients become before that.
    pub mapping: Option<Mapping>,
    /// What only local deliveries have.
    pub local: LocalOptions,
    /// `feedback`: reports among the mail that it delivers are read.
    pub feedback: bool,
    /// How long a message may stay queued; by default [`super::Queue::ttl`].
    pub ttl: Duration,
    /// The line that declares it.
    pub line: Line,
}

/// What an action does.
#[derive(Clone, Debug)]
pub enum ActionKind {
    /// Send it on.
    Relay(Box<Relay>),
    /// Deliver into the system's mailbox of the user.
    Mbox,
    /// Deliver into a Maildir.
    Maildir(Maildir),
    /// Give it to a program.
    Mda(Mda),
    /// Hand it over by LMTP.
    Lmtp(Lmtp),
    /// Only what aliases make of it; who is left over is refused, 550.
    ExpandOnly,
    /// Only what `.forward` makes of it; who is left over is refused, 451.
    ForwardOnly,
    /// Accept, record, deliver nowhere.
    Discard,
}

impl ActionKind {
    /// Whether the recipient becomes a user of this host: everything but `relay` and `discard`.
    pub fn is_local(&self) -> bool {
        !matches!(self, Self::Relay(_) | Self::Discard)
    }
}

/// `alias <t>` or `virtual <t>` (grammar §6.2). Both are lookups of K_ALIAS: with `Alias` the keys are those of a user, with
/// `Virtual` those of an address ([`crate::tables::Keys::alias`]).
#[derive(Clone, Debug)]
pub enum Mapping {
    /// Users that stand for others.
    Alias(Keyed<Vec<AliasTarget>>),
    /// Addresses that stand for users; who is not in it does not exist.
    Virtual(Keyed<Vec<AliasTarget>>),
}

/// Options of local deliveries.
#[derive(Clone, Debug, Default)]
pub struct LocalOptions {
    /// `user`: all deliveries are made as this user, and `.forward` of others is not read.
    pub user: Option<String>,
    /// `userbase`: where users are looked up (K_USERINFO); by default the system.
    pub userbase: Option<Keyed<UserRecord>>,
    /// `wrapper`: the command of `mda wrapper`, with its `%{mda}`.
    pub wrapper: Option<Command>,
}

/// `maildir [PATH] [junk]`.
#[derive(Clone, Debug)]
pub struct Maildir {
    /// The directory, with `%{…}`; `--root` is in front already, unless it begins with `~/`, the home directory of the user.
    pub path: Format,
    /// What filters call junk goes to the folder `Junk`.
    pub junk: bool,
}

/// `mda COMMAND`.
#[derive(Clone, Debug)]
pub struct Mda {
    /// The program and its arguments.
    pub command: Command,
}

/// `lmtp DESTINATION [rcpt-to]`.
#[derive(Clone, Debug)]
pub struct Lmtp {
    /// A socket's path (it begins with `/`; `--root` is in front already) or `host:port`, with `%{…}`.
    pub destination: Format,
    /// Say the recipient's address, not the user's name.
    pub rcpt_to: bool,
}
