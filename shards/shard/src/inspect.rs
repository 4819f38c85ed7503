//! What administrators ask of a shard: orders, and the answers to them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use futures_channel::oneshot;
use ringpost_conf::Config;
use ringpost_conf::expand::{Outlines, Way};
use ringpost_io::{Class, Runtime};
use ringpost_perf::StagesSnapshot;
use ringpost_perf::sites::{Classes, Recent};
use ringpost_queue::{Counts, MessageId, Status, Stored, StoredAction, StoredEnvelope};
use ringpost_routes::Site;
use ringpost_tls::Connector;
use serde::{Deserialize, Serialize};

use crate::overview::Overview;
use crate::reason::{self, Blocked, Onward, Reason, Selector};
use crate::secure::Servers;
use crate::settings::Overrides;
use crate::shard::{Shard, World};
use crate::stock::Parked;
use crate::{dispatch, limits};

/// A letter from the coordinator.
#[derive(Debug)]
pub enum Order {
    /// Sessions that begin from now on follow this configuration; answered when that is so.
    Reload(Arc<Config>, Servers, oneshot::Sender<()>),
    /// These limits are in force from now on, in front of the configuration's shapes and across reloads; answered when they are.
    Limit(Overrides, oneshot::Sender<()>),
    /// Messages that wait at routes and that are concerned go home and are sent on their way anew.
    Recall(Concerned),
    /// Connections that begin from now on trust whom this trusts.
    Trust(Connector),
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
    /// What the envelopes that are meant wait for, as far as their home knows.
    Why(Selector, oneshot::Sender<Vec<Asked>>),
    /// What messages wait for at routes of this shard; one answer for each, `None` where it is not here.
    AtRoutes(Vec<(u64, Site)>, oneshot::Sender<Vec<Option<Blocked>>>),
    /// Hosts, sites and routes.
    Overview(oneshot::Sender<Overview>),
    /// No route, host or site rests any more; answers when that is so.
    Resume(oneshot::Sender<()>),
    /// The same, and all that is deferred is due now; answers how many.
    Retry(oneshot::Sender<u64>),
}

/// Whose mail may have another route or shape now.
#[derive(Clone, Debug)]
pub enum Concerned {
    /// That for which one of these limits is.
    Of(Overrides),
    /// All of it: the configuration has other shapes.
    All,
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
    /// What other servers have refused, by class.
    pub refusals: Classes,
    /// What became of mail by site since the last report; empty unless sites are told apart (`metrics sites`).
    pub sites: Recent,
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
    /// How urgent its message is, from -9 to 9 (RFC 6710).
    #[serde(default)]
    pub priority: i8,
}

/// One message in full.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ShownMessage {
    /// Its envelopes.
    pub envelopes: Vec<ListedEnvelope>,
    /// Its text, or the first [`limits::SHOWN_BYTES`] of it.
    pub text: Vec<u8>,
}

/// What an envelope waits for.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Why {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: ListedEnvelope,
    /// When it is given up, in milliseconds since the epoch; 0: that is not known.
    pub expires_ms: u64,
    /// What it waits for, and what that waits for.
    pub waits_for: Vec<Blocked>,
    /// What ends the waiting, if a command does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
}

impl Why {
    /// Adds to what it waits for.
    pub fn and(&mut self, blocked: Blocked) {
        self.release = self.release.take().or_else(|| blocked.reason.release().map(str::to_owned));
        self.waits_for.push(blocked);
    }

    /// Adds what its route knows, which is more than that its ticket is on the way there.
    pub fn with_route(&mut self, mut blocked: Blocked) {
        if let Some(Blocked { since_ms, .. }) = self.waits_for.pop_if(|last| matches!(last.reason, Reason::Ring { .. }))
        {
            blocked.since_ms = blocked.since_ms.or(since_ms);
        }
        self.and(blocked);
    }
}

/// What the home of an envelope knows, and where the rest is known.
pub type Asked = (Why, Onward);

/// What the envelopes that are meant wait for.
pub(crate) async fn why<W: World>(shard: &Rc<Shard<W>>, selector: &Selector) -> Vec<Asked> {
    let parked = match selector {
        Selector::Id(id) if shard.queue.stand(*id).iter().all(|listed| !listed.parked) => Parked::new(),
        _ => shard.stock.parked(),
    };
    let make = {
        let (shard, selector) = (shard.clone(), selector.clone());
        move |stored: &Stored| {
            let settings = shard.settings();
            let stand = shard.queue.stand(stored.id);
            let meant = open(stored).filter(|of| selector.means(stored.id, &stored.sender, &of.recipient));
            let with_stand = meant.filter_map(|of| Some((of, stand.iter().find(|now| now.index == of.index)?)));
            let all = with_stand.map(|(of, now)| {
                let (blocked, onward) = reason::of(&shard, now, stored.release_ms, &parked);
                let expires_ms = dispatch::expiry_ms(
                    &settings,
                    dispatch::action_of(of, &settings),
                    &of.recipient,
                    stored.begins_ms(),
                );
                let envelope = listed_one(stored, of);
                let mut why = Why { envelope, expires_ms, waits_for: Vec::new(), release: None };
                why.and(blocked);
                (why, onward)
            });
            all.collect()
        }
    };
    let ids = match selector {
        Selector::Id(id) => vec![*id],
        _ => ids(shard),
    };
    each(shard, ids, make).await
}

/// What the envelopes that are meant wait for while no server runs.
pub fn stopped(stored: &Stored, selector: &Selector) -> Vec<Why> {
    let meant = open(stored).filter(|of| selector.means(stored.id, &stored.sender, &of.recipient));
    let all = meant.map(|of| {
        let mut why = Why { envelope: listed_one(stored, of), expires_ms: 0, waits_for: Vec::new(), release: None };
        match of.state {
            Status::Held => why.and(Blocked::by(Reason::Held)),
            _ => {
                if let Some(at_ms) = stored.release_ms.filter(|_| of.attempts == 0) {
                    why.waits_for.push(Blocked::by(Reason::Release).until(at_ms));
                } else if of.attempts > 0 {
                    why.waits_for.push(Blocked::by(Reason::Retry).until(of.due_ms));
                }
                why.and(Blocked::by(Reason::Stopped));
            }
        }
        why
    });
    all.collect()
}

fn ids<W: World>(shard: &Shard<W>) -> Vec<MessageId> {
    let mut ids: Vec<MessageId> = shard.queue.list().into_iter().map(|listed| listed.id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// All envelopes, in order of message. What ends while the list is made may be missing.
pub(crate) async fn list<W: World>(shard: &Rc<Shard<W>>) -> Vec<ListedEnvelope> {
    let mut found = each(shard, ids(shard), listed).await;
    found.sort_by(|a: &ListedEnvelope, b| {
        (a.received_ms, &a.id, &a.recipient).cmp(&(b.received_ms, &b.id, &b.recipient))
    });
    found
}

/// Makes something of each of these messages, read by several at once.
async fn each<W: World, T: 'static>(
    shard: &Rc<Shard<W>>,
    ids: Vec<MessageId>,
    make: impl Fn(&Stored) -> Vec<T> + 'static,
) -> Vec<T> {
    let readers = limits::LIST_READERS.min(ids.len());
    let ids = Rc::new(RefCell::new(ids.into_iter()));
    let (found, make) = (Rc::new(RefCell::new(Vec::new())), Rc::new(make));
    let mut waiting = Vec::new();
    for _ in 0..readers {
        let (ids, found, make) = (ids.clone(), found.clone(), make.clone());
        let (done, wait) = oneshot::channel::<()>();
        waiting.push(wait);
        let shard = shard.clone();
        shard.clone().runtime.spawn(Class::Background, async move {
            loop {
                let Some(id) = ids.borrow_mut().next() else { break };
                if let Ok(stored) = shard.queue.load(id).await {
                    let made = make(&stored);
                    found.borrow_mut().extend(made);
                }
                shard.runtime.yield_now().await;
            }
            // The list is no longer wanted when nobody waits.
            let _ = done.send(());
        });
    }
    for reader in waiting {
        // A reader that is gone has told all that it found.
        let _ = reader.await;
    }
    found.take()
}

fn open(stored: &Stored) -> impl Iterator<Item = &StoredEnvelope> {
    stored.envelopes.iter().filter(|envelope| !envelope.is_final())
}

/// A stored message's envelopes as a listing shows them; also used when the server is stopped.
pub fn listed(stored: &Stored) -> Vec<ListedEnvelope> {
    open(stored).map(|envelope| listed_one(stored, envelope)).collect()
}

fn listed_one(stored: &Stored, envelope: &StoredEnvelope) -> ListedEnvelope {
    ListedEnvelope {
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
        priority: stored.flags.priority(),
    }
}

pub(crate) async fn show<W: World>(shard: &Shard<W>, id: MessageId) -> Option<ShownMessage> {
    let envelopes = listed(&shard.queue.load(id).await.ok()?);
    if envelopes.is_empty() {
        return None;
    }
    let text = shard.queue.read_body(id, 0, limits::SHOWN_BYTES).await.unwrap_or_default();
    Some(ShownMessage { envelopes, text })
}
