//! What a client says and hears in SCRAM-SHA-256 (RFC 5802 §5, RFC 7677), bound to the encrypted channel where both sides can
//! (RFC 9266). Whatever must be hashed is handed to the caller, who may wait for it.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::limits::{SCRAM_NONCE_BYTES, SCRAM_ROUNDS_MAX, SCRAM_ROUNDS_MIN, SCRAM_SALT_BYTES_MAX};
use crate::secret::Secret;

/// What a server has asked for, and is to be computed. Nothing prints the password.
#[derive(Debug)]
pub struct Challenge {
    /// The password.
    pub password: Secret,
    /// The server's, at least one byte and at most [`SCRAM_SALT_BYTES_MAX`].
    pub salt: Vec<u8>,
    /// How often is hashed, within [`SCRAM_ROUNDS_MIN`] and [`SCRAM_ROUNDS_MAX`].
    pub rounds: NonZeroU32,
    /// What is signed: the AuthMessage of RFC 5802 §3.
    pub messages: String,
}

/// What comes of a [`Challenge`] (RFC 5802 §3).
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    /// ClientProof: that we know the password.
    pub proof: [u8; 32],
    /// ServerSignature: what a server says that knows it, too.
    pub server: [u8; 32],
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// How a dialogue is bound to its channel (RFC 5802 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// The channel has nothing that could bind it.
    Impossible,
    /// It has, and the server does not offer it: if it has offered it, and somebody between has not let that pass, it will notice.
    NotOffered,
    /// By this (RFC 9266).
    Exporter([u8; 32]),
}

/// A dialogue that has begun.
pub(super) struct Dialogue {
    /// What comes before our first message, and again in the last, there with what binds it.
    header: Vec<u8>,
    /// The first message without that, and then all that is signed.
    messages: String,
    /// Ours, and then ours and the server's.
    nonce: String,
    /// The last message without the proof.
    last: String,
    /// What the server must say.
    expected: Option<[u8; 32]>,
}

/// What a server's last message is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// It knows the password.
    Proven,
    /// It does not, or makes no sense.
    Unproven,
    /// It refuses us, and says so (RFC 5802 §7).
    Refused(String),
}

impl Dialogue {
    /// Begins, with a nonce that nobody can foresee; what is said first.
    pub(super) fn begin(user: &str, nonce: [u8; SCRAM_NONCE_BYTES], binding: Binding) -> (Self, String) {
        let (header, bound): (&str, &[u8]) = match &binding {
            Binding::Impossible => ("n,,", b""),
            Binding::NotOffered => ("y,,", b""),
            Binding::Exporter(bytes) => ("p=tls-exporter,,", bytes),
        };
        let nonce = STANDARD.encode(nonce);
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let messages = format!("n={user},r={nonce}");
        let first = format!("{header}{messages}");
        let header = [header.as_bytes(), bound].concat();
        (Self { header, messages, nonce, last: String::new(), expected: None }, first)
    }

    /// Takes the server's first message, as it stands in its reply.
    ///
    /// # Errors
    /// What is wrong with it: nothing is to be proven to such a server.
    pub(super) fn challenged(&mut self, encoded: &[u8], password: &Secret) -> Result<Challenge, String> {
        let text = STANDARD.decode(encoded.trim_ascii()).map_err(|_| "it is not base64")?;
        let text = String::from_utf8(text).map_err(|_| "it is not text")?;
        // `m=` in front would be an extension that must be understood, and others come behind.
        let mut parts = text.split(',');
        let nonce = parts.next().and_then(|part| part.strip_prefix("r="));
        let nonce = nonce.filter(|nonce| nonce.len() > self.nonce.len() && nonce.starts_with(&self.nonce));
        let nonce = nonce.ok_or("its nonce does not begin with ours and go on")?;
        let salt = parts.next().and_then(|part| part.strip_prefix("s=")).and_then(|salt| STANDARD.decode(salt).ok());
        let salt = salt.filter(|salt| (1..=SCRAM_SALT_BYTES_MAX).contains(&salt.len())).ok_or("it has no salt")?;
        let rounds = parts.next().and_then(|part| part.strip_prefix("i=")).and_then(|count| count.parse::<u32>().ok());
        let rounds = rounds.ok_or("it does not say how often to hash")?;
        let good = NonZeroU32::new(rounds).filter(|_| (SCRAM_ROUNDS_MIN..=SCRAM_ROUNDS_MAX).contains(&rounds));
        let wrong = || format!("it wants {rounds} rounds of hashing, not {SCRAM_ROUNDS_MIN} to {SCRAM_ROUNDS_MAX}");
        let rounds = good.ok_or_else(wrong)?;
        nonce.clone_into(&mut self.nonce);
        self.last = format!("c={},r={}", STANDARD.encode(&self.header), self.nonce);
        self.messages = format!("{},{text},{}", self.messages, self.last);
        let (password, messages) = (password.clone(), self.messages.clone());
        Ok(Challenge { password, salt, rounds, messages })
    }

    /// Our last message.
    pub(super) fn prove(&mut self, signed: &Signed) -> String {
        self.expected = Some(signed.server);
        format!("{},p={}", self.last, STANDARD.encode(signed.proof))
    }

    /// Reads the server's last message, as it stands in its reply.
    pub(super) fn end(&self, encoded: &[u8]) -> Last {
        let text = STANDARD.decode(encoded.trim_ascii()).ok().and_then(|text| String::from_utf8(text).ok());
        let said = text.as_deref().and_then(|text| text.split(',').next()).unwrap_or_default();
        if let Some(why) = said.strip_prefix("e=") {
            return Last::Refused(why.to_owned());
        }
        let signature = said.strip_prefix("v=").and_then(|signature| STANDARD.decode(signature).ok());
        match (signature, self.expected) {
            (Some(signature), Some(expected)) if signature == expected => Last::Proven,
            _ => Last::Unproven,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of RFC 7677 §3.
    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";

    fn begin(user: &str, binding: Binding) -> (Dialogue, String) {
        Dialogue::begin(user, [0; SCRAM_NONCE_BYTES], binding)
    }

    fn nonce() -> String {
        STANDARD.encode([0; SCRAM_NONCE_BYTES])
    }

    fn challenged(dialogue: &mut Dialogue, text: &str) -> Result<Challenge, String> {
        dialogue.challenged(STANDARD.encode(text).as_bytes(), &Secret::new("pencil".into()))
    }

    #[test]
    fn names_are_written_so_that_they_can_be_told_from_the_rest() {
        assert_eq!(begin("a=b,c", Binding::Impossible).1, format!("n,,n=a=3Db=2Cc,r={}", nonce()));
        assert_eq!(begin("user", Binding::NotOffered).1, format!("y,,n=user,r={}", nonce()));
        let bound = begin("user", Binding::Exporter([1; 32])).1;
        assert_eq!(bound, format!("p=tls-exporter,,n=user,r={}", nonce()));
    }

    #[test]
    fn what_is_signed_is_all_that_was_said() {
        let (mut dialogue, _) = begin("user", Binding::Exporter([1; 32]));
        let text = format!("r={}%hvY,s={SALT},i=4096,x=more", nonce());
        let challenge = challenged(&mut dialogue, &text).unwrap();
        let header = STANDARD.encode([b"p=tls-exporter,,".as_slice(), &[1; 32]].concat());
        let last = format!("c={header},r={}%hvY", nonce());
        assert_eq!(challenge.messages, format!("n=user,r={},{text},{last}", nonce()));
        assert_eq!((challenge.rounds.get(), challenge.salt), (4096, STANDARD.decode(SALT).unwrap()));
        assert_eq!(dialogue.end(STANDARD.encode("v=AAAA").as_bytes()), Last::Unproven, "nothing is expected yet");
        let signed = Signed { proof: [2; 32], server: [3; 32] };
        assert_eq!(dialogue.prove(&signed), format!("{last},p={}", STANDARD.encode([2; 32])));
        let end = |text: &str| dialogue.end(STANDARD.encode(text).as_bytes());
        let good = STANDARD.encode([3; 32]);
        assert_eq!(end(&format!("v={good}")), Last::Proven);
        assert_eq!(end(&format!("v={good},x=more")), Last::Proven);
        assert_eq!(end("e=invalid-proof"), Last::Refused("invalid-proof".into()));
        for wrong in ["", "v=", "v=!", &good, &format!("v={}", STANDARD.encode([2; 32])), &format!("x,v={good}")] {
            assert_eq!(end(wrong), Last::Unproven, "{wrong}");
        }
        assert_eq!(dialogue.end(b"v=***"), Last::Unproven);
    }

    #[test]
    fn a_server_that_makes_no_sense_hears_nothing_more() {
        let nonce = nonce();
        for (text, why) in [
            (format!("r={nonce},s={SALT},i=4096"), "nonce"),
            (format!("r=other{nonce},s={SALT},i=4096"), "nonce"),
            (format!("r=,s={SALT},i=4096"), "nonce"),
            (format!("m=x,r={nonce}x,s={SALT},i=4096"), "nonce"),
            (format!("r={nonce}x,s=,i=4096"), "no salt"),
            (format!("r={nonce}x,s=!!!,i=4096"), "no salt"),
            (format!("r={nonce}x,i=4096,s={SALT}"), "no salt"),
            (format!("r={nonce}x,s={},i=4096", STANDARD.encode([0; SCRAM_SALT_BYTES_MAX + 1])), "no salt"),
            (format!("r={nonce}x,s={SALT}"), "how often"),
            (format!("r={nonce}x,s={SALT},i=many"), "how often"),
            (format!("r={nonce}x,s={SALT},i=99999999999"), "how often"),
            (format!("r={nonce}x,s={SALT},i=0"), "0 rounds"),
            (format!("r={nonce}x,s={SALT},i=4095"), "4095 rounds"),
            (format!("r={nonce}x,s={SALT},i=1000001"), "1000001 rounds"),
            ("e=other-error".to_owned(), "nonce"),
            (String::new(), "nonce"),
        ] {
            let (mut dialogue, _) = begin("user", Binding::Impossible);
            let wrong = challenged(&mut dialogue, &text).unwrap_err();
            assert!(wrong.contains(why), "{text}: {wrong}");
        }
        for (encoded, why) in [(&b"r=x"[..], "base64"), (b"/////w==", "text"), (b"cj0g\xff", "base64")] {
            let (mut dialogue, _) = begin("user", Binding::Impossible);
            let wrong = dialogue.challenged(encoded, &Secret::new("x".into())).unwrap_err();
            assert!(wrong.contains(why), "{wrong}");
        }
    }
}
