//! What was written, before names are looked up. Values are checked already; everything knows its place.

use std::net::SocketAddr;
use std::time::Duration;

use crate::model::{Commit, Family, Reserve, Where};
use crate::source_text::Span;

/// A word and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    /// A quoted word is never a keyword.
    pub(crate) quoted: bool,
    pub(crate) span: Span,
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// All statements, by kind, in the order of the files.
#[derive(Debug, Default)]
pub(crate) struct Ast {
    pub(crate) listens: Vec<ListenLine>,
    pub(crate) tables: Vec<TableLine>,
    pub(crate) actions: Vec<ActionLine>,
    pub(crate) matches: Vec<MatchLine>,
    pub(crate) settings: Settings,
    /// A statement was given up: what it names may be used or declared there, so nobody complains about what is missing.
    pub(crate) broken: bool,
}

#[derive(Debug)]
pub(crate) struct ListenLine {
    pub(crate) place: Where,
    pub(crate) family: Family,
    pub(crate) port: Option<u16>,
    pub(crate) hostname: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) message_bytes_max: Option<u64>,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) struct TableLine {
    pub(crate) name: String,
    /// The name, with the brackets if it has some.
    pub(crate) name_span: Span,
    pub(crate) body: TableBody,
}

#[derive(Debug)]
pub(crate) enum TableBody {
    Static(Entries),
    File(Word),
    /// There was an error in it; its name counts as declared.
    Broken,
}

/// What stands in `{ … }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entries {
    pub(crate) list: Vec<Entry>,
    pub(crate) span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Word,
    /// Empty in a list.
    pub(crate) values: Vec<Word>,
}

/// A table, or one literal entry.
#[derive(Clone, Debug)]
pub(crate) enum Targ {
    Table(At<String>),
    Literal(Entries),
    Word(Word),
}

/// `[regex] targ`, and the keyword that asks.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub(crate) keyword: At<&'static str>,
    pub(crate) regex: bool,
    pub(crate) targ: Targ,
}

#[derive(Debug)]
pub(crate) struct ActionLine {
    pub(crate) name: Word,
    pub(crate) kind: ActionKindLine,
    pub(crate) ttl: Option<Duration>,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) enum ActionKindLine {
    Relay(RelayLine),
    Maildir(Word),
    Discard,
    /// There was an error in it; its name counts as declared.
    Broken,
}

#[derive(Debug, Default)]
pub(crate) struct RelayLine {
    pub(crate) host: Option<(At<&'static str>, Targ)>,
    pub(crate) helo: Option<String>,
    pub(crate) src: Option<(At<&'static str>, Targ)>,
}

#[derive(Debug)]
pub(crate) struct MatchLine {
    pub(crate) from: Option<Negatable<FromLine>>,
    pub(crate) dest: Option<Negatable<DestLine>>,
    pub(crate) traits: Vec<Negatable<TraitLine>>,
    pub(crate) outcome: OutcomeLine,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) struct Negatable<T> {
    pub(crate) negated: bool,
    pub(crate) value: T,
}

#[derive(Debug)]
pub(crate) enum FromLine {
    Any,
    Local,
    Socket,
    Source(Pattern),
    Sender(Pattern),
}

#[derive(Debug)]
pub(crate) enum DestLine {
    Any,
    Local,
    Domain(Pattern),
    Recipient(Pattern),
}

#[derive(Debug)]
pub(crate) enum TraitLine {
    Helo(Pattern),
    Sender(Pattern),
    Recipient(Pattern),
    Tag(Pattern),
}

#[derive(Debug)]
pub(crate) enum OutcomeLine {
    Action(Word),
    Reject(Option<crate::model::Reply>),
}

/// Settings: each at most once in all files.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// By name of the limit.
    pub(crate) smtp_limits: Vec<(&'static str, At<SmtpLimit>)>,
    pub(crate) message_bytes_max: Option<At<u64>>,
    pub(crate) sub_address_delimiter: Option<At<char>>,
    pub(crate) queue_ttl: Option<At<Duration>>,
    pub(crate) queue_backend: Option<At<()>>,
    pub(crate) warn_after: Option<At<Vec<Duration>>>,
    pub(crate) shards: Option<At<ShardsLine>>,
    pub(crate) store: Option<At<StoreLine>>,
    pub(crate) http: Option<At<SocketAddr>>,
    pub(crate) control: Option<At<String>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum SmtpLimit {
    Count(u32),
    Time(Duration),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ShardsLine {
    pub(crate) count: Option<u16>,
    pub(crate) cores: Vec<usize>,
    pub(crate) coordinator: Option<usize>,
    pub(crate) memory_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct StoreLine {
    pub(crate) path: Option<String>,
    pub(crate) segment_bytes: Option<u64>,
    pub(crate) spare_segments: Option<u32>,
    pub(crate) spool_memory_bytes: Option<u64>,
    pub(crate) state_delay: Option<Duration>,
    pub(crate) reserve: Option<Reserve>,
    pub(crate) commit: Option<Commit>,
}
