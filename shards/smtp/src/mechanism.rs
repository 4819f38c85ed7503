//! The ways to log in (RFC 4954) that are known here, of both sides.

/// How somebody who logs in proves who it is. In the order in which they are announced: the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// SCRAM bound to the encrypted channel (RFC 7677, RFC 5929, RFC 9266).
    ScramSha256Plus,
    /// RFC 7677.
    ScramSha256,
    /// RFC 7628.
    OAuthBearer,
    /// The form of it that came before.
    XOAuth2,
    /// RFC 4616.
    Plain,
    /// Never standardised, and often the only one that a program knows.
    Login,
    /// The client's certificate (RFC 4422 §A).
    External,
}

impl Mechanism {
    const ALL: [Self; 7] = [
        Self::ScramSha256Plus,
        Self::ScramSha256,
        Self::OAuthBearer,
        Self::XOAuth2,
        Self::Plain,
        Self::Login,
        Self::External,
    ];

    /// Its name in the registry.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::XOAuth2 => "XOAUTH2",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::External => "EXTERNAL",
        }
    }

    /// The one of this name, in either case.
    pub(crate) fn named(word: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|one| word.eq_ignore_ascii_case(one.name().as_bytes()))
    }
}

/// A set of mechanisms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mechanisms(u8);

impl Mechanisms {
    /// PLAIN and LOGIN, for which it is enough that a password can be checked.
    pub fn passwords() -> Self {
        Self::default().with(Mechanism::Plain).with(Mechanism::Login)
    }

    /// With this one, too.
    pub fn with(self, mechanism: Mechanism) -> Self {
        Self(self.0 | 1 << mechanism as u8)
    }

    /// Whether this one is in it.
    pub fn has(self, mechanism: Mechanism) -> bool {
        self.0 & (1 << mechanism as u8) != 0
    }

    /// Appends their names, a blank before each.
    pub(crate) fn announce(self, out: &mut Vec<u8>) {
        for mechanism in Mechanism::ALL.into_iter().filter(|one| self.has(*one)) {
            out.push(b' ');
            out.extend_from_slice(mechanism.name().as_bytes());
        }
    }
}
