//! The owner's side of a route: takes tickets, opens connections as `routes` says, carries messages, sends results home.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_lite::future::or;
use ringpost_io::{Class, Runtime, Stream};
use ringpost_perf::{Counter, Stage};
use ringpost_queue::MessageId;
use ringpost_routes::{Attempt, Host, Next, Refused, RouteId, Site};
use ringpost_smtp::Stuffer;
use ringpost_smtp::client::{Envelope, Event as Said, RecipientResult, RemoteReply, Session};

use crate::letter::{Delays, Letter, Link, Outcome, Results, Ticket};
use crate::shard::{Shard, World};
use crate::wire::Wire;
use crate::{limits, reach, settle};

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
}

/// A ticket has arrived at the owner of its route.
pub(crate) fn take_ticket<W: World>(shard: &Rc<Shard<W>>, ticket: Box<Ticket>) {
    if shard.stopping.get() {
        return give_back(shard, *ticket, &Outcome::Untried);
    }
    let (site, hosts) = (ticket.site.clone(), ticket.hosts.clone());
    let pushed = shard.routes.borrow_mut().push(&site, &hosts, ticket, shard.runtime.now());
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
    }
}

/// All waiting tickets go home untried: the shard stops.
pub(crate) fn give_back_all<W: World>(shard: &Rc<Shard<W>>) {
    let waiting = shard.routes.borrow_mut().drain();
    waiting.into_iter().for_each(|ticket| give_back(shard, *ticket, &Outcome::Untried));
}

fn unreachable(why: &str) -> RemoteReply {
    RemoteReply::local(451, (4, 4, 1), why)
}

fn give_back<W: World>(shard: &Rc<Shard<W>>, ticket: Ticket, outcome: &Outcome) {
    let recipients = ticket.recipients.iter().map(|(index, _)| (*index, outcome.clone())).collect();
    let delays = Delays { wait: shard.runtime.now() - ticket.ready, ..Delays::default() };
    send_home(
        shard,
        ticket.home,
        Results { message: ticket.message, recipients, remote: ticket.site.name, link: None, delays },
    );
}

fn send_home<W: World>(shard: &Rc<Shard<W>>, home: usize, results: Results) {
    if home == shard.me() {
        settle::settle(shard, results);
    } else {
        shard.outbox.post(home, Letter::Results(Box::new(results)));
    }
}

fn open_connections<W: World>(shard: &Rc<Shard<W>>) {
    loop {
        let next = shard.routes.borrow_mut().open_next(shard.runtime.now());
        let Some((route, site, hosts)) = next else { return };
        let task_shard = shard.clone();
        shard.spawn_counted(Class::Delivery, async move { connection(&task_shard, route, &site, &hosts).await });
    }
}

/// A connection to a site.
pub(crate) struct Connection<W: World> {
    pub(crate) stream: Wire<<W::R as Runtime>::Stream>,
    pub(crate) session: Session,
    pub(crate) input: Vec<u8>,
    pub(crate) out: Vec<u8>,
    pub(crate) remote: String,
    /// The address that it leaves from, for the log.
    pub(crate) link: Option<Link>,
}

impl<W: World> Connection<W> {
    pub(crate) fn new(stream: Wire<<W::R as Runtime>::Stream>, session: Session, remote: String) -> Self {
        Self { stream, session, input: Vec::new(), out: Vec::new(), remote, link: None }
    }
}

/// Why a connection is over.
pub(crate) struct Broken(pub(crate) String);

/// One connection from its opening to its end.
async fn connection<W: World>(shard: &Rc<Shard<W>>, route: RouteId, site: &Site, hosts: &[Host]) {
    let began = shard.runtime.now();
    let mut connection = match reach::reach(shard, route, site, hosts).await {
        Ok(connection) => connection,
        Err(why) => {
            shard.counters.add(Counter::OutboundFailures, 1);
            let now = shard.runtime.now();
            let back = shard.routes.borrow_mut().attempted(route, Attempt::Failed, now, &why);
            let outcome = Outcome::Transient(unreachable(&why));
            back.into_iter().for_each(|ticket| give_back(shard, *ticket, &outcome));
            return open_connections(shard);
        }
    };
    let connect = shard.runtime.now() - began;
    shard.stages.record(Stage::Connect, connect);
    shard.counters.add(Counter::OutboundConnections, 1);
    shard.routes.borrow_mut().attempted(route, Attempt::Connected, shard.runtime.now(), "");
    carry(shard, route, &mut connection, connect).await;
    shard.routes.borrow_mut().closed(route, shard.runtime.now());
    open_connections(shard);
}

/// Carries messages until there are none, the connection has carried its share, or it breaks.
async fn carry<W: World>(shard: &Rc<Shard<W>>, route: RouteId, connection: &mut Connection<W>, connect: Duration) {
    let mut carried = 0;
    loop {
        let next = if shard.stopping.get() { Next::Close } else { shard.routes.borrow_mut().next(route, carried) };
        match next {
            Next::Send(ticket) => {
                let connect = if carried == 0 { connect } else { Duration::ZERO };
                if !deliver(shard, connection, *ticket, connect, carried).await {
                    return;
                }
                carried += 1;
            }
            Next::Wait => {
                if !wait_for_work(shard, route, connection).await {
                    return leave(shard, connection).await;
                }
            }
            Next::Close => return leave(shard, connection).await,
        }
    }
}

/// False: nothing came in time, or the peer closes.
async fn wait_for_work<W: World>(shard: &Rc<Shard<W>>, route: RouteId, connection: &mut Connection<W>) -> bool {
    let idle = shard.routes.borrow().limits().idle;
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
    let mut routes = shard.routes.borrow_mut();
    routes.busy(route);
    let has_work = routes.has_work(route);
    drop(routes);
    if !go_on && has_work {
        // The work that was meant for us must wake somebody else.
        shard.idle.wake_one(route);
    }
    go_on
}

async fn leave<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<W>) {
    connection.session.quit(&mut connection.out);
    // A server that does not wait for our QUIT has lost nothing.
    let _ = send(shard, connection, limits::QUIT).await;
}

/// Sends what the session has to say, then reads until it has something to tell.
pub(crate) async fn converse<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<W>) -> Result<Said, Broken> {
    loop {
        let patience = connection.session.timeout();
        send(shard, connection, patience).await?;
        if !connection.input.is_empty() {
            let (used, said) = connection.session.on_input(&connection.input, &mut connection.out);
            connection.input.drain(..used);
            match said {
                Said::NeedInput if connection.out.is_empty() => {}
                Said::NeedInput => continue,
                said => return Ok(said),
            }
        }
        let reading = connection.stream.read(&mut connection.input, limits::REPLY_READ_BYTES);
        match shard.runtime.timeout(patience, reading).await {
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

/// Carries one message. False: the connection is over.
async fn deliver<W: World>(
    shard: &Rc<Shard<W>>,
    connection: &mut Connection<W>,
    ticket: Ticket,
    connect: Duration,
    carried: u64,
) -> bool {
    let began = shard.runtime.now();
    let wait = (began - ticket.ready).saturating_sub(connect);
    shard.stages.record(Stage::QueueWait, wait);
    let ended = transact(shard, connection, &ticket).await;
    let talk = shard.runtime.now() - began;
    shard.stages.record(Stage::RemoteTransaction, talk);
    let delays = Delays { wait, connect, talk };
    let (results, go_on) = match ended {
        Ended::Done(results) => {
            let go_on = connection.session.is_ready();
            (results.into_iter().map(outcome).collect(), go_on)
        }
        Ended::Stale if carried > 0 => {
            // The server had closed the idle connection: not this message's fault, and nothing was sent of it.
            take_ticket(shard, Box::new(ticket));
            return false;
        }
        Ended::Stale => (same(&ticket, &Outcome::Transient(unreachable("the server closed the connection"))), false),
        Ended::Broken(reply) => (same(&ticket, &Outcome::Transient(reply)), false),
        Ended::NoBody => (same(&ticket, &Outcome::Untried), false),
    };
    let recipients = ticket.recipients.iter().map(|(index, _)| *index).zip(results).collect();
    let (remote, link) = (connection.remote.clone(), connection.link);
    send_home(shard, ticket.home, Results { message: ticket.message, recipients, remote, link, delays });
    go_on
}

fn same(ticket: &Ticket, outcome: &Outcome) -> Vec<Outcome> {
    vec![outcome.clone(); ticket.recipients.len()]
}

fn outcome(result: RecipientResult) -> Outcome {
    match result {
        RecipientResult::Delivered(reply) => Outcome::Delivered(reply),
        RecipientResult::Transient(reply) => Outcome::Transient(reply),
        RecipientResult::Permanent(reply) => Outcome::Permanent(reply),
    }
}

enum Ended {
    Done(Vec<RecipientResult>),
    /// The connection broke before the server answered anything.
    Stale,
    Broken(RemoteReply),
    /// Home cannot read the body now.
    NoBody,
}

async fn transact<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<W>, ticket: &Ticket) -> Ended {
    let recipients: Vec<&str> = ticket.recipients.iter().map(|(_, path)| path.as_str()).collect();
    let envelope = Envelope {
        sender: &ticket.sender,
        recipients: &recipients,
        size: ticket.body_bytes,
        eightbit: ticket.eightbit,
        smtputf8: ticket.smtputf8,
    };
    if let Err(results) = connection.session.begin(&envelope, &mut connection.out) {
        return Ended::Done(results);
    }
    let mut answered = false;
    loop {
        match converse(shard, connection).await {
            Ok(Said::SendBody) => {
                answered = true;
                match send_body(shard, connection, ticket).await {
                    Ok(()) => connection.session.body_sent(),
                    Err(Unsent::Unreadable) => return Ended::NoBody,
                    Err(Unsent::Broken(why)) => return broken(connection, why),
                }
            }
            Ok(Said::Done(results)) => return Ended::Done(results),
            Ok(Said::Failed(reply)) => return Ended::Broken(reply),
            Ok(Said::Ready | Said::NeedInput | Said::StartTls) => {}
            Err(Broken(_)) if !answered => return Ended::Stale,
            Err(Broken(why)) => return broken(connection, why),
        }
    }
}

/// The connection broke in the middle: recipients that were refused before stay refused.
fn broken<W: World>(connection: &mut Connection<W>, why: String) -> Ended {
    let reply = RemoteReply::local(451, (4, 4, 2), why);
    match connection.session.abandon(reply.clone()) {
        Some(results) => Ended::Done(results),
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
async fn fetch<W: World>(shard: &Rc<Shard<W>>, ticket: &Ticket, at: u64) -> Option<Vec<u8>> {
    let len = (ticket.body_bytes - at).min(limits::BODY_PIECE_BYTES);
    if ticket.home == shard.me() {
        return shard.queue.read_body(MessageId(ticket.message), at, len as usize).await.ok();
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
        let bytes = task_shard.queue.read_body(id, at, len as usize).await;
        if let Err(error) = &bytes {
            task_shard.warn(&format!("queue: cannot read the text of message {id}: {error}"));
        }
        task_shard.outbox.post(to, Letter::Piece { question, bytes: bytes.ok() });
    });
}
