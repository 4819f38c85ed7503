//! The `ringpost` program: what its commands are, and where each is done.
#![forbid(unsafe_code)]

mod cli;
mod coordinator;
mod engine;
mod exit;
mod ipc;
mod keyholder;
mod limits;
mod plan;
mod pulse;
mod reading;
mod supervisor;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let Cli { seams, state, command } = Cli::parse();
    let result = match command.unwrap_or_default() {
        Command::Serve(options) => cli::serve::run(options, seams, state),
        Command::Check(options) => cli::check::run(&options, &seams),
        Command::Queue(command) => cli::queue::run(command, &cli::state_dir(&seams, state)),
        Command::Stats(options) => cli::stats::run(&options, &cli::state_dir(&seams, state)),
        Command::Reload => cli::reload::run(&cli::state_dir(&seams, state)),
        Command::Stop => cli::stop::run(&cli::state_dir(&seams, state)),
        Command::Bench(tool) => cli::bench::run(tool),
        Command::Sim(options) => cli::sim::run(&options),
        Command::Engine => return cli::role::engine(),
        Command::Keyholder => return cli::role::keyholder(),
        Command::Errand => return cli::role::errand(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
