//! LMTP: a connection to a mail store carries what waits for it, one message after the other, each with all its recipients
//! there. It is opened when there is something to carry and closed when there is not: the store is near.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringpost_io::Runtime;
use ringpost_perf::Stage;
use ringpost_queue::Flags;
use ringpost_smtp::Stuffer;
use ringpost_smtp::client::{Envelope, Event, RecipientResult, RemoteReply, Requests, Session};

use super::text::{Pieces, unreadable};
use super::turns::Turns;
use super::{Delivery, Target, finish};
use crate::letter::{Delays, Outcome};
use crate::limits;
use crate::outbound::{Broken, Connection, converse, send};
use crate::shard::{Shard, World};
use crate::wire::Wire;

/// Where a mail store listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    /// TCP.
    Address(SocketAddr),
    /// A local socket.
    Socket(PathBuf),
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A store that could not be reached a short time ago.
pub(super) struct Away {
    pub(super) until: Instant,
    why: String,
}

/// Carries a message, and what else waits for the same store.
pub(super) async fn carry<W: World>(shard: &Rc<Shard<W>>, store: &Store, first: Vec<Delivery>) {
    let mut next = Some(first);
    while let Some(message) = next {
        let began = shard.runtime.now();
        let mut open = match reach(shard, store).await {
            Ok(connection) => connection,
            Err(why) => return away(shard, store, message, &why),
        };
        let connect = shard.runtime.now() - began;
        shard.stages.record(Stage::Connect, connect);
        next = match use_up(shard, &mut open, store, message, connect).await {
            Ok(next) => next,
            Err(message) => return away(shard, store, message, "the server closed the connection"),
        };
        leave(shard, &mut open).await;
    }
}

/// Carries messages while the connection is good for them; what is left for another. `Err`: not even the first.
async fn use_up<W: World>(
    shard: &Rc<Shard<W>>,
    open: &mut Connection<W>,
    store: &Store,
    first: Vec<Delivery>,
    connect: Duration,
) -> Result<Option<Vec<Delivery>>, Vec<Delivery>> {
    if let Carried::Stale(message) = transact(shard, open, store, first, Some(connect)).await {
        return Err(message);
    }
    for _ in 1..limits::STORE_MESSAGES {
        let Some(message) = more(shard, store) else { return Ok(None) };
        if !open.session.is_ready() {
            return Ok(Some(message));
        }
        // One that it has closed after the last message is no fault of this one.
        if let Carried::Stale(message) = transact(shard, open, store, message, None).await {
            return Ok(Some(message));
        }
    }
    Ok(more(shard, store))
}

/// The next message that waits for this store.
fn more<W: World>(shard: &Shard<W>, store: &Store) -> Option<Vec<Delivery>> {
    let mut stores = shard.locals.stores.borrow_mut();
    let first = stores.next_of(store, |_| true)?;
    Some(gather(&mut stores, store, first))
}

/// With all recipients of it that wait behind the first.
pub(super) fn gather(stores: &mut Turns<Store, Delivery>, store: &Store, first: Delivery) -> Vec<Delivery> {
    let id = first.id;
    let mut all = vec![first];
    while all.len() < limits::RECIPIENTS_PER_TICKET
        && let Some(next) = stores.next_of(store, |next| next.id == id)
    {
        all.push(next);
    }
    all
}

/// The store cannot be reached: what waits for it is not tried for a while, so that each need not find out by itself.
fn away<W: World>(shard: &Rc<Shard<W>>, store: &Store, message: Vec<Delivery>, why: &str) {
    let why = format!("{store}: {why}");
    let until = shard.runtime.now() + limits::STORE_AWAY;
    let mut all = shard.locals.away.borrow_mut();
    all.retain(|_, away| away.until > shard.runtime.now());
    all.insert(store.clone(), Away { until, why: why.clone() });
    drop(all);
    let outcome = Outcome::Transient(RemoteReply::local(451, (4, 4, 1), why));
    message.iter().for_each(|delivery| finish(shard, delivery, outcome.clone(), Delays::default()));
    while let Some(message) = more(shard, store) {
        let outcome = pause(shard, store).unwrap_or(Outcome::Untried);
        message.iter().for_each(|delivery| finish(shard, delivery, outcome.clone(), Delays::default()));
    }
}

/// The outcome of a delivery to a store that is away.
pub(super) fn pause<W: World>(shard: &Shard<W>, store: &Store) -> Option<Outcome> {
    let all = shard.locals.away.borrow();
    let away = all.get(store).filter(|away| away.until > shard.runtime.now())?;
    let reply = RemoteReply::local(451, (4, 4, 1), away.why.clone());
    Some(Outcome::Paused { wait: away.until - shard.runtime.now(), reply })
}

async fn reach<W: World>(shard: &Rc<Shard<W>>, store: &Store) -> Result<Connection<W>, String> {
    let connected = match store {
        Store::Address(address) => shard.runtime.connect(*address, None, limits::CONNECT).await,
        Store::Socket(path) => shard.runtime.connect_unix(path, limits::CONNECT).await,
    };
    let stream = connected.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        _ => error.to_string(),
    })?;
    let session = Session::lmtp(shard.hostname.clone());
    let mut open = Connection::new(Wire::new(stream), session, store.to_string());
    match converse(shard, &mut open).await {
        Ok(Event::Ready) => Ok(open),
        Ok(Event::Failed(reply)) => Err(format!("greeted with {reply}")),
        Ok(_) => Err("the server's greeting makes no sense".into()),
        Err(Broken(why)) => Err(why),
    }
}

async fn leave<W: World>(shard: &Rc<Shard<W>>, open: &mut Connection<W>) {
    open.session.quit(&mut open.out);
    // A server that does not wait for our QUIT has lost nothing.
    let _ = send(shard, open, limits::QUIT).await;
}

/// What became of a message on a connection. `connect` of `transact` is the time that it took to open, for the first.
enum Carried {
    /// Every recipient has its outcome.
    All,
    /// The connection was gone before the server had said anything of it.
    Stale(Vec<Delivery>),
}

async fn transact<W: World>(
    shard: &Rc<Shard<W>>,
    open: &mut Connection<W>,
    store: &Store,
    message: Vec<Delivery>,
    connect: Option<Duration>,
) -> Carried {
    let began = shard.runtime.now();
    let outcomes = if shard.stopping.get() {
        vec![Outcome::Untried; message.len()]
    } else {
        match speak(shard, open, &message).await {
            Some(outcomes) if connect.is_some() || !is_farewell(open, &outcomes) => outcomes,
            _ => return Carried::Stale(message),
        }
    };
    let talk = shard.runtime.now() - began;
    shard.stages.record(Stage::Local, talk);
    for (delivery, outcome) in message.iter().zip(outcomes) {
        let outcome = named(store, outcome);
        let connect = connect.unwrap_or_default();
        finish(shard, delivery, outcome, Delays { connect, talk, ..Delays::default() });
    }
    Carried::All
}

/// The store has had enough of this connection, and says so when it hears of another message.
fn is_farewell<W: World>(open: &Connection<W>, outcomes: &[Outcome]) -> bool {
    let says_so = |outcome: &Outcome| matches!(outcome, Outcome::Transient(reply) if reply.code() == 421);
    open.session.is_closing() && outcomes.iter().all(says_so)
}

/// A reply of the store is told as it came; what went wrong on the way names it.
fn named(store: &Store, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Transient(reply) if reply.status() == Some((4, 4, 2)) => {
            Outcome::Transient(RemoteReply::local(451, (4, 4, 2), format!("{store}: {}", reply.text())))
        }
        other => other,
    }
}

/// One message. None: the connection broke before the server had answered anything.
async fn speak<W: World>(shard: &Rc<Shard<W>>, open: &mut Connection<W>, message: &[Delivery]) -> Option<Vec<Outcome>> {
    let first = &message[0];
    let recipients: Vec<&str> = message.iter().map(told_recipient).collect();
    let envelope = Envelope {
        sender: &first.sender,
        recipients: &recipients,
        size: first.body_bytes,
        eightbit: first.flags.contains(Flags::EIGHTBIT),
        smtputf8: first.flags.contains(Flags::SMTPUTF8),
        requiretls: false,
        priority: first.flags.priority(),
        requests: Requests::default(),
    };
    let outcomes = |results: Vec<RecipientResult>| Some(results.into_iter().map(outcome).collect());
    if let Err(results) = open.session.begin(&envelope, &mut open.out) {
        return outcomes(results);
    }
    loop {
        match converse(shard, open).await {
            Ok(Event::SendBody) => match send_body(shard, open, first).await {
                Ok(()) => open.session.body_sent(),
                Err(Unsent::Unreadable(lost)) => return Some(withhold(open, &lost, message.len())),
                Err(Unsent::Broken(why)) => return outcomes(abandon(open, &why, message.len())),
            },
            Ok(Event::Done(results)) => return outcomes(results),
            Ok(Event::Failed(reply) | Event::LoginRefused(reply)) => {
                return Some(vec![Outcome::Transient(reply); message.len()]);
            }
            Ok(Event::Ready | Event::NeedInput | Event::StartTls | Event::Challenged) => {}
            Err(Broken(_)) if !open.session.has_answered() => return None,
            Err(Broken(why)) => return outcomes(abandon(open, &why, message.len())),
        }
    }
}

/// What RCPT says: by the action's `rcpt-to`, or the address after expansion.
fn told_recipient(delivery: &Delivery) -> &str {
    match &delivery.target {
        Target::Lmtp { recipient, .. } => recipient,
        Target::Maildir { .. } | Target::User { .. } => &delivery.recipient,
    }
}

/// The connection broke in the middle: recipients whose result has come keep it.
fn abandon<W: World>(open: &mut Connection<W>, why: &str, count: usize) -> Vec<RecipientResult> {
    let reply = RemoteReply::local(451, (4, 4, 2), why);
    open.session.abandon(reply.clone()).unwrap_or_else(|| vec![RecipientResult::Transient(reply); count])
}

/// The text cannot be read: whom the store has refused it has refused, and for all others that is the reason.
fn withhold<W: World>(open: &mut Connection<W>, lost: &Outcome, count: usize) -> Vec<Outcome> {
    let ours = |result| match outcome(result) {
        Outcome::Transient(reply) if reply.is_ours() => lost.clone(),
        of_store => of_store,
    };
    abandon(open, "", count).into_iter().map(ours).collect()
}

fn outcome(result: RecipientResult) -> Outcome {
    match result {
        RecipientResult::Delivered(reply) => Outcome::Delivered(reply),
        RecipientResult::Transient(reply) | RecipientResult::NextTransaction(reply) => Outcome::Transient(reply),
        RecipientResult::Permanent(reply) => Outcome::Permanent(reply),
    }
}

/// Why a text did not go out.
enum Unsent {
    Broken(String),
    Unreadable(Outcome),
}

async fn send_body<W: World>(
    shard: &Rc<Shard<W>>,
    open: &mut Connection<W>,
    delivery: &Delivery,
) -> Result<(), Unsent> {
    let broken = |Broken(why): Broken| Unsent::Broken(why);
    let of_text = |error: io::Error| {
        let why = || Unsent::Broken(format!("cannot read the message: {error}"));
        unreadable(&error).map_or_else(why, Unsent::Unreadable)
    };
    let mut stuffer = Stuffer::new();
    let mut pieces = Pieces::of(delivery);
    while let Some(piece) = pieces.next(shard).await.map_err(of_text)? {
        stuffer.stuff(&piece, &mut open.out);
        if open.out.len() >= limits::READ_BYTES {
            send(shard, open, limits::BODY_WRITE).await.map_err(broken)?;
        }
    }
    stuffer.finish(&mut open.out);
    send(shard, open, limits::BODY_WRITE).await.map_err(broken)
}
