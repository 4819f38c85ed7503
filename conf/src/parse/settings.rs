//! Settings: `smtp`, `queue`, `bounce`, `shards`, `store`, `http`, `control` (grammar §4.7–4.16). Each at most once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ringpost_address::parse_ip;

use super::ast::{At, ShardsLine, SmtpLimit, StoreLine};
use super::statement::{Seen, Statement, Stop};
use super::tokens::Token;
use crate::lex::Mark;
use crate::limits::{SEGMENT_BYTES_RANGE, WARN_INTERVALS_MAX};
use crate::load::Options;
use crate::model::{Commit, Reserve};
use crate::report::{Report, did_you_mean};
use crate::source_text::Span;
use crate::values;

const COUNTS: &[&str] = &[
    "max-mails",
    "max-rcpt",
    "max-sessions",
    "max-sessions-per-source",
    "max-errors",
    "max-line",
    "max-depth",
    "max-nodes",
    "max-received",
];
const TIMES: &[&str] = &["timeout", "data-timeout"];
const STORE: &[&str] = &["path", "segment", "spare", "spool-memory", "state-delay", "reserve", "commit"];
/// RFC 5321 §4.5.3.1.4 asks for 512; less would refuse legal commands.
const LINE_BYTES_LEAST: u32 = 512;
const HTTP_PORT: u16 = 8025;

/// Sets a setting, or tells that it was set before.
macro_rules! set_once {
    ($self:ident, $field:ident, $name:expr, $span:expr, $value:expr) => {{
        let (span, value) = ($span, $value);
        match $self.ast.settings.$field.as_ref().map(|at| at.span) {
            Some(first) => $self.twice($name, span, first),
            None => $self.ast.settings.$field = Some(At { value, span }),
        }
    }};
}

impl Statement<'_> {
    pub(super) fn smtp(&mut self) -> Result<(), Stop> {
        let right = ["limit", "max-message-size", "sub-addr-delim", "ciphers"];
        let Some(word) = self.keyword(&right) else {
            return Err(self.needs_one_of("smtp", "limit, ciphers, max-message-size or sub-addr-delim", &right));
        };
        match word.value {
            "limit" => return self.smtp_limits(),
            "ciphers" => return Err(self.not_yet(word.span, "smtp ciphers")),
            "max-message-size" => {
                let size = self.size("max-message-size")?;
                set_once!(self, message_bytes_max, "smtp max-message-size", word.span, size.value);
            }
            _ => {
                let read = |text: &str| {
                    let mut chars = text.chars();
                    chars.next().filter(|c| c.is_ascii_punctuation() && *c != '@' && chars.next().is_none())
                };
                let delimiter =
                    self.value("sub-addr-delim", "a character", read, "E0509", "not one punctuation character", None)?;
                set_once!(self, sub_address_delimiter, "smtp sub-addr-delim", word.span, delimiter.value);
            }
        }
        self.end(&format!("smtp {}", word.value))
    }

    fn smtp_limits(&mut self) -> Result<(), Stop> {
        if self.at_end() {
            return Err(self.needs("smtp limit", "the name of a limit"));
        }
        while !self.at_end() {
            let (name, value) = if let Some(name) = self.keyword(COUNTS) {
                let least = if name.value == "max-line" { LINE_BYTES_LEAST } else { 1 };
                (name, SmtpLimit::Count(self.count(name.value, least)?.value))
            } else if let Some(name) = self.keyword(TIMES) {
                (name, SmtpLimit::Time(self.duration(name.value)?.value))
            } else {
                return Err(self.unknown_limit());
            };
            let first =
                self.ast.settings.smtp_limits.iter().find(|(have, _)| *have == name.value).map(|(_, at)| at.span);
            match first {
                Some(first) => self.twice(name.value, name.span, first),
                None => self.ast.settings.smtp_limits.push((name.value, At { value, span: name.span })),
            }
        }
        Ok(())
    }

    fn unknown_limit(&mut self) -> Stop {
        match self.peek().and_then(Token::word) {
            Some(word) => {
                let right = COUNTS.iter().chain(TIMES).copied();
                let report = Report::new("E0510", word.span, format!("unknown limit `{}`", word.text));
                self.tell(report.maybe_help(did_you_mean(&word.text, right)))
            }
            None => self.needs("smtp limit", "the name of a limit"),
        }
    }

    pub(super) fn queue(&mut self) -> Result<(), Stop> {
        let right = ["backend", "compression", "encryption", "ttl"];
        let Some(word) = self.keyword(&right) else {
            return Err(self.needs_one_of("queue", "backend, compression, encryption or ttl", &right));
        };
        match word.value {
            "ttl" => {
                let ttl = self.duration("queue ttl")?;
                set_once!(self, queue_ttl, "queue ttl", word.span, ttl.value);
                self.end("queue ttl")
            }
            "backend" if self.keyword(&["log"]).is_some() => {
                set_once!(self, queue_backend, "queue backend", word.span, ());
                self.end("queue backend log")
            }
            "backend" => match self.keyword(&["fs", "ram", "null"]) {
                Some(backend) => Err(self.not_yet(backend.span, &format!("queue backend {}", backend.value))),
                None => Err(self.needs_one_of("queue backend", "log, fs, ram or null", &["log", "fs", "ram", "null"])),
            },
            other => Err(self.not_yet(word.span, &format!("queue {other}"))),
        }
    }

    pub(super) fn bounce(&mut self) -> Result<(), Stop> {
        if let Some(word) = self.keyword(&["classify"]) {
            return Err(self.not_yet(word.span, "bounce classify"));
        }
        let Some(word) = self.keyword(&["warn-interval"]) else {
            return Err(self.needs_one_of("bounce", "warn-interval or classify", &["warn-interval", "classify"]));
        };
        let mut intervals = Vec::new();
        loop {
            let interval = self.duration("warn-interval")?;
            if intervals.last().is_some_and(|last| *last >= interval.value) {
                return Err(self.error(
                    "E0203",
                    interval.span,
                    "`warn-interval` needs its durations in ascending order",
                ));
            }
            intervals.push(interval.value);
            if self.mark(Mark::Comma).is_none() {
                break;
            }
        }
        self.end("bounce warn-interval")?;
        if intervals.len() > WARN_INTERVALS_MAX {
            let message = format!("`warn-interval` needs at most {WARN_INTERVALS_MAX} durations");
            return Err(self.error("E0203", word.span, message));
        }
        set_once!(self, warn_after, "bounce warn-interval", word.span, intervals);
        Ok(())
    }

    pub(super) fn shards(&mut self) -> Result<(), Stop> {
        const SHARDS_MAX: u64 = 1024;
        let start = self.so_far();
        let mut line = ShardsLine::default();
        if self.keyword(&["auto"]).is_none() {
            let read = |text: &str| values::number(text).filter(|n| (1..=SHARDS_MAX).contains(n));
            let help = format!("`auto`, or 1 to {SHARDS_MAX}");
            let count = self.value("shards", "`auto` or a number", read, "E0509", "not a number", Some(&help))?;
            line.count = u16::try_from(count.value).ok();
        }
        let mut seen = Seen::default();
        let options = &["cores", "coordinator", "memory"];
        while let Some(option) = self.keyword(options) {
            self.once(&mut seen, option);
            match option.value {
                "cores" => {
                    let help = Some("for example `2-9`, or \"0,2-3\"; each core once");
                    line.cores = self
                        .value("cores", "numbers of cores", values::cores, "E0509", "not a list of cores", help)?
                        .value;
                }
                "coordinator" => line.coordinator = Some(self.count("coordinator", 0)?.value as usize),
                _ => line.memory_bytes = Some(self.size("memory")?.value),
            }
        }
        if !self.at_end() {
            return Err(self.no_such_option("shards", options, &[]));
        }
        if let (Some(count), Some(span)) = (line.count, seen.place("cores"))
            && line.cores.len() != usize::from(count)
        {
            let message = format!("`shards {count}` needs {count} cores; `cores` names {}", line.cores.len());
            return Err(self.error("E0203", span, message));
        }
        set_once!(self, shards, "shards", start, line);
        Ok(())
    }

    pub(super) fn store(&mut self) -> Result<(), Stop> {
        let start = self.so_far();
        let mut line = StoreLine::default();
        let mut seen = Seen::default();
        self.block("store", |this, brace| this.store_item(&mut line, &mut seen, brace))?;
        self.end("store { … }")?;
        set_once!(self, store, "store", start, line);
        Ok(())
    }

    fn store_item(&mut self, line: &mut StoreLine, seen: &mut Seen, brace: Span) -> Result<(), Stop> {
        let Some(option) = self.keyword(STORE) else {
            return match self.peek().and_then(Token::word) {
                Some(_) => Err(self.no_such_option("store", STORE, &[])),
                None => Err(self.bad_in_block(brace)),
            };
        };
        self.once(seen, option);
        match option.value {
            "path" => line.path = Some(self.word("path", "a directory")?.text),
            "segment" => line.segment_bytes = Some(self.segment_size()?),
            "spare" => line.spare_segments = Some(self.count("spare", 1)?.value),
            "spool-memory" => line.spool_memory_bytes = Some(self.size("spool-memory")?.value),
            "state-delay" => line.state_delay = Some(self.duration("state-delay")?.value),
            "reserve" => {
                let read = |text: &str| match values::percent(text) {
                    Some(percent) => Some(Reserve::Percent(percent)),
                    None => values::size(text).map(Reserve::Bytes),
                };
                let reserve =
                    self.value("reserve", "a size or percentage", read, "E0503", "not a size", Some("`10G` or `5%`"))?;
                line.reserve = Some(reserve.value);
            }
            _ => match self.keyword(&["group", "each"]) {
                Some(word) if word.value == "group" => line.commit = Some(Commit::Group),
                Some(_) => line.commit = Some(Commit::Each),
                None => return Err(self.needs_one_of("commit", "group or each", &["group", "each"])),
            },
        }
        Ok(())
    }

    fn segment_size(&mut self) -> Result<u64, Stop> {
        let size = self.size("segment")?;
        let (least, most) = SEGMENT_BYTES_RANGE;
        if (least..=most).contains(&size.value) && size.value.is_multiple_of(4096) {
            return Ok(size.value);
        }
        let report = Report::new("E0503", size.span, format!("not a size for a segment: `{}`", size.value));
        Err(self.tell(report.help("1M to 4G, in steps of 4K")))
    }

    pub(super) fn http(&mut self, options: &Options) -> Result<(), Stop> {
        let start = self.so_far();
        if self.keyword(&["listen"]).is_none() || self.keyword(&["on"]).is_none() {
            return Err(self.needs_one_of("http", "`listen on`", &["listen", "on"]));
        }
        let read = |text: &str| match text {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            text => parse_ip(text),
        };
        let message = "not an address, network or host";
        let help = Some("an address, for example 127.0.0.1");
        let address = self.value("http listen on", "an address", read, "E0507", message, help)?;
        let mut port = HTTP_PORT.saturating_add(options.port_offset);
        let mut seen = Seen::default();
        while let Some(option) = self.keyword(&["port"]) {
            self.once(&mut seen, option);
            port = self.offset_port("port", options)?;
        }
        if let Some(option) = self.keyword(&["pki", "auth", "only"]) {
            return Err(self.not_yet(option.span, &format!("http … {}", option.value)));
        }
        if !self.at_end() {
            return Err(self.no_such_option("http listen", &["port"], &["pki", "auth", "only"]));
        }
        set_once!(self, http, "http listen", start, SocketAddr::new(address.value, port));
        Ok(())
    }

    pub(super) fn control(&mut self) -> Result<(), Stop> {
        let start = self.so_far();
        if self.keyword(&["socket"]).is_none() {
            return Err(self.needs_one_of("control", "`socket`", &["socket"]));
        }
        let path = self.word("control socket", "a path")?;
        if let Some(option) = self.keyword(&["group", "mode"]) {
            return Err(self.not_yet(option.span, &format!("control … {}", option.value)));
        }
        if !self.at_end() {
            return Err(self.no_such_option("control", &[], &["group", "mode"]));
        }
        set_once!(self, control, "control socket", start, path.text);
        Ok(())
    }
}
