//! A cursor over one statement's tokens, and what every statement needs: words, values, options given once, blocks.

use std::time::Duration;

use super::ast::{Ast, At, Entries, Entry, Said, Word};
use super::schema::Opt;
use super::tokens::{Kind, Token};
use crate::lex::Mark;
use crate::report::{Report, did_you_mean};
use crate::source_text::{SourceTexts, Span};
use crate::text::Text;
use crate::values;

/// The statement is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Whatever is wrong has been said.
    Told,
    /// A token that cannot stand in the block; that has been said, but the brace may be the culprit.
    InBlock {
        /// The brace.
        brace: Span,
        /// The raw token.
        raw: usize,
    },
}

pub(crate) struct Statement<'p> {
    pub(super) tokens: &'p [Token],
    at: usize,
    pub(super) texts: &'p SourceTexts,
    pub(super) reports: &'p mut Vec<Report>,
    pub(super) ast: &'p mut Ast,
    /// The statement's first word, for messages.
    pub(super) first: &'static str,
    /// What may come next as a keyword: an optional argument is none of these (grammar §3, *Option or argument*).
    pub(super) form_options: &'static [Opt],
    /// There was an old word in it.
    pub(super) rewritten: bool,
}

impl<'p> Statement<'p> {
    pub(super) fn new(
        tokens: &'p [Token],
        texts: &'p SourceTexts,
        reports: &'p mut Vec<Report>,
        ast: &'p mut Ast,
    ) -> Self {
        Self { tokens, at: 0, texts, reports, ast, first: "", form_options: &[], rewritten: false }
    }

    // ---- looking and moving

    pub(super) fn peek(&self) -> Option<&'p Token> {
        self.tokens.get(self.at)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Option<&'p Token> {
        self.tokens.get(self.at + ahead)
    }

    pub(super) fn skip(&mut self) {
        self.at += 1;
    }

    /// Adds what was read. What is old in it is put in the words of today.
    pub(super) fn keep(&mut self, mut said: Said) {
        said.rewritten |= self.rewritten;
        self.ast.statements.push(said);
    }

    pub(super) fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// The next word if it is bare and one of these; taken.
    pub(super) fn keyword(&mut self, names: &[&'static str]) -> Option<At<&'static str>> {
        let token = self.peek()?;
        let value = *names.iter().find(|name| token.is_bare(name))?;
        self.skip();
        Some(At { value, span: token.span })
    }

    pub(super) fn mark(&mut self, mark: Mark) -> Option<Span> {
        let token = self.peek().filter(|token| token.kind == Kind::Mark(mark))?;
        self.skip();
        Some(token.span)
    }

    /// Where the next token is, or the place behind the last one.
    pub(super) fn here(&self) -> Span {
        let last = self.tokens.last().expect("a statement has a first word");
        self.peek().map_or(last.span.after(), |token| token.span)
    }

    /// From the first token to the last one taken.
    pub(super) fn so_far(&self) -> Span {
        self.tokens[0].span.to(self.tokens[self.at.max(1) - 1].span)
    }

    /// The last token taken.
    pub(super) fn last(&self) -> Span {
        self.tokens[self.at.max(1) - 1].span
    }

    /// How the next token reads, for messages.
    fn shown(&self) -> String {
        self.peek().map_or(String::new(), |token| match &token.kind {
            Kind::Newline => "end of line".to_owned(),
            Kind::Bare(text) => text.to_string(),
            _ => self.texts.slice(token.span).to_owned(),
        })
    }

    // ---- complaining

    pub(super) fn tell(&mut self, report: Report) -> Stop {
        self.reports.push(report);
        Stop::Told
    }

    pub(super) fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>) -> Stop {
        self.tell(Report::new(code, span, message))
    }

    /// E0203 at the next token; an error token has had its say.
    pub(super) fn needs(&mut self, who: &str, what: &str) -> Stop {
        self.needs_one_of(who, what, &[])
    }

    pub(super) fn needs_one_of(&mut self, who: &str, what: &str, right: &[&str]) -> Stop {
        if self.peek().is_some_and(|token| token.kind == Kind::Error) {
            return Stop::Told;
        }
        let help = self.peek().and_then(Token::word).and_then(|w| did_you_mean(&w.text, right.iter().copied()));
        let report = Report::new("E0203", self.here(), format!("`{who}` needs {what}"));
        self.tell(report.maybe_help(help))
    }

    /// E0204 at the next token.
    pub(super) fn unexpected(&mut self, after: &str) -> Stop {
        match self.peek() {
            Some(Token { kind: Kind::Error, .. }) => Stop::Told,
            _ => {
                let message = format!("unexpected `{}` after `{after}`", self.shown());
                self.error("E0204", self.here(), message)
            }
        }
    }

    /// Nothing may follow.
    pub(super) fn end(&mut self, after: &str) -> Result<(), Stop> {
        if self.at_end() { Ok(()) } else { Err(self.unexpected(after)) }
    }

    /// The options are over, and something is left: E0202 for a word, E0204 for anything else.
    pub(super) fn no_such_option<'n>(&mut self, who: &str, right: impl IntoIterator<Item = &'n str>) -> Stop {
        let Some(word) = self.peek().and_then(Token::word).filter(|word| !word.quoted) else {
            let before = self.at.checked_sub(1).map(|at| self.texts.slice(self.tokens[at].span).to_owned());
            return self.unexpected(&before.unwrap_or_default());
        };
        let message = format!("`{who}` has no option `{}`", word.text);
        self.tell(Report::new("E0202", word.span, message).maybe_help(did_you_mean(&word.text, right)))
    }

    /// The same inside braces, where the brace may be the culprit.
    pub(super) fn no_such_option_in<'n>(
        &mut self,
        who: &str,
        right: impl IntoIterator<Item = &'n str>,
        brace: Span,
    ) -> Stop {
        let raw = self.peek().map(|token| token.raw);
        let stop = self.no_such_option(who, right);
        raw.map_or(stop, |raw| Stop::InBlock { brace, raw })
    }

    /// E0601, pointing at both; reading goes on.
    pub(super) fn twice(&mut self, name: &str, span: Span, first: Span) {
        let report = Report::new("E0601", span, format!("`{name}` is given twice"));
        let help = format!("first at {}", self.texts.at(first));
        self.reports.push(report.also(first, "first here").help(help));
    }

    // ---- words and values

    /// Any word, bare or quoted.
    pub(super) fn word(&mut self, who: &str, what: &str) -> Result<Word, Stop> {
        match self.peek().and_then(Token::word) {
            Some(word) => {
                self.skip();
                Ok(word)
            }
            None => Err(self.needs(who, what)),
        }
    }

    pub(super) fn duration(&mut self, who: &str) -> Result<At<Duration>, Stop> {
        let help = "a number and s, m, h, d or w: `4h`";
        self.value(who, "a duration", values::duration, "E0502", "not a duration", Some(help))
    }

    pub(super) fn size(&mut self, who: &str) -> Result<At<u64>, Stop> {
        let help = "bytes, or a number and K, M, G or T: `35M`";
        self.value(who, "a size", values::size, "E0503", "not a size", Some(help))
    }

    pub(super) fn port(&mut self, who: &str) -> Result<At<u16>, Stop> {
        self.value(who, "a port", values::port, "E0501", "not a port", Some("1 to 65535, or a service name"))
    }

    /// A whole number of at least `least`.
    pub(super) fn count(&mut self, who: &str, least: u32) -> Result<At<u64>, Stop> {
        let bounds = u64::from(least)..=u64::from(u32::MAX);
        let read = |text: &str| values::number(text).filter(|n| bounds.contains(n));
        let help = format!("a whole number, at least {least}");
        self.value(who, "a number", read, "E0509", "not a number", Some(&help))
    }

    /// The next word as a value of some kind; a wrong one gives up the statement.
    pub(super) fn value<T>(
        &mut self,
        who: &str,
        what: &str,
        read: impl Fn(&str) -> Option<T>,
        code: &'static str,
        message: &str,
        help: Option<&str>,
    ) -> Result<At<T>, Stop> {
        let word = self.word(who, what)?;
        match read(&word.text) {
            Some(value) => Ok(At { value, span: word.span }),
            None => {
                let report = Report::new(code, word.span, format!("{message}: `{}`", word.text));
                Err(self.tell(report.maybe_help(help.map(str::to_owned))))
            }
        }
    }

    // ---- tables and literals

    /// `<name>`; the span covers the brackets.
    pub(super) fn table_reference(&mut self) -> Result<At<Text>, Stop> {
        let open = self.here();
        self.skip();
        let name = self.word("<", "the name of a table")?;
        match self.mark(Mark::Greater) {
            Some(close) => Ok(At { value: name.text, span: open.to(close) }),
            None => Err(self.needs("<", "a `>` behind the name")),
        }
    }

    /// `{ a, b }` or `{ a = 1, b = 2, 3 }`.
    pub(super) fn entries(&mut self) -> Result<Entries, Stop> {
        let brace = self.here();
        self.skip();
        let mut list: Vec<Entry> = Vec::new();
        let mut separated = true;
        loop {
            separated |= self.skip_separators(brace, list.is_empty())?;
            if let Some(close) = self.mark(Mark::Close) {
                if list.is_empty() {
                    return Err(self.error("E0207", brace.to(close), "a table needs at least one entry"));
                }
                return Ok(Entries { list, span: brace.to(close) });
            }
            let Some(key) = self.peek().and_then(Token::word) else { return Err(self.bad_in_block(brace)) };
            let is_mapping = self.is_followed_by_assign(0);
            if let Some(before) = list.last() {
                if before.values.is_empty() == is_mapping {
                    return Err(self.mixed(&key, is_mapping));
                }
                // White space alone separates the entries of a list, not those of a mapping.
                if is_mapping && !separated {
                    return Err(self.unexpected(&before.values[before.values.len() - 1].text.clone()));
                }
            }
            self.skip();
            let values = if is_mapping { self.mapped_values(brace, &key)? } else { Vec::new() };
            list.push(Entry { key, values });
            separated = false;
        }
    }

    fn mixed(&mut self, key: &Word, is_mapping: bool) -> Stop {
        let (this, before) = if is_mapping { ("a value", "none") } else { ("no value", "one") };
        let help = match is_mapping {
            true => format!("`{}` has {this}; the entry before it has {before}", key.text),
            false => format!("`{}` has {this}; the entry before it has", key.text),
        };
        self.tell(Report::new("E0206", key.span, "a table is a list or a mapping, not both").help(help))
    }

    /// `=> a, b`: a word after a comma is another value, unless it is followed by `=` itself.
    fn mapped_values(&mut self, brace: Span, key: &Word) -> Result<Vec<Word>, Stop> {
        self.skip();
        let mut values = Vec::new();
        loop {
            match self.peek().and_then(Token::word) {
                Some(word) => values.push(word),
                None if self.peek().is_some_and(|t| t.kind == Kind::Newline) => {
                    return Err(self.needs(&key.text, "a value in its line"));
                }
                None => return Err(self.bad_in_block(brace)),
            }
            self.skip();
            let mut next = 0;
            while self.kind(next) == Some(&Kind::Mark(Mark::Comma))
                || (next > 0 && self.kind(next) == Some(&Kind::Newline))
            {
                next += 1;
            }
            let more = next > 0 && matches!(self.kind(next), Some(Kind::Bare(_) | Kind::Quoted(_)));
            if !more || self.is_followed_by_assign(next) {
                return Ok(values);
            }
            self.at += next;
        }
    }

    fn kind(&self, ahead: usize) -> Option<&Kind> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    fn is_followed_by_assign(&self, ahead: usize) -> bool {
        self.kind(ahead + 1) == Some(&Kind::Mark(Mark::Assign))
    }

    /// Commas and newlines; a block does not begin with a comma. Whether there were some.
    fn skip_separators(&mut self, brace: Span, is_first: bool) -> Result<bool, Stop> {
        let start = self.at;
        while let Some(token) = self.peek() {
            match token.kind {
                Kind::Newline => self.skip(),
                Kind::Mark(Mark::Comma) if is_first => return Err(self.bad_in_block(brace)),
                Kind::Mark(Mark::Comma) => self.skip(),
                _ => break,
            }
        }
        Ok(self.at > start)
    }

    /// One item after the other until the brace closes; separators between them are required.
    pub(super) fn block(
        &mut self,
        who: &str,
        mut item: impl FnMut(&mut Self, Span) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let brace = self.here();
        if self.mark(Mark::Open).is_none() {
            return Err(self.needs(who, "`{ … }`"));
        }
        let mut is_first = true;
        loop {
            let separated = self.skip_separators(brace, is_first)?;
            if self.mark(Mark::Close).is_some() {
                return Ok(());
            }
            if self.at_end() || !(is_first || separated) {
                return Err(self.bad_in_block(brace));
            }
            item(self, brace)?;
            is_first = false;
        }
    }

    pub(super) fn bad_in_block(&mut self, brace: Span) -> Stop {
        let before = self.texts.slice(self.tokens[self.at.max(1) - 1].span).to_owned();
        let raw = self.peek().map(|token| token.raw);
        let stop = self.unexpected(if before.trim().is_empty() { "{" } else { before.as_str() });
        raw.map_or(stop, |raw| Stop::InBlock { brace, raw })
    }
}
