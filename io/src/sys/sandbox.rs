//! Which files and ports a process may still open (landlock), and which powers of root it keeps. For good: it holds for all
//! that this thread starts from then on, threads and programs, and for what it does through a ring.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// The newest kernel interface that is asked for; an older kernel gives what it has.
const NEWEST: ABI = ABI::V6;
/// Binding to port 0 lets the kernel choose one: that is what connections with a source address do.
const ANY_PORT: u16 = 0;

/// What of the system a process may still use.
#[derive(Clone, Debug, Default)]
pub struct Room {
    /// Files, and all below directories, that may be read. What is not there is left out.
    pub read: Vec<PathBuf>,
    /// Directories below which files may be made, changed and removed, too.
    pub write: Vec<PathBuf>,
    /// Directories whose names may be read, and what is below them: what making a file durable takes.
    pub list: Vec<PathBuf>,
    /// It may connect to other hosts. Nobody may listen on a port.
    pub connects: bool,
}

/// How much of it this kernel enforces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Degree {
    /// Everything.
    Full,
    /// Less, since the kernel is older.
    Partly,
    /// Nothing, and why.
    Not(String),
}

/// Confines this thread, and what it starts from now on, to `room`. No file may be run as a program.
pub fn confine(room: &Room) -> Degree {
    match restrict(room) {
        Ok(RulesetStatus::FullyEnforced) => Degree::Full,
        Ok(RulesetStatus::PartiallyEnforced) => Degree::Partly,
        Ok(RulesetStatus::NotEnforced) => Degree::Not("the kernel has no landlock".to_owned()),
        Err(error) => Degree::Not(error.to_string()),
    }
}

fn restrict(room: &Room) -> Result<RulesetStatus, landlock::RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(NEWEST))?;
    if !room.connects {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
    }
    let mut ruleset = ruleset.create()?;
    if room.connects {
        ruleset = ruleset.add_rule(NetPort::new(ANY_PORT, AccessNet::BindTcp))?;
    }
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let writing = AccessFs::from_all(NEWEST) & !BitFlags::from(AccessFs::Execute);
    for (paths, access) in [(&room.read, reading), (&room.write, writing), (&room.list, AccessFs::ReadDir.into())] {
        for path in paths {
            // What is not there cannot be opened anyway.
            let Ok(place) = PathFd::new(path) else { continue };
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
            ruleset = ruleset.add_rule(PathBeneath::new(place, access))?;
        }
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

impl Room {
    /// Whether a file may be read.
    pub fn reads(&self, path: &Path) -> bool {
        self.read.iter().chain(&self.write).any(|place| path.starts_with(place))
    }

    /// Whether files may be made below a directory.
    pub fn writes(&self, path: &Path) -> bool {
        self.write.iter().any(|place| path.starts_with(place))
    }
}

/// A power of root that a process without others keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// To use files whatever their mode says.
    Files,
    /// To lock memory for rings beyond the limit.
    LockedMemory,
}

/// Gives up all powers of root but these; a process that has none gives up none.
pub fn keep_powers(kept: &[Power]) -> io::Result<()> {
    let mut kept: CapabilitySet = kept.iter().fold(CapabilitySet::empty(), |all, power| {
        all | match power {
            Power::Files => CapabilitySet::DAC_OVERRIDE,
            Power::LockedMemory => CapabilitySet::IPC_LOCK,
        }
    });
    kept &= rustix::thread::capabilities(None)?.permitted;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_confined_thread_opens_what_it_may_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let [read, write, other] = ["read", "write", "other"].map(|name| dir.path().join(name));
        for place in [&read, &write, &other] {
            fs::create_dir(place).expect("made");
            fs::write(place.join("file"), "x").expect("written");
        }
        let single = other.join("single");
        fs::write(&single, "y").expect("written");
        let room = Room {
            read: vec![read.clone(), single.clone()],
            write: vec![write.clone()],
            list: vec![dir.path().to_owned()],
            connects: true,
        };
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = server.local_addr().expect("it has one");
        let confined = std::thread::spawn(move || {
            if let Degree::Not(why) = confine(&room) {
                // A kernel without landlock.
                return Some(why);
            }
            assert_eq!(fs::read(read.join("file")).expect("may be read"), b"x");
            assert_eq!(fs::read(single).expect("may be read"), b"y");
            assert!(fs::write(read.join("file"), "z").is_err());
            assert!(fs::read_dir(&other).is_ok(), "names may be read");
            assert!(fs::read(other.join("file")).is_err() && fs::read("/etc/passwd").is_err());
            fs::write(write.join("new"), "z").expect("may be written");
            fs::create_dir(write.join("sub")).expect("may be made");
            fs::rename(write.join("new"), write.join("sub/new")).expect("may be moved");
            fs::remove_dir_all(write.join("sub")).expect("may be removed");
            assert!(std::process::Command::new("/bin/true").status().is_err(), "no programs");
            std::net::TcpStream::connect(address).expect("may connect");
            None
        });
        if let Some(why) = confined.join().expect("no panic") {
            eprintln!("not shown: {why}");
        }
        assert!(fs::read("/etc/passwd").is_ok(), "other threads are as they were");
    }

    #[test]
    fn powers_are_given_up_by_this_thread() {
        let left = std::thread::spawn(|| {
            keep_powers(&[Power::Files]).expect("given up");
            rustix::thread::capabilities(None).expect("known").permitted
        });
        assert!(CapabilitySet::DAC_OVERRIDE.contains(left.join().expect("no panic")));
    }

    #[test]
    fn a_room_knows_what_is_in_it() {
        let room = Room { read: vec!["/etc/mail".into()], write: vec!["/var/mail".into()], ..Room::default() };
        let both = |path: &str| (room.reads(Path::new(path)), room.writes(Path::new(path)));
        assert_eq!(both("/etc/mail/t.db"), (true, false));
        assert_eq!(both("/var/mail/gilles/new"), (true, true));
        assert_eq!(both("/etc/mailbox"), (false, false));
    }
}
