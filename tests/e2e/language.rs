//! The configuration language, as the built program reads it: the fixtures of `docs/grammar.md`, and files of few lines that
//! are whole servers.

#[path = "../../conf/tests/book/mod.rs"]
mod book;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use self::book::{Data, Fixture, expected, extract};
use crate::support::homes::{mode, someone};
use crate::support::{Client, Server, Setup, Sink, cli, maildir, tls, wait_until};

const EX_CONFIG: i32 = 78;
const SOON: Duration = Duration::from_secs(20);

/// Files below a root, and fixtures beside it.
struct Bench {
    dir: tempfile::TempDir,
    fixtures: Vec<Fixture>,
    data: Vec<Data>,
}

impl Bench {
    /// Of the fixtures whose names begin so.
    fn new(kinds: &[char]) -> Self {
        let (mut fixtures, data) = extract();
        fixtures.retain(|fixture| fixture.name.starts_with(kinds));
        let dir = tempfile::tempdir().expect("a directory");
        // One pair stands for all that fixtures name: they belong together, and are good.
        tls::pair(dir.path(), "pair", &["mail.example.com"], &rcgen::PKCS_ECDSA_P256_SHA256);
        Self { dir, fixtures, data }
    }

    fn fixture(&self, name: &str) -> &Fixture {
        self.fixtures.iter().find(|fixture| fixture.name == name).expect("a fixture")
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// The file, and all that it names below the root.
    fn put(&self, fixture: &Fixture, text: &str) -> String {
        for (path, text) in book::beside(fixture, &self.data) {
            let path = self.root().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("key") => fs::copy(self.dir.path().join("pair.key"), &path).expect("written"),
                Some("pem") if path.ends_with("privkey.pem") => {
                    fs::copy(self.dir.path().join("pair.key"), &path).expect("written")
                }
                Some("pem" | "crt") => fs::copy(self.dir.path().join("pair.crt"), &path).expect("written"),
                _ => fs::write(&path, text).map(|()| 0).expect("written"),
            };
            mode(&path, 0o600);
        }
        let path = self.dir.path().join(fixture.file());
        fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    fn run(&self, args: &[&str]) -> Output {
        let root = self.root().display().to_string();
        cli::run(&[&["--root", &root], args].concat())
    }

    /// Standard output of a run that must succeed.
    fn succeed(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// `check --json`, without its notes: exit code and problems.
    fn check(&self, path: &str) -> (Option<i32>, Vec<Value>) {
        let output = self.run(&["check", "--json", path]);
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let problems = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object a line"));
        (output.status.code(), problems.filter(|problem| problem["severity"] != "note").collect())
    }

    /// What `explain` says in the end, without the names of actions.
    fn decision(&self, path: &str, args: &[&str]) -> String {
        let told = self.succeed(&[&["explain", "--json", "--config", path], args].concat());
        let told: Value = serde_json::from_str(&told).expect("JSON");
        match told["outcome"]["deliveries"].as_array() {
            None => told["outcome"].to_string(),
            Some(all) => {
                let one =
                    |one: &Value| format!("{} {} {} {}", one["does"], one["user"], one["special"], one["address"]);
                all.iter().map(one).collect::<Vec<_>>().join("; ")
            }
        }
    }
}

fn code(problem: &Value) -> &str {
    problem["code"].as_str().expect("a code")
}

#[test]
fn s02_every_example_passes_and_its_canonical_form_prints_itself() {
    let bench = Bench::new(&['P', 'M', 'L']);
    for fixture in &bench.fixtures {
        let path = bench.put(fixture, &fixture.whole());
        let (exit, problems) = bench.check(&path);
        assert_eq!(exit, Some(0), "{}: {problems:?}", fixture.name);
        if fixture.name.starts_with('P') {
            // What depends on the machine aside.
            let aside = |code: &str| matches!(code, "W0808" | "W0813");
            let mut got = BTreeMap::new();
            problems
                .iter()
                .map(code)
                .filter(|code| !aside(code))
                .for_each(|code| *got.entry(code.to_owned()).or_insert(0) += 1);
            let mut said = expected::warnings(&fixture.after);
            said.retain(|code, _| !aside(code));
            assert_eq!(got, said, "{}: {problems:?}", fixture.name);
        }
        let once = bench.succeed(&["check", "--canonical", &path]);
        let again = bench.put(fixture, &once);
        assert_eq!(bench.succeed(&["check", "--canonical", &again]), once, "{}", fixture.name);
    }
}

#[test]
fn s03_what_is_twisted_is_refused_with_place_code_and_words() {
    let bench = Bench::new(&['R']);
    for fixture in &bench.fixtures {
        let path = bench.put(fixture, &fixture.text);
        let (exit, problems) = bench.check(&path);
        assert_eq!(exit, Some(EX_CONFIG), "{}: {problems:?}", fixture.name);
        let errors = problems.iter().filter(|problem| problem["severity"] == "error");
        let got: Vec<String> = errors
            .map(|problem| {
                let text = |name: &str| problem[name].as_str().unwrap_or_default().replace(&format!("{path}:"), "");
                let (message, help) = (text("message"), text("help"));
                format!("{}:{} {} {message} = {help}", problem["line"], problem["column"], code(problem))
            })
            .collect();
        assert_eq!(got, expected::errors(&fixture.after), "{}", fixture.name);
        // The same for people: with the line and a mark below it.
        let output = bench.run(&["check", &path]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(EX_CONFIG) && output.stdout.is_empty(), "{said}");
        assert!(said.contains('^') && said.contains("Nothing was loaded."), "{said}");
    }
}

#[test]
fn s16_converted_files_are_canonical_keep_comments_and_decide_alike() {
    let bench = Bench::new(&['P', 'L']);
    for fixture in &bench.fixtures {
        let whole = fixture.whole();
        let path = bench.put(fixture, &whole);
        let converted = bench.succeed(&["convert", &path]);
        let sessions: [&[&str]; 3] = [
            &["--rcpt", "gilles@example.org"],
            &["--from", "192.168.1.7", "--sender", "a@poolp.org", "--rcpt", "staff@poolp.org"],
            &[
                "--from",
                "192.0.2.5",
                "--sender",
                "x@openbsd.org",
                "--user",
                "joe",
                "--tag",
                "DKIM",
                "--rcpt",
                "x@b.example",
            ],
        ];
        let decisions = |path: &str| sessions.map(|session| bench.decision(path, session));
        let before = decisions(&path);
        // In the same place, so that lines are called the same.
        let path = bench.put(fixture, &converted);
        assert_eq!(decisions(&path), before, "{}:\n{converted}", fixture.name);
        let (exit, problems) = bench.check(&path);
        assert!(
            exit == Some(0) && problems.iter().all(|problem| code(problem) != "W0804"),
            "{converted}\n{problems:?}"
        );
        assert_eq!(bench.succeed(&["convert", &path]), converted, "{}", fixture.name);
        let statements = converted.lines().map(str::trim);
        assert!(
            !statements.clone().any(|line| line.starts_with("accept") || line.starts_with("reject")),
            "{converted}"
        );
        for comment in whole.lines().filter_map(|line| line.trim().strip_prefix('#')) {
            assert!(converted.contains(comment), "{}: `{comment}` is lost:\n{converted}", fixture.name);
        }
    }
}

#[test]
fn s13_for_all_means_for_any() {
    let bench = Bench::new(&['P']);
    for name in ["P21", "P22"] {
        let fixture = bench.fixture(name);
        let path = bench.put(fixture, &fixture.whole());
        let (exit, problems) = bench.check(&path);
        let old = problems.iter().find(|problem| code(problem) == "W0804").expect("a warning");
        assert!(exit == Some(0) && old["message"].as_str().is_some_and(|text| text.contains("now `any`")), "{old}");
        let any = bench.put(&Fixture { name: "any".into(), ..empty() }, &fixture.whole().replace("for all", "for any"));
        for to in ["x@example.org", "y@localhost", "z@never.example"] {
            let decided = bench.decision(&path, &["--rcpt", to]);
            assert!(decided.contains("relay"), "{decided}");
            assert_eq!(decided, bench.decision(&any, &["--rcpt", to]));
        }
    }
}

fn empty() -> Fixture {
    Fixture { name: String::new(), text: String::new(), after: String::new() }
}

/// A file of the book with what every test needs in front, its data files below the root, and these users.
fn server_of(name: &str, users: &[&str]) -> Server {
    let bench = Bench::new(&['P']);
    let fixture = bench.fixture(name);
    let setup = Setup::new(&fixture.text).with_users(users);
    for data in bench.data.iter().filter(|data| data.name == name) {
        setup.put(&format!("root{}", data.path), &data.text);
    }
    setup.start()
}

/// `check` of the server's file.
fn checked(server: &Server) -> String {
    let conf = server.dir().join("ringpost.conf").display().to_string();
    let root = server.dir().join("root").display().to_string();
    let output = cli::run(&["check", "--root", &root, &conf]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn submit(client: &mut Client, to: &[&str], text: &str) {
    let reply = client.submit("s@source.example", to, format!("Subject: t\r\n\r\n{text}\r\n").as_bytes());
    assert_eq!(reply.code, 250, "{reply:?}");
}

fn wait_for_all(server: &Server) {
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
}

#[test]
fn s14_a_rule_without_a_disposition_delivers() {
    let server = server_of("P06", &["gilles", "eric", "chl"]);
    let said = checked(&server);
    assert!(said.contains("warning[W0811]: `deliver to mbox` is assumed"), "{said}");
    submit(&mut server.client(), &["staff@poolp.org"], "to all of the staff");
    submit(&mut server.client(), &["staff@opensmtpd.org"], "once more");
    wait_for_all(&server);
    for name in ["gilles", "eric", "chl"] {
        let mailbox = fs::read_to_string(server.dir().join("root/var/mail").join(name)).expect("a mailbox");
        assert!(mailbox.contains("to all of the staff") && mailbox.contains("once more"), "{name}: {mailbox}");
    }
    assert_eq!(fs::read_dir(server.dir().join("root/var/mail")).expect("a directory").count(), 3);
}

#[test]
fn s15_the_form_before_has_domains_and_users_in_one_table() {
    let server = server_of("P01", &["gilles"]);
    let said = checked(&server);
    assert!(said.contains("warning[W0804]") && said.contains("`for domain"), "{said}");
    submit(&mut server.client(), &["gilles@example.org"], "by name");
    submit(&mut server.client(), &["x@example.org"], "by the catch-all");
    wait_for_all(&server);
    assert_eq!(maildir::messages(&server.dir().join("root/home/gilles/Maildir")).len(), 2);
    let mut client = server.client();
    assert_eq!(client.say("MAIL FROM:<s@source.example>").code, 250);
    assert!(client.say("RCPT TO:<x@example.net>").starts_with("550"));
    // The converted file has the form of today, and decides alike.
    let root = server.dir().join("root").display().to_string();
    let old = server.dir().join("ringpost.conf");
    let converted = cli::succeed(&["convert", &old.display().to_string()]);
    assert!(
        converted.contains("maildir virtual <domains>") && converted.contains("for domain <domains>"),
        "{converted}"
    );
    let new = server.dir().join("new.conf");
    fs::write(&new, &converted).expect("written");
    for to in ["gilles@example.org", "x@example.org", "x@example.net", "x@localhost"] {
        let last = |path: &Path| {
            let told =
                cli::succeed(&["explain", "--root", &root, "--config", &path.display().to_string(), "--rcpt", to]);
            told.lines().last().expect("a line").to_owned()
        };
        assert_eq!(last(&new), last(&old), "{converted}");
    }
}

#[test]
fn s01_a_whole_server_in_four_lines() {
    let text = "listen on lo0\ntable aliases file:/etc/mail/aliases\n\
                accept for local alias <aliases> deliver to mbox\naccept for any relay\n";
    let (setup, port) = Setup::whole(text)
        .with_users(&["gilles"])
        .zone("example.net MX 10 mx.example.net\nmx.example.net A 127.0.0.2\n");
    setup.put("root/etc/mail/aliases", "root: gilles\n");
    let mut server = setup.prepare();
    let root = server.dir().join("root").display().to_string();
    let output = cli::run(&["check", "--root", &root, &server.dir().join("ringpost.conf").display().to_string()]);
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    let sink = Sink::open_at((Ipv4Addr::new(127, 0, 0, 2), port).into());
    server.smtp = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    server.start();
    submit(&mut server.client(), &["root@localhost"], "for root");
    submit(&mut server.client(), &["x@example.net"], "for elsewhere");
    wait_for_all(&server);
    let mailbox = fs::read_to_string(server.dir().join("root/var/mail/gilles")).expect("a mailbox");
    assert!(mailbox.contains("for root") && !mailbox.contains("for elsewhere"), "{mailbox}");
    let arrived = sink.wait_for(1, SOON);
    assert!(arrived.len() == 1 && arrived[0].to == ["x@example.net"], "{arrived:?}");
}

/// Aliases, primary domains, backup MX, virtual domains, relaying.
const COMPLEX: &str = "\
listen on lo0
table aliases file:/etc/mail/aliases
table primary { poolp.org, \"*.poolp.org\" }
table virtual { opensmtpd.org, opensmtpd.example }
table users { root => gilles, staff => gilles,eric, \"@\" => chl }
accept for local alias <aliases> deliver to mbox
accept from any for domain <primary> alias <aliases> deliver to maildir
accept from any for domain <virtual> virtual <users> deliver to maildir
accept from any for domain backup.example relay backup mx2.poolp.org
accept for any relay
";

#[test]
fn s01_a_complex_setup_in_fifteen_lines() {
    assert!(COMPLEX.lines().count() <= 15);
    let (setup, _) = Setup::whole(COMPLEX).with_users(&["gilles", "eric", "chl"]).zone("x.example A 127.0.0.2\n");
    setup.put("root/etc/mail/aliases", "root: gilles\n");
    let server = setup.prepare();
    let said = checked(&server);
    assert!(!said.contains("warning") && !said.contains("error"), "{said}");
    let root = server.dir().join("root").display().to_string();
    let conf = server.dir().join("ringpost.conf").display().to_string();
    let (uid, _) = someone();
    let of = |name: &str| format!(" as {name}={uid}:");
    let near = "127.0.0.1";
    let far = "192.0.2.9";
    let cases = [
        (near, "root@localhost", vec![("mbox", of("gilles"))]),
        (far, "root@localhost", vec![]),
        (far, "Root@a.poolp.org", vec![("maildir", of("gilles"))]),
        (far, "eric+x@poolp.org", vec![("maildir", of("eric"))]),
        (far, "staff@opensmtpd.org", vec![("maildir", of("gilles")), ("maildir", of("eric"))]),
        (far, "whoever@opensmtpd.example", vec![("maildir", of("chl"))]),
        (far, "x@backup.example", vec![("relay", String::new())]),
        (near, "x@elsewhere.example", vec![("relay", String::new())]),
        (far, "x@elsewhere.example", vec![]),
    ];
    for (from, to, deliveries) in cases {
        let told = cli::succeed(&["explain", "--root", &root, "--config", &conf, "--from", from, "--rcpt", to]);
        let last: Vec<&str> = told.lines().filter(|line| line.starts_with("delivery: ")).collect();
        assert_eq!(last.len(), deliveries.len(), "{from} {to}:\n{told}");
        assert_eq!(told.contains("refused: 550 5."), deliveries.is_empty(), "{from} {to}:\n{told}");
        for (line, (kind, user)) in last.iter().zip(deliveries) {
            assert!(line.contains(&format!(": {kind}")) && line.contains(&user), "{from} {to}:\n{told}");
        }
    }
}
