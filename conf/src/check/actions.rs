//! Actions: what goes together, formats, commands (grammar §4.4).

use std::path::Path;
use std::time::Duration;

use super::declared::What;
use super::{Check, exclude};
use crate::command::{Command, CommandProblem};
use crate::format::{Format, FormatProblem, written_length};
use crate::limits::ACTIONS_MAX;
use crate::model::{Action, ActionKind, Lmtp, LocalOptions, Maildir, Mapping, Mda};
use crate::parse::ast::{Arg, Said, Word};
use crate::report::Report;
use crate::source_text::{Span, narrow};

/// Where a Maildir is unless the action says otherwise (D11).
const MAILDIR: &str = "~/Maildir";

impl Check<'_, '_> {
    /// Those that are whole, in order; [`Check::action_index`] finds them by name.
    pub(super) fn actions(&mut self, queue_ttl: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        for said in self.ast.of("action") {
            let Some(name) = said.word(0) else { continue };
            if actions.len() == ACTIONS_MAX {
                let message = format!("a configuration has at most {ACTIONS_MAX} actions");
                let report = Report::new("E0103", said.span, message);
                self.reading.report(report.help("what differs by recipient belongs into tables and formats"));
                break;
            }
            let action = self.action(said, name, queue_ttl);
            if !said.broken {
                // What is wrong with it was told, and nothing is loaded then: its number must be right all the same.
                let mut action = action;
                action.name = name.text.to_string();
                actions.push(action);
            }
        }
        actions
    }

    fn action(&mut self, said: &Said, name: &Word, queue_ttl: Duration) -> Action {
        let options = &said.options;
        if let (Some(alias), Some(mapped)) = (options.find("alias"), options.find("virtual")) {
            let (first, later) =
                if alias.word.span.start < mapped.word.span.start { (alias, mapped) } else { (mapped, alias) };
            let help = format!("`{}` is at {}", first.name, self.reading.texts.at(first.word.span));
            let report = Report::new("E0604", later.word.span, "`alias` and `virtual` exclude each other");
            self.reading.report(report.also(first.word.span, "the other is here").help(help));
        }
        let alias = options.targ("alias").and_then(|(_, targ)| self.tables.keyed(targ, self.reading));
        let mapped = options.targ("virtual").and_then(|(_, targ)| self.tables.keyed(targ, self.reading));
        let kind = self.action_kind(said);
        self.cannot_be_used(said);
        Action {
            name: name.text.to_string(),
            kind: kind.unwrap_or(ActionKind::Discard),
            mapping: alias.map(Mapping::Alias).or(mapped.map(Mapping::Virtual)),
            local: self.local_options(said),
            feedback: options.has("feedback"),
            ttl: options.duration("ttl").unwrap_or(queue_ttl),
            line: self.reading.line(said.span),
        }
    }

    fn action_kind(&mut self, said: &Said) -> Option<ActionKind> {
        Some(match said.form.name {
            "relay" => ActionKind::Relay(Box::new(self.relay(said))),
            "mbox" => ActionKind::Mbox,
            "maildir" => ActionKind::Maildir(Maildir { path: self.maildir(said)?, junk: said.options.has("junk") }),
            "mda" => ActionKind::Mda(Mda { command: self.command(said.word(1)?, false)? }),
            "lmtp" => {
                let destination = self.lmtp_destination(said.word(1)?)?;
                ActionKind::Lmtp(Lmtp { destination, rcpt_to: said.options.has("rcpt-to") })
            }
            "expand-only" => ActionKind::ExpandOnly,
            "forward-only" => ActionKind::ForwardOnly,
            _ => ActionKind::Discard,
        })
    }

    /// E0610: options that mean nothing for this kind.
    fn cannot_be_used(&mut self, said: &Said) {
        let kind = said.form.name;
        let useless: &[&str] = match kind {
            // The system's mailbox is the user's own.
            "mbox" => &["user", "wrapper"],
            "maildir" | "lmtp" => &["wrapper"],
            // Nothing is delivered by them.
            "expand-only" | "forward-only" => &["user", "wrapper", "feedback"],
            _ => &[],
        };
        for option in said.options.0.iter().filter(|option| useless.contains(&option.name)) {
            let message = format!("`{}` cannot be used with `{kind}`", option.word.value);
            self.reading.report(Report::new("E0610", option.word.span, message));
        }
    }

    fn local_options(&mut self, said: &Said) -> LocalOptions {
        let options = &said.options;
        let wrapper = self.names.maybe(What::Wrapper, options.word("wrapper"), self.reading);
        LocalOptions {
            user: options.text("user"),
            userbase: options.targ("userbase").and_then(|(_, targ)| self.tables.keyed(targ, self.reading)),
            wrapper: wrapper.and_then(|name| self.wrapper(&name)),
        }
    }

    /// The command of `mda wrapper NAME`.
    fn wrapper(&mut self, name: &str) -> Option<Command> {
        self.wrappers.get(name).cloned().flatten()
    }

    /// Every wrapper, also those that nobody uses.
    pub(super) fn wrappers(&mut self) {
        for said in self.ast.of("mda").filter(|said| said.form.name == "mda wrapper" && !said.broken) {
            let (Some(name), Some(word)) = (said.word(0), said.word(1)) else { continue };
            let command = self.command(word, true);
            if command.as_ref().is_some_and(|command| !command.mentions_mda()) {
                let report = Report::new("E0203", word.span, "`wrapper` needs `%{mda}` in its command");
                self.reading.report(report.help("it stands for the command that is wrapped"));
            }
            self.wrappers.entry(&name.text).or_insert(command);
        }
    }

    fn maildir(&mut self, said: &Said) -> Option<Format> {
        let Some(Arg::Word(path)) = said.value(1) else { return Format::parse(MAILDIR).ok() };
        let format = self.format(path, false)?;
        if format.is_in_home() || path.text.starts_with("%{user.directory}") {
            return Some(format);
        }
        Some(self.below_root(format, path))
    }

    /// An absolute path below `--root`, a relative one below the directory of its file.
    fn below_root(&self, format: Format, word: &Word) -> Format {
        let directory = Path::new(self.reading.texts.name(word.span.file)).parent().unwrap_or(Path::new(""));
        match &self.reading.options.root {
            Some(root) if word.text.starts_with('/') => format.below(&root.to_string_lossy()),
            _ if word.text.starts_with('/') => format,
            _ => format.below(&directory.join("").to_string_lossy()),
        }
    }

    fn lmtp_destination(&mut self, word: &Word) -> Option<Format> {
        let format = self.format(word, false)?;
        if word.text.starts_with('/') {
            return Some(self.below_root(format, word));
        }
        let has_port = word.text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && (crate::values::port(port).is_some() || port.contains("%{"))
        });
        if !has_port && !word.text.starts_with("%{") {
            let message = format!("not an address, network or host: `{}`", word.text);
            let report = Report::new("E0507", word.span, message);
            self.reading.report(report.help("a socket's path, or host:port: LMTP has no port of its own"));
            return None;
        }
        Some(format)
    }

    /// A command line; `%{mda}` is for wrappers alone.
    pub(super) fn command(&mut self, word: &Word, is_wrapper: bool) -> Option<Command> {
        let report = match Command::parse(&word.text) {
            Ok(command) if !is_wrapper && command.mentions_mda() => {
                let report = Report::new("E0506", self.within(word, word.text.find("%{mda")), "unknown format `mda`");
                report.help("`%{mda}` is for `mda wrapper` alone")
            }
            Ok(command) => {
                self.notices(word);
                return Some(command);
            }
            Err(CommandProblem::Empty) => Report::new("E0203", word.span, "a command needs a program"),
            Err(CommandProblem::Unclosed(offset)) => {
                Report::new("E0101", self.within(word, Some(offset)), "string is not closed on this line")
            }
            Err(CommandProblem::Format(problem)) => self.format_problem(problem, word),
        };
        self.reading.report(report);
        None
    }

    /// A text with `%{…}`.
    fn format(&mut self, word: &Word, may_have_mda: bool) -> Option<Format> {
        match Format::parse(&word.text) {
            Ok(format) if format.mentions_mda() && !may_have_mda => {
                let span = self.within(word, word.text.find("%{mda"));
                let report = Report::new("E0506", span, "unknown format `mda`");
                self.reading.report(report.help("`%{mda}` is for `mda wrapper` alone"));
                None
            }
            Ok(format) => {
                self.notices(word);
                Some(format)
            }
            Err(problem) => {
                let report = self.format_problem(problem, word);
                self.reading.report(report);
                None
            }
        }
    }

    /// E0506 at the `%{` itself.
    fn format_problem(&self, problem: FormatProblem, word: &Word) -> Report {
        let span = self.within(word, Some(problem.offset()));
        problem.report(span)
    }

    /// W0806, W0812: what OpenSMTPD would read otherwise.
    fn notices(&mut self, word: &Word) {
        for notice in Format::notices(&word.text) {
            let place = self.within(word, Some(notice.offset));
            let end = place.start.saturating_add(narrow(notice.len)).min(word.span.end);
            let span = if place == word.span { place } else { Span { end, ..place } };
            self.reading.report(notice.report(span));
        }
    }

    /// The place of a byte of a word, if the word stands in the file as it is; else the word.
    fn within(&self, word: &Word, offset: Option<usize>) -> Span {
        let written = self.reading.texts.slice(word.span);
        let quote = usize::from(written.starts_with(['"', '\'']));
        let as_is = written.get(quote..written.len().saturating_sub(quote)) == Some(&*word.text);
        let Some(offset) = offset.filter(|_| as_is) else { return word.span };
        let length = written_length(&word.text[offset..]);
        let start = word.span.start + narrow(quote + offset);
        Span { start, end: start + narrow(length), ..word.span }
    }

    /// Two options of a relay that cannot both be.
    pub(super) fn relay_excludes(&mut self, said: &Said) {
        let options = &said.options;
        exclude(options, &["backup", "host", "domain"], None, self.reading);
        exclude(options, &["helo", "helo-src"], None, self.reading);
    }
}
