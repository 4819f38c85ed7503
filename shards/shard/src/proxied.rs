//! Connections by way of a proxy: who the client is stands in front of the dialogue, and only the word of a proxy that is
//! listed counts. From then on nothing here knows of the proxy.

use std::net::IpAddr;
use std::rc::Rc;

use futures_lite::future::or;
use ringpost_conf::expand::{Question, Told};
use ringpost_conf::{Among, Lookup, Proxies};
use ringpost_io::{Peer, Runtime, Stream};
use ringpost_smtp::proxy::{self, Header};

use crate::event::{Event, Origin};
use crate::limits;
use crate::lookups::{self, Awaited};
use crate::settings::Settings;
use crate::shard::{Shard, World};

/// Whether the word of who connects from there counts. `None`: a table must be asked, with [`is_listed`].
pub(crate) fn is_proxy(proxies: &Proxies, address: IpAddr) -> Option<bool> {
    let address = address.to_canonical();
    match proxies {
        Proxies::Near => Some(is_near(address)),
        Proxies::Listed(Among::Table(set)) => Some(set.contains(address, || address.is_loopback())),
        Proxies::Listed(Among::Remote { .. }) => None,
        // No regular expression stands for addresses.
        Proxies::Listed(Among::Regex(_)) => Some(false),
    }
}

/// The same of a table that must be asked. While it fails what it has said last counts; of whom it has said nothing is turned
/// away, and comes again. `None`: there is no answer in time.
pub(crate) async fn is_listed<W: World>(
    shard: &Rc<Shard<W>>,
    settings: &Settings,
    proxies: &Proxies,
    address: IpAddr,
) -> Option<bool> {
    let Proxies::Listed(Among::Remote { table, service }) = proxies else { return Some(false) };
    let key = address.to_canonical().to_string();
    let question = Question::Lookup(Lookup::Table { table: *table, service: *service, key });
    let told = match lookups::begin(shard, &settings.config, &question) {
        Awaited::Now(told) => told,
        Awaited::Later(wait) => {
            let told = shard.runtime.timeout(limits::PROXY_LISTED, wait).await?;
            told.unwrap_or_else(|_| Told::Failed("the lookup was lost".into()))
        }
    };
    // Of a table that fails the coordinator tells.
    Some(matches!(told, Told::Found(_)))
}

/// Loopback and networks that are nobody's on the internet (RFC 1918, RFC 4193, RFC 3927, RFC 4291 §2.5.6).
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

/// Reads the header; who the client is. `None`: there is none, and the connection is over. One line in the log says why.
pub(crate) async fn client<W: World>(
    shard: &Rc<Shard<W>>,
    stream: &mut <W::R as Runtime>::Stream,
    peer: Peer,
    session: u64,
) -> Option<Peer> {
    let mut got = Vec::new();
    let reading = async {
        loop {
            match proxy::read(&got) {
                Header::More(count) => match stream.read(&mut got, count).await {
                    Ok(1..) => {}
                    Ok(_) | Err(_) => return Err("the proxy has closed the connection within its PROXY header"),
                },
                Header::Client(address) => return Ok(Peer::Address(address)),
                Header::Itself => return Ok(peer),
                Header::Wrong(why) => return Err(why),
            }
        }
    };
    let stopped = async {
        shard.stop.raised().await;
        Err("the server stops")
    };
    let heard = shard.runtime.timeout(limits::PROXY_HEADER, or(reading, stopped)).await;
    match heard.unwrap_or(Err("the proxy takes too long for its PROXY header")) {
        Ok(client) => Some(client),
        Err(why) => {
            shard.event(&Event::Refused { session, from: Origin::of(peer), why });
            None
        }
    }
}

/// Said of somebody who connects and is no proxy.
pub(crate) const NO_PROXY: &str = "only proxies may connect here (`proxy-v2`); further ones are not told for a minute";
/// Said of somebody of whom that is not known in time.
pub(crate) const NOT_KNOWN: &str =
    "the table of proxies (`proxy-v2`) does not answer in time; further ones are not told for a minute";

/// Somebody connects who is no proxy, or of whom it is not known: told once, and then not for a while, however many come.
pub(crate) fn turn_away<W: World>(shard: &Shard<W>, peer: Peer, session: u64, why: &'static str) {
    let now = shard.runtime.now();
    if shard.stranger_told.get().is_none_or(|told| now >= told + limits::STRANGERS_TOLD) {
        shard.stranger_told.set(Some(now));
        shard.event(&Event::Refused { session, from: Origin::of(peer), why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_list_neighbours_are_proxies() {
        for (address, near) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("10.1.2.3", true),
            ("::ffff:192.168.1.1", true),
            ("172.31.0.1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("192.0.2.1", false),
            ("172.32.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_proxy(&Proxies::Near, address.parse().expect("an address")), Some(near), "{address}");
        }
    }
}
