//! Results come home: the journal is told, what failed for now gets its next time, what failed for good a bounce.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use ringpost_address::split_address;
use ringpost_conf::{Refused, Treat};
use ringpost_io::{Class, Runtime};
use ringpost_perf::sites::Fate as SiteFate;
use ringpost_perf::{Counter, Stage};
use ringpost_queue::retry::{self, Schedule};
use ringpost_queue::{MessageId, State};
use ringpost_routes::{Site, Suspension};
use ringpost_smtp::client::RemoteReply;

use crate::bounce::{self, About, Ending, Fate};
use crate::dispatch::{self, Envelope, Flight};
use crate::event::{Course, Event, Result};
use crate::letter::{Outcome, Results};
use crate::reason::Progress;
use crate::shard::{Shard, World};
use crate::{limits, reverse_path};

/// Takes the results of a ticket or a local delivery.
pub(crate) fn settle<W: World>(shard: &Rc<Shard<W>>, results: Results) {
    let is_about_site = results.recipients.iter().any(|(_, outcome)| outcome.is_about_site());
    let site = results.taken.filter(|_| is_about_site).and_then(|taken| shard.stock.site(taken));
    if let Some(taken) = results.taken
        && shard.stock.give_back(taken, dispatch::in_air(shard))
    {
        shard.landed.raise();
    }
    let suspension = results.recipients.iter().find_map(|(_, outcome)| match outcome {
        Outcome::Suspended { suspension, .. } => Some(suspension),
        _ => None,
    });
    if let (Some(site), Some(suspension)) = (&site, suspension) {
        shard.suspended.borrow_mut().note(site, suspension, shard.runtime.now());
    }
    let mut endings = Vec::new();
    let mut flights = shard.flights.borrow_mut();
    let Some(flight) = flights.get_mut(&results.message) else { return };
    let id = MessageId(results.message);
    for (index, outcome) in &results.recipients {
        flight.open -= 1;
        let Some(envelope) = flight.envelope(*index) else { continue };
        envelope.progress.set((Progress::Over, None));
        let (outcome, class) = interpret(flight, envelope, outcome);
        let outcome = &*outcome;
        let Envelope { index, .. } = envelope;
        match judge(shard, flight, envelope, outcome) {
            Verdict::Final => match success(flight, envelope, &results) {
                Some(fate) => endings.push(Ending::new(envelope, outcome, &results, fate)),
                None => shard.queue.settle(id, *index, State::Delivered),
            },
            Verdict::Retry { until_ms, reply } => {
                shard.queue.settle(id, *index, State::Deferred { until_ms, reply: reply.to_string() });
                if let Some(site) = site.as_ref().filter(|_| outcome.is_about_site()) {
                    let most = flight.settings.sleepers_max;
                    shard.sleepers.borrow_mut().add(site, (id, *index), most);
                }
            }
            Verdict::Release { until_ms } => {
                shard.queue.release(id, *index, until_ms);
                if let Some(site) = site.as_ref().filter(|_| matches!(outcome, Outcome::Suspended { .. })) {
                    shard.sleepers.borrow_mut().add(site, (id, *index), flight.settings.sleepers_max);
                }
            }
            Verdict::Keep => {}
            Verdict::GiveUp { reply, expired, output } => {
                if let Outcome::Unreadable(why) = outcome {
                    let (to, why) = (&envelope.recipient, why.text());
                    shard.warn(&format!("queue: MAIL IS LOST: message {id} to <{to}> is given up; {why}"));
                }
                endings.push(Ending {
                    reply: reply.into_owned(),
                    output: output.to_owned(),
                    returns_to: returns_to(flight, envelope),
                    ..Ending::new(envelope, outcome, &results, if expired { Fate::Expired } else { Fate::Failed })
                });
            }
        }
        let ending = endings.last().filter(|ending| ending.index == *index);
        tell(shard, flight, id, envelope, outcome, class, &results, ending);
    }
    let over = flight.open == 0;
    if !endings.is_empty() {
        let about = About::new(id, flight);
        let task_shard = shard.clone();
        let reported: Vec<(u64, u16)> = endings.iter().map(|ending| (id.0, ending.index)).collect();
        shard.reporting.borrow_mut().extend(&reported);
        shard.spawn_counted(Class::Delivery, async move {
            bounce::report(&task_shard, &about, endings).await;
            let mut reporting = task_shard.reporting.borrow_mut();
            for envelope in &reported {
                reporting.remove(envelope);
            }
        });
    }
    if over && let Some(flight) = flights.remove(&results.message) {
        drop(flights);
        shard.queue.unpin(id);
        shard.pieces.forget(id.0);
        shard.kept_bytes.set(shard.kept_bytes.get() - flight.kept_bytes);
        shard.landed.raise();
    }
}

/// Where the report on a failure goes, if not to the sender.
fn returns_to(flight: &Flight, envelope: &Envelope) -> Option<String> {
    let Flight { sender, flags, received_ms, settings, .. } = flight;
    let message = reverse_path::Message { sender, flags: *flags, received_ms: *received_ms };
    reverse_path::of_failure(settings, message, envelope)
}

/// What the sender is to be told of a delivery that has succeeded (RFC 3461 §5.2); `None`: nothing by us.
fn success(flight: &Flight, envelope: &Envelope, results: &Results) -> Option<Fate> {
    if flight.sender.is_empty() || !envelope.request().notify.wants_success() {
        return None;
    }
    match results.link {
        None => Some(Fate::Delivered),
        Some(link) => (!link.reports).then_some(Fate::Relayed),
    }
}

/// What a refusal by another server means here: it may be for good where the server says for now, or the other way round. Also
/// its class.
fn interpret<'a>(flight: &'a Flight, envelope: &Envelope, outcome: &'a Outcome) -> (Cow<'a, Outcome>, Option<&'a str>) {
    let (Outcome::Permanent(reply) | Outcome::Transient(reply)) = outcome else {
        return (Cow::Borrowed(outcome), None);
    };
    if !envelope.leaves(&flight.settings) {
        return (Cow::Borrowed(outcome), None);
    }
    let domain = split_address(&envelope.recipient).map_or("", |(_, domain)| domain);
    let (code, status) = (reply.code(), reply.status_or_default());
    let refused = Refused { code, status, text: reply.text(), domain };
    let (class, treat) = flight.settings.config.classify(&refused);
    let outcome = match (treat, outcome) {
        (Some(Treat::Permanent), Outcome::Transient(reply)) => Cow::Owned(Outcome::Permanent(reply.clone())),
        (Some(Treat::Temporary | Treat::Throttle(_) | Treat::Suspend(_)), Outcome::Permanent(reply)) => {
            Cow::Owned(Outcome::Transient(reply.clone()))
        }
        _ => Cow::Borrowed(outcome),
    };
    (outcome, Some(class))
}

/// A site has taken a message again: what was deferred for it is due soon.
pub(crate) fn wake<W: World>(shard: &Shard<W>, site: &Site) {
    let woken = shard.sleepers.borrow_mut().wake(site, shard.runtime.now());
    let now_ms = shard.runtime.unix_ms();
    for ((id, index), wait) in woken {
        shard.queue.hasten(id, index, now_ms + wait.as_millis() as u64);
    }
}

enum Verdict<'a> {
    Final,
    Retry {
        until_ms: u64,
        reply: &'a RemoteReply,
    },
    Release {
        until_ms: u64,
    },
    /// In flight as far as the queue is concerned.
    Keep,
    GiveUp {
        reply: Cow<'a, RemoteReply>,
        expired: bool,
        output: &'a str,
    },
}

fn judge<'a, W: World>(shard: &Shard<W>, flight: &Flight, envelope: &Envelope, outcome: &'a Outcome) -> Verdict<'a> {
    let now_ms = shard.runtime.unix_ms();
    let (attempts, settings) = (envelope.attempts, &flight.settings);
    let expiry_ms = dispatch::expiry_ms(settings, envelope.action, &envelope.recipient, flight.received_ms);
    match outcome {
        Outcome::Delivered(_) => Verdict::Final,
        Outcome::Permanent(reply) => Verdict::GiveUp { reply: Cow::Borrowed(reply), expired: false, output: "" },
        Outcome::Refused { reply, output } => Verdict::GiveUp { reply: Cow::Borrowed(reply), expired: false, output },
        Outcome::Waits => Verdict::Keep,
        // Never later than its expiry: where the clock is ahead, and is set right, it would outlive that.
        Outcome::Recalled => Verdict::Release { until_ms: now_ms.min(expiry_ms) },
        // However it has waited, its time is over; but a shard that stops has not let it have its last attempt.
        Outcome::Untried if now_ms >= expiry_ms && !shard.stopping.get() => {
            let reply = RemoteReply::local(451, (4, 4, 7), "it waited for its turn until its time was over");
            Verdict::GiveUp { reply: Cow::Owned(reply), expired: true, output: "" }
        }
        Outcome::Untried => {
            let wait = if shard.stopping.get() { Duration::ZERO } else { limits::ROUTE_BUSY };
            Verdict::Release { until_ms: (now_ms + wait.as_millis() as u64).min(expiry_ms) }
        }
        // Waiting for the site is not an attempt; but a message's first deferral is written down, so that it has a reason.
        Outcome::Paused { wait, .. } if attempts > 0 && now_ms < expiry_ms => {
            let spread = Duration::from_millis(shard.runtime.random_u64() % limits::ROUTE_SPREAD.as_millis() as u64);
            Verdict::Release { until_ms: (now_ms + (*wait + spread).as_millis() as u64).min(expiry_ms) }
        }
        Outcome::Suspended { suspension, .. } if attempts > 0 && now_ms < expiry_ms => {
            Verdict::Release { until_ms: over_ms(shard, suspension).min(expiry_ms) }
        }
        Outcome::Transient(reply)
        | Outcome::Unreadable(reply)
        | Outcome::Paused { reply, .. }
        | Outcome::Suspended { reply, .. } => {
            if now_ms >= expiry_ms {
                return Verdict::GiveUp { reply: Cow::Borrowed(reply), expired: true, output: "" };
            }
            if let Outcome::Suspended { suspension, .. } = outcome {
                return Verdict::Retry { until_ms: over_ms(shard, suspension).min(expiry_ms), reply };
            }
            let random = shard.runtime.random_u64();
            let wait = match dispatch::patience(settings, envelope.action, &envelope.recipient).retry {
                Some(retry) => Schedule::of(&retry.waits, retry.then, retry.jitter_percent).next(attempts, random),
                None => retry::next(attempts, random),
            };
            // The last attempt is made when the time is over, not long before or after.
            let until_ms = (now_ms + wait.as_millis() as u64).min(expiry_ms);
            Verdict::Retry { until_ms, reply }
        }
    }
}

/// When a message may go to a site again that is suspended; not all of them at once.
fn over_ms<W: World>(shard: &Shard<W>, suspension: &Suspension) -> u64 {
    let left = suspension.until.saturating_duration_since(shard.runtime.now());
    let spread = shard.runtime.random_u64() % limits::ROUTE_SPREAD.as_millis() as u64;
    shard.runtime.unix_ms() + left.as_millis() as u64 + spread
}

#[allow(clippy::too_many_arguments)]
fn tell<W: World>(
    shard: &Shard<W>,
    flight: &Flight,
    id: MessageId,
    envelope: &Envelope,
    outcome: &Outcome,
    class: Option<&str>,
    results: &Results,
    failure: Option<&Ending>,
) {
    let age = Duration::from_millis(shard.runtime.unix_ms().saturating_sub(flight.received_ms));
    let with_output;
    let (result, reply, counter) = match (outcome, failure) {
        (_, Some(failure)) if failure.fate == Fate::Expired => (Result::Expired, &failure.reply, Counter::Failed),
        (Outcome::Untried | Outcome::Recalled | Outcome::Waits, _) => return,
        (Outcome::Paused { .. } | Outcome::Suspended { .. }, None) if envelope.attempts > 0 => return,
        (Outcome::Delivered(reply), _) => (Result::Ok, reply, Counter::Delivered),
        (Outcome::Refused { reply, output }, _) if !output.is_empty() => {
            let text = format!("{}; it said: {output}", reply.text());
            with_output = RemoteReply::local(reply.code(), reply.status_or_default(), text);
            (Result::PermFail, &with_output, Counter::Failed)
        }
        (Outcome::Permanent(reply) | Outcome::Refused { reply, .. }, _) => (Result::PermFail, reply, Counter::Failed),
        (
            Outcome::Transient(reply)
            | Outcome::Unreadable(reply)
            | Outcome::Paused { reply, .. }
            | Outcome::Suspended { reply, .. },
            _,
        ) => (Result::TempFail, reply, Counter::Deferred),
    };
    shard.counters.add(counter, 1);
    let said = class.filter(|_| !reply.is_ours());
    if let Some(class) = said {
        shard.refusals.borrow_mut().add(class, 1);
    }
    if let Some(site) = &results.site {
        let fate = match counter {
            Counter::Delivered => SiteFate::Delivered,
            Counter::Deferred => SiteFate::Deferred,
            _ => SiteFate::Failed,
        };
        shard.sites.borrow_mut().add(site, fate, said);
    }
    if result == Result::Ok {
        shard.stages.record(Stage::Total, age.max(shard.runtime.now() - flight.began));
    }
    let recipient = &envelope.recipient;
    let course = if envelope.leaves(&flight.settings) { Course::Relay } else { Course::Local };
    let (original, reply) = (envelope.original(), Some(reply));
    let Results { remote: via, link, delays, .. } = results;
    let (link, delays) = (*link, *delays);
    shard.event(&Event::Delivery { course, id, recipient, original, result, via, link, age, delays, class, reply });
}
