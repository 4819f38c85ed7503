//! Aliases, virtual domains and lists at work: who gets a copy, once; what is refused; what waits in the queue, and where it
//! goes when the configuration has changed meanwhile.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::mail::{rcpt, submit, text, wait_for_all};
use crate::support::server::{LISTENERS, SMALL};
use crate::support::sink::Received;
use crate::support::wait::wait_for;
use crate::support::{Server, Setup, Sink, cli, maildir, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// `poolp.org` is here, in Maildirs that are nobody's in particular; all else goes to the sink.
fn rules(sink: &Sink, mapping: &str, tables: &str) -> String {
    format!(
        "{tables}action \"local\" maildir \"@DIR@/mail/%{{dest.domain}}/%{{dest.user}}\" {mapping}\n\
         action \"out\" relay host \"smtp+notls://{}\"\n\
         match from any for domain {{ poolp.org, opensmtpd.org, example.org }} action \"local\"\n\
         match from local for any action \"out\"\n",
        sink.address
    )
}

fn mailbox(server: &Server, at: &str) -> PathBuf {
    server.dir().join("mail").join(at)
}

fn copies(server: &Server, at: &str) -> usize {
    maildir::messages(&mailbox(server, at)).len()
}

fn to_of(received: &[Received]) -> Vec<&str> {
    let mut to: Vec<&str> = received.iter().flat_map(|one| one.to.iter().map(String::as_str)).collect();
    to.sort_unstable();
    to
}

#[test]
fn s23_aliases_of_a_file() {
    let sink = Sink::open();
    let setup = Setup::new(rules(&sink, "alias <a>", "table a \"@DIR@/aliases\"\n"));
    fs::write(
        setup.dir().join("aliases"),
        "# sendmail's form\nstaff: gilles, eric@away.example\ninfo: staff, gilles\ngilles: gilles, archive\n\
         a: b\nb: a\nNews+x: chl\ngone: error:551 5.1.6 moved away\n",
    )
    .expect("written");
    let server = setup.start();
    submit(&server, &["Info@poolp.org"], "info");
    wait_for_all(&server);
    assert_eq!(to_of(&sink.wait_for(1, SOON)), ["eric@away.example"]);
    assert_eq!((copies(&server, "poolp.org/gilles"), copies(&server, "poolp.org/archive")), (1, 1), "once each");
    submit(&server, &["news+X@poolp.org", "gilles+y@poolp.org", "other+z@poolp.org"], "plus");
    wait_for_all(&server);
    assert_eq!((copies(&server, "poolp.org/chl"), copies(&server, "poolp.org/archive")), (1, 2));
    assert_eq!(copies(&server, "poolp.org/other+z"), 1);
    assert!(rcpt(&server, "a@poolp.org").starts_with("550 5.4.6"));
    assert!(rcpt(&server, "gone@poolp.org").starts_with("551 5.1.6 moved away"));
    wait_until("the log shows the cycle", SOON, || server.printed().contains("loop in aliases: a -> b -> a"));
}

#[test]
fn s24_s26_virtual_domains_and_catch_alls() {
    let sink = Sink::open();
    let setup = Setup::new(rules(&sink, "virtual <v>", "table v \"@DIR@/virtual\"\n"));
    let table = "chl@example.org chl\n@example.org gilles # catch all\n# example.org enabled -> no longer required\n\
                 fwd@poolp.org x@away.example\n";
    fs::write(setup.dir().join("virtual"), table).expect("written");
    let server = setup.start();
    submit(&server, &["chl@example.org", "any1@example.org", "any2@Example.ORG", "fwd@poolp.org"], "v");
    wait_for_all(&server);
    assert_eq!((copies(&server, "example.org/chl"), copies(&server, "example.org/gilles")), (1, 1));
    assert_eq!(to_of(&sink.wait_for(1, SOON)), ["x@away.example"]);
    assert!(rcpt(&server, "x@opensmtpd.org").starts_with("550 5.1.1"));
}

#[test]
fn s25_one_mapping_for_many_domains_makes_no_second_copy() {
    let sink = Sink::open();
    // The path has the user alone: so a user has one mailbox, whatever domain the mail came by.
    let rules = rules(&sink, "virtual { staff => gilles,eric,chl }", "").replace("%{dest.domain}", "all");
    let server = Setup::new(rules).start();
    submit(&server, &["staff@poolp.org", "staff@opensmtpd.org"], "once");
    wait_for_all(&server);
    for user in ["gilles", "eric", "chl"] {
        assert_eq!(copies(&server, &format!("all/{user}")), 1, "{user}");
    }
    // The same recipient twice is one delivery, too.
    submit(&server, &["a@away.example", "a@AWAY.example", "b@away.example"], "twice");
    wait_for_all(&server);
    assert_eq!(to_of(&sink.messages()), ["a@away.example", "b@away.example"]);
}

#[test]
fn s38_lists_in_files_are_read_when_they_are_needed() {
    let sink = Sink::open();
    let setup = Setup::new(rules(&sink, "alias { list => \":include:@DIR@/list\" }", ""));
    let list = setup.dir().join("list");
    let server = setup.start();
    assert!(rcpt(&server, "list@poolp.org").starts_with("451 4.2.4"), "there is no such file");
    fs::write(&list, "# members\ngilles, x@away.example\n").expect("written");
    submit(&server, &["list@poolp.org"], "list");
    wait_for_all(&server);
    assert_eq!((copies(&server, "poolp.org/gilles"), sink.count()), (1, 1));
    fs::set_permissions(&list, Permissions::from_mode(0o666)).expect("changed");
    assert!(rcpt(&server, "list@poolp.org").starts_with("451 4.2.4"), "everybody may write to it");
    wait_until("the log says why", SOON, || server.printed().contains("<list@poolp.org>: everybody may write to /"));
}

#[test]
fn a_list_waits_as_one_envelope_for_each_member_and_survives_a_crash() {
    let mut sink = Sink::closed();
    let mut server = Setup::new(rules(&sink, "alias { staff => \"a@away.example\", \"b@away.example\" }", "")).start();
    submit(&server, &["staff@poolp.org", "c@away.example"], "wait");
    let deferred = wait_for("three are deferred", SOON, || {
        let listed = server.queue();
        let all = listed.len() == 3 && listed.iter().all(|one| one.state == "deferred" && !one.reason.is_empty());
        all.then_some(listed)
    });
    let shown = server.tell(&["queue", "show", &deferred[0].id]);
    assert!(shown.contains("to=<a@away.example>") && shown.contains("  addressed to: staff@poolp.org\n"), "{shown}");
    assert!(shown.contains("  action: out\n"), "{shown}");
    server.kill9();
    sink.reopen();
    server.start();
    server.retry();
    assert_eq!(to_of(&sink.wait_for(1, SOON)), ["a@away.example", "b@away.example", "c@away.example"]);
    wait_for_all(&server);
}

#[test]
fn a_bounce_names_the_recipient_as_its_sender_knows_him() {
    let sink = Sink::open();
    sink.script(crate::support::Script { rcpt: vec![("gone".into(), "550 5.1.1 no".into())], ..Default::default() });
    let server = Setup::new(rules(&sink, "alias { staff => \"gone@away.example\", gilles }", "")).start();
    let reply = server.client().submit("writer@poolp.org", &["staff@poolp.org"], &text("bounce"));
    assert_eq!(reply.code, 250, "{reply:?}");
    let bounce = maildir::wait_for_message(&mailbox(&server, "poolp.org/writer"), "a bounce", |_| true);
    let bounce = String::from_utf8(bounce).expect("ASCII");
    let fields = "Original-Recipient: rfc822; staff@poolp.org\nFinal-Recipient: rfc822; gone@away.example\n";
    assert!(bounce.contains(fields), "{bounce}");
    wait_for_all(&server);
    assert_eq!(copies(&server, "poolp.org/gilles"), 1);
}

/// Rules of long ago have no names: their mail must not follow another rule when a line is put in front of them.
#[test]
fn mail_that_waits_stays_with_its_rule_when_lines_move() {
    let (mut first, second) = (Sink::closed(), Sink::open());
    let rule = |sink: &Sink, domain: &str| format!("accept for domain {domain} relay via smtp://{}\n", sink.address);
    let head = format!("{SMALL}{LISTENERS}");
    let mut server = Setup::whole(format!("{head}{}", rule(&first, "a.example"))).start();
    submit(&server, &["x@a.example"], "old");
    wait_until("it is deferred", SOON, || server.queue().iter().any(|one| one.state == "deferred"));
    server.stop();
    server.configure(&format!("{head}{}{}", rule(&second, "b.example"), rule(&first, "a.example")));
    first.reopen();
    server.start();
    server.retry();
    assert_eq!(to_of(&first.wait_for(1, SOON)), ["x@a.example"]);
    wait_for_all(&server);
    assert_eq!(second.count(), 0);
}

#[test]
fn s49_s54_a_database_that_fails_is_a_temporary_failure_and_comes_back() {
    let sink = Sink::open();
    let rules = rules(&sink, "virtual <v>", "table v sqlite:@DIR@/sqlite.conf negative 1s cache 1s stale 0s\n");
    let setup = Setup::new(rules);
    let database = setup.dir().join("mail.db");
    let sql = "create table v (k text, v text); insert into v values ('staff', 'gilles'), ('staff', 'x@away.example');";
    let run = |sql: &str| {
        let done = Command::new("sqlite3").arg(&database).arg(sql).status();
        assert!(done.expect("sqlite3, from the package of that name").success());
    };
    run(sql);
    let conf = format!("dbpath {}\nquery_alias select v from v where k = ?\n", database.display());
    fs::write(setup.dir().join("sqlite.conf"), conf).expect("written");
    let server = setup.start();
    submit(&server, &["staff+x@poolp.org"], "sql");
    wait_for_all(&server);
    assert_eq!((copies(&server, "poolp.org/gilles"), to_of(&sink.wait_for(1, SOON))), (1, vec!["x@away.example"]));
    assert!(rcpt(&server, "nobody@poolp.org").starts_with("550 5.1.1"));
    // A value that is no alias: that key alone has failed.
    run("insert into v values ('broken', 'two words');");
    assert!(rcpt(&server, "broken@poolp.org").starts_with("451 4.3.0"));
    wait_until("it is logged with table and key", SOON, || {
        server.printed().contains("table <v> alias `broken@poolp.org`: `two words` is not an alias")
    });
    fs::rename(&database, setup_away(&database)).expect("moved");
    fs::create_dir(&database).expect("made");
    wait_until("its answers are too old", SOON, || rcpt(&server, "staff@poolp.org").starts_with("451 4.3.0"));
    fs::remove_dir(&database).expect("removed");
    fs::rename(setup_away(&database), &database).expect("moved");
    wait_until("it is asked again", Duration::from_secs(60), || rcpt(&server, "staff@poolp.org").starts_with("250"));
    // What a shard has kept is forgotten with the table.
    run("update v set v = 'error:550 5.7.1 closed' where k = 'staff'");
    server.tell(&["table", "update", "v"]);
    wait_until("the new value counts", SOON, || rcpt(&server, "staff@poolp.org").starts_with("550 5.7.1 closed"));
    run("delete from v where k = 'staff'; insert into v values ('staff', 'gilles'), ('staff', 'x@away.example');");
    server.tell(&["table", "update", "v"]);
    // `explain` asks the running server.
    let (state, conf) = (server.state.display().to_string(), server.dir().join("ringpost.conf").display().to_string());
    let told = cli::succeed(&["explain", "--config", &conf, "--state", &state, "--rcpt", "staff@poolp.org"]);
    assert!(told.contains("asked table <v> for alias `staff@poolp.org`: found: gilles, x@away.example"), "{told}");
}

fn setup_away(database: &std::path::Path) -> PathBuf {
    database.with_extension("away")
}

/// A helper that takes a second for each answer, and answers to many at once.
const SLOW_HELPER: &str = r#"#!/bin/sh
while IFS='|' read -r kind version time name operation service id key; do
    case "$kind|$version|$key" in
    config\|ready\|) printf 'register|alias\nregister|ready\n' ;;
    table\|0.1\|u*@*) (sleep 1; echo "lookup-result|$id|found|gilles") & ;;
    table\|0.1\|*) (sleep 1; echo "lookup-result|$id|not-found") & ;;
    esac
done
"#;

#[test]
fn s36_s57_a_slow_table_keeps_only_its_own_clients_waiting() {
    const CLIENTS: usize = 40;
    let sink = Sink::open();
    let setup = Setup::new(rules(&sink, "virtual <slow>", "table slow proc:@DIR@/slow pool 40 timeout 20s\n"));
    let program = setup.dir().join("slow");
    fs::write(&program, SLOW_HELPER).expect("written");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("ours");
    let server = setup.start();
    let began = Instant::now();
    let waiting: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let mut client = server.client();
            client.send(format!("MAIL FROM:<>\r\nRCPT TO:<u{number}@poolp.org>\r\n").as_bytes());
            client
        })
        .collect();
    assert!(rcpt(&server, "x@away.example").starts_with("250"));
    assert!(began.elapsed() < Duration::from_secs(1), "who asks no table waits for none: {:?}", began.elapsed());
    for mut client in waiting {
        client.expect("250");
        client.expect("250");
    }
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(CLIENTS as u64 / 2), "they waited for each other: {waited:?}");
    // Replies come in the order of the commands, however long each takes.
    let mut client = server.client();
    let commands =
        ["MAIL FROM:<>", "RCPT TO:<uslow@poolp.org>", "RCPT TO:<x@away.example>", "RCPT TO:<n@poolp.org>", "NOOP"];
    client.send((commands.join("\r\n") + "\r\n").as_bytes());
    for start in ["250 2.1.0", "250 2.1.5", "250 2.1.5", "550 5.1.1", "250 2.0.0"] {
        client.expect(start);
    }
}
