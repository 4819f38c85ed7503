//! From statements to a [`Config`]: names are looked up, entries are checked by their uses, rules are compared.

mod actions;
mod compare;
mod declared;
mod encryption;
mod filters;
mod keys;
mod listeners;
mod relay;
mod rules;
mod settings;
mod shaping;
mod tables;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use self::declared::Names;
use self::tables::Tables;
use crate::command::Command;
use crate::limits::REPORTS_KEPT_MAX;
use crate::load::{self, Source};
use crate::model::{Config, Line};
use crate::parse::ast::{Ast, Options, Said};
use crate::report::{Report, nearest};
use crate::source_text::{SourceTexts, Span};

/// What checking needs beside the statements.
pub(crate) struct Reading<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) options: &'a load::Options,
    /// What this host is called.
    pub(crate) names: crate::model::Names,
    pub(crate) texts: SourceTexts,
    pub(crate) reports: Vec<Report>,
}

impl Reading<'_> {
    /// A path of the configuration file `file`.
    fn place(&self, file: u32, path: &str) -> PathBuf {
        let directory = Path::new(self.texts.name(file)).parent().unwrap_or(Path::new(""));
        self.options.place(directory, path)
    }

    fn line(&self, span: Span) -> Line {
        let (file, number) = self.texts.line(span);
        Line { file: self.texts.shared_name(file), number: u32::try_from(number).unwrap_or(u32::MAX) }
    }

    fn report(&mut self, report: Report) {
        // Where so much is wrong, the first of it says enough; but what is told later may stand earlier in the file.
        if self.reports.len() < 100 * REPORTS_KEPT_MAX {
            self.reports.push(report);
        }
    }

    /// A name that was meant; nobody reads the thousandth suggestion, and each costs a walk over the names.
    fn nearest<'n>(&self, word: &str, right: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
        if self.reports.len() < REPORTS_KEPT_MAX { nearest(word, right) } else { None }
    }
}

/// The work on one set of files.
struct Check<'c, 'r> {
    ast: &'c Ast,
    /// Statements of `profile`; those of the files win over them.
    profile: &'c Ast,
    /// The statements of both by the name of their form, in order.
    by_form: HashMap<&'static str, Vec<&'c Said>>,
    /// What `mda wrapper` declares; `None` if there was an error in it.
    wrappers: HashMap<&'c str, Option<Command>>,
    names: Names,
    tables: Tables,
    reading: &'c mut Reading<'r>,
}

/// Checks everything that was parsed. The configuration means something only if no report is an error.
pub(crate) fn check(ast: &Ast, profile: &Ast, reading: &mut Reading<'_>) -> Config {
    let names = Names::new(ast, reading);
    let mut tables = Tables::new(ast, reading);
    tables.check_uses(ast, reading);
    let mut by_form: HashMap<&'static str, Vec<&Said>> = HashMap::new();
    for said in ast.statements.iter().chain(&profile.statements) {
        by_form.entry(said.form.name).or_default().push(said);
    }
    Check { ast, profile, by_form, wrappers: HashMap::new(), names, tables, reading }.config()
}

impl Check<'_, '_> {
    fn config(mut self) -> Config {
        self.settings_once();
        let (smtp, queue) = (self.smtp(), self.queue());
        let server = self.reading.names.server.clone();
        self.wrappers();
        let actions = self.actions(queue.ttl);
        let rules = self.rules(&actions);
        let mut config = Config {
            listeners: self.listeners(&server, smtp.message_bytes_max),
            tables: Vec::new(),
            pkis: self.pkis(),
            cas: self.cas(),
            filters: self.filters(),
            procs: self.procs(),
            shapings: self.shapings(),
            warmups: self.warmups(),
            pools: self.pools(),
            signers: self.signers(),
            rate_limits: self.rate_limits(),
            shares: self.shares(),
            bounce: self.bounce(),
            shards: self.shards(),
            store: self.store(),
            http: self.http(),
            control: self.control(),
            srs: self.srs(),
            machinery: self.machinery(),
            metrics: self.metrics(),
            logs: self.logs(),
            admd: self.setting_text("admd"),
            profile: self.profile_name(),
            names: self.reading.names.clone(),
            port_offset: self.reading.options.port_offset,
            root: self.reading.options.root.clone(),
            setting_lines: self.setting_lines(),
            not_yet: Vec::new(),
            matches: Vec::new(),
            actions,
            smtp,
            queue,
        };
        self.whole(&rules, &config);
        config.matches = rules.into_iter().map(|(rule, _)| rule).collect();
        config.tables = self.tables.export(self.reading);
        config.not_yet = config.find_not_yet();
        config
    }

    /// What can only be said of the whole: nothing of it, if a statement was given up.
    fn whole(&mut self, rules: &[(crate::model::Match, usize)], config: &Config) {
        if self.ast.broken {
            return;
        }
        let lines = self.ast.numbers("match").len();
        if lines == 0 {
            let report = Report::new("E0703", self.reading.texts.end_of(0), "no rule: nothing would be accepted");
            self.reading.report(report.help("add a `match` line"));
        }
        self.tables.unused(self.reading);
        let by_name = self.shapes_by_name();
        self.names.unused(&by_name, self.reading);
        if rules.len() == lines {
            compare::compare(rules, &config.actions, self.ast, self.reading);
        }
    }
}

/// E0602 for each of these options that follows another of them.
fn exclude(options: &Options, names: &[&str], help: Option<&str>, reading: &mut Reading<'_>) {
    let mut given: Vec<_> = options.0.iter().filter(|option| names.contains(&option.name)).collect();
    given.sort_by_key(|option| option.word.span.start);
    let Some((first, others)) = given.split_first() else { return };
    // The same word twice was told as that.
    for option in others.iter().filter(|option| option.name != first.name) {
        let message = format!("`{}` and `{}` exclude each other", option.word.value, first.word.value);
        let report = Report::new("E0602", option.word.span, message);
        let report = report.also(first.word.span, format!("`{}` here", first.word.value));
        reading.report(report.maybe_help(help.map(str::to_owned)));
    }
}
