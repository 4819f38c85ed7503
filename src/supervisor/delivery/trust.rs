//! What is not done for the engine, whatever it asks for. What it says is right, unless it has been broken into: then it may
//! have mail delivered, and must not get to root or to the keys by that. The lane knows what the configuration says; what
//! the system has to be asked, the helper asks.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ringpost_io::sys;
use ringpost_shard::{Handed, Handover, How, UserRecord};
use rustix::process::geteuid;

use super::refusal::Step;
use crate::ipc::supervisor::Work;
use crate::owners::Owner;

/// Where everything goes that nobody wants to read; an entry of many alias files.
pub const NOWHERE: &str = "/dev/null";
/// Groups whose members get to more than their own: to passwords, disks, memory, keys, root's programs or all logs. Some
/// systems have the one, some the other.
const POWERFUL: [&str; 15] = [
    "root",
    "shadow",
    "disk",
    "kmem",
    "mem",
    "sudo",
    "wheel",
    "admin",
    "adm",
    "staff",
    "systemd-journal",
    "ssl-cert",
    "docker",
    "lxd",
    "libvirt",
];

/// What a lane knows besides what it is told.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The only directory with mailboxes; empty: no mailboxes.
    spool: PathBuf,
    /// Whose the keys are, if they are anybody's apart.
    keyholder: Option<Owner>,
}

impl Trust {
    /// Of a server with its mailboxes there and this user for its keys.
    pub fn new(spool: impl Into<PathBuf>, keyholder: Option<&Owner>) -> Self {
        Self { spool: spool.into(), keyholder: keyholder.cloned() }
    }

    /// Why this is not done.
    pub fn refusal(&self, work: &Work) -> Option<&'static str> {
        let user = work.user();
        if self.keyholder.as_ref().is_some_and(|keys| keys.uid == user.uid || keys.gid == user.gid) {
            return Some("nothing is done as the user whose the keys are, or with his group");
        }
        match work {
            Work::Deliver(Handover { how: How::Mbox { spool }, .. }) if *spool != self.spool => {
                Some("a mailbox elsewhere than where mailboxes are")
            }
            _ => None,
        }
    }
}

/// Whether a delivery makes sense, and helps no intruder.
///
/// # Errors
/// What is wrong with it.
pub fn check(handover: &Handover) -> Step<()> {
    let user = &handover.user;
    check_user(user)?;
    let absolute = match &handover.how {
        How::Mbox { spool: path } | How::Maildir { path, .. } | How::File { path } => path.is_absolute(),
        How::Program { arguments } => !arguments.is_empty(),
    };
    if !absolute || !is_plain(&handover.copy) {
        return Err(Handed::temporary((4, 3, 5), "a delivery without an absolute path, a program or a name"));
    }
    let harmless = match &handover.how {
        How::Mbox { .. } | How::Maildir { .. } => true,
        How::File { path } => path == Path::new(NOWHERE),
        How::Program { .. } => false,
    };
    if user.uid == 0 && geteuid().is_root() && !harmless {
        return Err(Handed::temporary(
            (4, 3, 5),
            "no programs and files for root: let an alias send its mail elsewhere",
        ));
    }
    Ok(())
}

/// Whether this can be a user, and has no group that would make it more than one.
///
/// # Errors
/// What is wrong with him.
pub fn check_user(user: &UserRecord) -> Step<()> {
    if !is_plain(&user.name) || !user.home.is_absolute() {
        return Err(Handed::temporary((4, 3, 5), format!("not a user record: {user:?}")));
    }
    // Root has every group's rights anyway; an unprivileged helper stays who it is.
    if user.uid == 0 || !geteuid().is_root() {
        return Ok(());
    }
    check_group(user, Path::new("/"))
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

/// These groups are in the system's own file: nobody is asked who may keep us waiting, but for the few who are in one.
fn check_group(user: &UserRecord, root: &Path) -> Step<()> {
    let names = match sys::group_names_below(root, user.gid) {
        // A container without users.
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        other => other.map_err(|error| Handed::temporary((4, 3, 0), error.to_string()))?,
    };
    let powerful = names.iter().map(String::as_str).find(|name| POWERFUL.contains(name));
    let Some(group) = powerful.or((user.gid == 0).then_some("root")) else { return Ok(()) };
    match sys::user(&user.name) {
        Ok(Some(known)) if (known.uid, known.gid) == (user.uid, user.gid) => Ok(()),
        Ok(_) => {
            let (name, uid) = (&user.name, user.uid);
            let text =
                format!("nothing is done with the group {group} for user {name} ({uid}), who is not the system's");
            Err(Handed::temporary((4, 3, 5), text))
        }
        Err(error) => Err(Handed::temporary((4, 3, 0), format!("whose group {group} is: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: u32, gid: u32) -> UserRecord {
        UserRecord { name: name.into(), uid, gid, home: "/".into(), in_table: true }
    }

    fn handover(name: &str, how: How) -> Handover {
        Handover {
            user: user(name, 61_001, 61_001),
            how,
            sender: String::new(),
            recipient: "u@d.test".into(),
            extension: String::new(),
            original: "u@d.test".into(),
            copy: "1.a_0.host".into(),
        }
    }

    fn mbox(spool: &str) -> How {
        How::Mbox { spool: spool.into() }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        check(&handover("gilles", mbox("/var/mail"))).unwrap();
        for name in ["", ".", "..", "../x", "a/b", "a\0b"] {
            assert!(check(&handover(name, mbox("/var/mail"))).is_err(), "{name:?}");
        }
        assert!(check(&handover("u", How::File { path: "relative".into() })).is_err());
        assert!(check(&handover("u", How::Program { arguments: Vec::new() })).is_err());
        let copy =
            Handover { copy: "../../x".into(), ..handover("u", How::Maildir { path: "/m".into(), junk: false }) };
        assert!(check(&copy).is_err());
    }

    #[test]
    fn mailboxes_are_where_mailboxes_are() {
        let trust = Trust::new("/var/mail", None);
        let refusal = |spool: &str| trust.refusal(&Work::Deliver(handover("authorized_keys", mbox(spool))));
        assert_eq!(refusal("/var/mail"), None);
        for elsewhere in ["/root/.ssh", "/etc", "/var/mail/../../etc", "/", ""] {
            assert!(refusal(elsewhere).is_some(), "{elsewhere}");
        }
    }

    #[test]
    fn nobody_is_the_keyholder() {
        let keys = Owner { name: "ringpost-key".into(), uid: 996, gid: 995 };
        let trust = Trust::new("/var/mail", Some(&keys));
        for (uid, gid, is_refused) in [(996, 61_000, true), (61_000, 995, true), (995, 996, false)] {
            let user = user("ringpost-key", uid, gid);
            let delivery = Handover { user: user.clone(), ..handover("u", mbox("/var/mail")) };
            let list = Work::ReadList { user: user.clone(), path: "/etc/ssl/private/mx.key".into() };
            for work in [Work::Deliver(delivery), Work::ReadForward(user), list] {
                assert_eq!(trust.refusal(&work).is_some(), is_refused, "{work:?}");
            }
        }
    }

    #[test]
    fn groups_that_are_more_than_a_group_are_for_the_systems_own_users() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        check_group(&user("vmail", 5000, 42), root).unwrap();
        std::fs::create_dir(root.join("etc")).unwrap();
        let text = "root:x:0:\nmail:x:8:\nvmail:x:5000:\nshadow:x:42:\nown:x:999:\ndocker:x:999:gilles\n";
        std::fs::write(root.join("etc/group"), text).unwrap();
        for gid in [8, 5000, 77] {
            check_group(&user("vmail", 5000, gid), root).unwrap();
        }
        for gid in [0, 42, 999] {
            let refused = check_group(&user("vmail", 5000, gid), root).unwrap_err();
            assert!(
                matches!(&refused, Handed::Temporary { text, .. } if text.contains("with the group")),
                "{refused:?}"
            );
        }
        // One whose first group it is, as the system has it.
        check_group(&user("root", 0, 0), root).unwrap();
        check_group(&user("root", 5000, 0), root).unwrap_err();
    }
}
