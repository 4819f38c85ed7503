//! What a table may be asked for (grammar §7.1). A table has the services that its uses ask for.

use std::fmt;

/// A service. Its [name](Self::name) is the one of `query_NAME`, `NAME_filter` and `ringpost table lookup TABLE NAME KEY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceKind {
    /// K_ALIAS: what a user or an address stands for.
    Alias,
    /// K_DOMAIN: names and wildcards.
    Domain,
    /// K_CREDENTIALS: who may log in, or how we do.
    Credentials,
    /// K_AUTH: the backend judges `user:password` itself.
    Auth,
    /// K_USERINFO: uid, gid and home of a user.
    UserInfo,
    /// K_NETADDR: addresses and networks.
    NetAddr,
    /// K_SOURCEADDR: addresses to connect from, cycled.
    SourceAddr,
    /// K_ADDRNAME: names of addresses.
    AddrName,
    /// K_MAILADDR: patterns of mail addresses.
    MailAddr,
    /// K_MAILADDRMAP: patterns of mail addresses for each user.
    MailAddrMap,
    /// K_RELAYHOST: relay URLs, cycled, or by domain.
    RelayHost,
    /// K_STRING: words.
    String,
    /// K_REGEX: regular expressions. Only tables in memory have it: it cannot be asked by key.
    Regex,
    /// K_CERT: chains and keys by name, or users by subject.
    Cert,
    /// K_DKIM: selector and key by domain.
    Dkim,
}

/// The article's name of [`ServiceKind::SourceAddr`].
const SOURCE_ADDR: &str = "sourceaddr";

impl ServiceKind {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Alias,
        Self::Domain,
        Self::Credentials,
        Self::Auth,
        Self::UserInfo,
        Self::NetAddr,
        Self::SourceAddr,
        Self::AddrName,
        Self::MailAddr,
        Self::MailAddrMap,
        Self::RelayHost,
        Self::String,
        Self::Regex,
        Self::Cert,
        Self::Dkim,
    ];

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alias => "alias",
            Self::Domain => "domain",
            Self::Credentials => "credentials",
            Self::Auth => "auth",
            Self::UserInfo => "userinfo",
            Self::NetAddr => "netaddr",
            Self::SourceAddr => "source",
            Self::AddrName => "addrname",
            Self::MailAddr => "mailaddr",
            Self::MailAddrMap => "mailaddrmap",
            Self::RelayHost => "relayhost",
            Self::String => "string",
            Self::Regex => "regex",
            Self::Cert => "cert",
            Self::Dkim => "dkim",
        }
    }

    /// The service of this name. K_SOURCEADDR is also called what the article calls it.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            SOURCE_ADDR => Some(Self::SourceAddr),
            _ => Self::ALL.into_iter().find(|service| service.name() == name),
        }
    }

    /// All names, the second one of K_SOURCEADDR last.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().map(Self::name).chain([SOURCE_ADDR])
    }

    /// Whether upper and lower case of a key are not the same.
    pub fn minds_case(self) -> bool {
        matches!(self, Self::Credentials | Self::Auth | Self::MailAddrMap | Self::String | Self::Regex)
    }

    /// Whether the whole list is wanted, not the answer to a key: the list is cycled.
    pub fn is_cycled(self) -> bool {
        matches!(self, Self::SourceAddr | Self::RelayHost)
    }
}

impl fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for service in ServiceKind::ALL {
            assert_eq!(ServiceKind::parse(service.name()), Some(service));
        }
        assert_eq!(ServiceKind::parse("aliases"), None);
    }
}
