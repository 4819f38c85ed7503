//! The identity of a mail site: who shares mail exchangers shares a route.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use crate::pool::{Pool, fnv};

/// When a connection to a host is encrypted (grammar §4.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encryption {
    /// Where the host offers it.
    #[default]
    IfOffered,
    /// Never.
    Never,
    /// By STARTTLS, or not a word of mail is said.
    StartTls,
    /// From the first byte.
    Implicit,
    /// By STARTTLS or, where that is not to be had, from the first byte at this port.
    StartTlsOrImplicit {
        /// Of the second try.
        port: u16,
    },
}

/// What the connection to a host must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    /// When it is encrypted.
    pub encryption: Encryption,
    /// The host's certificate must be valid for its name.
    pub verify: bool,
}

impl Channel {
    /// What stands in front of a host's name in the name of its site, so that no mail that must be encrypted shares a
    /// connection with other mail.
    fn mark(self) -> &'static str {
        match (self.encryption, self.verify) {
            (Encryption::IfOffered, _) => "",
            (Encryption::Never, _) => "smtp+notls://",
            (Encryption::StartTls, true) => "smtp+tls://",
            (Encryption::StartTls, false) => "smtp+tls,no-verify://",
            (Encryption::Implicit, true) => "smtps://",
            (Encryption::Implicit, false) => "smtps,no-verify://",
            (Encryption::StartTlsOrImplicit { .. }, true) => "ssl://",
            (Encryption::StartTlsOrImplicit { .. }, false) => "ssl,no-verify://",
        }
    }
}

/// What DNSSEC says of a host's certificate (RFC 7672).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlsa {
    /// RDATA of its TLSA records, one of which must be of the certificate.
    pub records: Arc<[Box<[u8]>]>,
    /// The domain whose exchanger it is, where the certificate may be for that instead: other domains' mail does not go over
    /// such a connection.
    pub next_hop: Option<Box<str>>,
}

/// Kinds of policies that domains have about encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyKind {
    /// TLSA records (RFC 7672).
    Dane,
    /// MTA-STS (RFC 8461).
    Sts,
}

/// The policy that a host is held to, so that its domain can be told what came of it (RFC 8460).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whose policy.
    pub domain: Box<str>,
    /// Which.
    pub kind: PolicyKind,
    /// The policy is not obeyed yet: what it would have demanded is told all the same.
    pub testing: bool,
}

/// What is spoken with a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Speech {
    /// SMTP.
    #[default]
    Smtp,
    /// SMTP, after a login with the credentials that stand under this label.
    SmtpAs(Arc<str>),
    /// LMTP (RFC 2033).
    Lmtp,
    /// LMTP at a local socket, not at the host's addresses.
    LmtpAt(Arc<Path>),
}

impl Speech {
    /// The label that stands for credentials.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::SmtpAs(label) => Some(label),
            Self::Smtp | Self::Lmtp | Self::LmtpAt(_) => None,
        }
    }
}

/// A host of a site with its addresses, in the order to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Preference, lower first (RFC 5321 §5.1).
    pub preference: u16,
    /// Name, for logs and bounces.
    pub name: String,
    /// Where it may be reached.
    pub addresses: Vec<SocketAddr>,
    /// What the connection must be.
    pub channel: Channel,
    /// What the certificate must be, if DNSSEC vouches for that.
    pub tlsa: Option<Tlsa>,
    /// Whose policy demands that.
    pub held: Option<Arc<Held>>,
    /// What is spoken on it.
    pub speech: Speech,
}

impl Host {
    /// As a site's name has it: what the connection must be, who logs in, name and port.
    fn in_name(&self) -> String {
        let port = self.addresses.first().map_or(25, SocketAddr::port);
        let (mark, name) = (self.mark(), &self.name);
        match &self.speech {
            Speech::Smtp => format!("{mark}{name}:{port}"),
            Speech::SmtpAs(label) => format!("{mark}{label}@{name}:{port}"),
            Speech::Lmtp => format!("lmtp://{name}:{port}"),
            Speech::LmtpAt(path) => format!("lmtp://{}", path.display()),
        }
    }

    /// What a connection to it must be, and who it must be; `None`: anything and anybody will do.
    pub(crate) fn demands(&self) -> Option<String> {
        let mark = self.mark();
        (!mark.is_empty()).then(|| format!("{mark}{}", self.name))
    }

    /// What stands in front of its name in the name of its site.
    fn mark(&self) -> Cow<'static, str> {
        let Some(tlsa) = &self.tlsa else { return Cow::Borrowed(self.channel.mark()) };
        let implicit = if self.channel.encryption == Encryption::Implicit { "smtps," } else { "" };
        match &tlsa.next_hop {
            None => format!("{implicit}dane://").into(),
            Some(domain) => format!("{implicit}dane={domain}://").into(),
        }
    }
}

/// An address of a host, and what a connection there must be: what is known of one does not hold for another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Address and port.
    pub address: SocketAddr,
    /// What is demanded of whoever answers there; mostly nothing.
    pub demands: Box<str>,
}

/// The name to say in EHLO.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Helo {
    /// This one.
    Name(String),
    /// The one that a table has for the address that the connection leaves from.
    BySource {
        /// Reference of the action that names the table.
        action: String,
    },
}

impl Helo {
    fn as_str(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::BySource { action } => action,
        }
    }
}

/// Names a route. Equal sites share connections and limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// Best mail exchangers, or the smart hosts, with port: `mx1.example.org:25,mx2.example.org:25`.
    pub name: String,
    /// Addresses to send from, in turn unless their pool says otherwise, sorted; none: the system chooses.
    pub sources: Vec<IpAddr>,
    /// The pool that they are of.
    pub pool: Option<Arc<Pool>>,
    /// Where mail keeps to a source: the ones of this site, of each family one at most. Others are used only while these cannot
    /// be.
    pub pinned: Vec<IpAddr>,
    /// Name given in EHLO.
    pub helo: Helo,
    /// What is agreed on with the hosts beyond what is usual, in words of who makes the connections; mostly nothing.
    pub terms: String,
    /// Reference of the action whose `auth` has the credentials, where a host wants a login. Connections on which
    /// somebody has logged in are shared with nobody else.
    pub login: Option<String>,
    /// Shapes that are for its domains or its action alone: such mail has connections of its own. Mostly none.
    pub shape: String,
}

impl Site {
    /// The site that `hosts` (any order) make: the names at the best preference, sorted. In which order a table says its
    /// `sources` makes no other site.
    pub fn new(hosts: &[Host], sources: &[IpAddr], helo: Helo) -> Self {
        let best = hosts.iter().map(|host| host.preference).min().unwrap_or(0);
        let mut names: Vec<String> = hosts
            .iter()
            // A spare host that must be who DNSSEC says is not one that need not be.
            .filter(|host| host.preference == best || host.tlsa.is_some())
            .map(Host::in_name)
            .collect();
        names.sort_unstable();
        names.dedup();
        let mut sources = sources.to_vec();
        sources.sort_unstable();
        sources.dedup();
        Self {
            name: names.join(","),
            sources,
            pool: None,
            pinned: Vec::new(),
            helo,
            terms: String::new(),
            login: None,
            shape: String::new(),
        }
    }

    /// The same for a pool, which has the sources, and for mail that keeps to some of them.
    pub fn of_pool(self, pool: Arc<Pool>, pinned: Vec<IpAddr>) -> Self {
        Self { pool: Some(pool), pinned, ..self }
    }

    /// The same on these terms.
    pub fn on(self, terms: &str) -> Self {
        Self { terms: terms.to_owned(), ..self }
    }

    /// The same for mail that has this shape.
    pub fn shaped(self, shape: String) -> Self {
        Self { shape, ..self }
    }

    /// The same hosts for those alone who log in with the credentials of this action.
    pub fn logging_in(self, action: String) -> Self {
        Self { login: Some(action), ..self }
    }

    /// The shard that owns the route, of `shards`. The same in every process and after every restart (FNV-1a).
    pub fn owner(&self, shards: usize) -> usize {
        let sources: String = self.sources.iter().chain(&self.pinned).map(IpAddr::to_string).collect();
        let pool = self.pool.as_deref().map_or("", |pool| &pool.name);
        let login = self.login.as_deref().unwrap_or_default();
        let names = self.name.bytes().chain(sources.bytes()).chain(self.helo.as_str().bytes());
        let hash = fnv(names.chain(self.terms.bytes()).chain(login.bytes()).chain(pool.bytes()));
        ((hash >> 32) % shards as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pick;
    use crate::pool::tests::pool;

    fn host(preference: u16, name: &str) -> Host {
        let addresses = vec!["192.0.2.1:25".parse().expect("an address")];
        let (channel, speech) = (Channel::default(), Speech::Smtp);
        Host { preference, name: name.into(), addresses, channel, tlsa: None, held: None, speech }
    }

    fn us() -> Helo {
        Helo::Name("us".into())
    }

    #[test]
    fn domains_of_one_provider_share_a_site_whatever_the_order_and_the_spares() {
        let a = Site::new(&[host(10, "mx1.p"), host(10, "mx2.p"), host(20, "spare-a")], &[], us());
        let b = Site::new(&[host(5, "mx2.p"), host(5, "mx1.p"), host(30, "spare-b")], &[], us());
        assert_eq!(a, b);
        assert_eq!(a.name, "mx1.p:25,mx2.p:25");
        assert_ne!(a, Site::new(&[host(10, "mx1.p")], &[], us()));
        let from = |sources: &[IpAddr]| Site::new(&[host(10, "mx1.p"), host(10, "mx2.p")], sources, us());
        let (one, two): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        assert_ne!(a, from(&[one]));
        assert_eq!(from(&[one, two]), from(&[two, one, two]));
        assert_ne!(from(&[one]), from(&[one]).on("ca x"));
        let pool = |weight| Arc::new(pool(Pick::Cycle, &[("192.0.2.1", weight)]));
        let of = |weight| from(&[one]).of_pool(pool(weight), Vec::new());
        assert_eq!(of(1), of(1), "before and after a reload");
        assert!(of(1) != from(&[one]) && of(1) != of(2));
        assert_ne!(of(1), from(&[one]).of_pool(pool(1), vec![one]));
    }

    #[test]
    fn mail_that_must_be_encrypted_shares_no_connection_with_other_mail() {
        use Encryption::{IfOffered, Implicit, Never, StartTls, StartTlsOrImplicit};
        let mut sites = std::collections::BTreeSet::new();
        for encryption in [Never, StartTls, Implicit, StartTlsOrImplicit { port: 465 }] {
            for verify in [true, false] {
                let host = Host { channel: Channel { encryption, verify }, ..host(1, "mx.p") };
                sites.insert(Site::new(&[host], &[], us()).name);
            }
        }
        assert_eq!(sites.len(), 7, "{sites:?}: clear text knows no certificates");
        let clear = Site::new(&[host(1, "mx.p")], &[], us()).name;
        assert_eq!((clear.as_str(), sites.contains(&clear)), ("mx.p:25", false));
        assert_eq!(Channel::default().encryption, IfOffered);
    }

    #[test]
    fn mail_for_a_server_that_dnssec_vouches_for_goes_to_no_other() {
        let channel = Channel { encryption: Encryption::StartTls, verify: true };
        let tlsa = |next_hop: Option<&str>| {
            Some(Tlsa { records: Arc::from([Box::from([3, 1, 1])]), next_hop: next_hop.map(Box::from) })
        };
        let vouched = |next_hop| Host { channel, tlsa: tlsa(next_hop), ..host(1, "mx.p") };
        let name = |hosts: &[Host]| Site::new(hosts, &[], us()).name;
        assert_eq!(name(&[vouched(None)]), "dane://mx.p:25");
        assert_eq!(name(&[vouched(Some("a.example"))]), "dane=a.example://mx.p:25");
        let spare = Host { preference: 2, ..vouched(None) };
        assert_ne!(name(&[host(1, "best.p"), spare]), name(&[host(1, "best.p"), host(2, "mx.p")]));
    }

    #[test]
    fn labels_and_protocols_share_no_connection() {
        let name = |speech: Speech| Site::new(&[Host { speech, ..host(1, "mx.p") }], &[], us()).name;
        assert_eq!(name(Speech::SmtpAs("a".into())), "a@mx.p:25");
        assert_eq!(name(Speech::SmtpAs("b".into())), "b@mx.p:25");
        assert_eq!(name(Speech::Lmtp), "lmtp://mx.p:25");
        assert_eq!(name(Speech::LmtpAt(Path::new("/run/l").into())), "lmtp:///run/l");
        let plain = Site::new(&[host(1, "mx.p")], &[], us());
        let of = |action: &str| plain.clone().logging_in(action.to_owned());
        assert!(plain != of("a") && of("a") != of("b"), "one label means different things to two actions");
    }

    #[test]
    fn owners_are_spread() {
        let mut count = [0; 4];
        for number in 0..1000 {
            count[Site::new(&[host(1, &format!("mx.d{number}.example"))], &[], us()).owner(4)] += 1;
        }
        assert!(count.iter().all(|of_one| (150..350).contains(of_one)), "{count:?}");
    }
}
