//! The last step of a message on its way in: trace fields in front, then one message with its envelopes joins the open
//! batch of the journal. Returns when that batch is durable; only then anybody may be told 250 (promise 1).

use std::rc::Rc;
use std::sync::Arc;

use ringpost_io::Runtime;
use ringpost_message::received::{self, Received, write_date, write_message_id};
use ringpost_perf::{Counter, Stage};
use ringpost_queue::{Flags, MessageId, NewEnvelope, NewMessage, SubmitError};
use ringpost_smtp::dsn::Ret;
use ringpost_smtp::server::Session;
use ringpost_smtp::{Reply, Transaction};

use crate::body::Incoming;
use crate::dispatch::{self, Envelope, Fresh};
use crate::event::{Event, Origin};
use crate::recipient::{Client, Recipients};
use crate::settings::Settings;
use crate::shard::{Shard, World};
use crate::{limits, replies, returned, secure};

/// Makes the message durable and sends it on its way.
///
/// # Errors
/// The reply that says why it was not taken; nothing of it is kept.
pub(crate) async fn submit<W: World>(
    shard: &Rc<Shard<W>>,
    client: &Client,
    settings: &Rc<Settings>,
    session: &Session,
    tx: &Transaction<'_>,
    recipients: Recipients,
    mut incoming: Incoming,
) -> Result<MessageId, Reply> {
    if incoming.scanner().received_count() > settings.received_max {
        return Err(replies::mail_loop());
    }
    let received_ms = shard.runtime.unix_ms();
    let id = shard.queue.next_id();
    let head = trace(shard, client, settings, session, tx, &incoming, received_ms, id);
    let bytes = head.len() as u64 + incoming.bytes();
    let mut flags = Flags::default();
    flags.set(Flags::EIGHTBIT, tx.is_eightbit());
    flags.set(Flags::SMTPUTF8, tx.smtputf8());
    flags.set(Flags::REQUIRES_TLS, tx.requires_tls());
    // RFC 8689 §3: the parameter is stronger.
    flags.set(Flags::WAIVES_TLS, incoming.scanner().waives_tls() && !tx.requires_tls());
    let asked = tx.asked_of_message();
    flags.set(Flags::RET_FULL, asked.ret == Some(Ret::Full));
    flags.set(Flags::RET_HEADERS, asked.ret == Some(Ret::Headers));
    flags.set(Flags::VERP, asked.verp.is_some());
    flags.set(Flags::STRANGER, client.is_stranger(settings));
    flags.set_priority(tx.priority());
    let tag = &settings.policies[client.listener].tag;
    let reader = incoming.take_reader().map(|reader| (reader, recipients.are_read(settings).collect::<Vec<bool>>()));
    let envelopes: Rc<[Envelope]> = recipients.envelopes(settings, tx, tag).into();
    let travelling = incoming.whole().filter(|_| bytes <= limits::TRAVELLING_BODY_BYTES).map(|text| {
        let mut body = Vec::with_capacity(head.len() + text.len());
        body.extend_from_slice(&head);
        body.extend_from_slice(text);
        body
    });
    let started = shard.runtime.now();
    let tail = incoming.take_tail();
    let pieces = [&tail[..]];
    let body = incoming.finish(&pieces).map_err(reply)?;
    let noted = Noted::new(&envelopes, settings);
    let noted = noted.all();
    let release_ms = tx.release().and_then(|release| release.of(received_ms));
    let message = NewMessage {
        id,
        received_ms,
        release_ms,
        sender: tx.reverse_path(),
        envelopes: &noted,
        flags,
        tag,
        envid: asked.envid,
        head: &head,
        body,
    };
    shard.queue.submit(message).await.map_err(reply)?;
    shard.counters.add(Counter::CommitBatchMessages, 1);
    let commit = shard.runtime.now() - started;
    shard.stages.record(Stage::CommitWait, commit);
    shard.event(&Event::Queued {
        id,
        session: client.session,
        sender: tx.reverse_path(),
        recipients: envelopes.len(),
        bytes,
        commit,
    });
    if let Some((reader, named)) = reader {
        returned::tell(shard, settings, (tx, &named), (id, client.session), reader.finish().as_ref());
    }
    if let Some(at_ms) = release_ms {
        envelopes.iter().for_each(|envelope| shard.queue.release(id, envelope.index, at_ms));
        return Ok(id);
    }
    dispatch::after_replies(
        shard,
        settings,
        Fresh {
            id,
            received_ms,
            sender: tx.reverse_path().to_owned(),
            tag: tag.clone(),
            envid: asked.envid.to_owned(),
            envelopes,
            flags,
            body_bytes: bytes,
            body: travelling.map(Arc::from),
        },
    );
    Ok(id)
}

/// Envelopes as the queue wants them.
pub(crate) struct Noted<'e> {
    envelopes: &'e [Envelope],
    settings: &'e Settings,
    ways: Vec<String>,
}

impl<'e> Noted<'e> {
    pub(crate) fn new(envelopes: &'e [Envelope], settings: &'e Settings) -> Self {
        Self { envelopes, settings, ways: envelopes.iter().map(|envelope| envelope.way.to_text()).collect() }
    }

    pub(crate) fn all(&self) -> Vec<NewEnvelope<'_>> {
        let pairs = self.envelopes.iter().zip(&self.ways);
        let noted = pairs.map(|(envelope, way)| NewEnvelope {
            recipient: &envelope.recipient,
            original: envelope.original.as_deref().unwrap_or(""),
            action: envelope.action.map_or("", |action| self.settings.outlines.reference(action)),
            way,
            request: &envelope.request,
        });
        noted.collect()
    }
}

fn reply(error: SubmitError) -> Reply {
    match error {
        SubmitError::Full => replies::no_space(),
        SubmitError::TooLarge => replies::too_large(),
        SubmitError::Disk | SubmitError::Stopped => replies::disk_failed(),
    }
}

/// `Received:`, and for our own users what their program forgot (RFC 6409 §8).
#[allow(clippy::too_many_arguments)]
fn trace<W: World>(
    shard: &Shard<W>,
    client: &Client,
    settings: &Settings,
    session: &Session,
    tx: &Transaction<'_>,
    incoming: &Incoming,
    received_ms: u64,
    id: MessageId,
) -> Vec<u8> {
    let policy = &settings.policies[client.listener];
    let mut head = Vec::with_capacity(limits::TRACE_BYTES);
    let only_recipient = match tx.recipients() {
        [one] => Some(*one),
        _ => None,
    };
    let teller = match client.origin {
        _ if policy.mask_source => received::Client::Masked,
        Origin::Host(address) => received::Client::Host { helo: session.helo(), address },
        Origin::User(uid) => received::Client::User(uid),
    };
    Received {
        client: teller,
        by: session.hostname(),
        protocol: session.protocol_name(tx),
        user: client.user.as_deref().filter(|_| policy.received_auth),
        tls: client.secured.as_deref().map(secure::in_trace).as_deref(),
        id: &id.to_string(),
        recipient: only_recipient,
        priority: tx.priority(),
        at_ms: received_ms,
    }
    .write(&mut head);
    let is_own = client.origin.address().is_none_or(|address| address.is_loopback());
    let submitted = is_own || policy.submission || client.user.is_some();
    if submitted && !incoming.scanner().has_date() {
        write_date(&mut head, received_ms);
    }
    if submitted && !incoming.scanner().has_message_id() {
        write_message_id(&mut head, &id.to_string(), shard.runtime.random_u64(), session.hostname());
    }
    if !incoming.scanner().starts_with_header() {
        // Text without a header: an empty line keeps it from being read as one (RFC 5322 §2.1).
        head.extend_from_slice(b"\r\n");
    }
    head
}
