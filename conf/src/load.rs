//! Reading files, and the order of the work: texts, tokens, statements, checks, a [`Config`]. The only file here that does I/O.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use ringpost_address::is_domain_name;

use crate::canonical;
use crate::check;
use crate::limits::{DATA_FILE_BYTES_MAX, FILE_BYTES_MAX};
use crate::model::{Config, Names};
use crate::old_style;
use crate::parse::Parser;
use crate::parse::ast::Ast;
use crate::profile;
use crate::report::{Report, Reports, Severity};
use crate::source_text::{SourceTexts, Span, narrow};

/// Where texts come from: the file system, or memory in tests and in the simulator.
pub trait Source {
    /// The whole of a file; an error if it is longer than `bytes_max`.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>>;
    /// Names in a directory, in any order.
    fn names(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Whether a file is there, without its contents: private keys are never read here.
    fn exists(&self, path: &Path) -> Exists;
    /// What a table's helper registers when it is started. `None`: it is not asked here, or does not say.
    fn registered(&self, _program: &Path, _argument: Option<&Path>) -> Option<Registered> {
        None
    }
}

/// What a table's helper says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// The services that it answers for.
    pub services: Vec<String>,
    /// The keys of its configuration file. None: it does not say, and what is in the file is its own affair.
    pub options: Vec<HelperOption>,
}

/// A key of a helper's configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelperOption {
    /// The key.
    pub key: String,
    /// Whether it must be there.
    pub required: bool,
}

/// What is at a path; links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exists {
    /// Nothing, or nothing that may be looked at.
    No,
    /// A file, or something else that is no directory.
    File {
        /// Bits of its mode, as `chmod` counts them.
        mode: u32,
        /// When it was changed, in seconds since 1970, if that is known.
        modified: Option<u64>,
    },
    /// A directory.
    Directory,
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSystem;

impl Source for FileSystem {
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = std::fs::File::open(path)?;
        let mut bytes = Vec::new();
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
        bounded(bytes, bytes_max)
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn exists(&self, path: &Path) -> Exists {
        use std::os::unix::fs::MetadataExt as _;
        match std::fs::metadata(path) {
            Err(_) => Exists::No,
            Ok(found) if found.is_dir() => Exists::Directory,
            Ok(found) => Exists::File { mode: found.mode() & 0o7777, modified: u64::try_from(found.mtime()).ok() },
        }
    }
}

/// Texts in memory, by path.
#[derive(Clone, Debug, Default)]
pub struct Memory(BTreeMap<PathBuf, Vec<u8>>);

impl Memory {
    /// Puts a file there.
    pub fn with(mut self, path: impl Into<PathBuf>, text: impl Into<Vec<u8>>) -> Self {
        self.0.insert(path.into(), text.into());
        self
    }
}

impl Source for Memory {
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let bytes = self.0.get(path).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))?;
        bounded(bytes.clone(), bytes_max)
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        let inside = self.0.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn exists(&self, path: &Path) -> Exists {
        match self.0.get(path) {
            Some(_) => Exists::File { mode: 0o600, modified: None },
            None if self.0.keys().any(|file| file.starts_with(path)) => Exists::Directory,
            None => Exists::No,
        }
    }
}

fn bounded(bytes: Vec<u8>, bytes_max: u64) -> io::Result<Vec<u8>> {
    if bytes.len() as u64 > bytes_max {
        let message = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// What the command line adds, and what only the system knows.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--root`: every absolute path of the configuration is taken below it.
    pub root: Option<PathBuf>,
    /// `--port-offset`: every port is moved up by it.
    pub port_offset: u16,
    /// `-D name=value`: wins over the file.
    pub defines: Vec<(String, String)>,
    /// The host's fully qualified name, for when there is no `mailname` file beside the configuration.
    pub server_name: Option<String>,
    /// The host's own addresses, beside the loopback ones: for `from local`, and address literals of `for local`.
    pub addresses: Vec<IpAddr>,
    /// Names of the host's interfaces; `None` if nobody knows, and then nothing is said about those that are missing.
    pub interfaces: Option<Vec<String>>,
}

impl Options {
    /// A path of the configuration: relative ones from `directory`, absolute ones below `--root`.
    pub(crate) fn place(&self, directory: &Path, path: &str) -> PathBuf {
        let path = Path::new(path);
        match &self.root {
            Some(root) if path.is_absolute() => {
                // `/../x` must not leave the root.
                let inside = path.components().filter(|c| matches!(c, Component::Normal(_)));
                inside.fold(root.clone(), |below, part| below.join(part))
            }
            _ if path.is_absolute() => path.to_path_buf(),
            _ => directory.join(path),
        }
    }
}

/// Reads a configuration with all its includes and tables. With an error nothing is loaded, and all errors are in the
/// [`Reports`]; otherwise these are the warnings.
pub fn load(source: &dyn Source, path: &Path, options: &Options) -> Result<(Config, Reports), Reports> {
    let (config, reports, _) = read(source, path, options)?;
    Ok((config, reports))
}

/// Reads a configuration, and prints it in its canonical form; with `defaults`, also what it leaves open. The warnings come with
/// it.
pub fn load_canonical(
    source: &dyn Source,
    path: &Path,
    options: &Options,
    defaults: bool,
) -> Result<(Config, Reports, String), Reports> {
    let (config, reports, Layers { file, profile }) = read(source, path, options)?;
    let mut below = Vec::new();
    if defaults {
        let built_in = built_in();
        let origin = format!("profile {}", config.profile.unwrap_or_default());
        below.extend(canonical::not_said(&profile, &[&file]).into_iter().map(|said| (said, origin.clone())));
        let rest = canonical::not_said(&built_in, &[&file, &profile]);
        below.extend(rest.into_iter().map(|said| (said, "built in".to_owned())));
    }
    let text = canonical::print(&file, &below, reports.texts());
    Ok((config, reports, text))
}

/// Statements of the files, and of the profile that they name.
struct Layers {
    file: Ast,
    profile: Ast,
}

/// All built-in values as statements.
fn built_in() -> Ast {
    let (memory, options) = (Memory::default(), Options::default());
    let mut parser = Parser::new(&memory, &options);
    parser.read(Path::new("built in"), profile::BUILT_IN.into());
    debug_assert!(parser.reports.is_empty(), "the built-in values are wrong");
    parser.ast
}

/// E0701 about the configuration itself.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Reports {
    let mut texts = SourceTexts::default();
    let file = texts.add(path.display().to_string(), String::new());
    let message = format!("cannot read `{}`: {error}", path.display());
    Reports::new(vec![Report::new("E0701", Span { file, start: 0, end: 0 }, message)], texts)
}

fn read(source: &dyn Source, path: &Path, options: &Options) -> Result<(Config, Reports, Layers), Reports> {
    let mut parser = Parser::new(source, options);
    match source.read(path, FILE_BYTES_MAX) {
        Ok(bytes) => parser.read(path, bytes),
        Err(error) => return Err(unreadable(path, &error)),
    }
    if parser.ast.cut {
        return Err(Reports::new(parser.reports, parser.texts));
    }
    let names = names(source, path, options);
    let profile = parser.read_profile().seal();
    let Parser { texts, reports, mut ast, .. } = parser;
    let mut reading = check::Reading { source, options, names, texts, reports };
    let (texts, reports) = (&reading.texts, &mut reading.reports);
    old_style::finish(&mut ast, reports, |span| texts.place(span).line);
    let ast = ast.seal();
    let config = check::check(&ast, &profile, &mut reading);
    let check::Reading { texts, mut reports, .. } = reading;
    let mut failed = reports.iter().any(|r| r.severity() == Severity::Error);
    debug_assert!(failed || !ast.broken, "a statement was given up without a word");
    if ast.broken && !failed {
        // Whatever went wrong here, a server without that statement must not start.
        failed = true;
        reports.push(Report::new("E0201", texts.end_of(0), "unknown statement somewhere in this file"));
    }
    let reports = Reports::new(reports, texts);
    if failed { Err(reports) } else { Ok((config, reports, Layers { file: ast, profile })) }
}

/// The server name: the `mailname` file beside the configuration (grammar §4.1), else what the system says.
fn names(source: &dyn Source, path: &Path, options: &Options) -> Names {
    const MAILNAME_BYTES_MAX: u64 = 4096;
    let file = path.parent().unwrap_or(Path::new("")).join("mailname");
    let written = source.read(&file, MAILNAME_BYTES_MAX).ok().and_then(|bytes| {
        let text = String::from_utf8(bytes).ok()?;
        let name = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?.to_owned();
        is_domain_name(&name).then_some(name)
    });
    let server = written.or_else(|| options.server_name.clone()).unwrap_or_else(|| "localhost".to_owned());
    Names { server: server.to_lowercase(), addresses: options.addresses.clone() }
}

/// Keeps a text for reading and for excerpts. What is not UTF-8 is told once, and read on with a mark in its place.
pub(crate) fn add_text(texts: &mut SourceTexts, reports: &mut Vec<Report>, path: &Path, bytes: Vec<u8>) -> u32 {
    let (text, bad) = match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            (String::from_utf8_lossy(error.as_bytes()).into_owned(), Some(at))
        }
    };
    let file = texts.add(path.display().to_string(), text);
    if let Some(at) = bad {
        let span = Span { file, start: narrow(at), end: narrow(at + char::REPLACEMENT_CHARACTER.len_utf8()) };
        reports.push(Report::new("E0106", span, "not valid UTF-8"));
    }
    file
}

/// Reads the data file of a table.
pub(crate) fn read_data(
    source: &dyn Source,
    path: &Path,
    texts: &mut SourceTexts,
    reports: &mut Vec<Report>,
) -> io::Result<u32> {
    let bytes = source.read(path, DATA_FILE_BYTES_MAX)?;
    Ok(add_text(texts, reports, path, bytes))
}
