//! PBKDF2 (RFC 8018 §5.2) in the two ways in which it is written down: `$pbkdf2-sha256$29000$salt$hash`, and OpenLDAP's
//! `{PBKDF2-SHA256}29000$salt$hash`.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;

use super::check::Checked;
use crate::limits::PBKDF2_ITERATIONS;

/// With a `$` in front.
pub fn check(password: &str, hash: &str) -> Checked {
    let mut parts = hash.split('$').skip(1);
    let (Some(name), Some(rest)) = (parts.next(), hash.splitn(3, '$').nth(2)) else { return BROKEN };
    derived(password, name.trim_start_matches("pbkdf2").trim_start_matches('-'), rest)
}

/// `scheme` in capitals, without its braces.
pub fn check_directory(password: &str, scheme: &str, rest: &str) -> Checked {
    let name = scheme.trim_start_matches("PBKDF2").trim_start_matches('-').to_ascii_lowercase();
    derived(password, &name, rest)
}

const BROKEN: Checked = Checked::Unusable("a hash that is cut off or damaged");

/// `iterations$salt$hash`, of which base64 may have `.` for `+`; or with `i=iterations,l=length`.
fn derived(password: &str, digest: &str, rest: &str) -> Checked {
    let algorithm = match digest {
        "" | "sha1" => pbkdf2::PBKDF2_HMAC_SHA1,
        "sha256" => pbkdf2::PBKDF2_HMAC_SHA256,
        "sha512" => pbkdf2::PBKDF2_HMAC_SHA512,
        _ => return Checked::Unusable("PBKDF2 with a digest that is not known here"),
    };
    let parts: Vec<&str> = rest.split('$').collect();
    let [cost, salt, expected] = parts[..] else { return BROKEN };
    let cost = cost.split(',').next().unwrap_or_default();
    let iterations = cost.strip_prefix("i=").unwrap_or(cost).parse::<NonZeroU32>();
    let bytes = |text: &str| super::decode(&text.replace('.', "+"));
    let (Ok(iterations), Some(salt), Some(expected)) = (iterations, bytes(salt), bytes(expected)) else {
        return BROKEN;
    };
    if iterations.get() > PBKDF2_ITERATIONS {
        return Checked::Unusable("a hash that takes too much time to check");
    }
    if expected.len() < 16 || salt.is_empty() {
        return BROKEN;
    }
    Checked::of(pbkdf2::verify(algorithm, iterations, &salt, password.as_bytes(), &expected).is_ok())
}
