//! SCRAM-SHA-256 at relays: one Ringpost logs in at another without saying its password, bound to the encrypted channel where
//! that can be; and a server that only pretends to know the password gets no mail.

use std::net::Ipv4Addr;

use super::{SECRET, SOON, World, logins, whole};
use crate::auth::{PASSWORD, hash};
use crate::support::authority::{Authority, Kind};
use crate::support::secure_sink::{Logins, Pretends};
use crate::support::server::{LISTENERS, SMALL};
use crate::support::wait::{wait_for, wait_until};
use crate::support::{Server, Setup};

/// Where the one that takes mail listens, for those who log in.
const THERE: Ipv4Addr = Ipv4Addr::new(127, 1, 1, 1);

/// Two servers: `rules` of the one that sends has the label `l` at `mx.there.example`; the listener of the other one has `words`.
struct Both {
    sends: Server,
    takes: Server,
}

impl Both {
    fn new(make: impl FnOnce(&std::path::Path) -> String, rules: &str, words: &str) -> Self {
        let authority = Authority::new();
        let (setup, port) = Setup::new("").zone(&format!("mx.there.example. A {THERE}\n"));
        let file = setup.dir().join("authority.pem");
        std::fs::write(&file, authority.pem()).expect("written");
        let tables = make(setup.dir());
        let setup = setup.config(whole(&format!("{tables}\n{rules}\n")));
        let sends = setup.environment("SSL_CERT_FILE", &file.display().to_string()).prepare();

        let setup = Setup::whole("");
        authority.files(setup.dir(), "mx", "mx.there.example", Kind::Good);
        let users = format!("table users {{ g = \"gilles:{}\" }}\n", hash("scram"));
        let pki = "pki mx cert \"@DIR@/mx.crt\" key \"@DIR@/mx.key\"\n";
        let listen = format!("listen on {THERE} port {port} tls-require pki mx auth <users> {words}\n");
        let rules = "action \"box\" discard\nmatch from auth for any action \"box\"\n";
        let takes = setup.config(format!("{SMALL}{LISTENERS}{pki}{users}{listen}{rules}")).start();
        let mut both = Self { sends, takes };
        both.sends.start();
        both
    }

    fn submit(&self) {
        let reply = self.sends.client().submit("s@source.example", &["r@sink.example"], b"Subject: x\r\n\r\nhello\r\n");
        assert_eq!(reply.code, 250, "{reply:?}");
    }

    /// The lines about logins in the log of the one that sends.
    fn told(&self) -> Vec<String> {
        let printed = self.sends.printed();
        assert!(!printed.contains(PASSWORD), "{printed}");
        printed.lines().filter(|line| line.contains(" label=l mechanism=")).map(str::to_owned).collect()
    }

    fn has_logged_in(&self, mechanism: &str) -> bool {
        self.told().iter().any(|line| line.ends_with(&format!(" label=l mechanism={mechanism}")))
    }
}

fn rules(table: &str) -> String {
    format!("action out relay host smtp+tls://l@mx.there.example auth {table}\nmatch for any action out\n")
}

#[test]
fn s63_a_relay_proves_its_password_bound_to_the_channel() {
    let of_label = format!("{{ l => \"g:{PASSWORD}\" }}");
    let both = Both::new(|_| String::new(), &rules(&of_label), "");
    both.submit();
    wait_until("it is told how", SOON, || both.has_logged_in("SCRAM-SHA-256-PLUS"));
    wait_until("it is taken", SOON, || both.sends.queue().is_empty());
    assert_eq!((both.takes.metric("logins"), both.takes.metric("logins_failed")), (1, 0));
    assert_eq!(both.told().len(), 1, "{:?}", both.told());
}

/// TLS 1.2 has nothing that this server would bind it to.
#[test]
fn s63_a_relay_proves_its_password_where_nothing_binds_it() {
    let of_label = format!("{{ l => \"g:{PASSWORD}\" }}");
    let both = Both::new(|_| String::new(), &rules(&of_label), "protocols \"TLSv1.2\"");
    both.submit();
    wait_until("it is told how", SOON, || both.has_logged_in("SCRAM-SHA-256"));
    wait_until("it is taken", SOON, || both.sends.queue().is_empty());
    assert_eq!((both.takes.metric("logins"), both.takes.metric("logins_failed")), (1, 0));
}

#[test]
fn s63_a_password_that_a_table_has_now_is_proven_by_the_next_session() {
    let table = |dir: &std::path::Path| {
        let database = dir.join("t.sqlite");
        crate::support::database::sqlite(&database, "create table t (k text, v text)");
        crate::support::database::sqlite(&database, "insert into t values ('l', 'g:sesame of yesterday')");
        let query = "query_credentials select v from t where k = ?\n";
        std::fs::write(dir.join("t.conf"), format!("dbpath {}\n{query}", database.display())).expect("written");
        format!("table creds sqlite:{}/t.conf cache 0s negative 0s\n", dir.display())
    };
    let both = Both::new(table, &rules("<creds>"), "");
    both.submit();
    let reason = wait_for("it waits", SOON, || {
        both.sends.queue().into_iter().map(|one| one.reason).find(|reason| !reason.is_empty())
    });
    assert!(reason.contains("login refused: label `l`: 535 5.7.8"), "{reason}");
    assert_eq!((both.takes.metric("logins"), both.takes.metric("logins_failed")), (0, 1), "PLAIN is not tried then");
    let database = both.sends.dir().join("t.sqlite");
    crate::support::database::sqlite(&database, &format!("update t set v = 'g:{PASSWORD}'"));
    both.sends.tell(&["reload"]);
    both.sends.retry();
    wait_until("it is taken", SOON, || both.sends.queue().is_empty());
    wait_until("it is told how", SOON, || both.has_logged_in("SCRAM-SHA-256-PLUS"));
}

#[test]
fn s63_who_pretends_to_know_the_password_gets_no_mail() {
    for (pretends, expected) in [
        (Pretends::Signature, "has not proven that it knows the password"),
        (Pretends::Nothing, "has not proven that it knows the password"),
        (Pretends::OtherNonce, "its nonce does not begin with ours"),
        (Pretends::Rounds, "it wants 4000000000 rounds"),
    ] {
        let rules = format!(
            "action out relay host smtp+tls://l@mx.a.example auth {{ l => \"gilles:{SECRET}\" }}\nmatch for any action out\n"
        );
        let world = World::new(&["mx.a.example"], &rules, |_| String::new());
        let logins = Logins { offered: "PLAIN SCRAM-SHA-256", pretends, ..logins(&[("gilles", SECRET)]) };
        let sink = world.sink(0, "mx.a.example", world.port, logins);
        world.submit("one", "r@sink.example");
        let reason = world.reason("r@sink.example");
        assert!(reason.starts_with("451") && reason.contains(expected), "{pretends:?}: {reason}");
        assert_eq!((sink.tried().len(), sink.mails().len()), (0, 0), "no password, and no mail");
        assert!(!world.server.printed().contains(SECRET));
    }
}
