//! `newaliases`: the database of the system's aliases is made anew.

use std::path::{Path, PathBuf};

use clap::Args;

use super::client::print;
use super::makemap::{Kind, make, with_db};
use super::{Seams, below};
use crate::exit::{Code, Failure};

/// Where aliases are; the first that is there is meant.
const PLACES: [&str; 2] = ["/etc/mail/aliases", "/etc/aliases"];

#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// The aliases [default: /etc/mail/aliases or /etc/aliases]
    file: Option<PathBuf>,
}

pub fn run(options: &Options, seams: &Seams) -> Result<(), Failure> {
    let file = match &options.file {
        Some(file) => file.clone(),
        None => find(seams.root.as_deref())?,
    };
    let output = with_db(&file);
    let count = make(&file, Kind::Aliases, &output)?;
    print(&format!("{}: {count} aliases\n", output.display()))
}

fn find(root: Option<&Path>) -> Result<PathBuf, Failure> {
    let place = |path: &&str| root.map_or(PathBuf::from(path), |root| below(root, Path::new(path)));
    PLACES.iter().map(place).find(|path| path.is_file()).ok_or_else(|| {
        let text = format!("there is neither {} nor {}\n  name the file: newaliases FILE", PLACES[0], PLACES[1]);
        Failure::new(Code::NoInput, text)
    })
}
