//! AUTH at a server: when it is said, how, and what becomes of it.

#[path = "support/client.rs"]
mod client;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::Client;
use proptest::prelude::*;
use ringpost_smtp::client::{Event, Login, RemoteReply, Session, Signed, StartTls};
use ringpost_smtp::{Mechanism, Secret};

fn login() -> Login {
    Login { user: "gilles".into(), password: Secret::new("se:cret".into()), nonce: None }
}

fn coded(text: &str) -> String {
    STANDARD.encode(text)
}

fn bytes<const N: usize>(coded: &str) -> [u8; N] {
    STANDARD.decode(coded).unwrap().try_into().unwrap()
}

/// Past EHLO on an encrypted connection.
fn asked(ehlo_reply: &str) -> (Client, Event) {
    let mut client = Client::new(Session::new("c.example").encrypted().logging_in(login()));
    client.hears("220 mx\r\n");
    assert_eq!(client.said(), "EHLO c.example\r\n");
    let event = client.hears(ehlo_reply);
    (client, event)
}

#[test]
fn plain_is_said_at_once_and_nothing_before_it_is_answered() {
    let (mut client, event) = asked("250-mx\r\n250-PIPELINING\r\n250 AUTH login plain XOAUTH2\r\n");
    assert_eq!(event, Event::NeedInput);
    assert_eq!(client.said(), "AUTH PLAIN AGdpbGxlcwBzZTpjcmV0\r\n");
    assert!(!client.session.is_ready());
    assert_eq!(client.hears("235 2.7.0 welcome\r\n"), Event::Ready);
    client.begin("a@b", &["x@d"], false).unwrap();
    assert!(client.said().starts_with("MAIL FROM:<a@b>\r\n"));
}

#[test]
fn login_is_said_in_three_lines_where_there_is_no_better() {
    let (mut client, _) = asked("250-mx\r\n250 AUTH CRAM-MD5 LOGIN\r\n");
    assert_eq!(client.said(), "AUTH LOGIN\r\n");
    assert_eq!(client.hears("334 VXNlcm5hbWU6\r\n"), Event::NeedInput);
    assert_eq!(client.said(), "Z2lsbGVz\r\n");
    assert_eq!(client.hears("334 UGFzc3dvcmQ6\r\n"), Event::NeedInput);
    assert_eq!(client.said(), "c2U6Y3JldA==\r\n");
    assert_eq!(client.hears("235 ok\r\n"), Event::Ready);
}

#[test]
fn a_refusal_is_told_apart_from_a_server_that_cannot_judge_now() {
    for (reply, refused) in [("535 5.7.8 no", true), ("534 5.7.9 weak", true), ("454 4.7.0 later", false)] {
        let (mut client, _) = asked("250-mx\r\n250 AUTH PLAIN\r\n");
        client.said();
        match client.hears(&format!("{reply}\r\n")) {
            Event::LoginRefused(heard) => assert!(refused && heard.to_string() == reply, "{heard}"),
            Event::Failed(heard) => assert!(!refused && heard.to_string() == reply, "{heard}"),
            other => panic!("{other:?}"),
        }
        assert!(client.session.is_closing());
    }
    let (mut client, _) = asked("250-mx\r\n250 AUTH PLAIN\r\n");
    client.said();
    assert!(matches!(client.hears("334 what else\r\n"), Event::Failed(_)), "all was said");
}

fn failed(event: &Event) -> &RemoteReply {
    match event {
        Event::Failed(reply) => reply,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_way_to_log_in_nothing_is_sent() {
    for reply in ["250-mx\r\n250 AUTH SCRAM-SHA-256 CRAM-MD5\r\n", "250 mx\r\n"] {
        let (mut client, event) = asked(reply);
        assert!(failed(&event).text().contains("no way to log in"), "{event:?}");
        assert_eq!((client.said().as_str(), client.session.is_ready()), ("", false));
    }
    let mut client = Client::new(Session::new("c.example").encrypted().logging_in(login()));
    client.hears("220 mx\r\n");
    client.hears("502 what\r\n");
    client.said();
    assert!(failed(&client.hears("250 mx\r\n")).text().contains("no way to log in"), "HELO has none");
}

#[test]
fn a_password_is_said_after_the_handshake_alone() {
    let greeted = |starttls| {
        let mut client = Client::new(Session::new("c.example").asking_for(starttls).logging_in(login()));
        client.hears("220 mx\r\n");
        client.said();
        client
    };
    for (starttls, ehlo_reply) in [
        (StartTls::Never, "250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n"),
        (StartTls::IfOffered, "250-mx\r\n250 AUTH PLAIN LOGIN\r\n"),
    ] {
        let mut client = greeted(starttls);
        assert!(failed(&client.hears(ehlo_reply)).text().contains("without encryption"));
        assert_eq!(client.said(), "");
    }
    // Nor where STARTTLS is refused after all.
    let mut client = greeted(StartTls::IfOffered);
    client.hears("250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n");
    assert_eq!(client.said(), "STARTTLS\r\n");
    assert!(failed(&client.hears("454 4.7.0 not now\r\n")).text().contains("without encryption"));
    // What was offered before the handshake counts for nothing.
    let mut client = greeted(StartTls::Required);
    client.hears("250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n");
    client.said();
    assert_eq!(client.hears("220 go\r\n"), Event::StartTls);
    client.session.secured(&mut client.out);
    assert_eq!(client.said(), "EHLO c.example\r\n");
    client.hears("250-mx\r\n250 AUTH LOGIN\r\n");
    assert_eq!(client.said(), "AUTH LOGIN\r\n");
}

#[test]
fn nothing_prints_the_password() {
    let (client, _) = asked("250 mx\r\n");
    let printed = format!("{:?} {:?}", client.session, login());
    assert!(!printed.contains("cret") && !printed.contains("gilles"), "{printed}");
}

/// The dialogue of RFC 7677 §3.
const CLIENT: &str = "rOprNGfwEbeRWgbNEkqO";
const CHALLENGE: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SIGNATURE: &str = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

/// One that can prove that it knows the password, past the EHLO of a server that offers these.
fn proving(offered: &str, binding: Option<[u8; 32]>) -> Client {
    let login = Login { user: "user".into(), password: Secret::new("pencil".into()), nonce: Some(bytes(CLIENT)) };
    let mut client = Client::new(Session::new("c.example").encrypted().logging_in(login));
    binding.into_iter().for_each(|binding| client.session.on_bindable(binding));
    client.hears("220 mx\r\n");
    client.said();
    assert_eq!(client.hears(&format!("250-mx\r\n250 AUTH {offered}\r\n")), Event::NeedInput);
    client
}

/// The same, when it has proven it.
fn proven() -> Client {
    let mut client = proving("SCRAM-SHA-256", None);
    client.said();
    assert_eq!(client.hears(&format!("334 {}\r\n", coded(CHALLENGE))), Event::Challenged);
    client.session.take_challenge();
    client.session.on_signed(&Signed { proof: bytes(PROOF), server: bytes(SIGNATURE) }, &mut client.out);
    client
}

#[test]
fn s63_the_example_of_rfc_7677_is_said_and_heard() {
    let mut client = proving("PLAIN scram-sha-256 LOGIN", None);
    assert_eq!(client.said(), format!("AUTH SCRAM-SHA-256 {}\r\n", coded(&format!("n,,n=user,r={CLIENT}"))));
    assert_eq!(client.hears(&format!("334 {}\r\n", coded(CHALLENGE))), Event::Challenged);
    assert_eq!((client.said().as_str(), client.session.is_ready()), ("", false));
    let challenge = client.session.take_challenge();
    let nonce = CHALLENGE.split(',').next().unwrap();
    assert_eq!(challenge.messages, format!("n=user,r={CLIENT},{CHALLENGE},c=biws,{nonce}"));
    assert_eq!((challenge.password.reveal(), challenge.rounds.get()), ("pencil", 4096));
    assert_eq!(challenge.salt, bytes::<16>("W22ZaJ0SNY7soEsUEjb6gQ=="));
    client.session.on_signed(&Signed { proof: bytes(PROOF), server: bytes(SIGNATURE) }, &mut client.out);
    assert_eq!(client.said(), format!("{}\r\n", coded(&format!("c=biws,{nonce},p={PROOF}"))));
    assert_eq!(client.hears(&format!("334 {}\r\n", coded(&format!("v={SIGNATURE}")))), Event::NeedInput);
    assert_eq!(client.said(), "\r\n");
    assert_eq!(client.hears("235 2.7.0 welcome\r\n"), Event::Ready);
    assert_eq!(client.session.mechanism(), Some(Mechanism::ScramSha256));
}

#[test]
fn s63_the_strongest_of_what_is_offered_is_chosen() {
    let begins = |offered: &str, binding: Option<[u8; 32]>| {
        let said = proving(offered, binding).said();
        let (mechanism, first) = said.trim_end().strip_prefix("AUTH ").unwrap().split_once(' ').unwrap_or_default();
        let first = String::from_utf8(STANDARD.decode(first).unwrap()).unwrap();
        format!("{mechanism} {}", first.split(",n=").next().unwrap())
    };
    let all = "LOGIN PLAIN XOAUTH2 SCRAM-SHA-256 SCRAM-SHA-256-PLUS";
    assert_eq!(begins(all, Some([7; 32])), "SCRAM-SHA-256-PLUS p=tls-exporter,");
    assert_eq!(begins(all, None), "SCRAM-SHA-256 n,");
    // The server, or somebody between, does not know that we could: the real one will notice.
    assert_eq!(begins("PLAIN SCRAM-SHA-256", Some([7; 32])), "SCRAM-SHA-256 y,");
    assert_eq!(begins("SCRAM-SHA-256-PLUS PLAIN", None), "PLAIN \0user\0pencil");
    assert_eq!(begins("SCRAM-SHA-1 CRAM-MD5 PLAIN", Some([7; 32])), "PLAIN \0user\0pencil");
}

#[test]
fn s63_a_server_that_does_not_know_the_password_is_not_trusted() {
    for reply in [
        // Nobody was asked for a proof, or it is another one, or none.
        "235 2.7.0 welcome",
        &format!("334 {}", coded("v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
        &format!("334 {}", coded("v=")),
        "334 !!!",
        "334",
    ] {
        let mut client = proven();
        client.said();
        let event = client.hears(&format!("{reply}\r\n"));
        assert!(failed(&event).text().contains("has not proven that it knows the password"), "{reply}: {event:?}");
        assert_eq!((client.said().as_str(), client.session.is_closing()), ("", true), "{reply}");
    }
    let mut client = proving("SCRAM-SHA-256", None);
    assert!(failed(&client.hears("235 2.7.0 welcome\r\n")).text().contains("has not proven"));
    let refused = coded("e=invalid-proof");
    for (reply, heard) in [("535 5.7.8 no", "535 5.7.8 no"), (&format!("334 {refused}"), "invalid-proof")] {
        let mut client = proven();
        match client.hears(&format!("{reply}\r\n")) {
            Event::LoginRefused(reply) => assert!(reply.to_string().contains(heard), "{reply}"),
            other => panic!("{other:?}"),
        }
    }
    let mut client = proven();
    assert!(matches!(client.hears("454 4.7.0 later\r\n"), Event::Failed(reply) if reply.code() == 454));
}

#[test]
fn s63_a_challenge_that_makes_no_sense_is_not_answered() {
    let salt = "s=W22ZaJ0SNY7soEsUEjb6gQ==";
    for (challenge, why) in [
        ("r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".to_owned(), "nonce"),
        (format!("r={CLIENT},{salt},i=4096"), "nonce"),
        (format!("r={CLIENT}x,s=,i=4096"), "salt"),
        (format!("r={CLIENT}x,{salt},i=4000000000"), "4000000000 rounds"),
        (format!("r={CLIENT}x,{salt},i=1"), "1 rounds"),
    ] {
        let mut client = proving("SCRAM-SHA-256", None);
        client.said();
        let event = client.hears(&format!("334 {}\r\n", coded(&challenge)));
        let text = failed(&event).text();
        assert!(text.contains("challenge of SCRAM makes no sense") && text.contains(why), "{challenge}: {text}");
        assert_eq!(client.said(), "");
    }
    // Its end is beyond what is kept of a line, or what follows was said before it was asked for.
    let long = coded(&format!("r={CLIENT}x,s={},i=4096", "A".repeat(4000)));
    for reply in [format!("334 {long}\r\n"), "334 ***\r\n".to_owned(), "334\r\n".to_owned()] {
        let mut client = proving("SCRAM-SHA-256", None);
        assert!(failed(&client.hears(&reply)).text().contains("makes no sense"));
    }
    let mut client = proving("SCRAM-SHA-256", None);
    client.said();
    let early = format!("334 {}\r\n334 {}\r\n", coded(CHALLENGE), coded(&format!("v={SIGNATURE}")));
    let (_, event) = client.session.on_input(early.as_bytes(), &mut client.out);
    assert!(failed(&event).text().contains("out of order"));
    // A long nonce of a server is not cut as other texts are.
    let mut client = proving("SCRAM-SHA-256", None);
    let long = format!("r={CLIENT}{},{salt},i=4096", "n".repeat(900));
    assert_eq!(client.hears(&format!("334 {}\r\n", coded(&long))), Event::Challenged);
}

proptest! {
    /// Whatever a server says: nothing is sent behind a challenge that was not answered, and nobody is let in without a proof.
    #[test]
    fn nothing_but_the_right_signature_lets_us_go_on(
        replies in prop::collection::vec((prop::sample::select(vec![235u16, 334, 454, 535]), ".{0,40}", any::<bool>()), 1..6),
    ) {
        let mut client = proving("SCRAM-SHA-256", None);
        for (code, text, is_coded) in replies {
            let text = if is_coded { coded(&text) } else { text.replace(['\r', '\n'], " ") };
            let event = client.hears(&format!("{code} {text}\r\n"));
            prop_assert!(event != Event::Ready);
            if event == Event::Challenged || client.session.is_closing() {
                break;
            }
        }
    }
}

/// What is done to a reply of the genuine dialogue.
#[derive(Clone, Debug)]
enum Change {
    /// Another code.
    Code(u16),
    /// Its text, before it is coded, has another byte there, or ends there, or has this in there.
    Byte(prop::sample::Index, char),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, String),
    /// Its text as it goes over the wire, likewise.
    CodedByte(prop::sample::Index, char),
    CodedCut(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    let sign = || prop::sample::select("=,+/Aarsvim0 \0é".chars().collect::<Vec<_>>());
    prop_oneof![
        prop::sample::select(vec![235u16, 250, 334, 421, 454, 535]).prop_map(Change::Code),
        (index(), sign()).prop_map(|(at, sign)| Change::Byte(at, sign)),
        index().prop_map(Change::Cut),
        (index(), "[a-z]?=?.{0,8},?").prop_map(|(at, text)| Change::Insert(at, text)),
        (index(), sign()).prop_map(|(at, sign)| Change::CodedByte(at, sign)),
        index().prop_map(Change::CodedCut),
    ]
}

/// With this sign in place of the one there, or the end there.
fn at(text: &str, index: &prop::sample::Index, sign: Option<char>) -> String {
    let mut signs: Vec<char> = text.chars().collect();
    match (signs.is_empty(), sign) {
        (true, sign) => return sign.into_iter().collect(),
        (false, Some(sign)) => *index.get_mut(&mut signs) = sign,
        (false, None) => signs.truncate(index.index(signs.len())),
    }
    signs.into_iter().collect()
}

/// A reply, and what its text means.
fn reply(code: u16, text: &str, change: Option<&Change>) -> (String, String) {
    let (mut code, mut text) = (code, text.to_owned());
    match change {
        Some(Change::Code(other)) => code = *other,
        Some(Change::Byte(place, sign)) => text = at(&text, place, Some(*sign)),
        Some(Change::Cut(place)) => text = at(&text, place, None),
        Some(Change::Insert(place, more)) => {
            let place = text.char_indices().nth(place.index(text.len() + 1)).map_or(text.len(), |(place, _)| place);
            text.insert_str(place, more);
        }
        Some(Change::CodedByte(..) | Change::CodedCut(_)) | None => {}
    }
    let mut wire = coded(&text);
    match change {
        Some(Change::CodedByte(place, sign)) => wire = at(&wire, place, Some(*sign)),
        Some(Change::CodedCut(place)) => wire = at(&wire, place, None),
        _ => {}
    }
    let means = STANDARD.decode(&wire).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    (format!("{code} {wire}\r\n"), means)
}

/// Plays the dialogue with one reply changed: whether we were let in, and whether the server had proven that it may.
fn play(changed: Option<(usize, Change)>) -> (bool, bool) {
    let mut client = proving("SCRAM-SHA-256", None);
    client.said();
    let (mut answered, mut proven) = (false, false);
    let signature = format!("v={SIGNATURE}");
    for (turn, (code, text)) in [(334, CHALLENGE), (334, &*signature), (235, "welcome")].into_iter().enumerate() {
        let change = changed.as_ref().filter(|(at, _)| *at == turn).map(|(_, change)| change);
        let (line, means) = reply(code, text, change);
        let event = client.hears(&line);
        let is_signature = means.strip_prefix(&signature).is_some_and(|rest| rest.is_empty() || rest.starts_with(','));
        proven |= answered && is_signature;
        match event {
            Event::Challenged => {
                assert!(!answered, "{line:?}");
                client.session.take_challenge();
                client.session.on_signed(&Signed { proof: bytes(PROOF), server: bytes(SIGNATURE) }, &mut client.out);
                answered = true;
                assert!(client.said().ends_with("\r\n"));
            }
            Event::NeedInput if !client.session.is_closing() => assert!(["", "\r\n"].contains(&&*client.said())),
            Event::Ready => return (true, proven),
            // Refused, or given up: nothing more is said.
            _ => {
                assert_eq!(client.said(), "", "{line:?}");
                break;
            }
        }
    }
    (false, proven)
}

#[test]
fn s63_the_dialogue_that_is_changed_below_is_a_good_one() {
    assert_eq!(play(None), (true, true));
    let last = |change| play(Some((2, change)));
    assert_eq!((last(Change::Code(454)), last(Change::Code(250)).0), ((false, true), false));
}

proptest! {
    /// As above, but of a server that knows what it is about: each of its replies with one thing wrong.
    #[test]
    fn a_dialogue_with_one_wrong_reply_lets_nobody_in_who_has_not_proven_it(turn in 0usize..3, change in change()) {
        let (ready, proven) = play(Some((turn, change)));
        prop_assert!(proven || !ready);
    }
}

#[test]
fn nothing_prints_what_scram_knows() {
    let mut client = proving("SCRAM-SHA-256", None);
    client.hears(&format!("334 {}\r\n", coded(CHALLENGE)));
    let challenge = client.session.take_challenge();
    let signed = Signed { proof: [65; 32], server: [65; 32] };
    let printed = format!("{challenge:?} {signed:?} {:?}", client.session);
    assert!(!printed.contains("pencil") && !printed.contains("65"), "{printed}");
}
