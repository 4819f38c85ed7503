//! The owner's side of a route: takes tickets, opens connections as `routes` says, carries messages, sends results home.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use futures_lite::future::or;
use ringpost_conf::Direction;
use ringpost_io::{Class, Runtime, Stream};
use ringpost_perf::{Counter, Stage};
use ringpost_queue::MessageId;
use ringpost_routes::{Attempt, Hold, Host, HostHold, Next, Place, Refused, RouteId, Site};
use ringpost_smtp::Stuffer;
use ringpost_smtp::client::{Envelope, Event as Said, RecipientResult, RemoteReply, Requests, Session};
use ringpost_smtp::dsn::{OfMessage, OfRecipient};

use crate::inspect::Concerned;
use crate::letter::{Delays, Letter, Link, Outcome, Results, Ticket};
use crate::pieces::Piece;
use crate::reason::Carrier;
use crate::settings::best_names;
use crate::shard::{Plant, Shard, World};
use crate::wire::Wire;
use crate::{faults, feedback, limits, pieces, reach, settle, warmup};

/// Connections that wait for work, the one that worked last on top: few stay warm, the others leave in time.
#[derive(Default)]
pub(crate) struct Idle {
    waiting: RefCell<HashMap<RouteId, Vec<oneshot::Sender<()>>>>,
}

impl Idle {
    fn wait(&self, route: RouteId) -> oneshot::Receiver<()> {
        let (wake, woken) = oneshot::channel();
        self.waiting.borrow_mut().entry(route).or_default().push(wake);
        woken
    }

    fn wake_one(&self, route: RouteId) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(wake) = waiting.get_mut(&route).and_then(Vec::pop) {
            if wake.send(()).is_ok() {
                return;
            }
        }
        waiting.remove(&route);
    }

    pub(crate) fn wake_all(&self, route: RouteId) {
        for wake in self.waiting.borrow_mut().remove(&route).into_iter().flatten() {
            // Who has left in the meantime needs no work.
            let _ = wake.send(());
        }
    }
}

/// Servers that offer PIPELINING and lose commands that come together: they hear one command after the other for a while.
#[derive(Default)]
pub(crate) struct Overtaxed {
    servers: RefCell<VecDeque<(IpAddr, Instant)>>,
}

impl Overtaxed {
    fn note(&self, server: IpAddr, now: Instant) {
        let mut servers = self.servers.borrow_mut();
        servers.retain(|(known, _)| *known != server);
        servers.push_back((server, now + limits::ONE_BY_ONE));
        if servers.len() > limits::ONE_BY_ONE_SERVERS {
            servers.pop_front();
        }
    }

    /// Whether a server is one of them.
    pub(crate) fn has(&self, server: IpAddr, now: Instant) -> bool {
        self.servers.borrow().iter().any(|(known, until)| *known == server && *until > now)
    }
}

/// A ticket has arrived at the owner of its route.
pub(crate) fn take_ticket<W: World>(shard: &Rc<Shard<W>>, ticket: Box<Ticket>) {
    if shard.stopping.get() {
        return give_back(shard, *ticket, &Outcome::Untried);
    }
    let (site, hosts, shape) = (ticket.site.clone(), ticket.hosts.clone(), ticket.shape.clone());
    let pushed = shard.routes.borrow_mut().push(&site, (&hosts, &shape), ticket, shard.runtime.now());
    match pushed {
        Ok(route) => {
            shard.idle.wake_one(route);
            open_connections(shard);
        }
        Err((ticket, Refused::Busy)) => give_back(shard, *ticket, &Outcome::Untried),
        Err((ticket, Refused::Paused { until, why })) => {
            let wait = until.saturating_duration_since(shard.runtime.now());
            give_back(shard, *ticket, &Outcome::Paused { wait, reply: unreachable(&why) });
        }
        Err((ticket, Refused::Suspended(suspension))) => give_back(shard, *ticket, &feedback::suspended(suspension)),
    }
}

/// All waiting tickets go home untried: the shard stops.
pub(crate) fn give_back_all<W: World>(shard: &Rc<Shard<W>>) {
    let waiting = shard.routes.borrow_mut().drain();
    waiting.into_iter().for_each(|ticket| give_back(shard, *ticket, &Outcome::Untried));
}

/// Sends tickets home that have waited until the time of their message was over.
pub(crate) async fn sweep<W: World>(shard: &Rc<Shard<W>>) {
    shard.routes.borrow_mut().tidy(shard.runtime.now());
    let mut from = 0;
    loop {
        let (now_ms, now) = (shard.runtime.unix_ms(), shard.runtime.now());
        // However late it has come, it has a chance.
        let is_late = |ticket: &Ticket| ticket.until_ms <= now_ms && now - ticket.ready >= limits::SWEEP;
        let (late, next) = shard.routes.borrow_mut().take_late(from, |ticket| is_late(ticket));
        late.into_iter().for_each(|ticket| give_back(shard, *ticket, &Outcome::Untried));
        let Some(next) = next else { return };
        from = next;
        shard.runtime.yield_now().await;
    }
}

/// Sends tickets home that are concerned: another route may be theirs now, or another shape.
pub(crate) async fn recall<W: World>(shard: &Rc<Shard<W>>, concerned: &Concerned) {
    let is_for = |ticket: &Ticket| {
        let Concerned::Of(changed) = concerned else { return true };
        let names = best_names(&ticket.hosts);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        ticket.recipients.iter().any(|(_, recipient)| {
            let domain = Direction::domain_of(recipient);
            changed.iter().any(|shaping| shaping.fit(None, &domain, &names).is_some())
        })
    };
    let mut from = 0;
    loop {
        let (concerned, next) = shard.routes.borrow_mut().take_late(from, |ticket| is_for(ticket));
        concerned.into_iter().for_each(|ticket| give_back(shard, *ticket, &Outcome::Recalled));
        let Some(next) = next else { return };
        from = next;
        shard.runtime.yield_now().await;
    }
}

fn unreachable(why: &str) -> RemoteReply {
    RemoteReply::local(451, (4, 4, 1), why)
}

pub(crate) fn give_back<W: World>(shard: &Rc<Shard<W>>, ticket: Ticket, outcome: &Outcome) {
    let recipients: Vec<_> = ticket.recipients.iter().map(|(index, _)| (*index, outcome.clone())).collect();
    note(shard, &ticket.site, &recipients);
    let talk = ticket.talked;
    let wait = (shard.runtime.now() - ticket.ready).saturating_sub(talk);
    let delays = Delays { wait, talk, ..Delays::default() };
    let site = counted(shard, &ticket.site);
    send_home(
        shard,
        ticket.home,
        Results {
            message: ticket.message,
            recipients,
            remote: ticket.site.name,
            site,
            link: None,
            delays,
            taken: Some(ticket.taken),
        },
    );
}

/// The name that mail to a site is counted under, if it is.
fn counted<W: World>(shard: &Shard<W>, site: &Site) -> Option<String> {
    shard.settings().config.metrics.sites_max.map(|_| site.name.clone())
}

/// Notes how a site has taken a message; one that took nothing before is told to all homes, which have mail waiting for it.
fn note<W: World>(shard: &Rc<Shard<W>>, site: &Site, outcomes: &[(u16, Outcome)]) {
    let mut troubled = shard.troubled.borrow_mut();
    if outcomes.iter().any(|(_, outcome)| outcome.is_about_site()) {
        if !troubled.contains(site) && troubled.len() < limits::TROUBLED {
            troubled.insert(site.clone());
        }
        return;
    }
    let has_taken = !troubled.is_empty() && outcomes.iter().any(|(_, one)| matches!(one, Outcome::Delivered(_)));
    if has_taken && troubled.remove(site) {
        drop(troubled);
        for home in (0..shard.peers()).filter(|home| *home != shard.me()) {
            shard.outbox.post(home, Letter::Awake(Box::new(site.clone())));
        }
        settle::wake(shard, site);
    }
}

fn send_home<W: World>(shard: &Rc<Shard<W>>, home: usize, results: Results) {
    if home == shard.me() {
        settle::settle(shard, results);
    } else {
        shard.outbox.post(home, Letter::Results(Box::new(results)));
    }
}

pub(crate) fn open_connections<W: World>(shard: &Rc<Shard<W>>) {
    if shard.plant == Plant::LosesWakes && shard.runtime.random_u64().is_multiple_of(16) {
        return;
    }
    loop {
        let next = shard.routes.borrow_mut().open_next(shard.runtime.now());
        let Some((route, site, hosts)) = next else {
            warmup::ask(shard);
            return open_later(shard);
        };
        let task_shard = shard.clone();
        shard.spawn_counted(Class::Delivery, async move { connection(&task_shard, route, &site, &hosts).await });
    }
}

/// Opens connections again when the rates of some route allow one.
fn open_later<W: World>(shard: &Rc<Shard<W>>) {
    let Some(at) = shard.routes.borrow().opens_at() else { return };
    // Who wakes before that looks again: one waits for each time, however often a nearer one comes in between.
    if shard.opens_at.borrow().first().is_some_and(|armed| *armed <= at) {
        return;
    }
    shard.opens_at.borrow_mut().insert(at);
    let task_shard = shard.clone();
    shard.spawn_counted(Class::Delivery, async move {
        let wait = at.saturating_duration_since(task_shard.runtime.now());
        task_shard.runtime.timeout(wait, task_shard.stop.raised()).await;
        task_shard.opens_at.borrow_mut().remove(&at);
        if !task_shard.stopping.get() {
            open_connections(&task_shard);
        }
    });
}

/// A connection to a site.
pub(crate) struct Connection<W: World> {
    pub(crate) stream: Wire<<W::R as Runtime>::Stream>,
    pub(crate) session: Session,
    pub(crate) input: Vec<u8>,
    pub(crate) out: Vec<u8>,
    pub(crate) remote: String,
    /// The server's address; none of a local socket.
    pub(crate) server: Option<IpAddr>,
    /// What is known of the host there belongs to this; none of a local socket.
    pub(crate) place: Option<Place>,
    /// The address that it leaves from, for the log.
    pub(crate) link: Option<Link>,
    /// Then a better host may be back, and this one is left.
    pub(crate) until: Option<Instant>,
    /// So long is waited for a reply, if the route's shape says so.
    pub(crate) reply_timeout: Option<Duration>,
    /// That on its source address, for as long as it lives.
    pub(crate) _hold: Option<Hold>,
    /// That on its host.
    pub(crate) _host_hold: Option<HostHold>,
    /// Its entry in the list of those that carry messages.
    carrier: usize,
}

impl<W: World> Connection<W> {
    pub(crate) fn new(stream: Wire<<W::R as Runtime>::Stream>, session: Session, remote: String) -> Self {
        let (input, out) = (Vec::new(), Vec::new());
        Self {
            stream,
            session,
            input,
            out,
            remote,
            server: None,
            place: None,
            link: None,
            until: None,
            reply_timeout: None,
            _hold: None,
            _host_hold: None,
            carrier: 0,
        }
    }

    /// How long the server has for its next reply.
    fn patience(&self) -> Duration {
        self.reply_timeout.unwrap_or_else(|| self.session.timeout())
    }
}

/// Why a connection is over.
pub(crate) struct Broken(pub(crate) String);

/// One connection from its opening to its end.
async fn connection<W: World>(shard: &Rc<Shard<W>>, route: RouteId, site: &Site, hosts: &[Host]) {
    let began = shard.runtime.now();
    let mut connection = match reach::reach(shard, route, site, hosts).await {
        Ok(connection) => connection,
        Err(reach::Unreached { attempt, why, last, reply }) => {
            // Of an attempt that has met only hosts that are full there is nothing to tell.
            if attempt != Attempt::Full || last.is_some() {
                shard.counters.add(Counter::OutboundFailures, 1);
            }
            if let Some((reply, source)) = &reply {
                feedback::unopened(shard, route, site, (reply, *source), began);
            }
            let now = shard.runtime.now();
            let back = shard.routes.borrow_mut().attempted(route, attempt, now, &why);
            if let Some(last) = last {
                let next = match attempt {
                    Attempt::Full => "mail waits for room at the others".to_owned(),
                    _ => what_follows(shard, route, back.len()),
                };
                faults::tell(shard, &site.name, &last, &next);
            }
            let outcome = Outcome::Transient(unreachable(&why));
            back.into_iter().for_each(|ticket| give_back(shard, *ticket, &outcome));
            return open_connections(shard);
        }
    };
    let connect = shard.runtime.now() - began;
    shard.stages.record(Stage::Connect, connect);
    shard.counters.add(Counter::OutboundConnections, 1);
    shard.routes.borrow_mut().attempted(route, Attempt::Connected, shard.runtime.now(), "");
    if shard.routes.borrow().is_wanted() {
        // Others have waited to see whether the login is good, or for the room of an attempt that came second.
        open_connections(shard);
    }
    let (remote, place) = (connection.remote.clone(), connection.place.take());
    let source = connection.link.map(|link| link.source);
    let carrier = Carrier { remote, route, place, source, message: None };
    connection.carrier = shard.carriers.borrow_mut().insert(carrier);
    carry(shard, route, &mut connection, connect).await;
    shard.carriers.borrow_mut().remove(connection.carrier);
    // Its source is free again for whoever is opened now.
    drop(connection);
    shard.routes.borrow_mut().closed(route, shard.runtime.now());
    open_connections(shard);
}

/// What is done when none of the hosts of a route is of use, and so many of its tickets go home.
fn what_follows<W: World>(shard: &Shard<W>, route: RouteId, deferred: usize) -> String {
    let now = shard.runtime.now();
    let until = shard.routes.borrow().paused_until(route, now);
    let rest = until.map_or_else(String::new, |until| format!(", no other attempt for {} s", (until - now).as_secs()));
    match deferred {
        0 => format!("other connections of the route go on{rest}"),
        1 => format!("1 message deferred{rest}"),
        _ => format!("{deferred} messages deferred{rest}"),
    }
}

/// Carries messages until there are none, the connection has carried its share, or it breaks.
async fn carry<W: World>(shard: &Rc<Shard<W>>, route: RouteId, connection: &mut Connection<W>, connect: Duration) {
    let mut carried = 0;
    let source = connection.link.map_or(IpAddr::from([0, 0, 0, 0]), |link| link.source.to_canonical());
    loop {
        let better = carried > 0 && connection.until.is_some_and(|until| until <= shard.runtime.now());
        let retired = connection.link.is_some_and(|link| {
            carried > 0 && shard.routes.borrow().is_retired(route, link.source, || shard.runtime.now())
        });
        let next = match better || retired || shard.stopping.get() {
            true => Next::Close,
            false => shard.routes.borrow_mut().next_from(route, source, carried, || shard.runtime.now()),
        };
        match next {
            Next::Send(ticket) => {
                if shard.routes.borrow().is_wanted() {
                    open_connections(shard);
                }
                let connect = if carried == 0 { connect } else { Duration::ZERO };
                if !deliver(shard, route, connection, *ticket, connect, carried).await {
                    return leave(shard, route, connection).await;
                }
                carried += 1;
            }
            Next::Wait => {
                warmup::ask(shard);
                if !wait_for_work(shard, route, connection).await {
                    return leave(shard, route, connection).await;
                }
            }
            Next::Later(wait) => {
                shard.routes.borrow_mut().idle(route);
                let go_on = wait_for_token(shard, connection, wait).await;
                shard.routes.borrow_mut().busy(route);
                if !go_on {
                    hand_on(shard, route);
                    return leave(shard, route, connection).await;
                }
            }
            Next::Spent(wait) => {
                shard.routes.borrow_mut().spent(route, source, shard.runtime.now());
                // The work is for another source, if one has a token.
                shard.idle.wake_one(route);
                if shard.routes.borrow().is_wanted() {
                    open_connections(shard);
                }
                let go_on = wait_for_token(shard, connection, wait).await;
                shard.routes.borrow_mut().refreshed(route, source);
                if !go_on {
                    hand_on(shard, route);
                    return leave(shard, route, connection).await;
                }
            }
            Next::Close => {
                hand_on(shard, route);
                return leave(shard, route, connection).await;
            }
        }
    }
}

/// The work that a connection was meant for must wake another one that is idle.
fn hand_on<W: World>(shard: &Shard<W>, route: RouteId) {
    if shard.routes.borrow().has_work(route) {
        shard.idle.wake_one(route);
    }
}

/// Waits until a rate allows a message. False: the peer closes, or the shard stops.
async fn wait_for_token<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<W>, wait: Duration) -> bool {
    let stop = async { shard.stop.raised().await };
    let peer = async {
        // Whatever a server says now, it is a farewell (RFC 5321 §3.8).
        let _ = connection.stream.read(&mut connection.input, limits::REPLY_READ_BYTES).await;
    };
    shard.runtime.timeout(wait, or(stop, peer)).await.is_none()
}

/// False: nothing came in time, or the peer closes.
async fn wait_for_work<W: World>(shard: &Rc<Shard<W>>, route: RouteId, connection: &mut Connection<W>) -> bool {
    let idle = shard.routes.borrow().shape(route).idle;
    let woken = shard.idle.wait(route);
    shard.routes.borrow_mut().idle(route);
    let work = async { woken.await.is_ok() };
    let stop = async {
        shard.stop.raised().await;
        false
    };
    let peer = async {
        // Whatever a server says now, it is a farewell (RFC 5321 §3.8).
        let _ = connection.stream.read(&mut connection.input, limits::REPLY_READ_BYTES).await;
        false
    };
    let go_on = shard.runtime.timeout(idle, or(work, or(stop, peer))).await.unwrap_or(false);
    shard.routes.borrow_mut().busy(route);
    if !go_on {
        hand_on(shard, route);
    }
    go_on
}

/// Says QUIT, where that would be understood. A site that minds how many connections there are counts this one until it has
/// answered, so the next one waits for that.
async fn leave<W: World>(shard: &Rc<Shard<W>>, route: RouteId, connection: &mut Connection<W>) {
    connection.out.clear();
    connection.session.quit(&mut connection.out);
    let is_waited_for = !connection.out.is_empty() && shard.routes.borrow().counts_connections(route);
    // A server that does not wait for our QUIT has lost nothing.
    let sent = send(shard, connection, limits::QUIT).await;
    if sent.is_ok() && is_waited_for {
        let reading = connection.stream.read(&mut connection.input, limits::REPLY_READ_BYTES);
        // Whatever comes, or nothing, it is the end.
        let _ = shard.runtime.timeout(limits::QUIT, reading).await;
    }
}

/// Sends what the session has to say, then reads until it has something to tell. Each reply has its time as a whole: a server
/// that says a byte now and then does not have more of it.
pub(crate) async fn converse<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<W>) -> Result<Said, Broken> {
    let mut asked = shard.runtime.now();
    loop {
        let patience = connection.patience();
        send(shard, connection, patience).await?;
        if !connection.input.is_empty() {
            let replies = connection.session.replies();
            let (used, said) = connection.session.on_input(&connection.input, &mut connection.out);
            connection.input.drain(..used);
            if connection.session.replies() > replies {
                asked = shard.runtime.now();
            }
            match said {
                Said::NeedInput if connection.out.is_empty() => {}
                Said::NeedInput => continue,
                said => return Ok(said),
            }
        }
        let patience = connection.patience();
        let left = patience.saturating_sub(shard.runtime.now() - asked);
        let reading = connection.stream.read(&mut connection.input, limits::REPLY_READ_BYTES);
        match shard.runtime.timeout(left, reading).await {
            Some(Ok(count)) if count > 0 => {}
            Some(Ok(_)) => return Err(Broken("the server closed the connection".into())),
            Some(Err(error)) => return Err(Broken(error.to_string())),
            None => return Err(Broken(format!("no reply within {} s", patience.as_secs()))),
        }
    }
}

pub(crate) async fn send<W: World>(
    shard: &Rc<Shard<W>>,
    connection: &mut Connection<W>,
    patience: Duration,
) -> Result<(), Broken> {
    if connection.out.is_empty() {
        return Ok(());
    }
    let written = shard.runtime.timeout(patience, connection.stream.write_all(&connection.out)).await;
    connection.out.clear();
    match written {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(Broken(error.to_string())),
        None => Err(Broken(format!("the server takes no data for {} s", patience.as_secs()))),
    }
}

/// Carries one message, in as many transactions as the server wants for its recipients. False: the connection is over.
async fn deliver<W: World>(
    shard: &Rc<Shard<W>>,
    route: RouteId,
    connection: &mut Connection<W>,
    mut ticket: Ticket,
    mut connect: Duration,
    carried: u64,
) -> bool {
    let mut is_fresh = carried == 0;
    let mut began = shard.runtime.now();
    let wait = (began - ticket.ready).saturating_sub(connect + ticket.talked);
    shard.stages.record(Stage::QueueWait, wait);
    loop {
        shard.carriers.borrow_mut()[connection.carrier].message = Some((ticket.message, began));
        let ended = transact(shard, connection, &ticket).await;
        shard.carriers.borrow_mut()[connection.carrier].message = None;
        let talk = shard.runtime.now() - began;
        shard.stages.record(Stage::RemoteTransaction, talk);
        ticket.talked += talk;
        let results = match ended {
            Ended::Done(results) => results,
            Ended::Stale(reply) if !is_fresh => {
                // The server is done with the connection: not this message's fault, and nothing of it was answered.
                let results = same(&ticket, &RecipientResult::Transient(reply));
                feedback::answered(shard, route, connection, &ticket, &results, began);
                match ticket.until_ms <= shard.runtime.unix_ms() {
                    // The server has let its time pass.
                    true => give_back(shard, ticket, &Outcome::Untried),
                    false => take_ticket(shard, Box::new(ticket)),
                }
                return false;
            }
            Ended::Stale(reply) | Ended::Broken(reply) => same(&ticket, &RecipientResult::Transient(reply)),
            Ended::NoBody => {
                // One that stops may have had no answer from home.
                let outcome = match shard.stopping.get() {
                    true => Outcome::Untried,
                    false => Outcome::unreadable("its disk does not give the text back"),
                };
                give_back(shard, ticket, &outcome);
                return false;
            }
        };
        feedback::answered(shard, route, connection, &ticket, &results, began);
        let (mut decided, mut rest) = (Vec::new(), Vec::new());
        for (recipient, result) in std::mem::take(&mut ticket.recipients).into_iter().zip(results) {
            match outcome(result) {
                Some(outcome) => decided.push((recipient.0, outcome)),
                None => rest.push(recipient),
            }
        }
        note(shard, &ticket.site, &decided);
        let taken = rest.is_empty().then_some(ticket.taken);
        let reports = connection.session.offered().dsn;
        let (remote, link) = (connection.remote.clone(), connection.link.map(|link| Link { reports, ..link }));
        let delays = Delays { wait, connect, talk: ticket.talked };
        let site = counted(shard, &ticket.site);
        let results = Results { message: ticket.message, recipients: decided, remote, site, link, delays, taken };
        send_home(shard, ticket.home, results);
        if taken.is_some() {
            return connection.session.takes_more();
        }
        ticket.recipients = rest;
        if !connection.session.takes_more() {
            take_ticket(shard, Box::new(ticket));
            return false;
        }
        (is_fresh, connect, began) = (false, Duration::ZERO, shard.runtime.now());
    }
}

fn same(ticket: &Ticket, result: &RecipientResult) -> Vec<RecipientResult> {
    vec![result.clone(); ticket.recipients.len()]
}

/// `None`: it goes on in the next transaction.
fn outcome(result: RecipientResult) -> Option<Outcome> {
    match result {
        RecipientResult::Delivered(reply) => Some(Outcome::Delivered(reply)),
        RecipientResult::NextTransaction(_) => None,
        RecipientResult::Transient(reply) => Some(Outcome::Transient(reply)),
        RecipientResult::Permanent(reply) => Some(Outcome::Permanent(reply)),
    }
}

enum Ended {
    Done(Vec<RecipientResult>),
    /// The connection came to its end before the server answered anything to this message.
    Stale(RemoteReply),
    Broken(RemoteReply),
    /// Home cannot read the body now.
    NoBody,
}

async fn transact<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<W>, ticket: &Ticket) -> Ended {
    if !connection.input.is_empty() {
        // The server has said more than it was asked; its next words would be taken for answers.
        connection.session.abandon(unasked());
        return Ended::Stale(unasked());
    }
    let recipients: Vec<&str> = ticket.recipients.iter().map(|(_, path)| path.as_str()).collect();
    let request = |(index, _): &(u16, String)| {
        let found = ticket.requests.binary_search_by_key(index, |(of, _)| *of);
        found.map_or_else(|_| OfRecipient::default(), |at| OfRecipient::parse(&ticket.requests[at].1))
    };
    let asks = connection.session.offered().dsn && !ticket.requests.is_empty();
    let requests: Vec<OfRecipient<'_>> = ticket.recipients.iter().filter(|_| asks).map(request).collect();
    let envelope = Envelope {
        sender: &ticket.sender,
        recipients: &recipients,
        size: ticket.body_bytes,
        eightbit: ticket.eightbit,
        smtputf8: ticket.smtputf8,
        requiretls: ticket.requires_tls,
        priority: ticket.priority,
        requests: Requests {
            message: OfMessage { ret: ticket.ret, envid: &ticket.envid, verp: None },
            recipients: &requests,
        },
    };
    if let Err(results) = connection.session.begin(&envelope, &mut connection.out) {
        return Ended::Done(results);
    }
    loop {
        let said = match converse(shard, connection).await {
            Ok(said) => said,
            Err(Broken(why)) => return broken(shard, connection, why),
        };
        match said {
            Said::SendBody => match send_body(shard, connection, ticket).await {
                Ok(()) => connection.session.body_sent(),
                Err(Unsent::Unreadable) => {
                    connection.session.abandon(unreachable("the message cannot be read now"));
                    return Ended::NoBody;
                }
                Err(Unsent::Broken(why)) => match last_words(shard, connection).await {
                    Some(results) => return Ended::Done(results),
                    None => return broken(shard, connection, why),
                },
            },
            Said::Done(results) if connection.session.is_closing() && !connection.session.has_answered() => {
                // 421, or what else ends a connection: of this message nothing was said.
                let reply = results.into_iter().next().map_or_else(unasked, |result| result.reply().clone());
                return Ended::Stale(reply);
            }
            Said::Done(results) => return Ended::Done(results),
            Said::Failed(reply) | Said::LoginRefused(reply) => return Ended::Broken(reply),
            Said::Ready | Said::NeedInput | Said::StartTls | Said::Challenged => {}
        }
    }
}

fn unasked() -> RemoteReply {
    RemoteReply::local(451, (4, 5, 0), "the next server replied out of order")
}

/// A server that does not want the whole message may say so and close the connection while we still write: what it said is
/// its answer.
async fn last_words<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<W>) -> Option<Vec<RecipientResult>> {
    connection.out.clear();
    let reading = connection.stream.read(&mut connection.input, limits::REPLY_READ_BYTES);
    match shard.runtime.timeout(limits::LAST_WORDS, reading).await {
        Some(Ok(count)) if count > 0 => {}
        _ => return None,
    }
    let (_, said) = connection.session.on_input(&connection.input, &mut connection.out);
    match said {
        Said::Done(results) => Some(results),
        _ => None,
    }
}

/// The connection broke in the middle: recipients that were refused before stay refused.
fn broken<W: World>(shard: &Shard<W>, connection: &mut Connection<W>, why: String) -> Ended {
    let reply = RemoteReply::local(451, (4, 4, 2), why);
    if connection.session.is_in_pipeline()
        && connection.session.has_answered()
        && let Some(server) = connection.server
    {
        shard.overtaxed.note(server, shard.runtime.now());
    }
    let has_answered = connection.session.has_answered();
    match connection.session.abandon(reply.clone()) {
        Some(results) if has_answered => Ended::Done(results),
        Some(_) => Ended::Stale(reply),
        None => Ended::Broken(reply),
    }
}

/// Why a body did not go out.
enum Unsent {
    Broken(String),
    Unreadable,
}

async fn send_body<W: World>(
    shard: &Rc<Shard<W>>,
    connection: &mut Connection<W>,
    ticket: &Ticket,
) -> Result<(), Unsent> {
    let mut stuffer = Stuffer::new();
    let broken = |Broken(why): Broken| Unsent::Broken(why);
    match &ticket.body {
        Some(body) => stuffer.stuff(body, &mut connection.out),
        None => {
            let mut at = 0;
            while at < ticket.body_bytes {
                let piece =
                    fetch(shard, ticket, at).await.filter(|piece| !piece.is_empty()).ok_or(Unsent::Unreadable)?;
                at += piece.len() as u64;
                stuffer.stuff(&piece, &mut connection.out);
                send(shard, connection, limits::BODY_WRITE).await.map_err(broken)?;
            }
        }
    }
    stuffer.finish(&mut connection.out);
    send(shard, connection, limits::BODY_WRITE).await.map_err(broken)
}

/// A piece of a large body, from our own journal or by way of the ring from the home shard's.
async fn fetch<W: World>(shard: &Rc<Shard<W>>, ticket: &Ticket, at: u64) -> Option<Piece> {
    let len = (ticket.body_bytes - at).min(limits::BODY_PIECE_BYTES);
    if ticket.home == shard.me() {
        return pieces::read(shard, MessageId(ticket.message), at, len as usize).await;
    }
    let question = shard.next_fetch.get();
    shard.next_fetch.set(question + 1);
    let (answer, wait) = oneshot::channel();
    shard.fetches.borrow_mut().insert(question, answer);
    shard.outbox.post(ticket.home, Letter::Fetch { message: ticket.message, at, len: len as u32, question });
    wait.await.ok().flatten()
}

/// Reads a piece for the owner of a route.
pub(crate) fn answer_fetch<W: World>(shard: &Rc<Shard<W>>, to: usize, id: MessageId, at: u64, len: u32, question: u64) {
    let task_shard = shard.clone();
    shard.spawn_counted(Class::Delivery, async move {
        let bytes = pieces::read(&task_shard, id, at, len as usize).await;
        task_shard.outbox.post(to, Letter::Piece { question, bytes });
    });
}
