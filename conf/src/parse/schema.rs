//! The shape of the grammar's data (grammar §3): which words may stand where, and of what kind their arguments are. The
//! statements themselves are in `grammar/`; `form.rs` reads by them, `canonical.rs` prints by them.

use crate::tables::ServiceKind;

/// One way to write a statement.
#[derive(Debug)]
pub(crate) struct Form {
    /// Its first word.
    pub(crate) statement: &'static str,
    /// What messages call it.
    pub(crate) name: &'static str,
    pub(crate) head: &'static [Item],
    pub(crate) options: &'static [Opt],
    pub(crate) rest: Rest,
}

/// What stands at a fixed place.
#[derive(Debug)]
pub(crate) enum Item {
    /// This word; where forms differ here, it tells them apart.
    Key(&'static str),
    /// An argument.
    Arg(Kind),
}

/// How what follows the head is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Options in any order, each at most once.
    Options,
    /// Names of limits, at least one; an unknown one is E0510.
    Limits,
    /// Conditions, each of which may have a `!`, and then one of the options that are [`Opt::last`], which must be there: this
    /// is what is missing otherwise.
    Conditions(&'static str),
}

/// An option, a limit or a condition.
#[derive(Debug)]
pub(crate) struct Opt {
    /// Its words; mostly one.
    pub(crate) words: &'static [&'static str],
    pub(crate) kind: Kind,
    pub(crate) count: Times,
    /// The words of today, if these are of long ago.
    pub(crate) today: Option<&'static str>,
    /// It ends the statement.
    pub(crate) last: bool,
}

/// How often an option may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    Once,
    Often,
}

impl Opt {
    pub(crate) const fn new(words: &'static [&'static str], kind: Kind) -> Self {
        Self { words, kind, count: Times::Once, today: None, last: false }
    }

    /// An old word for another option of the same form.
    pub(crate) const fn old(words: &'static [&'static str], today: &'static str, kind: Kind) -> Self {
        Self { words, kind, count: Times::Once, today: Some(today), last: false }
    }

    pub(crate) const fn often(self) -> Self {
        Self { count: Times::Often, ..self }
    }

    pub(crate) const fn last(self) -> Self {
        Self { last: true, ..self }
    }

    /// Its first word.
    pub(crate) fn first(&self) -> &'static str {
        self.words[0]
    }
}

/// What a table is asked for, and how its entries are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) service: ServiceKind,
    pub(crate) shape: Shape,
    /// `for domain`, where the keyword alone would not say it.
    pub(crate) called: Option<&'static str>,
}

/// List or mapping, and where a service has two kinds of values, which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Shape {
    List,
    Mapping,
    /// K_CREDENTIALS with which a relay logs in, not those that a listener checks.
    Logins,
    /// K_CERT from subject to user, not from name to chain and key.
    Subjects,
}

/// What an argument is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// None: the word is enough.
    Flag,
    /// Any word; what it is, for messages.
    Word(&'static str),
    /// A word, unless what follows is an option.
    MaybeWord,
    /// A domain or address literal.
    HostName,
    /// `NAME` or `{ NAME, … }`.
    Names,
    /// `{ NAME, … }`.
    NameBlock,
    /// `<t>`, `{ … }` or a word.
    Targ(Use),
    /// `<t>` alone.
    Table(Use),
    /// `<t>` or `{ … }`, or nothing.
    MaybeTable(Use),
    /// `{ … }` alone.
    Literal,
    /// `[regex] targ`.
    Pattern(Use),
    /// The same, or nothing.
    MaybePattern(Use),
    Duration,
    /// `{ DURATION, … }`.
    DurationBlock,
    /// One or more, separated by commas, ascending.
    Durations,
    Size,
    /// A size or a percentage.
    SizeOrPercent,
    Count(u32),
    /// A count or a duration: limits of OpenSMTPD are in seconds.
    Seconds,
    Port,
    Rate,
    /// `{ RATE, … }`.
    Rates,
    Percent,
    MaybePercent,
    Choice(&'static [&'static str]),
    MaybeChoice(&'static [&'static str]),
    /// A reply; of `reject` in rules, or nothing.
    Reply,
    MaybeReply,
    /// One punctuation character.
    Delimiter,
    /// `2-9`, `0,2`.
    Cores,
    /// Octal.
    Mode,
    /// `auto` or a number.
    ShardCount,
    /// An IP address or `localhost`.
    Address,
    /// `all`, `egress`, an interface, an address or a host name.
    Place,
    /// `{ OPTION, … }`.
    Block(&'static [Opt]),
    /// `{ WORD OPTION …, … }`: what the word is, and its options.
    Items(&'static str, &'static [Opt]),
    /// A table's name, with or without brackets.
    TableName,
    /// Entries, a path, or BACKEND:ARGUMENT.
    TableSource,
    /// One of these, told apart by its first word.
    OneOf(&'static [Opt]),
    /// The option if its word is there, else the argument.
    Else(&'static Opt, &'static Kind),
    /// The argument, and then any of these options.
    Then(&'static Kind, &'static [Opt]),
}
