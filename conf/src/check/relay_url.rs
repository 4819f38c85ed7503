//! Relay URLs, `[scheme://][label@]host[:port]` (grammar §4.4).

use ringpost_address::{Domain, parse_ip};

use super::Reading;
use super::tables::Found;
use crate::model::{Host, RelayHost, Scheme};
use crate::parse::not_yet;
use crate::report::{Report, did_you_mean};
use crate::values;

/// Each scheme, its default port, and what it means here.
const SCHEMES: &[(&str, u16, Meaning)] = &[
    ("smtp", 25, Meaning::Built(Scheme::Opportunistic)),
    ("smtp+notls", 25, Meaning::Built(Scheme::Plain)),
    ("smtp+tls", 25, Meaning::Guarantees),
    ("smtps", 465, Meaning::Guarantees),
    ("ssl", 25, Meaning::Guarantees),
    ("lmtp", 0, Meaning::Lmtp),
];

#[derive(Clone, Copy)]
enum Meaning {
    Built(Scheme),
    /// Encryption for sure: not built yet.
    Guarantees,
    Lmtp,
}

/// One URL; `None` if something is wrong with it, and that was told.
pub(super) fn relay_host(entry: &Found, reading: &mut Reading<'_>) -> Option<RelayHost> {
    match read(&entry.text, reading.options.port_offset) {
        Ok(host) => Some(host),
        Err(Wrong::NotUrl(help)) => {
            let report = Report::new("E0504", entry.span, format!("not a relay URL: `{}`", entry.text));
            reading.report(report.maybe_help(help.map(str::to_owned)));
            None
        }
        Err(Wrong::Scheme(scheme)) => {
            let help = did_you_mean(&scheme, SCHEMES.iter().map(|(name, _, _)| *name));
            let report = Report::new("E0504", entry.span, format!("unknown relay scheme `{scheme}`"));
            reading.report(report.maybe_help(help));
            None
        }
        Err(Wrong::Label) => {
            let message = "credentials need a scheme that guarantees encryption";
            reading.report(Report::new("E0605", entry.span, message).help("write `smtp+tls://` or `smtps://`"));
            None
        }
        Err(Wrong::NotYet(scheme)) => {
            let report = not_yet(entry.span, &format!("{scheme}://"));
            reading.report(report.help("this version relays without TLS: `smtp://` or `smtp+notls://`"));
            None
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    NotUrl(Option<&'static str>),
    Scheme(String),
    Label,
    NotYet(String),
}

fn read(url: &str, port_offset: u16) -> Result<RelayHost, Wrong> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("smtp", url));
    let (_, default_port, meaning) =
        SCHEMES.iter().find(|(name, _, _)| *name == scheme).ok_or_else(|| Wrong::Scheme(scheme.to_owned()))?;
    let (label, rest) = match rest.rsplit_once('@') {
        Some((label, rest)) => (Some(label), rest),
        None => (None, rest),
    };
    let scheme = match meaning {
        Meaning::Built(_) if label.is_some() => return Err(Wrong::Label),
        Meaning::Built(scheme) => *scheme,
        Meaning::Lmtp if rest.starts_with('/') => return Err(Wrong::NotYet(scheme.to_owned())),
        Meaning::Lmtp | Meaning::Guarantees => {
            host_and_port(rest, *default_port)?;
            return Err(Wrong::NotYet(scheme.to_owned()));
        }
    };
    let (host, port) = host_and_port(rest, *default_port)?;
    let port =
        port.checked_add(port_offset).ok_or(Wrong::NotUrl(Some("with --port-offset its port is above 65535")))?;
    Ok(RelayHost { scheme, host, port })
}

fn host_and_port(text: &str, default_port: u16) -> Result<(Host, u16), Wrong> {
    // An IPv6 address without brackets has no port.
    if let Some(address) = parse_ip(text) {
        return Ok((Host::Address(address), default_port));
    }
    let (text, is_mx) = match text.strip_prefix("mx:") {
        Some(name) if values::number(name).is_none() => (name, true),
        _ => (text, false),
    };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, values::port(port).ok_or(Wrong::NotUrl(Some("1 to 65535, or a service name")))?),
        None => (text, default_port),
    };
    let name = || Domain::parse(host).ok_or(Wrong::NotUrl(None));
    let host = match parse_ip(host) {
        _ if is_mx => Host::Mx(name()?),
        // Without brackets `::1:25` could be read both ways; parse_ip has read it whole above.
        Some(address) => Host::Address(address),
        None => Host::Name(name()?),
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(url: &str) -> (Scheme, Host, u16) {
        let host = read(url, 0).unwrap_or_else(|wrong| panic!("{url}: {wrong:?}"));
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
        assert_eq!(read("smtp://a.example", 20_000).unwrap().port, 20_025);
    }

    #[test]
    fn not_urls() {
        assert_eq!(read("stmps://a.example", 0), Err(Wrong::Scheme("stmps".into())));
        assert_eq!(read("smtp://bob@a.example", 0), Err(Wrong::Label));
        for scheme in ["smtp+tls", "smtps", "ssl", "lmtp"] {
            assert_eq!(read(&format!("{scheme}://bob@a.example:24"), 0), Err(Wrong::NotYet(scheme.into())));
        }
        assert_eq!(read("lmtp:///run/lmtp.sock", 0), Err(Wrong::NotYet("lmtp".into())));
        for bad in ["", "smtp://", "smtp://a b", "smtp://a.example:x", "smtp://a.example:0", "1.2.3.400"] {
            assert!(matches!(read(bad, 0), Err(Wrong::NotUrl(_))), "{bad}");
        }
        assert!(matches!(read("a.example:60000", 20_000), Err(Wrong::NotUrl(Some(_)))));
    }
}
