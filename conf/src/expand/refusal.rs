//! Why a recipient is not taken, and the reply that says so (grammar §6).

use crate::model::Reply;

/// Why a recipient is refused, for good or for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A `reject` line, or an `error:` entry.
    Given(Reply),
    /// The domain is ours, the recipient is nobody.
    NoSuchRecipient,
    /// No rule takes such recipients.
    NotHere,
    /// The aliases go round in circles, and nothing else is left.
    Loop,
    /// `smtp limit max-depth` or `max-nodes` was met.
    TooMuch,
    /// A lookup has failed, or said nonsense. Temporary.
    LookupFailed,
    /// A `.forward` or a list that cannot be used until its owner mends it. Temporary.
    BadList,
    /// The user whom the action names does not exist. Temporary: the configuration is wrong.
    NoActionUser,
    /// `forward-only`, and the mail would stay here. Temporary.
    StaysHere,
}

impl Refusal {
    /// Code of the reply: 4xx or 5xx.
    pub fn code(&self) -> u16 {
        match self {
            Self::Given(reply) => reply.code,
            Self::NoSuchRecipient | Self::NotHere | Self::Loop | Self::TooMuch => 550,
            Self::LookupFailed | Self::BadList | Self::NoActionUser | Self::StaysHere => 451,
        }
    }

    /// Enhanced status (RFC 3463), of the same class.
    pub fn status(&self) -> &str {
        match self {
            Self::Given(reply) => &reply.status,
            Self::NoSuchRecipient => "5.1.1",
            Self::NotHere => "5.7.1",
            Self::Loop | Self::TooMuch => "5.4.6",
            Self::LookupFailed => "4.3.0",
            Self::BadList => "4.2.4",
            Self::NoActionUser => "4.3.5",
            Self::StaysHere => "4.2.1",
        }
    }

    /// Text of the reply. It names nobody: who asks is a stranger.
    pub fn text(&self) -> &str {
        match self {
            Self::Given(reply) => &reply.text,
            Self::NoSuchRecipient => "no such recipient here",
            Self::NotHere => "this server does not take mail for that recipient from you",
            Self::Loop => "loop in aliases",
            Self::TooMuch => "this recipient stands for too many others",
            Self::LookupFailed => "a lookup has failed for now, try again later",
            Self::BadList => "the list of this recipient cannot be used for now, try again later",
            Self::NoActionUser => "the mailbox of this recipient is not set up, try again later",
            Self::StaysHere => "this recipient takes no mail for now, try again later",
        }
    }

    /// Whether the same recipient may be taken another time.
    pub fn is_temporary(&self) -> bool {
        self.code() < 500
    }

    /// Somebody has decided against the recipient. What is not, is unknown, and weighs less than a decision.
    pub(super) fn is_decided(&self) -> bool {
        matches!(self, Self::Given(_)) || !self.is_temporary()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_statuses_agree() {
        use Refusal::*;
        for refusal in [NoSuchRecipient, NotHere, Loop, TooMuch, LookupFailed, BadList, NoActionUser, StaysHere] {
            let class = (refusal.code() / 100).to_string();
            assert!(refusal.status().starts_with(&class), "{refusal:?}");
            assert!(refusal.text().is_ascii() && !refusal.text().is_empty());
            assert_eq!(refusal.is_decided(), !refusal.is_temporary());
        }
        let later = Given(Reply { code: 451, status: "4.7.1".into(), text: "x".into() });
        assert!(later.is_temporary() && later.is_decided());
    }
}
