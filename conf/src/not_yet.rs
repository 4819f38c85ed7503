//! What the language has and the engine has not: found in the checked configuration, in this one place. To enable something,
//! delete its line here.

use crate::model::{ActionKind, Config, Line, Listener, QueueBackend, Relay, ShapeSelector, Shaping};
use crate::rules::Among;
use crate::tables::ServiceKind;

impl Config {
    /// Everything in it that this version cannot do, with the line that asks for it.
    pub(crate) fn find_not_yet(&self) -> Vec<(Line, String)> {
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
        found.0.sort_by(|(a, _), (b, _)| (&a.file, a.number).cmp(&(&b.file, b.number)));
        found.0
    }

    fn tables(&self, found: &mut Found) {
        for table in &self.tables {
            let remote = !table.backend.is_memory();
            for service in table.services.iter().filter(|service| remote && !is_asked(**service)) {
                found.when(true, &table.line, || format!("table {}: for {service}", table.backend.name()));
            }
        }
    }

    /// What is declared by name.
    fn named(&self, found: &mut Found) {
        self.filters.iter().for_each(|filter| found.when(true, &filter.line, || "filter".to_owned()));
        self.shapings.iter().for_each(|shaping| shaping_has(shaping, found));
        self.signers.iter().for_each(|signer| found.when(true, &signer.line, || "dkim sign".to_owned()));
        self.rate_limits.iter().for_each(|limit| found.when(true, &limit.line, || "ratelimit".to_owned()));
        for one in &self.bounce.classify {
            let asked = is_remote(&one.reply) || one.domain.as_ref().is_some_and(is_remote);
            found.when(asked, &one.line, || "bounce classify by a table that must be asked".to_owned());
        }
        self.logs.iter().for_each(|log| found.when(true, &log.line, || "log".to_owned()));
    }

    fn settings(&self, found: &mut Found) {
        let mut has = |is: bool, what: &'static str| {
            let line = self.setting_lines.get(what).cloned().unwrap_or_else(Line::built_in);
            found.when(is, &line, || what.to_owned());
        };
        has(self.queue.backend != QueueBackend::Log, "queue backend");
        has(self.queue.compression.is_some(), "queue compression");
        has(self.queue.encryption.is_some(), "queue encryption");
        has(self.admd.is_some(), "admd");
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
    let mut has = |is: bool, what: &str| found.when(is, &listener.line, || format!("listen {what}"));
    has(!listener.filters.is_empty(), "filter");
    has(!listener.rate_limits.is_empty(), "ratelimit");
}

fn shaping_has(shaping: &Shaping, found: &mut Found) {
    let mut has = |is: bool, what: &str| found.when(is, &shaping.line, || format!("shaping {what}"));
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
    let mut has = |is: bool, what: &str| found.when(is, line, || format!("relay {what}"));
    has(!relay.filters.is_empty(), "filter");
    has(!relay.dkim.is_empty(), "dkim");
}

/// What was found, each once for a line.
struct Found(Vec<(Line, String)>);

impl Found {
    fn when(&mut self, is: bool, line: &Line, what: impl FnOnce() -> String) {
        if is {
            let entry = (line.clone(), what());
            if self.0.last() != Some(&entry) {
                self.0.push(entry);
            }
        }
    }
}
