//! A directory server that does what a test says; the real one is asked in `tests/e2e/tables/directory.rs`.

use std::sync::Arc;
use std::time::Duration;

use ldap3::asn1::{PL, StructureTag, TagClass};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::tests::{block, config, declared, failed, found, surroundings};
use super::super::{Answer, Backend, Declared, Tables};
use super::*;

/// The article's file.
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

fn problems(text: &str) -> Vec<String> {
    let wrong = Directory::new(&config(text), Duration::from_secs(3), &surroundings().0).err();
    wrong.unwrap_or_default().iter().map(Problem::to_string).collect()
}

#[test]
fn the_articles_file_is_understood() {
    let directory = Directory::new(&config(ARTICLE), Duration::from_secs(3), &surroundings().0).unwrap();
    let services: Vec<Service> = directory.services().collect();
    assert_eq!(services, [Service::Alias, Service::Domain, Service::Credentials]);
    assert_eq!(directory.plan.searches[&Service::Credentials].attributes, ["uid", "userPassword"]);
}

#[test]
fn mistakes_are_named_with_their_place() {
    let wrong = "url ldaps://a\nusername cn=x\nbasedn dc=x\nalias_filter (uid=%s\nalias_attributes a,b\n\
                 domain_filter (dc=x)\nsourceaddr_filter (ip=%s)\nsourceaddr_attributes ip\nstring_attributes x\n\
                 userinfo_filter (uid=%s)\nuserinfo_atributes uidNumber\n";
    let first = problems(wrong);
    assert_eq!(
        first,
        ["/etc/mail/t.conf:11:1: unknown key `userinfo_atributes`\n  did you mean `userinfo_attributes`?"]
    );
    let second = problems(&wrong.replace("userinfo_atributes uidNumber\n", ""));
    let expected = [
        "t.conf:1:5: ldaps is not supported",
        "t.conf:2:10: there is no `password` for it",
        "t.conf:4:14: `(uid=%s` is not a filter",
        "t.conf:5:18: 2 attributes, 1 needed",
        "t.conf:6:15: `domain_filter` has no `%s`",
        "t.conf:7:19: `sourceaddr_filter` has a `%s` for which there is no key",
        "t.conf:9:19: there is no `string_filter` for it",
        "t.conf:10:17: there is no `userinfo_attributes` for it",
    ];
    for expected in expected {
        assert!(second.iter().any(|problem| problem.contains(expected)), "no {expected} in {second:#?}");
    }
    assert_eq!(second.len(), expected.len(), "{second:#?}");
    assert_eq!(problems("basedn x\n").len(), 1);
}

fn entry(dn: &str, attributes: &[(&str, &[&str])]) -> Entry {
    let octets = |text: &str| StructureTag { class: TagClass::Universal, id: 4, payload: PL::P(text.into()) };
    let sequence = |parts| StructureTag { class: TagClass::Universal, id: 16, payload: PL::C(parts) };
    let attributes = attributes.iter().map(|(name, values)| {
        sequence(vec![octets(name), sequence(values.iter().map(|value| octets(value)).collect())])
    });
    Entry::read(sequence(vec![octets(dn), sequence(attributes.collect())])).unwrap()
}

#[test]
fn entries_become_records() {
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let user = entry("uid=g", &[("uid", &["g"]), ("userPassword", &["{SSHA}x"]), ("mail", &["a@b", "c@d"])]);
    let other = entry("uid=h", &[("mail", &["e@f"])]);
    let both = [user.clone(), other.clone()];
    let ask = |entries: &[Entry], service, attributes: &[&str]| value(entries, service, &names(attributes));
    let one = std::slice::from_ref(&user);
    assert_eq!(ask(&[], Service::Alias, &["mail"]), Ok(None));
    assert_eq!(ask(&both, Service::Alias, &["MAIL"]), Ok(Some("a@b, c@d, e@f".into())));
    assert_eq!(ask(one, Service::Credentials, &["uid", "userPassword"]), Ok(Some("g:{SSHA}x".into())));
    assert_eq!(ask(&both, Service::Domain, &[]), Ok(Some(String::new())));
    for (looked, why) in [
        (ask(&both, Service::Credentials, &["uid", "userPassword"]), "2 entries, one is wanted: uid=g and uid=h"),
        (ask(one, Service::Credentials, &["mail"]), "uid=g has 2 values of mail, one is wanted"),
        (ask(&both[1..], Service::Credentials, &["uid"]), "uid=h has no uid, or it may not be read"),
        (ask(one, Service::Alias, &["maildrop"]), "uid=g has no maildrop, or it may not be read"),
    ] {
        assert_eq!(looked, Err(Trouble::Entry(why.into())));
    }
}

/// A server of few words: every search finds one entry whose `mail` is the filter's last value, but for those with `slow`
/// in it, which it never answers.
async fn serve(mut stream: TcpStream) {
    let mut buffer = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut buffer).await {
        while buffer.len() >= 2 && buffer.len() >= 2 + usize::from(buffer[1]) {
            let message: Vec<u8> = buffer.drain(..2 + usize::from(buffer[1])).collect();
            assert!(message[1] < 0x80, "the test's keys are short");
            let (id, op) = (message[4], message[5]);
            let done = |tag| vec![0x30, 12, 2, 1, id, tag, 7, 10, 1, 0, 4, 0, 4, 0];
            let reply = match op {
                0x60 => done(0x61),
                0x63 if message.windows(4).any(|part| part == b"slow") => continue,
                0x63 => [found_entry(id), done(0x65)].concat(),
                _ => continue,
            };
            if stream.write_all(&reply).await.is_err() {
                return;
            }
        }
    }
}

fn found_entry(id: u8) -> Vec<u8> {
    let attribute = b"\x30\x0b\x04\x04mail\x31\x03\x04\x01x";
    let body = [b"\x04\x01d\x30\x0d".as_slice(), attribute].concat();
    let op = [&[0x64, body.len() as u8], body.as_slice()].concat();
    let whole = [&[2, 1, id], op.as_slice()].concat();
    [&[0x30, whole.len() as u8], whole.as_slice()].concat()
}

async fn listen(serve: impl AsyncFn(TcpStream)) -> (std::net::SocketAddr, impl Future<Output = ()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream).await;
        }
    };
    (address, serving)
}

fn table(address: std::net::SocketAddr, timeout: Duration) -> Arc<Tables> {
    let text = format!("url ldap://{address}\nbasedn x\nalias_filter (k=%s)\nalias_attributes mail\n");
    let declared = Declared { timeout, ..declared(Backend::Ldap(config(text))) };
    Arc::new(Tables::new(vec![declared], &surroundings().0).unwrap())
}

#[test]
fn one_that_hangs_delays_no_other_on_the_same_connection() {
    block(async {
        let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counts = connections.clone();
        let (address, serving) = listen(async move |stream| {
            counts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            serve(stream).await;
        })
        .await;
        tokio::select! {
            () = serving => unreachable!("it listens for ever"),
            () = async {
                let tables = table(address, Duration::from_secs(30));
                let slow = tokio::spawn({
                    let tables = tables.clone();
                    async move { tables.lookup("t", Service::Alias, "slow").await }
                });
                for n in 0..100 {
                    assert_eq!(tables.lookup("t", Service::Alias, &format!("k{n}")).await, found("x"));
                }
                assert!(!slow.is_finished());
                assert_eq!(connections.load(std::sync::atomic::Ordering::Relaxed), 1);
                slow.abort();
            } => {}
        }
    });
}

#[test]
fn servers_that_say_nothing_or_nonsense_are_failures() {
    block(async {
        let (silent, waiting) =
            listen(async |mut stream| while let Ok(1..) = stream.read(&mut [0; 512]).await {}).await;
        let (odd, talking) = listen(async |mut stream: TcpStream| {
            // Its peer may have gone already.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        })
        .await;
        let (broken, lying) = listen(async |mut stream: TcpStream| {
            let _ = stream.read(&mut [0; 512]).await;
            // A bind's answer to a search: the library would end the process.
            let _ = stream.write_all(b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00").await;
        })
        .await;
        tokio::select! {
            () = async { tokio::join!(waiting, talking, lying); } => unreachable!("they listen for ever"),
            () = async {
                let tables = table(silent, Duration::from_millis(200));
                failed(tables.lookup("t", Service::Alias, "a").await, "no answer within 0.2 s");
                for address in [odd, broken] {
                    let tables = table(address, Duration::from_secs(20));
                    for n in 0..10 {
                        failed(tables.lookup("t", Service::Alias, &format!("{n}")).await, "closed the connection");
                    }
                }
            } => {}
        }
    });
}

#[test]
fn no_password_is_no_login() {
    block(async {
        let text = "url ldap://127.0.0.1:1\nbasedn x\nauth_filter (uid=%s)\n";
        let tables = Tables::new(vec![declared(Backend::Ldap(config(text)))], &surroundings().0).unwrap();
        // Nobody is asked, or it would fail.
        assert_eq!(tables.lookup("t", Service::Auth, "gilles:").await, Answer::NotFound);
        assert_eq!(tables.lookup("t", Service::Auth, "gilles").await, Answer::NotFound);
        failed(tables.lookup("t", Service::Auth, "gilles:x").await, "Connection refused");
    });
}
