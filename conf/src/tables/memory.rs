//! Tables in memory: what was made of entries, one part for each service, immutable and shared by all shards.

use std::net::IpAddr;
use std::sync::Arc;

use super::key::without_last_dot;
use super::shown::{dkim, login, user};
use super::{
    AddressPattern, AddressSet, AliasTarget, Answer, Certificate, Credentials, DkimKey, DomainSet, HostName, Keys,
    Mapped, Patterns, RelayHost, ServiceKind, SourceSet, UserName, UserRecord, WordSet,
};
use ringpost_address::{FoldedAddress, parse_ip};

/// What was made of a table's entries.
#[derive(Clone, Debug, Default)]
pub struct MemoryTable {
    parts: Vec<Part>,
}

/// The entries as one service wants them.
#[derive(Clone, Debug)]
pub enum Part {
    /// K_ALIAS.
    Aliases(Arc<Mapped<Vec<AliasTarget>>>),
    /// K_DOMAIN.
    Domains(Arc<DomainSet>),
    /// K_CREDENTIALS.
    Credentials(Arc<Mapped<Credentials>>),
    /// K_USERINFO.
    Users(Arc<Mapped<UserRecord>>),
    /// K_NETADDR.
    Networks(Arc<SourceSet>),
    /// K_SOURCEADDR.
    Sources(Arc<Vec<IpAddr>>),
    /// K_ADDRNAME.
    HostNames(Arc<Mapped<HostName>>),
    /// K_MAILADDR.
    Addresses(Arc<AddressSet>),
    /// K_MAILADDRMAP.
    AddressesOf(Arc<Mapped<Vec<AddressPattern>>>),
    /// K_RELAYHOST as a list.
    RelayHosts(Arc<Vec<RelayHost>>),
    /// K_RELAYHOST by domain.
    Routes(Arc<Mapped<RelayHost>>),
    /// K_STRING.
    Words(Arc<WordSet>),
    /// K_REGEX.
    Patterns(Arc<Patterns>),
    /// K_CERT: chains and keys.
    Certificates(Arc<Mapped<Certificate>>),
    /// K_CERT: users by subject.
    Subjects(Arc<Mapped<UserName>>),
    /// K_DKIM.
    Dkim(Arc<Mapped<DkimKey>>),
}

impl Part {
    /// The service that it is for.
    pub fn service(&self) -> ServiceKind {
        match self {
            Self::Aliases(_) => ServiceKind::Alias,
            Self::Domains(_) => ServiceKind::Domain,
            Self::Credentials(_) => ServiceKind::Credentials,
            Self::Users(_) => ServiceKind::UserInfo,
            Self::Networks(_) => ServiceKind::NetAddr,
            Self::Sources(_) => ServiceKind::SourceAddr,
            Self::HostNames(_) => ServiceKind::AddrName,
            Self::Addresses(_) => ServiceKind::MailAddr,
            Self::AddressesOf(_) => ServiceKind::MailAddrMap,
            Self::RelayHosts(_) | Self::Routes(_) => ServiceKind::RelayHost,
            Self::Words(_) => ServiceKind::String,
            Self::Patterns(_) => ServiceKind::Regex,
            Self::Certificates(_) | Self::Subjects(_) => ServiceKind::Cert,
            Self::Dkim(_) => ServiceKind::Dkim,
        }
    }

    /// The answer to a question, as people read it; lists say the key itself. Passwords are not shown.
    fn look(&self, key: &str, delimiter: char) -> Option<Vec<String>> {
        let keys = Keys::new(self.service(), key, delimiter);
        let is_in = |inside: bool| inside.then(|| vec![key.to_owned()]);
        match self {
            Self::Aliases(map) => map.find(keys).map(|targets| targets.iter().map(ToString::to_string).collect()),
            Self::Domains(set) => is_in(set.contains(without_last_dot(key).to_lowercase().as_str())),
            Self::Credentials(map) => map.find(keys).map(|one| vec![login(key, one)]),
            Self::Users(map) => map.find(keys).map(|one| vec![user(key, one)]),
            Self::Networks(set) => {
                is_in(key == "local" && set.names_local() || parse_ip(key).is_some_and(|ip| set.contains(ip, || false)))
            }
            Self::Sources(list) => Some(list.iter().map(ToString::to_string).collect()),
            Self::HostNames(map) => map.find(keys).map(|name| vec![name.0.clone()]),
            Self::Addresses(set) => {
                let address = if key == "<>" { "" } else { key };
                is_in(set.contains(&FoldedAddress::new(address), delimiter))
            }
            Self::AddressesOf(map) => map.find(keys).map(|list| list.iter().map(|one| one.0.clone()).collect()),
            Self::RelayHosts(list) => Some(list.iter().map(ToString::to_string).collect()),
            Self::Routes(map) => map.find(keys).map(|one| vec![one.to_string()]),
            Self::Words(set) => is_in(set.contains(key)),
            Self::Patterns(set) => is_in(set.find(key)),
            Self::Certificates(map) => map.find(keys).map(|one| vec![format!("{:?} {:?}", one.chain, one.key)]),
            Self::Subjects(map) => map.find(keys).map(|one| vec![one.0.clone()]),
            Self::Dkim(map) => map.find(keys).map(|one| vec![dkim(one)]),
        }
    }
}

impl MemoryTable {
    /// Adds what was made for a service.
    pub fn add(&mut self, part: Part) {
        self.parts.push(part);
    }

    /// What was made, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What it says to a question, for `ringpost table lookup`. `None`: no statement asks it for this service. Cycled services
    /// say the whole list, whatever the key.
    pub fn look(&self, service: ServiceKind, key: &str, delimiter: char) -> Option<Answer<Vec<String>>> {
        let mut parts = self.parts.iter().filter(|part| part.service() == service).peekable();
        parts.peek()?;
        Some(parts.find_map(|part| part.look(key, delimiter)).map_or(Answer::NotFound, Answer::Found))
    }
}
