//! The shapes for large providers that come with the product.

use std::path::Path;
use std::time::Duration;

use ringpost_conf::{Config, Memory, Options, Pressure, Reaction, Refused, Shape, load};

const PROVIDERS: &str = include_str!("../shaping.d/providers.conf");
const RULES: &str = "listen on lo0\naction out relay\nmatch from local for any action out\n";

fn config(text: &str) -> Config {
    let files = Memory::default().with("c", text).with("/providers.conf", PROVIDERS);
    let loaded = load(&files, Path::new("c"), &Options::default());
    let (config, warnings) = loaded.unwrap_or_else(|reports| panic!("{reports}"));
    assert!(warnings.is_empty(), "{warnings}");
    assert!(config.not_yet.is_empty(), "{:?}", config.not_yet);
    config
}

fn shape(config: &Config, host: &str) -> Shape {
    config.shape_of(&config.shapes_for(None, "recipient.example", &[host]))
}

#[test]
fn exchangers_of_providers_have_their_shapes() {
    let config = config(&format!("include \"/providers.conf\"\n{RULES}"));
    for (host, connections, messages) in [
        ("gmail-smtp-in.l.google.com", 10, 50),
        ("alt1.aspmx.l.google.com", 10, 50),
        ("mta5.am0.yahoodns.net", 10, 20),
        ("hotmail-com.olc.protection.outlook.com", 5, 50),
        ("example-org.mail.protection.outlook.com", 10, 50),
        ("example-org.a-v1.mx.microsoft", 10, 50),
        ("mx01.mail.icloud.com", 10, 5),
        ("mx1h1.comcast.net", 25, 1000),
        ("mx00.gmx.net", 10, 100),
        ("smtp-in.orange.fr", 3, 100),
        ("eu-smtp-inbound-1.mimecast.com", 10, 100),
        ("mxa-00000000.gslb.pphosted.com", 10, 50),
    ] {
        let shape = shape(&config, host);
        assert_eq!((shape.connections, shape.messages_per_connection), (Some(connections), Some(messages)), "{host}");
    }
    assert_eq!(shape(&config, "mx.example.org").connections, None, "nobody else has one");
}

#[test]
fn the_profile_for_bulk_mail_has_them_and_a_file_wins_over_it() {
    let own = "shaping google mx { \"*.google.com\" } { connections 3 }\n";
    let config = config(&format!("profile bulk\n{own}{RULES}"));
    let google = shape(&config, "aspmx.l.google.com");
    assert_eq!((google.connections, google.messages_per_connection), (Some(3), None), "the whole statement");
    assert_eq!(shape(&config, "mta5.am0.yahoodns.net").messages_per_connection, Some(20));
}

#[test]
fn their_words_for_too_much_are_understood() {
    let config = config(&format!("include \"/providers.conf\"\n{RULES}"));
    for (host, code, status, text, reaction) in [
        (
            "mta5.am0.yahoodns.net",
            421,
            (4, 7, 0),
            "[TSS04] deferred due to complaints",
            Some(Reaction::Suspend(HOURS_2)),
        ),
        (
            "mta5.am0.yahoodns.net",
            421,
            (4, 7, 0),
            "[TS01] Messages from 192.0.2.1 deferred",
            Some(Reaction::Throttle(50)),
        ),
        ("aspmx.l.google.com", 421, (4, 7, 28), "unusual rate of mail", Some(Reaction::Throttle(50))),
        ("x.olc.protection.outlook.com", 451, (4, 7, 650), "rate limited", Some(Reaction::Suspend(MINUTES_30))),
        ("mx1h1.comcast.net", 421, (4, 1, 0), "RL000001 too much", Some(Reaction::Throttle(50))),
        (
            "smtp-in.orange.fr",
            421,
            (4, 0, 0),
            "Too many connections, slow down. OFR004_104",
            Some(Reaction::Throttle(50)),
        ),
        ("smtp-in.orange.fr", 550, (5, 1, 1), "no such user", None),
    ] {
        let refused = Refused { code, status, text, domain: "recipient.example" };
        let found = config.pressure(&shape(&config, host).on_reply, &refused);
        assert_eq!(found, reaction.map(Pressure::Said), "{host} {text}");
    }
}

const HOURS_2: Duration = Duration::from_secs(2 * 3600);
const MINUTES_30: Duration = Duration::from_secs(30 * 60);
