//! One statement's tokens: lines are joined inside braces, macros are replaced.

use std::collections::HashMap;

use super::ast::Word;
use crate::lex::{Mark, Piece, Raw, RawToken, lex};
use crate::limits::{FILE_TOKENS_MAX, MACRO_DEPTH_MAX, STATEMENT_TOKENS_MAX, WORD_BYTES_MAX};
use crate::report::{Report, nearest};
use crate::source_text::{SourceTexts, Span};
use crate::text::Text;

/// A token as the parser sees it.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// Where it stands; for what a macro gave, the place where the macro is used.
    pub(crate) span: Span,
    /// Index of the raw token it came from.
    pub(crate) raw: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bare(Text),
    Quoted(Text),
    Mark(Mark),
    /// Inside braces only.
    Newline,
    Error,
}

impl Token {
    pub(crate) fn word(&self) -> Option<Word> {
        let (text, quoted) = match &self.kind {
            Kind::Bare(text) => (text, false),
            Kind::Quoted(text) => (text, true),
            _ => return None,
        };
        Some(Word { text: text.clone(), quoted, span: self.span })
    }

    pub(crate) fn is_bare(&self, text: &str) -> bool {
        matches!(&self.kind, Kind::Bare(bare) if *bare == *text)
    }
}

/// Macros in order of definition. The last of a name counts, but one from the command line wins over the files.
#[derive(Debug, Default)]
pub(crate) struct Macros {
    list: Vec<Macro>,
    /// Where each name is in the list, in order.
    index: HashMap<String, Vec<usize>>,
    /// Some value has braces in it.
    have_braces: bool,
}

#[derive(Debug)]
struct Macro {
    name: String,
    value: Raw,
    /// `None` for the command line.
    defined: Option<Span>,
}

impl Macros {
    pub(crate) fn define(&mut self, name: String, value: Raw, defined: Option<Span>) {
        self.have_braces |= matches!(&value, Raw::Quoted(text) if text.contains(['{', '}']));
        self.index.entry(name.clone()).or_default().push(self.list.len());
        self.list.push(Macro { name, value, defined });
    }

    /// Among the first `visible`: so a value can only name macros defined before it, and nothing goes round in circles.
    fn find(&self, name: &str, visible: usize) -> Option<usize> {
        let places = self.index.get(name)?;
        let first = *places.first()?;
        // Those of the command line come first.
        if first < visible && self.list[first].defined.is_none() {
            return Some(first);
        }
        let before = places.partition_point(|at| *at < visible);
        before.checked_sub(1).map(|last| places[last])
    }

    fn unknown(&self, name: &str, span: Span, texts: &SourceTexts) -> Report {
        let report = Report::new("E0104", span, format!("no such macro: ${name}"));
        let near = nearest(name, self.list.iter().map(|m| m.name.as_str()));
        let near = near.and_then(|name| self.index.get(name)).map(|places| &self.list[places[0]]);
        match near.map(|m| (m, m.defined)) {
            Some((m, Some(span))) => report.help(format!("did you mean ${}, defined at {}?", m.name, texts.at(span))),
            Some((m, None)) => report.help(format!("did you mean ${}?", m.name)),
            None if name.contains('$') => report.help("to write a `$`, quote the word"),
            None => report,
        }
    }

    /// The text that `${name}` stands for.
    fn text<'m>(&'m self, name: &'m str, visible: usize, depth: usize) -> Result<String, Bad<'m>> {
        let at = self.find(name, visible).ok_or(Bad::Unknown(name))?;
        if depth >= MACRO_DEPTH_MAX {
            return Err(Bad::TooDeep(name));
        }
        match &self.list[at].value {
            Raw::Word(text) | Raw::Quoted(text) => Ok(text.to_string()),
            Raw::Macro(name) => self.text(name, at, depth + 1),
            Raw::Template(pieces) => self.join(pieces, at, depth + 1),
            _ => Err(Bad::Told),
        }
    }

    /// The word that a template makes.
    fn join<'m>(&'m self, pieces: &'m [Piece], visible: usize, depth: usize) -> Result<String, Bad<'m>> {
        let mut word = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => word.push_str(text),
                Piece::Macro(name) => word.push_str(&self.text(name, visible, depth)?),
            }
            if word.len() > WORD_BYTES_MAX {
                return Err(Bad::TooLong);
            }
        }
        Ok(word)
    }

    fn report(&self, bad: &Bad<'_>, span: Span, texts: &SourceTexts) -> Option<Report> {
        match bad {
            Bad::Told => None,
            Bad::Unknown(name) => Some(self.unknown(name, span, texts)),
            Bad::TooDeep(name) => {
                let message = format!("no such macro: ${name}: macros nest at most {MACRO_DEPTH_MAX} deep");
                Some(Report::new("E0104", span, message))
            }
            Bad::TooLong => Some(Report::new("E0103", span, format!("a word has at most {WORD_BYTES_MAX} bytes"))),
        }
    }
}

/// Why a macro gives nothing.
enum Bad<'m> {
    Unknown(&'m str),
    TooDeep(&'m str),
    TooLong,
    /// Its definition was wrong, and that was told.
    Told,
}

/// What comes next in a file.
#[derive(Debug)]
pub(crate) enum Next {
    /// `name = value`.
    Macro,
    /// Tokens of a statement.
    Statement(Vec<Token>),
    /// A brace that is never closed; what it opens is given up.
    Unclosed {
        /// The tokens up to the end of the file.
        tokens: Vec<Token>,
        /// The brace.
        brace: Span,
    },
    /// There is more in the file than is read; that was told.
    TooMuch,
    End,
}

/// One file's tokens, read statement by statement.
#[derive(Debug)]
pub(crate) struct Lines {
    raws: Vec<RawToken>,
    at: usize,
    /// Braces that are never closed, in order. Found once: each would be looked for to the end of the file otherwise.
    unclosed: Vec<usize>,
    /// Tokens that were read, macros replaced.
    spent: usize,
}

impl Lines {
    pub(crate) fn new(raws: Vec<RawToken>) -> Self {
        let mut unclosed = Vec::new();
        for (at, token) in raws.iter().enumerate() {
            match token.kind {
                Raw::Mark(Mark::Open) => unclosed.push(at),
                Raw::Mark(Mark::Close) => drop(unclosed.pop()),
                _ => {}
            }
        }
        Self { raws, at: 0, unclosed, spent: 0 }
    }

    /// The next statement. What follows a brace that is never closed, from the first line that begins with one of `starts`, is
    /// not part of it.
    pub(crate) fn next(
        &mut self,
        macros: &mut Macros,
        texts: &SourceTexts,
        reports: &mut Vec<Report>,
        starts: impl Fn(&str) -> bool,
    ) -> Next {
        while self.raws.get(self.at).is_some_and(|t| t.kind == Raw::Newline) {
            self.at += 1;
        }
        if self.at >= self.raws.len() {
            return Next::End;
        }
        if self.macro_definition(macros, reports) {
            return Next::Macro;
        }
        let mut expansion = Expansion { macros, texts, reports, out: Vec::new(), failed: false };
        let mut open: Vec<Span> = Vec::new();
        let mut seen = 0;
        let mut gives_up_at = self.raws.len();
        while let Some(token) = self.raws.get(self.at).filter(|_| self.at < gives_up_at) {
            if token.kind == Raw::Newline && open.is_empty() {
                break;
            }
            // A macro may hold the other brace.
            let is_lost = !macros.have_braces && self.unclosed.binary_search(&self.at).is_ok();
            if is_lost && gives_up_at == self.raws.len() {
                gives_up_at = self.line_that_starts(self.at + 1, &starts);
            }
            expansion.add(token, self.at);
            self.at += 1;
            for token in &expansion.out[seen..] {
                match token.kind {
                    Kind::Mark(Mark::Open) => open.push(token.span),
                    Kind::Mark(Mark::Close) => drop(open.pop()),
                    _ => {}
                }
            }
            seen = expansion.out.len();
        }
        let tokens = expansion.out;
        self.spent += tokens.len();
        if self.spent > FILE_TOKENS_MAX {
            let span = tokens.first().map_or(Span::default(), |token| token.span);
            let message = format!("a file has at most {FILE_TOKENS_MAX} words, macros replaced");
            reports.push(Report::new("E0103", span, message));
            self.at = self.raws.len();
            return Next::TooMuch;
        }
        match open.first() {
            Some(&brace) => Next::Unclosed { tokens, brace },
            None => Next::Statement(tokens),
        }
    }

    /// Goes on at the first line behind `brace` that begins with one of `starts`. Its first token, if there is one.
    pub(crate) fn resume_behind(&mut self, brace: Span, starts: impl Fn(&str) -> bool) -> Option<Span> {
        self.at = self.line_that_starts(self.raws.partition_point(|t| t.span.start <= brace.start), starts);
        self.raws.get(self.at).map(|t| t.span)
    }

    /// The first token from `at` on that begins a line and a statement; or the end.
    fn line_that_starts(&self, at: usize, starts: impl Fn(&str) -> bool) -> usize {
        let begins = |at: &usize| {
            self.raws[at - 1].kind == Raw::Newline && matches!(&self.raws[*at].kind, Raw::Word(word) if starts(word))
        };
        (at.max(1)..self.raws.len()).find(begins).unwrap_or(self.raws.len())
    }

    /// Whether the line of this token begins with one of `starts`, and is not the line of the brace.
    pub(crate) fn begins_statement(&self, raw: usize, brace: Span, starts: impl Fn(&str) -> bool) -> bool {
        let first = (0..raw).rev().find(|&at| self.raws[at].kind == Raw::Newline).map_or(0, |at| at + 1);
        self.raws
            .get(first)
            .is_some_and(|t| t.span.start > brace.start && matches!(&t.kind, Raw::Word(word) if starts(word)))
    }

    /// `name = value`, and nothing else in the line.
    fn macro_definition(&mut self, macros: &mut Macros, reports: &mut Vec<Report>) -> bool {
        let line = &self.raws[self.at..];
        let [RawToken { kind: Raw::Word(name), span }, RawToken { kind: Raw::Mark(Mark::Assign), span: assign }, ..] =
            line
        else {
            return false;
        };
        let end = line.iter().position(|t| t.kind == Raw::Newline).unwrap_or(line.len());
        match &line[2..end] {
            [value] if !matches!(value.kind, Raw::Mark(_)) => {
                macros.define(name.to_string(), value.kind.clone(), Some(*span));
            }
            values => {
                let at = values.get(1).or(values.first()).map_or(assign.after(), |t| t.span);
                let silent = values.iter().any(|t| t.kind == Raw::Error);
                if !silent {
                    let report = Report::new("E0203", at, format!("`{name} =` needs one word"));
                    reports.push(report.help("quote a value of several words"));
                }
                macros.define(name.to_string(), Raw::Error, Some(*span));
            }
        }
        self.at += end;
        true
    }
}

struct Expansion<'e> {
    macros: &'e Macros,
    texts: &'e SourceTexts,
    reports: &'e mut Vec<Report>,
    out: Vec<Token>,
    failed: bool,
}

impl Expansion<'_> {
    fn add(&mut self, token: &RawToken, raw: usize) {
        self.expand(&token.kind, token.span, raw, self.macros.list.len(), 0);
    }

    fn expand(&mut self, kind: &Raw, span: Span, raw: usize, visible: usize, depth: usize) {
        let kind = match kind {
            Raw::Word(text) => Kind::Bare(text.clone()),
            Raw::Quoted(text) => Kind::Quoted(text.clone()),
            Raw::Mark(mark) => Kind::Mark(*mark),
            Raw::Newline => Kind::Newline,
            Raw::Error => Kind::Error,
            Raw::Macro(name) => return self.expand_macro(name, span, raw, visible, depth),
            Raw::Template(pieces) => match self.macros.join(pieces, visible, depth) {
                Ok(text) => Kind::Bare(text.into()),
                Err(bad) => {
                    self.reports.extend(self.macros.report(&bad, span, self.texts));
                    Kind::Error
                }
            },
        };
        self.push(Token { kind, span, raw });
    }

    fn expand_macro(&mut self, name: &str, span: Span, raw: usize, visible: usize, depth: usize) {
        let found = self.macros.find(name, visible);
        let Some(at) = found.filter(|_| depth < MACRO_DEPTH_MAX) else {
            let bad = if found.is_some() { Bad::TooDeep(name) } else { Bad::Unknown(name) };
            self.reports.extend(self.macros.report(&bad, span, self.texts));
            return self.push(Token { kind: Kind::Error, span, raw });
        };
        match &self.macros.list[at].value {
            // A quoted value is read again as tokens; what is wrong in it is wrong where it is used.
            Raw::Quoted(text) => {
                let mut problems = Vec::new();
                let raws = lex(text, span.file, &mut problems);
                self.reports.extend(problems.into_iter().map(|report| Report { span, ..report }));
                for token in &raws {
                    self.expand(&token.kind, span, raw, at, depth + 1);
                }
            }
            value => self.expand(value, span, raw, at, depth + 1),
        }
    }

    fn push(&mut self, token: Token) {
        if self.out.len() < STATEMENT_TOKENS_MAX {
            self.out.push(token);
        } else if !self.failed {
            self.failed = true;
            let message = format!("a statement has at most {STATEMENT_TOKENS_MAX} words");
            self.reports.push(Report::new("E0103", token.span, message));
        }
    }
}
