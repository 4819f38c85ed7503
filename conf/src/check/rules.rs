//! Rules: names and tables of each `match` line (grammar §4.5).

use std::collections::HashMap;

use super::Check;
use super::declared::What;
use crate::model::{Action, Match, Outcome, Reply};
use crate::parse::ast::{Arg, OptionLine, Said};
use crate::reply;
use crate::rules::{Condition, Dest, Negation, Origin, Test};

impl Check<'_, '_> {
    /// The lines that are whole, each with its statement; what is wrong with the others was told.
    pub(super) fn rules(&mut self, actions: &[Action]) -> Vec<(Match, usize)> {
        let mut rules = Vec::new();
        let numbers: HashMap<&str, usize> =
            actions.iter().enumerate().map(|(at, action)| (action.name.as_str(), at)).collect();
        for &number in self.ast.numbers("match") {
            let said = &self.ast.statements[number];
            let rule = self.rule(said, &numbers);
            if let Some(rule) = rule.filter(|_| !said.broken) {
                rules.push((rule, number));
            }
        }
        rules
    }

    fn rule(&mut self, said: &Said, actions: &HashMap<&str, usize>) -> Option<Match> {
        // Every part is looked at, so that all errors of a line are told.
        let from = said.options.find("from").map(|option| self.origin(option));
        let dest = said.options.find("for").map(|option| self.destination(option));
        let tests = said.options.0.iter().filter(|o| !matches!(o.name, "from" | "for" | "action" | "reject"));
        let conditions: Vec<Option<Condition>> = tests.map(|option| self.condition(option)).collect();
        let outcome = self.outcome(said, actions);
        let plain = Negation::Plain;
        Some(Match {
            from: from.unwrap_or(Some((plain, Origin::Local)))?,
            dest: dest.unwrap_or(Some((plain, Dest::Local)))?,
            conditions: conditions.into_iter().collect::<Option<_>>()?,
            outcome: outcome?,
            line: self.reading.line(said.span),
        })
    }

    fn origin(&mut self, option: &OptionLine) -> Option<(Negation, Origin)> {
        let Arg::One(what) = &option.arg else { return None };
        let (tables, reading) = (&mut self.tables, &mut *self.reading);
        let origin = match what.name {
            "any" => Origin::Any,
            "local" => Origin::Local,
            "socket" => Origin::Socket,
            "src" => Origin::Source(tables.among(&what.arg, reading)?),
            "rdns" => Origin::ReverseName(tables.maybe_among(&what.arg, reading)?),
            "auth" => Origin::Authenticated(tables.maybe_among(&what.arg, reading)?),
            "mail-from" => Origin::Sender(tables.among(&what.arg, reading)?),
            _ => Origin::Certificate(tables.maybe_among(&what.arg, reading)?),
        };
        Some((negation(option), origin))
    }

    fn destination(&mut self, option: &OptionLine) -> Option<(Negation, Dest)> {
        let Arg::One(what) = &option.arg else { return None };
        let (tables, reading) = (&mut self.tables, &mut *self.reading);
        let destination = match what.name {
            "any" => Dest::Any,
            "local" => Dest::Local,
            "domain" => Dest::Domain(tables.among(&what.arg, reading)?),
            _ => Dest::Recipient(tables.among(&what.arg, reading)?),
        };
        Some((negation(option), destination))
    }

    fn condition(&mut self, option: &OptionLine) -> Option<Condition> {
        let (tables, reading) = (&mut self.tables, &mut *self.reading);
        let test = match option.name {
            "helo" => Test::Helo(tables.among(&option.arg, reading)?),
            "mail-from" => Test::Sender(tables.among(&option.arg, reading)?),
            "rcpt-to" => Test::Recipient(tables.among(&option.arg, reading)?),
            "tag" => Test::Tag(tables.among(&option.arg, reading)?),
            "tls" => Test::Tls,
            "auth" => Test::Authenticated(tables.maybe_among(&option.arg, reading)?),
            _ => Test::Certificate(tables.maybe_among(&option.arg, reading)?),
        };
        Some(Condition { negation: negation(option), test })
    }

    fn outcome(&mut self, said: &Said, actions: &HashMap<&str, usize>) -> Option<Outcome> {
        if let Some(name) = said.options.word("action") {
            let name = self.names.find(What::Action, name, self.reading)?;
            return actions.get(name.as_str()).copied().map(Outcome::Action);
        }
        let option = said.options.find("reject")?;
        Some(Outcome::Reject(match &option.arg {
            Arg::Word(word) => reply::parse(&word.text).ok()?,
            _ => refused(),
        }))
    }
}

/// What `reject` says by itself.
fn refused() -> Reply {
    Reply { code: 550, status: "5.7.1".to_owned(), text: "refused".to_owned() }
}

pub(super) fn negation(option: &OptionLine) -> Negation {
    if option.negated { Negation::Negated } else { Negation::Plain }
}
