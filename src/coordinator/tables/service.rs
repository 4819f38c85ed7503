//! What a table is asked for (grammar §7.1), and the form of the rows that answer it. Pure.

use ringpost_conf::tables::ServiceKind;
use serde::{Deserialize, Serialize};

/// A kind of question. Those that need all entries at once (regular expressions) are not asked of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Service {
    /// Local part, address, `@domain` or `@` → what it stands for.
    Alias,
    /// A name or `*.` above it.
    Domain,
    /// A client's user name → a hash, or user and hash. Never answered from old knowledge.
    Credentials,
    /// A relay's label → user and password.
    RelayCredentials,
    /// `user:password`, which the backend judges itself. Never kept, never logged.
    Auth,
    /// User → uid, gid and home.
    UserInfo,
    /// Networks.
    NetAddr,
    /// All source addresses; there is no key.
    SourceAddr,
    /// Address → host name.
    AddrName,
    /// Patterns of addresses.
    MailAddr,
    /// User → patterns of addresses.
    MailAddrMap,
    /// All relay URLs (without a key), or domain → relay URLs.
    RelayHost,
    /// Words.
    String,
    /// Name → chain and key.
    Cert,
    /// Domain → selector and key.
    Dkim,
}

/// How many rows one answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// One; a second is a mistake.
    One,
    /// As many as there are; together they are the answer.
    Many,
    /// It counts only that there is one.
    Any,
}

impl Service {
    /// What a configuration calls so; `None`: it is not asked of a backend. Credentials are a listener's: the stricter kind.
    pub fn of(kind: ServiceKind) -> Option<Self> {
        Some(match kind {
            ServiceKind::Alias => Self::Alias,
            ServiceKind::Domain => Self::Domain,
            ServiceKind::Credentials => Self::Credentials,
            ServiceKind::Auth => Self::Auth,
            ServiceKind::UserInfo => Self::UserInfo,
            ServiceKind::NetAddr => Self::NetAddr,
            ServiceKind::SourceAddr => Self::SourceAddr,
            ServiceKind::AddrName => Self::AddrName,
            ServiceKind::MailAddr => Self::MailAddr,
            ServiceKind::MailAddrMap => Self::MailAddrMap,
            ServiceKind::RelayHost => Self::RelayHost,
            ServiceKind::String => Self::String,
            ServiceKind::Regex => return None,
            ServiceKind::Cert => Self::Cert,
            ServiceKind::Dkim => Self::Dkim,
        })
    }

    /// All names, each once; for suggestions.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ServiceKind::names().filter(|name| Self::named(name).is_some())
    }

    /// The service of a name.
    pub fn named(name: &str) -> Option<Self> {
        ServiceKind::parse(name).and_then(Self::of)
    }

    /// Its name in configuration files.
    pub fn name(self) -> &'static str {
        let is_this = |kind: &ServiceKind| Self::of(*kind) == Some(self.asked_as());
        ServiceKind::ALL.into_iter().find(is_this).map_or("", ServiceKind::name)
    }

    /// The service whose query or filter answers it: both kinds of credentials have one.
    pub fn asked_as(self) -> Self {
        if self == Self::RelayCredentials { Self::Credentials } else { self }
    }

    /// Whether an answer that is out of date may be given while the backend fails (grammar §7.3).
    pub fn may_be_stale(self) -> bool {
        !matches!(self, Self::Credentials | Self::Auth)
    }

    /// Whether answers are kept at all: passwords that somebody tried do not stay in memory, and one that was changed, or
    /// taken away, is so for the next who logs in.
    pub fn is_kept(self) -> bool {
        !matches!(self, Self::Auth | Self::Credentials)
    }

    /// Whether upper and lower case of its keys are not the same.
    pub fn minds_case(self) -> bool {
        ServiceKind::parse(self.name()).is_some_and(ServiceKind::minds_case)
    }

    /// Whether its key may be seen in a log.
    pub fn is_secret(self) -> bool {
        self == Self::Auth
    }

    /// How many rows make an answer.
    pub fn rows(self) -> Rows {
        match self {
            Self::Alias | Self::MailAddrMap | Self::SourceAddr | Self::RelayHost | Self::Dkim => Rows::Many,
            Self::Credentials | Self::RelayCredentials | Self::UserInfo | Self::AddrName | Self::Cert => Rows::One,
            Self::Domain | Self::Auth | Self::NetAddr | Self::MailAddr | Self::String => Rows::Any,
        }
    }

    /// How many columns a row may have. One column is the whole record; several are its parts.
    pub fn columns(self) -> &'static [usize] {
        match self {
            Self::Credentials | Self::RelayCredentials | Self::Cert | Self::Dkim => &[1, 2],
            Self::UserInfo => &[1, 3, 4],
            _ => &[1],
        }
    }

    /// What stands between the parts of a record.
    pub fn joint(self) -> &'static str {
        if self == Self::Cert { "\n" } else { ":" }
    }

    /// How many values of the key a query takes: user and password come apart, whole lists have no key.
    pub fn parameters(self) -> &'static [usize] {
        match self {
            Self::Auth => &[2],
            Self::SourceAddr => &[0],
            Self::RelayHost => &[0, 1],
            _ => &[1],
        }
    }
}

/// What is between two rows of one answer, as in a list of aliases.
pub const BETWEEN_ROWS: &str = ", ";

/// `1 or 2`, for messages.
pub fn either(counts: &[usize]) -> String {
    let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
    counts.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for name in Service::names().filter(|name| *name != "sourceaddr") {
            assert_eq!(Service::named(name).map(Service::name), Some(name));
        }
        assert_eq!(Service::named("sourceaddr"), Some(Service::SourceAddr));
        assert_eq!(Service::named("credentials"), Some(Service::Credentials));
        assert_eq!(Service::RelayCredentials.name(), "credentials");
        assert_eq!(Service::named("regex"), None);
        assert_eq!(Service::names().filter(|name| *name == "credentials").count(), 1);
    }

    #[test]
    fn what_guards_a_door_is_never_old() {
        assert!(!Service::Credentials.may_be_stale() && !Service::Auth.may_be_stale());
        assert!(!Service::Credentials.is_kept() && !Service::Auth.is_kept() && Service::RelayCredentials.is_kept());
        assert!(Service::RelayCredentials.may_be_stale() && Service::Alias.may_be_stale());
        assert_eq!(either(Service::UserInfo.columns()), "1 or 3 or 4");
    }
}
