//! `relay`: where a message is sent, from where, and as whom (grammar §4.4).

use std::net::IpAddr;
use std::path::PathBuf;

use ringpost_address::Domain;

use super::{Cipher, Keyed, TableId, TlsVersion};
use crate::tables::{Credentials, HostName};

/// `relay`.
#[derive(Clone, Debug, Default)]
pub struct Relay {
    /// `backup`: act as this backup MX, and send to better ones only.
    pub backup: Option<String>,
    /// `host`: smart hosts, cycled. Empty, and no [`Self::host_table`]: by the MX records of the recipient's domain.
    pub hosts: Vec<RelayHost>,
    /// `host <t>`: the list is in a table that must be asked for K_RELAYHOST.
    pub host_table: Option<TableId>,
    /// `domain <t>`: the smart host of each destination; a domain without an entry goes by its MX records.
    pub domain: Option<Keyed<RelayHost>>,
    /// `src`: source addresses, cycled, of the destination's family. Empty, and no [`Self::source_table`]: the system chooses.
    pub sources: Vec<IpAddr>,
    /// `src <t>`: the list is in a table that must be asked for K_SOURCEADDR.
    pub source_table: Option<TableId>,
    /// `src pool NAME`.
    pub pool: Option<String>,
    /// `helo`: the name to say in EHLO; by default [`super::Names::server`].
    pub helo: Option<String>,
    /// `helo-src <t>`: the name by source address (K_ADDRNAME).
    pub helo_by_source: Option<Keyed<HostName>>,
    /// `auth <t>`: credentials by label (K_CREDENTIALS).
    pub auth: Option<Keyed<Credentials>>,
    /// `tls …`.
    pub tls: RelayTls,
    /// `pki`: the certificate to show.
    pub pki: Option<String>,
    /// `ca`: whom to trust.
    pub ca: Option<String>,
    /// `protocols`.
    pub protocols: Option<Vec<TlsVersion>>,
    /// `ciphers`.
    pub ciphers: Option<Vec<&'static Cipher>>,
    /// `mail-from`: `user@domain`, or `@domain` to keep the user.
    pub mail_from: Option<String>,
    /// `srs`.
    pub srs: bool,
    /// `verp`: each recipient has a reverse-path of its own.
    pub verp: bool,
    /// `filter`: names, in order.
    pub filters: Vec<String>,
    /// `shaping NAME`: this shape whatever the destination.
    pub shaping: Option<String>,
    /// `dkim`: names of signers.
    pub dkim: Vec<String>,
}

impl Relay {
    /// What is agreed on with servers beyond what is usual: certificate, authority, versions and cipher suites. Connections are
    /// not shared where it differs. Empty where nothing is.
    pub fn terms(&self) -> String {
        let Self { pki, ca, protocols, ciphers, .. } = self;
        if pki.is_none() && ca.is_none() && protocols.is_none() && ciphers.is_none() {
            return String::new();
        }
        format!("{pki:?} {ca:?} {protocols:?} {ciphers:?}")
    }
}

/// What a relay action demands of the channel, beside what the URL of a host says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelayTls {
    /// Nothing: STARTTLS where it is offered, raised by DANE and MTA-STS.
    #[default]
    Opportunistic,
    /// `tls`: encryption, and a valid certificate for the host.
    Verified,
    /// `tls no-verify`: encryption.
    Encrypted,
    /// `tls dane`: encryption, and a certificate that DNSSEC vouches for.
    Dane,
}

/// A relay URL, `[scheme://][label@]host[:port]` (grammar §4.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayHost {
    /// What the channel must be.
    pub scheme: Scheme,
    /// Under which key of `auth` the credentials are.
    pub label: Option<String>,
    /// Whose addresses to use.
    pub host: Host,
    /// Port, `--port-offset` included; 0 for a socket.
    pub port: u16,
}

/// The channel that a relay URL asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `smtp://`: STARTTLS if offered, else plain.
    Opportunistic,
    /// `smtp+notls://`: plain only.
    Plain,
    /// `smtp+tls://`: STARTTLS, and a verified certificate.
    StartTls,
    /// `smtps://`: TLS from the first byte, and a verified certificate.
    Smtps,
    /// `ssl://`: STARTTLS, else `smtps` on 465; verified either way.
    StartTlsOrSmtps,
    /// `lmtp://`.
    Lmtp,
}

impl Scheme {
    /// Whether what is sent is encrypted for sure, and to whom it says.
    pub fn guarantees_encryption(self) -> bool {
        matches!(self, Self::StartTls | Self::Smtps | Self::StartTlsOrSmtps)
    }

    /// As it is written in front of `://`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opportunistic => "smtp",
            Self::Plain => "smtp+notls",
            Self::StartTls => "smtp+tls",
            Self::Smtps => "smtps",
            Self::StartTlsOrSmtps => "ssl",
            Self::Lmtp => "lmtp",
        }
    }
}

/// The host of a relay URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name; its A and AAAA records, never its MX.
    Name(Domain),
    /// `mx:NAME`: the MX records of this name.
    Mx(Domain),
    /// `lmtp:///path`: a socket; `--root` is in front already.
    Socket(PathBuf),
}
