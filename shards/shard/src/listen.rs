//! A listener's loop: what needs only the address is checked here, before a session costs anything.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use futures_lite::future::or;
use ringpost_io::{Class, Listener, Runtime, Stream};
use ringpost_perf::{Counter, Stage};

use crate::event::Event;
use crate::shard::{Shard, World};
use crate::{inbound, limits, replies};

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
            Some(Ok((stream, peer))) => admit(&shard, stream, peer, number),
            Some(Err(error)) => {
                // Out of descriptors: those in use will be closed. The client waits in the backlog meanwhile.
                shard.warn(&format!("cannot accept on {}: {error}", listener.local_addr()));
                shard.runtime.sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit<W: World>(shard: &Rc<Shard<W>>, stream: <W::R as Runtime>::Stream, peer: SocketAddr, number: usize) {
    let accepted = shard.runtime.now();
    let session = shard.next_session.get();
    shard.next_session.set(session + 1);
    shard.counters.add(Counter::ConnectionsAccepted, 1);
    if let Some(reply) = refusal(shard, peer.ip()) {
        shard.counters.add(Counter::ConnectionsRefused, 1);
        shard.event(&Event::Refused { session, from: peer, why: reply });
        shard.spawn_counted(Class::Session, turn_away(shard.clone(), stream, reply));
        return;
    }
    shard.sessions.set(shard.sessions.get() + 1);
    *shard.by_address.borrow_mut().entry(peer.ip()).or_insert(0) += 1;
    shard.event(&Event::Connected { session, from: peer });
    let task_shard = shard.clone();
    shard.spawn_counted(Class::Session, async move {
        task_shard.stages.record(Stage::Accept, task_shard.runtime.now() - accepted);
        inbound::serve(&task_shard, stream, peer, number, session).await;
        task_shard.sessions.set(task_shard.sessions.get() - 1);
        leave(&task_shard, peer.ip());
    });
}

/// The reply to a client for which there is no room.
fn refusal<W: World>(shard: &Shard<W>, address: IpAddr) -> Option<&'static str> {
    let settings = shard.settings();
    if shard.sessions.get() >= settings.sessions_max {
        return Some(replies::TOO_MANY_SESSIONS);
    }
    let open = shard.by_address.borrow().get(&address).copied().unwrap_or(0);
    // Loopback is this machine's own programs and its proxies: many clients behind one address.
    let crowded = open >= settings.sessions_per_address_max && !address.is_loopback();
    crowded.then_some(replies::TOO_MANY_FROM_ADDRESS)
}

fn leave<W: World>(shard: &Shard<W>, address: IpAddr) {
    let mut by_address = shard.by_address.borrow_mut();
    if let Some(open) = by_address.get_mut(&address) {
        *open -= 1;
        if *open == 0 {
            by_address.remove(&address);
        }
    }
}

async fn turn_away<W: World>(shard: Rc<Shard<W>>, mut stream: <W::R as Runtime>::Stream, reply: &'static str) {
    let said = stream.write_all(reply.as_bytes());
    // A client that does not even read its refusal has lost nothing.
    let _ = shard.runtime.timeout(limits::TURN_AWAY, said).await;
}
