//! `ringpost stats`: counters, and the latency of each stage.

use std::path::Path;

use clap::Args;
use ringpost_perf::report::{self, Report};

use super::client::{Server, print};
use crate::exit::Failure;
use crate::ipc::control::{Answer, Request};

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// As JSON, what the page's /api/v1/stats gives
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options, state: &Path) -> Result<(), Failure> {
    let mut text = String::new();
    Server::running(state)?.ask(&Request::Stats, |answer| {
        if let Answer::Stats(snapshot) = answer {
            text = if options.json {
                serde_json::to_string(&Report::new(&snapshot)).map_err(std::io::Error::from)? + "\n"
            } else {
                report::table(&snapshot)
            };
        }
        Ok(())
    })?;
    print(&text)
}
