//! Certificates of our own that are in a table: by the name that clients ask for, and with their keys in the keyholder alone.

use std::time::Duration;

use rcgen::PKCS_ECDSA_P256_SHA256;
use rustix::process::{Signal, kill_process};

use super::{REST, at};
use crate::support::database::sqlite;
use crate::support::memory::{copies, count_in_memory};
use crate::support::server::SMALL;
use crate::support::tls::{Encrypted, pair};
use crate::support::{Setup, cli, ports, wait_until};

#[test]
fn s46_certificates_come_from_a_table_by_the_name_that_is_asked_for() {
    let other = ports::free();
    let setup = Setup::whole("");
    let dir = setup.dir().display().to_string();
    let database = setup.dir().join("certs.db");
    let settings = format!("dbpath {dir}/certs.db\nquery_cert SELECT chain, key FROM certs WHERE name = ?;\n");
    std::fs::write(setup.dir().join("certs.conf"), settings).expect("written");
    sqlite(&database, "CREATE TABLE certs (name TEXT, chain TEXT, key TEXT);");
    // The first as text, the second in files, as the row says.
    let made = ["a", "b", "c", "spare"]
        .map(|name| pair(setup.dir(), name, &[&format!("{name}.example")], &PKCS_ECDSA_P256_SHA256));
    let text = |file: &str| format!("CAST(readfile('{dir}/{file}') AS TEXT)");
    sqlite(&database, &format!("INSERT INTO certs VALUES ('a.example', {}, {});", text("a.crt"), text("a.key")));
    sqlite(&database, &format!("INSERT INTO certs VALUES ('b.example', 'file:{dir}/b.crt', 'file:{dir}/b.key');"));
    let server = setup
        .config(format!(
            "{SMALL}table certs sqlite:@DIR@/certs.conf cache 1s negative 1s\npki \"*\" from <certs>\n\
             pki spare cert \"@DIR@/spare.crt\" key \"@DIR@/spare.key\"\n\
             listen on 127.0.0.1 port @SMTP@ tls\nlisten on 127.0.0.1 port {other} tls pki spare pki \"*\"\n{REST}"
        ))
        .start();
    let shown = |address, name: &str| Encrypted::start(address, name).map(|met| met.shown());
    let [a, b, c, spare] = made;
    assert_eq!(shown(server.smtp, "a.example").expect("a handshake"), a.der);
    assert_eq!(shown(server.smtp, "B.example").expect("a handshake"), b.der);
    assert_eq!(shown(at(other), "a.example").expect("a handshake"), a.der);
    // Unknown: an alert where there is nothing else, and what else there is.
    assert!(shown(server.smtp, "c.example").is_err());
    assert_eq!(shown(at(other), "c.example").expect("a handshake"), spare.der);
    // One that is added is shown without a word to the server; one that is replaced, too.
    sqlite(&database, &format!("INSERT INTO certs VALUES ('c.example', {}, {});", text("c.crt"), text("c.key")));
    wait_until("the third is shown", Duration::from_secs(20), || {
        shown(server.smtp, "c.example").is_ok_and(|der| der == c.der)
    });
    sqlite(
        &database,
        &format!("UPDATE certs SET chain = {}, key = {} WHERE name = 'a.example';", text("b.crt"), text("b.key")),
    );
    wait_until("the new one is shown", Duration::from_secs(20), || {
        shown(server.smtp, "a.example").is_ok_and(|der| der == b.der)
    });
    // A key that is another's is told, and what was there stays.
    sqlite(&database, &format!("UPDATE certs SET chain = {} WHERE name = 'a.example';", text("a.crt")));
    wait_until("it is told", Duration::from_secs(20), || {
        let met = shown(server.smtp, "a.example").expect("a handshake");
        assert_eq!(met, b.der);
        server
            .printed()
            .contains("table <certs>: the certificate of a.example: its key does not belong to its certificate")
    });
    // While the table fails, what is known is shown.
    sqlite(&database, "ALTER TABLE certs RENAME TO gone;");
    wait_until("it is told", Duration::from_secs(20), || {
        assert_eq!(shown(server.smtp, "c.example").expect("a handshake"), c.der);
        server.printed().contains("table <certs>: the certificate of c.example: ")
    });
    sqlite(&database, "ALTER TABLE gone RENAME TO certs;");
    // Keys are in the keyholder, and nowhere else.
    for secret in [&a.secret, &b.secret, &c.secret] {
        assert!(copies(server.keyholder(), secret) > 0, "the keyholder has the key");
        assert_eq!(copies(server.engine(), secret), 0, "the engine has it not");
        assert_eq!(copies(server.supervisor(), secret), 0, "the supervisor has it not");
    }
    let line = std::fs::read_to_string(server.dir().join("c.key")).expect("the key");
    let line = line.lines().nth(1).expect("a line").as_bytes().to_vec();
    for process in [server.engine(), server.supervisor()] {
        assert_eq!(count_in_memory(process, &line), 0, "nor its text");
    }
    // A new keyholder gets them anew.
    kill_process(server.keyholder(), Signal::KILL).expect("it runs");
    wait_until("a handshake", Duration::from_secs(20), || {
        shown(server.smtp, "c.example").is_ok_and(|der| der == c.der)
    });
}

#[test]
fn s46_certificates_come_from_a_list_and_from_a_text_file() {
    let other = ports::free();
    let setup = Setup::whole("");
    let dir = setup.dir().display().to_string();
    // Names of entries count, whatever names are in the certificates.
    let [a, b, wild, spare] = ["a", "b", "wild", "spare"]
        .map(|name| pair(setup.dir(), name, &[&format!("{name}.inside.example")], &PKCS_ECDSA_P256_SHA256));
    let row = |key: &str, file: &str, between: &str| format!("{key}{between}file:{dir}/{file}.crt {dir}/{file}.key");
    let text = [row("A.example", "a", " "), row("*.sub.example", "wild", "\t")].join("\n");
    std::fs::write(setup.dir().join("certs"), text + "\n").expect("written");
    let listed = format!("{{ b.example = \"file:{dir}/b.crt\", \"file:{dir}/b.key\" }}");
    let server = setup
        .config(format!(
            "{SMALL}table certs \"@DIR@/certs\"\ntable listed {listed}\npki file from <certs>\npki list from <listed>\n\
             pki spare cert \"@DIR@/spare.crt\" key \"@DIR@/spare.key\"\n\
             listen on 127.0.0.1 port @SMTP@ tls pki file\n\
             listen on 127.0.0.1 port {other} tls pki spare pki list pki file\n{REST}"
        ))
        .start();
    let shown = |address, name: &str| Encrypted::start(address, name).map(|met| met.shown()).expect("a handshake");
    for (address, name, expected) in [
        (server.smtp, "a.example", &a),
        (server.smtp, "x.y.sub.example", &wild),
        // The first is the default.
        (server.smtp, "c.example", &a),
        (at(other), "A.EXAMPLE", &a),
        (at(other), "b.example", &b),
        (at(other), "x.sub.example", &wild),
        (at(other), "sub.example", &spare),
        // A name that is in a certificate is looked for first.
        (at(other), "spare.inside.example", &spare),
    ] {
        assert_eq!(shown(address, name), expected.der, "{name} at {address}");
    }
    for secret in [&a.secret, &b.secret, &wild.secret] {
        assert!(copies(server.keyholder(), secret) > 0, "the keyholder has the key");
        assert_eq!(copies(server.engine(), secret), 0, "the engine has it not");
    }
    // A file that is replaced is read again by itself, and an entry that is added, too.
    let renewed = pair(server.dir(), "a", &["a.inside.example"], &PKCS_ECDSA_P256_SHA256);
    wait_until("the new one is shown", Duration::from_secs(20), || shown(server.smtp, "a.example") == renewed.der);
    let c = pair(server.dir(), "c", &["c.inside.example"], &PKCS_ECDSA_P256_SHA256);
    let text = [row("a.example", "a", " "), row("c.example", "c", " ")].join("\n");
    std::fs::write(server.dir().join("certs"), text + "\n").expect("written");
    wait_until("the third is shown", Duration::from_secs(20), || shown(server.smtp, "c.example") == c.der);
}

#[test]
fn s46_a_broken_entry_of_a_list_leaves_the_others_in_use_and_is_named() {
    let setup = Setup::whole("");
    let dir = setup.dir().display().to_string();
    let [a, b, c] = ["a", "b", "c"]
        .map(|name| pair(setup.dir(), name, &[&format!("{name}.inside.example")], &PKCS_ECDSA_P256_SHA256));
    let row = |key: &str, cert: &str, of: &str| format!("{key}.example file:{dir}/{cert}.crt file:{dir}/{of}.key\n");
    // One whose file is missing, one with another's key; the first of all is among them, and so no default.
    let text = [row("gone", "gone", "gone"), row("a", "a", "a"), row("mixed", "b", "a"), row("c", "c", "c")].concat();
    std::fs::write(setup.dir().join("certs"), &text).expect("written");
    let check = |lines: &str| {
        let text = format!("listen on lo0 port 2526 # ok W0808\naction d discard\nmatch for any action d\n{lines}\n");
        std::fs::write(setup.dir().join("c.conf"), text).expect("written");
        let output = cli::run(&["check", &setup.dir().join("c.conf").display().to_string()]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let list = format!("table certs \"{dir}/certs\"\npki list from <certs>");
    let (code, said) = check(&list);
    assert_eq!(code, Some(0), "{said}");
    for told in [
        "warning: ",
        "c.conf:5: pki list: entry gone.example: certificate ",
        "gone.crt: No such file",
        "pki list: entry mixed.example: key ",
        "a.key does not belong to certificate ",
        "mend the files, and it is taken up by itself",
    ] {
        assert!(said.contains(told), "no {told} in:\n{said}");
    }
    assert!(!said.contains("error: "), "{said}");
    // What the configuration names itself is needed, and a list of which nothing is left is of no use.
    let (code, said) = check(&format!("pki one cert \"{dir}/b.crt\" key \"{dir}/a.key\""));
    assert_eq!((code, said.contains("error: ")), (Some(78), true), "{said}");
    let (code, said) = check(&format!(
        "table certs {{ x.example = \"file:{dir}/gone.crt\", \"file:{dir}/gone.key\" }}\npki list from <certs>"
    ));
    assert_eq!((code, said.contains("error: ")), (Some(78), true), "{said}");

    let lines = format!(
        "{SMALL}table certs \"@DIR@/certs\"\npki list from <certs>\nlisten on 127.0.0.1 port @SMTP@ tls pki list\n{REST}"
    );
    let server = setup.config(lines).start();
    let shown = |name: &str| Encrypted::start(server.smtp, name).map(|met| met.shown()).expect("a handshake");
    assert_eq!(shown("c.example"), c.der);
    for name in ["a.example", "gone.example", "mixed.example"] {
        assert_eq!(shown(name), a.der, "{name}: the first that can be used is the default");
    }
    let told = |words: &str| wait_until(words, Duration::from_secs(20), || server.printed().contains(words));
    told("pki list: entry gone.example: certificate ");
    told("pki list: entry mixed.example: key ");
    // One is mended and another breaks: the first is taken up, and of the second what was in use stays.
    std::fs::write(server.dir().join("c.key"), "no key").expect("written");
    std::fs::write(server.dir().join("certs"), text.replace(&row("mixed", "b", "a"), &row("mixed", "b", "b")))
        .expect("written");
    wait_until("the mended one is shown", Duration::from_secs(20), || shown("mixed.example") == b.der);
    told("pki list: entry c.example: key ");
    assert_eq!(shown("c.example"), c.der);
    // Also in the hands of another keyholder.
    kill_process(server.keyholder(), Signal::KILL).expect("it runs");
    wait_until("a handshake", Duration::from_secs(20), || {
        Encrypted::start(server.smtp, "c.example").is_ok_and(|met| met.shown() == c.der)
    });
}
