//! Configurations of Redis tables; the real server is asked in `tests/e2e/tables/stores.rs`.

use super::super::tests::{config, surroundings};
use super::*;

fn problems(text: &str) -> Vec<String> {
    let wrong = Store::new(&config(text), &surroundings().0).err();
    wrong.unwrap_or_default().iter().map(Problem::to_string).collect()
}

#[test]
fn configurations_are_read_and_their_mistakes_named() {
    let store = Store::new(
        &config("url redis://127.0.0.1:6380/2\npassword secret\nalias_prefix mail:alias:\ndomain_prefix \"\"\n"),
        &surroundings().0,
    )
    .unwrap();
    assert_eq!(store.services().collect::<Vec<_>>(), [Service::Alias, Service::Domain]);
    assert_eq!(store.prefixes[&Service::Alias], "mail:alias:");
    let info = store.client.get_connection_info();
    assert_eq!((info.redis_settings().db(), info.redis_settings().password()), (2, Some("secret")));
    for (text, expected) in [
        ("alias_prefix a\n", "t.conf: there is no `url`"),
        ("url rediss://x\n", "t.conf:1:5: rediss is not supported"),
        ("url http://x\n", "t.conf:1:5: `http://x` is not the URL of a Redis server"),
        ("url redis://x\nauth_prefix a\n", "t.conf:2:13: Redis cannot judge passwords"),
        ("url redis://x\nalias_prefx a\n", "t.conf:2:1: unknown key `alias_prefx`\n  did you mean `alias_prefix`?"),
    ] {
        let problems = problems(text);
        assert!(problems.len() == 1 && problems[0].contains(expected), "{text}: {problems:?}");
    }
}

#[test]
fn sockets_are_below_the_root() {
    let mut surroundings = surroundings().0;
    surroundings.root = Some("/r".into());
    let store = Store::new(&config("url unix:///run/redis.sock\n"), &surroundings).unwrap();
    let ConnectionAddr::Unix(path) = store.client.get_connection_info().addr() else { panic!() };
    assert_eq!(path, std::path::Path::new("/r/run/redis.sock"));
}
