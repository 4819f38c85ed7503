//! What a run is asked to do.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::workload::{Sizes, parse_time};

/// How far commands go ahead of replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Pipelining {
    /// One command, one reply.
    Off,
    /// MAIL, RCPT and DATA in one write (RFC 2920), each body in another.
    Group,
    /// As `group`, and a body leaves together with the next group (or QUIT).
    On,
}

/// What to send, where and how fast.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Server, `host:port`.
    #[arg(default_value = "127.0.0.1:2525")]
    pub address: String,
    /// Connections open at the same time.
    #[arg(short, long, default_value_t = 16)]
    pub connections: u32,
    /// Messages to send; without this and --time 10000.
    #[arg(short = 'n', long)]
    pub messages: Option<u64>,
    /// How long to send, such as 10s.
    #[arg(short, long, value_parser = parse_time)]
    pub time: Option<Duration>,
    /// Size of a message: 4k, 1k-64k, or with weights 4k:90,1m:10.
    #[arg(short, long, default_value = "4k")]
    pub size: Sizes,
    /// Recipients of each message.
    #[arg(short, long, default_value_t = 1)]
    pub recipients: u32,
    /// How far commands go ahead of replies, if the server offers PIPELINING.
    #[arg(short, long, value_enum, default_value = "on")]
    pub pipelining: Pipelining,
    /// Messages on a connection before it is closed and another opened (default: no end).
    #[arg(short = 'k', long)]
    pub per_connection: Option<u64>,
    /// Messages per second, sent on schedule whether or not the server keeps up (default: as fast as it answers).
    #[arg(long)]
    pub rate: Option<f64>,
    /// Ask for answers without a pause instead of sleeping until one comes. Takes a whole CPU; the time to wake this program,
    /// and what waking it costs a server on the same machine, are then not in the latencies.
    #[arg(long)]
    pub spin: bool,
    /// Domain of the sender.
    #[arg(long, default_value = "source.example")]
    pub from_domain: String,
    /// Domain of the recipients, who are called r0, r1 and so on.
    #[arg(long, default_value = "sink.example")]
    pub to_domain: String,
    /// So many domains d0.DOMAIN, d1.DOMAIN and so on instead, a message to each in turn.
    #[arg(long, default_value_t = 1)]
    pub to_domains: u32,
    /// File to which `key recipient` is added for each delivery answered with 250.
    #[arg(long)]
    pub acked: Option<PathBuf>,
    /// Name of the run in every message's key (default: from the clock).
    #[arg(long)]
    pub run: Option<String>,
    /// Give up when the server has answered nothing for this long.
    #[arg(long, default_value = "30s", value_parser = parse_time)]
    pub patience: Duration,
    /// Show no progress.
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
    /// Set from outside to end the run early.
    #[arg(skip)]
    pub stop: Option<Arc<AtomicBool>>,
}

impl Options {
    /// The defaults of the command line, for `address`, without progress.
    pub fn to(address: impl ToString) -> Self {
        Self {
            address: address.to_string(),
            connections: 16,
            messages: None,
            time: None,
            size: Sizes::fixed(4096),
            recipients: 1,
            pipelining: Pipelining::On,
            per_connection: None,
            rate: None,
            spin: false,
            from_domain: "source.example".into(),
            to_domain: "sink.example".into(),
            to_domains: 1,
            acked: None,
            run: None,
            patience: Duration::from_secs(30),
            quiet: true,
            json: false,
            stop: None,
        }
    }
}
