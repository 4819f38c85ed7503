//! From tokens to statements: recursive descent, LL(2), one file per group of statements (grammar §3).
//!
//! After an error the parser goes on at the next line outside braces. What a broken statement declares still counts as
//! declared, so that one mistake is one error (grammar §9.1).

mod action;
pub(crate) mod ast;
mod include;
mod listen;
mod rule;
mod settings;
mod statement;
mod table;
pub(crate) mod tokens;

pub(crate) use statement::not_yet;
pub(crate) use table::BUILT_IN as BUILT_IN_TABLES;

use std::path::{Path, PathBuf};

use self::ast::Ast;
use self::statement::{Statement, Stop};
use self::tokens::{Kind, Lines, Macros, Next, Token};
use crate::lex::{Raw, lex};
use crate::limits::REPORTS_KEPT_MAX;
use crate::load::{Options, Source};
use crate::report::{Report, did_you_mean};
use crate::source_text::{SourceTexts, Span};

/// Statements that can be read.
const BUILT: &[&str] =
    &["include", "listen", "table", "action", "match", "bounce", "queue", "smtp", "shards", "http", "store", "control"];
/// Statements of the grammar that this version does not have.
const NOT_YET: &[&str] = &[
    "pki",
    "ca",
    "mta",
    "mda",
    "filter",
    "proc",
    "scheduler",
    "srs",
    "admd",
    "profile",
    "shaping",
    "warmup",
    "pool",
    "dkim",
    "metrics",
    "ratelimit",
    "log",
    "share",
    "accept",
    "reject",
    "expire",
    "bounce-warn",
    "max-message-size",
    "size",
    "limit",
    "subaddressing-delimiter",
    "ciphers",
];
/// Statements of long ago, and what to write.
const GONE: &[&str] = &["hostname", "map"];

/// Reads files into one [`Ast`].
pub(crate) struct Parser<'a> {
    source: &'a dyn Source,
    options: &'a Options,
    pub(crate) texts: SourceTexts,
    pub(crate) reports: Vec<Report>,
    pub(crate) ast: Ast,
    macros: Macros,
    /// The files that are being read, outermost first.
    reading: Vec<PathBuf>,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(source: &'a dyn Source, options: &'a Options) -> Self {
        let mut macros = Macros::default();
        for (name, value) in &options.defines {
            macros.define(name.clone(), Raw::Quoted(value.clone()), None);
        }
        Self {
            source,
            options,
            texts: SourceTexts::default(),
            reports: Vec::new(),
            ast: Ast::default(),
            macros,
            reading: Vec::new(),
        }
    }

    /// Reads a text and everything it includes. `path` is what includes are relative to, and what reports call it.
    pub(crate) fn read(&mut self, path: &Path, bytes: Vec<u8>) {
        let file = crate::load::add_text(&mut self.texts, &mut self.reports, path, bytes);
        let raws = lex(self.texts.text(file), file, &mut self.reports);
        let mut lines = Lines::new(raws);
        self.reading.push(path.to_path_buf());
        while self.reports.len() < REPORTS_KEPT_MAX {
            match lines.next(&mut self.macros, &self.texts, &mut self.reports) {
                Next::End => break,
                Next::Macro => {}
                Next::Statement(tokens) => self.statement(&tokens, &mut lines),
                Next::Unclosed { tokens, brace } => self.unclosed(&tokens, brace, &mut lines),
            }
        }
        self.reading.pop();
    }

    fn statement(&mut self, tokens: &[Token], lines: &mut Lines) {
        let Some(first) = tokens.first() else { return };
        if first.is_bare("include") {
            return self.include(tokens);
        }
        let reports_before = self.reports.len();
        match self.parse(tokens) {
            Ok(()) => {}
            Err(Stop::Told) => self.ast.broken = true,
            Err(Stop::InBlock { brace, raw }) => {
                self.ast.broken = true;
                // The brace was closed by a later statement's: the error is the brace, not what stands there.
                if lines.begins_statement(raw, brace, is_statement) {
                    self.reports.truncate(reports_before);
                    self.report_unclosed(brace, lines);
                }
            }
        }
    }

    fn parse(&mut self, tokens: &[Token]) -> Result<(), Stop> {
        let mut statement = Statement::new(tokens, &self.texts, &mut self.reports, &mut self.ast);
        let first = &tokens[0];
        let Kind::Bare(word) = &first.kind else {
            return match first.kind {
                Kind::Error => Err(Stop::Told),
                _ => {
                    let shown = self.texts.slice(first.span).to_owned();
                    Err(statement.error("E0201", first.span, format!("unknown statement `{shown}`")))
                }
            };
        };
        statement.skip();
        match word.as_str() {
            "listen" => statement.listen(self.options),
            "table" => statement.table(),
            "action" => statement.action(),
            "match" => statement.rule(),
            "smtp" => statement.smtp(),
            "queue" => statement.queue(),
            "bounce" => statement.bounce(),
            "shards" => statement.shards(),
            "store" => statement.store(),
            "http" => statement.http(self.options),
            "control" => statement.control(),
            name if NOT_YET.contains(&name) => Err(statement.not_yet(first.span, name)),
            name if GONE.contains(&name) => Err(gone(&mut statement, name, first.span)),
            name => {
                let right = BUILT.iter().chain(NOT_YET).copied();
                let report = Report::new("E0201", first.span, format!("unknown statement `{name}`"));
                Err(statement.tell(report.maybe_help(did_you_mean(name, right))))
            }
        }
    }

    /// The end of the file came first. What the statement declares is declared all the same.
    fn unclosed(&mut self, tokens: &[Token], brace: Span, lines: &mut Lines) {
        self.ast.broken = true;
        let reports_before = self.reports.len();
        if tokens[0].is_bare("table") || tokens[0].is_bare("action") {
            // Only for the names; what it says against the block is a consequence.
            let _ = self.parse(tokens);
            self.reports.truncate(reports_before);
        }
        self.report_unclosed(brace, lines);
    }

    fn report_unclosed(&mut self, brace: Span, lines: &mut Lines) {
        let next = lines.resume_behind(brace, is_statement);
        let report = Report::new("E0205", brace, "`{` is never closed");
        let help = next.map(|span| format!("it seems to end before line {}", self.texts.place(span).line));
        self.reports.push(report.maybe_help(help));
    }
}

fn is_statement(word: &str) -> bool {
    BUILT.contains(&word) || NOT_YET.contains(&word)
}

/// `hostname`, `map`: configuration of before 2012.
fn gone(statement: &mut Statement<'_>, name: &str, span: Span) -> Stop {
    let word = |n: usize| statement.tokens.get(n).and_then(Token::word).map(|w| w.text);
    let help = match name {
        "hostname" => {
            let host = word(1).unwrap_or_else(|| "NAME".to_owned());
            format!("it belongs to a listener: `listen on … hostname {host}`")
        }
        // map NAME source BACKEND PATH
        _ => match (word(1), word(3), word(4)) {
            (Some(table), Some(backend), Some(path)) => format!("write `table {table} {backend}:{path}`"),
            _ => "write `table NAME …`".to_owned(),
        },
    };
    statement.tell(Report::new("E0209", span, format!("`{name}` is no longer a statement")).help(help))
}
