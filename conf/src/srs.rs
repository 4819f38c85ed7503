//! The Sender Rewriting Scheme: mail that is forwarded goes on under an address of the domain that forwards it, so that the
//! next server finds that domain's machines allowed to send it (SPF), and what comes back finds its way to the sender.
//! `SRS0=HASH=DAY=DOMAIN=LOCAL@ours`, or, of an address that another forwarder has made already, `SRS1=HASH=DOMAIN=REST@ours`,
//! which leads back to that one.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use ringpost_address::split_address;
use sha2::Sha256;

use crate::facts::Facts;
use crate::limits::{SRS_PATH_BYTES_MAX, SRS_TTL};
use crate::model::{Config, Srs};
use crate::tables::Secret;

/// What an address stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing but itself: it does not have the form, or there is no key.
    Itself,
    /// This sender of mail that was forwarded.
    Sender(String),
    /// It has the form and is not ours, or no longer good.
    Refused(&'static str),
}

/// Letters for hashes and days: mail systems may change upper and lower case.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Letters of a hash, five bits each: guessing one takes as many mails as nobody sends.
const HASH_LETTERS: usize = 8;
/// Days are counted modulo this: two letters.
const DAYS: u64 = 1024;
const DAY: Duration = Duration::from_secs(86_400);

impl Srs {
    /// The reverse-path of mail that `domain` forwards; `None`: as it is. `now_ms` is the time since the epoch.
    pub fn forwarded(&self, sender: &str, domain: &str, now_ms: u64) -> Option<String> {
        let key = self.key.as_ref()?;
        let (local, from) = split_address(sender)?;
        if from.is_empty() || domain.is_empty() || from.eq_ignore_ascii_case(domain) || local.starts_with('"') {
            return None;
        }
        let made = match form(local) {
            Some((0, rest)) => {
                // `rest` begins with the separator that the first forwarder uses; the second `=` says where it begins.
                let hash = hash(key, &[from, rest]);
                format!("SRS1={hash}={from}={rest}@{domain}")
            }
            Some((_, rest)) => {
                let (first, rest) = rest.get(1..).and_then(|rest| rest.split_once('=')?.1.split_once('='))?;
                format!("SRS1={}={first}={rest}@{domain}", hash(key, &[first, rest]))
            }
            None => {
                let day = day_letters(now_ms / DAY.as_millis() as u64);
                format!("SRS0={}={day}={from}={local}@{domain}", hash(key, &[&day, from, local]))
            }
        };
        (made.len() <= SRS_PATH_BYTES_MAX).then_some(made)
    }

    /// What a recipient stands for.
    pub fn origin(&self, recipient: &str, now_ms: u64) -> Origin {
        if self.key.is_none() {
            return Origin::Itself;
        }
        let Some((kind, rest)) = split_address(recipient).and_then(|(local, _)| form(local)) else {
            return Origin::Itself;
        };
        let Some((said, rest)) = rest.get(1..).and_then(|rest| rest.split_once('=')) else { return Origin::Itself };
        let sender = match kind {
            0 => {
                let mut parts = rest.splitn(3, '=');
                let (Some(day), Some(domain), Some(local)) = (parts.next(), parts.next(), parts.next()) else {
                    return Origin::Itself;
                };
                if !self.is_ours(said, &[day, domain, local]) {
                    return Origin::Refused("the address was not made here");
                }
                if !self.is_good(day, now_ms) {
                    return Origin::Refused("the address is too old");
                }
                format!("{local}@{domain}")
            }
            _ => {
                let Some((first, rest)) = rest.split_once('=') else { return Origin::Itself };
                if !self.is_ours(said, &[first, rest]) {
                    return Origin::Refused("the address was not made here");
                }
                format!("SRS0{rest}@{first}")
            }
        };
        Origin::Sender(sender)
    }

    fn is_ours(&self, said: &str, parts: &[&str]) -> bool {
        [&self.key, &self.backup_key].into_iter().flatten().any(|key| hash(key, parts).eq_ignore_ascii_case(said))
    }

    fn is_good(&self, day: &str, now_ms: u64) -> bool {
        let Some(made) = day_of(day) else { return false };
        let now = now_ms / DAY.as_millis() as u64 % DAYS;
        let age = (now + DAYS - made) % DAYS;
        // The day is all that is known: one that is not over yet counts as none.
        age <= self.ttl.unwrap_or(SRS_TTL).as_secs().div_ceil(DAY.as_secs())
    }
}

impl Config {
    /// Whether the recipient has the form of an address of the scheme, so that it must be expanded.
    pub fn is_srs(&self, facts: &Facts<'_>) -> bool {
        self.srs.origin(facts.recipient, facts.now_ms) != Origin::Itself
    }
}

/// `SRS0` or `SRS1` with a separator behind it: which, and the separator and the rest.
fn form(local: &str) -> Option<(u8, &str)> {
    let (head, rest) = local.split_at_checked(4)?;
    let kind = match head.to_ascii_uppercase().as_str() {
        "SRS0" => 0,
        "SRS1" => 1,
        _ => return None,
    };
    rest.starts_with(['=', '+', '-']).then_some((kind, rest))
}

/// Keyed, of the parts in lower case.
fn hash(key: &Secret, parts: &[&str]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.reveal().as_bytes()).expect("a key of any length");
    for part in parts {
        mac.update(part.to_ascii_lowercase().as_bytes());
        mac.update(b"=");
    }
    let bytes = mac.finalize().into_bytes();
    let bits = bytes[..8].iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    (0..HASH_LETTERS).map(|at| char::from(LETTERS[(bits >> (59 - 5 * at)) as usize & 31])).collect()
}

fn day_letters(day: u64) -> String {
    let day = day % DAYS;
    [day >> 5, day & 31].iter().map(|five| char::from(LETTERS[*five as usize])).collect()
}

fn day_of(letters: &str) -> Option<u64> {
    let five = |letter: u8| LETTERS.iter().position(|known| known.eq_ignore_ascii_case(&letter));
    match letters.as_bytes() {
        [high, low] => Some((five(*high)? << 5 | five(*low)?) as u64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_900_000_000;
    const DAY_MS: u64 = 86_400_000;

    fn srs(key: &str) -> Srs {
        Srs { key: Some(Secret::new(key)), backup_key: None, ttl: None }
    }

    fn back(sender: &str) -> Origin {
        Origin::Sender(sender.to_owned())
    }

    #[test]
    fn what_was_made_leads_back_until_it_is_too_old() {
        let ours = srs("secret");
        let made = ours.forwarded("gilles@poolp.example", "forward.example", NOW).expect("made");
        assert!(made.starts_with("SRS0=") && made.ends_with("=poolp.example=gilles@forward.example"), "{made}");
        assert_eq!(ours.origin(&made, NOW), back("gilles@poolp.example"));
        assert_eq!(ours.origin(&made.to_lowercase(), NOW + 4 * DAY_MS), back("gilles@poolp.example"));
        assert!(matches!(ours.origin(&made, NOW + 5 * DAY_MS), Origin::Refused(_)), "four days are over");
        assert!(matches!(ours.origin(&made, NOW - DAY_MS), Origin::Refused(_)), "of tomorrow");
        let awkward = ours.forwarded("a=b+c=d@x.example", "forward.example", NOW).expect("made");
        assert_eq!(ours.origin(&awkward, NOW), back("a=b+c=d@x.example"));
    }

    #[test]
    fn nobody_else_makes_one() {
        let (ours, theirs) = (srs("secret"), srs("another"));
        let made = theirs.forwarded("a@b.example", "forward.example", NOW).expect("made");
        assert!(matches!(ours.origin(&made, NOW), Origin::Refused(_)));
        let moved = Srs { backup_key: Some(Secret::new("another")), ..srs("secret") };
        assert_eq!(moved.origin(&made, NOW), back("a@b.example"), "the key before is still good");
        let good = ours.forwarded("a@b.example", "forward.example", NOW).expect("made");
        let forged = good.replace("=b.example=", "=c.example=");
        assert!(matches!(ours.origin(&forged, NOW), Origin::Refused(_)));
    }

    #[test]
    fn an_address_of_another_forwarder_leads_back_to_it() {
        let (first, second, third) = (srs("one"), srs("two"), srs("three"));
        let once = first.forwarded("a@b.example", "one.example", NOW).expect("made");
        let twice = second.forwarded(&once, "two.example", NOW).expect("made");
        assert!(twice.starts_with("SRS1=") && twice.contains("=one.example==") && twice.ends_with("@two.example"));
        assert_eq!(second.origin(&twice, NOW), back(&once));
        let thrice = third.forwarded(&twice, "three.example", NOW).expect("made");
        assert!(
            thrice.contains("=one.example==") && !thrice.contains("two.example"),
            "{thrice}: the one between is left out"
        );
        assert_eq!(third.origin(&thrice, NOW), back(&once));
    }

    #[test]
    fn what_needs_no_other_sender_keeps_its_own() {
        let ours = srs("secret");
        for sender in ["", "a", "a@forward.example", "\"a b\"@c.example"] {
            assert_eq!(ours.forwarded(sender, "forward.example", NOW), None, "{sender}");
        }
        let long = format!("{}@{}.example", "l".repeat(64), "d".repeat(60).repeat(3));
        assert_eq!(ours.forwarded(&long, "forward.example", NOW), None, "a path that is too long is worse");
        assert_eq!(Srs::default().forwarded("a@b.example", "forward.example", NOW), None);
        for other in ["srs@forward.example", "srs0@forward.example", "SRS0=x@forward.example", "srsly@forward.example"]
        {
            assert_eq!(ours.origin(other, NOW), Origin::Itself, "{other}");
        }
    }
}
