//! Hashes of new passwords.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::digest;
use clap::ValueEnum;
use sha_crypt::ShaCrypt;
use sha_crypt::password_hash::CustomizedPasswordHasher;
use yescrypt::Yescrypt;

use super::{directory, encode, random, scram};

/// How a hash is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Scheme {
    /// 19 MiB, two passes (RFC 9106; what OWASP asks for)
    #[default]
    Argon2id,
    /// $y$, what Debian has in /etc/shadow
    Yescrypt,
    /// $2b$, for OpenBSD
    Bcrypt,
    /// $6$, 100,000 rounds
    Sha512,
    /// $5$, 100,000 rounds
    Sha256,
    /// {SSHA}, for old directories: fast, and so the weakest
    Ssha,
    /// Keys with which SCRAM-SHA-256 is offered, too
    Scram,
}

/// Hashes a password with a new salt.
pub fn hash(password: &str, scheme: Scheme) -> String {
    let bytes = password.as_bytes();
    match scheme {
        Scheme::Argon2id => argon2id(bytes),
        Scheme::Yescrypt => {
            let params = yescrypt::Params::default();
            let made = Yescrypt::default().hash_password_customized(bytes, &random::<16>(), None, None, params);
            made.expect("a salt that fits").to_string()
        }
        Scheme::Bcrypt => {
            let made = bcrypt::hash_with_salt(bytes, BCRYPT_COST, random());
            made.expect("a cost within bounds").format_for_version(bcrypt::Version::TwoB)
        }
        Scheme::Sha512 => sha_crypt(bytes, "6"),
        Scheme::Sha256 => sha_crypt(bytes, "5"),
        Scheme::Ssha => {
            let salt: [u8; 8] = random();
            let mut all = directory::digest_of(&digest::SHA1_FOR_LEGACY_USE_ONLY, password, &salt);
            all.extend_from_slice(&salt);
            format!("{{SSHA}}{}", encode(&all))
        }
        Scheme::Scram => scram::Keys::make(password).to_string(),
    }
}

/// 2¹¹ rounds: some 100 ms.
const BCRYPT_COST: u32 = 11;
/// Of SHA-crypt; its own default of 5000 is of 2007.
const ROUNDS: u32 = 100_000;

fn sha_crypt(password: &[u8], id: &str) -> String {
    let params = sha_crypt::Params::new(ROUNDS).expect("within its bounds");
    // 12 bytes are the 16 characters that a salt may have.
    let made = ShaCrypt::default().hash_password_customized(password, &random::<12>(), Some(id), None, params);
    made.expect("a salt that fits").to_string()
}

fn argon2id(password: &[u8]) -> String {
    let (memory, time, lanes) = (19_456, 2, 1);
    let params = Params::new(memory, time, lanes, None).expect("within its bounds");
    let (salt, mut hash): ([u8; 16], _) = (random(), [0; 32]);
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    hasher.hash_password_into(password, &salt, &mut hash).expect("a salt that fits");
    let unpadded = |bytes: &[u8]| encode(bytes).trim_end_matches('=').to_owned();
    format!("$argon2id$v=19$m={memory},t={time},p={lanes}${}${}", unpadded(&salt), unpadded(&hash))
}

#[cfg(test)]
mod tests {
    use ringpost_conf::tables::is_password_hash;

    use super::super::{Checked, check};
    use super::*;

    #[test]
    fn what_is_made_fits_and_is_never_the_same() {
        for scheme in Scheme::value_variants() {
            let made = hash("sécret", *scheme);
            assert!(is_password_hash(&made), "{made}");
            assert_eq!(check("sécret", &made), Checked::Right, "{made}");
            assert_eq!(check("secret", &made), Checked::Wrong, "{made}");
            assert_ne!(made, hash("sécret", *scheme));
            assert!(!made.contains(char::is_whitespace), "it fits a column of a table: {made}");
        }
    }
}
