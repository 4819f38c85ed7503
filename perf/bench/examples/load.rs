//! The load tools without the server, for `perf/compare` and for measuring other machines:
//! `load source|sink|handshakes|probe|verify …`, with the options of `ringpost bench`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use ringpost_bench::{handshakes, probe, sink, source, verify};

/// Load for any SMTP server, and a receiving end.
#[derive(Debug, Parser)]
enum Tool {
    /// Send messages.
    Source(source::Options),
    /// Receive messages.
    Sink(sink::Options),
    /// Make handshakes.
    Handshakes(handshakes::Options),
    /// Measure the disk.
    Probe(probe::Options),
    /// Compare what was acknowledged with what was received.
    Verify {
        /// The source's file.
        acked: PathBuf,
        /// The sink's file.
        received: PathBuf,
    },
}

fn main() -> ExitCode {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).expect("a handler for a signal that may be handled");
    }
    match run(Tool::parse(), stop) {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(tool: Tool, stop: Arc<AtomicBool>) -> Result<String, Box<dyn std::error::Error>> {
    Ok(match tool {
        Tool::Source(mut options) => {
            options.stop = Some(stop);
            let summary = source::run(&options)?;
            if options.json { serde_json::to_string(&summary)? } else { summary.to_string() }
        }
        Tool::Sink(mut options) => {
            options.stop = Some(stop);
            let summary = sink::run(&options)?;
            if options.json { serde_json::to_string(&summary)? } else { summary.to_string() }
        }
        Tool::Handshakes(mut options) => {
            options.stop = Some(stop);
            let summary = handshakes::run(&options)?;
            if options.json { serde_json::to_string(&summary)? } else { summary.to_string() }
        }
        Tool::Probe(options) => {
            let result = probe::run(&options)?;
            if options.json { serde_json::to_string(&result)? } else { result.to_string() }
        }
        Tool::Verify { acked, received } => {
            let verdict = verify::verify(&acked, &received)?;
            if verdict.lost > 0 {
                return Err(verdict.to_string().into());
            }
            verdict.to_string()
        }
    })
}
