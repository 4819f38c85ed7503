//! Reads one argument of a kind: values are checked here, so that what is kept is right.

use std::net::IpAddr;
use std::rc::Rc;

use ringpost_address::parse_ip;

use super::ast::{Arg, At, Targ, TargKind, Word};
use super::form::alternatives;
use super::schema::{Kind, Use};
use super::statement::{Statement, Stop};
use super::tokens::{Kind as TokenKind, Token};
use crate::lex::Mark;
use crate::limits::WARN_INTERVALS_MAX;
use crate::reply::{self, BadReply};
use crate::report::Report;
use crate::values::{self, Rate};

impl Statement<'_> {
    /// Reads an argument; `who` asks for it.
    pub(super) fn argument(&mut self, kind: &'static Kind, who: &'static str) -> Result<Arg, Stop> {
        let keyword = At { value: who, span: self.last() };
        Ok(match kind {
            Kind::Flag => Arg::Nothing,
            Kind::Word(what) => Arg::Word(self.word(who, what)?),
            Kind::MaybeWord => match self.goes_on() {
                true => Arg::Nothing,
                false => Arg::Word(self.word(who, "a word")?),
            },
            Kind::HostName => self.host_name(who)?,
            Kind::Names => self.names(who, false)?,
            Kind::NameBlock => self.names(who, true)?,
            Kind::Targ(used) => Arg::Targ(self.targ(*used, keyword)?),
            Kind::Table(used) => match self.is_mark(Mark::Less) {
                true => Arg::Targ(self.targ(*used, keyword)?),
                false => return Err(self.needs(who, "a table, `<NAME>`")),
            },
            Kind::MaybeTable(used) => match self.is_mark(Mark::Less) || self.is_mark(Mark::Open) {
                true => Arg::Targ(self.targ(*used, keyword)?),
                false => Arg::Nothing,
            },
            Kind::Literal => match self.is_mark(Mark::Open) {
                true => Arg::Entries(Rc::new(self.entries()?)),
                false => return Err(self.needs(who, "`{ … }`")),
            },
            Kind::Pattern(used) => self.pattern(*used, keyword)?,
            Kind::MaybePattern(used) => match self.goes_on() {
                true => Arg::Nothing,
                false => self.pattern(*used, keyword)?,
            },
            Kind::Duration => Arg::Duration(self.duration(who)?),
            Kind::DurationBlock => self.duration_block(who)?,
            Kind::Durations => self.durations(who)?,
            Kind::Seconds => Arg::Duration(self.seconds(who)?),
            Kind::Size => Arg::Size(self.size(who)?),
            Kind::SizeOrPercent => self.size_or_percent(who)?,
            Kind::Count(least) => Arg::Count(self.count(who, *least)?),
            Kind::Port => Arg::Port(self.port(who)?),
            Kind::Rate => Arg::Rate(self.rate(who)?),
            Kind::Rates => self.rates(who)?,
            Kind::Percent => Arg::Percent(self.percent(who)?),
            Kind::MaybePercent => match self.goes_on() {
                true => Arg::Nothing,
                false => Arg::Percent(self.percent(who)?),
            },
            Kind::Choice(names) => match self.keyword(names) {
                Some(key) => Arg::Key(key),
                None => return Err(self.needs_one_of(who, &alternatives(names), names)),
            },
            Kind::MaybeChoice(names) => self.keyword(names).map_or(Arg::Nothing, Arg::Key),
            Kind::Reply => Arg::Word(self.reply(who)?),
            Kind::MaybeReply => match self.at_end() {
                true => Arg::Nothing,
                false => Arg::Word(self.reply(who)?),
            },
            Kind::Delimiter => {
                self.checked(who, "a character", is_delimiter, "E0509", "not one punctuation character")?
            }
            Kind::Cores => self.cores(who)?,
            Kind::Mode => self.checked(who, "a mode", is_mode, "E0509", "not a mode of a file, such as 0660")?,
            Kind::ShardCount => self.shard_count(who)?,
            Kind::Address => {
                let read = |text: &str| text == "localhost" || parse_ip(text).is_some();
                self.checked(who, "an address", read, "E0507", "not an address, network or host")?
            }
            Kind::Place => self.place()?,
            Kind::Block(options) => Arg::Block(self.option_block(who, options)?),
            Kind::Items(what, options) => self.items(who, what, options)?,
            Kind::TableName => self.table_name()?,
            Kind::TableSource => self.table_source()?,
            Kind::OneOf(options) => self.one_of(who, options)?,
            Kind::Else(option, kind) => match self.option_word(std::slice::from_ref(*option)) {
                Some((_, word)) => {
                    let arg = self.argument(&option.kind, word.value)?;
                    Arg::One(Box::new(super::ast::OptionLine { name: option.first(), word, negated: false, arg }))
                }
                None => self.argument(kind, who)?,
            },
            Kind::Then(kind, options) => self.with(kind, who, options)?,
        })
    }

    fn is_mark(&self, mark: Mark) -> bool {
        self.peek().is_some_and(|token| token.kind == TokenKind::Mark(mark))
    }

    // ---- words

    /// A word for which `right` holds; it is kept as it was written.
    fn checked(
        &mut self,
        who: &str,
        what: &str,
        right: impl Fn(&str) -> bool,
        code: &'static str,
        message: &str,
    ) -> Result<Arg, Stop> {
        let word = self.word(who, what)?;
        if right(&word.text) {
            return Ok(Arg::Word(word));
        }
        Err(self.error(code, word.span, format!("{message}: `{}`", word.text)))
    }

    /// See [`values::is_greeting_name`].
    fn host_name(&mut self, who: &str) -> Result<Arg, Stop> {
        self.checked(who, "a host name", values::is_greeting_name, "E0507", "not an address, network or host")
    }

    fn names(&mut self, who: &str, braces: bool) -> Result<Arg, Stop> {
        if !self.is_mark(Mark::Open) {
            return match braces {
                true => Err(self.needs(who, "`{ NAME, … }`")),
                false => Ok(Arg::Names(vec![self.word(who, "a name")?])),
            };
        }
        let entries = self.entries()?;
        if let Some(entry) = entries.list.iter().find(|entry| !entry.values.is_empty()) {
            return Err(self.error("E0203", entry.key.span, format!("`{who}` needs names, not a mapping")));
        }
        Ok(Arg::Names(entries.list.into_iter().map(|entry| entry.key).collect()))
    }

    fn reply(&mut self, who: &str) -> Result<Word, Stop> {
        let word = self.word(who, "a reply, for example \"550 5.7.1 no\"")?;
        match reply::parse(&word.text) {
            Ok(_) => Ok(word),
            Err(BadReply::Code) => {
                let report = Report::new("E0505", word.span, "a reply starts with a 4xx or 5xx code");
                Err(self.tell(report.help(format!("for example \"550 5.7.1 {}\"", word.text))))
            }
            Err(BadReply::Text(why)) => {
                Err(self.error("E0505", word.span, format!("a reply starts with a 4xx or 5xx code{why}")))
            }
        }
    }

    /// `all`, `egress`, an interface, an address or a host name.
    fn place(&mut self) -> Result<Arg, Stop> {
        if let Some(key) = self.keyword(&["all", "egress"]) {
            return Ok(Arg::Key(key));
        }
        let word = self.word("listen on", "all, egress, an interface, an address or a host name")?;
        let is_name = |c: char| c.is_alphanumeric() || "-_.:%@".contains(c);
        // `1.2.3.400` would be asked of the DNS for ever.
        let is_number = word.text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b':');
        let is_good = !word.text.is_empty() && !is_number && word.text.chars().all(is_name);
        if is_good || parse_ip(&word.text).is_some() {
            return Ok(Arg::Word(word));
        }
        Err(self.error("E0507", word.span, format!("not an address, network or host: `{}`", word.text)))
    }

    // ---- tables

    /// `<name>`, `{ … }` or one word.
    pub(super) fn targ(&mut self, used: Use, keyword: At<&'static str>) -> Result<Targ, Stop> {
        let keyword = At { value: used.called.unwrap_or(keyword.value), ..keyword };
        let (what, span) = match self.peek().map(|token| &token.kind) {
            Some(TokenKind::Mark(Mark::Less)) => {
                let name = self.table_reference()?;
                (TargKind::Table(name.value), name.span)
            }
            Some(TokenKind::Mark(Mark::Open)) => {
                let entries = self.entries()?;
                let span = entries.span;
                (TargKind::Literal(Rc::new(entries)), span)
            }
            _ => {
                let word = self.word(keyword.value, "a table, a list or a word")?;
                let span = word.span;
                (TargKind::Word(word), span)
            }
        };
        Ok(Targ { what, span, used, keyword })
    }

    /// `[regex] targ` after a keyword.
    fn pattern(&mut self, used: Use, keyword: At<&'static str>) -> Result<Arg, Stop> {
        let is_regex = self.keyword(&["regex"]).is_some();
        let targ = self.targ(used, keyword)?;
        Ok(if is_regex { Arg::Regex(targ) } else { Arg::Targ(targ) })
    }

    // ---- values

    fn duration_block(&mut self, who: &str) -> Result<Arg, Stop> {
        let mut list = Vec::new();
        self.block(who, |this, brace| match this.peek().and_then(Token::word) {
            Some(_) => {
                list.push(this.duration(who)?);
                Ok(())
            }
            None => Err(this.bad_in_block(brace)),
        })?;
        match list.is_empty() {
            true => Err(self.error("E0203", self.last(), format!("`{who}` needs a duration in its braces"))),
            false => Ok(Arg::Durations(list)),
        }
    }

    fn durations(&mut self, who: &str) -> Result<Arg, Stop> {
        let start = self.last();
        let mut list: Vec<At<std::time::Duration>> = Vec::new();
        loop {
            let next = self.duration(who)?;
            if list.last().is_some_and(|last| last.value >= next.value) {
                let message = format!("`{who}` needs its durations in ascending order");
                return Err(self.error("E0203", next.span, message));
            }
            list.push(next);
            if self.mark(Mark::Comma).is_none() {
                break;
            }
        }
        if list.len() > WARN_INTERVALS_MAX {
            return Err(self.error("E0203", start, format!("`{who}` needs at most {WARN_INTERVALS_MAX} durations")));
        }
        Ok(Arg::Durations(list))
    }

    fn rates(&mut self, who: &str) -> Result<Arg, Stop> {
        let mut list = Vec::new();
        self.block(who, |this, brace| match this.peek().and_then(Token::word) {
            Some(_) => {
                list.push(this.rate(who)?);
                Ok(())
            }
            None => Err(this.bad_in_block(brace)),
        })?;
        match list.is_empty() {
            true => Err(self.error("E0203", self.last(), format!("`{who}` needs a rate in its braces"))),
            false => Ok(Arg::Rates(list)),
        }
    }

    fn rate(&mut self, who: &str) -> Result<At<Rate>, Stop> {
        self.value(who, "a rate", values::rate, "E0509", "not a rate", Some("for example `100/s`, `5/10s` or `500/d`"))
    }

    fn percent(&mut self, who: &str) -> Result<At<u8>, Stop> {
        self.value(who, "a percentage", values::percent, "E0509", "not a percentage", Some("0% to 100%"))
    }

    fn size_or_percent(&mut self, who: &str) -> Result<Arg, Stop> {
        let help = Some("`10G` or `5%`");
        let read = |text: &str| match values::percent(text) {
            Some(percent) => Some(Err(percent)),
            None => values::size(text).map(Ok),
        };
        let at = self.value(who, "a size or percentage", read, "E0503", "not a size", help)?;
        Ok(match at.value {
            Ok(value) => Arg::Size(At { value, span: at.span }),
            Err(value) => Arg::Percent(At { value, span: at.span }),
        })
    }

    /// A duration; a bare number is in seconds, as OpenSMTPD's limits are.
    fn seconds(&mut self, who: &str) -> Result<At<std::time::Duration>, Stop> {
        let read = |text: &str| match values::number(text) {
            Some(seconds) => Some(std::time::Duration::from_secs(u64::from(u32::try_from(seconds).ok()?))),
            None => values::duration(text),
        };
        self.value(who, "a duration", read, "E0502", "not a duration", Some("a number and s, m, h, d or w: `4h`"))
    }

    fn cores(&mut self, who: &str) -> Result<Arg, Stop> {
        let help = Some("for example `2-9`, or \"0,2-3\"; each core once");
        let word = self.peek().and_then(Token::word);
        self.value(who, "numbers of cores", values::cores, "E0509", "not a list of cores", help)?;
        Ok(Arg::Word(word.expect("it was read as a value")))
    }

    fn shard_count(&mut self, who: &str) -> Result<Arg, Stop> {
        const SHARDS_MAX: u64 = 1024;
        if let Some(key) = self.keyword(&["auto"]) {
            return Ok(Arg::Key(key));
        }
        let read = |text: &str| values::number(text).filter(|n| (1..=SHARDS_MAX).contains(n));
        let help = format!("`auto`, or 1 to {SHARDS_MAX}");
        let count = self.value(who, "`auto` or a number", read, "E0509", "not a number", Some(&help))?;
        Ok(Arg::Count(count))
    }
}

fn is_delimiter(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_punctuation() && c != '@') && chars.next().is_none()
}

fn is_mode(text: &str) -> bool {
    (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b))
}

/// Reads what [`Kind::Address`] lets through.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    match text {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        text => parse_ip(text),
    }
}
