//! `mailq`: the name under which everybody looks into the queue.

use std::path::Path;

use clap::Args;

use super::queue;
use crate::exit::Failure;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options, state: &Path) -> Result<(), Failure> {
    queue::run(queue::Command::list_as(options.json), state)
}
