//! Relay URLs, `[scheme://][label@]host[:port]` (grammar §4.4), in a configuration or out of a table.

use ringpost_address::{Domain, parse_ip};

use crate::model::{Host, RelayHost, Scheme};
use crate::values;

/// Each scheme, and its default port.
const SCHEMES: [(Scheme, u16); 6] = [
    (Scheme::Opportunistic, 25),
    (Scheme::Plain, 25),
    (Scheme::StartTls, 25),
    (Scheme::Smtps, 465),
    (Scheme::StartTlsOrSmtps, 25),
    (Scheme::Lmtp, 0),
];

/// Why a text is no relay URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayUrlError {
    /// There is no such scheme.
    #[error("unknown relay scheme `{0}`")]
    Scheme(String),
    /// Host or port are none; what may help.
    #[error("not a relay URL")]
    Form(Option<&'static str>),
    /// A label, and nothing that keeps the password from being read on the way.
    #[error("credentials need a scheme that guarantees encryption")]
    Label,
}

impl RelayHost {
    /// Reads a URL. The port is the one that is written, or the scheme's.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, RelayUrlError> {
        let (name, rest) = url.split_once("://").unwrap_or(("smtp", url));
        let (scheme, default_port) = SCHEMES
            .into_iter()
            .find(|(scheme, _)| scheme.name() == name)
            .ok_or_else(|| RelayUrlError::Scheme(name.to_owned()))?;
        let (label, rest) = match rest.rsplit_once('@') {
            Some((label, rest)) => (Some(label), rest),
            None => (None, rest),
        };
        if label == Some("") {
            return Err(RelayUrlError::Form(Some("there is nothing before the `@`")));
        }
        if label.is_some() && !scheme.guarantees_encryption() {
            return Err(RelayUrlError::Label);
        }
        let label = label.map(str::to_owned);
        if scheme == Scheme::Lmtp && rest.starts_with('/') {
            return Ok(Self { scheme, label, host: Host::Socket(rest.into()), port: 0 });
        }
        let (host, port) = host_and_port(rest, default_port)?;
        if port == 0 {
            return Err(RelayUrlError::Form(Some("LMTP has no port of its own: `lmtp://host:port` or `lmtp:///path`")));
        }
        Ok(Self { scheme, label, host, port })
    }

    /// The port moved up by `--port-offset`; `None` if it would be too high.
    pub fn moved(self, port_offset: u16) -> Option<Self> {
        match self.host {
            Host::Socket(_) => Some(self),
            _ => Some(Self { port: self.port.checked_add(port_offset)?, ..self }),
        }
    }

    /// Names of all schemes.
    pub fn schemes() -> impl Iterator<Item = &'static str> {
        SCHEMES.into_iter().map(|(scheme, _)| scheme.name())
    }
}

fn host_and_port(text: &str, default_port: u16) -> Result<(Host, u16), RelayUrlError> {
    // An IPv6 address without brackets has no port.
    if let Some(address) = parse_ip(text) {
        return Ok((Host::Address(address), default_port));
    }
    let (text, is_mx) = match text.strip_prefix("mx:") {
        Some(name) if values::number(name).is_none() => (name, true),
        _ => (text, false),
    };
    let bad_port = RelayUrlError::Form(Some("1 to 65535, or a service name"));
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, values::port(port).ok_or(bad_port)?),
        None => (text, default_port),
    };
    let name = || Domain::parse(host).ok_or(RelayUrlError::Form(None));
    let host = match parse_ip(host) {
        _ if is_mx => Host::Mx(name()?),
        // Without brackets `::1:25` could be read both ways; parse_ip has read it whole above.
        Some(address) => Host::Address(address),
        None => Host::Name(name()?),
    };
    Ok((host, port))
}

impl std::fmt::Display for RelayHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://", self.scheme.name())?;
        if let Some(label) = &self.label {
            write!(f, "{label}@")?;
        }
        match &self.host {
            Host::Address(address) if address.is_ipv6() => write!(f, "[{address}]")?,
            Host::Address(address) => write!(f, "{address}")?,
            Host::Name(name) => write!(f, "{name}")?,
            Host::Mx(name) => write!(f, "mx:{name}")?,
            Host::Socket(path) => return write!(f, "{}", path.display()),
        }
        let is_default = SCHEMES.contains(&(self.scheme, self.port));
        if is_default { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(url: &str) -> (Scheme, Host, u16) {
        let host = RelayHost::parse(url).unwrap_or_else(|wrong| panic!("{url}: {wrong:?}"));
        (host.scheme, host.host, host.port)
    }

    fn name(text: &str) -> Host {
        Host::Name(Domain::parse(text).unwrap())
    }

    #[test]
    fn urls() {
        let address = |text: &str| Host::Address(text.parse().unwrap());
        assert_eq!(host("mx.Example.org"), (Scheme::Opportunistic, name("mx.example.org"), 25));
        assert_eq!(host("smtp://mx.example.org:2525"), (Scheme::Opportunistic, name("mx.example.org"), 2525));
        assert_eq!(host("smtp+notls://127.0.0.1:10028"), (Scheme::Plain, address("127.0.0.1"), 10028));
        assert_eq!(host("smtp://[::1]:26"), (Scheme::Opportunistic, address("::1"), 26));
        assert_eq!(host("::1"), (Scheme::Opportunistic, address("::1"), 25));
        let mx = Host::Mx(Domain::parse("example.org").unwrap());
        assert_eq!(host("mx:example.org"), (Scheme::Opportunistic, mx, 25));
        assert_eq!(host("mx:26"), (Scheme::Opportunistic, name("mx"), 26));
        assert_eq!(host("smtps://a.example"), (Scheme::Smtps, name("a.example"), 465));
        assert_eq!(host("ssl://a.example"), (Scheme::StartTlsOrSmtps, name("a.example"), 25));
        assert_eq!(host("lmtp://a.example:24"), (Scheme::Lmtp, name("a.example"), 24));
        assert_eq!(host("lmtp:///run/lmtp.sock"), (Scheme::Lmtp, Host::Socket("/run/lmtp.sock".into()), 0));
        let labelled = RelayHost::parse("smtp+tls://a@b@mx.example.org").unwrap();
        assert_eq!((labelled.label.as_deref(), labelled.host), (Some("a@b"), name("mx.example.org")));
        let moved = |url: &str| RelayHost::parse(url).unwrap().moved(20_000).map(|host| host.port);
        assert_eq!(
            (moved("smtp://a.example"), moved("a.example:60000"), moved("lmtp:///x")),
            (Some(20_025), None, Some(0))
        );
    }

    #[test]
    fn printed_and_read_again_they_are_the_same() {
        for url in ["smtp://a.example", "smtps://l@[::1]:26", "lmtp:///x/y", "smtp+notls://mx:a.example:2525"] {
            let host = RelayHost::parse(url).unwrap();
            assert_eq!(host.to_string(), url);
        }
    }

    #[test]
    fn not_urls() {
        assert_eq!(RelayHost::parse("stmps://a.example"), Err(RelayUrlError::Scheme("stmps".into())));
        for url in ["smtp://bob@a.example", "bob@a.example", "lmtp://bob@a.example:24", "smtp+notls://b@a.example"] {
            assert_eq!(RelayHost::parse(url), Err(RelayUrlError::Label), "{url}");
        }
        for bad in [
            "",
            "smtp://",
            "smtp://a b",
            "smtp://a.example:x",
            "smtp://a.example:0",
            "1.2.3.400",
            "lmtp://a.example",
            "smtps://@x.example",
        ] {
            assert!(matches!(RelayHost::parse(bad), Err(RelayUrlError::Form(_))), "{bad}");
        }
    }
}
