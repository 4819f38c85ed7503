//! `ringpost sim`: the whole engine in a simulated world, judged. A seed that fails once fails always.

use std::time::Duration;

use clap::Args;
use ringpost_sim::{Faults, Outcome, Plan};

use crate::exit::{Code, Failure};

/// Options of `sim`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Seed of the first world
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Worlds to run: this many seeds, one after the other
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    seeds: u64,
    /// Virtual seconds of traffic and faults in each
    #[arg(long, value_name = "S", default_value_t = 40)]
    seconds: u64,
    /// What may go wrong: crash, disk, full, net, peers, names, none, all; planted: lying-disk, no-generation,
    /// forgets-claims
    #[arg(long, value_name = "LIST", default_value = "all")]
    faults: String,
    /// Virtual seconds that a message may stay queued, instead of days: judged is then that none stays longer
    #[arg(long, value_name = "S")]
    ttl: Option<u64>,
    /// Print every event of the engine on standard error
    #[arg(long)]
    trace: bool,
}

/// Runs the seeds and prints a line for each.
///
/// # Errors
/// A promise was not kept: what, and how to run that seed again.
pub fn run(options: &Options) -> Result<(), Failure> {
    let faults: Faults = options.faults.parse().map_err(|error| Failure::new(Code::Usage, format!("{error}")))?;
    let mut failed = Vec::new();
    for seed in options.seed..options.seed.saturating_add(options.seeds) {
        // Said before, not after: a seed that ends in a panic must be known, too.
        print!("seed {seed}: ");
        std::io::Write::flush(&mut std::io::stdout())?;
        let traffic = Duration::from_secs(options.seconds);
        let ttl = options.ttl.map(Duration::from_secs);
        let outcome = ringpost_sim::run(&Plan { seed, traffic, faults, ttl, trace: options.trace });
        println!("{}", line(&outcome));
        if !outcome.broken.is_empty() {
            failed.push(outcome);
        }
    }
    match failed.first() {
        None => Ok(()),
        Some(first) => Err(Failure::new(Code::Failed, report(first, failed.len(), options))),
    }
}

fn line(outcome: &Outcome) -> String {
    let Outcome { sent, acked, delivered, crashes, elapsed, broken, .. } = outcome;
    let verdict = if broken.is_empty() { "kept" } else { "BROKEN" };
    let seconds = elapsed.as_secs();
    format!(
        "{sent} sent, {acked} answered 250, {delivered} delivered, {crashes} crashes, {seconds} virtual s: {verdict}"
    )
}

fn report(first: &Outcome, failed: usize, options: &Options) -> String {
    let mut text = format!("promises were broken in {failed} of {} worlds; seed {}:\n", options.seeds, first.seed);
    for broken in first.broken.iter().take(10) {
        text += &format!("  {broken}\n");
    }
    let (seed, seconds, faults) = (first.seed, options.seconds, &options.faults);
    text + &format!("run it again with `ringpost sim --seed {seed} --seconds {seconds} --faults {faults} --trace`")
}
