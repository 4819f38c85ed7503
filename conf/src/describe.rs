//! What an action does, in a few words for people.

use crate::direction::Direction;
use crate::expand::{Expansion, Question};
use crate::facts::Lookup;
use crate::model::{Action, ActionKind, Host, Relay, RelayHost};

impl Action {
    /// What it does, whatever it is for.
    pub fn describe(&self) -> String {
        match &self.kind {
            ActionKind::Relay(relay) if relay.host_table.is_some() => "relay to the hosts of a table".to_owned(),
            ActionKind::Relay(relay) if relay.domain.is_some() => "relay by a table of domains, else by MX".to_owned(),
            ActionKind::Relay(relay) if relay.hosts.is_empty() => "relay by MX".to_owned(),
            ActionKind::Relay(relay) => format!("relay to {}", hosts(&relay.hosts)),
            ActionKind::Mbox => "mbox".to_owned(),
            ActionKind::Maildir(maildir) => format!("maildir {}", maildir.path.as_written()),
            ActionKind::Mda(mda) => format!("mda {}", mda.command),
            ActionKind::Lmtp(lmtp) => format!("lmtp {}", lmtp.destination.as_written()),
            ActionKind::ExpandOnly => "expand-only".to_owned(),
            ActionKind::ForwardOnly => "forward-only".to_owned(),
            ActionKind::Discard => "discard".to_owned(),
        }
    }
}

/// Where a relay sends mail for this address, from where and as whom, as far as the expansion has been told.
pub(crate) fn relay(relay: &Relay, expansion: &Expansion<'_>, address: &str) -> String {
    let config = expansion.config();
    let told = |lookup: &Lookup| expansion.answer(&Question::Lookup(lookup.clone())).cloned();
    let Direction { hosts: named, sources } = match relay.direction(config, &Direction::domain_of(address), &told) {
        Ok(direction) => direction,
        Err(why) => return format!("relay: unknown: {why}"),
    };
    let mut text = if named.is_empty() { "relay by MX".to_owned() } else { format!("relay to {}", hosts(&named)) };
    if !sources.is_empty() {
        let all: Vec<String> = sources.iter().map(ToString::to_string).collect();
        text += &format!(" from {}{}", all.join(", "), if all.len() > 1 { " in turn" } else { "" });
    }
    if let Some(name) = &relay.helo {
        text += &format!(" as {name}");
    }
    for source in sources.iter().filter(|_| relay.helo_by_source.is_some()) {
        let answer = relay.name_question(*source).and_then(|question| told(&question));
        text += &match relay.name_at(config, *source, answer) {
            Ok(Some(name)) => format!(", as {name} from {source}"),
            Ok(None) => format!(", as the server from {source}"),
            Err(why) => format!(", from {source} unknown: {why}"),
        };
    }
    if relay.mail_from.is_some() {
        text += &format!(", sender <{}>", relay.reverse_path(expansion.format_values().sender));
    }
    text
}

fn hosts(hosts: &[RelayHost]) -> String {
    let hosts = hosts.iter().map(|host| match &host.host {
        Host::Socket(path) => path.display().to_string(),
        Host::Address(std::net::IpAddr::V6(address)) => format!("[{address}]:{}", host.port),
        Host::Address(address) => format!("{address}:{}", host.port),
        Host::Name(name) => format!("{name}:{}", host.port),
        Host::Mx(name) => format!("mx:{name}:{}", host.port),
    });
    hosts.collect::<Vec<_>>().join(", ")
}
