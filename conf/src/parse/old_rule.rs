//! Rules of 2012–2018, `accept …` and `reject …` (grammar §5.1). Read here; `old_style.rs` puts them in the words of today.

use super::ast::{Arg, At, OptionLine, Options, Word};
use super::grammar::{LOGINS, list, mapping};
use super::schema::{Kind, Opt, Shape, Use};
use super::statement::{Statement, Stop};
use crate::lex::Mark;
use crate::old_style;
use crate::report::Report;
use crate::source_text::Span;
use crate::tables::ServiceKind;

/// A rule as it was written, with the options of today's `match` and `action` as far as they mean the same.
#[derive(Debug)]
pub(crate) struct OldRule {
    /// `accept`, or `reject`.
    pub(crate) accepts: bool,
    /// `accept` or `reject`, the word.
    pub(crate) verb: Span,
    /// Conditions of `match`.
    pub(crate) conditions: Options,
    /// Options of `action`.
    pub(crate) action: Options,
    /// `deliver to …`, `forward-only`, `relay`.
    pub(crate) disposition: Option<Disposition>,
    /// The whole rule.
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) struct Disposition {
    /// The kind of action.
    pub(crate) kind: At<&'static str>,
    /// Path, command, destination.
    pub(crate) argument: Arg,
    /// `relay via URL`.
    pub(crate) via: Option<Word>,
    /// From its first word.
    pub(crate) span: Span,
}

const FOR_DOMAIN: Use = Use { service: ServiceKind::Domain, shape: Shape::List, called: Some("for domain") };
const FOR_VIRTUAL: Use = Use { service: ServiceKind::Domain, shape: Shape::List, called: Some("for virtual") };

/// Conditions; `!` stands behind the word.
const CONDITIONS: &[Opt] = &[
    Opt::old(&["tagged"], "tag", Kind::Targ(list(ServiceKind::String))),
    Opt::old(&["from"], "from", Kind::Flag),
    Opt::old(&["sender"], "mail-from", Kind::Targ(list(ServiceKind::MailAddr))),
    Opt::old(&["recipient"], "rcpt-to", Kind::Targ(list(ServiceKind::MailAddr))),
    Opt::old(&["for"], "for", Kind::Flag),
];

/// What belongs to the action, and stands among the conditions.
const MAPPINGS: &[Opt] = &[
    Opt::old(&["alias"], "alias", Kind::Targ(mapping(ServiceKind::Alias))),
    Opt::old(&["virtual"], "virtual", Kind::Targ(mapping(ServiceKind::Alias))),
    Opt::old(&["users"], "userbase", Kind::Targ(mapping(ServiceKind::UserInfo))),
    Opt::old(&["userbase"], "userbase", Kind::Targ(mapping(ServiceKind::UserInfo))),
];

/// Behind `relay`.
const RELAY: &[Opt] = &[
    Opt::old(&["auth"], "auth", Kind::Targ(LOGINS)),
    Opt::old(&["as"], "mail-from", Kind::Word("an address")),
    Opt::old(&["source"], "src", Kind::Targ(list(ServiceKind::SourceAddr))),
    Opt::old(&["helo"], "helo-src", Kind::Targ(mapping(ServiceKind::AddrName))),
    Opt::old(&["hostname"], "helo", Kind::HostName),
    Opt::old(&["hostnames"], "helo-src", Kind::Targ(mapping(ServiceKind::AddrName))),
    Opt::old(&["certificate"], "pki", Kind::Word("a name")),
    Opt::old(&["pki"], "pki", Kind::Word("a name")),
    Opt::old(&["ca"], "ca", Kind::Word("a name")),
    Opt::old(&["tls"], "tls", Kind::MaybeChoice(&["verify"])),
    Opt::old(&["verify"], "tls", Kind::Flag),
    Opt::old(&["no-verify"], "tls", Kind::Flag),
    EXPIRE,
];

/// Behind a delivery that can be made as somebody.
const AS_USER: &[Opt] = &[Opt::old(&["as"], "user", Kind::Word("a name")), EXPIRE];
const LMTP: &[Opt] =
    &[Opt::old(&["rcpt-to"], "rcpt-to", Kind::Flag), Opt::old(&["as"], "user", Kind::Word("a name")), EXPIRE];
const TAIL: &[Opt] = &[EXPIRE];
const EXPIRE: Opt = Opt::old(&["expire"], "ttl", Kind::Duration);

const DELIVERIES: &[&str] = &["mbox", "maildir", "mda", "lmtp"];

impl Statement<'_> {
    /// Reads a rule and adds what it means. What could be read is kept when it breaks off.
    pub(super) fn old_rule(&mut self) -> Result<(), Stop> {
        let verb = self.last();
        let mut rule = OldRule {
            accepts: self.first == "accept",
            verb,
            conditions: Options::default(),
            action: Options::default(),
            disposition: None,
            span: verb,
        };
        let outcome = self.old_parts(&mut rule);
        rule.span = self.so_far();
        let outcome = outcome.and_then(|()| match rule.conditions.0.is_empty() {
            true => {
                let message = "a rule without conditions would decide about everything; \
                               write `from any for any` if that is meant";
                Err(self.error("E0208", verb, message))
            }
            false => Ok(()),
        });
        let line = self.texts.place(verb).line;
        let file = (verb.file != 0).then(|| self.texts.name(verb.file));
        let name = file.map_or(format!("line-{line}"), |file| format!("{file}-line-{line}"));
        let said = old_style::rule(rule, &name, outcome.is_err(), self.reports);
        self.ast.statements.extend(said);
        outcome
    }

    fn old_parts(&mut self, rule: &mut OldRule) -> Result<(), Stop> {
        loop {
            if let Some((option, word)) = self.option_word(CONDITIONS) {
                self.old_condition(option, word, rule)?;
            } else if let Some((option, word)) = self.option_word(MAPPINGS) {
                self.old_option(option, word, &mut rule.action)?;
            } else {
                break;
            }
        }
        self.disposition(rule)?;
        if self.at_end() {
            return Ok(());
        }
        if let Some(disposition) = &rule.disposition {
            let after = self.texts.slice(disposition.span).to_owned();
            let stop = self.unexpected(&after);
            if let Some(last) = self.reports.last_mut().filter(|report| report.code == "E0204") {
                last.help = Some("one rule, one delivery".to_owned());
            }
            return Err(stop);
        }
        let right = CONDITIONS.iter().chain(MAPPINGS).map(Opt::first).chain(["deliver", "relay", "forward-only"]);
        Err(self.no_such_option(self.first, right))
    }

    fn old_condition(&mut self, option: &'static Opt, word: At<&'static str>, rule: &mut OldRule) -> Result<(), Stop> {
        let name = option.today.unwrap_or(option.first());
        if let Some(first) = rule.conditions.find(name).map(|earlier| earlier.word.span) {
            self.twice(word.value, word.span, first);
        }
        let negated = self.mark(Mark::Not).is_some();
        let arg = match name {
            "from" => self.old_from()?,
            "for" => self.old_for(rule)?,
            _ => self.argument(&option.kind, word.value)?,
        };
        rule.conditions.0.push(OptionLine { name, word, negated, arg });
        Ok(())
    }

    fn old_from(&mut self) -> Result<Arg, Stop> {
        if let Some(word) = self.keyword(&["any", "all", "local"]) {
            return Ok(self.any_or_local(word));
        }
        let source = self.keyword(&["source"]);
        let keyword = At { value: source.map_or("from", |word| word.value), span: self.last() };
        let arg = Arg::Targ(self.targ(list(ServiceKind::NetAddr), keyword)?);
        Ok(Arg::One(Box::new(OptionLine { name: "src", word: keyword, negated: false, arg })))
    }

    fn old_for(&mut self, rule: &mut OldRule) -> Result<Arg, Stop> {
        let right = ["any", "all", "local", "domain", "virtual"];
        let Some(word) = self.keyword(&right) else {
            return Err(self.needs_one_of("for", "any, local, domain or virtual", &right));
        };
        let used = match word.value {
            "domain" => FOR_DOMAIN,
            "virtual" => FOR_VIRTUAL,
            _ => return Ok(self.any_or_local(word)),
        };
        let targ = self.targ(used, word)?;
        if word.value == "virtual" {
            let report = Report::new("W0804", word.span, "old spelling; now `for domain … virtual …`");
            let help = "two tables, one of domains and one of addresses, say it more clearly: \
                        `for domain <domains> virtual <users>`";
            self.reports.push(report.help(help));
            let mapped = super::ast::Targ { used: mapping(ServiceKind::Alias), ..targ.clone() };
            if let Some(first) = rule.action.find("virtual").map(|earlier| earlier.word.span) {
                self.twice("virtual", word.span, first);
            }
            rule.action.0.push(OptionLine { name: "virtual", word, negated: false, arg: Arg::Targ(mapped) });
        }
        let arg = Arg::Targ(targ);
        Ok(Arg::One(Box::new(OptionLine { name: "domain", word, negated: false, arg })))
    }

    fn any_or_local(&mut self, word: At<&'static str>) -> Arg {
        let name = match word.value {
            "all" => {
                self.reports.push(Report::new("W0804", word.span, "old spelling; now `any`"));
                "any"
            }
            same => same,
        };
        Arg::One(Box::new(OptionLine { name, word, negated: false, arg: Arg::Nothing }))
    }

    fn disposition(&mut self, rule: &mut OldRule) -> Result<(), Stop> {
        let Some(word) = self.keyword(&["deliver", "forward-only", "relay"]) else {
            return self.old_options(TAIL, &mut rule.action);
        };
        let start = word.span;
        let (kind, argument, tail) = match word.value {
            "deliver" => self.delivery()?,
            "relay" => {
                let (kind, via) = (word, self.relay_target(rule)?);
                rule.disposition = Some(Disposition { kind, argument: Arg::Nothing, via, span: start.to(self.last()) });
                return self.old_options(RELAY, &mut rule.action);
            }
            _ => (word, Arg::Nothing, TAIL),
        };
        rule.disposition = Some(Disposition { kind, argument, via: None, span: start.to(self.last()) });
        self.old_options(tail, &mut rule.action)
    }

    fn delivery(&mut self) -> Result<(At<&'static str>, Arg, &'static [Opt]), Stop> {
        if self.keyword(&["to"]).is_none() {
            return Err(self.needs_one_of("deliver", "`to`", &["to"]));
        }
        let Some(kind) = self.keyword(DELIVERIES) else {
            return Err(self.needs_one_of("deliver to", "mbox, maildir, mda or lmtp", DELIVERIES));
        };
        Ok(match kind.value {
            "mda" => (kind, Arg::Word(self.word("mda", "a command")?), AS_USER),
            "lmtp" => (kind, Arg::Word(self.word("lmtp", "a socket or host:port")?), LMTP),
            "maildir" => {
                self.form_options = TAIL;
                (kind, self.argument(&Kind::MaybeWord, "maildir")?, TAIL)
            }
            _ => (kind, Arg::Nothing, TAIL),
        })
    }

    /// `backup [NAME]`, `via URL`, or neither.
    fn relay_target(&mut self, rule: &mut OldRule) -> Result<Option<Word>, Stop> {
        match self.keyword(&["backup", "via"]) {
            Some(word) if word.value == "via" => self.word("via", "a relay URL").map(Some),
            Some(word) => {
                self.form_options = RELAY;
                let name = if self.goes_on() { Arg::Nothing } else { self.argument(&Kind::HostName, "backup")? };
                rule.action.0.push(OptionLine { name: "backup", word, negated: false, arg: old_style::backup(name) });
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn old_options(&mut self, known: &'static [Opt], options: &mut Options) -> Result<(), Stop> {
        while let Some((option, word)) = self.option_word(known) {
            self.old_option(option, word, options)?;
        }
        Ok(())
    }

    fn old_option(&mut self, option: &'static Opt, word: At<&'static str>, options: &mut Options) -> Result<(), Stop> {
        let name = option.today.unwrap_or(option.first());
        if let Some(first) = options.find(name).map(|earlier| earlier.word.span) {
            self.twice(word.value, word.span, first);
        }
        if word.value == "certificate" {
            self.reports.push(Report::new("W0804", word.span, "old spelling; now `pki`"));
        }
        let arg = self.argument(&option.kind, word.value)?;
        options.0.push(OptionLine { name, word, negated: false, arg });
        Ok(())
    }
}
