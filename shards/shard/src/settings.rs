//! The configuration in the terms of the rooms below: what each listener's sessions, the queue and the routes are told.

use ringpost_conf::expand::Outlines;
use ringpost_conf::tables::{HostName, Mapped};
use ringpost_conf::{
    Config, Family, Keyed, OnReply, Origin, Proxies, RelayTls, Reserve, Select, Senders, ShapeSelector, Shaping,
    TlsMode, verp,
};
use ringpost_io::Peer;
use ringpost_queue::{Backend, Options, Plant};
use ringpost_routes::{Host, Member, Patience, Pick, Pool, Rate, Schedule, Shape};
use ringpost_smtp::server::{Encryption, Policy};
use ringpost_tls::{Connector, Server};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::limits;
use crate::login::Guard;
use crate::secure::Servers;

/// One listener's sessions.
pub(crate) struct ListenerPolicy {
    pub(crate) smtp: Arc<Policy>,
    hostnames: Option<Arc<Mapped<HostName>>>,
    pub(crate) tag: String,
    /// Whose word about the client counts; `None`: clients come themselves.
    pub(crate) proxies: Option<Proxies>,
    /// What handshakes are made with.
    pub(crate) tls: Option<Server>,
    /// `smtps`: the handshake comes first.
    pub(crate) tls_first: bool,
    /// Port 587: our own users, whose messages are completed (RFC 6409 §8).
    pub(crate) submission: bool,
    /// The client is not named in `Received:`.
    pub(crate) mask_source: bool,
    /// Who may log in.
    pub(crate) guard: Option<Guard>,
    /// Whom a user may be at MAIL.
    pub(crate) senders: Option<Senders>,
    /// The user is named in `Received:`.
    pub(crate) received_auth: bool,
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

/// Limits that were set on a running server, made by [`ringpost_conf::overrides::shaping`].
pub type Overrides = Arc<[Arc<Shaping>]>;

/// What a route may do, and what it makes of replies.
#[derive(Clone)]
pub(crate) struct Shaped {
    pub(crate) shape: Arc<Shape>,
    pub(crate) on_reply: Arc<[OnReply]>,
    /// What connections must be at least.
    pub(crate) tls: Option<RelayTls>,
}

/// A configuration, made ready.
pub(crate) struct Settings {
    pub(crate) config: Arc<Config>,
    pub(crate) outlines: Outlines,
    pub(crate) hostname: String,
    pub(crate) policies: Rc<[ListenerPolicy]>,
    /// What encrypts connections of relays that have terms of their own.
    pub(crate) relays: Arc<HashMap<String, Connector>>,
    /// The pools of source addresses, by name.
    pub(crate) pools: HashMap<String, Arc<Pool>>,
    /// How source addresses warm up, by name.
    warmups: Warmups,
    /// Which of them is the local socket's: there is one socket, and a reload may have moved its line.
    local_listener: Option<usize>,
    /// Limits that were set while it runs; they stand in front of the configuration's shapes.
    overrides: RefCell<Overrides>,
    /// Shapes of routes that were needed, by the numbers of those that they are made of, overrides first.
    shapes: RefCell<HashMap<Vec<usize>, Shaped>>,
    pub(crate) spool_bytes: usize,
    pub(crate) sessions_max: usize,
    pub(crate) sessions_per_address_max: usize,
    pub(crate) received_max: usize,
    /// Messages that may be on their way at once: this shard's part of `scheduler limit max-inflight`.
    pub(crate) flights_max: usize,
    /// Deferred envelopes of a site that its next success wakes: `mta max-deferred`.
    pub(crate) sleepers_max: usize,
    /// Due envelopes taken out of the queue at once: `scheduler limit max-schedule`.
    pub(crate) at_once: usize,
    /// Whether an action reads reports.
    pub(crate) reads_feedback: bool,
    /// Whether a rule wants to know what clients are called.
    pub(crate) asks_client_names: bool,
}

impl Settings {
    pub(crate) fn new(config: Arc<Config>, servers: &Servers, hostname: &str, shards: usize) -> Self {
        let policies = config.listeners.iter().enumerate().map(|(number, listener)| {
            let tls = servers.listeners.get(number).cloned().flatten();
            let smtp = &config.smtp;
            let (guard, authentication) = Guard::of(listener, &config);
            let policy = Policy {
                hostname: listener.hostname.clone(),
                size_max: listener.message_bytes_max,
                recipients_max: smtp.recipients_max as usize,
                mails_max: smtp.mails_max,
                errors_max: smtp.errors_max,
                command_bytes_max: smtp.line_bytes_max as usize,
                dsn: !listener.no_dsn,
                // A delimiter is one character of ASCII.
                verp: [smtp.sub_address_delimiter as u8, verp::SEPARATOR as u8],
                encryption: match listener.tls.mode {
                    TlsMode::Offered if tls.is_some() => Encryption::Offered,
                    // Without a certificate nothing is taken there, rather than everything in the clear.
                    TlsMode::Required => Encryption::Required,
                    TlsMode::Off | TlsMode::Offered | TlsMode::Implicit => Encryption::Never,
                },
                authentication,
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
                proxies: listener.proxies.clone(),
                submission: listener.port == 587,
                tls,
                tls_first: listener.tls.mode == TlsMode::Implicit,
                mask_source: listener.mask_source,
                guard,
                senders: listener.senders.clone(),
                received_auth: listener.received_auth,
            }
        });
        let warmups: Warmups = config.warmups.iter().map(|one| (one.name.clone(), Arc::new(schedule(one)))).collect();
        let flights = config.machinery.in_flight_max.map(|most| (most as usize / shards.max(1)).max(1));
        let at_once = config.machinery.schedule_max.map_or(limits::CLAIM, |most| most as usize);
        Self {
            flights_max: flights.unwrap_or(limits::FLIGHTS).min(limits::FLIGHTS),
            sleepers_max: config.machinery.deferred_max.map_or(limits::SLEEPERS_PER_SITE, |most| most as usize),
            at_once: at_once.clamp(1, limits::CLAIM),
            policies: policies.collect(),
            relays: servers.relays.clone(),
            pools: config.pools.iter().map(|pool| (pool.name.clone(), Arc::new(of_pool(pool, &warmups)))).collect(),
            warmups,
            local_listener: config.local_listener(),
            overrides: RefCell::new(Arc::new([])),
            shapes: RefCell::default(),
            outlines: Outlines::new(&config),
            spool_bytes: config.store.spool_memory_bytes as usize,
            sessions_max: config.smtp.sessions_max as usize,
            sessions_per_address_max: config.smtp.sessions_per_source_max as usize,
            received_max: config.smtp.received_max as usize,
            reads_feedback: config.actions.iter().any(|action| action.feedback),
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

    /// The shape of a route to `hosts` for mail to this domain, and what tells the route from others to the same hosts.
    pub(crate) fn shape(&self, named: Option<&str>, domain: &str, hosts: &[Host]) -> (Shaped, String) {
        let (shapings, overrides) = (&self.config.shapings, self.overrides.borrow());
        let numbers = if shapings.is_empty() && overrides.is_empty() {
            Vec::new()
        } else {
            let names = best_names(hosts);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut numbers = Shaping::choose(&overrides, None, domain, &names);
            let configured = self.config.shapes_for(named, domain, &names);
            numbers.extend(configured.into_iter().map(|number| overrides.len() + number));
            numbers
        };
        let at = |number: usize| match overrides.get(number) {
            Some(shaping) => &**shaping,
            None => &shapings[number - overrides.len()],
        };
        let apart = numbers.iter().map(|number| at(*number)).filter(|shaping| shaping.is_apart());
        let apart = apart.map(|shaping| shaping.name.as_str()).collect::<Vec<_>>().join(",");
        let mut shapes = self.shapes.borrow_mut();
        if let Some(shaped) = shapes.get(&numbers) {
            return (shaped.clone(), apart);
        }
        if shapes.len() == limits::SHAPES_KEPT {
            shapes.clear();
        }
        let shape = ringpost_conf::Shape::together(numbers.iter().map(|number| &at(*number).shape));
        let shaped = Shaped {
            shape: Arc::new(of_route(&shape, &self.warmups)),
            on_reply: shape.on_reply.into(),
            tls: shape.tls,
        };
        shapes.insert(numbers, shaped.clone());
        (shaped, apart)
    }

    /// From now on these limits are in force, and no others of their kind.
    pub(crate) fn limit(&self, overrides: Overrides) {
        *self.overrides.borrow_mut() = overrides;
        self.shapes.borrow_mut().clear();
    }

    /// The limits that were set.
    pub(crate) fn overrides(&self) -> Overrides {
        self.overrides.borrow().clone()
    }

    /// Whether mail of two domains over the same hosts may have two shapes.
    pub(crate) fn shapes_domains(&self) -> bool {
        let is_of_domains = |shaping: &Shaping| matches!(shaping.selector, ShapeSelector::Domain(_));
        self.config.shapings.iter().any(is_of_domains) || self.overrides.borrow().iter().any(|one| is_of_domains(one))
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
            scheduler: self.scheduler(),
            plant,
            ..Options::default()
        }
    }

    /// Who says when what waits is due.
    pub(crate) fn scheduler(&self) -> Backend {
        if self.config.machinery.never_tries { Backend::Null } else { Backend::Wheel }
    }
}

/// The names of the best of a site's hosts, in lower case: what shapes are chosen by.
pub(crate) fn best_names(hosts: &[Host]) -> Vec<String> {
    let best = hosts.iter().map(|host| host.preference).min();
    hosts.iter().filter(|host| Some(host.preference) == best).map(|host| host.name.to_ascii_lowercase()).collect()
}

/// Schedules of warm-ups, by name.
type Warmups = HashMap<String, Arc<Schedule>>;

/// In the terms of the routes.
fn schedule(warmup: &ringpost_conf::Warmup) -> Schedule {
    Schedule { name: warmup.name.as_str().into(), steps: warmup.steps.iter().copied().map(rate).collect() }
}

/// In the terms of the routes.
fn rate(rate: ringpost_conf::Rate) -> Rate {
    Rate { count: rate.count, per: rate.per }
}

/// In the terms of the routes.
fn of_pool(pool: &ringpost_conf::Pool, warmups: &Warmups) -> Pool {
    let members = pool.sources.iter().map(|source| Member {
        address: source.address,
        helo: source.helo.clone(),
        weight: source.weight,
        warmup: source.warmup.as_ref().and_then(|name| warmups.get(name)).cloned(),
    });
    let pick = match pool.select {
        Select::Cycle => Pick::Cycle,
        Select::LeastUsed => Pick::LeastUsed,
        Select::StickySender => Pick::StickySender,
        Select::StickyDomain => Pick::StickyDomain,
    };
    Pool { name: pool.name.clone(), pick, members: members.collect() }
}

/// In the terms of the routes.
fn of_route(shape: &ringpost_conf::Shape, warmups: &Warmups) -> Shape {
    let usual = Shape::default();
    Shape {
        connections: shape.connections.map_or(usual.connections, |count| count.max(1) as usize),
        messages_per_connection: shape.messages_per_connection.map_or(usual.messages_per_connection, u64::from).max(1),
        idle: shape.idle.unwrap_or(usual.idle),
        open_rate: shape.open_rate.map(rate),
        rate: shape.rate.map(rate),
        connections_per_host: shape.connections_per_host.map(|count| count.max(1) as usize),
        connections_per_source: shape.connections_per_source.map(|count| count.max(1) as usize),
        rate_per_source: shape.rate_per_source.map(rate),
        burst: shape.burst,
        recipients: shape.recipients.map(|count| count.max(1) as usize),
        connect_timeout: shape.connect_timeout,
        reply_timeout: shape.reply_timeout,
        only_ipv4: match shape.family {
            Family::Both => None,
            Family::V4 => Some(true),
            Family::V6 => Some(false),
        },
        patience: Patience {
            failures: shape.failures.map_or(usual.patience.failures, |count| count.max(1)),
            pause: shape.pause.unwrap_or(usual.patience.pause),
        },
        warmup: shape.warmup.as_ref().and_then(|name| warmups.get(name)).cloned(),
    }
}
