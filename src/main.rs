//! The `ringpost` program: what its commands are, and where each is done.
#![forbid(unsafe_code)]

mod authorities;
mod certificates;
mod cli;
mod clock;
mod confinement;
mod coordinator;
mod disk;
mod durable;
mod encryption;
mod engine;
mod exit;
mod ipc;
mod kept;
mod keyholder;
mod limits;
mod lookup;
mod owners;
mod passwords;
mod plan;
mod reading;
mod sendmail;
mod supervisor;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

/// A handshake asks for memory some hundred times, and signatures free on one thread what another has taken.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator takes its memory a little here and there; where the system gives huge pages unasked, as Debian does, each
    // place would take two megabytes. All that is started from here inherits it.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let Cli { seams, state, command } = Cli::parse_from(cli::arguments());
    let result = match command.unwrap_or_default() {
        Command::Serve(options) => cli::serve::run(options, seams, state),
        Command::Check(options) => cli::check::run(&options, &seams),
        Command::Convert(options) => cli::convert::run(&options, &seams),
        Command::Explain(options) => cli::explain::run(&options, &seams, state),
        Command::Format(options) => cli::format::run(&options),
        Command::Queue(command) => cli::queue::run(command, &cli::state_dir(&seams, state)),
        Command::Why(options) => cli::why::run(&options, &cli::state_dir(&seams, state)),
        Command::Show(command) => cli::show::run(command, &cli::state_dir(&seams, state)),
        Command::Limit(command) => cli::limit::run(command, &cli::state_dir(&seams, state)),
        Command::Table(command) => cli::table::run(command, &seams, &cli::state_dir(&seams, state)),
        Command::Hash(options) => cli::hash::run(&options),
        Command::TlsReport(options) => cli::tls_report::run(&options, &cli::state_dir(&seams, state)),
        Command::Stats(options) => cli::stats::run(&options, &cli::state_dir(&seams, state)),
        Command::Reload => cli::reload::run(&cli::state_dir(&seams, state)),
        Command::Sendmail(options) => cli::sendmail::run(options, &seams, state),
        Command::Mailq(options) => cli::mailq::run(&options, &cli::state_dir(&seams, state)),
        Command::Stop => cli::stop::run(&cli::state_dir(&seams, state)),
        Command::Makemap(options) => cli::makemap::run(&options),
        Command::Newaliases(options) => cli::newaliases::run(&options, &seams),
        Command::Pickup => cli::sendmail::pickup(&seams, &cli::state_dir(&seams, state)),
        Command::Bench(tool) => cli::bench::run(tool),
        Command::Sim(options) => cli::sim::run(&options),
        Command::Engine => return cli::role::engine(),
        Command::Keyholder => return cli::role::keyholder(),
        Command::Errand => return cli::role::errand(),
        Command::Lookup => return cli::role::lookup(),
        #[cfg(feature = "pam")]
        Command::Logon => return cli::role::logon(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
