//! Users of a test: below `--root`, with homes of their own. Run by root they are somebody without rights, else the caller.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};

use super::server::Setup;

/// Whom a test's users are.
pub fn someone() -> (u32, u32) {
    match geteuid().is_root() {
        true => (23_456, 23_457),
        false => (geteuid().as_raw(), getegid().as_raw()),
    }
}

/// Gives it to him.
pub fn give(path: &Path) {
    if geteuid().is_root() {
        let (uid, gid) = someone();
        chown(path, Some(uid), Some(gid)).expect("given");
    }
}

/// Sets a mode.
pub fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
}

/// The `.forward` of a home.
pub fn forward(home: &Path, text: &str) {
    let path = home.join(".forward");
    fs::write(&path, text).expect("written");
    mode(&path, 0o644);
    give(&path);
}

impl Setup {
    /// `--root`, with these users in its `/etc/passwd`, their homes, and a place for mailboxes.
    pub fn with_users(self, users: &[&str]) -> Self {
        let setup = self.root();
        let (uid, gid) = someone();
        let lines = users.iter().map(|name| format!("{name}:x:{uid}:{gid}::/home/{name}:/bin/sh\n"));
        setup.put("root/etc/passwd", &lines.collect::<String>());
        mode(&setup.open("root/var/mail"), 0o1777);
        users.iter().for_each(|name| drop(setup.home(name)));
        setup
    }

    /// A user's home.
    pub fn home(&self, user: &str) -> PathBuf {
        let home = self.open(&format!("root/home/{user}"));
        mode(&home, 0o755);
        give(&home);
        home
    }

    /// A directory in that of the test, and what is above it, that everybody may enter.
    pub fn open(&self, path: &str) -> PathBuf {
        mode(self.dir(), 0o755);
        let full = self.dir().join(path);
        fs::create_dir_all(&full).expect("made");
        full
    }

    /// A file in the directory of the test.
    pub fn put(&self, path: &str, text: &str) -> PathBuf {
        let (directory, name) = path.rsplit_once('/').expect("a directory");
        let full = self.open(directory).join(name);
        fs::write(&full, text).expect("written");
        full
    }

    /// A user's `.forward`.
    pub fn forward(&self, user: &str, text: &str) {
        forward(&self.open(&format!("root/home/{user}")), text);
    }
}
