//! LMTP, the protocol of final delivery (RFC 2033): what a client does differently from SMTP.
//!
//! It says LHLO, and has no older word to fall back on (`hello.rs`). The end of the message is answered once for each
//! recipient that was accepted, in their order (§4.2), so one full mailbox delays nobody else's copy. What each reply has
//! decided stays decided, also when the connection breaks before the last of them.

use super::envelope::RecipientResult;
use super::incoming::RemoteReply;
use super::session::{Event, Protocol, Session, State, unexpected};

impl Session {
    /// An LMTP connection that was just made, by TCP or a local socket; `name` goes into LHLO. The server speaks first.
    /// Everything else is as with [`Session::new`], but that the recipients of one message may have different results.
    pub fn lmtp(name: impl Into<String>) -> Self {
        Self::speaking(Protocol::Lmtp, name.into())
    }

    /// Whose reply comes first. `Sending` is entered only if somebody was accepted.
    pub(super) fn first_end(&self) -> State {
        self.recipients.next_open(0).map_or(State::Closed, State::RecipientEnd)
    }

    /// The reply for one recipient; the next one's is awaited, or that was the last.
    pub(super) fn on_recipient_end(&mut self, index: usize, reply: RemoteReply) -> Option<Event> {
        self.dirty = false;
        if reply.code() / 100 == 3 {
            return Some(self.lose(unexpected()));
        }
        self.recipients.decide(index, reply);
        if let Some(next) = self.recipients.next_open(index + 1) {
            self.state = State::RecipientEnd(next);
            return None;
        }
        if self.recipients.any_delivered() {
            self.messages += 1;
        }
        Some(self.done(RecipientResult::Transient(unexpected())))
    }

    /// A refusal in the middle of the message is the first recipient's; what the others' would have been is not known.
    pub(super) fn early_recipient_end(&mut self, reply: RemoteReply) -> Event {
        if let Some(first) = self.recipients.next_open(0) {
            self.recipients.decide(first, reply);
        }
        self.done(RecipientResult::Transient(unexpected()))
    }
}
