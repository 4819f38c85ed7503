//! The configuration in the terms of the rooms below: what each listener's sessions, the queue and the routes are told.

use ringpost_conf::expand::Outlines;
use ringpost_conf::tables::{HostName, Mapped};
use ringpost_conf::{Config, Keyed, Origin, Reserve, TlsMode};
use ringpost_io::Peer;
use ringpost_queue::{Options, Plant};
use ringpost_smtp::server::{Encryption, Policy};
use ringpost_tls::Server;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::secure::Servers;

/// One listener's sessions.
pub(crate) struct ListenerPolicy {
    pub(crate) smtp: Arc<Policy>,
    hostnames: Option<Arc<Mapped<HostName>>>,
    pub(crate) tag: String,
    /// What handshakes are made with.
    pub(crate) tls: Option<Server>,
    /// `smtps`: the handshake comes first.
    pub(crate) tls_first: bool,
    /// Port 587: our own users, whose messages are completed (RFC 6409 §8).
    pub(crate) submission: bool,
    /// The client is not named in `Received:`.
    pub(crate) mask_source: bool,
}

impl ListenerPolicy {
    /// What a session is told whose client has reached this address of ours: its name may go by that.
    pub(crate) fn smtp_at(&self, local: IpAddr) -> Arc<Policy> {
        // Keys of such a table are addresses as they are printed.
        let named = self.hostnames.as_ref().and_then(|names| names.get(&local.to_canonical().to_string()));
        match named {
            Some(name) if name.0 != self.smtp.hostname => {
                Arc::new(Policy { hostname: name.0.clone(), ..(*self.smtp).clone() })
            }
            _ => self.smtp.clone(),
        }
    }
}

/// A configuration, made ready.
pub(crate) struct Settings {
    pub(crate) config: Arc<Config>,
    pub(crate) outlines: Outlines,
    pub(crate) hostname: String,
    pub(crate) policies: Rc<[ListenerPolicy]>,
    /// Which of them is the local socket's: there is one socket, and a reload may have moved its line.
    local_listener: Option<usize>,
    pub(crate) spool_bytes: usize,
    pub(crate) sessions_max: usize,
    pub(crate) sessions_per_address_max: usize,
    pub(crate) received_max: usize,
    /// Whether a rule wants to know what clients are called.
    pub(crate) asks_client_names: bool,
}

impl Settings {
    pub(crate) fn new(config: Arc<Config>, servers: &Servers, hostname: &str) -> Self {
        let policies = config.listeners.iter().enumerate().map(|(number, listener)| {
            let tls = servers.get(number).cloned().flatten();
            let smtp = &config.smtp;
            let policy = Policy {
                hostname: listener.hostname.clone(),
                size_max: listener.message_bytes_max,
                recipients_max: smtp.recipients_max as usize,
                mails_max: smtp.mails_max,
                errors_max: smtp.errors_max,
                command_bytes_max: smtp.line_bytes_max as usize,
                encryption: match listener.tls.mode {
                    TlsMode::Offered if tls.is_some() => Encryption::Offered,
                    // Without a certificate nothing is taken there, rather than everything in the clear.
                    TlsMode::Required => Encryption::Required,
                    TlsMode::Off | TlsMode::Offered | TlsMode::Implicit => Encryption::Never,
                },
                command_timeout: smtp.command_timeout,
                data_timeout: smtp.data_timeout,
            };
            ListenerPolicy {
                smtp: Arc::new(policy),
                hostnames: match &listener.hostnames {
                    Some(Keyed::Memory(names)) => Some(names.clone()),
                    // A server with a table that must be asked does not start (`Config::not_yet`).
                    Some(Keyed::Remote(_)) | None => None,
                },
                tag: listener.tag.clone(),
                submission: listener.port == 587,
                tls,
                tls_first: listener.tls.mode == TlsMode::Implicit,
                mask_source: listener.mask_source,
            }
        });
        Self {
            policies: policies.collect(),
            local_listener: config.local_listener(),
            outlines: Outlines::new(&config),
            spool_bytes: config.store.spool_memory_bytes as usize,
            sessions_max: config.smtp.sessions_max as usize,
            sessions_per_address_max: config.smtp.sessions_per_source_max as usize,
            received_max: config.smtp.received_max as usize,
            asks_client_names: config.matches.iter().any(|rule| matches!(rule.from.1, Origin::ReverseName(_))),
            hostname: hostname.to_owned(),
            config,
        }
    }

    /// The number of the listener of a session whose socket had this number when it was bound.
    pub(crate) fn listener_of(&self, peer: Peer, bound: usize) -> usize {
        match peer {
            Peer::Address(_) => bound,
            Peer::Process(_) => self.local_listener.unwrap_or(bound),
        }
    }

    /// Loopback, and this host's own addresses: a client at the address that it connects to.
    pub(crate) fn is_local(&self, peer: IpAddr, own: IpAddr) -> bool {
        peer.is_loopback() || peer == own || self.config.names.addresses.contains(&peer)
    }

    /// `free_bytes` on the queue's disk now: a reserve in percent is a part of that.
    pub(crate) fn queue_options(&self, free_bytes: u64, seed: u64, plant: Plant) -> Options {
        let store = &self.config.store;
        Options {
            segment_bytes: store.segment_bytes,
            spare_segments: store.spare_segments as usize,
            reserve_bytes: match store.reserve {
                Reserve::Bytes(bytes) => bytes,
                Reserve::Percent(percent) => free_bytes / 100 * u64::from(percent),
            },
            state_delay: store.state_delay,
            seed,
            plant,
            ..Options::default()
        }
    }
}
