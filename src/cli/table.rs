//! `ringpost table`: one lookup, as the server makes it. A running server is asked through its own caches; a table of a
//! configuration that no server runs, and a source such as `sqlite:/etc/mail/sqlite.conf` that is in none, from here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use ringpost_conf::tables::ServiceKind;
use ringpost_perf::report::duration;

use super::Seams;
use super::client::{Server, print};
use crate::coordinator::tables::direct::Direct;
use crate::coordinator::tables::{self, Backend, Declared, Figures, Problem, Service, Shown, Surroundings, Tally};
use crate::exit::{Code, Failure};
use crate::ipc::control::{Answer, Request};
use crate::reading::{Reading, look};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look keys up in a table of the running server or of a configuration, or in a backend
    Lookup(LookupOptions),
    /// Whether a backend works: its configuration, its queries, its helper
    Check(CheckOptions),
    /// The tables of the running server or of a configuration, as they were declared
    Show(ShowOptions),
    /// How often a table was asked, and how it went
    Stat(StatOptions),
    /// Forget what is known of a table, and ask its backend again
    Update {
        /// Its name
        table: String,
    },
}

#[derive(Args, Clone, Debug)]
pub struct LookupOptions {
    /// Name of a table, or BACKEND:ARGUMENT as in a configuration
    table: String,
    /// What to ask for: alias, domain, credentials, userinfo, …
    service: String,
    /// Keys; `-` reads them from standard input, one a line
    #[arg(required = true)]
    keys: Vec<String>,
    /// One JSON object for each key
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: FileOptions,
}

/// Tables of a configuration that no server need run.
#[derive(Args, Clone, Debug)]
pub struct FileOptions {
    /// Read this configuration instead of asking a server
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a macro of it
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = super::define, requires = "config")]
    define: Vec<(String, String)>,
}

#[derive(Args, Clone, Debug)]
pub struct CheckOptions {
    /// BACKEND:ARGUMENT as in a configuration
    source: String,
    /// Services that it has to answer
    services: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub struct ShowOptions {
    /// Its name [default: all]
    table: Option<String>,
    /// One JSON object for each table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: FileOptions,
}

#[derive(Args, Clone, Debug)]
pub struct StatOptions {
    /// Its name [default: all]
    table: Option<String>,
    /// One JSON object for each table
    #[arg(long)]
    json: bool,
}

pub fn run(command: Command, seams: &Seams, state: &Path) -> Result<(), Failure> {
    match command {
        Command::Lookup(options) => lookup(&options, seams, state),
        Command::Check(options) => check(&options, seams),
        Command::Show(options) => show(&options, seams, state),
        Command::Stat(options) => stat(&options, state),
        Command::Update { table } => {
            let said = Server::running(state)?.ask(&Request::TableUpdate { table }, |_| Ok(()))?;
            print(&format!("{said}\n"))
        }
    }
}

fn lookup(options: &LookupOptions, seams: &Seams, state: &Path) -> Result<(), Failure> {
    let service = service(&options.service)?;
    let mut worst = Worst::default();
    let single = options.keys.len() == 1 && options.keys[0] != "-";
    let mut each = |key: String, answer: tables::Answer| {
        worst.see(&answer);
        if options.json {
            let line = serde_json::json!({ "key": key, "answer": answer });
            return print(&format!("{line}\n"));
        }
        match (answer, single) {
            (tables::Answer::Found(value), true) => print(&format!("{value}\n")),
            (answer, true) => {
                eprintln!("ringpost: {}", described(&key, &answer));
                Ok(())
            }
            (tables::Answer::Found(value), false) => print(&format!("{key}\tfound\t{value}\n")),
            (tables::Answer::NotFound, false) => print(&format!("{key}\tnot-found\n")),
            (tables::Answer::Failed(why), false) => print(&format!("{key}\tfailed\t{why}\n")),
        }
    };
    let keys = keys(options.keys.clone());
    if let Some(config) = &options.file.config {
        configured(config, &options.file, seams)?.lookup(&options.table, service, keys, each)?;
    } else if is_source(&options.table) {
        open(&options.table, seams)?.lookup(SOURCE, service, keys, each)?;
    } else {
        for key in keys {
            let (table, name) = (options.table.clone(), service.name().to_owned());
            let request = Request::TableLookup { table, service: name, key: key.clone() };
            let mut found = None;
            Server::running(state)?.ask(&request, |answer| {
                if let Answer::Lookup(answer) = answer {
                    found = Some(answer);
                }
                Ok(())
            })?;
            if let Some(answer) = found {
                each(key, answer)?;
            }
        }
    }
    worst.outcome()
}

/// The exit code tells the worst answer: 1 that something is not there, 75 that something could not be asked.
#[derive(Default)]
struct Worst(Option<Code>);

impl Worst {
    fn see(&mut self, answer: &tables::Answer) {
        match answer {
            tables::Answer::Found(_) => {}
            tables::Answer::NotFound => self.0 = self.0.or(Some(Code::Failed)),
            tables::Answer::Failed(_) => self.0 = Some(Code::TryLater),
        }
    }

    fn outcome(self) -> Result<(), Failure> {
        self.0.map_or(Ok(()), |code| Err(Failure::new(code, "")))
    }
}

fn described(key: &str, answer: &tables::Answer) -> String {
    match answer {
        tables::Answer::Found(value) => value.clone(),
        tables::Answer::NotFound => format!("{key:?} is not there"),
        tables::Answer::Failed(why) => format!("the lookup failed: {why}"),
    }
}

fn keys(given: Vec<String>) -> impl Iterator<Item = String> + Send + 'static {
    given.into_iter().flat_map(|key| -> Box<dyn Iterator<Item = String> + Send> {
        if key == "-" { Box::new(std::iter::from_fn(line)) } else { Box::new(std::iter::once(key)) }
    })
}

/// The next line of standard input; what cannot be read ends it.
fn line() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().read_line(&mut line) {
        Ok(1..) => Some(line.trim_end_matches(['\n', '\r']).to_owned()),
        Ok(0) | Err(_) => None,
    }
}

fn check(options: &CheckOptions, seams: &Seams) -> Result<(), Failure> {
    let direct = open(&options.source, seams)?;
    let problems = direct.check();
    if !problems.is_empty() {
        return Err(wrong(&problems));
    }
    let mut missing = Vec::new();
    for name in &options.services {
        let provided = Service::of(service(name)?).map_or(Ok(false), |service| direct.provides(SOURCE, service));
        if !provided.map_err(|why| Failure::new(Code::Unavailable, why))? {
            missing.push(name.as_str());
        }
    }
    match missing.as_slice() {
        [] => Ok(()),
        missing => {
            let text = format!("{} does not answer {} lookups", options.source, missing.join(", "));
            Err(Failure::new(Code::Configuration, text))
        }
    }
}

fn is_source(table: &str) -> bool {
    table.contains(':') || table == "getpwnam"
}

/// The name of a table that is declared nowhere.
const SOURCE: &str = "table";

fn open(source: &str, seams: &Seams) -> Result<Direct, Failure> {
    let backend = Backend::read(source, seams.root.as_deref());
    let backend = backend.map_err(|error| Failure::new(Code::Configuration, error.to_string()))?;
    direct(vec![Declared::new(SOURCE, backend)], None, seams)
}

/// The tables of a configuration. That the server cannot do all it says is no matter here.
fn configured(path: &Path, options: &FileOptions, seams: &Seams) -> Result<Direct, Failure> {
    let config = match Reading::load_from_disk(path, seams, &options.define).1 {
        Ok((config, _)) => config,
        Err(reports) => {
            eprint!("{}", reports.render(look()));
            return Err(Failure::new(Code::Configuration, ""));
        }
    };
    let declared = tables::declare(&config, seams.root.as_deref());
    let declared = declared.map_err(|wrong| Failure::new(Code::Configuration, wrong.join("\nringpost: ")))?;
    direct(declared, Some(config), seams)
}

fn direct(declared: Vec<Declared>, config: Option<ringpost_conf::Config>, seams: &Seams) -> Result<Direct, Failure> {
    let events = Arc::new(|event: &tables::Event| eprintln!("ringpost: {event}"));
    let surroundings = Surroundings { root: seams.root.clone(), events, users: None };
    Direct::new(declared, config, &surroundings)?.map_err(|problems| wrong(&problems))
}

fn wrong(problems: &[Problem]) -> Failure {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    Failure::new(Code::Configuration, lines.join("\nringpost: "))
}

fn service(name: &str) -> Result<ServiceKind, Failure> {
    ServiceKind::parse(name).ok_or_else(|| {
        let known: Vec<&str> = ServiceKind::names().collect();
        Failure::new(Code::Usage, format!("there are no `{name}` lookups; there are {}", known.join(", ")))
    })
}

fn show(options: &ShowOptions, seams: &Seams, state: &Path) -> Result<(), Failure> {
    let mut all = Vec::new();
    match &options.file.config {
        Some(config) => {
            let tables = configured(config, &options.file, seams)?.show(options.table.as_deref());
            all = tables.map_err(|why| Failure::new(Code::Failed, why))?;
        }
        None => {
            let request = Request::TableShow { table: options.table.clone() };
            Server::running(state)?.ask(&request, |answer| {
                all.extend(if let Answer::Shown(shown) = answer { Some(shown) } else { None });
                Ok(())
            })?;
        }
    }
    let lines = all.iter().map(|one| match options.json {
        true => serde_json::to_string(one).map_err(std::io::Error::from),
        false => Ok(shown(one)),
    });
    let lines: Vec<String> = lines.collect::<Result<_, _>>()?;
    print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

fn stat(options: &StatOptions, state: &Path) -> Result<(), Failure> {
    let mut out = String::new();
    let request = Request::TableFigures { table: options.table.clone() };
    Server::running(state)?.ask(&request, |answer| {
        if let Answer::Table(figures) = answer {
            out += &if options.json {
                serde_json::to_string(&figures).map_err(std::io::Error::from)?
            } else {
                counted(&figures)
            };
            out.push('\n');
        }
        Ok(())
    })?;
    print(&out)
}

fn shown(table: &Shown) -> String {
    let Shown { declared, services, failing, .. } = table;
    let services = if services.is_empty() { "nothing".to_owned() } else { services.join(" ") };
    let failing = failing.as_ref().map_or(String::new(), |why| format!("\n  fails: {why}"));
    format!("{declared}\n  asked for: {services}{failing}")
}

fn counted(figures: &Figures) -> String {
    let Figures { name, tally, connections, kept, waiting, latency, .. } = figures;
    let Tally { hits, joined, asked, found, not_found, failures, stale } = tally;
    let (p50, p99) = (duration(latency.quantile_us(0.5)), duration(latency.quantile_us(0.99)));
    let max = duration(latency.max_us());
    format!(
        "<{name}>  hits={hits} joined={joined} asked={asked} found={found} not-found={not_found} failures={failures} \
         stale={stale} kept={kept} waiting={waiting} connections={connections}  p50 {p50}, p99 {p99}, max {max}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_answer_decides() {
        let outcome = |answers: &[tables::Answer]| {
            let mut worst = Worst::default();
            answers.iter().for_each(|answer| worst.see(answer));
            worst.outcome().map_err(|failure| failure.code)
        };
        let (found, failed) = (tables::Answer::Found("x".into()), tables::Answer::Failed("y".into()));
        assert_eq!(outcome(std::slice::from_ref(&found)), Ok(()));
        assert_eq!(outcome(&[tables::Answer::NotFound, found.clone()]), Err(Code::Failed));
        assert_eq!(outcome(&[failed, tables::Answer::NotFound, found]), Err(Code::TryLater));
    }

    #[test]
    fn sources_are_told_from_names() {
        assert!(is_source("sqlite:/x") && is_source("getpwnam") && !is_source("aliases"));
        let text = service("aliases").unwrap_err().text;
        assert!(text.contains("alias, domain") && text.contains("sourceaddr"), "{text}");
    }
}
