//! From statements to a [`Config`]: names are looked up, entries are checked by their uses, rules are compared.

mod actions;
mod relay_url;
mod rules;
mod tables;

use std::path::{Path, PathBuf};

use self::tables::Tables;
use crate::load::{Options, Source};
use crate::model::{Bounce, Config, Control, Http, Line, Listener, Names, Queue, Shards, Smtp, Store, Where};
use crate::parse::ast::{ActionKindLine, Ast, At, ListenLine, Settings, SmtpLimit};
use crate::report::Report;
use crate::source_text::{SourceTexts, Span};

/// What checking needs beside the statements.
pub(crate) struct Reading<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) options: &'a Options,
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
        Line { file: self.texts.name(file).into(), number: u32::try_from(number).unwrap_or(u32::MAX) }
    }

    fn report(&mut self, report: Report) {
        self.reports.push(report);
    }
}

/// Checks everything that was parsed. The configuration means something only if no report is an error.
pub(crate) fn check(ast: Ast, names: Names, mut reading: Reading<'_>) -> (Config, SourceTexts, Vec<Report>) {
    let Ast { listens, tables, actions, matches, settings, broken } = ast;
    let smtp = smtp(&settings);
    let queue = Queue { ttl: settings.queue_ttl.map_or_else(|| Queue::default().ttl, |at| at.value) };
    let listeners = listeners(listens, &names, &smtp, &mut reading);
    let mut tables = Tables::new(tables);
    let missing_action = !actions.iter().any(|a| !matches!(a.kind, ActionKindLine::Broken)) && broken;
    let mut used = vec![false; actions.len()];
    let rules = rules::rules(&matches, &actions, &mut used, &mut tables, &mut reading);
    let built_actions = actions::actions(&actions, queue.ttl, &mut tables, &mut reading);
    if matches.is_empty() && !broken {
        let report = Report::new("E0703", reading.texts.end_of(0), "no rule: nothing would be accepted");
        reading.report(report.help("add a `match` line"));
    }
    if !broken {
        tables.unused(&mut reading);
        for action in actions.iter().zip(&used).filter(|(_, used)| !**used).map(|(action, _)| action) {
            let message = format!("action `{}` is never used", action.name.text);
            reading.report(Report::new("W0803", action.name.span, message));
        }
    }
    if !missing_action {
        rules::compare(&rules, &built_actions, &matches, &mut reading);
    }
    let store = store(&settings, &reading);
    let mut config = Config {
        listeners,
        tables: Vec::new(),
        actions: built_actions,
        matches: rules,
        smtp,
        queue,
        bounce: settings.warn_after.map_or_else(Bounce::default, |at| Bounce { warn_after: at.value }),
        shards: settings.shards.map_or_else(Shards::default, |at| Shards {
            count: at.value.count,
            cores: at.value.cores,
            coordinator: at.value.coordinator,
            memory_bytes: at.value.memory_bytes,
        }),
        store,
        http: settings.http.map(|at| Http { listen: at.value }),
        control: control(settings.control.as_ref(), &reading),
        names,
        port_offset: reading.options.port_offset,
        root: reading.options.root.clone(),
        not_yet: Vec::new(),
    };
    config.not_yet = config.find_not_yet();
    (config, reading.texts, reading.reports)
}

fn smtp(settings: &Settings) -> Smtp {
    let mut smtp = Smtp::default();
    for (name, at) in &settings.smtp_limits {
        match (*name, at.value) {
            ("max-mails", SmtpLimit::Count(n)) => smtp.mails_max = n,
            ("max-rcpt", SmtpLimit::Count(n)) => smtp.recipients_max = n,
            ("max-sessions", SmtpLimit::Count(n)) => smtp.sessions_max = n,
            ("max-sessions-per-source", SmtpLimit::Count(n)) => smtp.sessions_per_source_max = n,
            ("max-errors", SmtpLimit::Count(n)) => smtp.errors_max = n,
            ("max-line", SmtpLimit::Count(n)) => smtp.line_bytes_max = n,
            ("max-depth", SmtpLimit::Count(n)) => smtp.expansion_depth_max = n,
            ("max-nodes", SmtpLimit::Count(n)) => smtp.expansion_nodes_max = n,
            ("max-received", SmtpLimit::Count(n)) => smtp.received_max = n,
            ("timeout", SmtpLimit::Time(t)) => smtp.command_timeout = t,
            ("data-timeout", SmtpLimit::Time(t)) => smtp.data_timeout = t,
            _ => {}
        }
    }
    if let Some(at) = settings.message_bytes_max {
        smtp.message_bytes_max = at.value;
    }
    if let Some(at) = settings.sub_address_delimiter {
        smtp.sub_address_delimiter = at.value;
    }
    smtp
}

fn listeners(lines: Vec<ListenLine>, names: &Names, smtp: &Smtp, reading: &mut Reading<'_>) -> Vec<Listener> {
    const SMTP_PORT: u16 = 25;
    let mut listeners: Vec<(Listener, Span)> = Vec::new();
    for line in lines {
        let port = line.port.unwrap_or_else(|| SMTP_PORT.saturating_add(reading.options.port_offset));
        let listener = Listener {
            place: line.place,
            family: line.family,
            port,
            hostname: line.hostname.unwrap_or_else(|| names.server.clone()),
            tag: line.tag.unwrap_or_default(),
            message_bytes_max: line.message_bytes_max.unwrap_or(smtp.message_bytes_max),
            line: reading.line(line.span),
        };
        // With SO_REUSEPORT the system would not object: half of the connections would go to either.
        let same = |(l, _): &&(Listener, Span)| {
            l.place == listener.place && l.port == listener.port && l.family == listener.family
        };
        match listeners.iter().find(same).map(|(_, span)| *span) {
            Some(first) => {
                let what = format!("`listen on {}` with port {port} is given twice", place_name(&listener.place));
                let help = format!("first at {}", reading.texts.at(first));
                reading.report(Report::new("E0601", line.span, what).also(first, "first here").help(help));
            }
            None => listeners.push((listener, line.span)),
        }
    }
    listeners.into_iter().map(|(listener, _)| listener).collect()
}

fn place_name(place: &Where) -> String {
    match place {
        Where::All => "all".to_owned(),
        Where::Egress => "egress".to_owned(),
        Where::Address(address) => address.to_string(),
        Where::Name(name) => name.clone(),
    }
}

fn store(settings: &Settings, reading: &Reading<'_>) -> Store {
    let default = Store::default();
    let built_in = default.path.to_string_lossy().into_owned();
    let Some(at) = &settings.store else {
        return Store { path: reading.options.place(Path::new(""), &built_in), ..default };
    };
    let line = &at.value;
    Store {
        path: reading.place(at.span.file, line.path.as_ref().unwrap_or(&built_in)),
        segment_bytes: line.segment_bytes.unwrap_or(default.segment_bytes),
        spare_segments: line.spare_segments.unwrap_or(default.spare_segments),
        spool_memory_bytes: line.spool_memory_bytes.unwrap_or(default.spool_memory_bytes),
        state_delay: line.state_delay.unwrap_or(default.state_delay),
        reserve: line.reserve.unwrap_or(default.reserve),
        commit: line.commit.unwrap_or(default.commit),
    }
}

fn control(setting: Option<&At<String>>, reading: &Reading<'_>) -> Control {
    match setting {
        Some(at) => Control { socket: reading.place(at.span.file, &at.value) },
        None => {
            let built_in = Control::default().socket;
            Control { socket: reading.options.place(Path::new(""), &built_in.to_string_lossy()) }
        }
    }
}
