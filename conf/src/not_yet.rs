//! What the language has and the engine has not: found in the checked configuration, in this one place. To enable something,
//! delete its line here.

use crate::model::{Action, ActionKind, Config, Line, Maildir, Relay, RelayTls, Scheme};
use crate::rules::{Origin, Test};

impl Config {
    /// Everything in it that this version cannot do, with the line that asks for it.
    pub(crate) fn find_not_yet(&self) -> Vec<(Line, String)> {
        let mut found = Found(Vec::new());
        self.tables(&mut found);
        self.actions.iter().for_each(|action| action_has(action, &mut found));
        self.rules(&mut found);
        found.0
    }

    fn tables(&self, found: &mut Found) {
        for table in &self.tables {
            let asked = !table.services.is_empty() && !table.backend.is_memory();
            found.when(asked, &table.line, || format!("table {}:", table.backend.name()));
        }
    }

    fn rules(&self, found: &mut Found) {
        for rule in &self.matches {
            let mut has = |is: bool, what: &str| found.when(is, &rule.line, || format!("match {what}"));
            has(matches!(rule.from.1, Origin::ReverseName(_)), "from rdns");
            has(matches!(rule.from.1, Origin::Authenticated(_)), "from auth");
            has(matches!(rule.from.1, Origin::Certificate(_)), "from cert");
            has(rule.has_test(|test| matches!(test, Test::Tls)), "tls");
            has(rule.has_test(|test| matches!(test, Test::Authenticated(_))), "auth");
            has(rule.has_test(|test| matches!(test, Test::Certificate(_))), "cert");
        }
    }
}

fn action_has(action: &Action, found: &mut Found) {
    let mut has = |is: bool, what: &str| found.when(is, &action.line, || what.to_owned());
    has(action.mapping.is_some(), "alias and virtual");
    has(action.local.user.is_some(), "user");
    has(action.local.userbase.is_some(), "userbase");
    has(action.local.wrapper.is_some(), "wrapper");
    match &action.kind {
        ActionKind::Relay(relay) => relay_has(relay, &action.line, found),
        ActionKind::Maildir(Maildir { path, junk }) => {
            has(path.is_in_home(), "maildir in a home directory");
            has(path.as_written().contains("%{user."), "maildir with %{user.…}");
            has(*junk, "maildir junk");
        }
        ActionKind::Mbox => has(true, "mbox"),
        ActionKind::Mda(_) => has(true, "mda"),
        ActionKind::Lmtp(_) => has(true, "lmtp"),
        ActionKind::ExpandOnly => has(true, "expand-only"),
        ActionKind::ForwardOnly => has(true, "forward-only"),
        ActionKind::Discard => {}
    }
}

fn relay_has(relay: &Relay, line: &Line, found: &mut Found) {
    let mut has = |is: bool, what: &str| found.when(is, line, || format!("relay {what}"));
    has(relay.backup.is_some(), "backup");
    for host in &relay.hosts {
        let built = matches!(host.scheme, Scheme::Opportunistic | Scheme::Plain);
        has(!built, &format!("host {}://", host.scheme.name()));
    }
    has(relay.domain.is_some(), "domain");
    has(relay.pool.is_some(), "src pool");
    has(relay.helo_by_source.is_some(), "helo-src");
    has(relay.auth.is_some(), "auth");
    has(relay.tls != RelayTls::Opportunistic, "tls");
    has(relay.pki.is_some(), "pki");
    has(relay.ca.is_some(), "ca");
    has(relay.protocols.is_some(), "protocols");
    has(relay.ciphers.is_some(), "ciphers");
    has(relay.mail_from.is_some(), "mail-from");
    has(relay.srs, "srs");
    has(!relay.filters.is_empty(), "filter");
    has(relay.shaping.is_some(), "shaping");
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
