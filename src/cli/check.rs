//! `ringpost check`: reads a configuration and says all that is wrong with it. Nothing, if nothing is.

use std::path::{Path, PathBuf};

use clap::Args;

use super::client::print;
use super::{Seams, below};
use crate::exit::{Code, Failure};
use crate::reading::{Reading, look};

/// Where an installed server's configuration is.
const CONFIG_DEFAULT: &str = "/etc/ringpost/ringpost.conf";

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Configuration [default: /etc/ringpost/ringpost.conf]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Set a macro; it wins over the file
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = super::define)]
    define: Vec<(String, String)>,
    /// One JSON object for each problem
    #[arg(long)]
    json: bool,
    /// Warnings, too, are failures
    #[arg(long)]
    strict: bool,
}

pub fn run(options: &Options, seams: &Seams) -> Result<(), Failure> {
    let path = options.file.clone().unwrap_or_else(|| match &seams.root {
        Some(root) => below(root, Path::new(CONFIG_DEFAULT)),
        None => CONFIG_DEFAULT.into(),
    });
    let mut not_yet = Vec::new();
    let (reports, broken) = match Reading::load_from_disk(&path, seams, &options.define).1 {
        Ok((config, warnings)) => {
            not_yet = config.not_yet;
            let broken = options.strict && !warnings.is_empty();
            (warnings, broken)
        }
        Err(errors) => (errors, true),
    };
    if options.json {
        print(&reports.json())?;
    } else {
        eprint!("{}", reports.render(look()));
        for (line, what) in not_yet {
            eprintln!("note: {line}: {what} has no effect yet: this version does not start with it");
        }
    }
    if broken { Err(Failure::new(Code::Configuration, "")) } else { Ok(()) }
}
