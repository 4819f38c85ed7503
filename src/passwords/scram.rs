//! The arithmetic of SCRAM-SHA-256 (RFC 5802 §3, RFC 7677), of both sides. A server keeps [`Keys`], in PostgreSQL's form:
//! `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey`. With them it can check a password, and somebody who steals them cannot log in.
//! Who logs in makes [`Salted`] of the password, which is as good as the password at every server with the same salt.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

use super::prepare::prepared;
use super::{decode, encode, is_same, random};
use crate::limits::PBKDF2_ITERATIONS;

/// The name in front.
const NAME: &str = "SCRAM-SHA-256$";
/// RFC 7677 asks for 4096 at least; a client has to do as much.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(16_384).expect("not zero");

/// What a password and a salt become, after as many rounds as a server asks for. Wiped when it is no longer needed.
pub struct Salted {
    client: Zeroizing<[u8; 32]>,
    server: Zeroizing<[u8; 32]>,
}

impl Salted {
    /// Takes as long as `iterations` want. The password is prepared here (RFC 5802 §2.2), for both sides.
    pub fn derive(password: &str, iterations: NonZeroU32, salt: &[u8]) -> Self {
        let password = prepared(password);
        let mut salted = Zeroizing::new([0; 32]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut *salted);
        let key = |name| Zeroizing::new(mac(&*salted, name));
        Self { client: key(b"Client Key"), server: key(b"Server Key") }
    }

    /// ClientProof and ServerSignature over the messages of a dialogue: what is said, and what must then be heard.
    pub fn sign(&self, messages: &[u8]) -> ([u8; 32], [u8; 32]) {
        let signature = mac(&hash(&*self.client), messages);
        (std::array::from_fn(|at| self.client[at] ^ signature[at]), mac(&*self.server, messages))
    }
}

/// What a server keeps of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// How often a client has to hash.
    pub iterations: NonZeroU32,
    /// The salt.
    pub salt: Vec<u8>,
    stored: [u8; 32],
    server: [u8; 32],
}

impl Keys {
    /// Reads them.
    pub fn parse(text: &str) -> Option<Self> {
        let (cost, keys) = text.strip_prefix(NAME)?.split_once('$')?;
        let ((iterations, salt), (stored, server)) = (cost.split_once(':')?, keys.split_once(':')?);
        let iterations = iterations.parse::<NonZeroU32>().ok().filter(|count| count.get() <= PBKDF2_ITERATIONS)?;
        let key = |text: &str| <[u8; 32]>::try_from(decode(text)?).ok();
        let salt = decode(salt).filter(|salt| !salt.is_empty())?;
        Some(Self { iterations, salt, stored: key(stored)?, server: key(server)? })
    }

    /// Of a new password.
    pub fn make(password: &str) -> Self {
        Self::derive(password, ITERATIONS, random::<16>().to_vec())
    }

    fn derive(password: &str, iterations: NonZeroU32, salt: Vec<u8>) -> Self {
        let Salted { client, server } = Salted::derive(password, iterations, &salt);
        Self { iterations, salt, stored: hash(&*client), server: *server }
    }

    /// Whether they are this password's.
    pub fn fit(&self, password: &str) -> bool {
        is_same(&Self::derive(password, self.iterations, self.salt.clone()).stored, &self.stored)
    }

    /// Whether a client's proof over the messages of the dialogue is right (RFC 5802 §3).
    pub fn accept(&self, messages: &[u8], proof: &[u8]) -> bool {
        let Ok(proof) = <[u8; 32]>::try_from(proof) else { return false };
        let signature = mac(&self.stored, messages);
        let client: [u8; 32] = std::array::from_fn(|at| proof[at] ^ signature[at]);
        is_same(&hash(&client), &self.stored)
    }

    /// The server's own proof.
    pub fn answer(&self, messages: &[u8]) -> [u8; 32] {
        mac(&self.server, messages)
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { iterations, salt, stored, server } = self;
        write!(f, "{NAME}{iterations}:{}${}:{}", encode(salt), encode(stored), encode(server))
    }
}

fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    tag.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

fn hash(text: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, text).as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// What a client says last, for tests: it knows its password, and what was said before.
#[cfg(test)]
pub fn client_last(password: &str, bare: &str, challenge: &str) -> String {
    let field = |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name)).expect("a field");
    let (nonce, salt) = (field("r="), decode(field("s=")).expect("base64"));
    let salted = Salted::derive(password, field("i=").parse().expect("a number"), &salt);
    let (proof, _) = salted.sign(format!("{bare},{challenge},c=biws,r={nonce}").as_bytes());
    format!("c=biws,r={nonce},p={}", encode(&proof))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s63_a_password_beyond_ascii_is_the_same_however_its_letters_are_written() {
        let (keys, other) = (Keys::make("p\u{e4}ssword"), Keys::make("password"));
        for written in ["p\u{e4}ssword", "pa\u{308}ssword", "p\u{e4}s\u{ad}sword"] {
            assert!(keys.fit(written) && !other.fit(written), "{written:?}");
            let salted = Salted::derive(written, keys.iterations, &keys.salt);
            let (proof, server) = salted.sign(b"messages");
            assert!(keys.accept(b"messages", &proof) && server == keys.answer(b"messages"), "{written:?}");
        }
        assert!(!keys.fit("password"));
    }

    /// The dialogue of RFC 7677 §3.
    #[test]
    fn s63_the_example_of_rfc_7677_is_right_for_both_sides() {
        let salt = decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = Keys::derive("pencil", NonZeroU32::new(4096).unwrap(), salt);
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let messages =
            format!("n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}");
        let proof = decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        assert!(keys.accept(messages.as_bytes(), &proof));
        assert_eq!(encode(&keys.answer(messages.as_bytes())), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert!(!keys.accept(messages.replace("n=user", "n=eric").as_bytes(), &proof));
        let salted = Salted::derive("pencil", keys.iterations, &keys.salt);
        assert_eq!(salted.sign(messages.as_bytes()), (proof.try_into().unwrap(), keys.answer(messages.as_bytes())));
        assert_eq!(Keys::parse(&keys.to_string()).as_ref().map(Keys::to_string), Some(keys.to_string()));
    }
}
