//! A listener's loop: what needs only the address is checked here, before a session costs anything.

use std::rc::Rc;

use futures_lite::future::or;
use ringpost_io::{Class, Listener, Peer, Runtime, Stream};
use ringpost_perf::{Counter, Stage};

use crate::event::{Event, Origin};
use crate::shard::{Shard, World};
use crate::{inbound, limits, proxied, replies};

/// Accepts until the shard stops.
pub(crate) async fn accept<W: World>(shard: Rc<Shard<W>>, listener: <W::R as Runtime>::Listener, number: usize) {
    while !shard.stopping.get() {
        let stop = async {
            shard.stop.raised().await;
            None
        };
        let accepted = or(async { Some(listener.accept().await) }, stop).await;
        match accepted {
            None => break,
            Some(Ok((stream, peer))) => arrive(&shard, stream, peer, number),
            Some(Err(error)) => {
                // Out of descriptors: those in use will be closed. The client waits in the backlog meanwhile.
                shard.warn(&format!("cannot accept on {}: {error}", listener.local_addr()));
                shard.runtime.sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

fn arrive<W: World>(shard: &Rc<Shard<W>>, mut stream: <W::R as Runtime>::Stream, peer: Peer, number: usize) {
    let session = shard.next_session.get();
    shard.next_session.set(session + 1);
    shard.counters.add(Counter::ConnectionsAccepted, 1);
    let settings = shard.settings();
    let proxies = settings.policies.get(number).and_then(|policy| policy.proxies.as_ref());
    let (Some(proxies), Peer::Address(address)) = (proxies, peer) else {
        return admit(shard, stream, peer, number, session);
    };
    let is_proxy = proxied::is_proxy(proxies, address.ip());
    if is_proxy == Some(false) || shard.sessions.get() >= settings.sessions_max {
        shard.counters.add(Counter::ConnectionsRefused, 1);
        return proxied::turn_away(shard, peer, session, proxied::NO_PROXY);
    }
    shard.sessions.set(shard.sessions.get() + 1);
    let (task_shard, proxies) = (shard.clone(), is_proxy.is_none().then(|| proxies.clone()));
    shard.spawn_counted(Class::Session, async move {
        let is_listed = match proxies {
            // Boxed: most proxies are in no table that must be asked.
            Some(proxies) => Box::pin(proxied::is_listed(&task_shard, &settings, &proxies, address.ip())).await,
            None => Some(true),
        };
        let client = match is_listed {
            Some(true) => proxied::client(&task_shard, &mut stream, peer, session).await,
            told => {
                let why = if told.is_none() { proxied::NOT_KNOWN } else { proxied::NO_PROXY };
                proxied::turn_away(&task_shard, peer, session, why);
                None
            }
        };
        task_shard.sessions.set(task_shard.sessions.get() - 1);
        match client {
            Some(client) => admit(&task_shard, stream, client, number, session),
            None => task_shard.counters.add(Counter::ConnectionsRefused, 1),
        }
    });
}

fn admit<W: World>(shard: &Rc<Shard<W>>, stream: <W::R as Runtime>::Stream, peer: Peer, number: usize, session: u64) {
    let accepted = shard.runtime.now();
    let origin = Origin::of(peer);
    if let Some(reply) = refusal(shard, origin) {
        shard.counters.add(Counter::ConnectionsRefused, 1);
        shard.event(&Event::Refused { session, from: origin, why: reply });
        // Where all is encrypted, a word in clear is no answer; a handshake for it would cost what there is too little of.
        let settings = shard.settings();
        let tls_first =
            settings.policies.get(settings.listener_of(peer, number)).is_some_and(|policy| policy.tls_first);
        if !tls_first {
            shard.spawn_counted(Class::Session, turn_away(shard.clone(), stream, reply));
        }
        return;
    }
    shard.sessions.set(shard.sessions.get() + 1);
    *shard.by_origin.borrow_mut().entry(origin).or_insert(0) += 1;
    shard.event(&Event::Connected { session, from: origin });
    let task_shard = shard.clone();
    shard.spawn_counted(Class::Session, async move {
        task_shard.stages.record(Stage::Accept, task_shard.runtime.now() - accepted);
        inbound::serve(&task_shard, stream, peer, number, session).await;
        task_shard.sessions.set(task_shard.sessions.get() - 1);
        leave(&task_shard, origin);
    });
}

/// The reply to a client for which there is no room.
fn refusal<W: World>(shard: &Shard<W>, origin: Origin) -> Option<&'static str> {
    let settings = shard.settings();
    if shard.sessions.get() >= settings.sessions_max {
        return Some(replies::TOO_MANY_SESSIONS);
    }
    let open = shard.by_origin.borrow().get(&origin).copied().unwrap_or(0);
    // Loopback is this machine's own programs and its proxies: many clients behind one address. So is root.
    let crowded = open >= settings.sessions_per_address_max && !origin.is_many();
    crowded.then_some(replies::TOO_MANY_FROM_ADDRESS)
}

fn leave<W: World>(shard: &Shard<W>, origin: Origin) {
    let mut by_origin = shard.by_origin.borrow_mut();
    if let Some(open) = by_origin.get_mut(&origin) {
        *open -= 1;
        if *open == 0 {
            by_origin.remove(&origin);
        }
    }
}

async fn turn_away<W: World>(shard: Rc<Shard<W>>, mut stream: <W::R as Runtime>::Stream, reply: &'static str) {
    let said = stream.write_all(reply.as_bytes());
    // A client that does not even read its refusal has lost nothing.
    let _ = shard.runtime.timeout(limits::TURN_AWAY, said).await;
}
