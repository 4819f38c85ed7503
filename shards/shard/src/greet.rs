//! A connection to one address of a host: from the next source, under its name, encrypted as the site demands, up to the point
//! where mail can be sent.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use ringpost_conf::ActionKind;
use ringpost_conf::expand::{Question, Told};
use ringpost_io::{Runtime, Stream};
use ringpost_routes::{Encryption, Held, Helo, Hold, Host, Origin, RouteId, Site, Speech};
use ringpost_smtp::client::{Event as Said, Login, RemoteReply, Session, StartTls};
use ringpost_tls::Connector;

use crate::ask::Ask;
use crate::event::{Event, Proof};
use crate::faults::{self, Fault};
use crate::letter::{Link, Security};
use crate::outbound::{Broken, Connection, converse};
use crate::shard::{Shard, World};
use crate::wire::Wire;
use crate::{limits, lookups, secure, vouch};

/// Where a connection goes.
#[derive(Clone, Copy)]
pub(crate) struct Goal<'a> {
    pub(crate) route: RouteId,
    pub(crate) site: &'a Site,
    pub(crate) host: &'a Host,
    pub(crate) address: SocketAddr,
}

impl Goal<'_> {
    /// The host and its address, for people.
    pub(crate) fn named(&self) -> String {
        match &self.host.speech {
            Speech::LmtpAt(path) => path.display().to_string(),
            _ => format!("{}[{}]:{}", self.host.name, self.address.ip(), self.address.port()),
        }
    }

    /// What went wrong there, for the log.
    pub(crate) fn fault(&self, unopened: &Unopened) -> Fault {
        let Unopened { stage, why, source, .. } = unopened;
        let (host, why) = (self.host.name.clone(), why.clone());
        Fault { host, address: self.address, source: *source, stage, why, pause: None }
    }
}

/// Why a server cannot be spoken to.
#[derive(Debug)]
pub(crate) struct Unopened {
    /// Whose fault it is.
    pub(crate) whose: Whose,
    /// What was awaited.
    pub(crate) stage: &'static str,
    /// What came instead.
    pub(crate) why: String,
    /// The address that it was tried from.
    pub(crate) source: Option<IpAddr>,
    /// What the host has said, if it has.
    pub(crate) reply: Option<RemoteReply>,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// This machine's, or its configuration's: it says nothing of the host.
    Ours,
    /// The host's.
    Host,
    /// The host's, which may think better of another source address.
    HostOrSource,
    /// That of the host's encryption.
    Encryption,
    /// The credentials'.
    Login,
}

impl Unopened {
    fn new(whose: Whose, stage: &'static str, why: impl Into<String>) -> Self {
        Self { whose, stage, why: why.into(), source: None, reply: None }
    }

    fn insecure(why: impl Into<String>) -> Self {
        Self::new(Whose::Encryption, "tls", why)
    }

    /// In words, for a reply.
    pub(crate) fn text(&self) -> String {
        let why = &self.why;
        match self.whose {
            Whose::Encryption => format!("TLS: {why}"),
            Whose::Login => format!("login refused: {why}"),
            Whose::HostOrSource => format!("greeted with {why}"),
            Whose::Ours | Whose::Host => why.clone(),
        }
    }
}

/// Connects, unless there is a connection already, and is greeted, as the host's channel demands. Where a host refuses us, it
/// is asked from the other sources, too. `None`: there is no source of the address's family.
pub(crate) async fn open<W: World>(
    shard: &Rc<Shard<W>>,
    goal: Goal<'_>,
    login: Option<&Login>,
    mut connected: Option<Connected<W>>,
) -> Option<Result<Connection<W>, Unopened>> {
    let (mut refused, mut last): (Vec<IpAddr>, Option<Unopened>) = (Vec::new(), None);
    loop {
        // What the host has said counts, also if the next source may have no connection now.
        let tried = encrypted(shard, goal, login, &refused, connected.take()).await;
        let Some(tried) = tried else { return last.map(Err) };
        match tried {
            Ok(connection) => {
                if let Some(Link { source, .. }) = connection.link.filter(|_| !goal.site.sources.is_empty()) {
                    judge(shard, goal, source, &refused);
                }
                return Some(Ok(connection));
            }
            Err(unopened) if unopened.whose == Whose::HostOrSource && refused.len() < limits::SOURCES_PER_ADDRESS => {
                let Some(source) = unopened.source else { return Some(Err(unopened)) };
                refused.push(source);
                if !shard.routes.borrow().has_other_source(goal.route, goal.address.is_ipv4(), &refused) {
                    return Some(Err(unopened));
                }
                faults::tell(shard, &goal.site.name, &goal.fault(&unopened), "the same host from another source");
                last = Some(unopened);
            }
            Err(unopened) => return Some(Err(unopened)),
        }
    }
}

/// A host has taken one source, and refused others: the route does without those that are refused too often.
fn judge<W: World>(shard: &Shard<W>, goal: Goal<'_>, good: IpAddr, refused: &[IpAddr]) {
    let (patience, now) = (shard.routes.borrow().shape(goal.route).patience, shard.runtime.now());
    let out = shard.routes.borrow_mut().judge_sources(goal.route, good, refused, patience, now);
    for source in out {
        let (site, pause) = (&goal.site.name, patience.pause.as_secs());
        shard.warn(&format!("route {site} does without source address {source} for {pause} s: it is refused there"));
    }
}

/// As the host's channel demands.
async fn encrypted<W: World>(
    shard: &Rc<Shard<W>>,
    goal: Goal<'_>,
    login: Option<&Login>,
    not_from: &[IpAddr],
    connected: Option<Connected<W>>,
) -> Option<Result<Connection<W>, Unopened>> {
    let connected = &Cell::new(connected);
    let attempt = |address, how| async move {
        let goal = Goal { address, ..goal };
        let (stream, source, hold) = match connected.take() {
            Some(connected) => connected,
            None => match connect(shard, goal, not_from, Turn::Only).await? {
                Ok(connected) => connected,
                Err(unopened) => return Some(Err(unopened)),
            },
        };
        let greeted = greet(shard, goal, Wire::new(stream), how, login).await;
        Some(match greeted {
            Ok(mut connection) => {
                connection._hold = hold;
                Ok(connection)
            }
            Err(unopened) => Err(Unopened { source, ..unopened }),
        })
    };
    let address = goal.address;
    let opened = match goal.host.channel.encryption {
        Encryption::Never => attempt(address, How::Clear(StartTls::Never)).await?,
        Encryption::StartTls => attempt(address, How::Clear(StartTls::Required)).await?,
        Encryption::Implicit => attempt(address, How::Encrypted).await?,
        Encryption::IfOffered => match attempt(address, How::Clear(StartTls::IfOffered)).await? {
            // What was offered does not work. Clear text is no worse than what a server gets that offers nothing.
            Err(unopened) if unopened.whose == Whose::Encryption => {
                faults::tell(shard, &goal.site.name, &goal.fault(&unopened), "the same host in clear");
                attempt(address, How::Clear(StartTls::Never)).await?
            }
            other => other,
        },
        Encryption::StartTlsOrImplicit { port } => match attempt(address, How::Clear(StartTls::Required)).await? {
            Err(first) if first.whose != Whose::Login => {
                let second = attempt(SocketAddr::new(address.ip(), port), How::Encrypted).await?;
                second.map_err(|second| match second.whose {
                    Whose::Login => second,
                    whose => {
                        let why = format!("{}; at port {port}: {}", first.text(), second.text());
                        Unopened { whose: if whose == Whose::Ours { whose } else { Whose::Host }, why, ..first }
                    }
                })
            }
            other => other,
        },
    };
    if let Some(held) = &goal.host.held {
        tell(shard, goal.host, held, address, &opened);
    }
    Some(opened)
}

/// A stream, the source that it was asked to leave from, and the hold on that.
pub(crate) type Connected<W> = (<<W as World>::R as Runtime>::Stream, Option<IpAddr>, Option<Hold>);

/// What an attempt to connect is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The only one for its connection.
    Only,
    /// Made beside another one, to another address of the host.
    Beside,
}

/// Connects from the route's next source; from the one after it, if this machine does not have that address. `None`: there
/// is no source of the address's family.
pub(crate) async fn connect<W: World>(
    shard: &Rc<Shard<W>>,
    goal: Goal<'_>,
    not_from: &[IpAddr],
    turn: Turn,
) -> Option<Result<Connected<W>, Unopened>> {
    let Goal { route, site, host, address } = goal;
    if let Speech::LmtpAt(path) = &host.speech {
        let connected = shard.runtime.connect_unix(path, limits::CONNECT).await;
        let connected = connected.map(|stream| (stream, None, None));
        return Some(connected.map_err(|error| Unopened::new(whose(&error), "connect", error.to_string())));
    }
    let mut last = None;
    for _ in 0..site.sources.len().clamp(1, limits::SOURCES_PER_ADDRESS) {
        let (source, hold) = {
            let mut routes = shard.routes.borrow_mut();
            match (routes.origin(route, address.is_ipv4(), not_from, shard.runtime.now()), turn) {
                // The one beside it holds the same.
                (Origin::System, Turn::Beside) => (None, None),
                (Origin::System, Turn::Only) => (None, Some(routes.hold(route, None))),
                (Origin::Address(source), Turn::Only) => (Some(source), Some(routes.hold(route, Some(source)))),
                (Origin::Address(source), Turn::Beside) => (Some(source), Some(routes.hold_beside(route, source))),
                (Origin::Nowhere, _) => break,
            }
        };
        let time = shard.routes.borrow().shape(route).connect_timeout.unwrap_or(limits::CONNECT);
        match (shard.runtime.connect(address, source, time).await, source) {
            (Ok(stream), _) => return Some(Ok((stream, source, hold))),
            (Err(error), Some(source)) if error.kind() == ErrorKind::AddrNotAvailable => {
                shard.routes.borrow_mut().mark_unusable(source, shard.runtime.now());
                shard.warn(&format!("source address {source} cannot be used: {error}"));
                last = Some(Err(Unopened::new(Whose::Ours, "bind", format!("source address {source}: {error}"))));
            }
            (Err(error), source) => {
                let why = match error.kind() {
                    ErrorKind::TimedOut => "connection timed out".to_owned(),
                    _ => error.to_string(),
                };
                return Some(Err(Unopened { source, ..Unopened::new(whose(&error), "connect", why) }));
            }
        }
    }
    last
}

/// A machine without descriptors, memory, ports or a way there (as one without IPv6) has no word to say about others.
fn whose(error: &io::Error) -> Whose {
    match error.kind() {
        ErrorKind::NetworkUnreachable | ErrorKind::OutOfMemory | ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => {
            Whose::Ours
        }
        // EMFILE, ENFILE, ENOBUFS
        _ if matches!(error.raw_os_error(), Some(24 | 23 | 105)) => Whose::Ours,
        _ => Whose::Host,
    }
}

/// Tells what came of a connection to a server that its domain has a policy about. One that nobody has taken is none.
fn tell<W: World>(
    shard: &Shard<W>,
    host: &Host,
    held: &Held,
    address: SocketAddr,
    opened: &Result<Connection<W>, Unopened>,
) {
    let (failure, source) = match opened {
        Ok(connection) => match connection.link.and_then(|link| Some((link.source, link.security?))) {
            Some((source, security)) if security.verified || !held.testing => (None, Some(source)),
            Some((source, _)) => (Some("validation-failure"), Some(source)),
            None => (Some("starttls-not-supported"), connection.link.map(|link| link.source)),
        },
        Err(Unopened { whose: Whose::Login, .. }) => return,
        Err(Unopened { whose, why, .. }) if *whose == Whose::Encryption || why.contains("STARTTLS") => {
            (Some(vouch::fault_of_handshake(why)), None)
        }
        Err(_) => return,
    };
    let addresses = source.map(|source| (address.ip(), source));
    let (domain, host) = (&*held.domain, &host.name[..]);
    (shard.events)(&Event::Held { domain, kind: held.kind, host, addresses, failure });
}

/// How a connection begins.
#[derive(Clone, Copy)]
enum How {
    Clear(StartTls),
    Encrypted,
}

async fn greet<W: World>(
    shard: &Rc<Shard<W>>,
    goal: Goal<'_>,
    stream: Wire<<W::R as Runtime>::Stream>,
    how: How,
    login: Option<&Login>,
) -> Result<Connection<W>, Unopened> {
    let Goal { site, host, .. } = goal;
    let source = stream.local_addr().ip();
    let of_pool = site.pool.as_deref().and_then(|pool| pool.helo(source.to_canonical()));
    let helo = match (of_pool, &site.helo) {
        (Some(name), _) => name.to_owned(),
        (None, Helo::Name(name)) => name.clone(),
        (None, Helo::BySource { action }) => {
            let named = name_at(shard, action, source).await;
            named.map_err(|why| Unopened::new(Whose::Ours, "helo-src", why))?
        }
    };
    let mut session = match (&host.speech, how) {
        (Speech::Lmtp | Speech::LmtpAt(_), _) => Session::lmtp(helo),
        (_, How::Clear(starttls)) => Session::new(helo).asking_for(starttls),
        (_, How::Encrypted) => Session::new(helo).encrypted(),
    };
    if shard.overtaxed.has(goal.address.ip(), shard.runtime.now()) {
        session = session.one_by_one();
    }
    if let Some(Login { user, password, .. }) = login {
        // What is new for each connection.
        let nonce = shard.ask.nonce();
        session = session.logging_in(Login { user: user.clone(), password: password.clone(), nonce });
    }
    let mut connection = Connection::new(stream, session, goal.named());
    connection.server = Some(goal.address.ip()).filter(|_| !matches!(host.speech, Speech::LmtpAt(_)));
    connection.link = Some(Link { source, security: None, reports: false });
    connection.reply_timeout = shard.routes.borrow().shape_at(site).and_then(|shape| shape.reply_timeout);
    if let How::Encrypted = how {
        secure(shard, site, host, &mut connection).await?;
    }
    loop {
        match converse(shard, &mut connection).await {
            Ok(Said::Ready) => {
                if let (Some(mechanism), Some(label)) = (connection.session.mechanism(), host.speech.label()) {
                    let (remote, mechanism) = (&connection.remote[..], mechanism.name());
                    (shard.events)(&Event::LoggedInAt { remote, label, mechanism });
                }
                return Ok(connection);
            }
            // Boxed: most servers are not logged in at.
            Ok(Said::Challenged) => Box::pin(prove(shard, &mut connection)).await?,
            Ok(Said::StartTls) => {
                secure(shard, site, host, &mut connection).await?;
                connection.session.secured(&mut connection.out);
            }
            Ok(Said::LoginRefused(reply)) => {
                let label = host.speech.label().unwrap_or_default();
                return Err(Unopened::new(Whose::Login, "login", format!("label `{label}`: {reply}")));
            }
            Ok(Said::Failed(reply)) => return Err(refused(&reply, connection.session.stage())),
            Ok(_) => {
                let (stage, why) = (connection.session.stage(), "the server's greeting makes no sense");
                return Err(Unopened::new(Whose::Host, stage, why));
            }
            Err(Broken(why)) => {
                let whose = if connection.session.awaits_starttls() { Whose::Encryption } else { Whose::Host };
                return Err(Unopened::new(whose, connection.session.stage(), why));
            }
        }
    }
}

/// Answers a server that wants a proof of the password. What goes wrong is not its fault.
async fn prove<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<W>) -> Result<(), Unopened> {
    let challenge = connection.session.take_challenge();
    let signed = shard.runtime.timeout(limits::PROOF, shard.ask.prove(challenge)).await;
    let late = || Err(format!("the proof of the password is not computed after {} s", limits::PROOF.as_secs()));
    let signed = signed.unwrap_or_else(late).map_err(|why| Unopened::new(Whose::Ours, "login", why))?;
    connection.session.on_signed(&signed, &mut connection.out);
    Ok(())
}

/// A refusal to speak to us at all may be meant for the address that we come from.
fn refused(reply: &RemoteReply, stage: &'static str) -> Unopened {
    let unopened = match (stage, reply.code()) {
        ("greeting", _) | ("ehlo", 421 | 500..) => Unopened::new(Whose::HostOrSource, stage, reply.to_string()),
        _ => Unopened::new(Whose::Host, stage, format!("greeted with {reply}")),
    };
    Unopened { reply: Some(reply.clone()).filter(|reply| !reply.is_ours()), ..unopened }
}

/// The handshake, and a line in the log of what came of it.
async fn secure<W: World>(
    shard: &Rc<Shard<W>>,
    site: &Site,
    host: &Host,
    connection: &mut Connection<W>,
) -> Result<(), Unopened> {
    let verify = host.channel.verify;
    let insecure = |why: String| Unopened::insecure(why);
    let connector = connector(shard, site).map_err(insecure)?;
    let channel = match &host.tlsa {
        Some(tlsa) => connector.connect_pinned(&host.name, tlsa.next_hop.as_deref(), &tlsa.records),
        None => connector.connect(&host.name, verify),
    };
    let channel = channel.map_err(|refused| insecure(refused.0))?;
    let stream = &mut connection.stream;
    let shaken = match connector.signs() {
        false => shard.runtime.timeout(limits::HANDSHAKE, stream.secure(channel)).await,
        true => shard.runtime.timeout(limits::HANDSHAKE, Box::pin(secure::show(shard, stream, channel))).await,
    };
    match shaken {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(insecure(error.to_string())),
        None => return Err(insecure(format!("the handshake is not done after {} s", limits::HANDSHAKE.as_secs()))),
    }
    let Some((channel, secured)) = connection.stream.channel().and_then(|channel| Some((channel, channel.secured()?)))
    else {
        return Err(insecure("nothing was agreed on".to_owned()));
    };
    let doubt = match verify || host.tlsa.is_some() {
        true => None,
        false => connector.judge(channel, &host.name).err().map(|refused| refused.0),
    };
    if let Some(binding) = channel.binding() {
        connection.session.on_bindable(binding);
    }
    let (version, cipher) = (secured.version, &secured.cipher);
    let security = Some(Security { version, verified: doubt.is_none() });
    connection.link = connection.link.map(|link| Link { security, ..link });
    let proof = match &doubt {
        Some(why) => Proof::Nothing(why),
        None if host.tlsa.is_some() => Proof::Dane,
        None => Proof::Authority,
    };
    (shard.events)(&Event::Secured { remote: &connection.remote, version, cipher, proof });
    Ok(())
}

/// What encrypts connections to a site: by the configuration in force here, which may be newer than the one that the ticket was
/// made with.
fn connector<W: World>(shard: &Shard<W>, site: &Site) -> Result<Connector, String> {
    if site.terms.is_empty() {
        return Ok(shard.connector());
    }
    let found = shard.settings().relays.get(&site.terms).cloned();
    found.ok_or_else(|| "the relay action is not in the configuration any more".to_owned())
}

/// The name of an address that `helo-src` of an action has: by the configuration in force here, which may be newer than the
/// one that the ticket was made with.
async fn name_at<W: World>(shard: &Rc<Shard<W>>, action: &str, source: IpAddr) -> Result<String, String> {
    let settings = shard.settings();
    let action = settings.outlines.find(action).and_then(|number| settings.config.actions.get(number));
    let Some(ActionKind::Relay(relay)) = action.map(|action| &action.kind) else {
        return Err("the relay action is not in the configuration any more".to_owned());
    };
    let told = match relay.name_question(source) {
        None => None,
        Some(question) => Some(ask(shard, &settings.config, Question::Lookup(question)).await),
    };
    Ok(relay.name_at(&settings.config, source, told)?.unwrap_or_else(|| {
        if shard.told.admit(SocketAddr::new(source, 0), "helo-src", "", shard.runtime.now()).is_some() {
            let own = &settings.hostname;
            shard.warn(&format!("relay: `helo-src` has no name for {source}, which says the server's, {own}"));
        }
        settings.hostname.clone()
    }))
}

async fn ask<W: World>(shard: &Rc<Shard<W>>, config: &ringpost_conf::Config, question: Question) -> Told {
    let deadline = shard.runtime.now() + limits::DIRECTION;
    let mut answers = lookups::all(shard, config, vec![question], deadline).await;
    answers.pop().map_or_else(|| Told::Failed("no answer".to_owned()), |(_, told)| told)
}
