//! The life of a helper: it takes one errand from its standard input, becomes the user, does it, says how it went, ends.
//! It is a process of its own, started from this program's file, because what it does cannot be undone, and because a
//! process with several threads cannot become somebody else for one of them.

use std::ffi::OsString;
use std::fs::File;
use std::io::Seek;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use ringpost_io::sys;
use ringpost_shard::{Forwarding, Handed, Handover, How, UserRecord};
use rustix::fs::Mode;
use rustix::process::{geteuid, setsid, umask};

use super::mbox::{DotLock, Mailbox};
use super::refusal::{Step, failed};
use super::trust::{NOWHERE, check, check_user};
use super::{maildir, verdict};
use crate::ipc::codec::Channel;
use crate::ipc::supervisor::{Answer, Errand, Report, Work, text_to_memory};
use crate::limits::PROGRAM;
use crate::supervisor::forward;
use crate::supervisor::programs::{self, Program};

/// Where a program is looked for that has no path.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The user and the group of nobody in particular, by an old custom of all systems.
const NOBODY: u32 = 65_534;

/// Does what the other end of `channel` asks for.
///
/// # Errors
/// There is no other end, or it makes no sense.
pub fn run(channel: &Channel) -> std::io::Result<()> {
    // Not the terminal's any more, nor of the group that Ctrl-C reaches.
    let _ = setsid();
    let Some((Errand { id, work }, text)) = channel.receive::<Errand>()? else { return Ok(()) };
    let answer = match &work {
        Work::Deliver(handover) => Answer::Delivery(match deliver(handover, text, channel.as_fd()) {
            Ok(done) | Err(done) => done,
        }),
        Work::ReadForward(user) => Answer::Forward(match check_user(user).and_then(|()| settle_in(user, None)) {
            Ok(()) => forward::read(&user.home),
            Err(refused) => Forwarding::Failed(reason(refused)),
        }),
        Work::ReadList { user, path } => Answer::Forward(match read_list(user, path) {
            Ok(read) => read,
            Err(refused) => Forwarding::Failed(reason(refused)),
        }),
    };
    match answer {
        Answer::Forward(Forwarding::Text(text)) => {
            let memory = text_to_memory(&text)?;
            let answer = Answer::Forward(Forwarding::Text(String::new()));
            channel.send_with(&Report { id, answer }, Some(memory.as_fd()))
        }
        answer => channel.send(&Report { id, answer }),
    }
}

fn reason(refused: Handed) -> String {
    match refused {
        Handed::Delivered { text } | Handed::Temporary { text, .. } | Handed::Permanent { text, .. } => text,
    }
}

/// Root may read everything, and here is told by others what: so that is read as nobody, who can read what everybody can.
fn read_list(user: &UserRecord, path: &Path) -> Step<Forwarding> {
    check_user(user)?;
    if user.uid != 0 || !geteuid().is_root() {
        settle_in(user, None)?;
        return Ok(forward::read_list(path));
    }
    let nobody =
        UserRecord { name: "nobody".into(), uid: NOBODY, gid: NOBODY, home: Path::new("/").into(), in_table: true };
    settle_in(&nobody, None)?;
    Ok(match forward::read_list(path) {
        Forwarding::Failed(why) => Forwarding::Failed(format!("{why}; a list of root's must be readable by everybody")),
        read => read,
    })
}

fn deliver(handover: &Handover, text: Option<OwnedFd>, peer: BorrowedFd<'_>) -> Step<Handed> {
    let Some(text) = text else { return Err(Handed::temporary((4, 3, 0), "the text was lost on its way")) };
    let mut text = File::from(text);
    let user = &handover.user;
    check(handover)?;
    match &handover.how {
        How::Mbox { spool } => {
            settle_in(user, spool_group(spool))?;
            let path = spool.join(&user.name);
            Mailbox::new(&path, DotLock::Must).append(&separator(&handover.sender), &mut text)?;
            Ok(Handed::Delivered { text: "delivered to mailbox".into() })
        }
        How::File { path } if path == Path::new(NOWHERE) => {
            Ok(Handed::Delivered { text: format!("delivered to {NOWHERE}") })
        }
        How::File { path } => {
            settle_in(user, None)?;
            Mailbox::new(path, DotLock::IfAllowed).append(&separator(&handover.sender), &mut text)?;
            Ok(Handed::Delivered { text: "delivered to file".into() })
        }
        How::Maildir { path, junk } => {
            settle_in(user, None)?;
            maildir::deliver(path, *junk, &handover.copy, &mut text)?;
            Ok(Handed::Delivered { text: "delivered to maildir".into() })
        }
        How::Program { arguments } => {
            settle_in(user, None)?;
            run_program(handover, arguments, text, peer)
        }
    }
}

/// Becomes the user, at home; an unprivileged helper stays who it is. `group` instead of the user's own, if given.
fn settle_in(user: &UserRecord, group: Option<u32>) -> Step<()> {
    umask(if group.is_some() { Mode::RWXO } else { Mode::RWXG | Mode::RWXO });
    if geteuid().is_root() {
        let became = groups(user).and_then(|groups| sys::become_user(user.uid, group.unwrap_or(user.gid), &groups));
        became.map_err(|error| {
            Handed::temporary((4, 3, 0), format!("cannot become user {} ({}): {error}", user.name, user.uid))
        })?;
    }
    // A user without a home has mail all the same.
    std::env::set_current_dir(&user.home)
        .or_else(|_| std::env::set_current_dir("/"))
        .map_err(|error| failed(&user.home, &error))
}

/// Who is in a table need not be known to the system, which is then asked nothing.
fn groups(user: &UserRecord) -> std::io::Result<Vec<u32>> {
    if user.in_table { Ok(vec![user.gid]) } else { sys::groups_of(&user.name, user.uid, user.gid) }
}

/// The group whose members may make files in the spool directory: `mail` at Debian's, where users may not. Only where
/// the directory is root's, and not everybody's anyway.
fn spool_group(spool: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let about = std::fs::metadata(spool).ok()?;
    let by_group = about.mode() & 0o020 != 0 && about.mode() & 0o002 == 0;
    (geteuid().is_root() && about.uid() == 0 && about.gid() != 0 && by_group).then_some(about.gid())
}

/// The line before a message in a mailbox file: sender and time of delivery, in UTC and the form of asctime(3).
fn separator(sender: &str) -> String {
    let sender = if sender.is_empty() { "MAILER-DAEMON" } else { sender };
    // A blank would end the address for who reads it.
    let sender: String = sender.chars().map(|c| if c.is_whitespace() || c.is_control() { '-' } else { c }).collect();
    let now = Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("From {sender} {}", now.strftime("%a %b %e %H:%M:%S %Y"))
}

fn run_program(handover: &Handover, arguments: &[String], mut text: File, peer: BorrowedFd<'_>) -> Step<Handed> {
    let name = arguments.first().map(String::as_str).unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or(name).to_owned();
    text.rewind().map_err(|error| failed(Path::new(&name), &error))?;
    let dir = std::env::current_dir().map_err(|error| failed(&handover.user.home, &error))?;
    let program =
        Program { arguments: arguments.to_vec(), environment: environment(handover), dir, input: text, time: PROGRAM };
    match programs::run(program, peer) {
        Ok(finished) => Ok(verdict::verdict(&name, &finished)),
        // A slip of who wrote the command, or a disk that is not mounted.
        Err(error) => Err(Handed::temporary((4, 3, 5), format!("{name}: cannot be run: {error}"))),
    }
}

/// Names that the programs of Postfix and OpenSMTPD know.
fn environment(handover: &Handover) -> Vec<(&'static str, OsString)> {
    let Handover { user, sender, recipient, extension, original, .. } = handover;
    let (local, domain) = recipient.rsplit_once('@').unwrap_or((recipient, ""));
    vec![
        ("PATH", PATH.into()),
        ("HOME", user.home.clone().into()),
        ("USER", user.name.clone().into()),
        ("LOGNAME", user.name.clone().into()),
        ("SHELL", "/bin/sh".into()),
        ("SENDER", sender.into()),
        ("RECIPIENT", recipient.into()),
        ("ORIGINAL_RECIPIENT", original.into()),
        ("LOCAL", local.into()),
        ("DOMAIN", domain.into()),
        ("EXTENSION", extension.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handover(name: &str, how: How) -> Handover {
        Handover {
            user: UserRecord { name: name.into(), uid: 61_001, gid: 61_001, home: "/".into(), in_table: false },
            how,
            sender: String::new(),
            recipient: "u+x@d.test".into(),
            extension: "x".into(),
            original: "alias@d.test".into(),
            copy: "1.a_0.host".into(),
        }
    }

    #[test]
    fn separators_are_one_line_with_one_address() {
        assert!(separator("").starts_with("From MAILER-DAEMON "));
        let line = separator("\"a b\"@c\r\nFrom x");
        assert!(line.starts_with("From \"a-b\"@c--From-x ") && !line.contains('\n'), "{line}");
        // Day, month, day of the month, time, year: 24 characters as asctime(3) has them.
        assert_eq!(separator("a@b").len(), "From a@b ".len() + 24);
    }

    #[test]
    fn programs_know_whom_they_work_for() {
        let environment = environment(&handover("u", How::Program { arguments: vec!["x".into()] }));
        let value = |name: &str| {
            environment.iter().find(|(of, _)| *of == name).unwrap_or_else(|| panic!("no {name}")).1.to_str().unwrap()
        };
        assert_eq!((value("LOCAL"), value("DOMAIN"), value("EXTENSION")), ("u+x", "d.test", "x"));
        assert_eq!((value("SENDER"), value("RECIPIENT"), value("LOGNAME")), ("", "u+x@d.test", "u"));
        assert_eq!(value("ORIGINAL_RECIPIENT"), "alias@d.test");
    }
}
