//! `table NAME { … } | PATH | BACKEND:ARGUMENT` (grammar §7).

use super::ast::{TableBody, TableLine, Word};
use super::statement::{Statement, Stop};
use super::tokens::Kind;
use crate::lex::Mark;
use crate::report::{Report, nearest};
use crate::source_text::Span;

const BACKENDS: &[&str] = &["file", "db", "sqlite", "ldap", "redis", "proc"];
const OPTIONS: &[&str] = &["cache", "negative", "stale", "timeout", "pool", "manual"];
/// Tables that are there without being declared.
pub(crate) const BUILT_IN: &[&str] = &["localnames", "getpwnam"];

impl Statement<'_> {
    pub(super) fn table(&mut self) -> Result<(), Stop> {
        let (name, name_span) = match self.peek().map(|token| &token.kind) {
            Some(Kind::Mark(Mark::Less)) => {
                let reference = self.table_reference()?;
                (reference.value, reference.span)
            }
            _ => {
                let word = self.word("table", "a name")?;
                (word.text, word.span)
            }
        };
        if BUILT_IN.contains(&name.as_str()) {
            let report = Report::new("E0306", name_span, format!("<{name}> is a built-in table"));
            return Err(self.tell(report.help("name the domains in the rule: `for domain poolp.org`")));
        }
        let body = self.table_body();
        let (body, outcome) = match body {
            Ok(body) => (body, Ok(())),
            Err(stop) => (TableBody::Broken, Err(stop)),
        };
        self.declare_table(TableLine { name, name_span, body });
        outcome
    }

    fn table_body(&mut self) -> Result<TableBody, Stop> {
        let body = match self.peek().map(|token| &token.kind) {
            Some(Kind::Mark(Mark::Open)) => TableBody::Static(self.entries()?),
            _ => {
                let source = self.word("table", "entries in `{ }`, a path or BACKEND:ARGUMENT")?;
                TableBody::File(self.file_source(source)?)
            }
        };
        if let Some(option) = self.keyword(OPTIONS) {
            return Err(self.not_yet(option.span, option.value));
        }
        if !self.at_end() {
            return Err(self.no_such_option("table", OPTIONS, &[]));
        }
        Ok(body)
    }

    /// The path of a file table; every other backend needs the coordinator, which cannot be asked yet.
    fn file_source(&mut self, source: Word) -> Result<Word, Stop> {
        let Some((backend, argument)) = source.text.split_once(':').filter(|(name, _)| is_backend_name(name)) else {
            return Ok(source);
        };
        match backend {
            "file" => Ok(Word { text: argument.to_owned(), ..source }),
            known if BACKENDS.contains(&known) => Err(self.not_yet(source.span, &format!("table {known}:"))),
            unknown => Err(self.no_such_backend(unknown, source.span)),
        }
    }

    fn no_such_backend(&mut self, name: &str, span: Span) -> Stop {
        let helper = format!("a helper would be named `table-{name}`");
        let help = match nearest(name, BACKENDS.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? ({helper})"),
            None => helper,
        };
        self.tell(Report::new("E0307", span, format!("no such table backend: `{name}`")).help(help))
    }

    fn declare_table(&mut self, table: TableLine) {
        let earlier = self.ast.tables.iter().find(|t| t.name == table.name).map(|t| t.name_span);
        match earlier {
            Some(first) => {
                let report =
                    Report::new("E0305", table.name_span, format!("table `{}` is already declared", table.name));
                let help = format!("at {}", self.texts.at(first));
                self.reports.push(report.also(first, "declared here").help(help));
            }
            None => self.ast.tables.push(table),
        }
    }
}

/// `file:/p` is a backend, `/a:b` and `C:` are not worth the question: a path begins with `/`, `.` or `~`.
fn is_backend_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
