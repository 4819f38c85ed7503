//! Settings of 2012–2018 (grammar §5.1): each has a statement of today that means the same, and is read as that.

use super::ast::{Arg, At, Options, Said};
use super::grammar;
use super::schema::{Form, Kind, Rest};
use super::statement::{Statement, Stop};
use crate::report::Report;

impl Statement<'_> {
    pub(super) fn old_setting(&mut self) -> Result<(), Stop> {
        let word = At { value: self.first, span: self.last() };
        match word.value {
            "expire" => self.renamed(word, "queue ttl", &Kind::Duration),
            "bounce-warn" => self.renamed(word, "bounce warn-interval", &Kind::Durations),
            "max-message-size" => self.renamed(word, "smtp max-message-size", &Kind::Size),
            "size" => {
                self.reports.push(Report::new("W0804", word.span, "old spelling; now `smtp max-message-size`"));
                self.renamed(word, "smtp max-message-size", &Kind::Size)
            }
            "subaddressing-delimiter" => self.renamed(word, "smtp sub-addr-delim", &Kind::Delimiter),
            "ciphers" => self.renamed(word, "smtp ciphers", &Kind::Word("a list of ciphers")),
            _ => self.old_limit(),
        }
    }

    /// `OLD ARGUMENT` is `STATEMENT KEYWORD ARGUMENT`.
    fn renamed(&mut self, word: At<&'static str>, name: &'static str, kind: &'static Kind) -> Result<(), Stop> {
        let form = form_named(name);
        let key = form.head.iter().find_map(|item| match item {
            super::schema::Item::Key(key) => Some(*key),
            super::schema::Item::Arg(_) => None,
        });
        let mut said = Said::new(form, self.so_far());
        said.head.extend(key.map(|value| Arg::Key(At { value, ..word })));
        said.rewritten = true;
        let outcome = self.argument(kind, word.value).and_then(|arg| {
            said.head.push(arg);
            self.end(word.value)
        });
        said.broken = outcome.is_err();
        said.span = self.so_far();
        self.keep(said);
        outcome
    }

    /// `limit session …`, `limit mta …`, `limit scheduler …`.
    fn old_limit(&mut self) -> Result<(), Stop> {
        let right = ["session", "mta", "scheduler"];
        let Some(word) = self.keyword(&right) else {
            return Err(self.needs_one_of("limit", "session, mta or scheduler", &right));
        };
        let form = form_named(match word.value {
            "session" => "smtp limit",
            "mta" => "mta limit",
            _ => "scheduler limit",
        });
        debug_assert_eq!(form.rest, Rest::Limits);
        let mut said = Said::new(form, self.so_far());
        said.head.push(Arg::Key(At { value: "limit", ..word }));
        said.rewritten = true;
        let mut options = Options::default();
        let outcome = self.limits(form, &mut options);
        said.options = options;
        said.broken = outcome.is_err();
        said.span = self.so_far();
        self.keep(said);
        outcome
    }
}

fn form_named(name: &str) -> &'static Form {
    grammar::forms().find(|form| form.name == name).expect("the grammar has this form")
}
