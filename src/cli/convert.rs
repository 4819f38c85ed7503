//! `ringpost convert`: a configuration of 2012–2018 in the words of today, on standard output. Comments are kept, and what is in
//! the words of today already stays as it stands.

use std::path::PathBuf;

use clap::Args;
use ringpost_conf::FileSystem;

use super::client::print;
use super::{Seams, check};
use crate::exit::{Code, Failure};
use crate::reading::look;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Configuration [default: /etc/ringpost/ringpost.conf]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Set a macro; it wins over the file
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = super::define)]
    define: Vec<(String, String)>,
}

pub fn run(options: &Options, seams: &Seams) -> Result<(), Failure> {
    let path = check::path(options.file.as_ref(), seams);
    let (root, defines) = (seams.root.clone(), options.define.clone());
    let options = ringpost_conf::Options { root, defines, ..ringpost_conf::Options::default() };
    match ringpost_conf::convert(&FileSystem, &path, &options) {
        Ok((text, _)) => print(&text),
        Err(reports) => {
            eprint!("{}", reports.render(look()));
            Err(Failure::new(Code::Configuration, ""))
        }
    }
}
