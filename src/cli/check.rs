//! `ringpost check`: reads a configuration and says all that is wrong with it. Nothing, if nothing is.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use ringpost_conf::{Config, Reports};

use super::client::print;
use super::{Seams, below};
use crate::certificates::{self, Finding};
use crate::exit::{Code, Failure};
use crate::owners::Owners;
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
    /// Print it with one spelling for each thing, includes in their places
    #[arg(long)]
    canonical: bool,
    /// And what it leaves open, with where each value comes from
    #[arg(long, requires = "canonical")]
    defaults: bool,
    /// One JSON object for each problem
    #[arg(long)]
    json: bool,
    /// Warnings, too, are failures
    #[arg(long)]
    strict: bool,
}

pub fn run(options: &Options, seams: &Seams) -> Result<(), Failure> {
    let path = path(options.file.as_ref(), seams);
    let loaded = match options.canonical {
        true => Reading::canonical_from_disk(&path, seams, &options.define, options.defaults),
        false => Reading::load_from_disk(&path, seams, &options.define).1.map(|(config, warnings)| {
            let nothing = String::new();
            (config, warnings, nothing)
        }),
    };
    let (config, reports) = match loaded {
        Ok((config, warnings, text)) => {
            print(&text)?;
            (Some(config), warnings)
        }
        Err(errors) => (None, errors),
    };
    let findings = config.as_ref().map(|config| certificates::examine(config, SystemTime::now())).unwrap_or_default();
    report(options, config.as_ref(), &reports, &findings)?;
    if path == installed(seams) {
        tell_owners(seams);
    }
    let wrong = findings.iter().any(|finding| finding.is_error);
    let broken = config.is_none() || wrong || (options.strict && !(reports.is_empty() && findings.is_empty()));
    if broken { Err(Failure::new(Code::Configuration, "")) } else { Ok(()) }
}

/// The configuration that is meant.
pub fn path(file: Option<&PathBuf>, seams: &Seams) -> PathBuf {
    file.cloned().unwrap_or_else(|| installed(seams))
}

fn installed(seams: &Seams) -> PathBuf {
    match &seams.root {
        Some(root) => below(root, Path::new(CONFIG_DEFAULT)),
        None => CONFIG_DEFAULT.into(),
    }
}

/// Whose the processes of the installed server would be, as far as that is not as it should be. Of root alone, for that is who
/// starts it.
fn tell_owners(seams: &Seams) {
    match Owners::find(seams.root.as_deref()) {
        Ok(owners) => owners.note().into_iter().for_each(|why| eprintln!("note: {why}; docs/confinement.md says more")),
        Err(error) => eprintln!("note: whose engine and keyholder would be: {error}"),
    }
}

fn report(options: &Options, config: Option<&Config>, reports: &Reports, findings: &[Finding]) -> Result<(), Failure> {
    let not_yet = config.map(|config| config.not_yet.as_slice()).unwrap_or_default();
    if options.json {
        let mut lines = reports.json();
        for found in not_yet {
            let (message, line) = (found.to_string(), &found.line);
            let object = serde_json::json!({
                "code": "", "severity": "note", "message": message, "file": &*line.file, "line": line.number,
            });
            lines.push_str(&format!("{object}\n"));
        }
        for Finding { line, text, is_error } in findings {
            let severity = if *is_error { "error" } else { "warning" };
            let object = serde_json::json!({
                "code": "", "severity": severity, "message": text, "file": &*line.file, "line": line.number,
            });
            lines.push_str(&format!("{object}\n"));
        }
        if options.canonical {
            eprint!("{lines}");
            return Ok(());
        }
        return print(&lines);
    }
    eprint!("{}", reports.render(look()));
    for Finding { line, text, is_error } in findings {
        eprintln!("{}: {line}: {text}", if *is_error { "error" } else { "warning" });
    }
    for found in not_yet {
        eprintln!("note: {}: {found}", found.line);
    }
    Ok(())
}
