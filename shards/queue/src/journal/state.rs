//! From the outcome of an attempt to a `state` record. Pure.
//!
//! A state is in the books at once and on disk with the next batch, or within `state_delay`: losing one in a crash costs
//! a delivery that is repeated, never a message.

use crate::envelope::{State, Status};
use crate::index::{Place, came_s};
use crate::journal::books::{Books, agree};
use crate::journal::record::StateValue;
use crate::limits::REPLY_BYTES_MAX;
use crate::told::Told;

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
            let place = Place::PENDING;
            *envelope = crate::index::Envelope { due_ms, place, attempts, status, parked: false, ..*envelope };
        });
        let message = self.index.get(number).expect("it was there");
        if message.envelopes.all().iter().all(|envelope| envelope.status.is_final()) {
            self.finish(number);
        }
        Some(StateValue { index, status, attempts, due_ms, told: envelope.told })
    }

    /// Enters how far the sender was told that an envelope waits; returns what the record must say. `None`: it has ended, or
    /// he was told that before.
    pub(crate) fn note(&mut self, number: u64, index: u16, told: Told) -> Option<StateValue> {
        let envelope = *self.index.get(number)?.envelopes.all().get(usize::from(index))?;
        if envelope.status.is_final() || told <= envelope.told {
            return None;
        }
        self.set(number, index, |envelope| {
            envelope.told = told;
            envelope.place = Place::PENDING;
        });
        let (status, due_ms) = match envelope.status {
            // It will not be after a crash, and is due at once then.
            Status::InFlight => (Status::Waiting, 0),
            status => (status, envelope.due_ms),
        };
        Some(StateValue { index, status, attempts: envelope.attempts, due_ms, told })
    }

    /// Enters when a message came, if that is not known: the checkpoint of an older version does not say.
    pub(crate) fn came(&mut self, number: u64, received_ms: u64) {
        if let Some(message) = self.index.get_mut(number) {
            let unknown = message.envelopes.all_mut().iter_mut().filter(|envelope| envelope.came_s == 0);
            unknown.for_each(|envelope| envelope.came_s = came_s(received_ms));
        }
    }

    /// Gives an envelope back that was not tried. Nothing is written: after a crash it would be due at once.
    pub(crate) fn release(&mut self, number: u64, index: u16, until_ms: u64) {
        self.set(number, index, |envelope| {
            if !envelope.status.is_final() {
                envelope.status = Status::Waiting;
                envelope.due_ms = until_ms;
                envelope.parked = false;
            }
        });
    }

    /// Notes that whoever has this envelope has set it aside, until then at the latest.
    pub(crate) fn park(&mut self, number: u64, index: u16, until_ms: u64) {
        self.set(number, index, |envelope| {
            if envelope.status == Status::InFlight {
                envelope.due_ms = until_ms;
                envelope.parked = true;
            }
        });
    }

    /// Takes a parked envelope up again. False: it is parked no longer.
    pub(crate) fn unpark(&mut self, number: u64, index: u16) -> bool {
        let mut was = false;
        self.set(number, index, |envelope| was = std::mem::take(&mut envelope.parked));
        was
    }

    /// An envelope that waits is due at this time already, if that is earlier. False: it does not wait, or not so long.
    pub(crate) fn hasten(&mut self, number: u64, index: u16, due_ms: u64) -> bool {
        let mut earlier = false;
        self.set(number, index, |envelope| {
            earlier = envelope.status == Status::Waiting && envelope.due_ms > due_ms;
            if earlier {
                envelope.due_ms = due_ms;
            }
        });
        earlier
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
                && envelope.told == value.told
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MessageId;
    use crate::index::{Envelopes, Message};

    #[test]
    fn when_a_message_came_is_learned_once() {
        let mut books = Books::default();
        // As an older checkpoint has it.
        let envelopes = Envelopes::new(2, 0, Status::Waiting);
        books.add(Message { number: 4, place: Place::NONE, meta_bytes: 0, text_bytes: 0, envelopes }, None);
        let known = |books: &Books| {
            let message = books.index.get(4).expect("it is there");
            message.open(MessageId(4)).map(|listed| listed.received_ms).collect::<Vec<_>>()
        };
        assert_eq!(known(&books), [None, None]);
        books.came(5, 1);
        for received_ms in [5_000_400, 9_000_000] {
            books.came(4, received_ms);
            assert_eq!(known(&books), [Some(5_001_000); 2], "rounded up");
        }
    }
}
