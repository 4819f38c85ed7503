//! `filter`, `proc`: what is known when, what a chain may hold (grammar §4.6).

use std::collections::HashMap;
use std::time::Duration;

use super::Check;
use super::declared::What;
use super::rules::negation;
use crate::limits;
use crate::model::{Filter, FilterCondition, FilterDecision, FilterKind, FilterTest, OnFailure, Phase, Proc, Program};
use crate::parse::ast::{Arg, OptionLine, Options, Said, Word};
use crate::reply;
use crate::report::Report;

/// What chains hold, by name.
type Chains<'a> = HashMap<&'a str, &'a [Word]>;

/// Phases by name.
const PHASES: [(&str, Phase); 8] = [
    ("connect", Phase::Connect),
    ("helo", Phase::Helo),
    ("ehlo", Phase::Ehlo),
    ("auth", Phase::Auth),
    ("mail-from", Phase::MailFrom),
    ("rcpt-to", Phase::RcptTo),
    ("data", Phase::Data),
    ("commit", Phase::Commit),
];

impl Check<'_, '_> {
    pub(super) fn filters(&mut self) -> Vec<Filter> {
        let mut filters = Vec::new();
        let chains: Chains<'_> = self.ast.of("filter").filter_map(as_chain).collect();
        for said in self.ast.of("filter") {
            let (Some(name), kind) = (said.word(0), self.filter(said, &chains)) else { continue };
            if let Some(kind) = kind.filter(|_| !said.broken) {
                filters.push(Filter { name: name.text.to_string(), kind, line: self.reading.line(said.span) });
            }
        }
        filters
    }

    fn filter(&mut self, said: &Said, chains: &Chains<'_>) -> Option<FilterKind> {
        Some(match said.form.name {
            "chain" => {
                let (_, names) = as_chain(said)?;
                FilterKind::Chain(self.chain(names, chains))
            }
            "proc" => FilterKind::Proc(self.names.find(What::Proc, said.word(1)?, self.reading)?),
            "proc-exec" => FilterKind::Program(self.program(said.word(1)?, &said.options)?),
            "milter" => {
                let (timeout, on_failure) = patience(&said.options);
                FilterKind::Milter { socket: self.milter_socket(said.word(1)?)?, timeout, on_failure }
            }
            _ => self.builtin(said)?,
        })
    }

    /// Names of filters that are no chains: chains do not nest.
    fn chain(&mut self, names: &[Word], chains: &Chains<'_>) -> Vec<String> {
        let mut good = Vec::new();
        for name in names {
            let Some(found) = self.names.find(What::Filter, name, self.reading) else { continue };
            match chains.get(found.as_str()) {
                Some(inner) => {
                    let list: Vec<&str> = inner.iter().map(|word| &*word.text).collect();
                    let message = format!("a chain cannot contain the chain `{found}`");
                    let report = Report::new("E0608", name.span, message);
                    self.reading.report(report.help(format!("name its filters: {}", list.join(", "))));
                }
                None => good.push(found),
            }
        }
        good
    }

    fn builtin(&mut self, said: &Said) -> Option<FilterKind> {
        let phase = said.key_after("phase")?;
        let phase = PHASES.into_iter().find(|(name, _)| *name == phase)?.1;
        let tests = said.options.0.iter().filter(|option| !is_decision(option.name));
        let mut conditions = Vec::new();
        for option in tests {
            self.is_known(option, phase);
            let test = self.filter_test(option);
            conditions.push(test.map(|test| FilterCondition { negation: negation(option), test }));
        }
        if conditions.is_empty() && !said.broken {
            let report = Report::new("E0203", said.span, "`match` needs a condition before the decision");
            self.reading.report(report);
        }
        let decision = decision(said.options.0.last()?)?;
        Some(FilterKind::Builtin { phase, conditions: conditions.into_iter().collect::<Option<_>>()?, decision })
    }

    /// E0609: what is not known yet.
    fn is_known(&mut self, option: &OptionLine, phase: Phase) {
        let earliest = match option.name {
            "fcrdns" | "rdns" | "src" | "dnsbl" => Phase::Connect,
            "helo" => Phase::Helo,
            "auth" => Phase::Auth,
            "mail-from" | "spf" => Phase::MailFrom,
            "rcpt-to" => Phase::RcptTo,
            _ => Phase::Commit,
        };
        if phase >= earliest {
            return;
        }
        let name = |wanted: Phase| PHASES.into_iter().find(|(_, p)| *p == wanted).map_or("", |(name, _)| name);
        let message = format!("`{}` is not known yet in phase `{}`", option.word.value, name(phase));
        let report = Report::new("E0609", option.word.span, message);
        self.reading.report(report.help(format!("use `phase {}`", name(earliest))));
    }

    fn filter_test(&mut self, option: &OptionLine) -> Option<FilterTest> {
        let (tables, reading) = (&mut self.tables, &mut *self.reading);
        Some(match option.name {
            "fcrdns" => FilterTest::ForwardConfirmed,
            "rdns" => FilterTest::ReverseName(tables.maybe_among(&option.arg, reading)?),
            "src" => FilterTest::Source(tables.among(&option.arg, reading)?),
            "helo" => FilterTest::Helo(tables.among(&option.arg, reading)?),
            "auth" => FilterTest::Authenticated(tables.maybe_among(&option.arg, reading)?),
            "mail-from" => FilterTest::Sender(tables.among(&option.arg, reading)?),
            "rcpt-to" => FilterTest::Recipient(tables.among(&option.arg, reading)?),
            "dnsbl" => {
                let Arg::Targ(targ) = &option.arg else { return None };
                FilterTest::Listed(tables.keys(targ, reading))
            }
            name => {
                let Arg::Key(word) = &option.arg else { return None };
                if name == "spf" { FilterTest::Spf(word.value) } else { FilterTest::Dmarc(word.value) }
            }
        })
    }

    /// `unix:/path` or `inet:port@host`.
    fn milter_socket(&mut self, word: &Word) -> Option<String> {
        let good = match word.text.split_once(':') {
            Some(("unix" | "local", path)) => path.starts_with('/'),
            Some(("inet" | "inet6", place)) => {
                let (port, host) = place.split_once('@').unwrap_or((place, "localhost"));
                crate::values::port(port).is_some() && !host.is_empty()
            }
            _ => false,
        };
        if !good {
            let message = format!("not an address, network or host: `{}`", word.text);
            let report = Report::new("E0507", word.span, message);
            self.reading.report(report.help("`unix:/path` or `inet:port@host`"));
        }
        good.then(|| word.text.to_string())
    }

    fn program(&mut self, command: &Word, options: &Options) -> Option<Program> {
        let (timeout, on_failure) = patience(options);
        let chroot = options.word("chroot").map(|word| self.reading.place(word.span.file, &word.text));
        Some(Program {
            command: self.command(command, false)?,
            user: options.text("user"),
            group: options.text("group"),
            chroot,
            timeout,
            on_failure,
        })
    }

    pub(super) fn procs(&mut self) -> Vec<Proc> {
        let mut procs = Vec::new();
        for said in self.ast.of("proc").filter(|said| !said.broken) {
            let (Some(name), Some(command)) = (said.word(0), said.word(1)) else { continue };
            if let Some(program) = self.program(command, &said.options) {
                procs.push(Proc { name: name.text.to_string(), program, line: self.reading.line(said.span) });
            }
        }
        procs
    }
}

fn as_chain(said: &Said) -> Option<(&str, &[Word])> {
    match (said.word(0), said.value(1)) {
        (Some(name), Some(Arg::Names(inner))) if said.form.name == "chain" => Some((&name.text, inner)),
        _ => None,
    }
}

fn is_decision(name: &str) -> bool {
    matches!(name, "bypass" | "junk" | "disconnect" | "reject" | "rewrite" | "report")
}

fn decision(option: &OptionLine) -> Option<FilterDecision> {
    let word = match &option.arg {
        Arg::Word(word) => &*word.text,
        _ => "",
    };
    Some(match option.name {
        "bypass" => FilterDecision::Bypass,
        "junk" => FilterDecision::Junk,
        "disconnect" => FilterDecision::Disconnect(reply::parse(word).ok()?),
        "reject" => FilterDecision::Reject(reply::parse(word).ok()?),
        "rewrite" => FilterDecision::Rewrite(word.to_owned()),
        "report" => FilterDecision::Report(word.to_owned()),
        _ => return None,
    })
}

fn patience(options: &Options) -> (Duration, OnFailure) {
    let on_failure = match options.key("on-failure") {
        Some("bypass") => OnFailure::Bypass,
        _ => OnFailure::TempFail,
    };
    (options.duration("timeout").unwrap_or(limits::FILTER_TIMEOUT), on_failure)
}
