//! What failed for good is reported to its sender (RFC 3464), by a message that goes through the same queue. The bounce is
//! durable before the failed envelope is closed: a crash between the two repeats the bounce, and loses nothing.

use std::rc::Rc;
use std::sync::Arc;

use ringpost_conf::Facts;
use ringpost_io::Runtime;
use ringpost_message::dsn;
use ringpost_perf::Counter;
use ringpost_queue::{Body, Flags, MessageId, NewMessage, State};
use ringpost_smtp::client::RemoteReply;

use crate::dispatch::{self, Envelope, Fresh};
use crate::limits;
use crate::recipient::{self, Unique};
use crate::shard::{Shard, World};
use crate::submit::Noted;

/// A recipient that has been given up.
pub(crate) struct Failure {
    pub(crate) index: u16,
    pub(crate) recipient: String,
    /// The forward-path that has led to it, if that is another one.
    pub(crate) original: Option<String>,
    pub(crate) reply: RemoteReply,
    /// What a program has said.
    pub(crate) output: String,
    pub(crate) remote: String,
    pub(crate) expired: bool,
}

/// Reports `failures` to `sender` and closes their envelopes. The null sender gets no report (RFC 5321 §4.5.5).
pub(crate) async fn bounce<W: World>(
    shard: &Rc<Shard<W>>,
    id: MessageId,
    sender: &str,
    flags: Flags,
    received_ms: u64,
    failures: Vec<Failure>,
) {
    if !sender.is_empty() && !report(shard, id, sender, flags, received_ms, &failures).await {
        // The journal takes nothing now: the envelopes stay, and are tried and reported again.
        let later = shard.runtime.unix_ms() + limits::UNREADABLE.as_millis() as u64;
        failures.iter().for_each(|failure| shard.queue.release(id, failure.index, later));
        return;
    }
    for failure in failures {
        let state = match failure.expired {
            true => State::Expired,
            false => State::Failed { reply: failure.reply.to_string() },
        };
        shard.queue.settle(id, failure.index, state);
    }
}

/// Writes the report. False: it is not durable.
async fn report<W: World>(
    shard: &Rc<Shard<W>>,
    id: MessageId,
    sender: &str,
    flags: Flags,
    received_ms: u64,
    failures: &[Failure],
) -> bool {
    let settings = shard.settings();
    let facts =
        Facts { source: None, local: true, helo: &shard.hostname, sender: "", recipient: sender, ..Facts::default() };
    let deliveries = match recipient::expand(shard, &settings, facts).await {
        Ok(deliveries) => deliveries,
        Err(refusal) if refusal.is_temporary() => {
            shard.warn(&format!("message {id}: where a bounce to <{sender}> goes is not known yet"));
            return false;
        }
        Err(_) => {
            shard.warn(&format!("message {id}: no rule takes a bounce to <{sender}>; it is not sent"));
            return true;
        }
    };
    let mut unique = Unique::new(&settings, "", "");
    deliveries.into_iter().for_each(|one| unique.add(sender, &one.address, one.action, one.way));
    let envelopes: Rc<[Envelope]> = unique.envelopes.into();
    let header = shard.queue.read_body(id, 0, limits::BOUNCED_HEADER_BYTES).await.unwrap_or_default();
    let now_ms = shard.runtime.unix_ms();
    let bounce_id = shard.queue.next_id();
    let recipients: Vec<dsn::Recipient<'_>> = failures.iter().map(of_report).collect();
    let text = dsn::compose(&dsn::Report {
        hostname: &shard.hostname,
        sender,
        queue_id: &id.to_string(),
        bounce_id: &bounce_id.to_string(),
        arrived_ms: received_ms,
        now_ms,
        smtputf8: flags.contains(Flags::SMTPUTF8),
        recipients: &recipients,
        original: &header,
    });
    let mut own_flags = Flags::BOUNCE;
    own_flags.set(Flags::SMTPUTF8, flags.contains(Flags::SMTPUTF8));
    own_flags.set(Flags::EIGHTBIT, !text.is_ascii());
    let noted = Noted::new(&envelopes, &settings);
    let noted = noted.all();
    let message = NewMessage {
        id: bounce_id,
        received_ms: now_ms,
        sender: "",
        envelopes: &noted,
        flags: own_flags,
        tag: "",
        head: &[],
        body: Body::Whole(&[&text]),
    };
    if let Err(error) = shard.queue.submit(message).await {
        shard.warn(&format!("message {id}: cannot queue the bounce to <{sender}>: {error}"));
        return false;
    }
    shard.counters.add(Counter::Bounced, 1);
    shard.counters.add(Counter::CommitBatchMessages, 1);
    dispatch::dispatch(
        shard,
        &settings,
        Fresh {
            id: bounce_id,
            received_ms: now_ms,
            sender: String::new(),
            tag: String::new(),
            envelopes,
            flags: own_flags,
            body_bytes: text.len() as u64,
            body: Some(Arc::from(text)),
        },
    );
    true
}

fn of_report(failure: &Failure) -> dsn::Recipient<'_> {
    let (class, subject, detail) = failure.reply.status_or_default();
    dsn::Recipient {
        address: &failure.recipient,
        original: failure.original.as_deref().unwrap_or(""),
        // A temporary failure that was repeated until the time was over is final all the same (RFC 3463 §3.5, X.4.7).
        status: if failure.expired { (4, 4, 7) } else { (class, subject, detail) },
        remote: &failure.remote,
        reply: failure.reply.text(),
        output: &failure.output,
        code: failure.reply.code(),
        expired: failure.expired,
    }
}
