//! Listening sockets: one per shard and address (SO_REUSEPORT), the page's, the local socket and the control socket. They outlive the
//! engine: while it is started again, clients wait in the kernel's queue.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringpost_conf::{Config, Control};
use ringpost_io::sys;

use crate::cli::role::ENGINE_NAME;
use crate::exit::{Code, Failure};
use crate::ipc::engine::Purpose;
use crate::limits::{BACKLOG, PORT_RELEASE};
use crate::owners::Owners;
use crate::passwords;
use crate::plan::{self, Plan};
use crate::supervisor::{control, control_path, local_path};

/// All sockets that listen.
#[derive(Debug)]
pub struct Sockets {
    smtp: Vec<Smtp>,
    pages: Vec<(SocketAddr, OwnedFd)>,
    /// Number of its listener, and the socket, which the shards share.
    local: Option<(u16, OwnedFd)>,
    shards: usize,
    control: UnixListener,
    /// Where and whose it is to be.
    control_said: (PathBuf, Control),
    /// Names of sockets that end with us.
    names: Vec<PathBuf>,
}

/// One address of one listener.
#[derive(Debug)]
struct Smtp {
    listener: u16,
    address: SocketAddr,
    /// By shard.
    sockets: Vec<OwnedFd>,
}

impl Sockets {
    /// Binds all of them, for a server whose processes are these owners'.
    ///
    /// # Errors
    /// Names the address, who has it, and how to choose another.
    pub fn bind(plan: &Plan, config: &Config, shards: usize, owners: &Owners) -> Result<Self, Failure> {
        let (mut smtp, mut unplaced) = (Vec::new(), plan::unplaced(config));
        for (listener, address) in plan::smtp_addresses(config)? {
            match patiently(address, || bind_group(address, shards)) {
                Ok(sockets) => smtp.push(Smtp { listener, address, sockets }),
                // A machine without IPv6, which nobody has asked for by name.
                Err(error) if plan.is_quickstart() && address.is_ipv6() && is_missing(&error) => {}
                // It may come yet, as an interface may (grammar §4.1).
                Err(error) if is_missing(&error) && !address.ip().is_unspecified() && !plan.is_quickstart() => {
                    let line = &config.listeners[usize::from(listener)].line;
                    unplaced.push(format!(
                        "{line}: {} is not here: nobody listens there until the next start",
                        address.ip()
                    ));
                }
                Err(error) => return Err(refused(address, &error, plan, "--listen")),
            }
        }
        if smtp.is_empty() && !unplaced.is_empty() {
            let lines: String = unplaced.iter().map(|line| format!("\n  {line}")).collect();
            return Err(Failure::new(Code::Configuration, format!("nothing to listen on{lines}")));
        }
        for line in unplaced {
            eprintln!("ringpost: {line}");
        }
        let mut pages = Vec::new();
        for address in plan::page_addresses(config) {
            let socket = patiently(address, || sys::listen_socket(address, BACKLOG, false));
            pages.push((address, socket.map_err(|error| refused(address, &error, plan, "--page"))?));
        }
        let path = local_path(&plan.state);
        let local = match config.local_listener() {
            Some(listener) => Some((listener as u16, bind_local(&path)?)),
            None => {
                remove_dead(&path).map_err(|error| socket_refused("local", &path, &error))?;
                None
            }
        };
        let mut names = match owners {
            // The engine's user may make files there. What it has started may outlive the server, and would be who listens to
            // administrators and to users who bring mail: so they stay, dead and root's.
            Owners::Apart { .. } => Vec::new(),
            Owners::Caller | Owners::Root { .. } => vec![path, control_path(&plan.state)],
        };
        let control = control::bind(plan, config, &mut names)?;
        let control_said = (control::place(plan, config), config.control.clone());
        Ok(Self { smtp, pages, local, shards, control, control_said, names })
    }

    /// Each with what it is for.
    pub fn all(&self) -> impl Iterator<Item = (Purpose, BorrowedFd<'_>)> {
        let smtp = self.smtp.iter().flat_map(|group| {
            let shards = group.sockets.iter().enumerate();
            shards.map(|(shard, socket)| {
                (Purpose::Smtp { listener: group.listener, shard: shard as u16 }, socket.as_fd())
            })
        });
        let pages = self.pages.iter().map(|(_, socket)| (Purpose::Page, socket.as_fd()));
        let local = self.local.iter().flat_map(|(listener, socket)| {
            (0..self.shards).map(|shard| (Purpose::Smtp { listener: *listener, shard: shard as u16 }, socket.as_fd()))
        });
        smtp.chain(local).chain(pages).chain([(Purpose::Control, self.control.as_fd())])
    }

    /// SMTP addresses.
    pub fn smtp_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.smtp.iter().map(|group| group.address)
    }

    /// Addresses of the page.
    pub fn page_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.pages.iter().map(|page| page.0)
    }

    /// Our copies of the listening sockets are closed; once the engine has closed its own, nobody listens.
    pub fn close(&mut self) {
        for group in &mut self.smtp {
            group.sockets.clear();
        }
        self.pages.clear();
        self.local = None;
    }

    /// Removes the names of local sockets.
    pub fn remove_names(&self) {
        for name in &self.names {
            // Somebody may have removed it.
            let _ = fs::remove_file(name);
        }
    }

    /// What of another configuration needs a restart, a line each.
    pub fn differences(&self, plan: &Plan, config: &Config) -> Vec<String> {
        let wanted = match plan::smtp_addresses(config) {
            Ok(wanted) => wanted,
            Err(failure) => return vec![failure.text],
        };
        let mut wanted: Vec<SocketAddr> = wanted.into_iter().map(|each| each.1).collect();
        let mut have: Vec<SocketAddr> = self.smtp_addresses().collect();
        if plan.is_quickstart() {
            wanted.retain(|address| have.contains(address));
        }
        wanted.sort();
        have.sort();
        let mut notes = Vec::new();
        if wanted != have {
            notes.push("the addresses to listen on change at the next start".to_owned());
        }
        if control::place(plan, config) != self.control_said.0 || config.control != self.control_said.1 {
            notes.push("the control socket changes at the next start".to_owned());
        }
        if !plan::page_addresses(config).into_iter().eq(self.page_addresses()) {
            notes.push("the page's address changes at the next start".to_owned());
        }
        notes
    }
}

/// A killed server's sockets are there until the kernel has taken its rings apart: in use, and by nobody. They are waited for.
fn patiently<T>(address: SocketAddr, bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + PORT_RELEASE;
    loop {
        match bind() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                // An engine that still has it was left by its supervisor, and is about to end.
                if sys::port_owner(address).is_some_and(|(_, name)| name != ENGINE_NAME) {
                    return Err(error);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// With SO_REUSEPORT a second server of the same user would share the port in silence: so the first bind is exclusive.
fn bind_group(address: SocketAddr, shards: usize) -> io::Result<Vec<OwnedFd>> {
    drop(sys::listen_socket(address, 1, false)?);
    (0..shards).map(|_| sys::listen_socket(address, BACKLOG, true)).collect()
}

/// The local socket is everybody's: the rules say what becomes of whom. Called with the directory's lock held: a socket that
/// is there is a dead server's.
fn bind_local(path: &Path) -> Result<OwnedFd, Failure> {
    let bound = put_in_place(path, |path| {
        let socket = sys::listen_unix_socket(path, BACKLOG)?;
        fs::set_permissions(path, Permissions::from_mode(0o666)).map(|()| socket)
    });
    bound.map_err(|error| socket_refused("local", path, &error))
}

/// Has something made under a new name, and gives it the one that is meant. What a dead server has left there goes, or,
/// where the engine's user may make files, somebody of that user's; and at no moment is the name free for somebody faster.
pub(super) fn put_in_place<T>(path: &Path, make: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    refuse_directory(path)?;
    let number = passwords::nonce().ok_or_else(|| io::Error::other("the system has no randomness"))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{:08x}", u32::from_be_bytes(number)));
    let made = make(Path::new(&beside)).and_then(|made| fs::rename(&beside, path).map(|()| made));
    if made.is_err() {
        // It may not have been made.
        let _ = fs::remove_file(&beside);
    }
    made
}

/// A directory, which no server makes, is for a person to look into.
fn refuse_directory(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => {
            let why = format!("there is a directory of that name, which belongs to user {}", about.uid());
            Err(io::Error::new(ErrorKind::IsADirectory, why))
        }
        _ => Ok(()),
    }
}

/// Removes what a server with such a socket has left.
fn remove_dead(path: &Path) -> io::Result<()> {
    refuse_directory(path)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Why there cannot be this socket.
pub(super) fn socket_refused(which: &str, path: &Path, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        // sun_path has 108 bytes; unix(7).
        ErrorKind::InvalidInput => {
            "\n  its path is too long for a socket (108 bytes): choose a shorter --state DIR".to_owned()
        }
        ErrorKind::IsADirectory => format!(
            "\n  no server makes one: end what that user still runs, remove it with `rm -r {}`, and start again",
            path.display()
        ),
        _ => String::new(),
    };
    Failure::new(Code::CannotCreate, format!("cannot make the {which} socket {}: {error}{remedy}", path.display()))
}

fn is_missing(error: &io::Error) -> bool {
    let missing = [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL];
    missing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn refused(address: SocketAddr, error: &io::Error, plan: &Plan, option: &str) -> Failure {
    let next = address.port().saturating_sub(plan.port_offset).wrapping_add(1).max(1025);
    let next = SocketAddr::new(address.ip(), next);
    let another = if plan.is_quickstart() {
        format!("choose another port with `{option} {next}`")
    } else {
        "choose another port in the configuration".to_owned()
    };
    match error.kind() {
        ErrorKind::AddrInUse => {
            let (who, stop) = match sys::port_owner(address) {
                Some((pid, name)) if name == "ringpost" => {
                    (format!("another ringpost (pid {pid})"), "stop that one with `ringpost stop --state ITS_DIR`, or ")
                }
                Some((pid, name)) => (format!("{name} (pid {pid})"), "stop that, or "),
                None => ("another process".to_owned(), ""),
            };
            let text = format!("cannot listen on {address}: address in use by {who}\n  {stop}{another}");
            Failure::new(Code::Unavailable, text)
        }
        ErrorKind::PermissionDenied => {
            let text = format!(
                "cannot listen on {address}: ports below 1024 need root or CAP_NET_BIND_SERVICE\n  start it as root, or \
                 {another}"
            );
            Failure::new(Code::NotPermitted, text)
        }
        _ => Failure::new(Code::Unavailable, format!("cannot listen on {address}: {error}\n  {another}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_group_has_a_socket_per_shard_and_admits_no_second_group() {
        let probe = sys::listen_socket("127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
        let address = sys::local_address(&probe).unwrap();
        drop(probe);
        let group = bind_group(address, 3).unwrap();
        assert_eq!(group.len(), 3);
        assert_eq!(bind_group(address, 3).unwrap_err().kind(), ErrorKind::AddrInUse);
    }

    /// Where others may make files, one of them waits for the name.
    #[test]
    fn the_name_of_a_socket_is_never_free_once_there_was_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("smtp.sock");
        drop(bind_local(&path).unwrap());
        let over = AtomicBool::new(false);
        thread::scope(|threads| {
            let waits = threads.spawn(|| {
                let took = || fs::create_dir(&path).is_ok() || symlink("elsewhere", &path).is_ok();
                while !over.load(Ordering::Relaxed) {
                    assert!(!took(), "somebody was faster");
                }
            });
            let bound = (0..2000).all(|_| bind_local(&path).is_ok());
            over.store(true, Ordering::Relaxed);
            assert!(waits.join().is_ok() && bound);
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_dead_servers_local_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("smtp.sock");
        drop(bind_local(&path).unwrap());
        assert!(path.exists());
        bind_local(&path).unwrap();
        // What else somebody may have put there goes, and what a link leads to stays.
        let outside = dir.path().join("outside");
        fs::write(&outside, "private").unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&outside, &path).unwrap();
        bind_local(&path).unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"private");
        fs::remove_file(&path).unwrap();
        fs::create_dir_all(path.join("inner")).unwrap();
        let said = bind_local(&path).unwrap_err().text;
        assert!(said.contains("a directory of that name") && said.contains("rm -r"), "{said}");
        let long = dir.path().join("x".repeat(120));
        assert!(bind_local(&long).unwrap_err().text.contains("too long"));
    }
}
