//! The command line: one file per subcommand. Here: what all share, and how the others are told apart.

pub mod bench;
pub mod check;
mod client;
pub mod queue;
pub mod reload;
pub mod role;
pub mod serve;
pub mod sim;
pub mod stats;
pub mod stop;

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

const EXAMPLES: &str = "\
Examples:
  ringpost                            try it: loopback only, no configuration
  ringpost serve --config mail.conf";

/// As clap's own, with fewer empty lines: it has to fit 24.
const HELP: &str = "{about}\n{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Where tests and trials take hold: other files, other ports, other names than the machine's.
#[derive(Args, Clone, Debug, Default)]
pub struct Seams {
    /// Take absolute paths of the configuration below DIR
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Move every port of the configuration up by N
    #[arg(long, global = true, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub port_offset: u16,
    /// Look names up in this zone file and nowhere else
    #[arg(long, global = true, value_name = "FILE")]
    pub dns: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server in the foreground (what happens without a command)
    Serve(serve::Options),
    /// Read a configuration and report all that is wrong with it
    Check(check::Options),
    /// What waits in the queue, and why
    #[command(subcommand)]
    Queue(queue::Command),
    /// Counters, and the latency of each stage
    Stats(stats::Options),
    /// Have a running server read its configuration again
    Reload,
    /// Stop a running server: what is open is finished first
    Stop,
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
}

impl Default for Command {
    fn default() -> Self {
        Self::Serve(serve::Options::default())
    }
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
    fn help_fits_a_terminal() {
        let help = Cli::command().term_width(80).render_help().to_string();
        assert!(help.lines().count() <= 24, "{} lines:\n{help}", help.lines().count());
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        assert!(!help.contains("keyholder"));
    }
}
