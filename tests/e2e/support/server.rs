//! A Ringpost of its own for a test: state in a temporary directory, and free ports.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client::Client;
use super::wait::{wait_for, wait_until};
use super::{engine, ports};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ringpost");
/// A server that does not listen by then, in this build and on a busy machine, has failed.
const STARTS: Duration = Duration::from_secs(60);
/// Promised are 10 s to finish what is open.
const STOPS: Duration = Duration::from_secs(15);
/// Where the quickstart listens: SMTP, page.
const QUICKSTART_PORTS: [u16; 2] = [2525, 8025];
/// Lines of the log shown when a test fails.
const SHOWN_LINES: usize = 30;

/// What a server is made of.
pub struct Setup {
    /// None: quickstart.
    config: Option<String>,
    args: Vec<String>,
    dir: TempDir,
    state: Option<PathBuf>,
    moved: bool,
    locked_memory: Option<u32>,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// `rules` after two shards with small segments, the listeners, and no end to the messages of a connection.
    pub fn new(rules: impl AsRef<str>) -> Self {
        Self::whole(format!("{SMALL}{LISTENERS}smtp limit max-mails 1000000\n{}", rules.as_ref()))
    }

    /// Another configuration, when what it names has been put into the directory.
    pub fn config(self, config: impl Into<String>) -> Self {
        Self { config: Some(config.into()), ..self }
    }

    /// Everything comes from here to `address`.
    pub fn relay_to(address: SocketAddr) -> Self {
        Self::new(format!("action \"out\" relay host \"smtp://{address}\"\nmatch for any action \"out\"\n"))
    }

    /// Everything goes nowhere.
    pub fn discard() -> Self {
        Self::new("action \"none\" discard\nmatch for any action \"none\"\n")
    }

    /// The whole configuration; `@SMTP@`, `@HTTP@` and `@DIR@` are filled in.
    pub fn whole(config: impl Into<String>) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        Self {
            config: Some(config.into()),
            args: Vec::new(),
            dir,
            state: None,
            moved: false,
            locked_memory: None,
            environment: Vec::new(),
        }
    }

    /// No configuration: as on the first day, but for the ports.
    pub fn quickstart() -> Self {
        Self { config: None, moved: true, ..Self::whole("") }
    }

    /// Names come from `zone` and from nothing else, and all ports are moved: that of mail exchangers, which the returned
    /// number is then, too.
    pub fn zone(mut self, zone: &str) -> (Self, u16) {
        fs::write(self.dir().join("zone"), zone).expect("written");
        let offset = ports::offset_for(&[25, 443, 465, 2525, 8025]);
        self.args.extend(["--dns=zone".into(), format!("--port-offset={offset}")]);
        self.moved = true;
        (self, 25 + offset)
    }

    /// Fills in a port of the configuration that is known only now.
    pub fn with(mut self, name: &str, port: u16) -> Self {
        self.config = self.config.map(|config| config.replace(name, &port.to_string()));
        self
    }

    /// Absolute paths of the configuration are taken below `root` in the directory of the test.
    pub fn root(mut self) -> Self {
        self.args.push("--root=root".into());
        self
    }

    /// With this in its environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With so many KiB of locked memory.
    pub fn locked_memory(mut self, kib: u32) -> Self {
        self.locked_memory = Some(kib);
        self
    }

    /// State elsewhere than in the directory of the test.
    pub fn state(mut self, state: &Path) -> Self {
        self.state = Some(state.to_owned());
        self
    }

    /// The directory of the test, for what the configuration names.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it, and waits until it greets.
    pub fn start(self) -> Server {
        let mut server = self.prepare();
        server.start();
        server
    }

    /// Does everything but start it.
    pub fn prepare(self) -> Server {
        let Self { config, mut args, dir, state, moved, locked_memory, environment } = self;
        let default_state = if config.is_some() { "state" } else { "ringpost-data" };
        if config.is_none() {
            args.push(format!("--port-offset={}", ports::offset_for(&QUICKSTART_PORTS)));
        }
        let offset = args.iter().find_map(|arg| arg.strip_prefix("--port-offset=")?.parse::<u16>().ok()).unwrap_or(0);
        let (smtp, http) =
            if moved { (QUICKSTART_PORTS[0], QUICKSTART_PORTS[1]) } else { (ports::free(), ports::free()) };
        // The quickstart finds its own place, unless it is told.
        if config.is_some() || state.is_some() {
            args.push(format!("--state={}", state.as_deref().unwrap_or(Path::new(default_state)).display()));
        }
        if config.is_some() {
            args.push("--config=ringpost.conf".into());
        }
        let state = state.unwrap_or_else(|| dir.path().join(default_state));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, smtp + offset));
        let server = Server {
            smtp: address,
            http: http + offset,
            state,
            dir,
            args,
            offset,
            locked_memory,
            environment,
            child: None,
        };
        if let Some(config) = &config {
            server.configure(config);
        }
        server
    }
}

/// Two shards with small segments.
pub const SMALL: &str = "shards 2\nstore { segment 16M, spare 2 }\n";
/// The lines that every configuration has.
pub const LISTENERS: &str = "listen on 127.0.0.1 port @SMTP@\nhttp listen on 127.0.0.1 port @HTTP@\n";

/// A server, running or not.
pub struct Server {
    pub smtp: SocketAddr,
    pub http: u16,
    pub state: PathBuf,
    dir: TempDir,
    args: Vec<String>,
    offset: u16,
    locked_memory: Option<u32>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Server {
    /// The directory of the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Replaces the configuration file; a running server does not know yet.
    pub fn configure(&self, config: &str) {
        let text = config
            .replace("@SMTP@", &(self.smtp.port() - self.offset).to_string())
            .replace("@HTTP@", &(self.http - self.offset).to_string())
            .replace("@DIR@", &self.dir().display().to_string());
        fs::write(self.dir().join("ringpost.conf"), text).expect("the configuration is written");
    }

    /// Starts it again. Returns how long it took until it greeted.
    pub fn start(&mut self) -> Duration {
        assert!(self.child.is_none(), "it runs already");
        let mut command = match self.locked_memory {
            None => Command::new(PROGRAM),
            Some(kib) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -l {kib}; exec \"$0\" \"$@\""), PROGRAM]);
                shell
            }
        };
        command.arg("serve").args(&self.args).envs(self.environment.iter().cloned());
        command.current_dir(self.dir()).stdout(self.log()).stderr(self.log()).process_group(0);
        let began = Instant::now();
        self.child = Some(command.spawn().expect("the program starts"));
        wait_until("the server greets", STARTS, || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().expect("a child")) {
                panic!("the server ended with {status} instead of listening");
            }
            greets(self.smtp)
        });
        began.elapsed()
    }

    fn log(&self) -> File {
        let log = OpenOptions::new().create(true).append(true).open(self.dir().join("log"));
        log.expect("the log can be written")
    }

    /// Everything that it has printed so far.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir().join("log")).unwrap_or_default()).into_owned()
    }

    /// Process id of the supervisor.
    pub fn supervisor(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    /// Process id of the engine.
    pub fn engine(&self) -> Pid {
        wait_for("an engine", STARTS, || engine::child(self.supervisor(), "engine"))
    }

    /// Process id of the keyholder.
    pub fn keyholder(&self) -> Pid {
        wait_for("a keyholder", STARTS, || engine::child(self.supervisor(), "keyholder"))
    }

    /// Kills all its processes at once, as a power cut would. Returns when they are gone.
    pub fn kill9(&mut self) {
        let family = engine::family(self.supervisor());
        let mut child = self.child.take().expect("it runs");
        kill_all(&child, &family);
        child.wait().expect("a child");
        wait_until("all processes are gone", STOPS, || !family.iter().any(|(pid, _)| engine::lives(*pid)));
    }

    /// Sends the supervisor a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.supervisor(), signal).expect("it runs");
    }

    /// Waits for its end, and that of all its processes.
    pub fn wait(&mut self) -> ExitStatus {
        let family = engine::family(self.supervisor());
        let child = self.child.as_mut().expect("it runs");
        let status = wait_for("the server ends", STOPS, || child.try_wait().expect("a child"));
        self.child = None;
        wait_until("all processes are gone", STOPS, || !family.iter().any(|(pid, _)| engine::lives(*pid)));
        status
    }

    /// SIGTERM; it must exit 0.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "a stopped server exits 0");
    }

    /// A client that has said EHLO.
    pub fn client(&self) -> Client {
        Client::ready(self.smtp)
    }

    /// Body of the answer to `GET path`.
    pub fn get(&self, path: &str) -> String {
        self.get_as(path, "*/*")
    }

    /// The same, of the type that `accept` asks for.
    pub fn get_as(&self, path: &str, accept: &str) -> String {
        let address = format!("http://127.0.0.1:{}{path}", self.http);
        let output = Command::new("curl")
            .args(["-sS", "--fail", "--max-time", "10", "-H", &format!("Accept: {accept}"), &address])
            .output();
        let output = output.expect("curl runs");
        assert!(output.status.success(), "{address}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The counter `ringpost_NAME_total`, of all shards together. Figures may be as old as a fifth of a second.
    pub fn metric(&self, name: &str) -> u64 {
        let name = format!("ringpost_{name}_total");
        let metrics = self.get("/metrics");
        let samples =
            metrics.lines().filter_map(|line| line.strip_prefix(&name)).filter(|rest| rest.starts_with(['{', ' ']));
        let values: Vec<f64> =
            samples.map(|rest| rest.rsplit(' ').next().expect("a value").parse().expect("a number")).collect();
        assert!(!values.is_empty(), "no {name} in:\n{metrics}");
        values.iter().sum::<f64>() as u64
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let printed = self.printed();
            let lines: Vec<&str> = printed.lines().collect();
            let from = lines.len().saturating_sub(SHOWN_LINES);
            eprintln!("--- the server printed (last lines):\n{}\n---", lines[from..].join("\n"));
        }
        if let Some(child) = &mut self.child {
            kill_all(child, &engine::family(Pid::from_child(child)));
            // It may have been waited for already.
            let _ = child.wait();
        }
    }
}

/// The supervisor first, so that it starts nothing again.
fn kill_all(supervisor: &Child, family: &[(Pid, String)]) {
    let supervisor = Pid::from_child(supervisor);
    let children = family.iter().map(|(pid, _)| *pid).filter(|pid| *pid != supervisor);
    for pid in std::iter::once(supervisor).chain(children) {
        // It may have died by itself; a test that cares has noticed.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// True when somebody says 220 there.
pub fn greets(address: SocketAddr) -> bool {
    let Ok(mut client) = Client::try_connect(address) else { return false };
    matches!(client.try_reply(), Ok(reply) if reply.code == 220)
}
