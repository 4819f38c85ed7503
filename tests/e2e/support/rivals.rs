//! Postfix and OpenSMTPD as they are in Debian, unpacked below `RINGPOST_PEERS` and not installed: each in namespaces of its
//! own, where its files are at `/mnt`, and for as long as the test keeps it. Needs root.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::server::greets;
use super::wait::wait_until;

/// Users that the packages want, beside those of this machine; each has a group of his own number.
const USERS: [(&str, u32); 4] =
    [("postfix", 64_101), ("postdrop", 64_102), ("opensmtpd", 64_103), ("opensmtpq", 64_104)];
/// Until one of them greets, on a busy machine.
const STARTS: Duration = Duration::from_secs(30);
/// Where its files are, for itself.
pub const INSIDE: &str = "/mnt/run";

/// One that is being prepared: put files for it into [`Rival::dir`].
pub struct Rival {
    dir: TempDir,
    child: Option<Child>,
}

impl Rival {
    /// Nothing runs yet.
    pub fn new() -> Self {
        let peers =
            PathBuf::from(std::env::var_os("RINGPOST_PEERS").expect("RINGPOST_PEERS: run ./test, which unpacks them"));
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        // Its daemons are other users, who must get in.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        for package in ["postfix", "opensmtpd"] {
            symlink(peers.join(package), dir.path().join(package)).expect("a link");
        }
        let rival = Self { dir, child: None };
        fs::create_dir(rival.dir()).expect("a directory");
        for (file, tail) in [("passwd", ":/nonexistent:/usr/sbin/nologin\n"), ("group", "\n")] {
            let mut text = fs::read_to_string(Path::new("/etc").join(file)).expect("readable");
            for (user, number) in
                USERS.iter().filter(|(user, _)| !text.contains(&format!("\n{user}:"))).collect::<Vec<_>>()
            {
                let ids = if file == "passwd" { format!("{number}:{number}:") } else { format!("{number}:") };
                text += &format!("{user}:x:{ids}{tail}");
            }
            fs::write(rival.dir().join(file), text).expect("written");
        }
        fs::write(rival.dir().join("resolv.conf"), "lookup file\n").expect("written");
        rival
    }

    /// What is at [`INSIDE`] for it.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Postfix with these lines in `main.cf` and `master.cf`, beside what it needs in any case; waits until it greets.
    pub fn postfix(self, main: &str, master: &str, greeting: SocketAddr) -> Self {
        let home = self.dir().join("postfix");
        for dir in ["etc", "data", "spool", "spool/pid", "spool/maildrop", "spool/public"] {
            fs::create_dir_all(home.join(dir)).expect("a directory");
        }
        for queue in "active bounce corrupt defer deferred flush hold incoming private saved trace".split(' ') {
            fs::create_dir(home.join("spool").join(queue)).expect("a directory");
            chown(home.join("spool").join(queue), Some(self.user("postfix")), None).expect("root's right");
        }
        for queue in ["maildrop", "public"] {
            let dir = home.join("spool").join(queue);
            chown(&dir, Some(self.user("postfix")), Some(self.user("postdrop"))).expect("root's right");
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o730)).expect("ours");
        }
        chown(home.join("data"), Some(self.user("postfix")), None).expect("root's right");
        fs::write(home.join("etc/main.cf"), format!("{POSTFIX_MAIN}{main}")).expect("written");
        fs::write(home.join("etc/master.cf"), format!("{POSTFIX_MASTER}{master}")).expect("written");
        self.start(&["/mnt/postfix/usr/lib/postfix/sbin/master", "-d", "-c", "/mnt/run/postfix/etc"], greeting)
    }

    /// OpenSMTPD with this configuration; waits until it greets.
    pub fn opensmtpd(self, config: &str, greeting: SocketAddr) -> Self {
        let home = self.dir().join("opensmtpd");
        fs::create_dir_all(home.join("spool")).expect("a directory");
        fs::set_permissions(home.join("spool"), fs::Permissions::from_mode(0o711)).expect("ours");
        fs::write(home.join("smtpd.conf"), config).expect("written");
        self.start(&["/mnt/opensmtpd/usr/sbin/smtpd", "-F", "-f", "/mnt/run/opensmtpd/smtpd.conf"], greeting)
    }

    /// Number of a user of its own.
    fn user(&self, name: &str) -> u32 {
        let passwd = fs::read_to_string(self.dir().join("passwd")).expect("written above");
        let line = passwd.lines().find(|line| line.starts_with(&format!("{name}:"))).expect("he is there");
        line.split(':').nth(2).and_then(|number| number.parse().ok()).expect("a number")
    }

    fn start(mut self, command: &[&str], greeting: SocketAddr) -> Self {
        assert!(rustix::process::geteuid().is_root(), "namespaces of mounts are root's to make");
        let enter = Path::new(env!("CARGO_MANIFEST_DIR")).join("perf/compare/enter.sh");
        let log = fs::File::create(self.dir().join("log")).expect("a file");
        let peers = std::env::var("RINGPOST_PEERS").expect("it was there above");
        let child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child=SIGKILL",
                "--mount-proc",
            ])
            .args(["bash".as_ref(), enter.as_os_str(), self.dir.path().as_os_str()])
            .args(command)
            .env("LD_LIBRARY_PATH", format!("{peers}/postfix/usr/lib/postfix:/mnt/postfix/usr/lib/postfix"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("descriptors"))
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("unshare (util-linux)"));
        let log = self.dir().join("log");
        let told = || fs::read_to_string(&log).unwrap_or_default();
        wait_until(&format!("{}: {}", command[0], told()), STARTS, || greets(greeting));
        self
    }

    /// All files below a directory of it that hold this text.
    pub fn files_with(&self, below: &str, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut dirs = vec![self.dir().join(below)];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                    Ok(kind) if kind.is_file() => {
                        // It may be gone already.
                        let bytes = fs::read(entry.path()).unwrap_or_default();
                        found.extend(
                            Some(String::from_utf8_lossy(&bytes).into_owned()).filter(|file| file.contains(text)),
                        );
                    }
                    _ => {}
                }
            }
        }
        found
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Its namespace ends with it, and all in there.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const POSTFIX_MAIN: &str = "\
compatibility_level = 3.6
queue_directory = /mnt/run/postfix/spool
data_directory = /mnt/run/postfix/data
command_directory = /mnt/postfix/usr/sbin
daemon_directory = /mnt/postfix/usr/lib/postfix/sbin
shlib_directory = /mnt/postfix/usr/lib/postfix
meta_directory = /mnt/run/postfix/etc
import_environment = MAIL_CONFIG LANG=C LD_LIBRARY_PATH=/mnt/postfix/usr/lib/postfix
myhostname = postfix.invalid
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
disable_dns_lookups = yes
";

const POSTFIX_MASTER: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
showq unix n - n - - showq
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
";
