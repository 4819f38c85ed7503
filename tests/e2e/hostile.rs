//! Addresses that mean harm (`hostile/addresses.rs`), by every way that mail can go: no path, shell, argument, line of a
//! protocol or query is anything else than it would be for an honest one, and the server goes on.

mod addresses;
mod backends;
mod tree;
mod wire;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use self::addresses::{Kind, TABLE, Taken, taken};
use self::wire::Wire;
use crate::support::homes::{forward, give, mode, someone};
use crate::support::server::PROGRAM;
use crate::support::text::{MARK, stuffed};
use crate::support::{Server, Setup, wait_until};

const SOON: Duration = Duration::from_secs(60);
/// Clients at once: most of the time is spent waiting for helpers.
const CLIENTS: usize = 4;
/// A name in a directory is at most so long.
const NAME_BYTES: usize = 255;

/// A directory of the user of all these deliveries; of everybody, if `open`.
fn directory(setup: &Setup, path: &str, open: bool) -> PathBuf {
    let full = setup.dir().join(path);
    fs::create_dir_all(&full).expect("made");
    give(&full);
    mode(&full, if open { 0o1777 } else { 0o755 });
    full
}

fn program(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    mode(path, 0o755);
}

/// Writes down how many arguments it has, and each; and the recipient of its environment.
const ARGUMENTS: &str = "#!/bin/sh
line=$#
for one; do line=\"$line\t$one\"; done
printf '%s\\t%s\\n' \"$line\" \"$RECIPIENT\" >> \"$HOME/arguments\"
";

/// What every value becomes that a stranger has written: this stays, all else is a colon.
fn cleaned(text: &str) -> String {
    let stays =
        |c: char| c.is_alphanumeric() || "+,-.:=@[]^_\u{301}\u{2018}\u{2019}\u{2215}\u{ff0e}\u{ff0f}".contains(c);
    text.chars().map(|c| if stays(c) { c } else { ':' }).collect()
}

/// The same at the begin of an argument, where it would be an option.
fn argument(text: &str) -> String {
    let text = cleaned(text);
    text.strip_prefix('-').map(|rest| format!(":{rest}")).unwrap_or(text)
}

/// `[1:-1]`.
fn inner(text: &str) -> String {
    let count = text.chars().count();
    text.chars().take(count.saturating_sub(1)).skip(1).collect()
}

fn rules(relay: &Wire, store: &Wire) -> String {
    let (uid, gid) = someone();
    let dir = "@DIR@";
    let mut rules = format!(
        "table users {{ vmail => vmail:{uid}:{gid}:/home/vmail, fwd => fwd:{uid}:{gid}:/home/fwd }}\n\
         table anyone proc:/anyone\n\
         mda wrapper shell \"/bin/sh -c 'exec %{{mda}}'\"\n"
    );
    let as_vmail = "user vmail userbase <users>";
    let (smtp, lmtp) = (relay.address, store.address);
    for (name, action) in [
        ("ring", "maildir \"/mail/ring/%{rcpt.user}/%{sender.user}\"".to_owned()),
        ("slice", "maildir \"/mail/slice/%{rcpt.user[1:-1]}\"".to_owned()),
        ("asuser", format!("maildir \"/mail/asuser/%{{rcpt.user}}\" {as_vmail}")),
        ("mbox", "mbox userbase <anyone>".to_owned()),
        ("file", "maildir \"/none\" virtual { \"@\" => \"/mail/file/%{rcpt.user}\" }".to_owned()),
        ("mda", format!("mda \"{dir}/arguments %{{rcpt.user}} %{{dest}} %{{sender}} %{{rcpt.ext}}\" {as_vmail}")),
        (
            "shell",
            format!(
                "mda \"/bin/sh -c 'exec {dir}/arguments x%{{rcpt.user[1:-1]}} x%{{rcpt.ext}} x%{{sender}}'\" {as_vmail}"
            ),
        ),
        (
            "wrapped",
            format!("mda \"{dir}/arguments %{{rcpt.user:raw}} %{{rcpt.user[1:-1]:raw}}\" wrapper shell {as_vmail}"),
        ),
        ("fwd", "maildir \"~/none\" virtual { \"@\" => fwd } userbase <users>".to_owned()),
        ("store", format!("lmtp \"{lmtp}\" rcpt-to {as_vmail}")),
        ("storeuser", format!("lmtp \"{lmtp}\" userbase <anyone>")),
        ("relay", format!("relay host \"smtp+notls://{smtp}\"")),
    ] {
        rules += &format!("action {name} {action}\nmatch from any for domain {name}.example action {name}\n");
    }
    rules
}

const DOMAINS: [&str; 12] =
    ["ring", "slice", "asuser", "mbox", "file", "mda", "shell", "wrapped", "fwd", "store", "storeuser", "relay"];

/// Those where the local part is a user's name.
const OF_USERS: [&str; 2] = ["mbox", "storeuser"];

/// With everything that its rules name.
fn everything(relay: &Wire, store: &Wire) -> Setup {
    let setup = Setup::new(rules(relay, store)).root();
    mode(setup.dir(), 0o755);
    for (path, open) in [("home/vmail", false), ("home/fwd", false), ("mail", true), ("var/mail", true)] {
        directory(&setup, &format!("root/{path}"), open);
    }
    for (path, open) in [("ring", false), ("slice", false), ("asuser", false), ("file", true)] {
        directory(&setup, &format!("root/mail/{path}"), open);
    }
    program(&setup.dir().join("arguments"), ARGUMENTS);
    let (uid, gid) = someone();
    let anyone = format!(
        "#!/bin/sh\nwhile IFS='|' read -r kind version time name operation service id key; do\n\
         case $kind in\nconfig) [ \"$version\" = ready ] && printf 'register|userinfo\\nregister|ready\\n' ;;\n\
         *) echo \"lookup-result|$id|found|{uid}:{gid}:/home/vmail\" ;;\nesac\ndone\n"
    );
    program(&setup.dir().join("root/anyone"), &anyone);
    let line = format!("\"|{}/arguments %{{rcpt.user}} %{{sender}} %{{rcpt.ext}}-x\"\n", setup.dir().display());
    forward(&setup.dir().join("root/home/fwd"), &line);
    setup
}

/// A message of this address to itself, at every domain; the domains that have taken it.
fn send(server: &Server, one: &Taken) -> Vec<&'static str> {
    let Taken { row, local } = one;
    let mut client = server.client();
    let reply = client.say(&format!("MAIL FROM:<{local}@from.example>{}", one.parameter()));
    assert_eq!(reply.code, 250, "{local}: {reply:?}");
    let mut to = Vec::new();
    for domain in DOMAINS {
        let reply = client.say(&format!("RCPT TO:<{local}@{domain}.example>"));
        match reply.code {
            250 => to.push(domain),
            _ => assert!(OF_USERS.contains(&domain) && reply.starts_with("550 5.1.1"), "{local}@{domain}: {reply:?}"),
        }
    }
    assert_eq!(client.say("DATA").code, 354);
    client.send(&stuffed(format!("{MARK}{row}\r\nSubject: x\r\n\r\nhello\r\n").as_bytes()));
    assert_eq!(client.reply().code, 250, "{local}");
    to
}

#[test]
fn hostile_addresses_go_where_they_should_by_every_way() {
    let (relay, store) = (Wire::open(), Wire::open());
    let server = everything(&relay, &store).start();
    let before = tree::paths(server.dir(), &["state", "log"]);
    let rows: Vec<Taken> = taken().collect();
    let sent: BTreeMap<usize, Vec<&str>> = thread::scope(|scope| {
        let clients = rows.chunks(rows.len().div_ceil(CLIENTS)).map(|part| {
            let server = &server;
            scope.spawn(move || part.iter().map(|one| (one.row, send(server, one))).collect::<Vec<_>>())
        });
        let clients: Vec<_> = clients.collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    let mut expected = Expected::default();
    for one in &rows {
        expected.add(one, &sent[&one.row]);
    }
    wait_until("all is delivered that can be", SOON, || {
        let queue = server.queue();
        queue.len() == expected.deferred.len() && queue.iter().all(|one| one.state == "deferred")
    });
    let mut deferred: Vec<String> = server.queue().into_iter().map(|one| one.recipient).collect();
    deferred.sort_unstable();
    expected.deferred.sort_unstable();
    assert_eq!(deferred, expected.deferred);

    let root = server.dir().join("root");
    assert!(expected.maildirs["ring"].values().flatten().count() > 60 && expected.mailboxes.len() > 30);
    for (name, expected) in &expected.maildirs {
        assert_eq!(tree::maildirs(&root.join("mail").join(name)), *expected, "{name}");
    }
    for (place, expected) in [("mail/file", &expected.files), ("var/mail", &expected.mailboxes)] {
        let names = tree::paths(&root.join(place), &[]);
        let found =
            names.into_iter().map(|name| (tree::keys(&fs::read(root.join(place).join(&name)).expect("a file")), name));
        let found: BTreeMap<PathBuf, Vec<usize>> = found.map(|(keys, name)| (name, keys)).collect();
        assert_eq!(found, *expected, "{place}");
    }
    for (home, expected) in [("vmail", &mut expected.arguments), ("fwd", &mut expected.forwarded)] {
        let text = fs::read_to_string(root.join("home").join(home).join("arguments")).expect("it was written");
        let mut found: Vec<&str> = text.lines().collect();
        found.sort_unstable();
        expected.sort_unstable();
        for (found, expected) in found.iter().zip(expected.iter()) {
            assert_eq!(found, expected, "{home}");
        }
        assert_eq!(found.len(), expected.len(), "{home}");
    }
    for (wire, expected) in [(&relay, &mut expected.relayed), (&store, &mut expected.stored)] {
        expected.sort_unstable();
        let found = wire.said("RCPT TO:");
        let found: Vec<&str> = found.iter().map(|line| std::str::from_utf8(line).expect("as it was")).collect();
        assert_eq!(found, *expected);
        wire.said_nothing_but(&["EHLO ", "LHLO ", "MAIL FROM:<", "RCPT TO:<", "DATA\r\n", "QUIT\r\n", "RSET\r\n"]);
    }
    // Nothing else anywhere: what is new is below the places that were named.
    let places = ["root/mail/ring", "root/mail/slice", "root/mail/asuser", "root/mail/file", "root/var/mail"];
    let after = tree::paths(server.dir(), &["state", "log"]);
    for new in after.difference(&before) {
        let known = places.iter().any(|place| new.starts_with(place)) || new.ends_with("arguments");
        assert!(known, "{}", new.display());
        assert_ne!(new.file_name(), Some(OsStr::new(tree::CANARY)), "{}", new.display());
    }
    tree::no_canary_outside(server.dir());
    assert_eq!(server.client().say("NOOP").code, 250);
    assert!(!server.printed().contains("panicked"));
}

/// Where everything must be in the end.
#[derive(Default)]
struct Expected {
    deferred: Vec<String>,
    maildirs: BTreeMap<&'static str, BTreeMap<PathBuf, Vec<usize>>>,
    files: BTreeMap<PathBuf, Vec<usize>>,
    mailboxes: BTreeMap<PathBuf, Vec<usize>>,
    arguments: Vec<String>,
    forwarded: Vec<String>,
    relayed: Vec<String>,
    stored: Vec<String>,
}

impl Expected {
    fn add(&mut self, one: &Taken, to: &[&str]) {
        let (local, row) = (one.local, one.row);
        let (user, ext) = (cleaned(local), cleaned(one.extension()));
        let sender = format!("{local}@from.example");
        let at = |domain: &str| format!("{local}@{domain}.example");
        // What is no name of a file waits for the administrator (grammar §8), or for a larger disk.
        let is_name = |name: &str, more: usize| !["", ".", ".."].contains(&name) && name.len() + more <= NAME_BYTES;
        for (domain, path, names) in [
            ("ring", format!("{user}/{user}"), [user.clone(), user.clone()]),
            ("slice", inner(&user), [inner(&user), inner(&user)]),
            ("asuser", user.clone(), [user.clone(), user.clone()]),
        ] {
            let all = self.maildirs.entry(domain).or_default();
            match names.iter().all(|name| is_name(name, 0)) {
                true => all.entry(path.into()).or_default().push(row),
                false => self.deferred.push(at(domain)),
            }
        }
        match is_name(&user, 0) {
            true => self.files.entry(user.clone().into()).or_default().push(row),
            false => self.deferred.push(at("file")),
        }
        let line = |words: &[String], domain: &str| format!("{}\t{}\t{}", words.len(), words.join("\t"), at(domain));
        let words = [argument(local), argument(&at("mda")), argument(&sender), argument(one.extension())];
        self.arguments.push(line(&words, "mda"));
        let words = [inner(&user), ext, cleaned(&sender)].map(|word| format!("x{word}"));
        self.arguments.push(line(&words, "shell"));
        self.arguments.push(line(&[local.to_owned(), inner(local)], "wrapped"));
        let last = argument(&format!("{}-x", one.extension()));
        self.forwarded.push(line(&[argument(local), argument(&sender), last], "fwd"));
        self.relayed.push(format!("<{}>\r\n", at("relay")));
        self.stored.push(format!("<{}>\r\n", at("store")));
        self.add_user(one, to);
    }

    /// A user of this name, if it can be one: a file of exactly that name, a word of one line.
    fn add_user(&mut self, one: &Taken, to: &[&str]) {
        let unquoted = one.unquoted().to_lowercase();
        let name = unquoted.find('+').filter(|at| *at > 0).map_or(&*unquoted, |at| &unquoted[..at]);
        let harmful = |c: char| c == '/' || c == '<' || c == '>' || c.is_whitespace() || c.is_control();
        let may_be = !name.is_empty() && !name.starts_with('.') && !name.contains(harmful);
        for domain in OF_USERS.into_iter().filter(|domain| to.contains(domain)) {
            assert!(may_be, "{name:?} is no user's name, and {domain} has taken it");
            match domain {
                "storeuser" => self.stored.push(format!("<{name}>\r\n")),
                // With its lock beside it.
                _ if name.len() + ".lock".len() <= NAME_BYTES => {
                    self.mailboxes.entry(name.into()).or_default().push(one.row);
                }
                _ => self.deferred.push(format!("{}@{domain}.example", one.local)),
            }
        }
    }
}

/// All replies to RCPT with this local part, as codes; the connection is used for nothing else.
fn replies(server: &Server, parameter: &str, local: &[u8]) -> Vec<u16> {
    let mut stream = TcpStream::connect(server.smtp).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("set");
    let head = format!("EHLO x\r\nMAIL FROM:<s@from.example>{parameter}\r\nRCPT TO:<");
    let command = [head.as_bytes(), local, b"@ring.example>\r\nQUIT\r\n"].concat();
    stream.write_all(&command).expect("sent");
    let mut said = Vec::new();
    // It may cut off who says too much nonsense.
    let _ = stream.read_to_end(&mut said);
    let said = String::from_utf8(said).expect("text");
    let replies = said.lines().filter(|line| line.as_bytes().get(3) == Some(&b' '));
    // Greeting, EHLO and MAIL.
    replies.skip(3).map(|line| line[..3].parse().expect("a code")).collect()
}

#[test]
fn hostile_addresses_that_are_none_are_refused() {
    let (relay, store) = (Wire::open(), Wire::open());
    let server = everything(&relay, &store).start();
    for (kind, local) in TABLE {
        let shown = String::from_utf8_lossy(local);
        let announced = replies(&server, " SMTPUTF8", local);
        let plain = replies(&server, "", local);
        let refused = |codes: &[u16]| {
            !codes.is_empty() && codes.iter().all(|code| *code == 221 || *code / 100 == 5 || *code == 250)
        };
        match kind {
            Kind::Address => assert_eq!((&announced[..], &plain[..]), (&[250, 221][..], &[250, 221][..]), "{shown:?}"),
            Kind::Utf8 => assert_eq!((&announced[..], &plain[..]), (&[250, 221][..], &[553, 221][..]), "{shown:?}"),
            Kind::None => {
                // A line of its own within it may be a command, and RSET is a harmless one.
                let allowed = usize::from(local.windows(6).any(|part| part == b"RSET\r\n"));
                for codes in [&announced, &plain] {
                    assert!(refused(codes), "{shown:?}: {codes:?}");
                    assert!(codes.iter().filter(|code| **code == 250).count() <= allowed, "{shown:?}: {codes:?}");
                }
            }
        }
    }
    assert!(server.queue().is_empty());
    assert_eq!(server.client().say("NOOP").code, 250);
}

#[test]
fn hostile_arguments_of_sendmail_are_one_recipient_or_none() {
    let relay = Wire::open();
    let rules =
        format!("action out relay host \"smtp+notls://{}\"\nmatch from any for any action out\n", relay.address);
    let server = Setup::new(rules).start();
    let mut expected = Vec::new();
    let before = tree::paths(server.dir(), &["state", "log"]);
    for (kind, local) in TABLE.iter().filter(|(_, local)| !local.contains(&0)) {
        let address = [local, &b"@relay.example"[..]].concat();
        let mut command = Command::new(PROGRAM);
        command.args(["--state".as_ref(), server.state.as_os_str(), "sendmail".as_ref(), "-f".as_ref()]);
        command.args([OsStr::from_bytes(&address), "--".as_ref(), OsStr::from_bytes(&address)]);
        command.current_dir(server.dir()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        // One that refuses its command line does not read.
        let _ = child.stdin.take().expect("piped").write_all(b"Subject: x\n\nhello\n");
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        let shown = String::from_utf8_lossy(&address);
        match (kind, output.status.success()) {
            // As in a field of a header, blanks and commas divide: what comes of it is looked at below.
            (Kind::None, true) => {}
            (Kind::None, false) => assert!(said.starts_with("send-mail: "), "{shown:?}: {said}"),
            (_, success) => {
                assert!(success, "{shown:?}: {said}");
                expected.push([b"<", &address[..], b">\r\n"].concat());
            }
        }
    }
    wait_until("all is relayed", SOON, || server.queue().is_empty());
    let mut others = relay.said("RCPT TO:");
    for one in expected {
        let at = others.iter().position(|line| *line == one);
        others.remove(at.unwrap_or_else(|| panic!("{:?} did not arrive", String::from_utf8_lossy(&one))));
    }
    for line in others {
        let path = line.strip_prefix(b"<").and_then(|rest| rest.strip_suffix(b">\r\n"));
        let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b"<>\\\"".contains(byte);
        assert!(path.is_some_and(|path| path.iter().all(is_plain)), "{:?}", String::from_utf8_lossy(&line));
    }
    relay.said_nothing_but(&["EHLO ", "MAIL FROM:<", "RCPT TO:<", "DATA\r\n", "QUIT\r\n", "RSET\r\n"]);
    assert_eq!(tree::paths(server.dir(), &["state", "log"]), before);
    tree::no_canary_outside(server.dir());
}
