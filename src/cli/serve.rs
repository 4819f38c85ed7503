//! `ringpost serve`: hands over to the supervisor.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::Seams;
use crate::exit::Failure;
use crate::plan::Wish;
use crate::supervisor;

#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Configuration; without one: quick-start, loopback only
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set a macro of the configuration; it wins over the file
    #[arg(short = 'D', value_name = "NAME=VALUE", requires = "config", value_parser = super::define)]
    pub define: Vec<(String, String)>,
    /// Quick-start: listen here instead of port 2525
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "config")]
    pub listen: Vec<SocketAddr>,
    /// Quick-start: the page here instead of port 8025, or `off`
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "config", value_parser = page)]
    pub page: Option<Page>,
    /// Log warnings alone, not sessions and messages
    #[arg(long, short)]
    pub quiet: bool,
}

/// Where the page is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Off,
    At(SocketAddr),
}

fn page(text: &str) -> Result<Page, String> {
    match text {
        "off" => Ok(Page::Off),
        _ => text.parse().map(Page::At).map_err(|_| "neither an address and port nor `off`".into()),
    }
}

pub fn run(options: Options, seams: Seams, state: Option<PathBuf>) -> Result<(), Failure> {
    supervisor::run(Wish { options, seams, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_may_be_moved_or_left_out() {
        assert_eq!(page("off"), Ok(Page::Off));
        assert_eq!(page("127.0.0.1:1"), Ok(Page::At("127.0.0.1:1".parse().unwrap())));
        assert!(page("somewhere").is_err());
    }
}
