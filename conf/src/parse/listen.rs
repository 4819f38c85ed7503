//! `listen on WHERE …` (grammar §4.1).

use super::ast::ListenLine;
use super::statement::{Seen, Statement, Stop};
use crate::load::Options;
use crate::model::{Family, Where};
use crate::report::Report;
use ringpost_address::{is_domain_name, parse_ip, parse_literal};

const BUILT: &[&str] = &["inet4", "inet6", "port", "tag", "hostname", "max-message-size"];
const NOT_YET: &[&str] = &[
    "filter",
    "mask-src",
    "no-dsn",
    "tls",
    "tls-require",
    "smtps",
    "pki",
    "ca",
    "protocols",
    "ciphers",
    "auth",
    "auth-optional",
    "auth-cert",
    "hostnames",
    "senders",
    "received-auth",
    "proxy-v2",
    "ratelimit",
    "ssl",
    "secure",
    "certificate",
    "mask-source",
];

impl Statement<'_> {
    pub(super) fn listen(&mut self, options: &Options) -> Result<(), Stop> {
        if self.keyword(&["on"]).is_none() {
            return Err(self.needs_one_of("listen", "`on`", &["on"]));
        }
        let place = self.listen_place()?;
        let mut line = ListenLine {
            place,
            family: Family::Both,
            port: None,
            hostname: None,
            tag: None,
            message_bytes_max: None,
            span: self.so_far(),
        };
        self.listen_options(&mut line, options)?;
        line.span = self.so_far();
        self.ast.listens.push(line);
        Ok(())
    }

    fn listen_options(&mut self, line: &mut ListenLine, options: &Options) -> Result<(), Stop> {
        let mut seen = Seen::default();
        while let Some(option) = self.keyword(BUILT) {
            self.once(&mut seen, option);
            match option.value {
                "inet4" => line.family = Family::V4,
                "inet6" => line.family = Family::V6,
                "port" => line.port = Some(self.offset_port("port", options)?),
                "tag" => line.tag = Some(self.word("tag", "a word")?.text),
                "hostname" => line.hostname = Some(self.host_name("hostname")?),
                _ => line.message_bytes_max = Some(self.size("max-message-size")?.value),
            }
        }
        if let (Some(four), Some(six)) = (seen.place("inet4"), seen.place("inet6")) {
            let report = Report::new(
                "E0602",
                if six.start > four.start { six } else { four },
                "`inet4` and `inet6` exclude each other",
            );
            return Err(self.tell(report.help("without either, both are used")));
        }
        if let Some(option) = self.keyword(NOT_YET) {
            return Err(self.not_yet(option.span, option.value));
        }
        if self.at_end() { Ok(()) } else { Err(self.no_such_option("listen", BUILT, NOT_YET)) }
    }

    fn listen_place(&mut self) -> Result<Where, Stop> {
        if let Some(socket) = self.keyword(&["socket"]) {
            return Err(self.not_yet(socket.span, "listen on socket"));
        }
        if self.keyword(&["all"]).is_some() {
            return Ok(Where::All);
        }
        if self.keyword(&["egress"]).is_some() {
            return Ok(Where::Egress);
        }
        let word = self.word("listen on", "all, egress, an interface, an address or a host name")?;
        if let Some(address) = parse_ip(&word.text) {
            return Ok(Where::Address(address));
        }
        let is_name = |c: char| c.is_alphanumeric() || "-_.:%@".contains(c);
        // `1.2.3.400` would be asked of the DNS for ever.
        let is_number = word.text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b':');
        if word.text.is_empty() || is_number || !word.text.chars().all(is_name) {
            let message = format!("not an address, network or host: `{}`", word.text);
            return Err(self.error("E0507", word.span, message));
        }
        Ok(Where::Name(word.text))
    }

    /// A port, moved up by `--port-offset`.
    pub(super) fn offset_port(&mut self, who: &str, options: &Options) -> Result<u16, Stop> {
        let port = self.port(who)?;
        match port.value.checked_add(options.port_offset) {
            Some(moved) => Ok(moved),
            None => {
                let report = Report::new("E0501", port.span, format!("not a port: `{}`", port.value));
                let help = format!("with --port-offset {} it is above 65535", options.port_offset);
                Err(self.tell(report.help(help)))
            }
        }
    }

    /// A name to say in a greeting: a domain, or an address literal (RFC 5321 §4.1.3).
    pub(super) fn host_name(&mut self, who: &str) -> Result<String, Stop> {
        let right = |text: &str| is_domain_name(text) || parse_literal(text).is_some();
        let read = |text: &str| right(text).then(|| text.to_owned());
        let message = "not an address, network or host";
        self.value(who, "a host name", read, "E0507", message, None).map(|at| at.value)
    }
}
