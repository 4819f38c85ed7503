//! `relay`: hosts, credentials, sources (grammar §4.4).

use ringpost_address::{Mailbox, is_domain_name};

use super::Check;
use super::declared::What;
use crate::model::{Keyed, Relay, RelayHost, RelayTls};
use crate::parse::ast::{Arg, OptionLine, Said};
use crate::report::Report;
use crate::source_text::Span;

impl Check<'_, '_> {
    pub(super) fn relay(&mut self, said: &Said) -> Relay {
        let options = &said.options;
        self.relay_excludes(said);
        let mut relay = Relay {
            backup: options.find("backup").map(|option| self.backup_name(option)),
            helo: options.text("helo"),
            helo_by_source: options.targ("helo-src").and_then(|(_, targ)| self.tables.keyed(targ, self.reading)),
            auth: options.targ("auth").and_then(|(_, targ)| self.tables.keyed(targ, self.reading)),
            domain: options.targ("domain").and_then(|(_, targ)| self.tables.keyed(targ, self.reading)),
            tls: options.find("tls").map_or(RelayTls::Opportunistic, tls),
            pki: self.names.maybe(What::Pki, options.word("pki"), self.reading),
            ca: self.names.maybe(What::Ca, options.word("ca"), self.reading),
            protocols: self.protocols(options.word("protocols")),
            ciphers: self.ciphers(options.word("ciphers")),
            mail_from: self.mail_from(options.find("mail-from")),
            srs: options.has("srs"),
            verp: options.has("verp"),
            filters: self.names.find_all(What::Filter, options.names("filter"), self.reading),
            shaping: self.names.maybe(What::Shaping, options.word("shaping"), self.reading),
            dkim: self.names.find_all(What::Signer, options.names("dkim"), self.reading),
            ..Relay::default()
        };
        if let Some((_, targ)) = options.targ("host") {
            let (hosts, table) = self.tables.cycled(targ, self.reading).unwrap_or_default();
            (relay.hosts, relay.host_table) = (hosts, table);
            self.labels_need_auth(&relay.hosts, said, targ.span);
        }
        if let (Some((_, targ)), Some(Keyed::Memory(routes))) = (options.targ("domain"), &relay.domain) {
            let mut labelled: Vec<RelayHost> = routes.values().filter(|host| host.label.is_some()).cloned().collect();
            labelled.sort_by(|a, b| a.label.cmp(&b.label));
            self.labels_need_auth(&labelled, said, targ.span);
        }
        match options.find("src").map(|option| &option.arg) {
            Some(Arg::One(pool)) => {
                if let Arg::Word(name) = &pool.arg {
                    relay.pool = self.names.find(What::Pool, name, self.reading);
                }
            }
            Some(Arg::Targ(targ)) => {
                let (sources, table) = self.tables.cycled(targ, self.reading).unwrap_or_default();
                (relay.sources, relay.source_table) = (sources, table);
            }
            _ => {}
        }
        if let Some(srs) = options.find("srs")
            && !self.has_setting("srs key")
        {
            let report = Report::new("E0611", srs.word.span, "`srs` needs `srs key`");
            self.reading.report(report.help("add: srs key \"…\""));
        }
        relay
    }

    /// E0606: a label names credentials, which are somewhere. In rules of long ago it was told before.
    fn labels_need_auth(&mut self, hosts: &[RelayHost], said: &Said, span: Span) {
        let is_old = said.options.find("host").is_some_and(|option| option.word.value == "via");
        if said.options.has("auth") || said.broken || is_old {
            return;
        }
        if let Some((host, label)) = hosts.iter().find_map(|host| Some((host, host.label.as_ref()?))) {
            let message = format!("`{}://{label}@` needs `auth <table>`", host.scheme.name());
            let help = format!("the table maps the label `{label}` to user:password");
            self.reading.report(Report::new("E0606", span, message).help(help));
        }
    }

    /// `backup [mx NAME]`; by default the server name.
    fn backup_name(&self, option: &OptionLine) -> String {
        let named = match &option.arg {
            Arg::With(_, options) => options.text("mx"),
            _ => None,
        };
        named.unwrap_or_else(|| self.reading.names.server.clone())
    }

    /// `user@domain`, or `@domain`.
    fn mail_from(&mut self, option: Option<&OptionLine>) -> Option<String> {
        let Arg::Word(word) = &option?.arg else { return None };
        let good = match word.text.strip_prefix('@') {
            Some(domain) => is_domain_name(domain),
            None => Mailbox::parse(&word.text).is_ok(),
        };
        if !good {
            let report = Report::new("E0403", word.span, format!("`{}` is not an address", word.text));
            self.reading.report(report.help("user@domain, or @domain to keep the user"));
        }
        good.then(|| word.text.to_string())
    }
}

/// `tls`, `tls no-verify`, `tls dane`.
pub(super) fn tls(option: &OptionLine) -> RelayTls {
    match &option.arg {
        Arg::Key(key) if key.value == "no-verify" => RelayTls::Encrypted,
        Arg::Key(_) => RelayTls::Dane,
        _ => RelayTls::Verified,
    }
}
