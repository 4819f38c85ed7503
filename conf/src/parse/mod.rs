//! From tokens to statements (grammar §3). The statements are data in `grammar/`, read by `form.rs` and `argument.rs`, LL(2)
//! throughout; what is old is read by hand.
//!
//! After an error the parser goes on at the next line outside braces. What a broken statement declares still counts as
//! declared, so that one mistake is one error (grammar §9.1).

mod argument;
pub(crate) mod ast;
mod form;
pub(crate) mod grammar;
mod include;
pub(crate) mod old_rule;
mod old_setting;
pub(crate) mod schema;
mod statement;
mod table;
pub(crate) mod tokens;

pub(crate) use argument::address;
pub(crate) use table::{BUILT_IN as BUILT_IN_TABLES, backend_of};

use std::path::{Path, PathBuf};

use self::ast::Ast;
use self::statement::{Statement, Stop};
use self::tokens::{Kind, Lines, Macros, Next, Token};
use crate::lex::{Raw, lex};
use crate::limits::{REPORTS_KEPT_MAX, STATEMENTS_MAX};
use crate::load::{Options, Source};
use crate::profile;
use crate::report::{Report, Severity, did_you_mean};
use crate::source_text::{SourceTexts, Span};

/// Statements that are not in `grammar/`: they are read by hand.
const BY_HAND: &[&str] = &["include", "accept", "reject"];
/// Settings of 2012–2018 (`old_setting.rs`).
const OLD_SETTINGS: &[&str] =
    &["expire", "bounce-warn", "max-message-size", "size", "limit", "subaddressing-delimiter", "ciphers"];
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
            macros.define(name.clone(), Raw::Quoted(value.as_str().into()), None);
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
        let (mut counted, mut errors) = (0, 0);
        while !self.ast.cut {
            let new = self.reports.iter().skip(counted);
            errors += new.filter(|report| report.severity() == Severity::Error).count();
            counted = self.reports.len();
            if errors >= REPORTS_KEPT_MAX {
                self.ast.cut = true;
                break;
            }
            match lines.next(&mut self.macros, &self.texts, &mut self.reports, is_statement) {
                Next::End => break,
                Next::TooMuch => {
                    self.ast.cut = true;
                    break;
                }
                Next::Macro => {}
                Next::Statement(tokens) if self.ast.statements.len() >= STATEMENTS_MAX => {
                    let span = tokens.first().map_or_else(|| self.texts.end_of(file), |token| token.span);
                    let message = format!("a configuration has at most {STATEMENTS_MAX} statements");
                    self.reports.push(Report::new("E0103", span, message).help("tables hold as much as you like"));
                    self.ast.cut = true;
                    break;
                }
                Next::Statement(tokens) => self.statement(&tokens, &mut lines),
                Next::Unclosed { tokens, brace } => self.unclosed(&tokens, brace, &mut lines),
            }
        }
        self.reading.pop();
    }

    /// The statements of the profile that the files name, beside those of the files.
    pub(crate) fn read_profile(&mut self) -> Ast {
        let mut all = self.ast.statements.iter();
        let named = all.find(|said| said.form.statement == "profile").and_then(|said| said.head.first().cloned());
        let Some(ast::Arg::Key(name)) = named else { return Ast::default() };
        let own = std::mem::take(&mut self.ast);
        self.read(Path::new(&format!("profile {}", name.value)), profile::text(name.value).into());
        std::mem::replace(&mut self.ast, own)
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
        let known = statement_words().find(|name| *word == **name);
        statement.first = known.unwrap_or_default();
        match &**word {
            "accept" | "reject" => statement.old_rule(),
            name if OLD_SETTINGS.contains(&name) => statement.old_setting(),
            name if GONE.contains(&name) => Err(gone(&mut statement, name, first.span)),
            _ if known.is_some() => statement.read(),
            name => {
                let report = Report::new("E0201", first.span, format!("unknown statement `{name}`"));
                Err(statement.tell(report.maybe_help(did_you_mean(name, statement_words()))))
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

/// Every word that begins a statement.
fn statement_words() -> impl Iterator<Item = &'static str> {
    let by_hand = OLD_SETTINGS.iter().chain(BY_HAND).copied();
    grammar::forms().map(|form| form.statement).chain(by_hand)
}

fn is_statement(word: &str) -> bool {
    statement_words().any(|known| known == word)
}

/// `hostname`, `map`: configuration of before 2012.
fn gone(statement: &mut Statement<'_>, name: &str, span: Span) -> Stop {
    let word = |n: usize| statement.tokens.get(n).and_then(Token::word).map(|w| w.text);
    let help = match name {
        "hostname" => {
            let host = word(1).unwrap_or_else(|| "NAME".into());
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
