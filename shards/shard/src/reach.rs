//! Reaching a site: its hosts in order, and their addresses, from the next source address and under its name, encrypted as
//! the site demands.

use std::fmt::{self, Display, Formatter};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use ringpost_conf::ActionKind;
use ringpost_conf::expand::{Question, Told};
use ringpost_io::{Runtime, Stream};
use ringpost_routes::{Encryption, Helo, Host, Origin, RouteId, Site};
use ringpost_smtp::client::{Event as Said, Session, StartTls};

use crate::event::Event;
use crate::letter::{Link, Security};
use crate::outbound::{Broken, Connection, converse};
use crate::shard::{Shard, World};
use crate::wire::Wire;
use crate::{limits, lookups};

/// Tries the hosts in order, and their addresses, until one greets us.
///
/// # Errors
/// Why the last of them did not.
pub(crate) async fn reach<W: World>(
    shard: &Rc<Shard<W>>,
    route: RouteId,
    site: &Site,
    hosts: &[Host],
) -> Result<Connection<W>, String> {
    let mut why = String::from(match site.sources.is_empty() {
        true => "the site has no address",
        false => "the site has no address of a family that there is a source address of",
    });
    let mut tried = 0;
    for host in hosts {
        for address in &host.addresses {
            if tried == limits::ADDRESSES_PER_ATTEMPT {
                return Err(why);
            }
            match open(shard, route, site, host, *address).await {
                None => continue,
                Some(Ok(connection)) => return Ok(connection),
                Some(Err(error)) => why = named(host, *address, &error),
            }
            tried += 1;
        }
    }
    Err(why)
}

fn named(host: &Host, address: SocketAddr, error: &str) -> String {
    format!("{}[{}]:{}: {error}", host.name, address.ip(), address.port())
}

/// Connects from the route's next source; from the one after it, if this machine does not have that address. `None`: there
/// is no source of the address's family.
async fn connect<W: World>(
    shard: &Rc<Shard<W>>,
    route: RouteId,
    site: &Site,
    address: SocketAddr,
) -> Option<Result<<W::R as Runtime>::Stream, String>> {
    let mut why = None;
    for _ in 0..site.sources.len().clamp(1, limits::SOURCES_PER_ADDRESS) {
        let origin = shard.routes.borrow_mut().origin(route, address.is_ipv4(), shard.runtime.now());
        let source = match origin {
            Origin::System => None,
            Origin::Address(source) => Some(source),
            Origin::Nowhere => break,
        };
        match (shard.runtime.connect(address, source, limits::CONNECT).await, source) {
            (Ok(stream), _) => return Some(Ok(stream)),
            (Err(error), Some(source)) if error.kind() == ErrorKind::AddrNotAvailable => {
                shard.routes.borrow_mut().mark_unusable(source, shard.runtime.now());
                shard.warn(&format!("source address {source} cannot be used: {error}"));
                why = Some(Err(format!("source address {source}: {error}")));
            }
            (Err(error), _) if error.kind() == ErrorKind::TimedOut => {
                return Some(Err("connection timed out".to_owned()));
            }
            (Err(error), _) => return Some(Err(error.to_string())),
        }
    }
    why
}

/// Connects and is greeted, as the host's channel demands. `None`: there is no source of the address's family.
async fn open<W: World>(
    shard: &Rc<Shard<W>>,
    route: RouteId,
    site: &Site,
    host: &Host,
    address: SocketAddr,
) -> Option<Result<Connection<W>, String>> {
    let attempt = |address, how| async move {
        let stream = match connect(shard, route, site, address).await? {
            Ok(stream) => stream,
            Err(error) => return Some(Err(Unopened::Unreached(error))),
        };
        Some(greet(shard, site, host, address, Wire::new(stream), how).await)
    };
    let opened = match host.channel.encryption {
        Encryption::Never => attempt(address, How::Clear(StartTls::Never)).await?,
        Encryption::StartTls => attempt(address, How::Clear(StartTls::Required)).await?,
        Encryption::Implicit => attempt(address, How::Encrypted).await?,
        Encryption::IfOffered => match attempt(address, How::Clear(StartTls::IfOffered)).await? {
            // What was offered does not work. Clear text is no worse than what a server gets that offers nothing.
            Err(Unopened::Insecure(_)) => attempt(address, How::Clear(StartTls::Never)).await?,
            other => other,
        },
        Encryption::StartTlsOrImplicit { port } => match attempt(address, How::Clear(StartTls::Required)).await? {
            Err(first) => {
                let second = attempt(SocketAddr::new(address.ip(), port), How::Encrypted).await?;
                second.map_err(|second| Unopened::Unreached(format!("{first}; at port {port}: {second}")))
            }
            other => other,
        },
    };
    Some(opened.map_err(|why| why.to_string()))
}

/// How a connection begins.
#[derive(Clone, Copy)]
enum How {
    Clear(StartTls),
    Encrypted,
}

/// Why a server cannot be spoken to.
enum Unopened {
    Unreached(String),
    /// The handshake, or what it showed.
    Insecure(String),
}

impl Display for Unopened {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreached(why) => f.write_str(why),
            Self::Insecure(why) => write!(f, "TLS: {why}"),
        }
    }
}

async fn greet<W: World>(
    shard: &Rc<Shard<W>>,
    site: &Site,
    host: &Host,
    address: SocketAddr,
    stream: Wire<<W::R as Runtime>::Stream>,
    how: How,
) -> Result<Connection<W>, Unopened> {
    let source = stream.local_addr().ip();
    let helo = match &site.helo {
        Helo::Name(name) => name.clone(),
        Helo::BySource { action } => name_at(shard, action, source).await.map_err(Unopened::Unreached)?,
    };
    let remote = format!("{}[{}]:{}", host.name, address.ip(), address.port());
    let mut connection = Connection::new(stream, Session::new(helo), remote);
    connection.link = Some(Link { source, security: None });
    match how {
        How::Clear(starttls) => connection.session = connection.session.asking_for(starttls),
        How::Encrypted => secure(shard, host, &mut connection).await?,
    }
    loop {
        match converse(shard, &mut connection).await {
            Ok(Said::Ready) => return Ok(connection),
            Ok(Said::StartTls) => {
                secure(shard, host, &mut connection).await?;
                connection.session.secured(&mut connection.out);
            }
            Ok(Said::Failed(reply)) => return Err(Unopened::Unreached(format!("greeted with {reply}"))),
            Ok(_) => return Err(Unopened::Unreached("the server's greeting makes no sense".to_owned())),
            Err(Broken(why)) => return Err(Unopened::Unreached(why)),
        }
    }
}

/// The handshake, and a line in the log of what came of it.
async fn secure<W: World>(shard: &Rc<Shard<W>>, host: &Host, connection: &mut Connection<W>) -> Result<(), Unopened> {
    let verify = host.channel.verify;
    let insecure = |why: String| Unopened::Insecure(why);
    let channel = shard.connector.connect(&host.name, verify).map_err(|refused| insecure(refused.0))?;
    let done = shard.runtime.timeout(limits::HANDSHAKE, connection.stream.secure(channel)).await;
    match done {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(insecure(error.to_string())),
        None => return Err(insecure(format!("the handshake is not done after {} s", limits::HANDSHAKE.as_secs()))),
    }
    let Some((channel, secured)) = connection.stream.channel().and_then(|channel| Some((channel, channel.secured()?)))
    else {
        return Err(insecure("nothing was agreed on".to_owned()));
    };
    let doubt = if verify { None } else { shard.connector.judge(channel, &host.name).err().map(|refused| refused.0) };
    let (version, cipher) = (secured.version, &secured.cipher);
    let security = Some(Security { version, verified: doubt.is_none() });
    connection.link = connection.link.map(|link| Link { security, ..link });
    (shard.events)(&Event::Secured { remote: &connection.remote, version, cipher, doubt: doubt.as_deref() });
    Ok(())
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
    Ok(relay.name_at(&settings.config, source, told)?.unwrap_or_else(|| settings.hostname.clone()))
}

async fn ask<W: World>(shard: &Rc<Shard<W>>, config: &ringpost_conf::Config, question: Question) -> Told {
    let deadline = shard.runtime.now() + limits::DIRECTION;
    let mut answers = lookups::all(shard, config, vec![question], deadline).await;
    answers.pop().map_or_else(|| Told::Failed("no answer".to_owned()), |(_, told)| told)
}
