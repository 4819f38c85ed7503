//! From a recipient's domain, or a relay's hosts, to a site and its addresses; then the ticket goes to the route's owner.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringpost_conf::expand::{self, Told};
use ringpost_conf::{ActionKind, Config, Direction, Host as ConfHost, Lookup, Relay, RelayHost, RelayTls, Scheme};
use ringpost_io::{Class, Mesh, Runtime};
use ringpost_queue::Flags;
use ringpost_routes::{Channel, Encryption, Helo, Host, Pick, Pool, Site, Speech, sender_key};
use ringpost_smtp::client::RemoteReply;
use ringpost_smtp::dsn::Ret;

use crate::ask::{Ask, Dane, Exchanger, MxAnswer, Policy, Question};
use crate::dispatch::{self, Fresh};
use crate::event::Event;
use crate::exchangers::{Ground, Unfit};
use crate::letter::{Delays, Letter, Outcome, Results, Ticket};
use crate::local::Store;
use crate::reason::Progress;
use crate::settings::{Settings, Shaped};
use crate::shard::{Shard, World};
use crate::stock::Place;
use crate::vouch::{self, Barred, Care, Wish};
use crate::{backup, limits, lookups, outbound, reason, reverse_path, settle};

/// Forward-paths with the index of their envelope.
type Indexed = Vec<(u16, String)>;

/// What must be asked to reach recipients, and how those found are spoken to.
type Wanted = Vec<(Question, Manner)>;

/// What a connection must be, and what is spoken on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Manner {
    channel: Channel,
    speech: Speech,
}

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
    let indexed = |recipients: &[(u16, &str)]| -> Indexed {
        recipients.iter().map(|(index, recipient)| (*index, (*recipient).to_owned())).collect()
    };
    if !reverse_path::differs(relay, fresh.flags) {
        let plan = Plan::new(settings, relay, action, relay.reverse_path(&fresh.sender).into_owned(), &fresh.sender);
        return by_plan(shard, settings, fresh, action, plan, indexed(recipients));
    }
    let message = reverse_path::Message { sender: &fresh.sender, flags: fresh.flags, received_ms: fresh.received_ms };
    let mut by_sender: BTreeMap<String, Vec<(u16, &str)>> = BTreeMap::new();
    for envelope in fresh.envelopes.iter() {
        // Both are in the order of their indexes.
        let Ok(at) = recipients.binary_search_by_key(&envelope.index, |(index, _)| *index) else { continue };
        let sender = reverse_path::of(settings, relay, message, envelope);
        by_sender.entry(sender).or_default().push(recipients[at]);
    }
    for (sender, recipients) in by_sender {
        let plan = Plan::new(settings, relay, action, sender, &fresh.sender);
        by_plan(shard, settings, fresh, action, plan, indexed(&recipients));
    }
}

fn by_plan<W: World>(
    shard: &Rc<Shard<W>>,
    settings: &Rc<Settings>,
    fresh: &Rc<Fresh>,
    action: usize,
    plan: Plan,
    recipients: Indexed,
) {
    let ActionKind::Relay(relay) = &settings.config.actions[action].kind else { return };
    if relay.is_near() {
        return head(shard, settings, fresh, relay, &plan, recipients, &HashMap::new());
    }
    let (task_shard, settings, fresh) = (shard.clone(), settings.clone(), fresh.clone());
    reason::mark(shard, fresh.id, recipients.iter().map(|(index, _)| *index), Progress::Tables, None);
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
    let wish = Wish::of(fresh.flags);
    let mut wanted: BTreeMap<(Wanted, Vec<IpAddr>, String), Indexed> = BTreeMap::new();
    let tells_domains = settings.shapes_domains() || plan.keeps_domains();
    for (index, recipient) in recipients {
        let domain = Direction::domain_of(&recipient);
        match relay.direction(&settings.config, &domain, &look) {
            Ok(Direction { hosts, .. }) if wish == Wish::Tls && hosts.iter().any(|host| is_clear(host.scheme)) => {
                let why = "the message requires TLS all the way, and its way here has a host without";
                let outcome = Outcome::Permanent(RemoteReply::local(550, (5, 7, 30), why));
                refuse(shard, fresh, &[(index, recipient)], &outcome);
            }
            Ok(Direction { hosts, sources, .. }) => {
                let apart = if tells_domains { domain.clone() } else { String::new() };
                let questions = questions(&settings.config, relay, wish, &hosts, domain);
                wanted.entry((questions, sources.into_owned(), apart)).or_default().push((index, recipient));
            }
            Err(why) => {
                let outcome = Outcome::Transient(RemoteReply::local(451, (4, 3, 0), &why));
                refuse(shard, fresh, &[(index, recipient)], &outcome);
            }
        }
    }
    let mut by_site: BTreeMap<Site, (Way, Indexed)> = BTreeMap::new();
    for ((questions, sources, domain), recipients) in wanted {
        match at_once(shard, settings, plan, questions, &sources, &domain) {
            Found::Way(site, way) => by_site.entry(site).or_insert_with(|| (way, Vec::new())).1.extend(recipients),
            Found::Refused(outcome) => refuse(shard, fresh, &recipients, &outcome),
            Found::Unknown(questions) => {
                let now = shard.runtime.now();
                let (task_shard, settings, fresh, plan) =
                    (shard.clone(), settings.clone(), fresh.clone(), plan.clone());
                reason::mark(shard, fresh.id, recipients.iter().map(|(index, _)| *index), Progress::Names, Some(now));
                shard.spawn_counted(Class::Delivery, async move {
                    let asked = (questions, &sources[..], &domain[..]);
                    ask_and_send(&task_shard, &settings, &fresh, &plan, asked, recipients).await;
                });
            }
        }
    }
    for (site, (way, recipients)) in by_site {
        send(shard, fresh, plan, site, way, recipients);
    }
}

/// What comes of the answers that are known.
enum Found {
    Way(Site, Way),
    Refused(Outcome),
    /// These are to be asked.
    Unknown(Wanted),
}

fn at_once<W: World>(
    shard: &Shard<W>,
    settings: &Settings,
    plan: &Plan,
    mut questions: Wanted,
    sources: &[IpAddr],
    domain: &str,
) -> Found {
    let now = shard.runtime.now();
    loop {
        let known = questions.iter().map(|(question, manner)| Some((shard.cache.get(now, question)?, manner.clone())));
        let Some(answers) = known.collect::<Option<Vec<_>>>() else { return Found::Unknown(questions) };
        match combine(&answers) {
            Resolved::Hosts(hosts) => {
                let (site, way) = plan.way(settings, domain, hosts, sources);
                let Some(more) = way.asks_more(&questions) else { return Found::Way(site, way) };
                questions = more;
            }
            Resolved::Refused(outcome) => return Found::Refused(outcome),
        }
    }
}

/// How mail gets to a site.
struct Way {
    hosts: Arc<[Host]>,
    shaped: Shaped,
}

impl Way {
    /// The same questions with DNSSEC's word about whatever is not in clear, if the shape of the hosts wants that (`tls dane`)
    /// and they were asked for without.
    fn asks_more(&self, questions: &Wanted) -> Option<Wanted> {
        if self.shaped.tls != Some(RelayTls::Dane) {
            return None;
        }
        let is_enough = |(question, manner): &(Question, Manner)| {
            manner.channel.encryption == Encryption::Never || question.parts().2 == Care::Dnssec
        };
        let vouched = |one: &(Question, Manner)| {
            if is_enough(one) {
                return one.clone();
            }
            let (question, Manner { channel, speech }) = one;
            let channel = match vouch::at_least(*channel, RelayTls::Dane) {
                // Records are for one port (RFC 7672 §2.2.3).
                Channel { encryption: Encryption::StartTlsOrImplicit { .. }, verify } => {
                    Channel { encryption: Encryption::StartTls, verify }
                }
                channel => channel,
            };
            (question.vouched_by(Care::Dnssec), Manner { channel, speech: speech.clone() })
        };
        let all = questions.iter();
        (!all.clone().all(is_enough)).then(|| all.map(vouched).collect())
    }
}

/// What the action says beside hosts and sources.
#[derive(Clone)]
struct Plan {
    helo: Helo,
    /// Where labels are looked up.
    login: Option<String>,
    /// The reverse-path that is told.
    sender: String,
    /// The pool that the sources are of, and the key of the sender that the message came with.
    pool: Option<(Arc<Pool>, u64)>,
    /// What connections are encrypted with, if that is not the usual.
    terms: String,
    /// `shaping NAME`.
    shaping: Option<String>,
    /// Number of the action, and the configuration that it is of.
    action: usize,
    settings: Rc<Settings>,
}

impl Plan {
    fn new(settings: &Rc<Settings>, relay: &Relay, action: usize, sender: String, original: &str) -> Self {
        let first = || settings.outlines.reference(settings.outlines.canonical(action)).to_owned();
        let helo = match relay.helo_by_source {
            Some(_) => Helo::BySource { action: first() },
            None => Helo::Name(relay.helo.clone().unwrap_or_else(|| settings.hostname.clone())),
        };
        let login = relay.auth.is_some().then(first);
        let pool = relay.pool.as_ref().and_then(|name| settings.pools.get(name));
        let pool = pool.map(|pool| (pool.clone(), Pool::key(original)));
        let (terms, settings) = (relay.terms(), settings.clone());
        Self { helo, login, sender, pool, terms, shaping: relay.shaping.clone(), action, settings }
    }

    /// The site that hosts make for mail to this domain, and the way there.
    fn way(&self, settings: &Settings, domain: &str, hosts: Arc<[Host]>, sources: &[IpAddr]) -> (Site, Way) {
        let (shaped, apart) = settings.shape(self.shaping.as_deref(), domain, &hosts);
        let hosts = match shaped.tls {
            None => hosts,
            Some(tls) => {
                let raised = |host: &Host| Host { channel: vouch::at_least(host.channel, tls), ..host.clone() };
                hosts.iter().map(raised).collect()
            }
        };
        let mut site = self.site(&hosts, sources).shaped(apart);
        if let Some((pool, sender)) = &self.pool {
            let pinned = match pool.pick {
                Pick::Cycle | Pick::LeastUsed => Vec::new(),
                Pick::StickySender => pool.pinned(*sender),
                Pick::StickyDomain => pool.pinned(Pool::key(domain)),
            };
            site = site.of_pool(pool.clone(), pinned);
        }
        let hosts = match shaped.shape.only_ipv4 {
            None => hosts,
            Some(ipv4) => {
                let addresses = |host: &Host| host.addresses.iter().copied().filter(|a| a.is_ipv4() == ipv4).collect();
                hosts.iter().map(|host| Host { addresses: addresses(host), ..host.clone() }).collect()
            }
        };
        (site, Way { hosts, shaped })
    }

    /// See [`dispatch::expiry_ms`].
    fn expiry_ms(&self, recipient: &str, received_ms: u64) -> u64 {
        dispatch::expiry_ms(&self.settings, Some(self.action), recipient, received_ms)
    }

    /// Whether mail to two domains over the same hosts may leave from two addresses.
    fn keeps_domains(&self) -> bool {
        self.pool.as_ref().is_some_and(|(pool, _)| pool.pick == Pick::StickyDomain)
    }

    fn site(&self, hosts: &[Host], sources: &[IpAddr]) -> Site {
        let site = Site::new(hosts, sources, self.helo.clone()).on(&self.terms);
        match &self.login {
            Some(action) if hosts.iter().any(|host| host.speech.label().is_some()) => site.logging_in(action.clone()),
            _ => site,
        }
    }
}

/// One question for each host that is named, or one for the domain's mail exchangers.
fn questions(config: &Config, relay: &Relay, wish: Wish, hosts: &[RelayHost], domain: String) -> Wanted {
    let care = |scheme, by_mx| care(relay.tls, wish, scheme, by_mx);
    let tls = match relay.tls {
        RelayTls::Opportunistic | RelayTls::Encrypted if wish == Wish::Tls => RelayTls::Verified,
        tls => tls,
    };
    let channel = |scheme| channel(config, tls, scheme);
    if hosts.is_empty() {
        let manner = Manner { channel: channel(Scheme::Opportunistic), speech: Speech::Smtp };
        let (port, care) = (config.mx_port(), care(Scheme::Opportunistic, true));
        let question = match &relay.backup {
            Some(than) => Question::Better { domain, port, care, than: than.to_ascii_lowercase() },
            None => Question::Exchangers(domain, port, care),
        };
        return vec![(question, manner)];
    }
    let questions = hosts.iter().map(|relay| {
        let named = care(relay.scheme, false);
        let question = match &relay.host {
            ConfHost::Address(address) => Question::Addresses(address.to_string(), relay.port, named),
            ConfHost::Name(name) => Question::Addresses(name.to_string(), relay.port, named),
            ConfHost::Mx(domain) => Question::RelayExchangers(domain.to_string(), relay.port, care(relay.scheme, true)),
            ConfHost::Socket(path) => Question::Socket(path.clone()),
        };
        (question, Manner { channel: channel(relay.scheme), speech: speech(relay) })
    });
    questions.collect()
}

/// Who must vouch for the hosts that an action and a URL lead to: names that the DNS alone has given need it more than those
/// that the administrator has.
fn care(tls: RelayTls, wish: Wish, scheme: Scheme, by_mx: bool) -> Care {
    match (tls, scheme) {
        _ if is_clear(scheme) => Care::Nobody,
        (RelayTls::Dane, _) => Care::Dnssec,
        _ if by_mx && wish == Wish::Tls => Care::Somebody,
        (RelayTls::Opportunistic, Scheme::Opportunistic) if by_mx && wish == Wish::Nothing => Care::Whoever,
        _ => Care::Nobody,
    }
}

/// Whether nothing is ever encrypted over it.
fn is_clear(scheme: Scheme) -> bool {
    matches!(scheme, Scheme::Plain | Scheme::Lmtp)
}

fn speech(relay: &RelayHost) -> Speech {
    match (relay.scheme, &relay.host, &relay.label) {
        (Scheme::Lmtp, ConfHost::Socket(path), _) => Speech::LmtpAt(path.as_path().into()),
        (Scheme::Lmtp, ..) => Speech::Lmtp,
        (_, _, Some(label)) => Speech::SmtpAs(label.as_str().into()),
        (_, _, None) => Speech::Smtp,
    }
}

/// What a relay action and the URL of a host demand together. What the URL demands is never less for what the action says,
/// but that `tls no-verify` spares the certificate.
fn channel(config: &Config, tls: RelayTls, scheme: Scheme) -> Channel {
    let encryption = match scheme {
        Scheme::Plain | Scheme::Lmtp => return Channel { encryption: Encryption::Never, verify: false },
        Scheme::Opportunistic if tls == RelayTls::Opportunistic => return Channel::default(),
        Scheme::Opportunistic | Scheme::StartTls => Encryption::StartTls,
        Scheme::Smtps => Encryption::Implicit,
        // Records are for one port (RFC 7672 §2.2.3).
        Scheme::StartTlsOrSmtps if tls == RelayTls::Dane => Encryption::StartTls,
        Scheme::StartTlsOrSmtps => Encryption::StartTlsOrImplicit { port: config.smtps_port() },
    };
    Channel { encryption, verify: tls != RelayTls::Encrypted }
}

async fn ask_and_send<W: World>(
    shard: &Rc<Shard<W>>,
    settings: &Settings,
    fresh: &Rc<Fresh>,
    plan: &Plan,
    (mut questions, sources, domain): (Wanted, &[IpAddr], &str),
    recipients: Indexed,
) {
    let began = shard.runtime.now();
    loop {
        let mut answers = Vec::new();
        for (question, manner) in &questions {
            let known = shard.cache.get(shard.runtime.now(), question);
            let answer = match known {
                Some(known) => known,
                None => ask(shard, question.clone()).await,
            };
            answers.push((answer, manner.clone()));
        }
        match combine(&answers) {
            Resolved::Hosts(hosts) => {
                let (site, way) = plan.way(settings, domain, hosts, sources);
                let Some(more) = way.asks_more(&questions) else {
                    let took = shard.runtime.now() - began;
                    let recipients = match took < limits::LAST_ATTEMPT {
                        true => recipients,
                        false => still_in_time(shard, fresh, plan, recipients),
                    };
                    return send(shard, fresh, plan, site, way, recipients);
                };
                questions = more;
            }
            Resolved::Refused(outcome) => return refuse(shard, fresh, &recipients, &outcome),
        }
    }
}

/// Those recipients whose time is not over; the others have had their last attempt, and it has ended in the DNS.
fn still_in_time<W: World>(shard: &Rc<Shard<W>>, fresh: &Fresh, plan: &Plan, recipients: Indexed) -> Indexed {
    let now_ms = shard.runtime.unix_ms();
    let (late, rest): (Indexed, Indexed) = recipients
        .into_iter()
        .partition(|(_, recipient)| dispatch::until_ms(plan.expiry_ms(recipient, fresh.received_ms)) <= now_ms);
    if !late.is_empty() {
        refuse(shard, fresh, &late, &Outcome::Untried);
    }
    rest
}

/// Where a mail store of this name is, for LMTP.
///
/// # Errors
/// It cannot be known now; the host is the administrator's, so that is temporary.
pub(crate) async fn store<W: World>(shard: &Rc<Shard<W>>, host: &str, port: u16) -> Result<Store, Outcome> {
    let question = Question::Addresses(host.to_owned(), port, Care::Nobody);
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
    let (name, port, care) = question.parts();
    let tlsa_port = (care != Care::Nobody).then_some(port);
    let address = match &question {
        Question::Addresses(name, ..) => name.parse().ok(),
        // It has no address; nobody connects to the one that stands here.
        Question::Socket(_) => Some(IpAddr::from([0, 0, 0, 0])),
        _ => literal(&name),
    };
    let answer = match (&question, address) {
        (_, Some(address)) => one_address(&name, address),
        (Question::Addresses(..), None) => shard.ask.addresses(&name, tlsa_port).await,
        (_, None) => shard.ask.exchangers(&name, tlsa_port).await,
    };
    let policy = match (&question, &answer) {
        // RFC 8461 §2: where DNSSEC speaks, the policy is silent.
        (Question::Exchangers(..) | Question::Better { .. }, MxAnswer::Hosts { hosts, .. })
            if matches!(care, Care::Whoever | Care::Somebody)
                && address.is_none()
                && !hosts.iter().all(|host| matches!(host.dane, Dane::Records(_))) =>
        {
            shard.ask.policy(&name).await
        }
        _ => None,
    };
    if let MxAnswer::Hosts { hosts, .. } = &answer {
        for host in hosts {
            let held = vouch::held(care, &name, host, policy.as_ref());
            if let (Some(held), Some(fault)) = (held, vouch::fault(host, policy.as_ref())) {
                let (domain, kind) = (&*held.domain, held.kind);
                let event = Event::Held { domain, kind, host: &host.name, addresses: None, failure: Some(fault) };
                (shard.events)(&event);
            }
        }
    }
    let answer = match &question {
        Question::Better { domain, than, .. } => backup::better(answer, than).map_err(|odd| {
            backup::tell(shard, domain, than, odd);
            Resolved::Refused(Outcome::Transient(RemoteReply::local(451, (4, 4, 4), odd.text(than))))
        }),
        _ => Ok(answer),
    };
    let answer = match (answer, &question) {
        // Names that the DNS alone has given.
        (Ok(answer), Question::Exchangers(..) | Question::Better { .. }) => sift(shard, answer, port),
        (answer, _) => answer,
    };
    let ttl = match &answer {
        Ok(MxAnswer::Hosts { ttl, .. }) => (*ttl).clamp(limits::DNS_TTL_MIN, limits::DNS_TTL_MAX),
        Ok(MxAnswer::NullMx | MxAnswer::NoSuchDomain) | Err(_) => limits::DNS_NEGATIVE_TTL,
        Ok(MxAnswer::Temporary(_)) => limits::DNS_FAILURE_TTL,
    };
    let seed = shard.runtime.random_u64();
    let resolved = match answer {
        Ok(answer) => understand(answer, &question, policy.as_ref(), seed),
        Err(refused) => refused,
    };
    let resolved = Rc::new(resolved);
    shard.cache.keep(shard.runtime.now(), question, resolved.clone(), ttl);
    resolved
}

/// Without exchangers that mail must not go to.
fn sift<W: World>(shard: &Shard<W>, answer: MxAnswer, port: u16) -> Result<MxAnswer, Resolved> {
    let settings = shard.settings();
    let (config, hostname) = (&*settings.config, &*shard.hostname);
    let inner = config.machinery.inner(shard.ask.names_are_strangers());
    Ground { config, hostname, inner }.sift(answer, port).map_err(|unfit| {
        if let Unfit::Inner { host, address } = &unfit
            && shard.told.admit(SocketAddr::new(*address, port), "exchangers", "", shard.runtime.now()).is_some()
        {
            shard.warn(&format!(
                "relay: the mail exchanger {host}[{address}] has no public address; where that is right, \
                 `mta allow-exchangers` has to name its network"
            ));
        }
        Resolved::Refused(unfit.outcome())
    })
}

/// `[192.0.2.1]` and `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
fn literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    inner.strip_prefix("ipv6:").unwrap_or(inner).parse().ok()
}

fn one_address(name: &str, address: IpAddr) -> MxAnswer {
    let dane = Dane::Insecure("an address");
    let host = Exchanger { preference: 0, name: name.to_owned(), addresses: vec![address], dane };
    MxAnswer::Hosts { hosts: vec![host], ttl: limits::DNS_TTL_MAX, missing: None }
}

fn understand(answer: MxAnswer, question: &Question, policy: Option<&Policy>, seed: u64) -> Resolved {
    let (name, port, care) = question.parts();
    // The administrator named the host.
    let fixed = !matches!(question, Question::Exchangers(..) | Question::Better { .. });
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
            let (mut usable, mut barred) = (Vec::new(), None);
            for host in hosts.into_iter().filter(|host| !host.addresses.is_empty()) {
                let held = vouch::held(care, &name, &host, policy).filter(|_| vouch::fault(&host, policy).is_none());
                match vouch::demand(care, &name, &host, policy) {
                    Ok((channel, tlsa)) => usable.push(Host {
                        preference: host.preference,
                        name: host.name,
                        addresses: host.addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect(),
                        channel,
                        tlsa,
                        held: held.map(Arc::new),
                        speech: Speech::Smtp,
                    }),
                    Err(why) => barred = barred.or(Some(why)),
                }
            }
            match barred {
                Some(Barred::Now(why)) if usable.is_empty() => refused(false, (4, 7, 5), &why),
                Some(Barred::Unproven(why)) if usable.is_empty() => refused(true, (5, 7, 30), &why),
                _ => Resolved::Hosts(usable.into()),
            }
        }
    }
}

fn mix(seed: u64, name: &str) -> u64 {
    name.bytes()
        .fold(seed | 1, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17))
}

/// Several relay hosts are equals, and take turns; one that cannot be resolved is left out while another can.
fn combine(answers: &[(Rc<Resolved>, Manner)]) -> Resolved {
    // As most are, and then nothing is copied.
    if let [(only, manner)] = answers
        && *manner == Manner::default()
    {
        return match &**only {
            Resolved::Hosts(hosts) => Resolved::Hosts(hosts.clone()),
            Resolved::Refused(outcome) => Resolved::Refused(outcome.clone()),
        };
    }
    let mut hosts = Vec::new();
    let mut refused = None;
    for (answer, Manner { channel, speech }) in answers {
        match &**answer {
            // What nobody demands here may be what somebody vouches for.
            Resolved::Hosts(more) if *channel == Channel::default() => {
                hosts.extend(more.iter().map(|host| Host { speech: speech.clone(), ..host.clone() }));
            }
            Resolved::Hosts(more) => {
                let ours = more.iter().map(|host| Host { channel: *channel, speech: speech.clone(), ..host.clone() });
                hosts.extend(ours);
            }
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
    let results = Results {
        message: fresh.id.0,
        recipients,
        remote: "none".into(),
        site: None,
        link: None,
        delays: Delays::default(),
        taken: None,
    };
    settle::settle(shard, results);
}

/// Makes tickets, each with at most as many recipients as any server must take (RFC 5321 §4.5.3.1.8).
fn send<W: World>(shard: &Rc<Shard<W>>, fresh: &Fresh, plan: &Plan, site: Site, way: Way, mut recipients: Indexed) {
    let owner = site.owner(shard.mesh.peers());
    let ready = shard.runtime.now();
    let now_ms = shard.runtime.unix_ms();
    let sender = sender_key(&fresh.sender, fresh.flags.priority());
    let most = way.shaped.shape.recipients.unwrap_or(usize::MAX).min(limits::RECIPIENTS_PER_TICKET);
    while !recipients.is_empty() {
        let rest = recipients.split_off(recipients.len().min(most));
        let expiry = |(_, recipient): &(u16, String)| plan.expiry_ms(recipient, fresh.received_ms);
        let expiry_ms = recipients.iter().map(expiry).min().unwrap_or(0);
        let until_ms = dispatch::until_ms(expiry_ms);
        let bytes = fresh.body.as_ref().map_or(0, |body| body.len());
        let Some(taken) = shard.stock.take(&site, sender, bytes, dispatch::in_air(shard)) else {
            let outcome = if now_ms < expiry_ms { Outcome::Waits } else { Outcome::Untried };
            if now_ms < expiry_ms {
                for (index, _) in &recipients {
                    shard.queue.park(fresh.id, *index, expiry_ms);
                    shard.stock.wait(&site, Place::new(fresh.id, *index, sender, fresh.body_bytes));
                }
            }
            refuse(shard, fresh, &recipients, &outcome);
            recipients = rest;
            continue;
        };
        let indexes = recipients.iter().map(|(index, _)| *index);
        reason::mark(shard, fresh.id, indexes, Progress::Route(taken), Some(ready));
        // In the order of their indexes, as the envelopes are.
        let in_ticket = |index: u16| recipients.iter().any(|(of, _)| *of == index);
        let asking = fresh.envelopes.iter().filter(|one| one.original.is_some() || !one.request.is_empty());
        let requests = asking
            .filter(|one| in_ticket(one.index))
            .filter_map(|one| Some((one.index, one.request_onward()?)))
            .collect();
        let ticket = Box::new(Ticket {
            home: shard.me(),
            message: fresh.id.0,
            sender: plan.sender.clone(),
            recipients,
            site: site.clone(),
            hosts: way.hosts.clone(),
            shape: way.shaped.shape.clone(),
            on_reply: way.shaped.on_reply.clone(),
            body_bytes: fresh.body_bytes,
            body: fresh.body.clone(),
            eightbit: fresh.flags.contains(Flags::EIGHTBIT),
            smtputf8: fresh.flags.contains(Flags::SMTPUTF8),
            requires_tls: fresh.flags.contains(Flags::REQUIRES_TLS),
            priority: fresh.flags.priority(),
            ret: ret(fresh.flags),
            envid: fresh.envid.clone(),
            requests,
            ready,
            talked: Duration::ZERO,
            until_ms,
            taken,
        });
        recipients = rest;
        if owner == shard.me() {
            outbound::take_ticket(shard, ticket);
        } else {
            shard.outbox.post(owner, Letter::Ticket(ticket));
        }
    }
}

/// RET, as it was told.
fn ret(flags: Flags) -> Option<Ret> {
    if flags.contains(Flags::RET_FULL) {
        Some(Ret::Full)
    } else {
        flags.contains(Flags::RET_HEADERS).then_some(Ret::Headers)
    }
}
