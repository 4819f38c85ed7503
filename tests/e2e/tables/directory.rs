//! slapd, of our own: another port, another directory than the system's.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::asking::Asking;
use super::{ATTACKS, EX_CONFIG, absent, failure, lookup, value, words};
use crate::support::wait::wait_for;
use crate::support::{cli, ports, wait_until};

const STARTS: Duration = Duration::from_secs(60);

const SERVER: &str = r#"
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
attributetype ( 1.1.2.1.1 NAME 'maildrop' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
objectclass ( 1.1.2.2.1 NAME 'courierMailAlias' SUP top AUXILIARY MAY ( maildrop $ uid ) )
attributetype ( 1.1.2.1.2 NAME 'mapKey' EQUALITY caseExactMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.1.2.1.3 NAME 'mapValue' EQUALITY caseExactMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
objectclass ( 1.1.2.2.2 NAME 'mapEntry' SUP top STRUCTURAL MUST ( cn $ mapKey $ mapValue ) )
pidfile @DIR@/slapd.pid
argsfile @DIR@/slapd.args
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix "dc=opensmtpd,dc=org"
rootdn "cn=admin,dc=opensmtpd,dc=org"
rootpw thisbemypasswd
directory @DIR@/db
access to attrs=userPassword by anonymous auth by * none
access to * by * read
"#;

const ENTRIES: &str = "\
dn: dc=opensmtpd,dc=org
objectClass: dcObject
objectClass: organization
o: OpenSMTPD
dc: opensmtpd

dn: uid=gilles,dc=opensmtpd,dc=org
objectClass: account
objectClass: posixAccount
uid: gilles
cn: Gilles
uidNumber: 10
gidNumber: 100
homeDirectory: /home/gilles
userPassword: sesame

dn: uid=staff,dc=opensmtpd,dc=org
objectClass: account
objectClass: courierMailAlias
uid: staff
maildrop: gilles
maildrop: eric@example.org

dn: uid=nobody,dc=opensmtpd,dc=org
objectClass: account
objectClass: courierMailAlias
uid: nobody

dn: dc=poolp.org,dc=opensmtpd,dc=org
objectClass: rFC822localPart
dc: poolp.org
";

/// The article's file, and below it the services that it does not have.
const ARTICLE: &str = "
# /etc/mail/ldapd.conf
#

url             ldap://127.0.0.1
username        cn=admin,dc=opensmtpd,dc=org
password        thisbemypasswd
basedn          dc=opensmtpd,dc=org

# aliases lookup
#
alias_filter            (&(objectClass=courierMailAlias)(uid=%s))
alias_attributes        maildrop


# credentials lookup
#
credentials_filter      (&(objectClass=posixAccount)(uid=%s))
credentials_attributes  uid,userPassword

# domains lookup
#
domain_filter           (&(objectClass=rFC822localPart)(dc=%s))
domain_attributes       dc
";

const MORE: &str = "
auth_filter             (&(objectClass=posixAccount)(uid=%s))
userinfo_filter         (&(objectClass=posixAccount)(uid=%s))
userinfo_attributes     uidNumber,gidNumber,homeDirectory
";

/// A slapd with the article's entries; the only alias there is `staff`.
pub struct Slapd {
    dir: tempfile::TempDir,
    pub port: u16,
    child: Option<Child>,
}

impl Slapd {
    pub fn new() -> Self {
        Self::with("")
    }

    /// With more entries, each after an empty line.
    pub fn with(more: &str) -> Self {
        Self::limited(more, "")
    }

    /// With more lines for the whole server.
    fn limited(more: &str, lines: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let text = format!("{lines}{SERVER}").replace("@DIR@", &dir.path().display().to_string());
        fs::create_dir(dir.path().join("db")).expect("made");
        fs::write(dir.path().join("slapd.conf"), text).expect("written");
        fs::write(dir.path().join("data.ldif"), format!("{ENTRIES}{more}")).expect("written");
        let mut slapd = Self { dir, port: ports::free(), child: None };
        let loaded = slapd.command("slapadd").arg("-l").arg(slapd.dir.path().join("data.ldif")).output();
        let loaded = loaded.expect("slapadd, from the package slapd");
        assert!(loaded.status.success(), "{}", words(&loaded));
        slapd.start();
        slapd
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Does what this text of LDIF says.
    pub fn change(&self, ldif: &str) {
        let file = self.dir.path().join("change.ldif");
        fs::write(&file, ldif).expect("written");
        let mut command = Command::new("ldapmodify");
        command.args(["-x", "-H", &format!("ldap://127.0.0.1:{}", self.port), "-D", "cn=admin,dc=opensmtpd,dc=org"]);
        let done = command.args(["-w", "thisbemypasswd", "-f"]).arg(file).output();
        let done = done.expect("ldapmodify, from the package ldap-utils");
        assert!(done.status.success(), "{}", words(&done));
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(Path::new("/usr/sbin").join(name));
        command.arg("-f").arg(self.dir.path().join("slapd.conf"));
        command
    }

    pub fn start(&mut self) {
        let url = format!("ldap://127.0.0.1:{}", self.port);
        let mut command = self.command("slapd");
        command.args(["-h", &url, "-d", "none"]).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("slapd, from the package slapd"));
        wait_until("slapd listens", STARTS, || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok());
    }

    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = Pid::from_raw(child.id() as i32).expect("a process");
        kill_process(pid, Signal::TERM).expect("it runs");
        child.wait().expect("it ends");
    }

    /// The source of a table with the article's configuration, at some port.
    pub fn source(&self, port: u16, more: &str) -> String {
        let path = self.dir.path().join(format!("ldap-{port}.conf"));
        let text = ARTICLE.replace("ldap://127.0.0.1", &format!("ldap://127.0.0.1:{port}"));
        fs::write(&path, text + more).expect("written");
        format!("ldap:{}", path.display())
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn s55_the_articles_directory_is_asked() {
    let slapd = Slapd::new();
    let source = slapd.source(slapd.port, MORE);
    assert_eq!(value(None, &source, "alias", "staff"), "gilles, eric@example.org");
    assert_eq!(value(None, &source, "domain", "poolp.org"), "poolp.org");
    assert_eq!(value(None, &source, "credentials", "gilles"), "gilles:…");
    assert_eq!(value(None, &source, "userinfo", "gilles"), "gilles:10:100:/home/gilles");
    value(None, &source, "auth", "gilles:sesame");
    for wrong in ["gilles:wrong", "gilles:", "eric:sesame", "*:sesame", "gilles"] {
        absent(None, &source, "auth", wrong);
    }
    for key in ATTACKS {
        for service in ["alias", "credentials", "domain", "userinfo"] {
            absent(None, &source, service, key);
        }
    }
    let said = failure(None, &source, "alias", "nobody");
    assert!(said.contains("uid=nobody,dc=opensmtpd,dc=org has no maildrop"), "{said}");
    let said = words(&lookup(None, &source, "cert", &["x"]));
    assert!(said.contains("no `cert_filter`"), "{said}");
    cli::succeed(&["table", "check", &source, "alias", "credentials", "domain"]);
    let output = cli::run(&["table", "check", &source, "alias", "mailaddr"]);
    assert_eq!(output.status.code(), Some(EX_CONFIG));
    assert!(words(&output).contains("does not answer mailaddr lookups"), "{}", words(&output));
}

#[test]
fn s55_a_wrong_password_is_a_failure_and_not_an_empty_directory() {
    let slapd = Slapd::new();
    let source = slapd.source(slapd.port, "");
    let path = source.strip_prefix("ldap:").expect("so it begins");
    let text = fs::read_to_string(path).expect("written before").replace("thisbemypasswd", "forgotten");
    fs::write(path, &text).expect("written");
    let said = failure(None, &source, "alias", "staff");
    assert!(said.contains("wrong password") && !said.contains("forgotten"), "{said}");
    // Anonymous, the password cannot be read: the user is there all the same.
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.starts_with("username") && !line.starts_with("password")).collect();
    fs::write(path, lines.join("\n")).expect("written");
    let said = failure(None, &source, "credentials", "gilles");
    assert!(said.contains("has no userPassword, or it may not be read"), "{said}");
    fs::write(
        path,
        text.replace("forgotten", "thisbemypasswd").replace("dc=opensmtpd,dc=org\n\n# al", "dc=elsewhere\n\n# al"),
    )
    .expect("written");
    let said = failure(None, &source, "alias", "staff");
    assert!(said.contains("there is no dc=elsewhere in the directory"), "{said}");
}

/// Its limits are not those of an empty directory; nor is what another server has.
#[test]
fn s58_limits_and_referrals_are_failures_with_a_reason() {
    let entry = |number: usize| {
        format!(
            "\ndn: cn={number},ou=many,dc=opensmtpd,dc=org\nobjectClass: mapEntry\ncn: {number}\nmapKey: many\n\
             mapValue: user{number}\n"
        )
    };
    let entries: String = (0..5).map(entry).collect();
    let slapd = Slapd::limited(
        &format!(
            "\ndn: ou=many,dc=opensmtpd,dc=org\nobjectClass: organizationalUnit\n{entries}\n\
             dn: ou=away,dc=opensmtpd,dc=org\nobjectClass: referral\nobjectClass: extensibleObject\nou: away\n\
             ref: ldap://elsewhere.example/ou=away\n"
        ),
        "sizelimit 3\n",
    );
    let source = |name: &str, base: &str| {
        let path = slapd.dir.path().join(name);
        let port = slapd.port;
        let text = format!(
            "url ldap://127.0.0.1:{port}\nbasedn {base}\nalias_filter (mapKey=%s)\nalias_attributes mapValue\n"
        );
        fs::write(&path, text).expect("written");
        format!("ldap:{}", path.display())
    };
    let many = source("many.conf", "ou=many,dc=opensmtpd,dc=org");
    let said = failure(None, &many, "alias", "many");
    assert!(said.contains("more entries than the server gives at once"), "{said}");
    absent(None, &many, "alias", "none");
    // A part of the whole is elsewhere: who is not found here may be there.
    let said = failure(None, &source("whole.conf", "dc=opensmtpd,dc=org"), "alias", "none");
    assert!(said.contains("table <table>: alias entry of \"none\": the server refers to another one"), "{said}");
    assert!(said.contains("ldap://elsewhere.example/ou=away"), "{said}");
    let said = failure(None, &source("away.conf", "ou=away,dc=opensmtpd,dc=org"), "alias", "none");
    assert!(said.contains("the server refers to another one"), "{said}");
}

#[test]
fn s56_a_directory_that_comes_back_is_asked_again() {
    let mut slapd = Slapd::new();
    let mut asking = Asking::new(&slapd.source(slapd.port, ""), "alias");
    assert_eq!(asking.ask("staff"), "found gilles, eric@example.org");
    slapd.stop();
    for n in 0..8 {
        let answer = asking.ask(&format!("down{n}"));
        assert!(answer.starts_with("failed "), "{answer}");
    }
    assert_eq!(asking.ask("staff"), "found gilles, eric@example.org", "what is known is still given");
    assert_eq!(asking.logged("fails: "), 1);
    slapd.start();
    let mut n = 0;
    wait_until("it answers again", STARTS, || {
        n += 1;
        asking.ask(&format!("up{n}")) == "not-found"
    });
    assert_eq!((asking.logged("fails: "), asking.logged("works again")), (1, 1));
    // Nobody is told of a restart that nobody noticed: the question is put again on a new connection.
    for n in 0..10 {
        slapd.stop();
        slapd.start();
        assert_eq!(asking.ask(&format!("restarted{n}")), "not-found");
    }
    assert_eq!((asking.logged("fails: "), asking.logged("works again")), (1, 1));
}

/// Passes everything on, but for requests with `slow` in them.
fn swallow_slow(to: u16) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for ours in listener.incoming() {
            let (ours, server) =
                (ours.expect("accepted"), TcpStream::connect((Ipv4Addr::LOCALHOST, to)).expect("slapd"));
            let (mut from, mut back) = (server.try_clone().expect("a copy"), ours.try_clone().expect("a copy"));
            // They end when a side closes.
            thread::spawn(move || std::io::copy(&mut from, &mut back));
            thread::spawn(move || pass(ours, server));
        }
    });
    port
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut left = &buffer[..count];
        // Requests are short, so their length is one byte; several may come at once.
        while left.len() > 2 {
            let end = (2 + usize::from(left[1])).min(left.len());
            let request = &left[..end];
            if !request.windows(4).any(|part| part == b"slow") && to.write_all(request).is_err() {
                return;
            }
            left = &left[end..];
        }
    }
}

#[test]
fn s57_a_query_that_hangs_delays_no_other() {
    let slapd = Slapd::new();
    let port = swallow_slow(slapd.port);
    let path = slapd.dir.path().join("short.conf");
    let text = format!(
        "url ldap://127.0.0.1:{port}\nbasedn dc=opensmtpd,dc=org\nalias_filter (uid=%s)\nalias_attributes uid\n"
    );
    fs::write(&path, text).expect("written");
    let mut asking = Asking::new(&format!("ldap:{}", path.display()), "alias");
    assert_eq!(asking.ask("gilles"), "found gilles");
    let before = asking.sockets();
    asking.begin("slow");
    let others = 40;
    (0..others).for_each(|n| asking.begin(&format!("k{n}")));
    let mut answers = Vec::new();
    let slow = loop {
        match asking.next() {
            (key, what, why) if key == "slow" => break (what, why),
            (_, what, _) => answers.push(what),
        }
    };
    assert_eq!(slow, ("failed".into(), "no answer within 3 s".into()));
    assert_eq!(answers, vec!["not-found"; others], "all others were answered long before");
    assert_eq!(asking.sockets(), before, "and on the same connection");
    assert_eq!(asking.ask("staff"), "found staff");
}

/// A path that tests may write to.
fn config(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("ldap.conf");
    fs::write(&path, text).expect("written");
    path
}

#[test]
fn s57_a_server_that_never_answers_fails_in_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    let text = format!("url ldap://{address}\nbasedn x\nalias_filter (uid=%s)\nalias_attributes uid\n");
    let source = format!("ldap:{}", config(dir.path(), &text).display());
    let said = failure(None, &source, "alias", "gilles");
    assert!(said.contains("no answer within 3 s"), "{said}");
    // A second server takes over from one that cannot be reached.
    let slapd = Slapd::new();
    let text = slapd.source(slapd.port, "");
    let text = fs::read_to_string(text.strip_prefix("ldap:").expect("so it begins")).expect("written");
    let closed = ports::free();
    let text = text.replace("url             ", &format!("url             ldap://127.0.0.1:{closed} "));
    let source = format!("ldap:{}", config(dir.path(), &text).display());
    let found = wait_for("an answer", STARTS, || Some(value(None, &source, "alias", "staff")));
    assert_eq!(found, "gilles, eric@example.org");
}
