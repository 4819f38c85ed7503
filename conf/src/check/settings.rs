//! Settings of the server as a whole: of the file, else of the profile, else built in (grammar §4.7–4.16).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringpost_address::Network;

use super::Check;
use super::declared::What;
use crate::limits::{HLOG_EVERY_MIN, METRICS_SITES_MAX, SEGMENT_BYTES_RANGE};
use crate::model::{
    Bounce, BounceLimits, Cipher, Commit, Compression, Control, Http, Line, Log, LogTarget, Machinery, Metrics, Queue,
    QueueBackend, QueueKey, Rate, Reserve, Shards, Smtp, Srs, Store,
};
use crate::parse::address;
use crate::parse::ast::{Arg, OptionLine, Options, Said, Word};
use crate::parse::grammar;
use crate::parse::schema::Rest;
use crate::report::Report;
use crate::source_text::Span;
use crate::tables::Secret;
use crate::values;

/// The page, unless the line says otherwise.
const HTTP_PORT: u16 = 8025;
const HTTP_PARTS: &[&str] = &["metrics", "health", "page", "api"];

/// Statements that say one thing each; a second one is an error.
const ONCE: &[&str] = &[
    "bounce warn-interval",
    "queue backend",
    "queue compression",
    "queue encryption",
    "queue ttl",
    "smtp ciphers",
    "smtp max-message-size",
    "smtp sub-addr-delim",
    "mta allow-exchangers",
    "mta max-deferred",
    "scheduler backend",
    "srs key",
    "srs key backup",
    "srs ttl",
    "admd",
    "shards",
    "profile",
    "http",
    "metrics hlog",
    "metrics sites",
    "store",
    "control",
];

impl Check<'_, '_> {
    // ---- where a setting is

    /// Statements of the file, then those of the profile.
    pub(super) fn all_settings(&self, statement: &'static str) -> impl Iterator<Item = &'_ Said> {
        self.ast.of(statement).chain(self.profile.of(statement))
    }

    fn setting(&self, name: &str) -> Option<&'_ Said> {
        self.by_form.get(name)?.iter().find(|said| !said.broken).copied()
    }

    pub(super) fn has_setting(&self, name: &str) -> bool {
        self.by_form.contains_key(name)
    }

    pub(super) fn setting_text(&self, name: &str) -> Option<String> {
        self.setting(name).and_then(|said| said.word(0)).map(|word| word.text.to_string())
    }

    fn setting_duration(&self, name: &str) -> Option<Duration> {
        match self.setting(name)?.value(0)? {
            Arg::Duration(at) => Some(at.value),
            _ => None,
        }
    }

    fn setting_number(&self, name: &str) -> Option<u64> {
        match self.setting(name)?.value(0)? {
            Arg::Count(at) | Arg::Size(at) => Some(at.value),
            _ => None,
        }
    }

    /// A limit, of all the statements that give limits.
    fn limit(&self, name: &str, limit: &str) -> Option<&OptionLine> {
        self.by_form.get(name)?.iter().find_map(|said| said.options.find(limit))
    }

    fn count_limit(&self, name: &str, limit: &str) -> Option<u32> {
        match &self.limit(name, limit)?.arg {
            Arg::Count(at) => Some(u32::try_from(at.value).unwrap_or(u32::MAX)),
            _ => None,
        }
    }

    fn time_limit(&self, name: &str, limit: &str) -> Option<Duration> {
        match &self.limit(name, limit)?.arg {
            Arg::Duration(at) => Some(at.value),
            _ => None,
        }
    }

    /// Settings of the file: the names of their forms, and their statements.
    fn settings(&self) -> impl Iterator<Item = (&'static str, Vec<&'_ Said>)> {
        let limits = grammar::forms().filter(|form| form.rest == Rest::Limits).map(|form| form.name);
        ONCE.iter().copied().chain(limits).filter_map(|name| {
            let own = self.by_form.get(name)?.iter().filter(|said| !self.is_of_profile(said.span));
            Some((name, own.copied().collect()))
        })
    }

    /// Where each setting of the file is given, the first line of several.
    pub(super) fn setting_lines(&self) -> BTreeMap<&'static str, Line> {
        let first = |(name, said): (&'static str, Vec<&Said>)| Some((name, self.reading.line(said.first()?.span)));
        self.settings().filter_map(first).collect()
    }

    /// E0601 for what is set twice.
    pub(super) fn settings_once(&mut self) {
        let mut twice: Vec<(&str, Span, Span)> = Vec::new();
        for (name, all) in self.settings() {
            let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
            for said in all {
                if said.form.rest != Rest::Limits {
                    let key = said.head.iter().find_map(|arg| match arg {
                        Arg::Key(key) if name.contains(' ') => Some(key.span),
                        _ => None,
                    });
                    let span = key.unwrap_or(said.span);
                    match seen.get("").copied() {
                        Some(first) => twice.push((name, span, first)),
                        None => _ = seen.insert("", span),
                    }
                }
                for option in said.options.0.iter().filter(|_| said.form.rest == Rest::Limits) {
                    match seen.get(option.name).copied() {
                        // Within a line this was told already.
                        Some(first) if self.reading.texts.line(first) != self.reading.texts.line(option.word.span) => {
                            twice.push((option.name, option.word.span, first));
                        }
                        Some(_) => {}
                        None => _ = seen.insert(option.name, option.word.span),
                    }
                }
            }
        }
        twice.into_iter().for_each(|(name, span, first)| self.twice(name, span, first));
    }

    // ---- one function for each statement

    pub(super) fn smtp_ciphers(&mut self) -> Option<Vec<&'static Cipher>> {
        let word = self.setting("smtp ciphers").and_then(|said| said.word(0)).cloned();
        self.ciphers(word.as_ref())
    }

    pub(super) fn smtp(&mut self) -> Smtp {
        let d = Smtp::default();
        let ciphers = self.smtp_ciphers();
        let count = |name: &str, default: u32| self.count_limit("smtp limit", name).unwrap_or(default);
        let time = |name: &str, default: Duration| self.time_limit("smtp limit", name).unwrap_or(default);
        let delimiter = self.setting_text("smtp sub-addr-delim").and_then(|text| text.chars().next());
        Smtp {
            message_bytes_max: self.setting_number("smtp max-message-size").unwrap_or(d.message_bytes_max),
            sub_address_delimiter: delimiter.unwrap_or(d.sub_address_delimiter),
            ciphers,
            mails_max: count("max-mails", d.mails_max),
            recipients_max: count("max-rcpt", d.recipients_max),
            sessions_max: count("max-sessions", d.sessions_max),
            sessions_per_source_max: count("max-sessions-per-source", d.sessions_per_source_max),
            errors_max: count("max-errors", d.errors_max),
            line_bytes_max: count("max-line", d.line_bytes_max),
            expansion_depth_max: count("max-depth", d.expansion_depth_max),
            expansion_nodes_max: count("max-nodes", d.expansion_nodes_max),
            received_max: count("max-received", d.received_max),
            command_timeout: time("timeout", d.command_timeout),
            data_timeout: time("data-timeout", d.data_timeout),
        }
    }

    pub(super) fn queue(&mut self) -> Queue {
        let default = Queue::default();
        let backend = self.setting("queue backend").map(|said| (said.key_after("backend"), said.word(0).cloned()));
        let backend = match backend {
            Some((Some("fs"), path)) => {
                QueueBackend::Fs(path.map(|word| self.reading.place(word.span.file, &word.text)))
            }
            Some((kind, path)) => {
                if let Some(word) = path {
                    let message = format!("unexpected `{}` after `backend {}`", word.text, kind.unwrap_or_default());
                    self.reading.report(Report::new("E0204", word.span, message));
                }
                match kind {
                    Some("ram") => QueueBackend::Ram,
                    Some("null") => QueueBackend::Null,
                    _ => QueueBackend::Log,
                }
            }
            None => default.backend,
        };
        let compression = self.setting("queue compression").map(|said| match said.key_after("compression") {
            Some("gzip") => Compression::Gzip,
            _ => Compression::Zstd,
        });
        let encryption = self.setting("queue encryption").map(|said| match said.word(0).map(|w| &*w.text) {
            None | Some("stdin" | "-") => QueueKey::Stdin,
            Some(key) => QueueKey::Given(Secret::new(key)),
        });
        Queue { ttl: self.setting_duration("queue ttl").unwrap_or(default.ttl), backend, compression, encryption }
    }

    pub(super) fn bounce(&mut self) -> Bounce {
        let warn_after = self.setting("bounce warn-interval").and_then(|said| match said.value(0) {
            Some(Arg::Durations(list)) => Some(list.iter().map(|at| at.value).collect()),
            _ => None,
        });
        let default = Bounce::default();
        let rate = |name: &str, built_in: Rate| match self.limit("bounce limit", name).map(|option| &option.arg) {
            Some(Arg::Rate(at)) => at.value,
            _ => built_in,
        };
        let limits = BounceLimits {
            per_sender: rate("per-sender", default.limits.per_sender),
            per_domain: rate("per-domain", default.limits.per_domain),
            total: rate("total", default.limits.total),
        };
        Bounce { warn_after: warn_after.unwrap_or(default.warn_after), classify: self.classify(), limits }
    }

    pub(super) fn shards(&mut self) -> Shards {
        let Some(said) = self.setting("shards") else { return Shards::default() };
        let options = &said.options;
        let count = match said.head.first() {
            Some(Arg::Count(at)) => u16::try_from(at.value).ok(),
            _ => None,
        };
        let cores = options.word("cores").cloned();
        let shards = Shards {
            count,
            cores: cores.as_ref().and_then(|word| values::cores(&word.text)).unwrap_or_default(),
            coordinator: options.number("coordinator").and_then(|n| usize::try_from(n).ok()),
            memory_bytes: options.number("memory"),
        };
        let place = options.find("cores").map(|option| option.word.span);
        if let (Some(count), Some(span)) = (count, place)
            && shards.cores.len() != usize::from(count)
        {
            let message = format!("`shards {count}` needs {count} cores; `cores` names {}", shards.cores.len());
            self.reading.report(Report::new("E0203", span, message));
        }
        shards
    }

    pub(super) fn store(&mut self) -> Store {
        let default = Store::default();
        let blocks = self.all_settings("store").filter(|said| !said.broken);
        let options = Options(blocks.filter_map(block).flat_map(|options| options.0.iter().cloned()).collect());
        let built_in = default.path.to_string_lossy().into_owned();
        let path = match options.word("path") {
            Some(word) => self.reading.place(word.span.file, &word.text),
            None => self.reading.options.place(Path::new(""), &built_in),
        };
        let segment_bytes = self.segment_bytes(&options).unwrap_or(default.segment_bytes);
        Store {
            path,
            segment_bytes,
            spare_segments: options.count("spare").unwrap_or(default.spare_segments),
            spool_memory_bytes: options.number("spool-memory").unwrap_or(default.spool_memory_bytes),
            state_delay: options.duration("state-delay").unwrap_or(default.state_delay),
            reserve: match options.find("reserve").map(|option| &option.arg) {
                Some(Arg::Size(at)) => Reserve::Bytes(at.value),
                Some(Arg::Percent(at)) => Reserve::Percent(at.value),
                _ => default.reserve,
            },
            commit: match options.key("commit") {
                Some("each") => Commit::Each,
                _ => Commit::Group,
            },
        }
    }

    fn segment_bytes(&mut self, options: &Options) -> Option<u64> {
        let Arg::Size(size) = &options.find("segment")?.arg else { return None };
        let (least, most) = SEGMENT_BYTES_RANGE;
        if !(least..=most).contains(&size.value) || !size.value.is_multiple_of(4096) {
            let report = Report::new("E0503", size.span, format!("not a size for a segment: `{}`", size.value));
            self.reading.report(report.help("1M to 4G, in steps of 4K"));
        }
        Some(size.value)
    }

    pub(super) fn http(&mut self) -> Option<Http> {
        let said = self.ast.of("http").find(|said| !said.broken)?;
        let ip = said.word(0).and_then(|word| address(&word.text))?;
        let port = self.moved_port(&said.options, HTTP_PORT)?;
        let pki = self.names.maybe(What::Pki, said.options.word("pki"), self.reading);
        let auth = said.options.targ("auth").and_then(|(option, targ)| {
            if pki.is_none() && !said.options.has("pki") && !ip.is_loopback() {
                let report =
                    Report::new("E0603", option.word.span, "`auth` without HTTPS would send passwords in clear");
                self.reading.report(report.help("add `pki NAME`, or listen on a loopback address"));
            }
            self.tables.keyed(targ, self.reading)
        });
        let only = self.words_of(said.options.names("only"), "only", HTTP_PARTS);
        Some(Http { listen: SocketAddr::new(ip, port), pki, auth, only, line: self.reading.line(said.span) })
    }

    /// Words of a short list.
    fn words_of(&mut self, words: &[Word], who: &str, right: &[&str]) -> Vec<String> {
        for word in words.iter().filter(|word| !right.contains(&&*word.text)) {
            let message = format!("`{who}` needs {}, not `{}`", right.join(", "), word.text);
            self.reading.report(Report::new("E0203", word.span, message));
        }
        words.iter().map(|word| word.text.to_string()).collect()
    }

    pub(super) fn control(&mut self) -> Control {
        let default = Control::default();
        let Some(said) = self.setting("control").cloned() else {
            let socket = self.reading.options.place(Path::new(""), &default.socket.to_string_lossy());
            return Control { socket, ..default };
        };
        let mode = said.options.word("mode").and_then(|word| u32::from_str_radix(&word.text, 8).ok());
        let socket = said.word(0).map(|word| self.reading.place(word.span.file, &word.text));
        Control { socket: socket.unwrap_or(default.socket), group: said.options.text("group"), mode }
    }

    pub(super) fn profile_name(&self) -> Option<&'static str> {
        let said = self.ast.of("profile").next()?;
        said.head.iter().find_map(|arg| match arg {
            Arg::Key(key) => Some(key.value),
            _ => None,
        })
    }

    pub(super) fn srs(&self) -> Srs {
        let key = |name: &str| self.setting_text(name).map(|text| Secret::new(&text));
        Srs { key: key("srs key"), backup_key: key("srs key backup"), ttl: self.setting_duration("srs ttl") }
    }

    pub(super) fn machinery(&mut self) -> Machinery {
        let useless: Vec<_> = ["task-hiwat", "task-lowat", "task-release"]
            .iter()
            .map(|name| ("mda limit", *name))
            .chain([("scheduler limit", "max-evp-batch-size"), ("scheduler limit", "max-msg-batch-size")])
            .filter_map(|(form, name)| self.limit(form, name).map(|option| (name, option.word.span)))
            .collect();
        for (name, span) in useless {
            self.reading.report(Report::new("W0810", span, format!("`{name}` has no effect")));
        }
        let deferred = self.setting_number("mta max-deferred");
        Machinery {
            exchangers: self.exchangers(),
            deferred_max: deferred.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            deliveries_max: self.count_limit("mda limit", "max-session"),
            deliveries_per_user_max: self.count_limit("mda limit", "max-session-per-user"),
            in_flight_max: self.count_limit("scheduler limit", "max-inflight"),
            schedule_max: self.count_limit("scheduler limit", "max-schedule"),
            never_tries: self.setting("scheduler backend").is_some_and(|said| said.has_key("null")),
        }
    }

    fn exchangers(&mut self) -> Option<Vec<Network>> {
        let words = match self.setting("mta allow-exchangers")?.value(0)? {
            Arg::Names(words) => words.clone(),
            _ => return None,
        };
        let mut networks = Vec::new();
        for word in &words {
            match (&*word.text, Network::parse(&word.text)) {
                ("any", _) => networks.extend(["0.0.0.0/0", "::/0"].into_iter().filter_map(Network::parse)),
                (_, Some(network)) => networks.push(network),
                (text, None) => {
                    let message =
                        format!("`allow-exchangers` needs networks such as 10.0.0.0/8, or `any`, not `{text}`");
                    self.reading.report(Report::new("E0203", word.span, message));
                }
            }
        }
        Some(networks)
    }

    pub(super) fn metrics(&mut self) -> Metrics {
        let hlog = self.setting("metrics hlog").cloned();
        let every = hlog.as_ref().and_then(|said| said.options.duration("every"));
        if let Some(option) = hlog.as_ref().and_then(|said| said.options.find("every"))
            && every.is_some_and(|every| every < HLOG_EVERY_MIN)
        {
            let message = "`every` needs a second at least".to_owned();
            self.reading.report(Report::new("E0203", option.word.span, message));
        }
        let place = |word: &Word| self.reading.place(word.span.file, &word.text);
        let hlog: Option<PathBuf> = hlog.as_ref().and_then(|said| said.word(0)).map(place);
        let sites = self.setting("metrics sites").and_then(|said| said.value(0)).cloned();
        let sites_max = match sites {
            Some(Arg::Count(at)) if at.value > u64::from(METRICS_SITES_MAX) => {
                let message = format!("`metrics sites` is at most {METRICS_SITES_MAX}, not `{}`", at.value);
                let help = "each has some lines of its own in every answer of /metrics; the others are `other`";
                self.reading.report(Report::new("E0509", at.span, message).help(help));
                None
            }
            Some(Arg::Count(at)) => u32::try_from(at.value).ok(),
            _ => None,
        };
        Metrics { hlog, hlog_every: every, sites_max }
    }

    pub(super) fn logs(&mut self) -> Vec<Log> {
        let mut logs = Vec::new();
        for said in self.ast.of("log").filter(|said| !said.broken) {
            let to = match (said.key_after("to"), said.word(0)) {
                (Some("syslog"), _) => LogTarget::Syslog,
                (Some("journald"), _) => LogTarget::Journald,
                (_, Some(word)) => LogTarget::File(self.reading.place(word.span.file, &word.text)),
                _ => LogTarget::Stderr,
            };
            logs.push(Log {
                to,
                json: said.options.key("format") == Some("json"),
                level: said.options.key("level"),
                only: said.options.names("only").iter().map(|word| word.text.to_string()).collect(),
                line: self.reading.line(said.span),
            });
        }
        logs
    }

    // ---- what several share

    /// The port of a line, moved up by `--port-offset`; `None` if that is too high, and it was told.
    pub(super) fn moved_port(&mut self, options: &Options, default: u16) -> Option<u16> {
        let offset = self.reading.options.port_offset;
        let Some(OptionLine { arg: Arg::Port(port), .. }) = options.find("port") else {
            return Some(default.saturating_add(offset));
        };
        let moved = port.value.checked_add(offset);
        if moved.is_none() {
            let report = Report::new("E0501", port.span, format!("not a port: `{}`", port.value));
            self.reading.report(report.help(format!("with --port-offset {offset} it is above 65535")));
        }
        moved
    }

    /// E0601, pointing at both.
    pub(super) fn twice(&mut self, name: &str, span: Span, first: Span) {
        let help = format!("first at {}", self.reading.texts.at(first));
        let report = Report::new("E0601", span, format!("`{name}` is given twice"));
        self.reading.report(report.also(first, "first here").help(help));
    }
}

fn block(said: &Said) -> Option<&Options> {
    said.head.iter().find_map(|arg| match arg {
        Arg::Block(options) => Some(options),
        _ => None,
    })
}
