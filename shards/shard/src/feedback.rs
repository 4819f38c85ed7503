//! What other servers say of how much they take: read by the lines of the configuration and the built-in ones
//! (`conf/src/classify.rs`), told to the route, which draws the conclusion (`routes/src/feedback.rs`), and to the log.
//!
//! Runs at the owner of a route, where its connections are. What a suspension means for a home's mail it learns with the
//! results, and keeps here for those who ask.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringpost_address::split_address;
use ringpost_conf::{OnReply, Pressure, Reaction, Refused};
use ringpost_io::Runtime;
use ringpost_queue::MessageId;
use ringpost_routes::{Late, RouteId, Site, Suspension};
use ringpost_smtp::client::{RecipientResult, RemoteReply};

use crate::event::{Event, Pace};
use crate::letter::{Outcome, Ticket};
use crate::limits;
use crate::outbound::{Connection, give_back};
use crate::shard::{Shard, World};
use crate::wake::Sleepers;

/// What a reply came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// A message.
    Message,
    /// A connection that was being opened.
    Connection,
}

/// A reply, and what was said to get it.
struct Heard<'a> {
    route: RouteId,
    site: &'a Site,
    reply: &'a RemoteReply,
    to: To,
    /// When that was begun.
    began: Instant,
    /// The address that it was said from.
    source: Option<IpAddr>,
}

/// A message that was begun then has its results from the site of its route.
pub(crate) fn answered<W: World>(
    shard: &Rc<Shard<W>>,
    route: RouteId,
    connection: &Connection<W>,
    ticket: &Ticket,
    results: &[RecipientResult],
    began: Instant,
) {
    let refusals = ticket.recipients.iter().zip(results).filter_map(|((_, path), result)| match result {
        RecipientResult::Transient(reply) | RecipientResult::Permanent(reply) if !reply.is_ours() => {
            Some((reply, pressure(shard, &ticket.on_reply, reply, path)?))
        }
        _ => None,
    });
    let source = connection.link.map(|link| link.source);
    match { refusals }.next() {
        Some((reply, pressure)) => {
            let site = &ticket.site;
            obey(shard, &Heard { route, site, reply, to: To::Message, began, source }, pressure);
        }
        None if results.iter().any(|result| matches!(result, RecipientResult::Delivered(_))) => {
            let late = shard.routes.borrow_mut().taken(route, began, shard.runtime.now());
            if let Some(Late { change, reply }) = late {
                let pace = Pace::Changed(change);
                shard.event(&Event::Paced { route: &ticket.site.name, pace, reply: &reply });
            }
        }
        None => {}
    }
}

/// A connection that was begun then was refused with this reply. The first message that waits for one says by whose lines
/// the reply is read.
pub(crate) fn unopened<W: World>(
    shard: &Rc<Shard<W>>,
    route: RouteId,
    site: &Site,
    (reply, source): (&RemoteReply, Option<IpAddr>),
    began: Instant,
) {
    let pressure = {
        let routes = shard.routes.borrow();
        let Some(ticket) = routes.first(route) else { return };
        let path = ticket.recipients.first().map_or("", |(_, path)| path);
        pressure(shard, &ticket.on_reply, reply, path)
    };
    if let Some(pressure) = pressure {
        obey(shard, &Heard { route, site, reply, to: To::Connection, began, source }, pressure);
    }
}

fn pressure<W: World>(
    shard: &Shard<W>,
    on_reply: &[OnReply],
    reply: &RemoteReply,
    recipient: &str,
) -> Option<Pressure> {
    let domain = split_address(recipient).map_or("", |(_, domain)| domain);
    let refused = Refused { code: reply.code(), status: reply.status_or_default(), text: reply.text(), domain };
    shard.settings().config.pressure(on_reply, &refused)
}

/// Tells the route, and the log what it makes of that.
fn obey<W: World>(shard: &Rc<Shard<W>>, heard: &Heard<'_>, pressure: Pressure) {
    let Heard { route, began, source, .. } = *heard;
    let (said, now) = (heard.reply.to_string(), shard.runtime.now());
    let change = match (pressure, heard.to) {
        (Pressure::Said(Reaction::Throttle(percent)), _) => {
            shard.routes.borrow_mut().throttle(route, percent, &said, began, now)
        }
        (Pressure::Said(Reaction::Suspend(time)), _) => return suspend(shard, heard, &said, time),
        (Pressure::Said(Reaction::SwitchSource), _) => return retire(shard, heard, source),
        (Pressure::Messages, To::Message) => shard.routes.borrow_mut().refused(route, &said, began, now),
        (Pressure::Messages | Pressure::Connections, _) => shard.routes.borrow_mut().crowded(route, &said, began, now),
    };
    if let Some(change) = change {
        tell(shard, heard, Pace::Changed(change));
    }
}

fn suspend<W: World>(shard: &Rc<Shard<W>>, heard: &Heard<'_>, said: &str, time: Duration) {
    let (suspension, back) = shard.routes.borrow_mut().suspend(heard.route, said, time, shard.runtime.now());
    tell(shard, heard, Pace::Suspended { time, tickets: back.len() });
    let outcome = suspended(suspension);
    back.into_iter().for_each(|ticket| give_back(shard, *ticket, &outcome));
}

/// What becomes of a message for a suspended site.
pub(crate) fn suspended(suspension: Suspension) -> Outcome {
    let reply = RemoteReply::local(451, (4, 7, 0), format!("the site is suspended since it said {}", suspension.reply));
    Outcome::Suspended { suspension, reply }
}

fn retire<W: World>(shard: &Shard<W>, heard: &Heard<'_>, source: Option<IpAddr>) {
    let Some(source) = source else { return };
    let mut routes = shard.routes.borrow_mut();
    let (now, time) = (shard.runtime.now(), routes.shape(heard.route).patience.pause);
    if routes.retire_source(heard.route, source, now + time, now) {
        tell(shard, heard, Pace::SourceRetired { source, time });
    }
}

fn tell<W: World>(shard: &Shard<W>, heard: &Heard<'_>, pace: Pace) {
    shard.event(&Event::Paced { route: &heard.site.name, pace, reply: &heard.reply.to_string() });
}

/// Suspended sites that a shard has mail for.
#[derive(Debug, Default)]
pub(crate) struct Suspended(BTreeMap<Site, Suspension>);

impl Suspended {
    /// Mail came home from a site. Of too many sites it is not remembered; their mail has its time all the same.
    pub(crate) fn note(&mut self, site: &Site, suspension: &Suspension, now: Instant) {
        if self.0.get(site) == Some(suspension) {
            return;
        }
        self.0.retain(|_, suspension| suspension.until > now);
        if self.0.len() < limits::SUSPENDED_SITES {
            self.0.insert(site.clone(), suspension.clone());
        }
    }

    /// The suspension that an envelope waits for the end of.
    pub(crate) fn of(
        &self,
        sleepers: &Sleepers,
        place: (MessageId, u16),
        now: Instant,
    ) -> Option<(&Site, &Suspension)> {
        let mut still = self.0.iter().filter(|(_, suspension)| suspension.until > now);
        still.find(|(site, _)| sleepers.has(site, place))
    }

    /// An administrator has ended all of them.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringpost_routes::Helo;

    use super::*;

    #[test]
    fn suspended_sites_are_remembered_up_to_their_end_and_their_bound() {
        let site = |name: &str| {
            let helo = Helo::Name("us".into());
            Site { name: name.into(), ..Site::new(&[], &[], helo) }
        };
        let (mut suspended, mut sleepers, now) = (Suspended::default(), Sleepers::default(), Instant::now());
        let until = now + Duration::from_secs(60);
        let suspension = Suspension { reply: "421 x".into(), since: now, until };
        suspended.note(&site("a"), &suspension, now);
        let place = (MessageId(1), 0);
        assert_eq!(suspended.of(&sleepers, place, now), None, "it is somebody else's");
        sleepers.add(&site("a"), place, 10);
        assert_eq!(suspended.of(&sleepers, place, now), Some((&site("a"), &suspension)));
        assert_eq!(suspended.of(&sleepers, place, until), None);
        (0..2 * limits::SUSPENDED_SITES).for_each(|n| suspended.note(&site(&n.to_string()), &suspension, now));
        assert_eq!(suspended.0.len(), limits::SUSPENDED_SITES);
        suspended.note(&site("b"), &Suspension { until: until + Duration::from_secs(1), ..suspension }, until);
        assert_eq!(suspended.0.len(), 1, "the others are over");
        suspended.forget();
        assert!(suspended.0.is_empty());
    }
}
