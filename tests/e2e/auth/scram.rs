//! SCRAM-SHA-256: the password never leaves the client, and a login may be bound to its encrypted channel.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};

use super::{ALL, IN, PASSWORD, WRONG, base64, encrypted, hash, plain, run, with_tls};
use crate::support::maildir;
use crate::support::tls::Encrypted;

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// The bytes of a text in base64.
fn decoded(text: &str) -> Vec<u8> {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = text.bytes().filter_map(|byte| letters.iter().position(|letter| *letter == byte));
    let (mut out, mut held, mut count) = (Vec::new(), 0_u32, 0);
    for six in bits {
        held = held << 6 | six as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((held >> count) as u8);
        }
    }
    out
}

/// A client of SCRAM (RFC 5802 §3). The last reply.
fn scram(client: &mut Encrypted, mechanism: &str, header: &str, binding: &[u8], password: &str) -> String {
    let bare = "n=g,r=n0nce";
    let challenge = client.say(&format!("AUTH {mechanism} {}", base64(format!("{header}{bare}"))));
    let Some(challenge) = challenge.strip_prefix("334 ") else { return challenge };
    let challenge = String::from_utf8(decoded(challenge.trim_end())).expect("UTF-8");
    let field = |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name)).expect("a field");
    let iterations: NonZeroU32 = field("i=").parse().expect("a number");
    let mut salted = [0; 32];
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, iterations, &decoded(field("s=")), password.as_bytes(), &mut salted);
    let bound = base64([header.as_bytes(), binding].concat());
    let last = format!("c={bound},r={}", field("r="));
    let messages = format!("{bare},{challenge},{last}");
    let key = mac(&salted, "Client Key");
    let stored = digest::digest(&digest::SHA256, &key);
    let proof: Vec<u8> = key.iter().zip(mac(stored.as_ref(), &messages)).map(|(a, b)| a ^ b).collect();
    let answer = client.say(&base64(format!("{last},p={}", base64(proof))));
    let Some(proven) = answer.strip_prefix("334 ") else { return answer };
    let server = base64(mac(&mac(&salted, "Server Key"), &messages));
    assert_eq!(decoded(proven.trim_end()), format!("v={server}").into_bytes(), "the server knows the keys, too");
    client.say("")
}

#[test]
fn s40_a_login_is_bound_to_its_channel() {
    let table = format!("table users {{ g = \"gilles:{}\" }}\n", hash("scram"));
    let server = with_tls(&table, "auth <users>", ALL);
    let (plus, bound) = ("SCRAM-SHA-256-PLUS", "p=tls-exporter,,");
    let mut client = encrypted(&server);
    let binding = client.binding();
    assert_eq!(scram(&mut client, plus, bound, &binding, PASSWORD), IN);
    assert!(client.say("MAIL FROM:<a@b.example>").starts_with("250"));
    let mut client = encrypted(&server);
    assert_eq!(scram(&mut client, plus, bound, &binding, PASSWORD), WRONG, "another channel");
    let binding = client.binding();
    assert_eq!(scram(&mut client, plus, bound, &binding, "sesame"), WRONG);
    assert_eq!(scram(&mut client, "SCRAM-SHA-256", "n,,", b"", PASSWORD), IN);
    let mut client = encrypted(&server);
    assert_eq!(scram(&mut client, "SCRAM-SHA-256", "y,,", b"", PASSWORD), WRONG, "somebody has hidden what is offered");
}

#[test]
fn s40_scram_is_offered_where_all_users_have_keys() {
    let keys = hash("scram");
    let table = format!("table users {{ g = \"gilles:{keys}\" }}\n");
    let server = with_tls(&table, "auth <users>", ALL);
    let mut client = Encrypted::start(server.smtp, "mx.example").expect("a handshake");
    let offered = client.say("EHLO c");
    assert!(offered.contains("\r\n250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN\r\n"), "{offered}");
    assert_eq!(client.say(&plain("g", PASSWORD)), IN, "a password does, too");
    let port = server.smtp.port().to_string();
    for (password, good) in [(PASSWORD, true), ("sesame", false)] {
        let secret = format!("--passwordeval=echo {password}");
        let args = ["--host=127.0.0.1", &format!("--port={port}"), "--tls=on", "--tls-certcheck=off", "--user=g"];
        let rest = ["--auth=scram-sha-256", &secret, "--from=g@poolp.org", "x@example.org"];
        let (sent, said) = run("msmtp", &[&args[..], &rest].concat(), "Subject: scram\n\nhello\n");
        assert_eq!(sent, good, "{said}");
    }
    maildir::wait_for_message(&server.dir().join("box"), "scram", |text| {
        String::from_utf8_lossy(text).contains("Subject: scram")
    });
}
