//! A configuration as it was read: every file and directory that it named, and which files are there besides, so that the
//! engine, which opens no files, makes the same `Config` of it as the supervisor that checked it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ringpost_conf::{Config, Exists, FileSystem, HelperOption, Look, NotYet, Options, Registered, Reports, Source};
use serde::{Deserialize, Serialize};

use crate::cli::Seams;
use crate::coordinator::tables;
use crate::exit::{Code, Failure};
use crate::supervisor::interfaces;

/// All that loading needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    path: PathBuf,
    files: BTreeMap<PathBuf, Vec<u8>>,
    names: BTreeMap<PathBuf, Vec<String>>,
    found: BTreeMap<PathBuf, Found>,
    helpers: Vec<Helper>,
    defines: Vec<(String, String)>,
    root: Option<PathBuf>,
    port_offset: u16,
    server_name: Option<String>,
    addresses: Vec<IpAddr>,
    interfaces: Option<Vec<String>>,
}

/// What a table's helper says of itself, if it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Helper {
    program: PathBuf,
    argument: Option<PathBuf>,
    said: Option<HelperSaid>,
}

/// [`Registered`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HelperSaid {
    services: Vec<String>,
    /// The keys of its file, and which of them must be there.
    options: Vec<(String, bool)>,
}

impl Helper {
    fn known(all: &[Self], program: &Path, argument: Option<&Path>) -> Option<Option<Registered>> {
        let found = all.iter().find(|one| one.program == program && one.argument.as_deref() == argument);
        let option = |(key, required): &(String, bool)| HelperOption { key: key.clone(), required: *required };
        found.map(|one| {
            let HelperSaid { services, options } = one.said.as_ref()?;
            Some(Registered { services: services.clone(), options: options.iter().map(option).collect() })
        })
    }

    fn new(program: &Path, argument: Option<&Path>, said: Option<&Registered>) -> Self {
        let option = |option: &HelperOption| (option.key.clone(), option.required);
        let said = said.map(|Registered { services, options }| HelperSaid {
            services: services.clone(),
            options: options.iter().map(option).collect(),
        });
        Self { program: program.to_owned(), argument: argument.map(Path::to_owned), said }
    }
}

/// What was at a path ([`Exists`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Found {
    Nothing,
    File { mode: u32, modified: Option<u64> },
    Directory,
}

impl Reading {
    /// Reads a configuration and all that it names; with what it says.
    ///
    /// # Errors
    /// The report of all its errors, code 78.
    pub fn read(path: &Path, seams: &Seams, defines: &[(String, String)]) -> Result<(Self, Config), Failure> {
        let (reading, loaded) = Self::load_from_disk(path, seams, defines);
        match loaded {
            Ok((config, _)) => match not_yet(&config) {
                Some(list) => Err(Failure::new(Code::Configuration, list)),
                None => Ok((reading, config)),
            },
            Err(reports) => Err(Failure::new(Code::Configuration, summary(&reports, path))),
        }
    }

    /// The same, with the configuration and its warnings, or all reports.
    pub fn load_from_disk(
        path: &Path,
        seams: &Seams,
        defines: &[(String, String)],
    ) -> (Self, Result<(Config, Reports), Reports>) {
        let mut reading = Self::nothing(path, seams, defines);
        let recorder = Recorder::default();
        let loaded = ringpost_conf::load(&recorder, path, &reading.options());
        reading.files = recorder.files.into_inner();
        reading.names = recorder.names.into_inner();
        reading.found = recorder.found.into_inner();
        reading.helpers = recorder.helpers.into_inner();
        (reading, loaded)
    }

    /// The configuration with its warnings and its canonical form ([`ringpost_conf::load_canonical`]), or all reports.
    pub fn canonical_from_disk(
        path: &Path,
        seams: &Seams,
        defines: &[(String, String)],
        defaults: bool,
    ) -> Result<(Config, Reports, String), Reports> {
        let options = Self::nothing(path, seams, defines).options();
        ringpost_conf::load_canonical(&Recorder::default(), path, &options, defaults)
    }

    /// Nothing read yet.
    fn nothing(path: &Path, seams: &Seams, defines: &[(String, String)]) -> Self {
        Self {
            path: path.to_owned(),
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            found: BTreeMap::new(),
            helpers: Vec::new(),
            defines: defines.to_vec(),
            root: seams.root.clone(),
            port_offset: seams.port_offset,
            server_name: host_name(),
            addresses: own_addresses(),
            interfaces: FileSystem.names(Path::new("/sys/class/net")).ok(),
        }
    }

    /// The configuration and its warnings.
    ///
    /// # Errors
    /// The report of its errors, or what it asks for and this version cannot do.
    pub fn config(&self) -> Result<(Config, Vec<String>), String> {
        let (config, warnings) =
            ringpost_conf::load(self, &self.path, &self.options()).map_err(|reports| reports.render(Look::Plain))?;
        if let Some(list) = not_yet(&config) {
            return Err(list);
        }
        let warnings = if warnings.is_empty() { Vec::new() } else { vec![warnings.render(Look::Plain)] };
        Ok((config, warnings))
    }

    /// Reads one of its files again; whether that has changed.
    ///
    /// # Errors
    /// It cannot be read, and what was read before stays.
    pub fn read_again(&mut self, path: &Path) -> Result<bool, String> {
        let bytes = FileSystem
            .read(path, ringpost_conf::limits::DATA_FILE_BYTES_MAX)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let old = self.files.insert(path.to_owned(), bytes);
        Ok(old.as_ref() != self.files.get(path))
    }

    fn options(&self) -> Options {
        Options {
            root: self.root.clone(),
            port_offset: self.port_offset,
            defines: self.defines.clone(),
            server_name: self.server_name.clone(),
            addresses: self.addresses.clone(),
            interfaces: self.interfaces.clone(),
        }
    }
}

/// The host's name as far as it is a name of its own.
fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    (!name.is_empty() && name != "(none)").then_some(name)
}

/// Addresses of this machine; without an answer only the loopback ones count as local.
fn own_addresses() -> Vec<IpAddr> {
    interfaces::all().unwrap_or_default().into_iter().map(|(_, address)| address).collect()
}

/// How reports look on standard error.
pub fn look() -> Look {
    let plain = std::env::var_os("NO_COLOR").is_some() || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if io::stderr().is_terminal() && !plain { Look::Coloured } else { Look::Plain }
}

/// What a configuration asks for and this version cannot do, a line each. A server does not start with it: what it would
/// leave out may be what keeps strangers away.
fn not_yet(config: &Config) -> Option<String> {
    if config.not_yet.is_empty() {
        return None;
    }
    let mut text = "the configuration asks for what this version cannot do yet:\n".to_owned();
    for NotYet { line, what, instead } in &config.not_yet {
        text.push_str(&format!("\n  {line}: {what}\n    {instead}"));
    }
    Some(text)
}

fn summary(reports: &Reports, path: &Path) -> String {
    let (errors, _) = reports.counts();
    let errors = if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
    format!(
        "the configuration has {errors}\n\n{}\n  check again with `ringpost check {}`",
        reports.render(look()),
        path.display()
    )
}

/// Reads from the disk and remembers what it gave.
#[derive(Default)]
struct Recorder {
    files: RefCell<BTreeMap<PathBuf, Vec<u8>>>,
    names: RefCell<BTreeMap<PathBuf, Vec<String>>>,
    found: RefCell<BTreeMap<PathBuf, Found>>,
    helpers: RefCell<Vec<Helper>>,
}

impl Source for Recorder {
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let bytes = FileSystem.read(path, bytes_max)?;
        self.files.borrow_mut().insert(path.to_owned(), bytes.clone());
        Ok(bytes)
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        let names = FileSystem.names(directory)?;
        self.names.borrow_mut().insert(directory.to_owned(), names.clone());
        Ok(names)
    }

    fn exists(&self, path: &Path) -> Exists {
        let exists = FileSystem.exists(path);
        let found = match exists {
            Exists::No => Found::Nothing,
            Exists::File { mode, modified } => Found::File { mode, modified },
            Exists::Directory => Found::Directory,
        };
        self.found.borrow_mut().insert(path.to_owned(), found);
        exists
    }

    fn registered(&self, program: &Path, argument: Option<&Path>) -> Option<Registered> {
        if let Some(known) = Helper::known(&self.helpers.borrow(), program, argument) {
            return known;
        }
        let said = tables::direct::registered(program, argument);
        self.helpers.borrow_mut().push(Helper::new(program, argument, said.as_ref()));
        said
    }
}

impl Source for Reading {
    fn read(&self, path: &Path, _bytes_max: u64) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.names.get(directory).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn exists(&self, path: &Path) -> Exists {
        match self.found.get(path) {
            None | Some(Found::Nothing) => Exists::No,
            Some(Found::File { mode, modified }) => Exists::File { mode: *mode, modified: *modified },
            Some(Found::Directory) => Exists::Directory,
        }
    }

    fn registered(&self, program: &Path, argument: Option<&Path>) -> Option<Registered> {
        Helper::known(&self.helpers, program, argument).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_a_configuration_names_travels_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("ringpost.conf", "include \"more/*.conf\"\ntable d file:domains\naction $name discard\n");
        put("more/1.conf", "match from any for domain <d> action a\n");
        put("domains", "example.org\n");
        let defines = [("name".to_owned(), "a".to_owned())];
        let path = dir.path().join("ringpost.conf");
        let (read, _) =
            Reading::read(&path, &Seams::default(), &defines).unwrap_or_else(|failure| panic!("{}", failure.text));
        let travelled: Reading = crate::ipc::codec::from_memory(crate::ipc::codec::to_memory(&read).unwrap()).unwrap();
        assert_eq!(travelled, read);
        // Where it arrives there are no files.
        dir.close().unwrap();
        let (config, warnings) = travelled.config().unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let facts = ringpost_conf::Facts { recipient: "x@example.org", ..Default::default() };
        assert_eq!(config.decide(&facts), ringpost_conf::Decision::Action(0));
    }

    #[test]
    fn keys_do_not_travel_and_what_cannot_be_done_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        put("key.pem", "SECRET");
        put("cert.pem", "PUBLIC");
        let key = dir.path().join("key.pem");
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        put(
            "c",
            "pki x cert cert.pem key key.pem\nqueue compression\nlisten on lo0 tls-require pki x\naction a discard\nmatch for any action a\n",
        );
        let (reading, loaded) = Reading::load_from_disk(&dir.path().join("c"), &Seams::default(), &[]);
        assert!(loaded.is_ok());
        assert!(!reading.files.values().any(|text| text.starts_with(b"SECRET")));
        let refused = reading.config().unwrap_err();
        assert!(refused.contains("c:2: queue compression"), "{refused}");
    }
}
