//! With which reverse-path an envelope leaves: the message's own; that of the action; one that leads back to who forwards
//! (SRS); one for each recipient (VERP).

use ringpost_address::split_address;
use ringpost_conf::{ActionKind, Relay, verp};
use ringpost_queue::Flags;

use crate::dispatch::Envelope;
use crate::settings::Settings;

/// What decides of a message.
#[derive(Clone, Copy)]
pub(crate) struct Message<'m> {
    pub(crate) sender: &'m str,
    pub(crate) flags: Flags,
    /// From when its time counts.
    pub(crate) received_ms: u64,
}

/// Whether envelopes of the action may leave with reverse-paths of their own.
pub(crate) fn differs(relay: &Relay, flags: Flags) -> bool {
    relay.srs || is_variable(relay, flags)
}

/// The reverse-path that the next server is told of an envelope.
pub(crate) fn of(settings: &Settings, relay: &Relay, message: Message<'_>, envelope: &Envelope) -> String {
    // An address that leads back to a sender elsewhere can have nothing put in.
    if let Some(made) = forwarded(settings, relay, message, envelope) {
        return relay.reverse_path(&made).into_owned();
    }
    let path = relay.reverse_path(message.sender);
    let variable = is_variable(relay, message.flags).then(|| variable(settings, &path, envelope)).flatten();
    variable.unwrap_or_else(|| path.into_owned())
}

/// Where the report goes that an envelope has failed, if not to the sender of its message: where another server would send
/// it, so that who reads what comes back finds it there.
pub(crate) fn of_failure(settings: &Settings, message: Message<'_>, envelope: &Envelope) -> Option<String> {
    let kind = envelope.action.and_then(|action| settings.config.actions.get(action)).map(|action| &action.kind);
    match kind {
        Some(ActionKind::Relay(relay)) if is_variable(relay, message.flags) => {
            if forwarded(settings, relay, message, envelope).is_some() {
                return None;
            }
            variable(settings, &relay.reverse_path(message.sender), envelope)
        }
        Some(ActionKind::Relay(_)) => None,
        _ if message.flags.contains(Flags::VERP) => variable(settings, message.sender, envelope),
        _ => None,
    }
}

/// The address of ours that leads back to the sender, where this envelope is forwarded with one.
fn forwarded(settings: &Settings, relay: &Relay, message: Message<'_>, envelope: &Envelope) -> Option<String> {
    let (_, domain) = split_address(envelope.original.as_deref().filter(|_| relay.srs)?)?;
    settings.config.srs.forwarded(message.sender, domain, message.received_ms)
}

fn is_variable(relay: &Relay, flags: Flags) -> bool {
    relay.verp || flags.contains(Flags::VERP)
}

/// The recipient that the sender has named is the one that he will look for.
fn variable(settings: &Settings, path: &str, envelope: &Envelope) -> Option<String> {
    verp::reverse_path(path, envelope.original(), settings.config.smtp.sub_address_delimiter)
}
