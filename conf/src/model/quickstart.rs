//! The server without a configuration.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::*;
use crate::format::Format;
use crate::limits;

/// Where quick-start listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quickstart {
    /// SMTP.
    pub listen: Vec<SocketAddr>,
    /// The page.
    pub page: Option<SocketAddr>,
}

impl Default for Quickstart {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::LOCALHOST, 2525).into(), (Ipv6Addr::LOCALHOST, 2525).into()],
            page: Some((Ipv4Addr::LOCALHOST, 8025).into()),
        }
    }
}

impl Config {
    /// The server without a configuration (issue 3): mail for anyone from anyone who can connect goes to `STATE/Maildir`; there
    /// is no relay action, so nothing can leave the machine. Limits that only get in the way of a load test on loopback are wide.
    pub fn quickstart(state: &Path, listen: &Quickstart) -> Self {
        let smtp = Smtp { mails_max: u32::MAX, sessions_per_source_max: limits::SESSIONS, ..Smtp::default() };
        let listeners = listen.listen.iter().map(|at| Listener {
            // With the certificate that is made where none is given.
            tls: ListenerTls { mode: TlsMode::Offered, ..ListenerTls::default() },
            ..Listener::plain(*at, "localhost", smtp.message_bytes_max)
        });
        let maildir =
            Maildir { path: Format::literal(state.join("Maildir").to_string_lossy().into_owned()), junk: false };
        let http = |listen| Http { listen, pki: None, auth: None, only: Vec::new(), line: Line::built_in() };
        Self {
            listeners: listeners.chain([Listener::socket("localhost", smtp.message_bytes_max)]).collect(),
            actions: vec![Action {
                name: "maildir".into(),
                kind: ActionKind::Maildir(maildir),
                mapping: None,
                local: LocalOptions::default(),
                feedback: false,
                ttl: limits::QUEUE_TTL,
                line: Line::built_in(),
            }],
            matches: vec![Match::everything(0, Line::built_in())],
            smtp,
            store: Store { path: state.to_path_buf(), ..Store::default() },
            http: listen.page.map(http),
            control: Control { socket: state.join("control.sock"), ..Control::default() },
            ..Self::empty(Names { server: "localhost".into(), addresses: Vec::new() })
        }
    }

    /// Nothing but built-in values: it listens nowhere and takes nothing.
    pub fn empty(names: Names) -> Self {
        Self {
            listeners: Vec::new(),
            actions: Vec::new(),
            tables: Vec::new(),
            matches: Vec::new(),
            pkis: Vec::new(),
            cas: Vec::new(),
            filters: Vec::new(),
            procs: Vec::new(),
            shapings: Vec::new(),
            warmups: Vec::new(),
            pools: Vec::new(),
            signers: Vec::new(),
            rate_limits: Vec::new(),
            shares: Vec::new(),
            smtp: Smtp::default(),
            queue: Queue::default(),
            bounce: Bounce::default(),
            shards: Shards::default(),
            store: Store::default(),
            http: None,
            control: Control::default(),
            srs: Srs::default(),
            machinery: Machinery::default(),
            metrics: Metrics::default(),
            logs: Vec::new(),
            admd: None,
            profile: None,
            names,
            port_offset: 0,
            root: None,
            setting_lines: BTreeMap::new(),
            not_yet: Vec::new(),
        }
    }

    /// The port at which the hosts of MX records are reached: 25, moved by `--port-offset`.
    pub fn mx_port(&self) -> u16 {
        const SMTP_PORT: u16 = 25;
        SMTP_PORT.saturating_add(self.port_offset)
    }

    /// The number of the listener of the local socket: the first, if several lines say it.
    pub fn local_listener(&self) -> Option<usize> {
        self.listeners.iter().position(|listener| listener.place == Where::Socket)
    }

    /// The port of SMTP that is encrypted from the first byte (RFC 8314), moved by `--port-offset`.
    pub fn smtps_port(&self) -> u16 {
        const SMTPS_PORT: u16 = 465;
        SMTPS_PORT.saturating_add(self.port_offset)
    }

    /// The port of web servers that encrypt (RFC 9110 §4.2.2), moved by `--port-offset`.
    pub fn https_port(&self) -> u16 {
        const HTTPS_PORT: u16 = 443;
        HTTPS_PORT.saturating_add(self.port_offset)
    }
}

impl Config {
    /// The port that a word means (`24`, `lmtp`), moved by `--port-offset`.
    pub fn port(&self, text: &str) -> Option<u16> {
        crate::values::port(text).map(|port| port.saturating_add(self.port_offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decision, Facts};

    #[test]
    fn quickstart_takes_everything_and_relays_nothing() {
        fn shared<T: Send + Sync>(_: &T) {}
        let config = Config::quickstart(Path::new("/tmp/state"), &Quickstart::default());
        shared(&config);
        let facts = Facts { recipient: "anyone@anywhere.example", ..Facts::default() };
        assert!(matches!(config.decide(&facts), Decision::Action(0)));
        assert!(config.actions.iter().all(|a| !matches!(a.kind, ActionKind::Relay(_))));
        let ActionKind::Maildir(maildir) = &config.actions[0].kind else { panic!() };
        assert_eq!(maildir.path.expand_path(&Default::default()).unwrap(), Path::new("/tmp/state/Maildir"));
    }
}
