//! What the rules say about a recipient.

use std::net::SocketAddr;

use ringpost_conf::{Decision, Facts};
use ringpost_smtp::{Reply, Transaction};

use crate::event::Event;
use crate::replies;
use crate::settings::Settings;
use crate::shard::{Shard, World};

/// Who is speaking, as far as the connection tells.
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) listener: usize,
    pub(crate) session: u64,
}

/// The actions of the accepted recipients, in the transaction's order.
#[derive(Default)]
pub(crate) struct Recipients {
    pub(crate) actions: Vec<u16>,
}

impl Recipients {
    /// First match wins; nothing matching is a refusal.
    pub(crate) fn decide<W: World>(
        &mut self,
        shard: &Shard<W>,
        client: &Client,
        settings: &Settings,
        helo: &str,
        tx: &Transaction<'_>,
        recipient: &str,
    ) -> Result<(), Reply> {
        let facts = Facts {
            source: Some(client.peer.ip()),
            local: settings.is_local(client.peer.ip(), client.local.ip()),
            helo,
            tag: &settings.policies[client.listener].tag,
            sender: tx.reverse_path(),
            recipient,
            ..Facts::default()
        };
        let refusal = match settings.config.decide(&facts) {
            Decision::Action(action) => {
                self.actions.push(u16::try_from(action).expect("a configuration has fewer actions"));
                return Ok(());
            }
            Decision::Reject { code, status, text } => Reply::owned(code, status, text.to_owned()),
            Decision::NoMatch { domain_is_known: true } => replies::no_such_recipient(),
            Decision::NoMatch { domain_is_known: false } => replies::not_here(),
            Decision::Unknown | Decision::Needs(_) => replies::lookup_failed(),
        };
        shard.event(&Event::RecipientRefused {
            session: client.session,
            sender: tx.reverse_path(),
            recipient,
            reply: &refusal.to_string(),
        });
        Err(refusal)
    }
}
