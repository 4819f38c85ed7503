//! What a count of handshakes is asked to do.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::workload::parse_time;

/// Versions that the client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Versions {
    /// TLS 1.2 alone.
    #[value(name = "1.2")]
    Tls12,
    /// TLS 1.3 alone.
    #[value(name = "1.3")]
    Tls13,
    /// Both: the server takes its better one.
    Any,
}

impl Versions {
    pub(super) fn list(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            Self::Tls12 => vec![&TLS12],
            Self::Tls13 => vec![&TLS13],
            Self::Any => vec![&TLS13, &TLS12],
        }
    }
}

/// Where, how and how often.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Server, `host:port`.
    #[arg(default_value = "127.0.0.1:2525")]
    pub address: String,
    /// Connections open at the same time; each makes one handshake, says QUIT, and is opened again.
    #[arg(short, long, default_value_t = 16)]
    pub connections: u32,
    /// Handshakes to make; without this and --time 1000.
    #[arg(short = 'n', long)]
    pub handshakes: Option<u64>,
    /// How long to make them, such as 10s.
    #[arg(short, long, value_parser = parse_time)]
    pub time: Option<Duration>,
    /// TLS begins with the first byte instead of after STARTTLS.
    #[arg(long, conflicts_with = "plain")]
    pub smtps: bool,
    /// No TLS: NOOP instead of a handshake, to see what all the rest of such a session costs.
    #[arg(long)]
    pub plain: bool,
    /// Take up the session before, with the server's ticket; the first on each connection's place is a full handshake.
    #[arg(long)]
    pub resume: bool,
    /// Versions to offer.
    #[arg(long, value_enum, default_value = "any")]
    pub versions: Versions,
    /// Name of the server that is asked for (SNI).
    #[arg(long, default_value = "localhost")]
    pub name: String,
    /// Handshakes per second, begun on schedule as far as a connection is free (default: as fast as it answers).
    #[arg(long)]
    pub rate: Option<f64>,
    /// Give up when the server has answered nothing for this long.
    #[arg(long, default_value = "30s", value_parser = parse_time)]
    pub patience: Duration,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
    /// Set from outside to end the run early.
    #[arg(skip)]
    pub stop: Option<Arc<AtomicBool>>,
}

impl Options {
    /// The defaults of the command line, for `address`.
    pub fn to(address: impl ToString) -> Self {
        Self {
            address: address.to_string(),
            connections: 16,
            handshakes: None,
            time: None,
            smtps: false,
            plain: false,
            resume: false,
            versions: Versions::Any,
            name: "localhost".into(),
            rate: None,
            patience: Duration::from_secs(30),
            json: false,
            stop: None,
        }
    }
}
