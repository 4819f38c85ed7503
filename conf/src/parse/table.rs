//! What is special about `table`: its name may stand in brackets, and its contents are entries or a source (grammar §7).

use std::rc::Rc;

use super::ast::{Arg, Word};
use super::statement::{Statement, Stop};
use super::tokens::Kind;
use crate::lex::Mark;
use crate::report::Report;

/// Tables that are there without being declared.
pub(crate) const BUILT_IN: &[&str] = &["localnames", "getpwnam"];

impl Statement<'_> {
    /// A new table's name. Its span covers the brackets, which mean nothing.
    pub(super) fn table_name(&mut self) -> Result<Arg, Stop> {
        let word = match self.peek().map(|token| &token.kind) {
            Some(Kind::Mark(Mark::Less)) => {
                let reference = self.table_reference()?;
                Word { text: reference.value, quoted: false, span: reference.span }
            }
            _ => self.word("table", "a name")?,
        };
        if BUILT_IN.contains(&&*word.text) {
            let report = Report::new("E0306", word.span, format!("<{}> is a built-in table", word.text));
            return Err(self.tell(report.help("name the domains in the rule: `for domain poolp.org`")));
        }
        Ok(Arg::Word(word))
    }

    /// Entries, a path, or BACKEND:ARGUMENT; a path alone is a file.
    pub(super) fn table_source(&mut self) -> Result<Arg, Stop> {
        if let Some(Kind::Mark(Mark::Open)) = self.peek().map(|token| &token.kind) {
            return Ok(Arg::Entries(Rc::new(self.entries()?)));
        }
        let source = self.word("table", "entries in `{ }`, a path or BACKEND:ARGUMENT")?;
        Ok(Arg::Word(match backend_of(&source.text) {
            Some(_) => source,
            None => Word { text: format!("file:{}", source.text).into(), ..source },
        }))
    }
}

/// `file` and `/p` of `file:/p`. `/a:b` is a path: it begins with `/`, `.` or `~`.
pub(crate) fn backend_of(source: &str) -> Option<(&str, &str)> {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    source.split_once(':').filter(|(name, _)| is_name(name))
}
