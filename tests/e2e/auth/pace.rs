//! Guessing: slow for whoever does it, told of once, and nobody else's trouble.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::{ALL, IN, PASSWORD, hash, login, near, plain};
use crate::support::{Client, wait_until};

/// Guesses of one address, each on a connection of its own. How many were looked at, and how many were not.
fn guess(server: SocketAddr, from: Ipv4Addr, until: Instant) -> (usize, usize) {
    let (mut looked_at, mut turned_away) = (0, 0);
    while Instant::now() < until {
        let mut client = Client::ready_from(from, server);
        match client.say(&plain("gilles", &format!("guess {looked_at}"))).code {
            535 => looked_at += 1,
            421 => turned_away += 1,
            other => panic!("{other}"),
        }
    }
    (looked_at, turned_away)
}

#[test]
fn whoever_guesses_is_slowed_and_another_logs_in_meanwhile() {
    let made = hash("sha512");
    let table = format!("table users {{ gilles = \"{made}\", eric = \"{made}\" }}\n");
    let server = near(&table, "auth <users>", ALL);
    let until = Instant::now() + Duration::from_secs(6);
    let attackers: Vec<_> = (0..20)
        .map(|_| {
            let smtp = server.smtp;
            thread::spawn(move || guess(smtp, Ipv4Addr::new(127, 9, 9, 9), until))
        })
        .collect();
    let mut slowest = Duration::ZERO;
    while Instant::now() < until {
        let began = Instant::now();
        let mut client = Client::ready_from(Ipv4Addr::new(127, 0, 0, 7), server.smtp);
        assert_eq!(login(&mut client, "eric", PASSWORD), IN);
        slowest = slowest.max(began.elapsed());
        thread::sleep(Duration::from_millis(200));
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?} to log in");
    let results: Vec<_> = attackers.into_iter().map(|one| one.join().expect("no panic")).collect();
    let looked_at: usize = results.iter().map(|one| one.0).sum();
    let turned_away: usize = results.iter().map(|one| one.1).sum();
    assert!(looked_at < 30 && turned_away > 20, "{looked_at} looked at, {turned_away} turned away");
    wait_until("the log tells", Duration::from_secs(5), || server.printed().contains("logins slowed from=127.9.9.9"));
    let log = server.printed();
    assert_eq!(log.matches("logins slowed from=127.9.9.9").count(), 1, "{log}");
    assert!(log.matches("login failed from=127.9.9.9").count() <= 5, "{log}");
    assert!(server.metric("logins_turned_away") as usize >= turned_away);
}
