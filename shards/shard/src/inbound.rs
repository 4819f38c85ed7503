//! A client's connection: reads, steps the session, does what the step says, writes. Decides nothing itself.

use std::cell::OnceCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bumpalo::Bump;
use futures_lite::future::or;
use ringpost_io::{Peer, Runtime, Stream};
use ringpost_perf::{Counter, Stage};
use ringpost_smtp::limits::RELEASE_MAX;
use ringpost_smtp::server::{Session, Step};
use ringpost_smtp::{Reply, Transaction};

use crate::ask::Ask;
use crate::body::Incoming;
use crate::certified;
use crate::event::{Event, Origin};
use crate::limits;
use crate::login;
use crate::recipient::{Client, First, Recipients};
use crate::replies;
use crate::returned;
use crate::secure;
use crate::settings::Settings;
use crate::shard::{Shard, World};
use crate::submit;
use crate::wire::Wire;

/// One connection. Small while it waits: what a transaction needs lives only as long as that.
struct Connection<S> {
    wire: Wire<S>,
    session: Session,
    input: Vec<u8>,
    /// Bytes of `input` that the session has consumed.
    used: usize,
    out: Vec<u8>,
    /// When the bytes that are being worked on arrived.
    arrived: Instant,
    client: Client,
    settings: Rc<Settings>,
}

enum End {
    /// Go on with a fresh transaction.
    Transaction,
    /// The connection is over.
    Connection,
}

/// Speaks with one client until either side leaves.
pub(crate) async fn serve<W: World>(
    shard: &Rc<Shard<W>>,
    stream: <W::R as Runtime>::Stream,
    peer: Peer,
    listener: usize,
    session_id: u64,
) {
    let settings = shard.settings();
    let listener = settings.listener_of(peer, listener);
    let Some(policy) = settings.policies.get(listener) else { return };
    let now = shard.runtime.now();
    let wire = Wire::new(stream);
    let local = wire.local_addr();
    let tls_first = policy.tls_first;
    let mut connection = Connection {
        wire,
        session: Session::new(policy.smtp_at(local.ip()), now),
        input: Vec::new(),
        used: 0,
        out: Vec::new(),
        arrived: now,
        client: Client {
            origin: Origin::of(peer),
            local: local.ip(),
            listener,
            session: session_id,
            secured: None,
            user: None,
            proceeding: None,
            is_unsure: false,
            is_named: OnceCell::new(),
        },
        settings,
    };
    if connection.client.origin.address().is_none_or(|from| connection.settings.is_local(from, local.ip())) {
        connection.session.on_local();
    }
    connection.session.offer_release(shard.runtime.unix_ms() / 1000 + RELEASE_MAX.as_secs());
    if tls_first && !encrypt(shard, &mut connection).await {
        return;
    }
    connection.session.greet(&mut connection.out);
    let mut arena = Bump::new();
    while let End::Transaction = transaction(shard, &mut connection, &arena).await {
        arena.reset();
    }
    // Whoever no longer reads has no use for it either.
    shard.runtime.timeout(limits::TURN_AWAY, connection.wire.end()).await;
}

/// From one clean state of the session to the next: at most one message.
async fn transaction<W: World>(
    shard: &Rc<Shard<W>>,
    connection: &mut Connection<<W::R as Runtime>::Stream>,
    arena: &Bump,
) -> End {
    let mut tx = Transaction::new(arena);
    let mut recipients = Recipients::default();
    let mut message: Option<Box<Receiving>> = None;
    loop {
        let now = shard.runtime.now();
        let Connection { session, input, used, out, .. } = connection;
        let (consumed, step) = session.step(now, &input[*used..], &mut tx, out);
        *used += consumed;
        match step {
            Step::NeedInput => {
                if !exchange(shard, connection).await {
                    return End::Connection;
                }
            }
            Step::Flush => {
                if !flush(shard, connection).await {
                    return End::Connection;
                }
            }
            // Boxed: most connections never log in.
            Step::Auth => Box::pin(log_in(shard, connection)).await,
            Step::Mail => {
                let mut verdict = may_send(shard);
                if verdict.is_ok() && connection.client.is_unsure {
                    verdict = Box::pin(certify(shard, connection)).await;
                }
                let Connection { session, out, client, .. } = connection;
                if client.user.as_deref() != session.user() {
                    client.user = session.user().map(Box::from);
                }
                let senders = &connection.settings.policies[client.listener].senders;
                if let (Ok(()), Some(senders), Some(user)) = (&verdict, senders, &client.user) {
                    let asks = login::may_be(shard, &connection.settings, senders, user, tx.reverse_path());
                    verdict = Box::pin(asks).await;
                }
                session.on_mail(verdict, out);
            }
            Step::Recipient(path) => {
                let (client, settings) = (&connection.client, &connection.settings);
                let verdict = match recipients.decide(shard, client, settings, session.helo(), &tx, path) {
                    First::Verdict(verdict) => verdict,
                    // Boxed: a connection that expands nothing must not hold room for it.
                    First::Expand => {
                        Box::pin(recipients.expand(shard, client, settings, session.helo(), &tx, path)).await
                    }
                };
                session.on_recipient(verdict, &mut tx, out);
            }
            Step::Data => {
                let (client, settings) = (&connection.client, &connection.settings);
                let mut receiving = Receiving::begin(now, masquerade(settings, client, &tx));
                if returned::is_read(shard, settings, &tx, recipients.are_read(settings).any(|reads| reads)) {
                    receiving.incoming.read_by(Box::default());
                }
                message = Some(receiving);
                session.on_data(if shard.stopping.get() { Err(replies::stopping()) } else { Ok(()) }, out);
            }
            Step::Body(piece) => {
                let receiving = message.get_or_insert_with(|| {
                    Receiving::begin(now, masquerade(&connection.settings, &connection.client, &tx))
                });
                receiving.incoming.append(&shard.queue, piece, connection.settings.spool_bytes).await;
            }
            Step::Commit => {
                let Some(receiving) = message.take() else { return End::Connection };
                commit(shard, connection, &tx, recipients, *receiving).await;
                return End::Transaction;
            }
            Step::Reset => return End::Transaction,
            // Boxed: a connection that is plain must not hold room for it.
            Step::StartTls => match Box::pin(start_tls(shard, connection)).await {
                true => return End::Transaction,
                false => return End::Connection,
            },
            Step::Injected => {
                let Client { session, origin, .. } = connection.client;
                let why = "commands came behind STARTTLS in the clear, where anybody may have put them";
                shard.event(&Event::Refused { session, from: origin, why });
                flush(shard, connection).await;
                return End::Connection;
            }
            Step::Close => {
                // The farewell is a courtesy; the peer may be gone.
                let _ = flush_last(shard, connection).await;
                return End::Connection;
            }
        }
    }
}

/// Has a login judged, and forgets what was typed.
async fn log_in<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<<W::R as Runtime>::Stream>) {
    let Connection { wire, session, client, settings, input, used, out, .. } = connection;
    input[..*used].fill(0);
    let proof = session.take_proof();
    let judgement = login::judge(shard, &settings.policies[client.listener], client, wire.binding(), proof).await;
    session.on_auth(judgement, out);
}

/// Answers STARTTLS. False: the connection is over.
async fn start_tls<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<<W::R as Runtime>::Stream>) -> bool {
    let verdict = if shard.ask.can_sign() { Ok(()) } else { Err(replies::too_many_handshakes()) };
    let begins = verdict.is_ok();
    connection.session.on_start_tls(verdict, &mut connection.out);
    if !begins {
        return true;
    }
    // What was read in the clear is not to be taken for what comes encrypted.
    (connection.input, connection.used) = (Vec::new(), 0);
    flush(shard, connection).await && encrypt(shard, connection).await
}

/// Makes the handshake. False: the connection is over.
async fn encrypt<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<<W::R as Runtime>::Stream>) -> bool {
    let Connection { wire, client, input, settings, .. } = connection;
    let server = settings.policies[client.listener].tls.clone();
    let secured = Box::pin(secure::handshake(shard, wire, server, client, input)).await;
    if secured.is_some() {
        let is_bindable = secured.as_ref().is_some_and(|secured| secured.version == "TLS1.3");
        connection.client.secured = secured;
        connection.session.on_encrypted();
        if is_bindable {
            connection.session.on_bindable();
        }
        // Told at MAIL, if nobody knows now.
        let _ = certify(shard, connection).await;
        connection.arrived = shard.runtime.now();
    }
    connection.client.secured.is_some()
}

/// Logs the client in, if the listener says whom its certificate stands for.
///
/// # Errors
/// The reply that says that nobody knows now.
async fn certify<W: World>(
    shard: &Rc<Shard<W>>,
    connection: &mut Connection<<W::R as Runtime>::Stream>,
) -> Result<(), Reply> {
    let Connection { session, client, settings, .. } = connection;
    let user = certified::user(shard, settings, client).await;
    client.is_unsure = user.is_err();
    if let Ok(Some(user)) = &user {
        let (id, from) = (client.session, client.origin);
        shard.event(&Event::LoggedIn { session: id, from, user });
        session.on_certificate(user);
    }
    user.map(|_| ()).map_err(|_| replies::certificate_unknown())
}

/// The address that `From:` is to be: for users whose listener says so. A null sender has none to give.
fn masquerade<'t>(settings: &Settings, client: &Client, tx: &'t Transaction<'_>) -> Option<&'t str> {
    let is_asked = settings.policies[client.listener].senders.as_ref().is_some_and(|senders| senders.masquerade);
    (is_asked && client.user.is_some()).then(|| tx.reverse_path()).filter(|sender| !sender.is_empty())
}

struct Receiving {
    incoming: Incoming,
    began: Instant,
}

impl Receiving {
    /// Boxed: an idle connection's task must not hold room for it.
    fn begin(now: Instant, masquerade: Option<&str>) -> Box<Self> {
        Box::new(Self { incoming: Incoming::new(masquerade), began: now })
    }
}

fn may_send<W: World>(shard: &Shard<W>) -> Result<(), Reply> {
    if shard.stopping.get() {
        return Err(replies::stopping());
    }
    match shard.queue.space() {
        ringpost_queue::Space::Enough => Ok(()),
        ringpost_queue::Space::Low => Err(replies::no_space()),
    }
}

async fn commit<W: World>(
    shard: &Rc<Shard<W>>,
    connection: &mut Connection<<W::R as Runtime>::Stream>,
    tx: &Transaction<'_>,
    recipients: Recipients,
    mut receiving: Receiving,
) {
    receiving.incoming.end();
    shard.stages.record(Stage::DataReceive, shard.runtime.now() - receiving.began);
    let session = &connection.session;
    let submitted =
        submit::submit(shard, &connection.client, &connection.settings, session, tx, recipients, receiving.incoming)
            .await;
    match &submitted {
        Ok(_) => shard.counters.add(Counter::MessagesReceived, 1),
        Err(_) => shard.counters.add(Counter::MessagesRefused, 1),
    }
    connection.session.on_commit(submitted.map(|id| id.to_string()), &mut connection.out);
}

/// Sends what is to be said and waits for more. False: the connection is over.
async fn exchange<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<<W::R as Runtime>::Stream>) -> bool {
    if !flush(shard, connection).await {
        return false;
    }
    connection.input.drain(..connection.used);
    connection.used = 0;
    match read(shard, connection).await {
        Read::Some => true,
        Read::Closed => false,
        Read::Late => {
            connection.session.on_timeout(&mut connection.out);
            flush(shard, connection).await;
            false
        }
        Read::Stopping => {
            connection.session.on_shutdown(&mut connection.out);
            flush(shard, connection).await;
            false
        }
    }
}

enum Read {
    Some,
    Closed,
    Late,
    Stopping,
}

async fn read<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<<W::R as Runtime>::Stream>) -> Read {
    let idle = connection.session.is_idle();
    if idle && shard.stopping.get() {
        return Read::Stopping;
    }
    if connection.input.is_empty() {
        // Waiting may be long: an idle connection keeps no buffers.
        connection.input = Vec::new();
        connection.out = Vec::new();
    }
    let deadline = connection.session.deadline();
    let count = {
        let left = deadline.saturating_duration_since(shard.runtime.now()).max(Duration::from_millis(1));
        let read = async { Some(connection.wire.read(&mut connection.input, limits::READ_BYTES).await) };
        let waited = if idle {
            let stopped = async {
                shard.stop.raised().await;
                None
            };
            shard.runtime.timeout(left, or(read, stopped)).await
        } else {
            shard.runtime.timeout(left, read).await
        };
        match waited {
            None => return Read::Late,
            Some(None) => return Read::Stopping,
            Some(Some(count)) => count,
        }
    };
    connection.arrived = shard.runtime.now();
    match count {
        Ok(count) if count > 0 => {
            shard.counters.add(Counter::BytesReceived, count as u64);
            Read::Some
        }
        _ => Read::Closed,
    }
}

/// Writes the collected replies in one piece. False: the peer is gone, or reads so slowly that it is as good as gone.
async fn flush<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<<W::R as Runtime>::Stream>) -> bool {
    if connection.out.is_empty() {
        return true;
    }
    let written = shard.runtime.timeout(limits::WRITE, connection.wire.write_all(&connection.out)).await;
    sent(shard, connection, written)
}

/// The same of the last replies.
async fn flush_last<W: World>(shard: &Rc<Shard<W>>, connection: &mut Connection<<W::R as Runtime>::Stream>) -> bool {
    let written = shard.runtime.timeout(limits::WRITE, connection.wire.write_last(&connection.out)).await;
    sent(shard, connection, written)
}

fn sent<W: World>(
    shard: &Shard<W>,
    connection: &mut Connection<<W::R as Runtime>::Stream>,
    written: Option<io::Result<()>>,
) -> bool {
    connection.out.clear();
    shard.stages.record(Stage::Command, shard.runtime.now() - connection.arrived);
    if written.is_none() {
        let Client { session, origin, .. } = connection.client;
        shard.event(&Event::Refused { session, from: origin, why: "the client does not read its replies" });
    }
    matches!(written, Some(Ok(())))
}
