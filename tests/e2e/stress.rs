//! Many sessions at once that behave badly: random sizes, bytes, cuts, chunks and resets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use crate::support::text::{digest, message, stuffed};
use crate::support::{Client, Random, Setup, Sink};

const SESSIONS: u64 = 60;
const MESSAGES: u64 = 100;
/// Most are small: the cube of an even distribution up to here.
const LARGEST: f64 = 200.0 * 1024.0;

/// What each side of a session knows of its messages: key, length and sum.
#[derive(Default)]
struct Ledger {
    answered: HashMap<String, (usize, u64)>,
    /// Sent, and the connection was reset before an answer came: may or may not have been taken.
    open: HashMap<String, (usize, u64)>,
}

#[test]
fn s93_every_250_has_its_message_byte_for_byte() {
    let sink = Sink::open();
    let server = Setup::relay_to(sink.address).start();
    let seed = Random::fresh().seed();
    eprintln!("seed {seed}");
    let ledger = Mutex::new(Ledger::default());
    std::thread::scope(|scope| {
        for session in 0..SESSIONS {
            let (ledger, address) = (&ledger, server.smtp);
            scope.spawn(move || {
                let mut random = Random::new(seed ^ session.wrapping_mul(0x5851_f42d_4c95_7f2d));
                let mut client = None;
                for number in 0..MESSAGES {
                    let key = format!("s{session}-{number}");
                    client = one(address, client, &key, &mut random, ledger);
                }
            });
        }
    });
    let Ledger { answered, open } = ledger.into_inner().expect("no session has panicked");
    eprintln!("{} answered, {} left open by resets", answered.len(), open.len());
    assert!(answered.len() as u64 > SESSIONS * MESSAGES / 2, "only {} were answered", answered.len());
    sink.wait_for(answered.len(), Duration::from_secs(60));
    crate::support::wait_until("the queue is empty", Duration::from_secs(60), || server.queue().is_empty());

    let mut received: HashMap<String, usize> = HashMap::new();
    for one in sink.messages() {
        let key = one.key.expect("a key");
        let sent = answered.get(&key).or(open.get(&key)).unwrap_or_else(|| panic!("{key} was never finished"));
        assert_eq!((one.bytes, one.digest), *sent, "{key} has changed");
        *received.entry(key).or_default() += 1;
    }
    for key in answered.keys() {
        assert_eq!(received.get(key), Some(&1), "{key} was answered with 250");
    }
    assert!(received.values().all(|times| *times == 1), "nothing twice");
}

/// One message, in one of many ways. Returns the connection, if it still is one.
fn one(
    address: SocketAddr,
    client: Option<Client>,
    key: &str,
    random: &mut Random,
    ledger: &Mutex<Ledger>,
) -> Option<Client> {
    let mut client = client.unwrap_or_else(|| Client::ready(address));
    let size = (LARGEST * (random.below(1 << 20) as f64 / (1 << 20) as f64).powi(3)) as usize;
    let text = message(key, random, size);
    let sum = (text.len(), digest(&text));
    let (from, to) = ("a@source.example", "b@sink.example");
    match random.below(20) {
        // Leaves in the middle of the body: never answered, never taken.
        0 => {
            client.envelope(from, &[to]);
            assert_eq!(client.say("DATA").code, 354);
            let wire = stuffed(&text);
            client.send(&wire[..random.below(wire.len() as u64 - 4) as usize]);
            client.reset();
            return None;
        }
        // Leaves right after the end of the body: may have been taken.
        1 => {
            client.envelope(from, &[to]);
            assert_eq!(client.say("DATA").code, 354);
            client.send(&stuffed(&text));
            client.reset();
            ledger.lock().expect("alive").open.insert(key.to_owned(), sum);
            return None;
        }
        // Thinks better of it.
        2 => {
            client.envelope(from, &[to]);
            assert_eq!(client.say("RSET").code, 250);
            return Some(client);
        }
        // Sends some chunks, then thinks better of it.
        3 => {
            client.envelope(from, &[to]);
            client.send(format!("BDAT {}\r\n", text.len()).as_bytes());
            client.send(&text);
            client.expect("250");
            assert_eq!(client.say("RSET").code, 250);
            return Some(client);
        }
        4..8 => {
            let chunk = random.below(text.len() as u64) as usize + 1;
            assert_eq!(client.submit_chunked(from, &[to], &text, chunk.max(text.len() / 20)).code, 250);
        }
        // Everything that may be pipelined is, cut anywhere.
        8..14 => {
            let mut wire = format!("MAIL FROM:<{from}> SIZE={}\r\nRCPT TO:<{to}>\r\nDATA\r\n", text.len()).into_bytes();
            send_cut(&mut client, &wire, random);
            for code in [250, 250, 354] {
                assert_eq!(client.reply().code, code);
            }
            wire = stuffed(&text);
            wire.extend_from_slice(b"NOOP\r\n");
            send_cut(&mut client, &wire, random);
            let reply = client.reply();
            assert_eq!((reply.code, client.reply().code), (250, 250), "{reply:?}");
        }
        _ => {
            let reply = client.submit(from, &[to], &text);
            assert_eq!(reply.code, 250, "{reply:?}");
        }
    }
    ledger.lock().expect("alive").answered.insert(key.to_owned(), sum);
    // Now and then a session ends politely.
    if random.below(30) == 0 {
        assert_eq!(client.say("QUIT").code, 221);
        return None;
    }
    Some(client)
}

fn send_cut(client: &mut Client, wire: &[u8], random: &mut Random) {
    let mut left = wire;
    while !left.is_empty() {
        let most = if random.below(3) == 0 { 40 } else { 60_000 };
        let (now, later) = left.split_at((random.below(most) as usize + 1).min(left.len()));
        client.send(now);
        left = later;
    }
}
