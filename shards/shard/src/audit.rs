//! The liveness auditor: nothing waits without a reason, and nothing beyond its time.
//!
//! It walks the index of the queue round and round, a part of it a second, and looks each envelope's keeper up: the heap of
//! due times for what waits; a flight, the stock, a reader or a report for what does not. An envelope without one would wait
//! for ever; that is an error of this program, counted, logged, and mended by giving the envelope back to the queue. What the
//! stock has set aside beyond its deadline goes back, too, to be given up; deadlines of what waits for its turn at a route or to
//! be delivered here are looked after there (`outbound::sweep`, `local::sweep`), those of deferred envelopes are their due times.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use ringpost_io::Runtime;
use ringpost_perf::Counter;
use ringpost_queue::{Listed, MessageId, Status};

use crate::limits;
use crate::reason::Progress;
use crate::shard::{Shard, World};
use crate::stock::Parked;

/// Envelopes that seem stranded, since when. Only what is still so after [`limits::AUDIT_DOUBT`] is.
#[derive(Default)]
struct Doubts(HashMap<(MessageId, u16), Instant>);

impl Doubts {
    /// Looked at an envelope at `now`. True: it is stranded.
    fn look(&mut self, envelope: (MessageId, u16), is_kept: bool, now: Instant) -> bool {
        if is_kept {
            if !self.0.is_empty() {
                self.0.remove(&envelope);
            }
            return false;
        }
        if self.0.len() < limits::AUDIT_DOUBTS {
            self.0.entry(envelope).or_insert(now);
        }
        let is_certain = self.0.get(&envelope).is_some_and(|since| now - *since >= limits::AUDIT_DOUBT);
        if is_certain {
            self.0.remove(&envelope);
        }
        is_certain
    }
}

/// Where the auditor is in its round.
#[derive(Default)]
struct Round {
    from: Option<MessageId>,
    doubts: Doubts,
    /// What the stock has, if it has less than the queue believes: the others have been lost.
    stock: Option<Parked>,
}

/// Audits until the shard stops.
pub(crate) async fn run<W: World>(shard: Rc<Shard<W>>) {
    let mut round = Round::default();
    while !shard.stopping.get() {
        let part = shard.queue.counts().messages as usize / limits::AUDIT_ROUND_TURNS;
        let mut left = part.clamp(limits::AUDIT_STEP, limits::AUDIT_MESSAGES);
        while left > 0 {
            let step = left.min(limits::AUDIT_STEP);
            left -= step;
            if look(&shard, &mut round, step) {
                end_round(&shard, &mut round);
                break;
            }
            shard.runtime.yield_now().await;
        }
        let stop = shard.stop.raised();
        shard.runtime.timeout(limits::AUDIT_TURN, stop).await;
    }
}

/// Looks at some messages. True: the round is over.
fn look<W: World>(shard: &Shard<W>, round: &mut Round, messages: usize) -> bool {
    let (now, now_ms) = (shard.runtime.now(), shard.runtime.unix_ms());
    let takes_due = shard.queue.is_writing() && shard.queue.fires();
    let (mut stranded, mut late) = (Vec::new(), Vec::new());
    let Round { from, doubts, stock } = round;
    *from = shard.queue.walk(*from, messages, |listed| {
        let envelope = (listed.id, listed.index);
        if listed.parked && listed.due_ms <= now_ms {
            return late.push(listed);
        }
        let is_kept = match stock {
            Some(stock) if listed.parked => stock.contains_key(&envelope),
            _ => is_kept(shard, &listed, takes_due, now_ms),
        };
        if doubts.look(envelope, is_kept, now) {
            stranded.push(listed);
        }
    });
    late.iter().for_each(|listed| shard.queue.release(listed.id, listed.index, listed.due_ms));
    for Listed { id, index, state, .. } in stranded {
        shard.counters.add(Counter::AuditStranded, 1);
        let state = state.name();
        shard.warn(&format!(
            "queue: envelope {index} of message {id} ({state}) waited for nothing, which is an error of ringpost; it is tried now"
        ));
        shard.queue.release(id, index, now_ms);
    }
    from.is_none()
}

/// Whether somebody will do something for it.
fn is_kept<W: World>(shard: &Shard<W>, listed: &Listed, takes_due: bool, now_ms: u64) -> bool {
    match listed.state {
        Status::Held | Status::Delivered | Status::Failed | Status::Expired => true,
        // Whatever is due is taken within a few turns, even if there is no room for it.
        Status::Waiting => {
            let overdue_ms = now_ms.saturating_sub(listed.due_ms);
            let is_behind = || shard.queue.next_due().is_some_and(|due_ms| due_ms <= listed.due_ms);
            !takes_due || overdue_ms < 3 * limits::OVERDUE.as_millis() as u64 || is_behind()
        }
        // The stock's own books are looked at at the end of the round.
        Status::InFlight if listed.parked => true,
        Status::InFlight => {
            let flights = shard.flights.borrow();
            let envelope = flights.get(&listed.id.0).and_then(|flight| flight.envelope(listed.index));
            envelope.is_some_and(|envelope| envelope.progress.get().0 != Progress::Over)
                || shard.reporting.borrow().contains(&(listed.id.0, listed.index))
                || shard.reading.borrow().contains(&listed.id.0)
        }
    }
}

fn end_round<W: World>(shard: &Shard<W>, round: &mut Round) {
    shard.counters.add(Counter::AuditRounds, 1);
    // What has left the queue since it was doubted is not met again.
    let is_open = |id: MessageId, index| shard.queue.stand(id).iter().any(|listed| listed.index == index);
    round.doubts.0.retain(|(id, index), _| is_open(*id, *index));
    let is_short = shard.queue.counts().parked > shard.stock.len() as u64;
    round.stock = is_short.then(|| shard.stock.parked());
    while let Some(site) = shard.stock.forgotten() {
        shard.counters.add(Counter::AuditStranded, 1);
        let name = site.name;
        shard.warn(&format!(
            "queue: mail for {name} waited for a turn that would not have come, which is an error of ringpost; it has one now"
        ));
        shard.landed.raise();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_doubt_becomes_certain_only_after_its_time_and_ends_when_somebody_has_the_envelope() {
        let (mut doubts, now) = (Doubts::default(), Instant::now());
        let (one, two) = ((MessageId(1), 0), (MessageId(1), 1));
        assert!(!doubts.look(one, false, now) && !doubts.look(two, false, now));
        let soon = now + limits::AUDIT_DOUBT - Duration::from_millis(1);
        assert!(!doubts.look(one, false, soon) && !doubts.look(two, true, soon));
        let later = now + limits::AUDIT_DOUBT;
        assert!(doubts.look(one, false, later), "nobody has had it all the time");
        assert!(!doubts.look(two, false, later), "somebody had it in between");
        assert!(!doubts.look(one, false, later), "it was given back: a new doubt");
    }
}
