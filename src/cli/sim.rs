//! `ringpost sim`: the whole engine in a simulated world, judged: what it promises, or with `--provider` how well it finds out
//! what another server takes. A seed that fails once fails always.

use std::time::Duration;

use clap::Args;
use ringpost_sim::provider::{self, Phase, Scenario};
use ringpost_sim::{Faults, Outcome, Plan, Ttl};

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
    /// What may go wrong: crash, disk, full, net, hosts, peers, names, programs, clock, limits, none, all; planted:
    /// lying-disk, no-generation, forgets-claims, loses-wakes, misses-expiry
    #[arg(long, value_name = "LIST", default_value = "all")]
    faults: String,
    /// Virtual seconds that a message may stay queued: judged is then that none stays longer. Without it the seed decides:
    /// days, or seconds to half an hour
    #[arg(long, value_name = "S")]
    ttl: Option<u64>,
    /// A provider instead, whose limits of messages a second or of connections change: judged is that the engine finds them
    /// within a tenth, and in no ten seconds, the first ones included, offers more than a fifth too much
    #[arg(long, conflicts_with_all = ["seconds", "faults", "ttl"])]
    provider: bool,
    /// Print every event of the engine on standard error
    #[arg(long)]
    trace: bool,
}

/// Runs the seeds and prints a line for each.
///
/// # Errors
/// A promise was not kept: what, and how to run that seed again.
pub fn run(options: &Options) -> Result<(), Failure> {
    if options.provider {
        return find(options);
    }
    let faults: Faults = options.faults.parse().map_err(|error| Failure::new(Code::Usage, format!("{error}")))?;
    let mut failed = Vec::new();
    for seed in options.seed..options.seed.saturating_add(options.seeds) {
        begin(seed)?;
        let traffic = Duration::from_secs(options.seconds);
        let ttl = options.ttl.map_or(Ttl::Drawn, |seconds| Ttl::Of(Duration::from_secs(seconds)));
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

/// Says which seed it is before it is run, not after: one that ends in a panic must be known, too.
fn begin(seed: u64) -> Result<(), Failure> {
    print!("seed {seed}: ");
    std::io::Write::flush(&mut std::io::stdout())?;
    Ok(())
}

/// The same for providers.
fn find(options: &Options) -> Result<(), Failure> {
    let (mut failed, mut first) = (0, None);
    for seed in options.seed..options.seed.saturating_add(options.seeds) {
        begin(seed)?;
        let scenario = Scenario { trace: options.trace, ..Scenario::drawn(seed) };
        let phases = provider::run(&scenario);
        let wrong: Vec<String> = phases.iter().flat_map(|phase| phase.wrong.clone()).collect();
        let shown: Vec<String> = phases.iter().map(Phase::to_string).collect();
        println!("{scenario}: {}: {}", shown.join("; "), if wrong.is_empty() { "found" } else { "NOT FOUND" });
        if !wrong.is_empty() {
            failed += 1;
            first.get_or_insert((seed, wrong));
        }
    }
    let Some((seed, wrong)) = first else { return Ok(()) };
    let wrong = wrong.join("\n  ");
    let text = format!(
        "what a provider takes was not found in {failed} of {} worlds; seed {seed}:\n  {wrong}\n\
         run it again with `ringpost sim --provider --seed {seed} --trace`",
        options.seeds
    );
    Err(Failure::new(Code::Failed, text))
}

fn line(outcome: &Outcome) -> String {
    let Outcome { sent, acked, delivered, expired, crashes, elapsed, broken, .. } = outcome;
    let verdict = if broken.is_empty() { "kept" } else { "BROKEN" };
    let seconds = elapsed.as_secs();
    format!(
        "{sent} sent, {acked} answered 250, {delivered} delivered, {expired} expired, {crashes} crashes, \
         {seconds} virtual s: {verdict}"
    )
}

fn report(first: &Outcome, failed: usize, options: &Options) -> String {
    let mut text = format!("promises were broken in {failed} of {} worlds; seed {}:\n", options.seeds, first.seed);
    for broken in first.broken.iter().take(10) {
        text += &format!("  {broken}\n");
    }
    let (seed, seconds, faults) = (first.seed, options.seconds, &options.faults);
    let ttl = options.ttl.map_or_else(String::new, |ttl| format!(" --ttl {ttl}"));
    text + &format!("run it again with `ringpost sim --seed {seed} --seconds {seconds} --faults {faults}{ttl} --trace`")
}
