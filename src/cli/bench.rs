//! `ringpost bench`: load for any mail server, a receiving end, and whether anything was lost on the way.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Subcommand};
use ringpost_bench::{handshakes, probe, sink, source, verify};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::client::print;
use crate::exit::{Code, Failure};

#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Send messages and measure every step
    Source(source::Options),
    /// Receive messages, count and check them, and misbehave as told
    Sink(sink::Options),
    /// Make TLS handshakes, full ones or resumed ones, and count them
    Handshakes(handshakes::Options),
    /// Compare what was acknowledged with what was received
    Verify(Verify),
    /// Measure the disk: durable writes, one at a time
    Probe(probe::Options),
}

#[derive(Args, Clone, Debug)]
pub struct Verify {
    /// The source's file (--acked)
    acked: PathBuf,
    /// The sink's file (--received)
    received: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn run(tool: Tool) -> Result<(), Failure> {
    let failed = |error: &dyn Display| Failure::new(Code::Unavailable, error.to_string());
    match tool {
        Tool::Source(mut options) => {
            options.stop = Some(interrupted()?);
            show(&source::run(&options).map_err(|error| failed(&error))?, options.json)
        }
        Tool::Sink(mut options) => {
            options.stop = Some(interrupted()?);
            show(&sink::run(&options).map_err(|error| failed(&error))?, options.json)
        }
        Tool::Handshakes(mut options) => {
            options.stop = Some(interrupted()?);
            show(&handshakes::run(&options).map_err(|error| failed(&error))?, options.json)
        }
        Tool::Probe(options) => show(&probe::run(&options)?, options.json),
        Tool::Verify(Verify { acked, received, json }) => {
            let verdict = verify::verify(&acked, &received).map_err(|error| {
                Failure::new(Code::NoInput, format!("{} or {}: {error}", acked.display(), received.display()))
            })?;
            show(&verdict, json)?;
            match verdict.lost {
                0 => Ok(()),
                lost => Err(Failure::new(Code::Failed, format!("{lost} acknowledged deliveries are missing"))),
            }
        }
    }
}

/// Ctrl-C ends a run early, and its summary is printed all the same.
fn interrupted() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

fn show<T: Display + Serialize>(result: &T, json: bool) -> Result<(), Failure> {
    if json {
        return print(&(serde_json::to_string(result).map_err(std::io::Error::from)? + "\n"));
    }
    print(&format!("{}\n", result.to_string().trim_end()))
}
