//! What a server is to do, as far as it can travel: the configuration's text as it was read, and what the command line
//! says besides. The supervisor reads it; the engine makes the same `Config` of it, and needs no file for that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use ringpost_conf::{CertificateAuth, Config, Family, Keyed, Listener, PkiSource, Quickstart, Where};
use serde::{Deserialize, Serialize};

use crate::authorities::Authority;
use crate::certificates::Identity;
use crate::cli::serve::{Options, Page};
use crate::cli::{self, Seams};
use crate::coordinator::Zone;
use crate::coordinator::tables::{self, Declared};
use crate::exit::{Code, Failure};
use crate::limits::{CORES_PER_CHECKER, CORES_PER_SIGNER};
use crate::reading::Reading;
use crate::supervisor::interfaces;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Of `serve`.
    pub options: Options,
    /// Of all commands.
    pub seams: Seams,
    /// `--state`.
    pub state: Option<PathBuf>,
}

/// A wish, with all files read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    text: Text,
    zone: Option<(PathBuf, String)>,
    /// Tables that the coordinator looks up.
    pub tables: Vec<Declared>,
    /// Tables that certificates are looked up in. The engine does not get them: there are keys in them.
    #[serde(skip)]
    pub sources: Vec<Declared>,
    /// What listeners show; the supervisor fills it in ([`crate::supervisor`]), for their keys are held elsewhere.
    pub identities: Vec<Identity>,
    /// Whom listeners and relays trust that name somebody; filled in likewise.
    pub authorities: Vec<Authority>,
    /// The system's authorities, in DER; filled in likewise, for the engine may not read them.
    pub roots: Vec<Vec<u8>>,
    /// `--root`.
    pub root: Option<PathBuf>,
    /// State directory, absolute.
    pub state: PathBuf,
    /// Log warnings alone.
    pub quiet: bool,
    /// What was added to every port.
    pub port_offset: u16,
    default_state: bool,
}

/// The configuration's text, or the lack of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Text {
    Quickstart { listen: Vec<SocketAddr>, page: Option<SocketAddr> },
    Files(Reading),
}

impl Plan {
    /// Reads all that the wish names.
    ///
    /// # Errors
    /// A file that is not there or cannot be read; a configuration with errors, which the text reports.
    pub fn read(wish: &Wish) -> Result<Self, Failure> {
        let (mut tables, mut sources, mut store) = (Vec::new(), Vec::new(), None);
        let text = match &wish.options.config {
            Some(path) => {
                let (reading, config) = Reading::read(path, &wish.seams, &wish.options.define)?;
                let declared = tables::declare(&config, wish.seams.root.as_deref());
                tables = declared.map_err(|wrong| broken(wrong.join("\n")))?;
                sources = sources_of(&config, &mut tables);
                store = Some(config.store.path);
                Text::Files(reading)
            }
            None => quickstart(&wish.options, wish.seams.port_offset),
        };
        let zone = wish.seams.dns.as_ref().map(|path| read_zone(path)).transpose()?;
        let state = match (&wish.state, store) {
            (None, Some(store)) => store,
            (state, _) => cli::state_dir(&wish.seams, state.clone()),
        };
        let default_state = state == Path::new(cli::STATE_DEFAULT);
        let state = std::path::absolute(state)?;
        let Options { quiet, .. } = wish.options;
        let Seams { root, port_offset, .. } = wish.seams.clone();
        let (identities, authorities) = (Vec::new(), Vec::new());
        Ok(Self {
            text,
            zone,
            tables,
            sources,
            identities,
            authorities,
            roots: Vec::new(),
            root,
            state,
            quiet,
            port_offset,
            default_state,
        })
    }

    /// The configuration and its warnings.
    ///
    /// # Errors
    /// The report of its errors.
    pub fn config(&self) -> Result<(Config, Vec<String>), String> {
        match &self.text {
            Text::Quickstart { listen, page } => {
                let quickstart = Quickstart { listen: listen.clone(), page: *page };
                Ok((Config::quickstart(&self.state, &quickstart), Vec::new()))
            }
            Text::Files(reading) => reading.config(),
        }
    }

    /// The same plan with text files of tables read again: the named table's, or all that are not `manual`. With it the
    /// tables whose entries have changed, or the named one.
    ///
    /// # Errors
    /// There is no such table, or its file cannot be read.
    pub fn with_tables_read_again(&self, config: &Config, name: Option<&str>) -> Result<(Self, Vec<String>), String> {
        let mut plan = self.clone();
        let Text::Files(reading) = &mut plan.text else {
            return Err("there is no configuration, and so there are no tables".into());
        };
        let wanted = |table: &&ringpost_conf::Table| match name {
            Some(name) => table.name == name,
            None => !table.options.manual && !table.services.is_empty(),
        };
        let mut changed = Vec::new();
        for table in config.tables.iter().filter(wanted) {
            if let ringpost_conf::Backend::File { path } = &table.backend
                && (reading.read_again(path)? || name.is_some())
            {
                changed.push(table.name.clone());
            }
        }
        match (name, changed.is_empty()) {
            (Some(name), true) => Err(format!("there is no table <{name}> that is read from a file or looked up")),
            _ => Ok((plan, changed)),
        }
    }

    /// Names from a file instead of the network.
    ///
    /// # Errors
    /// Says which line is wrong.
    pub fn zone(&self) -> Result<Option<Zone>, String> {
        let Some((path, text)) = &self.zone else { return Ok(None) };
        Zone::parse(text).map(Some).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Whether there is no configuration.
    pub fn is_quickstart(&self) -> bool {
        matches!(self.text, Text::Quickstart { .. })
    }

    /// Whether the state directory is the one that commands look for by themselves.
    pub fn is_default_state(&self) -> bool {
        self.default_state
    }
}

/// The tables that a `pki` is in; those that nobody else asks leave the others.
fn sources_of(config: &Config, tables: &mut Vec<Declared>) -> Vec<Declared> {
    let asked = config.pkis.iter().filter_map(|pki| match &pki.source {
        PkiSource::Table(table) => Some(config.table_name(*table)),
        _ => None,
    });
    let asked: Vec<&str> = asked.collect();
    let sources = tables.iter().filter(|table| asked.contains(&table.name.as_str())).cloned().collect();
    let is_asked_for_more = |name: &str| {
        let logs_in = config.listeners.iter().filter_map(|listener| match &listener.auth.certificate {
            Some(CertificateAuth::Table(Keyed::Remote(table))) => Some(config.table_name(*table)),
            _ => None,
        });
        let services = config.tables.iter().find(|table| table.name == name).map_or(0, |table| table.services.len());
        services > 1 || logs_in.into_iter().any(|other| other == name)
    };
    tables.retain(|table| !asked.contains(&table.name.as_str()) || is_asked_for_more(&table.name));
    sources
}

/// A configuration that cannot be used.
pub fn broken(report: String) -> Failure {
    Failure::new(Code::Configuration, format!("the configuration has errors\n\n{report}"))
}

fn quickstart(options: &Options, port_offset: u16) -> Text {
    let moved = |address: SocketAddr| SocketAddr::new(address.ip(), address.port().saturating_add(port_offset));
    let usual = Quickstart::default();
    let listen = if options.listen.is_empty() { usual.listen } else { options.listen.clone() };
    let page = match options.page {
        None => usual.page,
        Some(Page::Off) => None,
        Some(Page::At(address)) => Some(address),
    };
    Text::Quickstart { listen: listen.into_iter().map(moved).collect(), page: page.map(moved) }
}

fn read_zone(path: &Path) -> Result<(PathBuf, String), Failure> {
    let named = |error: &dyn std::fmt::Display| format!("zone file {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| Failure::new(Code::NoInput, named(&error)))?;
    Zone::parse(&text).map_err(|error| Failure::new(Code::Configuration, named(&error)))?;
    Ok((path.to_owned(), text))
}

/// How many shards a configuration means on a machine with so many processors for us.
pub fn shards(config: &Config, cpus: usize) -> usize {
    match config.shards.count {
        Some(count) => usize::from(count).max(1),
        None if !config.shards.cores.is_empty() => config.shards.cores.len(),
        // From four on, the coordinator has one for itself.
        None if cpus >= 4 => cpus - 1,
        None => cpus.max(1),
    }
}

/// How many threads of the engine take handshakes, on a machine with so many processors for us, while there is no mail; there
/// are as many others for while there is.
pub fn signers(cpus: usize) -> usize {
    (cpus / CORES_PER_SIGNER).max(1)
}

/// How many lanes those threads of both kinds have to the keyholder.
pub fn signing_lanes(cpus: usize) -> usize {
    2 * signers(cpus)
}

/// How many threads of the engine check passwords, on a machine with so many processors for us.
pub fn checkers(cpus: usize) -> usize {
    (cpus / CORES_PER_CHECKER).max(1)
}

/// The addresses to listen on, each with the number of its listener.
///
/// # Errors
/// A name that is neither an interface nor a host.
pub fn smtp_addresses(config: &Config) -> Result<Vec<(u16, SocketAddr)>, Failure> {
    let mut all: Vec<(u16, SocketAddr)> = Vec::new();
    for (number, listener) in config.listeners.iter().enumerate() {
        let addresses =
            places(listener).map_err(|why| Failure::new(Code::Unavailable, format!("{}: {why}", listener.line)))?;
        for address in addresses.into_iter().filter(|address| wanted(listener.family, address)) {
            let address = SocketAddr::new(address, listener.port);
            if !all.iter().any(|each| each.1 == address) {
                all.push((number as u16, address));
            }
        }
    }
    Ok(all)
}

/// Listeners that have no address now, a line each: their interface does not exist yet, or nobody has given it one.
pub fn unplaced(config: &Config) -> Vec<String> {
    let empty = config.listeners.iter().filter(|one| {
        matches!(one.place, Where::Name(_) | Where::Egress) && places(one).is_ok_and(|places| places.is_empty())
    });
    empty
        .map(|listener| {
            format!(
                "{}: `{}` has no address: nobody listens there until the next start",
                listener.line,
                named(listener)
            )
        })
        .collect()
}

fn named(listener: &Listener) -> String {
    match &listener.place {
        Where::Socket => "socket".to_owned(),
        Where::All => "all".to_owned(),
        Where::Egress => "egress".to_owned(),
        Where::Address(address) => address.to_string(),
        Where::Name(name) => name.clone(),
    }
}

fn wanted(family: Family, address: &IpAddr) -> bool {
    match family {
        Family::Both => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    }
}

fn places(listener: &Listener) -> Result<Vec<IpAddr>, String> {
    match &listener.place {
        // It has a path: `Config::local_listener`.
        Where::Socket => Ok(Vec::new()),
        Where::All => Ok(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]),
        Where::Address(address) => Ok(vec![*address]),
        Where::Egress => interfaces::egress().map_err(|error| format!("cannot list the addresses of egress: {error}")),
        // The loopback interface is called so on the systems that the language comes from.
        Where::Name(name) if name == "lo0" => Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
        Where::Name(name) => match interfaces::of(name).map_err(|error| format!("{name}: {error}"))? {
            Some(addresses) => Ok(addresses),
            None => match (name.as_str(), 0).to_socket_addrs() {
                Ok(found) => Ok(found.map(|address| address.ip()).collect()),
                // It may come yet (W0813).
                Err(_) if !name.contains('.') => Ok(Vec::new()),
                Err(error) => Err(format!("'{name}' is neither an interface nor a host name: {error}")),
            },
        },
    }
}

/// The addresses of the page.
pub fn page_addresses(config: &Config) -> Vec<SocketAddr> {
    config.http.iter().map(|http| http.listen).collect()
}

/// Where mail goes, a line each, for people.
pub fn destinations(plan: &Plan, config: &Config) -> Vec<String> {
    if plan.is_quickstart() {
        return vec![format!(
            "anyone@anywhere  →  {}/Maildir/           (catch-all)",
            crate::supervisor::near(&plan.state)
        )];
    }
    let lines = config.actions.iter();
    lines.map(|action| format!("action \"{}\": {}", action.name, action.describe())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(arguments: &[&str]) -> Wish {
        use clap::Parser;
        let line = ["ringpost", "serve"].iter().chain(arguments);
        let cli = crate::cli::Cli::parse_from(line);
        let Some(crate::cli::Command::Serve(options)) = cli.command else { panic!() };
        Wish { options, seams: cli.seams, state: cli.state }
    }

    #[test]
    fn quickstart_listens_on_loopback_alone_and_moves_as_told() {
        let plan = Plan::read(&wish(&["--port-offset", "20000", "--page", "off"])).unwrap();
        let (config, warnings) = plan.config().unwrap();
        assert!(warnings.is_empty() && plan.is_quickstart() && plan.state.is_absolute());
        let addresses = smtp_addresses(&config).unwrap();
        assert_eq!(addresses.len(), 2);
        assert!(addresses.iter().all(|(_, address)| address.ip().is_loopback() && address.port() == 22525));
        assert!(page_addresses(&config).is_empty());
    }

    #[test]
    fn a_plan_survives_its_journey() {
        let dir = tempfile::tempdir().unwrap();
        let zone = dir.path().join("zone");
        std::fs::write(&zone, "a.test MX 10 b.test\n").unwrap();
        let plan = Plan::read(&wish(&["--dns", zone.to_str().unwrap(), "--listen", "127.0.0.1:1"])).unwrap();
        let travelled: Plan = crate::ipc::codec::from_memory(crate::ipc::codec::to_memory(&plan).unwrap()).unwrap();
        assert_eq!(travelled, plan);
        assert!(travelled.zone().unwrap().unwrap().get("a.test").is_some());
        std::fs::write(&zone, "a.test MX").unwrap();
        let refused = Plan::read(&wish(&["--dns", zone.to_str().unwrap()])).unwrap_err();
        assert!(refused.text.contains("line 1"), "{}", refused.text);
    }

    #[test]
    fn shards_leave_the_coordinator_a_processor_where_there_are_four() {
        let mut config = Config::quickstart(Path::new("/x"), &Quickstart::default());
        assert_eq!([0, 1, 2, 3, 4, 8].map(|cpus| shards(&config, cpus)), [1, 1, 2, 3, 3, 7]);
        config.shards.count = Some(5);
        assert_eq!(shards(&config, 2), 5);
        (config.shards.count, config.shards.cores) = (None, vec![1, 2]);
        assert_eq!(shards(&config, 8), 2);
    }
}
