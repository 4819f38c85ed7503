//! Reaching a site: its hosts in order, and their addresses, from the next source address and under its name.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use ringpost_conf::ActionKind;
use ringpost_conf::expand::{Question, Told};
use ringpost_io::{Runtime, Stream};
use ringpost_routes::{Helo, Host, Origin, RouteId, Site};
use ringpost_smtp::client::{Event as Said, Session};

use crate::outbound::{Broken, Connection, converse};
use crate::shard::{Shard, World};
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
) -> Result<Connection<<W::R as Runtime>::Stream>, String> {
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
            match connect(shard, route, site, *address).await {
                None => continue,
                Some(Ok(stream)) => match greet(shard, site, host, *address, stream).await {
                    Ok(connection) => return Ok(connection),
                    Err(error) => why = named(host, *address, &error),
                },
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

async fn greet<W: World>(
    shard: &Rc<Shard<W>>,
    site: &Site,
    host: &Host,
    address: SocketAddr,
    stream: <W::R as Runtime>::Stream,
) -> Result<Connection<<W::R as Runtime>::Stream>, String> {
    let source = stream.local_addr().ip();
    let helo = match &site.helo {
        Helo::Name(name) => name.clone(),
        Helo::BySource { action } => name_at(shard, action, source).await?,
    };
    let mut connection = Connection {
        stream,
        session: Session::new(helo),
        input: Vec::new(),
        out: Vec::new(),
        remote: format!("{}[{}]:{}", host.name, address.ip(), address.port()),
        source: Some(source),
    };
    match converse(shard, &mut connection).await {
        Ok(Said::Ready) => Ok(connection),
        Ok(Said::Failed(reply)) => Err(format!("greeted with {reply}")),
        Ok(_) => Err("the server's greeting makes no sense".to_owned()),
        Err(Broken(why)) => Err(why),
    }
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
