//! Hashes of crypt(3): bcrypt, SHA-crypt, yescrypt; and argon2, which has the same look.

use argon2::{Algorithm, Argon2, Params, Version};
use sha_crypt::ShaCrypt;
use sha_crypt::password_hash::PasswordVerifier;
use yescrypt::Yescrypt;

use super::check::Checked;
use crate::limits::{ARGON2_MEMORY_KIB, ARGON2_WORK_KIB, BCRYPT_COST, SHA_CRYPT_ROUNDS, YESCRYPT_MEMORY_BYTES};

/// `$ID$…`
pub fn check(password: &str, hash: &str) -> Checked {
    let bytes = password.as_bytes();
    let id = hash.split('$').nth(1).unwrap_or_default();
    match id {
        "2a" | "2b" | "2y" => match bcrypt::verify(bytes, hash).map(|fits| (fits, cost_of_bcrypt(hash))) {
            _ if cost_of_bcrypt(hash).is_some_and(|cost| cost > BCRYPT_COST) => TOO_COSTLY,
            Ok((fits, _)) => Checked::of(fits),
            Err(_) => BROKEN,
        },
        "5" | "6" => {
            let rounds = hash.split('$').nth(2).and_then(|word| word.strip_prefix("rounds="));
            match rounds.map(str::parse::<u32>) {
                Some(Err(_)) => BROKEN,
                Some(Ok(rounds)) if rounds > SHA_CRYPT_ROUNDS => TOO_COSTLY,
                _ if !has_hash(hash) => BROKEN,
                _ => of(ShaCrypt::default().verify_password(bytes, hash)),
            }
        }
        "y" => {
            let params = hash.split('$').nth(2).unwrap_or_default();
            match params.parse::<yescrypt::Params>() {
                Err(_) => BROKEN,
                // More characters are more parameters: time above all.
                Ok(_) if params.len() > 4 => TOO_COSTLY,
                Ok(params) if params.n().saturating_mul(u64::from(params.r()) * 128) > YESCRYPT_MEMORY_BYTES => {
                    TOO_COSTLY
                }
                Ok(_) if !has_hash(hash) => BROKEN,
                Ok(_) => of(Yescrypt::default().verify_password(bytes, hash)),
            }
        }
        "argon2id" => argon2(bytes, hash, Algorithm::Argon2id),
        "argon2i" => argon2(bytes, hash, Algorithm::Argon2i),
        "argon2d" => argon2(bytes, hash, Algorithm::Argon2d),
        _ => Checked::Unusable("a hash of a kind that is not known here, or no longer safe"),
    }
}

const BROKEN: Checked = Checked::Unusable("a hash that is cut off or damaged");
const TOO_COSTLY: Checked = Checked::Unusable("a hash that takes too much time or memory to check");

/// Whether anything stands where the hash proper should: nothing at all would be fitted by everything.
fn has_hash(hash: &str) -> bool {
    hash.rsplit('$').next().is_some_and(|last| last.len() >= 40)
}

fn of(verified: Result<(), sha_crypt::password_hash::Error>) -> Checked {
    match verified {
        Ok(()) => Checked::Right,
        Err(sha_crypt::password_hash::Error::PasswordInvalid) => Checked::Wrong,
        Err(_) => BROKEN,
    }
}

fn cost_of_bcrypt(hash: &str) -> Option<u32> {
    hash.split('$').nth(2)?.parse().ok()
}

/// `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`
fn argon2(password: &[u8], hash: &str, algorithm: Algorithm) -> Checked {
    let mut parts = hash.split('$').skip(2).peekable();
    // Hashes of long ago do not say their version.
    let version = match parts.next_if(|part| part.starts_with("v=")) {
        None | Some("v=16") => Version::V0x10,
        Some("v=19") => Version::V0x13,
        Some(_) => return BROKEN,
    };
    let costs = parts.next().unwrap_or_default();
    let (Some(salt), Some(expected), None) = (parts.next(), parts.next(), parts.next()) else { return BROKEN };
    let cost = |name: char| {
        let mut each = costs.split(',').filter_map(|one| one.split_once('='));
        each.find_map(|(key, value)| (key.len() == 1 && key.starts_with(name)).then(|| value.parse::<u32>().ok())?)
    };
    let (Some(memory), Some(time), Some(lanes)) = (cost('m'), cost('t'), cost('p')) else { return BROKEN };
    if memory > ARGON2_MEMORY_KIB || u64::from(memory) * u64::from(time) > ARGON2_WORK_KIB {
        return TOO_COSTLY;
    }
    let (Some(salt), Some(expected)) = (super::decode(salt), super::decode(expected)) else { return BROKEN };
    let Ok(params) = Params::new(memory, time, lanes, Some(expected.len())) else { return BROKEN };
    let mut found = vec![0; expected.len()];
    match Argon2::new(algorithm, version, params).hash_password_into(password, &salt, &mut found) {
        Ok(()) => Checked::of(super::is_same(&found, &expected)),
        Err(_) => BROKEN,
    }
}
