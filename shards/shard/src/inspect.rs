//! What administrators ask of a shard: orders, and the answers to them.

use std::rc::Rc;
use std::sync::Arc;

use futures_channel::oneshot;
use ringpost_conf::Config;
use ringpost_conf::expand::{Outlines, Way};
use ringpost_io::{Class, Runtime};
use ringpost_perf::StagesSnapshot;
use ringpost_queue::{Counts, MessageId, StoredAction};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::secure::Servers;
use crate::shard::{Shard, World};

/// A letter from the coordinator.
#[derive(Debug)]
pub enum Order {
    /// Sessions that begin from now on follow this configuration.
    Reload(Arc<Config>, Servers),
    /// What this table has said does not count any more.
    ForgetTable(String),
    /// Finish what is open, make all durable, end.
    Stop,
    /// Figures.
    Stats(oneshot::Sender<ShardReport>),
    /// Every envelope in the slice.
    List(oneshot::Sender<Vec<ListedEnvelope>>),
    /// One message, if it is in the slice.
    Show(u64, oneshot::Sender<Option<ShownMessage>>),
    /// All that is deferred is due now; answers how many.
    Retry(oneshot::Sender<u64>),
}

/// Figures of one shard.
#[derive(Clone, Debug)]
pub struct ShardReport {
    /// Latency by stage.
    pub stages: StagesSnapshot,
    /// The queue.
    pub queue: Counts,
    /// The routes.
    pub routes: ringpost_routes::Totals,
    /// Sessions open.
    pub sessions: usize,
    /// New mail is refused for want of disk space.
    pub low_space: bool,
}

/// One envelope of a listing.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ListedEnvelope {
    /// Message, 16 hex digits.
    pub id: String,
    /// Reverse-path.
    pub sender: String,
    /// Whom it is for.
    pub recipient: String,
    /// The forward-path that has led to it, if that is another one; else empty.
    #[serde(default)]
    pub original: String,
    /// Name of the action that takes it; empty for mail of an older version.
    #[serde(default)]
    pub action: String,
    /// The user, file or program that it is for, if it is for one: `gilles=1000:100:/home/gilles`.
    #[serde(default)]
    pub way: String,
    /// `active`, `deferred`, `held` …
    pub state: String,
    /// Milliseconds since the epoch of the next attempt.
    pub due_ms: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// The last reply, if there was one.
    pub reason: String,
    /// Milliseconds since the epoch when it was received.
    pub received_ms: u64,
    /// Size in bytes.
    pub size: u64,
}

/// One message in full.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ShownMessage {
    /// Its envelopes.
    pub envelopes: Vec<ListedEnvelope>,
    /// Its text, or the first [`limits::SHOWN_BYTES`] of it.
    pub text: Vec<u8>,
}

/// All envelopes, in order of message. What ends while the list is made may be missing.
pub(crate) async fn list<W: World>(shard: &Rc<Shard<W>>) -> Vec<ListedEnvelope> {
    let mut ids: Vec<MessageId> = shard.queue.list().into_iter().map(|listed| listed.id).collect();
    ids.sort_unstable();
    ids.dedup();
    let ids = Rc::new(std::cell::RefCell::new(ids.into_iter()));
    let found = Rc::new(std::cell::RefCell::new(Vec::new()));
    let mut readers = Vec::new();
    for _ in 0..limits::LIST_READERS {
        let (shard, ids, found) = (shard.clone(), ids.clone(), found.clone());
        let (done, wait) = oneshot::channel::<()>();
        readers.push(wait);
        let task_shard = shard.clone();
        shard.runtime.spawn(Class::Background, async move {
            loop {
                let Some(id) = ids.borrow_mut().next() else { break };
                let listed = envelopes(&task_shard, id).await;
                found.borrow_mut().extend(listed);
                task_shard.runtime.yield_now().await;
            }
            // The list is no longer wanted when nobody waits.
            let _ = done.send(());
        });
    }
    for reader in readers {
        // A reader that is gone has told all that it found.
        let _ = reader.await;
    }
    let mut found = found.take();
    found.sort_by(|a: &ListedEnvelope, b| {
        (a.received_ms, &a.id, &a.recipient).cmp(&(b.received_ms, &b.id, &b.recipient))
    });
    found
}

async fn envelopes<W: World>(shard: &Shard<W>, id: MessageId) -> Vec<ListedEnvelope> {
    match shard.queue.load(id).await {
        Ok(stored) => listed(&stored),
        Err(_) => Vec::new(),
    }
}

/// A stored message's envelopes as a listing shows them; also used when the server is stopped.
pub fn listed(stored: &ringpost_queue::Stored) -> Vec<ListedEnvelope> {
    let open = stored.envelopes.iter().filter(|envelope| !envelope.is_final());
    open.map(|envelope| ListedEnvelope {
        id: stored.id.to_string(),
        sender: stored.sender.clone(),
        recipient: envelope.recipient.clone(),
        original: envelope.original.clone(),
        action: match &envelope.action {
            StoredAction::Reference(reference) => Outlines::name(reference).to_owned(),
            StoredAction::Number(_) => String::new(),
        },
        way: Way::parse(&envelope.way).map_or_else(|| envelope.way.clone(), |way| way.to_string()),
        state: envelope.state_name().to_owned(),
        due_ms: envelope.due_ms,
        attempts: u32::from(envelope.attempts),
        reason: envelope.last_reply.clone(),
        received_ms: stored.received_ms,
        size: stored.body_bytes,
    })
    .collect()
}

pub(crate) async fn show<W: World>(shard: &Shard<W>, id: MessageId) -> Option<ShownMessage> {
    let envelopes = envelopes(shard, id).await;
    if envelopes.is_empty() {
        return None;
    }
    let text = shard.queue.read_body(id, 0, limits::SHOWN_BYTES).await.unwrap_or_default();
    Some(ShownMessage { envelopes, text })
}
