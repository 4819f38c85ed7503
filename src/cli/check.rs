//! temporary
use super::Seams;
use crate::exit::Failure;
use clap::Args;
use std::path::PathBuf;
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Configuration
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}
pub fn run(_options: &Options, _seams: &Seams) -> Result<(), Failure> {
    Ok(())
}
