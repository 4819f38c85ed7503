//! The page for those who may see it: over HTTPS, after a login, and in parts (`http … pki … auth … only`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};

use crate::support::database::sqlite;
use crate::support::memory::copies;
use crate::support::server::{PROGRAM, SMALL};
use crate::support::tls::pair;
use crate::support::{Server, Setup, wait_until};

const SOON: Duration = Duration::from_secs(30);
const PASSWORD: &str = "open sesame";
/// What every configuration has beside.
const REST: &str = "listen on 127.0.0.1 port @SMTP@\naction \"none\" discard\nmatch for any action \"none\"\n";

/// What curl was told: the status, the header and the body. Status 0: there was no HTTP.
fn fetch(server: &Server, scheme: &str, path: &str, words: &[&str]) -> (u16, String) {
    let url = format!("{scheme}://page.example:{}{path}", server.http);
    let resolve = format!("page.example:{}:127.0.0.1", server.http);
    let authority = server.dir().join("page.crt");
    let output = Command::new("curl")
        .args(["-sS", "-i", "--max-time", "60", "--resolve", &resolve, "-w", "\n%{http_code}"])
        .arg("--cacert")
        .arg(authority)
        .args(words)
        .arg(&url)
        .output()
        .expect("curl runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let (text, code) = text.rsplit_once('\n').expect("its last line is the status");
    (code.parse().expect("a number"), text.to_owned())
}

/// Which of these paths there are.
fn shown(server: &Server) -> String {
    let paths = ["/", "/metrics", "/health", "/ready", "/api/v1/stats"];
    let is_there = |path: &&str| match fetch(server, "http", path, &[]).0 {
        200 => true,
        404 => false,
        other => panic!("{path}: {other}"),
    };
    paths.into_iter().filter(is_there).collect::<Vec<_>>().join(" ")
}

/// `ringpost hash`, quick enough for a test.
fn hash() -> String {
    let script = format!("echo '{PASSWORD}' | {PROGRAM} hash --scheme ssha");
    let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
}

#[test]
fn the_page_is_encrypted_and_shown_to_those_who_log_in() {
    let setup = Setup::whole("");
    let made = pair(setup.dir(), "page", &["page.example"], &PKCS_ECDSA_P256_SHA256);
    let users = setup.dir().join("users");
    fs::write(&users, format!("anna {}\n", hash())).expect("written");
    let config = |users: &str| {
        format!(
            "{SMALL}pki page cert @DIR@/page.crt key @DIR@/page.key\ntable users {users}\n\
             http listen on 127.0.0.1 port @HTTP@ pki page auth <users>\n{REST}"
        )
    };
    let server = setup.config(config("file:@DIR@/users")).start();
    // In clear there is nothing, and what a stranger sees says how to log in.
    assert_eq!(fetch(&server, "http", "/", &[]).0, 0);
    for path in ["/", "/metrics", "/health", "/api/v1/stats", "/nothing"] {
        let (code, text) = fetch(&server, "https", path, &[]);
        assert_eq!(code, 401, "{path}");
        assert!(text.to_lowercase().contains("www-authenticate: basic realm=\"ringpost\""), "{text}");
    }
    let log_in = |user: &str, path: &str| fetch(&server, "https", path, &["-u", user]);
    for wrong in ["anna:open", "anna:", "bert:open sesame", ":"] {
        assert_eq!(log_in(wrong, "/metrics").0, 401, "{wrong}");
    }
    let anna = format!("anna:{PASSWORD}");
    for version in ["--tlsv1.3", "--tls-max=1.2"] {
        let words: Vec<&str> = match version.split_once('=') {
            Some((option, value)) => vec![option, value, "-u", &anna],
            None => vec![version, "-u", &anna],
        };
        let (code, text) = fetch(&server, "https", "/metrics", &words);
        assert!(code == 200 && text.contains("\nringpost_"), "{version}: {code} {text}");
    }
    // A large answer comes whole.
    let (code, text) = log_in(&anna, "/");
    assert!(code == 200 && text.trim_end().ends_with("</html>"), "{code} {text}");
    assert_eq!(log_in(&anna, "/nothing").0, 404);
    assert_eq!(copies(server.engine(), &made.secret), 0, "the engine has the key");
    assert!(copies(server.keyholder(), &made.secret) > 0);
    // The password that was right a moment ago is not, once the table says otherwise.
    fs::write(&users, format!("bert {}\n", hash())).expect("written");
    wait_until("she is not let in", SOON, || log_in(&anna, "/metrics").0 == 401);
    assert_eq!(log_in(&format!("bert:{PASSWORD}"), "/metrics").0, 200);
    // A certificate that is renewed is shown from then on.
    let renewed = pair(server.dir(), "page", &["page.example"], &PKCS_RSA_SHA256);
    server.tell(&["reload"]);
    assert_eq!(log_in(&format!("bert:{PASSWORD}"), "/health").0, 200, "whom curl trusts is in the same file");
    assert_ne!(renewed.der, made.der);
    // A table that does not answer is not a wrong password.
    let database = server.dir().join("none.db");
    sqlite(&database, "create table users(name, hash);");
    let query = "query_credentials select name, hash from users where name=?\n";
    fs::write(server.dir().join("users.conf"), format!("dbpath {}\n{query}", database.display())).expect("written");
    server.configure(&config("sqlite:@DIR@/users.conf"));
    server.tell(&["reload"]);
    // A new place needs a new engine.
    wait_until("nobody is in the new table", SOON, || log_in(&anna, "/metrics").0 == 401);
    sqlite(&database, "drop table users;");
    wait_until("the table fails", SOON, || log_in("carl:x", "/metrics").0 == 503);
}

#[test]
fn only_what_is_named_is_shown() {
    let config = |only: &str| format!("{SMALL}http listen on 127.0.0.1 port @HTTP@{only}\n{REST}");
    let server = Setup::whole(config(" only { metrics, health }")).start();
    assert_eq!(shown(&server), "/metrics /health /ready");
    for (only, expected) in [
        (" only { page }", "/ /api/v1/stats"),
        (" only api", "/api/v1/stats"),
        ("", "/ /metrics /health /ready /api/v1/stats"),
    ] {
        server.configure(&config(only));
        server.tell(&["reload"]);
        assert_eq!(shown(&server), expected, "{only}");
    }
}

#[test]
fn a_table_has_the_certificate_of_the_page() {
    let setup = Setup::whole("");
    let made = pair(setup.dir(), "page", &["page.example"], &PKCS_ECDSA_P256_SHA256);
    let settings = "dbpath @DIR@/certs.db\nquery_cert SELECT chain, key FROM certs WHERE name = ?;\n";
    let dir = setup.dir().display().to_string();
    fs::write(setup.dir().join("certs.conf"), settings.replace("@DIR@", &dir)).expect("written");
    let row = format!("'page.example', 'file:{dir}/page.crt', 'file:{dir}/page.key'");
    let schema = "CREATE TABLE certs (name TEXT, chain TEXT, key TEXT);";
    sqlite(&setup.dir().join("certs.db"), &format!("{schema} INSERT INTO certs VALUES ({row});"));
    let server = setup
        .config(format!(
            "{SMALL}table certs sqlite:@DIR@/certs.conf\npki page from <certs>\n\
             http listen on 127.0.0.1 port @HTTP@ pki page\n{REST}"
        ))
        .start();
    assert_eq!(fetch(&server, "https", "/health", &[]).0, 200);
    assert_eq!(copies(server.engine(), &made.secret), 0);
}

#[test]
fn what_keeps_the_page_from_being_safe_is_told_by_check() {
    let setup = Setup::whole("");
    pair(setup.dir(), "page", &["page.example"], &PKCS_ECDSA_P256_SHA256);
    fs::set_permissions(setup.dir().join("page.key"), fs::Permissions::from_mode(0o644)).expect("ours");
    let check = |dir: &Path, text: &str| {
        let file = dir.join("checked.conf");
        fs::write(&file, text.replace("@DIR@", &dir.display().to_string())).expect("written");
        let output = Command::new(PROGRAM).arg("check").arg(&file).output().expect("it runs");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let rest = "listen on 127.0.0.1 port 2525\naction a discard\nmatch for any action a\n";
    let users = "table users { a = \"$6$salt$hash\" }\n";
    let text = check(setup.dir(), &format!("{users}http listen on 192.0.2.1 auth <users>\n{rest}"));
    assert!(text.contains("E0603"), "{text}");
    let pki = "pki page cert @DIR@/page.crt key @DIR@/page.key\n";
    let text = check(setup.dir(), &format!("{users}{pki}http listen on 192.0.2.1 pki page auth <users>\n{rest}"));
    assert!(!text.contains("E0603") && text.contains("E0702"), "{text}");
}
