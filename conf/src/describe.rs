//! What an action does, in a few words for people.

use std::net::IpAddr;

use crate::direction::Direction;
use crate::expand::{Expansion, Question};
use crate::facts::Lookup;
use crate::model::{Action, ActionKind, Host, Pool, PoolSource, Relay, RelayHost};
use crate::verp;

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
    let direction = match relay.direction(config, &Direction::domain_of(address), &told) {
        Ok(direction) => direction,
        Err(why) => return format!("relay: unknown: {why}"),
    };
    let named = &direction.hosts;
    let mut text = if named.is_empty() { "relay by MX".to_owned() } else { format!("relay to {}", hosts(named)) };
    text += &from(&direction);
    if let Some(name) = &relay.helo {
        text += &format!(" as {name}");
    }
    let of_pool = direction.pool.map_or(&[][..], |pool| &pool.sources);
    let has_own = |address: IpAddr| of_pool.iter().any(|source| source.address == address && source.helo.is_some());
    for PoolSource { address, helo, .. } in of_pool {
        text += &helo.as_ref().map_or_else(String::new, |name| format!(", as {name} from {address}"));
    }
    let by_table = direction.sources.iter().filter(|source| relay.helo_by_source.is_some() && !has_own(**source));
    for source in by_table {
        let answer = relay.name_question(*source).and_then(|question| told(&question));
        text += &match relay.name_at(config, *source, answer) {
            Ok(Some(name)) => format!(", as {name} from {source}"),
            Ok(None) => format!(", as the server from {source}"),
            Err(why) => format!(", from {source} unknown: {why}"),
        };
    }
    let values = expansion.format_values();
    let path = relay.reverse_path(values.sender);
    let variable = || verp::reverse_path(&path, values.recipient, values.delimiter);
    let variable = if relay.verp { variable() } else { None };
    if relay.mail_from.is_some() || variable.is_some() {
        text += &format!(", sender <{}>", variable.as_deref().unwrap_or(&path));
    }
    text
}

/// The sources of a direction and how one is chosen.
pub(crate) fn from(direction: &Direction<'_>) -> String {
    if let Some(Pool { name, sources, select, .. }) = direction.pool {
        let sources = sources.iter().map(|source| match source.weight {
            1 => source.address.to_string(),
            weight => format!("{} weight {weight}", source.address),
        });
        return format!(" from pool {name}: {} ({})", sources.collect::<Vec<_>>().join(", "), select.name());
    }
    let all: Vec<String> = direction.sources.iter().map(ToString::to_string).collect();
    match all.len() {
        0 => String::new(),
        1 => format!(" from {}", all[0]),
        _ => format!(" from {} in turn", all.join(", ")),
    }
}

fn hosts(hosts: &[RelayHost]) -> String {
    let hosts = hosts.iter().map(|host| match &host.host {
        Host::Socket(path) => path.display().to_string(),
        Host::Address(IpAddr::V6(address)) => format!("[{address}]:{}", host.port),
        Host::Address(address) => format!("{address}:{}", host.port),
        Host::Name(name) => format!("{name}:{}", host.port),
        Host::Mx(name) => format!("mx:{name}:{}", host.port),
    });
    hosts.collect::<Vec<_>>().join(", ")
}
