//! What the engine may still use once it has its plan: its state directory, what the configuration names, and a few files of
//! the system. It is settled when the engine starts; a plan that names more has another engine started.

use std::path::{Path, PathBuf};

use ringpost_conf::Config;
use ringpost_io::sys::{self, Calls, Degree, Power, Room};
use rustix::fs::{Access, access};

use crate::coordinator::tables::Backend;
use crate::owners::Owner;
use crate::plan::Plan;

/// What libraries read of the system: how names are resolved and users are found, processors and disks, chance.
const SYSTEM: [&str; 19] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/run/systemd/resolve",
    "/proc/self",
    "/proc/sys",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/sys",
    "/dev/urandom",
    "/dev/random",
    "/dev/null",
];

/// What an engine of this plan may use.
///
/// # Errors
/// It cannot be confined, and why.
pub fn room(plan: &Plan, config: &Config) -> Result<Room, String> {
    let places = config.places();
    let mut read: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).chain(places.read).collect();
    for table in &plan.tables {
        if let Backend::Helper { program, .. } = &table.backend {
            let (table, program) = (&table.name, program.display());
            return Err(format!("it starts {program} itself, which answers for table <{table}>"));
        }
        read.extend(table.backend.file(plan.root.as_deref()).and_then(|file| Some(file.parent()?.to_owned())));
    }
    let write: Vec<PathBuf> = std::iter::once(plan.state.clone()).chain(places.write).map(absolute).collect();
    // A new Maildir is durable when the directory that it is in has been synced.
    let list = write.iter().filter_map(|place| Some(place.parent()?.to_owned())).collect();
    Ok(Room { read: read.into_iter().map(absolute).collect(), write, list, connects: true })
}

/// Whether all that `wanted` has is in `given`: the first place that is not.
pub fn lacks<'w>(given: &Room, wanted: &'w Room) -> Option<&'w Path> {
    let read = wanted.read.iter().find(|place| !given.reads(place));
    let write = wanted.write.iter().find(|place| !given.writes(place));
    read.or(write).map(PathBuf::as_path)
}

/// Confines this process, which has no other thread yet; what this kernel cannot do is told.
pub fn confine(room: &Room) -> Vec<String> {
    for place in &room.write {
        // A Maildir may not have been delivered to yet. What cannot be made now will be told by the first delivery.
        let _ = std::fs::create_dir_all(place);
    }
    let mut lacking = Vec::new();
    if let Err(error) = sys::no_new_privileges().and_then(|()| sys::keep_powers(&[Power::Files, Power::LockedMemory])) {
        lacking.push(format!("it keeps the powers of its user: {error}"));
    }
    match sys::confine(room) {
        Degree::Full => {}
        Degree::Partly => lacking.push("the kernel's landlock is an old one, and does less".to_owned()),
        Degree::Not(why) => lacking.push(format!("it may open all files of its user: {why}")),
    }
    if let Err(error) = sys::keep_calls(Calls::WithoutPrograms) {
        lacking.push(format!("system calls are not limited: {error}"));
    }
    lacking
}

/// What the engine's own user does not get to, a line each: root got everywhere, and so did the engine while it was root's.
pub fn out_of_reach(owner: &Owner, plan: &Plan, config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    for place in config.places().own.into_iter().map(absolute) {
        if let Err(error) = access(&place, Access::WRITE_OK | Access::EXEC_OK) {
            lines.push(format!("{}: {error} for the user {}: mail for it waits", place.display(), owner.name));
        }
    }
    for (table, file) in databases(plan, config) {
        if let Err(error) = access(&file, Access::READ_OK) {
            let file = file.display();
            lines.push(format!("{file}: {error} for the user {}: table <{table}> fails", owner.name));
        }
    }
    lines
}

/// Files that the engine opens to answer for tables.
fn databases<'p>(plan: &'p Plan, config: &'p Config) -> impl Iterator<Item = (&'p str, PathBuf)> {
    let in_place = config.tables.iter().filter_map(|table| match &table.backend {
        ringpost_conf::Backend::Db { path } => Some((table.name.as_str(), path.clone())),
        _ => None,
    });
    let asked = plan.tables.iter().filter(|table| !matches!(table.backend, Backend::Db(_)));
    let asked = asked.filter_map(|table| Some((table.name.as_str(), table.backend.file(plan.root.as_deref())?)));
    in_place.chain(asked)
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_given_is_named() {
        let room = |read: &[&str], write: &[&str]| Room {
            read: read.iter().map(PathBuf::from).collect(),
            write: write.iter().map(PathBuf::from).collect(),
            ..Room::default()
        };
        let given = room(&["/etc/mail"], &["/var/spool/ringpost"]);
        assert_eq!(lacks(&given, &room(&["/etc/mail/tables", "/var/spool/ringpost"], &["/var/spool/ringpost"])), None);
        assert_eq!(lacks(&given, &room(&["/etc/other"], &[])), Some(Path::new("/etc/other")));
        assert_eq!(lacks(&given, &room(&[], &["/etc/mail"])), Some(Path::new("/etc/mail")), "to read is not to write");
    }
}
