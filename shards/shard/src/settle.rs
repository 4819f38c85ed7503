//! Results come home: the journal is told, what failed for now gets its next time, what failed for good a bounce.

use std::rc::Rc;
use std::time::Duration;

use ringpost_conf::ActionKind;
use ringpost_conf::expand::Way;
use ringpost_io::{Class, Runtime};
use ringpost_perf::{Counter, Stage};
use ringpost_queue::{MessageId, State, retry};
use ringpost_smtp::client::RemoteReply;

use crate::bounce::{self, Failure};
use crate::dispatch::{self, Envelope, Flight};
use crate::event::{Course, Event, Result};
use crate::letter::{Outcome, Results};
use crate::limits;
use crate::shard::{Shard, World};

/// Takes the results of a ticket or a local delivery.
pub(crate) fn settle<W: World>(shard: &Rc<Shard<W>>, results: Results) {
    let mut failures = Vec::new();
    let mut flights = shard.flights.borrow_mut();
    let Some(flight) = flights.get_mut(&results.message) else { return };
    let id = MessageId(results.message);
    for (index, outcome) in &results.recipients {
        flight.open -= 1;
        let Some(envelope) = flight.envelopes.iter().find(|of| of.index == *index) else { continue };
        let Envelope { index, recipient, original, action, attempts, .. } = envelope;
        match judge(shard, flight, *action, *attempts, outcome) {
            Verdict::Final => shard.queue.settle(id, *index, State::Delivered),
            Verdict::Retry { until_ms, reply } => {
                shard.queue.settle(id, *index, State::Deferred { until_ms, reply: reply.to_string() });
            }
            Verdict::Release { until_ms } => shard.queue.release(id, *index, until_ms),
            Verdict::GiveUp { reply, expired, output } => failures.push(Failure {
                index: *index,
                recipient: recipient.clone(),
                original: original.clone(),
                reply: reply.clone(),
                output: output.to_owned(),
                remote: results.remote.clone(),
                expired,
            }),
        }
        tell(shard, flight, id, envelope, outcome, &results, failures.last().filter(|failure| failure.index == *index));
    }
    let over = flight.open == 0;
    if !failures.is_empty() {
        let (sender, flags, received_ms) = (flight.sender.clone(), flight.flags, flight.received_ms);
        let task_shard = shard.clone();
        shard.spawn_counted(Class::Delivery, async move {
            bounce::bounce(&task_shard, id, &sender, flags, received_ms, failures).await;
        });
    }
    if over && let Some(flight) = flights.remove(&results.message) {
        drop(flights);
        shard.queue.unpin(id);
        shard.kept_bytes.set(shard.kept_bytes.get() - flight.kept_bytes);
        shard.landed.raise();
    }
}

enum Verdict<'a> {
    Final,
    Retry { until_ms: u64, reply: &'a RemoteReply },
    Release { until_ms: u64 },
    GiveUp { reply: &'a RemoteReply, expired: bool, output: &'a str },
}

fn judge<'a, W: World>(
    shard: &Shard<W>,
    flight: &Flight,
    action: Option<usize>,
    attempts: u16,
    outcome: &'a Outcome,
) -> Verdict<'a> {
    let now_ms = shard.runtime.unix_ms();
    match outcome {
        Outcome::Delivered(_) => Verdict::Final,
        Outcome::Permanent(reply) => Verdict::GiveUp { reply, expired: false, output: "" },
        Outcome::Refused { reply, output } => Verdict::GiveUp { reply, expired: false, output },
        Outcome::Untried => {
            let wait = if shard.stopping.get() { Duration::ZERO } else { limits::ROUTE_BUSY };
            Verdict::Release { until_ms: now_ms + wait.as_millis() as u64 }
        }
        // Waiting for the site is not an attempt; but a message's first deferral is written down, so that it has a reason.
        Outcome::Paused { wait, .. } if attempts > 0 => {
            let spread = Duration::from_millis(shard.runtime.random_u64() % limits::ROUTE_SPREAD.as_millis() as u64);
            Verdict::Release { until_ms: now_ms + (*wait + spread).as_millis() as u64 }
        }
        Outcome::Transient(reply) | Outcome::Paused { reply, .. } => {
            let ttl_ms = dispatch::ttl(&flight.settings, action).as_millis() as u64;
            if now_ms >= flight.received_ms + ttl_ms {
                return Verdict::GiveUp { reply, expired: true, output: "" };
            }
            let wait = retry::next(attempts, shard.runtime.random_u64());
            // The last attempt is made when the time is over, not long before or after.
            let until_ms = (now_ms + wait.as_millis() as u64).min(flight.received_ms + ttl_ms);
            Verdict::Retry { until_ms, reply }
        }
    }
}

fn tell<W: World>(
    shard: &Shard<W>,
    flight: &Flight,
    id: MessageId,
    envelope: &Envelope,
    outcome: &Outcome,
    results: &Results,
    failure: Option<&Failure>,
) {
    let age = Duration::from_millis(shard.runtime.unix_ms().saturating_sub(flight.received_ms));
    let with_output;
    let (result, reply, counter) = match (outcome, failure) {
        (Outcome::Untried, _) => return,
        (Outcome::Paused { .. }, None) if envelope.attempts > 0 => return,
        (Outcome::Delivered(reply), _) => (Result::Ok, reply, Counter::Delivered),
        (_, Some(failure)) if failure.expired => (Result::Expired, &failure.reply, Counter::Failed),
        (Outcome::Refused { reply, output }, _) if !output.is_empty() => {
            let text = format!("{}; it said: {output}", reply.text());
            with_output = RemoteReply::local(reply.code(), reply.status_or_default(), text);
            (Result::PermFail, &with_output, Counter::Failed)
        }
        (Outcome::Permanent(reply) | Outcome::Refused { reply, .. }, _) => (Result::PermFail, reply, Counter::Failed),
        (Outcome::Transient(reply) | Outcome::Paused { reply, .. }, _) => (Result::TempFail, reply, Counter::Deferred),
    };
    shard.counters.add(counter, 1);
    if result == Result::Ok {
        shard.stages.record(Stage::Total, age.max(shard.runtime.now() - flight.began));
    }
    let Envelope { recipient, action, .. } = envelope;
    let kind = action.and_then(|action| flight.settings.config.actions.get(action)).map(|action| &action.kind);
    let leaves = matches!((kind, &envelope.way), (Some(ActionKind::Relay(_)), Way::Address));
    let course = if leaves { Course::Relay } else { Course::Local };
    let (original, reply) = (envelope.original(), Some(reply));
    let Results { remote: via, link, delays, .. } = results;
    let (link, delays) = (*link, *delays);
    shard.event(&Event::Delivery { course, id, recipient, original, result, via, link, age, delays, reply });
}
