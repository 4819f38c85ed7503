//! The command line: one file per subcommand. Here: what all share, and how the others are told apart.

pub mod bench;
pub mod check;
mod client;
pub mod convert;
pub mod explain;
pub mod format;
pub mod hash;
pub mod limit;
pub mod mailq;
pub mod makemap;
pub mod newaliases;
pub mod queue;
pub mod reload;
pub mod role;
pub mod sendmail;
pub mod serve;
pub mod show;
pub mod sim;
pub mod stats;
pub mod stop;
pub mod table;
pub mod tls_report;
pub mod why;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

/// A mail transfer agent for machines that move a lot of mail.
#[derive(Debug, Parser)]
#[command(name = "ringpost", version, max_term_width = 80, disable_help_subcommand = true, after_help = EXAMPLES, help_template = HELP)]
pub struct Cli {
    #[command(flatten)]
    pub seams: Seams,
    /// State directory: queue, mail, control socket
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

const EXAMPLES: &str = "Try: ringpost (loopback only), then: ringpost serve --config mail.conf";

/// As clap's own, with fewer empty lines: it has to fit 24.
const HELP: &str = "{about}\n{usage-heading} {usage}\n{all-args}{after-help}";

/// Where tests and trials take hold: other files, other ports, other names than the machine's.
#[derive(Args, Clone, Debug, Default)]
pub struct Seams {
    /// Take absolute paths of the configuration below DIR
    #[arg(long, global = true, value_name = "DIR", value_parser = absolute, hide_short_help = true)]
    pub root: Option<PathBuf>,
    /// Move every port of the configuration up by N
    #[arg(
        long,
        global = true,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        hide_short_help = true
    )]
    pub port_offset: u16,
    /// Look names up in this zone file and nowhere else
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub dns: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server in the foreground (what happens without a command)
    Serve(serve::Options),
    /// Read a configuration and report all that is wrong with it
    Check(check::Options),
    /// Print an old configuration in the words of today
    Convert(convert::Options),
    /// What would become of a recipient, and why
    Explain(explain::Options),
    /// What a format, `%{…}`, comes to
    #[command(hide = true)]
    Format(format::Options),
    /// What waits in the queue, and why
    #[command(subcommand)]
    Queue(queue::Command),
    /// What a message waits for, and what ends the waiting
    Why(why::Options),
    /// Where mail goes: hosts, relays, routes
    #[command(subcommand)]
    Show(show::Command),
    /// Limits of sites, changed while the server runs
    #[command(subcommand)]
    Limit(limit::Command),
    /// Look something up in a table, and see how tables fare
    #[command(subcommand)]
    Table(table::Command),
    /// The hash of a password, for tables of users
    #[command(hide = true)]
    Hash(hash::Options),
    /// Counters, and the latency of each stage
    Stats(stats::Options),
    /// What came of encryption today, by domains that have a policy about it (DANE, MTA-STS)
    #[command(hide = true)]
    TlsReport(tls_report::Options),
    /// Have a running server read its configuration again
    Reload,
    /// Send the message on standard input, as `sendmail` does
    #[command(hide = true)]
    Sendmail(sendmail::Options),
    /// The queue, as `queue list`
    #[command(hide = true)]
    Mailq(mailq::Options),
    /// Stop a running server: what is open is finished first
    Stop,
    /// Make a database of a text, for `db:` tables
    #[command(hide = true)]
    Makemap(makemap::Options),
    /// Make the database of the system's aliases
    #[command(hide = true)]
    Newaliases(newaliases::Options),
    /// Load tools, for any mail server
    #[command(subcommand)]
    Bench(bench::Tool),
    /// The engine in a simulated world that fails on purpose, judged
    Sim(sim::Options),
    #[command(hide = true)]
    Engine,
    #[command(hide = true)]
    Keyholder,
    #[command(hide = true)]
    Errand,
    #[command(hide = true)]
    Lookup,
    #[cfg(feature = "pam")]
    #[command(hide = true)]
    Logon,
    #[command(hide = true)]
    Pickup,
}

impl Default for Command {
    fn default() -> Self {
        Self::Serve(serve::Options::default())
    }
}

/// The command line; a program that is called by another name is the command of that name.
pub fn arguments() -> Vec<OsString> {
    let installed = std::env::var_os("RINGPOST_STATE").unwrap_or_else(|| ringpost_conf::limits::STORE_PATH.into());
    under_its_name(std::env::args_os().collect(), installed)
}

/// Names that are about a server mean the one that is installed, never one in the directory where the caller happens to
/// be: anybody may have made that.
fn under_its_name(mut arguments: Vec<OsString>, installed: OsString) -> Vec<OsString> {
    let name = arguments.first().and_then(|first| Path::new(first).file_name()).and_then(|name| name.to_str());
    let (command, is_of_server) = match name {
        Some("makemap") => ("makemap", false),
        Some("newaliases") => ("newaliases", false),
        Some("sendmail" | "send-mail") => ("sendmail", true),
        Some("mailq") => ("mailq", true),
        _ => return arguments,
    };
    arguments.insert(1, command.into());
    if is_of_server {
        arguments.splice(1..1, ["--state".into(), installed]);
    }
    arguments
}

/// Name of the state directory where nothing else is said, below the directory where the program was started.
pub const STATE_DEFAULT: &str = "ringpost-data";

/// The state directory of the server that a command means.
pub fn state_dir(seams: &Seams, state: Option<PathBuf>) -> PathBuf {
    state.unwrap_or_else(|| match &seams.root {
        Some(root) => below(root, Path::new(ringpost_conf::limits::STORE_PATH)),
        None => PathBuf::from(STATE_DEFAULT),
    })
}

/// `NAME=VALUE` of `-D`.
pub fn define(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a macro is set by `NAME=VALUE`")?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    match is_name && !value.contains('\n') {
        true => Ok((name.to_owned(), value.to_owned())),
        false => Err("a name has letters, digits, `_` and `-`, a value is one line".into()),
    }
}

/// Helpers that deliver mail work elsewhere than where the server was started.
fn absolute(path: &str) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| error.to_string())
}

/// An absolute path, taken below another root.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_means_serve_and_seams_go_anywhere() {
        let cli = Cli::parse_from(["ringpost"]);
        assert!(matches!(cli.command.unwrap_or_default(), Command::Serve(_)));
        let cli = Cli::parse_from(["ringpost", "queue", "list", "--root", "/t", "--port-offset", "20000", "--json"]);
        assert_eq!((cli.seams.port_offset, cli.state), (20000, None));
        assert_eq!(state_dir(&cli.seams, None), Path::new("/t/var/spool/ringpost"));
        assert_eq!(state_dir(&Seams::default(), None), Path::new("ringpost-data"));
        assert_eq!(state_dir(&cli.seams, Some("x".into())), Path::new("x"));
        assert!(Cli::try_parse_from(["ringpost", "serve", "--config", "a", "--listen", "127.0.0.1:1"]).is_err());
    }

    #[test]
    fn names_of_the_program_are_commands() {
        let as_written = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let under_its_name = |arguments| under_its_name(arguments, "/s".into());
        let called = under_its_name(as_written(&["/usr/sbin/makemap", "-t", "set", "f"]));
        assert_eq!(called, as_written(&["/usr/sbin/makemap", "makemap", "-t", "set", "f"]));
        assert!(matches!(Cli::parse_from(called).command, Some(Command::Makemap(_))));
        assert_eq!(under_its_name(as_written(&["ringpost", "stop"])), as_written(&["ringpost", "stop"]));
        let called = under_its_name(as_written(&["/usr/sbin/sendmail", "-t", "-oi", "-V", "-h", "x"]));
        let cli = Cli::parse_from(called);
        assert!(matches!(cli.command, Some(Command::Sendmail(_))), "what follows is not ours to read");
        assert_eq!(cli.state, Some("/s".into()));
        assert_eq!(under_its_name(as_written(&["mailq"])), as_written(&["mailq", "--state", "/s", "mailq"]));
    }

    #[test]
    fn help_fits_a_terminal() {
        let help = Cli::command().term_width(80).render_help().to_string();
        assert!(help.lines().count() <= 24, "{} lines:\n{help}", help.lines().count());
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        assert!(!help.contains("keyholder"));
    }
}
