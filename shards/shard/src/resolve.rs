//! From a recipient's domain, or a relay's hosts, to a site and its addresses; then the ticket goes to the route's owner.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use ringpost_conf::expand::{self, Told};
use ringpost_conf::{ActionKind, Config, Direction, Host as ConfHost, Lookup, Relay, RelayHost, RelayTls, Scheme};
use ringpost_io::{Class, Mesh, Runtime};
use ringpost_queue::Flags;
use ringpost_routes::{Channel, Encryption, Helo, Host, Site};
use ringpost_smtp::client::RemoteReply;

use crate::ask::{Ask, Exchanger, MxAnswer, Question};
use crate::dispatch::Fresh;
use crate::letter::{Delays, Letter, Outcome, Results, Ticket};
use crate::local::Store;
use crate::settings::Settings;
use crate::shard::{Shard, World};
use crate::{limits, lookups, outbound, settle};

/// Forward-paths with the index of their envelope.
type Indexed = Vec<(u16, String)>;

/// What must be asked to reach recipients, and what the connection to those found must be.
type Wanted = Vec<(Question, Channel)>;

/// An answer as routes use it.
pub(crate) enum Resolved {
    /// Hosts, best first.
    Hosts(Arc<[Host]>),
    /// No delivery for now, or ever.
    Refused(Outcome),
}

/// Finds the routes of some recipients of a message and hands them over. Known answers are used at once; otherwise a task
/// waits for tables and the coordinator.
pub(crate) fn route<W: World>(
    shard: &Rc<Shard<W>>,
    settings: &Rc<Settings>,
    fresh: &Rc<Fresh>,
    action: usize,
    recipients: &[(u16, &str)],
) {
    let ActionKind::Relay(relay) = &settings.config.actions[action].kind else { return };
    let plan = Plan::new(settings, relay, action, &fresh.sender);
    let recipients: Indexed = recipients.iter().map(|(index, recipient)| (*index, (*recipient).to_owned())).collect();
    if relay.is_near() {
        return head(shard, settings, fresh, relay, &plan, recipients, &HashMap::new());
    }
    let (task_shard, settings, fresh) = (shard.clone(), settings.clone(), fresh.clone());
    shard.spawn_counted(Class::Delivery, async move {
        let ActionKind::Relay(relay) = &settings.config.actions[action].kind else { return };
        let domains: BTreeSet<String> =
            recipients.iter().map(|(_, recipient)| Direction::domain_of(recipient)).collect();
        let mut questions: Vec<Lookup> = domains.iter().flat_map(|domain| relay.questions(domain)).collect();
        let mut seen = HashSet::new();
        questions.retain(|question| seen.insert(question.clone()));
        let questions = questions.into_iter().map(expand::Question::Lookup).collect();
        let deadline = task_shard.runtime.now() + limits::DIRECTION;
        let answers = lookups::all(&task_shard, &settings.config, questions, deadline).await;
        head(&task_shard, &settings, &fresh, relay, &plan, recipients, &answers.into_iter().collect());
    });
}

/// Groups recipients by what must be asked to reach them, now that the tables have been.
fn head<W: World>(
    shard: &Rc<Shard<W>>,
    settings: &Rc<Settings>,
    fresh: &Rc<Fresh>,
    relay: &Relay,
    plan: &Plan,
    recipients: Indexed,
    told: &HashMap<expand::Question, Told>,
) {
    let look = |lookup: &Lookup| told.get(&expand::Question::Lookup(lookup.clone())).cloned();
    let mut wanted: BTreeMap<(Wanted, Vec<IpAddr>), Indexed> = BTreeMap::new();
    for (index, recipient) in recipients {
        let domain = Direction::domain_of(&recipient);
        match relay.direction(&settings.config, &domain, &look) {
            Ok(Direction { hosts, sources }) => {
                let questions = questions(&settings.config, relay.tls, &hosts, domain);
                wanted.entry((questions, sources.into_owned())).or_default().push((index, recipient));
            }
            Err(why) => {
                let outcome = Outcome::Transient(RemoteReply::local(451, (4, 3, 0), &why));
                refuse(shard, fresh, &[(index, recipient)], &outcome);
            }
        }
    }
    let mut by_site: BTreeMap<Site, (Arc<[Host]>, Indexed)> = BTreeMap::new();
    for ((questions, sources), recipients) in wanted {
        let now = shard.runtime.now();
        let known = questions.iter().map(|(question, channel)| Some((shard.cache.get(now, question)?, *channel)));
        let known: Option<Vec<(Rc<Resolved>, Channel)>> = known.collect();
        match known {
            Some(answers) => match combine(&answers) {
                Resolved::Hosts(hosts) => {
                    let site = Site::new(&hosts, &sources, plan.helo.clone());
                    by_site.entry(site).or_insert_with(|| (hosts, Vec::new())).1.extend(recipients);
                }
                Resolved::Refused(outcome) => refuse(shard, fresh, &recipients, &outcome),
            },
            None => {
                let (task_shard, fresh, plan) = (shard.clone(), fresh.clone(), plan.clone());
                shard.spawn_counted(Class::Delivery, async move {
                    ask_and_send(&task_shard, &fresh, &plan, questions, &sources, recipients).await;
                });
            }
        }
    }
    for (site, (hosts, recipients)) in by_site {
        send(shard, fresh, plan, site, hosts, recipients);
    }
}

/// What the action says beside hosts and sources.
#[derive(Clone)]
struct Plan {
    helo: Helo,
    /// The reverse-path that is told.
    sender: String,
}

impl Plan {
    fn new(settings: &Settings, relay: &Relay, action: usize, sender: &str) -> Self {
        let helo = match relay.helo_by_source {
            Some(_) => {
                let first = settings.outlines.canonical(action);
                Helo::BySource { action: settings.outlines.reference(first).to_owned() }
            }
            None => Helo::Name(relay.helo.clone().unwrap_or_else(|| settings.hostname.clone())),
        };
        Self { helo, sender: relay.reverse_path(sender).into_owned() }
    }
}

/// One question for each host that is named, or one for the domain's mail exchangers.
fn questions(config: &Config, tls: RelayTls, hosts: &[RelayHost], domain: String) -> Wanted {
    let channel = |scheme| channel(config, tls, scheme);
    if hosts.is_empty() {
        return vec![(Question::Exchangers(domain, config.mx_port()), channel(Scheme::Opportunistic))];
    }
    let questions = hosts.iter().map(|relay| {
        let question = match &relay.host {
            ConfHost::Address(address) => Question::Addresses(address.to_string(), relay.port),
            ConfHost::Name(name) => Question::Addresses(name.to_string(), relay.port),
            ConfHost::Mx(domain) => Question::RelayExchangers(domain.to_string(), relay.port),
            // Of LMTP alone, with which a server does not start yet (`Config::not_yet`).
            ConfHost::Socket(path) => Question::Addresses(path.display().to_string(), relay.port),
        };
        (question, channel(relay.scheme))
    });
    questions.collect()
}

/// What a relay action and the URL of a host demand together. What the URL demands is never less for what the action says,
/// but that `tls no-verify` spares the certificate.
fn channel(config: &Config, tls: RelayTls, scheme: Scheme) -> Channel {
    let encryption = match scheme {
        Scheme::Plain | Scheme::Lmtp => return Channel { encryption: Encryption::Never, verify: false },
        Scheme::Opportunistic if tls == RelayTls::Opportunistic => return Channel::default(),
        Scheme::Opportunistic | Scheme::StartTls => Encryption::StartTls,
        Scheme::Smtps => Encryption::Implicit,
        Scheme::StartTlsOrSmtps => Encryption::StartTlsOrImplicit { port: config.smtps_port() },
    };
    Channel { encryption, verify: tls != RelayTls::Encrypted }
}

async fn ask_and_send<W: World>(
    shard: &Rc<Shard<W>>,
    fresh: &Rc<Fresh>,
    plan: &Plan,
    questions: Wanted,
    sources: &[IpAddr],
    recipients: Indexed,
) {
    let mut answers = Vec::new();
    for (question, channel) in questions {
        let known = shard.cache.get(shard.runtime.now(), &question);
        let answer = match known {
            Some(known) => known,
            None => ask(shard, question).await,
        };
        answers.push((answer, channel));
    }
    match combine(&answers) {
        Resolved::Hosts(hosts) => {
            let site = Site::new(&hosts, sources, plan.helo.clone());
            send(shard, fresh, plan, site, hosts, recipients);
        }
        Resolved::Refused(outcome) => refuse(shard, fresh, &recipients, &outcome),
    }
}

/// Where a mail store of this name is, for LMTP.
///
/// # Errors
/// It cannot be known now; the host is the administrator's, so that is temporary.
pub(crate) async fn store<W: World>(shard: &Rc<Shard<W>>, host: &str, port: u16) -> Result<Store, Outcome> {
    let question = Question::Addresses(host.to_owned(), port);
    let known = shard.cache.get(shard.runtime.now(), &question);
    let resolved = match known {
        Some(known) => known,
        None => ask(shard, question).await,
    };
    match &*resolved {
        Resolved::Hosts(hosts) => match hosts.iter().flat_map(|host| &host.addresses).next() {
            Some(address) => Ok(Store::Address(*address)),
            None => {
                let reply = RemoteReply::local(451, (4, 4, 4), "the mail store's host has no address");
                Err(Outcome::Transient(reply))
            }
        },
        Resolved::Refused(outcome) => Err(outcome.clone()),
    }
}

async fn ask<W: World>(shard: &Rc<Shard<W>>, question: Question) -> Rc<Resolved> {
    // The administrator named the host.
    let fixed = !matches!(question, Question::Exchangers(..));
    let (answer, port) = match &question {
        Question::Exchangers(domain, port) | Question::RelayExchangers(domain, port) => match literal(domain) {
            Some(address) => (one_address(domain, address), *port),
            None => (shard.ask.exchangers(domain).await, *port),
        },
        Question::Addresses(name, port) => match name.parse() {
            Ok(address) => (one_address(name, address), *port),
            Err(_) => (shard.ask.addresses(name).await, *port),
        },
    };
    let ttl = match &answer {
        MxAnswer::Hosts { ttl, .. } => (*ttl).clamp(limits::DNS_TTL_MIN, limits::DNS_TTL_MAX),
        MxAnswer::NullMx | MxAnswer::NoSuchDomain => limits::DNS_NEGATIVE_TTL,
        MxAnswer::Temporary(_) => limits::DNS_FAILURE_TTL,
    };
    let resolved = Rc::new(understand(answer, port, fixed, &shard.hostname, shard.runtime.random_u64()));
    shard.cache.keep(shard.runtime.now(), question, resolved.clone(), ttl);
    resolved
}

/// `[192.0.2.1]` and `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
fn literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    inner.strip_prefix("ipv6:").unwrap_or(inner).parse().ok()
}

fn one_address(name: &str, address: IpAddr) -> MxAnswer {
    let host = Exchanger { preference: 0, name: name.to_owned(), addresses: vec![address] };
    MxAnswer::Hosts { hosts: vec![host], ttl: limits::DNS_TTL_MAX }
}

fn understand(answer: MxAnswer, port: u16, fixed: bool, hostname: &str, seed: u64) -> Resolved {
    let refused = |permanent: bool, status: (u8, u16, u16), text: &str| {
        let code = if permanent { 550 } else { 451 };
        let reply = RemoteReply::local(code, status, text);
        Resolved::Refused(if permanent { Outcome::Permanent(reply) } else { Outcome::Transient(reply) })
    };
    match answer {
        // The administrator named this host: his slip must not bounce his mail.
        MxAnswer::NoSuchDomain | MxAnswer::NullMx if fixed => {
            refused(false, (4, 4, 4), "the relay host has no address")
        }
        MxAnswer::NoSuchDomain => refused(true, (5, 1, 2), "the recipient's domain does not exist or has no address"),
        MxAnswer::NullMx => refused(true, (5, 1, 10), "the recipient's domain takes no mail (null MX)"),
        MxAnswer::Temporary(why) => refused(false, (4, 4, 3), &format!("DNS lookup failed: {why}")),
        MxAnswer::Hosts { mut hosts, .. } => {
            // Equal preferences are spread at random, RFC 5321 §5.1.
            hosts.sort_by_cached_key(|host| (host.preference, mix(seed, &host.name)));
            // What points to ourselves, and all that is not better, would come back to us.
            if let Some(own) = hosts.iter().find(|host| !fixed && host.name.eq_ignore_ascii_case(hostname)) {
                let preference = own.preference;
                hosts.retain(|host| host.preference < preference);
                if hosts.is_empty() {
                    return refused(
                        true,
                        (5, 4, 6),
                        "the best mail exchanger of the domain is this server, which has no mailbox for it",
                    );
                }
            }
            let hosts = hosts.into_iter().map(|host| Host {
                preference: host.preference,
                name: host.name,
                addresses: host.addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect(),
                channel: Channel::default(),
            });
            Resolved::Hosts(hosts.filter(|host| !host.addresses.is_empty()).collect())
        }
    }
}

fn mix(seed: u64, name: &str) -> u64 {
    name.bytes()
        .fold(seed | 1, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17))
}

/// Several relay hosts are equals, and take turns; one that cannot be resolved is left out while another can.
fn combine(answers: &[(Rc<Resolved>, Channel)]) -> Resolved {
    // As most are, and then nothing is copied.
    if let [(only, channel)] = answers
        && *channel == Channel::default()
    {
        return match &**only {
            Resolved::Hosts(hosts) => Resolved::Hosts(hosts.clone()),
            Resolved::Refused(outcome) => Resolved::Refused(outcome.clone()),
        };
    }
    let mut hosts = Vec::new();
    let mut refused = None;
    for (answer, channel) in answers {
        match &**answer {
            Resolved::Hosts(more) => hosts.extend(more.iter().map(|host| Host { channel: *channel, ..host.clone() })),
            Resolved::Refused(outcome) => refused = Some(outcome.clone()),
        }
    }
    // Those of `mx:NAME` keep the preferences that the DNS gives them; all others have none.
    hosts.sort_by_key(|host| host.preference);
    match refused {
        Some(outcome) if hosts.is_empty() => Resolved::Refused(outcome),
        _ => Resolved::Hosts(hosts.into()),
    }
}

fn refuse<W: World>(shard: &Rc<Shard<W>>, fresh: &Fresh, recipients: &[(u16, String)], outcome: &Outcome) {
    let recipients = recipients.iter().map(|(index, _)| (*index, outcome.clone())).collect();
    let results =
        Results { message: fresh.id.0, recipients, remote: "none".into(), link: None, delays: Delays::default() };
    settle::settle(shard, results);
}

/// Makes tickets, each with at most as many recipients as any server must take (RFC 5321 §4.5.3.1.8).
fn send<W: World>(
    shard: &Rc<Shard<W>>,
    fresh: &Fresh,
    plan: &Plan,
    site: Site,
    hosts: Arc<[Host]>,
    mut recipients: Indexed,
) {
    let owner = site.owner(shard.mesh.peers());
    let ready = shard.runtime.now();
    while !recipients.is_empty() {
        let rest = recipients.split_off(recipients.len().min(limits::RECIPIENTS_PER_TICKET));
        let ticket = Box::new(Ticket {
            home: shard.me(),
            message: fresh.id.0,
            sender: plan.sender.clone(),
            recipients,
            site: site.clone(),
            hosts: hosts.clone(),
            body_bytes: fresh.body_bytes,
            body: fresh.body.clone(),
            eightbit: fresh.flags.contains(Flags::EIGHTBIT),
            smtputf8: fresh.flags.contains(Flags::SMTPUTF8),
            ready,
        });
        recipients = rest;
        if owner == shard.me() {
            outbound::take_ticket(shard, ticket);
        } else {
            shard.outbox.post(owner, Letter::Ticket(ticket));
        }
    }
}
