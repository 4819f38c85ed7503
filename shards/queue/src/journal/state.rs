//! From the outcome of an attempt to a `state` record. Pure.
//!
//! A state is in the books at once and on disk with the next batch, or within `state_delay`: losing one in a crash costs
//! a delivery that is repeated, never a message.

use crate::envelope::{State, Status};
use crate::index::Place;
use crate::journal::books::{Books, agree};
use crate::journal::record::StateValue;
use crate::limits::REPLY_BYTES_MAX;

impl Books {
    /// Enters an outcome; returns what the record must say, and whether the message has ended. `None`: there is no
    /// such envelope, or it has ended before.
    pub(crate) fn settle(&mut self, number: u64, index: u16, state: &State) -> Option<StateValue> {
        let message = self.index.get(number)?;
        let envelope = *message.envelopes.all().get(usize::from(index))?;
        if envelope.status.is_final() {
            return None;
        }
        let (status, attempts, due_ms) = match state {
            State::Delivered => (Status::Delivered, envelope.attempts, envelope.due_ms),
            State::Deferred { until_ms, .. } => (Status::Waiting, envelope.attempts.saturating_add(1), *until_ms),
            State::Failed { .. } => (Status::Failed, envelope.attempts, envelope.due_ms),
            State::Expired => (Status::Expired, envelope.attempts, envelope.due_ms),
            State::Held => (Status::Held, envelope.attempts, envelope.due_ms),
        };
        self.set(number, index, |envelope| {
            *envelope = crate::index::Envelope { due_ms, place: Place::PENDING, attempts, status };
        });
        let message = self.index.get(number).expect("it was there");
        if message.envelopes.all().iter().all(|envelope| envelope.status.is_final()) {
            self.finish(number);
        }
        Some(StateValue { index, status, attempts, due_ms })
    }

    /// Gives an envelope back that was not tried. Nothing is written: after a crash it would be due at once.
    pub(crate) fn release(&mut self, number: u64, index: u16, until_ms: u64) {
        self.set(number, index, |envelope| {
            if !envelope.status.is_final() {
                envelope.status = Status::Waiting;
                envelope.due_ms = until_ms;
            }
        });
    }

    /// Makes all that waits due now; returns how many envelopes that are.
    pub(crate) fn make_due(&mut self, now_ms: u64) -> u64 {
        let mut changed = 0;
        for message in self.index.all_mut() {
            for envelope in message.envelopes.all_mut() {
                if matches!(envelope.status, Status::Waiting) && envelope.due_ms > now_ms {
                    envelope.due_ms = now_ms;
                    changed += 1;
                }
            }
        }
        if changed > 0 {
            self.rebuild_due();
        }
        changed
    }

    /// Whether a state record that could not be written still says the truth.
    pub(crate) fn is_current(&self, number: u64, value: &StateValue) -> bool {
        let Some(message) = self.index.get(number) else { return value.status.is_final() };
        let envelope = message.envelopes.all().get(usize::from(value.index));
        envelope.is_some_and(|envelope| {
            envelope.place == Place::PENDING
                && envelope.attempts == value.attempts
                && agree(value.status, envelope.status)
        })
    }
}

/// The part of a state's reply that is kept: whole characters within the bound.
pub(crate) fn kept_reply(state: &State) -> &[u8] {
    let reply = match state {
        State::Deferred { reply, .. } | State::Failed { reply } => reply.as_str(),
        State::Delivered | State::Expired | State::Held => "",
    };
    &reply.as_bytes()[..reply.floor_char_boundary(REPLY_BYTES_MAX.min(reply.len()))]
}
