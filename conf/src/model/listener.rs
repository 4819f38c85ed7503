//! Where the server listens, what a session there is, and with which keys (grammar §4.1, §4.2).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{Cipher, Keyed, Line, TableId, TlsVersion};
use crate::rules::Among;
use crate::tables::{AddressPattern, Credentials, HostName, SourceSet, UserName};

/// One `listen on` line.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where; names and groups are resolved by the supervisor.
    pub place: Where,
    /// `inet4` or `inet6`, or both.
    pub family: Family,
    /// The port, `--port-offset` included; 0 for the local socket.
    pub port: u16,
    /// `proxy-v2`: a PROXY header of one of these is required, and says who the client is.
    pub proxies: Option<Proxies>,
    /// What TLS there is, and must be.
    pub tls: ListenerTls,
    /// `auth`, `auth-optional`, `auth-cert`.
    pub auth: Authentication,
    /// `senders`: what authenticated users may be called.
    pub senders: Option<Senders>,
    /// The name in the greeting and in `Received:`; by default [`super::Names::server`].
    pub hostname: String,
    /// `hostnames`: the name by local address (K_ADDRNAME).
    pub hostnames: Option<Keyed<HostName>>,
    /// The tag of its sessions; empty if none. Those of the local socket have `local`.
    pub tag: String,
    /// Filters, in order.
    pub filters: Vec<String>,
    /// `mask-src`: the client is not named in `Received:`.
    pub mask_source: bool,
    /// `no-dsn`.
    pub no_dsn: bool,
    /// `received-auth`: the user is named in `Received:`.
    pub received_auth: bool,
    /// Largest message in bytes; by default [`super::Smtp::message_bytes_max`].
    pub message_bytes_max: u64,
    /// `ratelimit`: names of limits.
    pub rate_limits: Vec<String>,
    /// The line that says so.
    pub line: Line,
}

impl Listener {
    /// A listener at an address, without anything special.
    pub fn plain(at: SocketAddr, hostname: &str, message_bytes_max: u64) -> Self {
        Self {
            place: Where::Address(at.ip()),
            family: Family::Both,
            port: at.port(),
            proxies: None,
            tls: ListenerTls::default(),
            auth: Authentication::default(),
            senders: None,
            hostname: hostname.to_owned(),
            hostnames: None,
            tag: String::new(),
            filters: Vec::new(),
            mask_source: false,
            no_dsn: false,
            received_auth: false,
            message_bytes_max,
            rate_limits: Vec::new(),
            line: Line::built_in(),
        }
    }

    /// The local socket, without anything special.
    pub fn socket(hostname: &str, message_bytes_max: u64) -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { place: Where::Socket, tag: LOCAL_TAG.to_owned(), ..Self::plain(nowhere, hostname, message_bytes_max) }
    }
}

/// Whose PROXY headers count.
#[derive(Clone, Debug)]
pub enum Proxies {
    /// Those of this machine, and of networks that are nobody's on the internet.
    Near,
    /// These.
    Listed(Among<SourceSet>),
}

/// The tag of sessions of the local socket, unless its line gives them another.
pub const LOCAL_TAG: &str = "local";

/// What `listen on` names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Where {
    /// `all`: one wildcard socket for each family.
    All,
    /// `egress`: the addresses of the interfaces with a default route.
    Egress,
    /// One address.
    Address(IpAddr),
    /// An interface, an interface group or a host name, in this order (`lo0` is the loopback interface everywhere).
    Name(String),
    /// `socket`: the local socket.
    Socket,
}

/// Which address families a listener uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Family {
    /// Both.
    #[default]
    Both,
    /// `inet4`.
    V4,
    /// `inet6`.
    V6,
}

/// TLS of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerTls {
    /// Whether, and when.
    pub mode: TlsMode,
    /// `verify`: a client certificate is required.
    pub verify: bool,
    /// Names of `pki`, the default first. Empty with a mode: a self-signed certificate is made.
    pub pkis: Vec<String>,
    /// `ca`: whom to trust for client certificates; a certificate is asked for.
    pub ca: Option<String>,
    /// `protocols`.
    pub protocols: Option<Vec<TlsVersion>>,
    /// `ciphers`; by default [`super::Smtp::ciphers`].
    pub ciphers: Option<Vec<&'static Cipher>>,
}

/// When there is TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    #[default]
    Off,
    /// `tls`: STARTTLS is offered.
    Offered,
    /// `tls-require`: STARTTLS comes before all else.
    Required,
    /// `smtps`: from the first byte.
    Implicit,
}

/// Who may log in, and must.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    /// With a password.
    pub password: PasswordAuth,
    /// `auth-cert`: a verified client certificate is a login.
    pub certificate: Option<CertificateAuth>,
}

/// Logins with a password.
#[derive(Clone, Debug, Default)]
pub enum PasswordAuth {
    /// AUTH is not offered.
    #[default]
    Off,
    /// `auth-optional`.
    Offered(Users),
    /// `auth`: before MAIL.
    Required(Users),
}

/// Where passwords are checked.
#[derive(Clone, Debug)]
pub enum Users {
    /// The system's users.
    System,
    /// A table of K_CREDENTIALS, or one that judges itself (K_AUTH).
    Table(Keyed<Credentials>),
}

/// Whom a client certificate stands for.
#[derive(Clone, Debug)]
pub enum CertificateAuth {
    /// The address in it.
    Itself,
    /// A user by subject (K_CERT).
    Table(Keyed<UserName>),
}

/// `senders <t> [masquerade]`.
#[derive(Clone, Debug)]
pub struct Senders {
    /// Patterns by user (K_MAILADDRMAP).
    pub table: Keyed<Vec<AddressPattern>>,
    /// `masquerade`: `From:` is rewritten.
    pub masquerade: bool,
}

/// `pki NAME …`.
#[derive(Clone, Debug)]
pub struct Pki {
    /// Its name.
    pub name: String,
    /// Where chain and key are.
    pub source: PkiSource,
    /// The line that declares it.
    pub line: Line,
}

/// Where chain and key of a `pki` are. `--root` is in front already.
#[derive(Clone, Debug)]
pub enum PkiSource {
    /// In files.
    Files {
        /// The chain, the own certificate first.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// In files that a list or a text file names, in its order.
    Listed(Vec<ListedPair>),
    /// In a table that must be asked, by the name that the client asks for (K_CERT).
    Table(TableId),
}

/// An entry of a list of certificates. `--root` is in front already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPair {
    /// Who is shown it: those who ask for this name, in lower case; `*.` in front stands for names below, `*` for all.
    pub name: String,
    /// The chain, the own certificate first.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// `ca NAME cert FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ca {
    /// Its name.
    pub name: String,
    /// Certificates of authorities; `--root` is in front already.
    pub cert: PathBuf,
    /// The line that declares it.
    pub line: Line,
}
