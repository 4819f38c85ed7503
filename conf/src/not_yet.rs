//! What the language has and the engine has not: found in the checked configuration, in this one place. To enable something,
//! delete its line here.

use crate::model::{
    ActionKind, Config, Keyed, Line, Listener, PasswordAuth, PkiSource, QueueBackend, Relay, RelayTls, Scheme,
};
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
        let tables = self.pkis.iter().filter(|pki| matches!(pki.source, PkiSource::Table(_)));
        tables.for_each(|pki| found.when(true, &pki.line, || "pki from".to_owned()));
        self.filters.iter().for_each(|filter| found.when(true, &filter.line, || "filter".to_owned()));
        self.shapings.iter().for_each(|shaping| found.when(true, &shaping.line, || "shaping".to_owned()));
        self.signers.iter().for_each(|signer| found.when(true, &signer.line, || "dkim sign".to_owned()));
        self.rate_limits.iter().for_each(|limit| found.when(true, &limit.line, || "ratelimit".to_owned()));
        self.bounce.classify.iter().for_each(|one| found.when(true, &one.line, || "bounce classify".to_owned()));
        self.logs.iter().for_each(|log| found.when(true, &log.line, || "log".to_owned()));
    }

    fn settings(&self, found: &mut Found) {
        let mut has = |is: bool, what: &'static str| {
            let line = self.setting_lines.get(what).cloned().unwrap_or_else(Line::built_in);
            found.when(is, &line, || what.to_owned());
        };
        has(self.smtp.ciphers.is_some(), "smtp ciphers");
        has(self.queue.backend != QueueBackend::Log, "queue backend");
        has(self.queue.compression.is_some(), "queue compression");
        has(self.queue.encryption.is_some(), "queue encryption");
        has(self.srs.key.is_some(), "srs key");
        has(self.machinery.deferred_max.is_some(), "mta max-deferred");
        has(self.machinery.in_flight_max.is_some(), "scheduler limit");
        has(self.machinery.schedule_max.is_some(), "scheduler limit");
        has(self.metrics.hlog.is_some(), "metrics hlog");
        has(self.metrics.sites_max.is_some(), "metrics sites");
        has(self.admd.is_some(), "admd");
        if let Some(http) = &self.http {
            found.when(http.pki.is_some(), &http.line, || "http pki".to_owned());
            found.when(http.auth.is_some(), &http.line, || "http auth".to_owned());
            found.when(!http.only.is_empty(), &http.line, || "http only".to_owned());
        }
    }
}

/// What remote tables are asked for: by rules, by the expansion of recipients, and by relays.
fn is_asked(service: ServiceKind) -> bool {
    matches!(
        service,
        ServiceKind::Alias
            | ServiceKind::Domain
            | ServiceKind::UserInfo
            | ServiceKind::NetAddr
            | ServiceKind::MailAddr
            | ServiceKind::String
            | ServiceKind::SourceAddr
            | ServiceKind::AddrName
            | ServiceKind::RelayHost
    )
}

fn listener_has(listener: &Listener, found: &mut Found) {
    let mut has = |is: bool, what: &str| found.when(is, &listener.line, || format!("listen {what}"));
    has(listener.proxy_v2, "proxy-v2");
    has(listener.tls.verify, "verify");
    has(listener.tls.ca.is_some(), "ca");
    has(listener.tls.protocols.is_some(), "protocols");
    has(listener.tls.ciphers.is_some(), "ciphers");
    has(!matches!(listener.auth.password, PasswordAuth::Off), "auth");
    has(listener.auth.certificate.is_some(), "auth-cert");
    has(listener.senders.is_some(), "senders");
    has(!listener.filters.is_empty(), "filter");
    has(listener.received_auth, "received-auth");
    has(!listener.rate_limits.is_empty(), "ratelimit");
}

fn relay_has(relay: &Relay, line: &Line, found: &mut Found) {
    let mut has = |is: bool, what: &str| found.when(is, line, || format!("relay {what}"));
    has(relay.backup.is_some(), "backup");
    for host in &relay.hosts {
        has(!is_built(host.scheme), &format!("host {}://", host.scheme.name()));
    }
    if let Some(Keyed::Memory(routes)) = &relay.domain {
        let mut hosts: Vec<&str> =
            routes.values().map(|host| host.scheme).filter(|one| !is_built(*one)).map(Scheme::name).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts.iter().for_each(|scheme| has(true, &format!("domain {scheme}://")));
    }
    has(relay.pool.is_some(), "src pool");
    has(relay.auth.is_some(), "auth");
    has(relay.tls == RelayTls::Dane, "tls dane");
    has(relay.pki.is_some(), "pki");
    has(relay.ca.is_some(), "ca");
    has(relay.protocols.is_some(), "protocols");
    has(relay.ciphers.is_some(), "ciphers");
    has(relay.srs, "srs");
    has(!relay.filters.is_empty(), "filter");
    has(relay.shaping.is_some(), "shaping");
    has(!relay.dkim.is_empty(), "dkim");
}

/// Whether mail can be sent over such a channel. What remote tables say is held against it, too.
pub(crate) fn is_built(scheme: Scheme) -> bool {
    scheme != Scheme::Lmtp
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
