//! Filters: what is asked of a session on its way, and who is asked (grammar §4.6).

use std::path::PathBuf;
use std::time::Duration;

use super::{Line, Reply};
use crate::command::Command;
use crate::rules::{Among, Negation};
use crate::tables::{AddressSet, DomainSet, SourceSet, WordSet};

/// A named filter.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: FilterKind,
    /// The line that declares it.
    pub line: Line,
}

/// The kinds of filters.
#[derive(Clone, Debug)]
pub enum FilterKind {
    /// Conditions of the language itself, all required.
    Builtin {
        /// When it is asked.
        phase: Phase,
        /// What must hold.
        conditions: Vec<FilterCondition>,
        /// What then happens.
        decision: FilterDecision,
    },
    /// Others, one after the other.
    Chain(Vec<String>),
    /// A program that is declared by `proc`.
    Proc(String),
    /// A program of its own, which speaks smtpd-filters(7).
    Program(Program),
    /// A milter.
    Milter {
        /// `unix:/path` or `inet:port@host`.
        socket: String,
        /// So long is waited for it.
        timeout: Duration,
        /// What its sessions get while it is away.
        on_failure: OnFailure,
    },
}

/// `proc NAME COMMAND`.
#[derive(Clone, Debug)]
pub struct Proc {
    /// Its name.
    pub name: String,
    /// The program.
    pub program: Program,
    /// The line that declares it.
    pub line: Line,
}

/// A helper that the supervisor runs.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program and its arguments.
    pub command: Command,
    /// `user`.
    pub user: Option<String>,
    /// `group`.
    pub group: Option<String>,
    /// `chroot`; `--root` is in front already.
    pub chroot: Option<PathBuf>,
    /// So long is waited for an answer.
    pub timeout: Duration,
    /// What its sessions get while it is away.
    pub on_failure: OnFailure,
}

/// `on-failure`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// 451 4.7.1.
    #[default]
    TempFail,
    /// As if it were not there.
    Bypass,
}

/// When a filter is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// A client has connected.
    Connect,
    /// HELO.
    Helo,
    /// EHLO.
    Ehlo,
    /// AUTH.
    Auth,
    /// MAIL.
    MailFrom,
    /// RCPT.
    RcptTo,
    /// DATA.
    Data,
    /// The message is there.
    Commit,
}

/// One condition.
#[derive(Clone, Debug)]
pub struct FilterCondition {
    /// `!` or not.
    pub negation: Negation,
    /// What is tested.
    pub test: FilterTest,
}

/// What a filter can test.
#[derive(Clone, Debug)]
pub enum FilterTest {
    /// The client's name has the client's address.
    ForwardConfirmed,
    /// The client's name, or any.
    ReverseName(Option<Among<DomainSet>>),
    /// The client's address.
    Source(Among<SourceSet>),
    /// HELO or EHLO.
    Helo(Among<DomainSet>),
    /// The user, or any.
    Authenticated(Option<Among<WordSet>>),
    /// MAIL FROM.
    Sender(Among<AddressSet>),
    /// RCPT TO.
    Recipient(Among<AddressSet>),
    /// The client's address is listed in one of these zones.
    Listed(Vec<String>),
    /// What SPF says: a word of RFC 8601 §2.7.2.
    Spf(&'static str),
    /// What DMARC says: `pass`, `fail` or `none`.
    Dmarc(&'static str),
}

/// What a filter does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterDecision {
    /// No further filters in this phase.
    Bypass,
    /// The message is junk.
    Junk,
    /// Reply, and close.
    Disconnect(Reply),
    /// Reply.
    Reject(Reply),
    /// Go on with another argument.
    Rewrite(String),
    /// Say so in the log.
    Report(String),
}
