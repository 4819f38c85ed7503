//! How long a client waits for what: a time for each step, none less than RFC 5321 §4.5.3.2 asks for unless an administrator
//! wishes it.

use std::time::Duration;

use super::session::State;
use crate::limits;

/// The longest that a server may take, step by step. Each is for a whole reply, however slowly its bytes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For its greeting.
    pub greeting: Duration,
    /// For the reply to EHLO, HELO or LHLO.
    pub hello: Duration,
    /// For the reply to STARTTLS.
    pub starttls: Duration,
    /// For a reply in a login.
    pub login: Duration,
    /// For the reply to MAIL.
    pub mail: Duration,
    /// For the reply to a RCPT.
    pub recipient: Duration,
    /// For the reply to DATA.
    pub data: Duration,
    /// To take a block of the message.
    pub block: Duration,
    /// For the reply to the end of the message.
    pub end: Duration,
    /// For the reply to RSET or QUIT.
    pub parting: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            greeting: limits::GREETING_TIMEOUT,
            hello: limits::HELLO_TIMEOUT,
            starttls: limits::STARTTLS_TIMEOUT,
            login: limits::LOGIN_TIMEOUT,
            mail: limits::MAIL_TIMEOUT,
            recipient: limits::RECIPIENT_TIMEOUT,
            data: limits::DATA_START_TIMEOUT,
            block: limits::DATA_BLOCK_TIMEOUT,
            end: limits::DATA_END_TIMEOUT,
            parting: limits::PARTING_TIMEOUT,
        }
    }
}

impl Patience {
    /// The same, but nothing longer than `max`.
    pub fn at_most(self, max: Duration) -> Self {
        Self {
            greeting: self.greeting.min(max),
            hello: self.hello.min(max),
            starttls: self.starttls.min(max),
            login: self.login.min(max),
            mail: self.mail.min(max),
            recipient: self.recipient.min(max),
            data: self.data.min(max),
            block: self.block.min(max),
            end: self.end.min(max),
            parting: self.parting.min(max),
        }
    }

    /// For what is awaited in a state.
    pub(super) fn of(&self, state: State) -> Duration {
        match state {
            State::Greeting => self.greeting,
            State::Ehlo | State::Helo => self.hello,
            State::StartTls | State::Handshake => self.starttls,
            State::Auth(_) => self.login,
            State::Ready | State::Mail => self.mail,
            State::Rcpt(_) => self.recipient,
            State::Data => self.data,
            State::Sending => self.block,
            State::End | State::RecipientEnd(_) | State::EmptyEnd => self.end,
            State::Reset | State::Quit | State::Closed => self.parting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_has_less_time_than_the_standard_asks_for() {
        let Patience { greeting, mail, recipient, data, block, end, .. } = Patience::default();
        let minutes = [greeting, mail, recipient, data, block, end].map(|time| time.as_secs() / 60);
        assert_eq!(minutes, [5, 5, 5, 2, 3, 10]);
        let hasty = Patience::default().at_most(Duration::from_secs(20));
        assert_eq!((hasty.end, hasty.parting), (Duration::from_secs(20), limits::PARTING_TIMEOUT));
    }
}
