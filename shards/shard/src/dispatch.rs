//! A committed or due message gets on its way: relay, local or discard. Also the loop that takes what is due out of the
//! queue, as long as there is room in the air.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringpost_conf::ActionKind;
use ringpost_io::{Class, Runtime, Signal};
use ringpost_queue::{Flags, MessageId, Stored};
use ringpost_smtp::client::RemoteReply;

use crate::letter::{Delays, Outcome, Results};
use crate::local::Addressee;
use crate::settings::Settings;
use crate::shard::{Shard, World};
use crate::{limits, local, resolve, settle};

/// A message whose envelopes are claimed: in memory, and nobody else's to deliver.
pub(crate) struct Fresh {
    pub(crate) id: MessageId,
    pub(crate) received_ms: u64,
    pub(crate) sender: String,
    /// Envelope index, forward-path, action, attempts so far.
    pub(crate) recipients: Vec<(u16, String, u16, u16)>,
    pub(crate) flags: Flags,
    pub(crate) body_bytes: u64,
    pub(crate) body: Option<Arc<[u8]>>,
}

/// What must be remembered of a message while parts of it are in the air.
pub(crate) struct Flight {
    pub(crate) received_ms: u64,
    pub(crate) sender: String,
    pub(crate) flags: Flags,
    /// Envelope index, forward-path, action, attempts before this one.
    pub(crate) recipients: Vec<(u16, String, u16, u16)>,
    /// Envelopes of which no result is known.
    pub(crate) open: usize,
    pub(crate) began: Instant,
    pub(crate) kept_bytes: usize,
}

/// Sends a message on its way. Does not wait; what it cannot take now goes back to the queue.
pub(crate) fn dispatch<W: World>(shard: &Rc<Shard<W>>, fresh: Fresh) {
    let in_air = shard.flights.borrow().len();
    let bytes = fresh.body.as_ref().map_or(0, |body| body.len());
    let crowded = in_air >= limits::FLIGHTS || shard.kept_bytes.get() + bytes > limits::KEPT_BODIES_BYTES;
    if crowded || shard.stopping.get() {
        let now_ms = shard.runtime.unix_ms();
        fresh.recipients.iter().for_each(|(index, ..)| shard.queue.release(fresh.id, *index, now_ms));
        return;
    }
    let settings = shard.settings();
    shard.kept_bytes.set(shard.kept_bytes.get() + bytes);
    let flight = Flight {
        received_ms: fresh.received_ms,
        sender: fresh.sender.clone(),
        flags: fresh.flags,
        recipients: fresh.recipients.clone(),
        open: fresh.recipients.len(),
        began: shard.runtime.now(),
        kept_bytes: bytes,
    };
    shard.flights.borrow_mut().insert(fresh.id.0, flight);
    shard.queue.pin(fresh.id);
    let fresh = Rc::new(fresh);
    let mut relays: Vec<(u16, Vec<(u16, &str)>)> = Vec::new();
    for (index, recipient, action, _) in &fresh.recipients {
        match settings.config.actions.get(usize::from(*action)).map(|action| &action.kind) {
            Some(ActionKind::Discard) => {
                finish_at_once(shard, &fresh, *index, "discard", Outcome::Delivered(discarded()))
            }
            Some(ActionKind::Maildir(maildir)) => {
                let to = Addressee { index: *index, recipient, original: recipient, extension: "" };
                let target = local::maildir_target(shard, &fresh, recipient, maildir);
                local::deliver(shard, &fresh, to, target);
            }
            Some(ActionKind::Relay(_)) => match relays.iter_mut().find(|(of, _)| of == action) {
                Some((_, list)) => list.push((*index, recipient)),
                None => relays.push((*action, vec![(*index, recipient)])),
            },
            None => finish_at_once(shard, &fresh, *index, "none", Outcome::Transient(no_action())),
        }
    }
    for (action, recipients) in relays {
        let Some(ActionKind::Relay(relay)) =
            settings.config.actions.get(usize::from(action)).map(|action| &action.kind)
        else {
            continue;
        };
        resolve::route(shard, &settings, &fresh, relay, &recipients);
    }
}

fn finish_at_once<W: World>(shard: &Rc<Shard<W>>, fresh: &Fresh, index: u16, via: &str, outcome: Outcome) {
    settle::settle(
        shard,
        Results {
            message: fresh.id.0,
            recipients: vec![(index, outcome)],
            remote: via.to_owned(),
            delays: Delays::default(),
        },
    );
}

fn discarded() -> RemoteReply {
    RemoteReply::local(250, (2, 0, 0), "discarded as configured")
}

/// The configuration has changed since the message came, and its action is gone: never lost, tried again later.
fn no_action() -> RemoteReply {
    RemoteReply::local(451, (4, 3, 5), "the action of this message is no longer configured")
}

/// Takes due envelopes out of the queue until the shard stops.
pub(crate) async fn due_loop<W: World>(shard: Rc<Shard<W>>) {
    while !shard.stopping.get() {
        let changed = shard.queue.due_changed();
        let (changed, landed, stop) = (changed.raised(), shard.landed.raised(), shard.stop.raised());
        let in_air = shard.flights.borrow().len();
        let room = limits::FLIGHTS.saturating_sub(in_air);
        let has_room = room > limits::FLIGHTS / 8 && shard.kept_bytes.get() < limits::KEPT_BODIES_BYTES / 2;
        if has_room {
            let now_ms = shard.runtime.unix_ms();
            let claimed = shard.queue.claim_due(now_ms, room.min(limits::CLAIM));
            if !claimed.is_empty() {
                take_up(&shard, claimed).await;
                shard.runtime.yield_now().await;
                continue;
            }
        }
        let wait = match shard.queue.next_due() {
            Some(due_ms) if has_room => Duration::from_millis(due_ms.saturating_sub(shard.runtime.unix_ms()).max(1)),
            _ => limits::DUE_WAIT,
        };
        let woken = futures_lite::future::or(futures_lite::future::or(changed, landed), stop);
        shard.runtime.timeout(wait.min(limits::DUE_WAIT), woken).await;
    }
}

/// Reads claimed messages back from the journal, several at a time, and dispatches them.
async fn take_up<W: World>(shard: &Rc<Shard<W>>, claimed: Vec<(MessageId, Vec<u16>)>) {
    let work = Rc::new(RefCell::new(claimed.into_iter()));
    let done = Rc::new((Cell::new(limits::LOAD_READERS), Signal::new()));
    for _ in 0..limits::LOAD_READERS {
        let (shard_of_task, work, done) = (shard.clone(), work.clone(), done.clone());
        shard.spawn_counted(Class::Delivery, async move {
            loop {
                let Some((id, indexes)) = work.borrow_mut().next() else { break };
                take_up_one(&shard_of_task, id, &indexes).await;
            }
            done.0.set(done.0.get() - 1);
            done.1.raise();
        });
    }
    loop {
        let raised = done.1.raised();
        if done.0.get() == 0 {
            return;
        }
        raised.await;
    }
}

async fn take_up_one<W: World>(shard: &Rc<Shard<W>>, id: MessageId, indexes: &[u16]) {
    match load(shard, id).await {
        Ok((stored, body)) => {
            let chosen = stored.envelopes.iter().filter(|envelope| indexes.contains(&envelope.index));
            let recipients: Vec<_> = chosen
                .map(|envelope| (envelope.index, envelope.recipient.clone(), envelope.action, envelope.attempts))
                .collect();
            let (received_ms, flags, body_bytes) = (stored.received_ms, stored.flags, stored.body_bytes);
            dispatch(shard, Fresh { id, received_ms, sender: stored.sender, recipients, flags, body_bytes, body });
        }
        Err(error) => {
            shard.warn(&format!("queue: cannot read message {id}: {error}; trying again later"));
            let later = shard.runtime.unix_ms() + limits::UNREADABLE.as_millis() as u64;
            indexes.iter().for_each(|index| shard.queue.release(id, *index, later));
        }
    }
}

async fn load<W: World>(
    shard: &Shard<W>,
    id: MessageId,
) -> Result<(Stored, Option<Arc<[u8]>>), ringpost_queue::ReadError> {
    let (stored, text) = shard.queue.load_with_text(id, limits::TRAVELLING_BODY_BYTES as u32).await?;
    Ok((stored, text.map(Arc::from)))
}

/// The time that a message of this action may stay queued.
pub(crate) fn ttl(settings: &Settings, action: u16) -> Duration {
    let own = settings.config.actions.get(usize::from(action)).map(|action| action.ttl);
    own.unwrap_or(settings.config.queue.ttl)
}
