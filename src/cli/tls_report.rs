//! `ringpost tls-report`: what came of encryption today to domains that have a policy about it, or their reports at once.

use std::path::Path;

use clap::Args;

use super::client::{Server, print};
use crate::coordinator::tlsrpt::OfDomain;
use crate::exit::Failure;
use crate::ipc::control::{Answer, Request};

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// An object of JSON a line
    #[arg(long)]
    json: bool,
    /// Write the reports now, send them to the domains that want them, and begin to count anew
    #[arg(long)]
    end_day: bool,
}

pub fn run(options: &Options, state: &Path) -> Result<(), Failure> {
    let mut text = String::new();
    let said = Server::running(state)?.ask(&Request::TlsReport { end_day: options.end_day }, |answer| {
        if let Answer::Encryption(domain) = answer {
            match options.json {
                true => text += &(serde_json::to_string(&domain).map_err(std::io::Error::from)? + "\n"),
                false => text += &lines(&domain),
            }
        }
        Ok(())
    })?;
    if !said.is_empty() {
        text += &(said + "\n");
    }
    print(&text)
}

/// A line for each policy, and one for each way to fail.
fn lines(domain: &OfDomain) -> String {
    let mut text = String::new();
    for counts in &domain.policies {
        let name = &domain.domain;
        text += &format!("{name:<40} {:<5} ok {:>8}  failed {:>8}\n", counts.policy, counts.good, counts.failed);
        for failure in &counts.failures {
            let address = failure.addresses.map_or_else(String::new, |(theirs, _)| format!("[{theirs}]"));
            text += &format!("  {:>8} × {} {}{address}\n", failure.count, failure.kind, failure.host);
        }
    }
    text
}
