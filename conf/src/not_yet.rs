//! What the language has and the engine has not: found in the checked configuration, in this one place. To enable something,
//! delete its line here.

use std::fmt::{self, Display, Formatter};

use crate::model::{ActionKind, Config, Line, Listener, QueueBackend, Relay, ShapeSelector, Shaping};
use crate::rules::Among;
use crate::tables::ServiceKind;

/// Something that this version cannot do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotYet {
    /// The line that asks for it.
    pub line: Line,
    /// What it asks for, in its words.
    pub what: String,
    /// What to do until then.
    pub instead: &'static str,
}

impl Display for NotYet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` has no effect yet, and this version does not start with it: {}", self.what, self.instead)
    }
}

/// What to do where a table of entries must be in memory.
const IN_MEMORY: &str = "write the entries as a list or into a text file (`table NAME \"/path\"`), which is watched";
/// What to do without filters.
const FILTERS: &str = "take it out, and have mail filtered in front of this server, or by one that it goes to with `relay host` and comes \
                       back from at a listener of its own";
/// What to do without signatures.
const SIGNERS: &str = "take it out, and have mail signed on its way, by `relay host` to a server that signs";
/// What to do without rates of clients.
const RATES: &str =
    "take it out; what clients may do is bounded by `smtp limit` (`max-sessions-per-source`, `max-mails`)";

impl Config {
    /// Everything in it that this version cannot do, with the line that asks for it.
    pub(crate) fn find_not_yet(&self) -> Vec<NotYet> {
        let mut found = Found(Vec::new());
        self.tables(&mut found);
        self.listeners.iter().for_each(|listener| listener_has(listener, &mut found));
        for action in &self.actions {
            if let ActionKind::Relay(relay) = &action.kind {
                relay_has(relay, &action.line, &mut found);
            }
        }
        self.named(&mut found);
        self.settings(&mut found);
        found.0.sort_by(|a, b| (&a.line.file, a.line.number).cmp(&(&b.line.file, b.line.number)));
        found.0
    }

    fn tables(&self, found: &mut Found) {
        for table in &self.tables {
            let remote = !table.backend.is_memory();
            for service in table.services.iter().filter(|service| remote && !is_asked(**service)) {
                let what = || format!("table {}: for {service}", table.backend.name());
                found.when(true, &table.line, IN_MEMORY, what);
            }
        }
    }

    /// What is declared by name.
    fn named(&self, found: &mut Found) {
        self.filters.iter().for_each(|filter| found.when(true, &filter.line, FILTERS, || "filter".to_owned()));
        self.shapings.iter().for_each(|shaping| shaping_has(shaping, found));
        self.signers.iter().for_each(|signer| found.when(true, &signer.line, SIGNERS, || "dkim sign".to_owned()));
        self.rate_limits.iter().for_each(|limit| found.when(true, &limit.line, RATES, || "ratelimit".to_owned()));
        for one in &self.bounce.classify {
            let asked = is_remote(&one.reply) || one.domain.as_ref().is_some_and(is_remote);
            found.when(asked, &one.line, IN_MEMORY, || "bounce classify by a table that must be asked".to_owned());
        }
        let to_output = "take it out: the log is the standard error of `ringpost serve`, which a service manager keeps";
        self.logs.iter().for_each(|log| found.when(true, &log.line, to_output, || "log".to_owned()));
    }

    fn settings(&self, found: &mut Found) {
        let mut has = |is: bool, what: &'static str, instead| {
            let line = self.setting_lines.get(what).cloned().unwrap_or_else(Line::built_in);
            found.when(is, &line, instead, || what.to_owned());
        };
        let backend = "take it out: `queue backend log` is what there is, and the default";
        has(self.queue.backend != QueueBackend::Log, "queue backend", backend);
        let compression = "take it out; a state directory on a file system that compresses comes to the same";
        has(self.queue.compression.is_some(), "queue compression", compression);
        let encryption = "take it out, and have the state directory on an encrypted disk (LUKS, for example)";
        has(self.queue.encryption.is_some(), "queue encryption", encryption);
        has(self.admd.is_some(), "admd", "take it out: nothing is written under that name yet");
    }
}

fn is_remote<T>(among: &Among<T>) -> bool {
    matches!(among, Among::Remote { .. })
}

/// What remote tables are asked for: by rules, by the expansion of recipients, by logins, and by relays.
fn is_asked(service: ServiceKind) -> bool {
    matches!(
        service,
        ServiceKind::Alias
            | ServiceKind::Domain
            | ServiceKind::Credentials
            | ServiceKind::Auth
            | ServiceKind::UserInfo
            | ServiceKind::NetAddr
            | ServiceKind::MailAddr
            | ServiceKind::MailAddrMap
            | ServiceKind::String
            | ServiceKind::SourceAddr
            | ServiceKind::AddrName
            | ServiceKind::RelayHost
            | ServiceKind::Cert
    )
}

fn listener_has(listener: &Listener, found: &mut Found) {
    let mut has = |is: bool, what: &str, instead| found.when(is, &listener.line, instead, || format!("listen {what}"));
    has(!listener.filters.is_empty(), "filter", FILTERS);
    has(!listener.rate_limits.is_empty(), "ratelimit", RATES);
}

fn shaping_has(shaping: &Shaping, found: &mut Found) {
    let mut has = |is: bool, what: &str| found.when(is, &shaping.line, IN_MEMORY, || format!("shaping {what}"));
    let asked = match &shaping.selector {
        ShapeSelector::Domain(among) | ShapeSelector::Mx(among) | ShapeSelector::Host(among) => {
            matches!(among, Among::Remote { .. })
        }
        ShapeSelector::Default | ShapeSelector::Relay => false,
    };
    has(asked, "for a table that must be asked");
    let shape = &shaping.shape;
    has(shape.on_reply.iter().any(|(reply, _)| is_remote(reply)), "on reply by a table that must be asked");
}

fn relay_has(relay: &Relay, line: &Line, found: &mut Found) {
    let mut has = |is: bool, what: &str, instead| found.when(is, line, instead, || format!("relay {what}"));
    has(!relay.filters.is_empty(), "filter", FILTERS);
    has(!relay.dkim.is_empty(), "dkim", SIGNERS);
}

/// What was found, each once for a line.
struct Found(Vec<NotYet>);

impl Found {
    fn when(&mut self, is: bool, line: &Line, instead: &'static str, what: impl FnOnce() -> String) {
        if is {
            let entry = NotYet { line: line.clone(), what: what(), instead };
            if self.0.last() != Some(&entry) {
                self.0.push(entry);
            }
        }
    }
}
